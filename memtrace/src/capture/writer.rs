//! Events in, a capture out.
//!
//! The writer buffers one chunk, compresses it, and writes it in one piece, so
//! that whatever ends the tracer leaves whole chunks behind. It stays below the
//! size it was given and keeps room to say how the trace ended. It does not
//! decide when to flush, and does not retry.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zstd::bulk::Compressor;

use super::codec::Encoder;
use super::column::put_varint;
use super::{
    CHUNK_HEADER_LEN, CHUNK_KIND, CHUNK_TARGET, CaptureError, CaptureMeta, ChunkHeader,
    DIRECTORY_MAX, END_KIND, END_LEN, EVENT_MAX, FORMAT_VERSION, HEADER_LEN, MAGIC, MAX_SIZE_MIN,
    META_MAX,
};
use crate::event::{Event, EventBody};

/// Compression level. Against 3, level 6 was measured to save 1 to 3 % and to
/// take two to three times as long, level 1 to need 1 to 3 % more.
const LEVEL: i32 = 3;

/// Bytes kept free for the events that end a trace (`Loss`, `TraceEnd`): some
/// twenty causes at about 50 bytes, a sentence, and a chunk's own header, with
/// room to spare.
const CLOSING_ROOM: u64 = 16 << 10;

/// Buffered column bytes below which a chunk is not sealed just to learn how
/// much smaller it gets: the last chunks before the limit would be tiny.
const SEAL_MIN: usize = 4 << 10;

/// Where a capture can be written.
pub trait Durable: Write {
    /// Returns when what was written would survive a loss of power, where the
    /// destination can promise that.
    fn make_durable(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Durable for File {
    fn make_durable(&mut self) -> io::Result<()> {
        // Pipes and devices refuse.
        if self.metadata()?.is_file() {
            self.sync_all()?;
        }
        Ok(())
    }
}

impl Durable for Vec<u8> {}

/// What became of a pushed event.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the capture.
    Taken,
    /// The size limit is reached: it is not in the capture, and from now on
    /// only `Loss` and `TraceEnd` are taken. The trace has to end.
    Full,
}

/// What a finished capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Events.
    pub events: u64,
    /// Chunks.
    pub chunks: u64,
    /// Size, bytes.
    pub bytes: u64,
}

/// Writes one capture.
pub struct CaptureWriter<W> {
    out: W,
    name: String,
    max_size: u64,
    summary: Summary,
    encoder: Encoder,
    compressor: Compressor<'static>,
    /// One column, compressed.
    squeezed: Vec<u8>,
    /// Directory of the chunk.
    directory: Vec<u8>,
    /// The stored columns of the chunk.
    stored: Vec<u8>,
    /// The chunk as it goes out, in one piece.
    chunk: Vec<u8>,
    full: bool,
    failed: bool,
}

impl CaptureWriter<File> {
    /// Creates the file, replacing one that exists, readable and writable by
    /// its owner alone, at most `max_size` bytes long.
    pub fn create(path: &Path, meta: &CaptureMeta, max_size: u64) -> Result<Self, CaptureError> {
        let name = path.display().to_string();
        check_max_size(max_size)?;
        let open = || {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?;
            // A file that existed keeps its mode; a device is left as it is.
            if file.metadata()?.is_file() {
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            Ok(file)
        };
        let file = open().map_err(|source| CaptureError::Create {
            name: name.clone(),
            source,
        })?;
        CaptureWriter::new(file, name, meta, max_size)
    }
}

impl<W: Durable> CaptureWriter<W> {
    /// Starts a capture of at most `max_size` bytes on `out`, which errors call
    /// `name`.
    pub fn new(
        out: W,
        name: String,
        meta: &CaptureMeta,
        max_size: u64,
    ) -> Result<Self, CaptureError> {
        check_max_size(max_size)?;
        let encode = |source| CaptureError::Encode {
            name: name.clone(),
            source,
        };
        let header = header(meta).map_err(|error| encode(error.into()))?;
        let room = usize::try_from(max_size / 4)
            .unwrap_or(META_MAX)
            .min(META_MAX);
        if header.len() > room {
            return Err(CaptureError::TooLarge {
                what: "metadata",
                bytes: header.len(),
                max: room,
            });
        }
        let compressor = Compressor::new(LEVEL).map_err(encode)?;
        let mut writer = CaptureWriter {
            out,
            name,
            max_size,
            summary: Summary {
                events: 0,
                chunks: 0,
                bytes: 0,
            },
            encoder: Encoder::default(),
            compressor,
            squeezed: Vec::new(),
            directory: Vec::new(),
            stored: Vec::new(),
            chunk: header,
            full: false,
            failed: false,
        };
        writer.write_chunk()?;
        Ok(writer)
    }

    /// Adds an event, unless the capture is full.
    pub fn push(&mut self, event: &Event) -> Result<Pushed, CaptureError> {
        self.check_failed()?;
        let need = Encoder::size_max(event);
        if need > EVENT_MAX {
            return Err(CaptureError::TooLarge {
                what: "an event",
                bytes: need,
                max: EVENT_MAX,
            });
        }
        let closing = matches!(
            event.body,
            EventBody::Loss { .. } | EventBody::TraceEnd { .. }
        );
        // A smaller event that still fits must not follow one that did not:
        // the capture would have a hole.
        if self.full && !closing {
            return Ok(Pushed::Full);
        }
        if !self.fits(need, closing) {
            if self.encoder.columns().len() >= SEAL_MIN {
                self.seal()?;
            }
            if !self.fits(need, closing) {
                self.full = true;
                return Ok(Pushed::Full);
            }
        }
        self.encoder.push(event);
        if self.encoder.columns().len() >= CHUNK_TARGET {
            self.seal()?;
        }
        Ok(Pushed::Taken)
    }

