//! Any bytes open as a capture or are refused; whatever events come out can be
//! written and read again, and give a report.
//!
//! Bytes that the fuzzer makes up hardly ever have the right checksums, so two
//! of three kinds of input are put into an envelope that has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::analyse::CaptureFacts;
use memtrace::capture::{CaptureReader, Status};
use memtrace::event::Event;
use memtrace::pipeline::Pipeline;
use memtrace_fuzz::captures::{read, written};

/// A number followed by its bytes' checksum, as in the format's headers.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn header(metadata: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x89mtrace\n".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend((metadata.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(metadata).to_le_bytes());
    let mut bytes = sealed(bytes);
    bytes.extend(metadata);
    bytes
}

fn chunk(raw_len: u32, events: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = b"CHNK".to_vec();
    bytes.extend(raw_len.to_le_bytes());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(events.to_le_bytes());
    bytes.extend(crc32fast::hash(content).to_le_bytes());
    let mut bytes = sealed(bytes);
    bytes.extend(content);
    bytes
}

/// The input as the content of one chunk.
fn as_content(input: &[u8]) -> Vec<u8> {
    let Some((numbers, content)) = input.split_first_chunk::<4>() else {
        return Vec::new();
    };
    let [raw_low, raw_high, events_low, events_high] = *numbers;
    let raw_len = u16::from_le_bytes([raw_low, raw_high]);
    let events = u16::from_le_bytes([events_low, events_high]);
    let mut capture = header(b"{}");
    capture.extend(chunk(u32::from(raw_len), u32::from(events), content));
    capture
}

/// The input as the nine columns of one chunk, none of them compressed.
fn as_columns(input: &[u8]) -> Vec<u8> {
    let Some((lengths, mut rest)) = input.split_first_chunk::<8>() else {
        return Vec::new();
    };
    let mut directory = Vec::new();
    let mut columns: Vec<u8> = Vec::new();
    let mut events = None;
    for length in lengths.map(usize::from).into_iter().chain([usize::MAX]) {
        // At most 127: one byte as a varint; the last column takes the rest.
        let (column, behind) = rest.split_at(length.min(rest.len()).min(127));
        rest = behind;
        events.get_or_insert(column.len() as u32);
        directory.extend([column.len() as u8; 2]);
        columns.extend(column);
    }
    let raw_len = columns.len() as u32;
    directory.extend(columns);
    let mut capture = header(b"{\"retain_ns\":7}");
    capture.extend(chunk(raw_len, events.unwrap_or(0), &directory));
    capture
}

fuzz_target!(|input: &[u8]| {
    let Some((how, input)) = input.split_first() else {
        return;
    };
    let capture = match how % 3 {
        0 => input.to_vec(),
        1 => as_content(input),
        _ => as_columns(input),
    };
    let Ok(mut reader) = CaptureReader::new(capture.as_slice(), "input".to_owned()) else {
        return;
    };
    let mut events: Vec<Event> = Vec::new();
    let read_to = reader.for_each(|event| events.push(event));
    let status = read_to.expect("a slice can be read").clone();
    assert_ne!(status, Status::Reading);
    assert_eq!(status.trouble().is_none(), status == Status::Complete);
    assert_eq!(read(&written(&events)), events);
    let mut pipeline = Pipeline::new(reader.meta().retain_ns);
    for event in &events {
        pipeline.event(event);
    }
    pipeline.finish();
    let report = pipeline.report(&CaptureFacts::default());
    assert_eq!(report.capture.events, events.len() as u64);
});
