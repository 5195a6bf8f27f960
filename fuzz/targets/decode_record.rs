//! Any ring record is an event or an error; an event goes through a capture
//! unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::decode;
use memtrace::event::{EventBody, RawEvent};
use memtrace_fuzz::captures::{read, written};

fuzz_target!(|input: &[u8]| {
    // Many records, each after a byte with its length, so that one input can
    // hold several of a thread.
    let mut events = Vec::new();
    let mut rest = input;
    while let Some((length, behind)) = rest.split_first() {
        let (record, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        match decode::record(record) {
            Ok(RawEvent { event, captured }) => {
                if let EventBody::Data(data) = &event.body {
                    assert!(captured.payload.len() as u64 <= data.len);
                    assert!(captured.tail.is_empty() || captured.tail.len() == 8);
                    assert!(!data.unreadable || captured.payload.is_empty());
                }
                events.push(event);
            }
            Err(error) => assert!(error.cause().starts_with("record_")),
        }
    }
    assert_eq!(read(&written(&events)), events);
});
