//! Captures on real files, and destinations that fail.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::arbitrary::{alloc, every_kind};
use super::{meta, read, write};
use crate::capture::{CaptureError, CaptureReader, CaptureWriter, Durable, Pushed, Status};

/// A directory that goes when the test does.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Place {
        let path =
            std::env::temp_dir().join(format!("memtrace-capture-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_is_private_and_readable_while_it_grows() {
    let place = Place::new("private");
    let path = place.0.join("x.capture");
    // One that exists, is longer, and is open to all.
    fs::write(&path, vec![7; 100_000]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut writer = CaptureWriter::create(&path, &meta(), u64::MAX).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let events = every_kind();
    for event in &events {
        assert_eq!(writer.push(event).unwrap(), Pushed::Taken);
    }
    assert_eq!(writer.events(), events.len() as u64);
    writer.flush().unwrap();
    assert_eq!(writer.bytes_written(), fs::metadata(&path).unwrap().len());
    // As a killed tracer would have left it.
    let (seen, status) = read(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(seen, events);
    assert!(matches!(status, Status::Truncated(_)), "{status:?}");
    let (summary, _) = writer.finish().unwrap();
    assert_eq!(summary.bytes, fs::metadata(&path).unwrap().len());

    let mut reader = CaptureReader::open(&path).unwrap();
    assert_eq!(*reader.meta(), meta());
    let mut seen = Vec::new();
    assert_eq!(
        *reader.for_each(|event| seen.push(event)).unwrap(),
        Status::Complete
    );
    assert_eq!(seen, events);
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let place = Place::new("errors");
    let missing = place.0.join("missing");
    let error = CaptureReader::open(&missing).err().unwrap().to_string();
    assert!(
        error.contains("missing") && error.contains("No such file"),
        "{error}"
    );
    let error = CaptureReader::open(&place.0).err().unwrap().to_string();
    assert!(error.contains("directory"), "{error}");
    let below = missing.join("x.capture");
    let error = CaptureWriter::create(&below, &meta(), u64::MAX)
        .err()
        .unwrap();
    assert!(matches!(error, CaptureError::Create { .. }));
    assert!(error.to_string().contains("x.capture"), "{error}");
    // A disk without any room.
    let error = CaptureWriter::create(Path::new("/dev/full"), &meta(), u64::MAX)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("/dev/full") && error.contains("No space left"),
        "{error}"
    );
}

/// A disk with room for `room` bytes.
struct SmallDisk {
    room: usize,
    bytes: Vec<u8>,
}

impl Write for &mut SmallDisk {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.room - self.bytes.len());
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Durable for &mut SmallDisk {}

#[test]
fn a_full_disk_leaves_whole_chunks() {
    let events: Vec<_> = (0..200)
        .map(|i| alloc(i * 100, 1, 1, i * 7919, i))
        .collect();
    let whole = write(&events, 20).len();
    let mut partial = 0;
    for room in 0..whole {
        let mut disk = SmallDisk {
            room,
            bytes: Vec::new(),
        };
        let mut run = || -> Result<(), CaptureError> {
            let mut writer = CaptureWriter::new(&mut disk, "disk".into(), &meta(), u64::MAX)?;
            for events in events.chunks(20) {
                for event in events {
                    assert_eq!(writer.push(event)?, Pushed::Taken);
                }
                if let Err(error) = writer.flush() {
                    // It stays failed: nothing is written behind half a chunk.
                    let again = writer.push(&events[0]);
                    assert!(matches!(again, Err(CaptureError::Failed { .. })));
                    assert!(matches!(writer.flush(), Err(CaptureError::Failed { .. })));
                    assert!(matches!(writer.finish(), Err(CaptureError::Failed { .. })));
                    return Err(error);
                }
            }
            writer.finish().map(|_| ())
        };
        let Err(CaptureError::Write { name, written, .. }) = run() else {
            panic!("room {room}: no write error");
        };
        assert_eq!(name, "disk");
        assert!(written as usize <= room);
        let (seen, status) = read(&disk.bytes).unwrap();
        assert_eq!(seen, events[..seen.len()]);
        assert!(matches!(status, Status::Truncated(_)), "room {room}");
        // What the error promises can be read is what is read.
        let (promised, _) = read(&disk.bytes[..written as usize]).unwrap();
        assert_eq!(promised, seen);
        if !seen.is_empty() && seen.len() < events.len() {
            partial += 1;
        }
    }
    assert!(partial > 100);
}