    /// Hands every event pushed so far to the operating system: the capture is
    /// then readable up to here, whatever happens to this process.
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        self.check_failed()?;
        self.seal()?;
        let flushed = self.out.flush();
        self.written(flushed)
    }

    /// Bytes handed to the operating system so far.
    pub fn bytes_written(&self) -> u64 {
        self.summary.bytes
    }

    /// Events in the capture so far.
    pub fn events(&self) -> u64 {
        self.summary.events + u64::from(self.encoder.events())
    }

    /// Writes what is buffered and the end marker, and returns when all of it
    /// is on the disk, with the destination.
    pub fn finish(mut self) -> Result<(Summary, W), CaptureError> {
        self.flush()?;
        self.chunk.clear();
        let mut totals = [0; END_LEN];
        totals[..8].copy_from_slice(&self.summary.events.to_le_bytes());
        totals[8..].copy_from_slice(&self.summary.chunks.to_le_bytes());
        let header = ChunkHeader {
            kind: END_KIND,
            raw_len: 0,
            content_len: END_LEN as u32,
            events: 0,
            content_crc: crc32fast::hash(&totals),
        };
        self.chunk.extend_from_slice(&header.to_bytes());
        self.chunk.extend_from_slice(&totals);
        self.write_chunk()?;
        let durable = self.out.flush().and_then(|()| self.out.make_durable());
        self.written(durable)?;
        Ok((self.summary, self.out))
    }

    /// Whether the capture stays within its limit with `need` more column
    /// bytes, even if nothing can be compressed.
    fn fits(&self, need: usize, closing: bool) -> bool {
        let chunk = CHUNK_HEADER_LEN + DIRECTORY_MAX + self.encoder.columns().len() + need;
        let end = CHUNK_HEADER_LEN + END_LEN;
        let kept = if closing { 0 } else { CLOSING_ROOM };
        self.summary.bytes + (chunk + end) as u64 + kept <= self.max_size
    }

    /// Compresses and writes the buffered events, if there are any.
    fn seal(&mut self) -> Result<(), CaptureError> {
        let events = self.encoder.events();
        if events == 0 {
            return Ok(());
        }
        self.fill_chunk(events)
            .map_err(|source| CaptureError::Encode {
                name: self.name.clone(),
                source,
            })?;
        self.write_chunk()?;
        self.summary.events += u64::from(events);
        self.summary.chunks += 1;
        self.encoder.clear();
        Ok(())
    }

    fn fill_chunk(&mut self, events: u32) -> io::Result<()> {
        self.directory.clear();
        self.stored.clear();
        for column in self.encoder.columns().iter() {
            self.squeezed.clear();
            self.squeezed
                .reserve(zstd::zstd_safe::compress_bound(column.len()));
            self.compressor
                .compress_to_buffer(column, &mut self.squeezed)?;
            let stored = if self.squeezed.len() < column.len() {
                self.squeezed.as_slice()
            } else {
                column
            };
            put_varint(&mut self.directory, column.len() as u64);
            put_varint(&mut self.directory, stored.len() as u64);
            self.stored.extend_from_slice(stored);
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.directory);
        crc.update(&self.stored);
        let too_long = |_| io::Error::other("a chunk is too long");
        let header = ChunkHeader {
            kind: CHUNK_KIND,
            raw_len: u32::try_from(self.encoder.columns().len()).map_err(too_long)?,
            content_len: u32::try_from(self.directory.len() + self.stored.len())
                .map_err(too_long)?,
            events,
            content_crc: crc.finalize(),
        };
        self.chunk.clear();
        self.chunk.extend_from_slice(&header.to_bytes());
        self.chunk.extend_from_slice(&self.directory);
        self.chunk.extend_from_slice(&self.stored);
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), CaptureError> {
        let written = self.out.write_all(&self.chunk);
        self.written(written)?;
        self.summary.bytes += self.chunk.len() as u64;
        Ok(())
    }

    /// After a failed write part of a chunk may be in the file: a further one
    /// would be taken for its rest.
    fn written(&mut self, result: io::Result<()>) -> Result<(), CaptureError> {
        result.map_err(|source| {
            self.failed = true;
            CaptureError::Write {
                name: self.name.clone(),
                written: self.summary.bytes,
                source,
            }
        })
    }

    fn check_failed(&self) -> Result<(), CaptureError> {
        if self.failed {
            return Err(CaptureError::Failed {
                name: self.name.clone(),
            });
        }
        Ok(())
    }
}

fn check_max_size(max_size: u64) -> Result<(), CaptureError> {
    if max_size < MAX_SIZE_MIN {
        return Err(CaptureError::TooSmall {
            max_size,
            at_least: MAX_SIZE_MIN,
        });
    }
    Ok(())
}

fn header(meta: &CaptureMeta) -> Result<Vec<u8>, serde_json::Error> {
    let meta = serde_json::to_vec(meta)?;
    let mut header = Vec::with_capacity(HEADER_LEN + meta.len());
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    // A longer one is refused by the caller before it is written.
    header.extend_from_slice(&u32::try_from(meta.len()).unwrap_or(u32::MAX).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&meta).to_le_bytes());
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header.extend_from_slice(&meta);
    Ok(header)
}
