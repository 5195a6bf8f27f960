//! Captures in memory.

use memtrace::capture::{CaptureMeta, CaptureReader, CaptureWriter, Pushed, Status};
use memtrace::event::Event;

/// A capture of these events.
pub fn written(events: &[Event]) -> Vec<u8> {
    let mut writer = CaptureWriter::new(
        Vec::new(),
        "a vector".to_owned(),
        &CaptureMeta::default(),
        1 << 30,
    )
    .expect("a vector takes everything");
    for event in events {
        assert_eq!(writer.push(event).expect("it fits"), Pushed::Taken);
    }
    writer.finish().expect("a vector takes everything").1
}

/// The events of a whole capture.
pub fn read(capture: &[u8]) -> Vec<Event> {
    let mut reader = CaptureReader::new(capture, "a slice".to_owned()).expect("a capture");
    let mut events = Vec::new();
    let status = reader.for_each(|event| events.push(event));
    assert_eq!(*status.expect("a slice can be read"), Status::Complete);
    events
}
