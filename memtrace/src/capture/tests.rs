//! Captures as a whole: what goes in comes out, and nothing else ever does.

mod arbitrary;
mod files;
mod hostile;

use super::column::{put_varint, take_varint, unzigzag, zigzag};
use super::*;
use crate::event::{Event, EventBody};
use arbitrary::{alloc, any_event, busy_events, every_kind, free};
use proptest::prelude::*;

/// Writes `events`, flushing after every `chunk` of them.
fn write(events: &[Event], chunk: usize) -> Vec<u8> {
    let mut writer = CaptureWriter::new(Vec::new(), "test".into(), &meta(), u64::MAX).unwrap();
    for events in events.chunks(chunk.max(1)) {
        for event in events {
            assert_eq!(writer.push(event).unwrap(), Pushed::Taken);
        }
        writer.flush().unwrap();
    }
    let (summary, bytes) = writer.finish().unwrap();
    assert_eq!(summary.events, events.len() as u64);
    assert_eq!(summary.bytes, bytes.len() as u64);
    bytes
}

fn read(bytes: &[u8]) -> Result<(Vec<Event>, Status), CaptureError> {
    let mut reader = CaptureReader::new(bytes, "test".into())?;
    let mut events = Vec::new();
    reader.for_each(|event| events.push(event))?;
    Ok((events, reader.status().clone()))
}

fn meta() -> CaptureMeta {
    CaptureMeta {
        tool_version: "0.1.0".into(),
        created_unix_ns: 1_763_733_600_123_456_789,
        targets: vec!["--pid 4711".into()],
        realtime_offset_ns: -5,
        ..CaptureMeta::default()
    }
}

#[test]
fn every_kind_comes_back() {
    let events = every_kind();
    let (read, status) = read(&write(&events, usize::MAX)).unwrap();
    assert_eq!(read, events);
    assert_eq!(status, Status::Complete);
}

#[test]
fn nothing_is_a_whole_capture_too() {
    let (read, status) = read(&write(&[], 1)).unwrap();
    assert_eq!(read, []);
    assert_eq!(status, Status::Complete);
}

#[test]
fn a_long_capture_comes_back_over_many_chunks_and_batches() {
    let mut events = Vec::new();
    for i in 0..120_000u64 {
        // A stride that leaves little to compress, so that chunks fill up.
        let addr = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        events.push(alloc(i * 1000, 7, 7 + (i % 3) as u32, addr, i % 5000));
    }
    let bytes = write(&events, usize::MAX);
    let mut reader = CaptureReader::new(bytes.as_slice(), "test".into()).unwrap();
    let mut batch = Vec::new();
    let mut batches = 0;
    let mut position = 0;
    while reader.next_batch(&mut batch).unwrap() {
        assert!(!batch.is_empty() && batch.len() <= 4096);
        assert_eq!(batch, events[position..position + batch.len()]);
        position += batch.len();
        batches += 1;
    }
    assert_eq!(position, events.len());
    assert!(batches > 20);
    assert_eq!(*reader.status(), Status::Complete);
    assert!(batch.is_empty());
    assert!(!reader.next_batch(&mut batch).unwrap());
}

#[test]
fn malloc_and_free_pairs_take_few_bytes() {
    let mut events = Vec::new();
    for i in 0..50_000u64 {
        let addr = 0x7f00_0000_1000 + i % 7 * 4096;
        let ts_ns = 1_000_000 + i * 3000 + i * i % 997;
        events.push(alloc(ts_ns, 9, 9, addr, 512 + i % 7));
        events.push(free(ts_ns + 1100 + i % 13, 9, 9, addr));
    }
    let bytes = write(&events, usize::MAX).len();
    assert!(bytes < events.len() * 3, "{bytes} bytes");
}

#[test]
fn a_capture_is_read_as_far_as_it_was_flushed() {
    let events = every_kind();
    let whole = write(&events, 5);
    let (all, _) = read(&whole).unwrap();
    assert_eq!(all, events);
    let mut seen = 0;
    for cut in 0..whole.len() {
        let (part, status) = read(&whole[..cut]).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        assert_eq!(part, events[..part.len()], "cut at {cut}");
        // Whole chunks only, and never fewer than from a shorter cut.
        assert!(part.len() % 5 == 0 || part.len() == events.len());
        assert!(part.len() >= seen, "cut at {cut}");
        seen = part.len();
        match status {
            Status::Truncated(words) => assert!(words.starts_with("it "), "{words}"),
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
    assert_eq!(seen, events.len());
}

#[test]
fn metadata_comes_back_and_may_grow_or_shrink() {
    let bytes = write(&[], 1);
    let reader = CaptureReader::new(bytes.as_slice(), "test".into()).unwrap();
    assert_eq!(*reader.meta(), meta());
    let other: CaptureMeta = serde_json::from_str(r#"{"arch":"riscv64","colour":"red"}"#).unwrap();
    assert_eq!(other.arch, "riscv64");
    assert_eq!(other.retain_ns, 1_000_000_000);
}

#[test]
fn the_format_is_what_it_was() {
    // Columns this short are stored as they are, whatever zstd does. If this
    // fails the format has changed: raise FORMAT_VERSION and keep reading the
    // old one.
    let events = [
        alloc(1000, 300, 301, 0x5000, 64),
        free(1300, 300, 301, 0x5000),
        alloc(1200, 300, 300, 0x5000, 64),
        alloc(1201, 300, 301, 0x5000, 60),
        Event {
            ts_ns: 1201,
            pid: 300,
            tid: 301,
            body: EventBody::TraceEnd { why: "Z".into() },
        },
    ];
    let bytes = write(&events, usize::MAX);
    let header = HEADER_LEN + serde_json::to_vec(&meta()).unwrap().len();
    assert_eq!(&bytes[..12], b"\x89mtrace\n\x02\0\0\0");
    #[rustfmt::skip]
    let content: [u8; 55] = [
        // Directory: tags, threads, time low, time high, sizes, blocks,
        // addresses, facts, bytes.
        5, 5, 9, 9, 5, 5, 5, 5, 3, 3, 4, 4, 4, 4, 1, 1, 1, 1,
        0x81, 0x02, 0xc1, 0x81, 0x15,
        0, 0xac, 2, 2, 1, 0xac, 2, 0, 0,
        232, 44, 100, 1, 0,
        3, 1, 0, 0, 0,
        64, 64, 60,
        0, 1, 0, 1,
        0x80, 0x0a, 0x80, 0x0a,
        1,
        b'Z',
    ];
    let chunk = ChunkHeader {
        kind: *b"CHNK",
        raw_len: 37,
        content_len: 55,
        events: 5,
        content_crc: crc32fast::hash(&content),
    };
    assert_eq!(bytes[header..header + 24], chunk.to_bytes());
    assert_eq!(&bytes[header + 24..header + 24 + 55], content);
    assert_eq!(&bytes[header + 24 + 55..][..4], b"ENDS");
}

#[test]
fn a_full_capture_still_says_how_it_ended() {
    // One size that compresses well and one that does not at all.
    for random in [false, true] {
        for max_size in [MAX_SIZE_MIN, 300_000, 1_000_000] {
            let mut writer =
                CaptureWriter::new(Vec::new(), "test".into(), &meta(), max_size).unwrap();
            let mut expected = Vec::new();
            let mut noise = 1u64;
            for i in 0..1_000_000u64 {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                let event = if random {
                    alloc(noise, noise as u32, i as u32, noise.rotate_left(9), noise)
                } else {
                    let addr = 4096 + (noise >> 40) % 4096 * 16;
                    alloc(i * 4000 + (noise >> 52), 4, 4, addr, i % 900)
                };
                match writer.push(&event).unwrap() {
                    Pushed::Taken => expected.push(event),
                    Pushed::Full => break,
                }
            }
            assert!(expected.len() < 1_000_000);
            // Full is for good, whatever would still fit.
            let small = free(0, 4, 4, 1);
            assert_eq!(writer.push(&small).unwrap(), Pushed::Full);
            let mut closing = Vec::new();
            for cause in 0..20 {
                closing.push(EventBody::Loss {
                    cause: format!("some_cause_of_loss_{cause}"),
                    total: u64::MAX,
                });
            }
            closing.push(EventBody::TraceEnd {
                why: "the capture reached its size limit".repeat(4),
            });
            for body in closing {
                let event = Event {
                    ts_ns: u64::MAX,
                    pid: 0,
                    tid: 0,
                    body,
                };
                assert_eq!(writer.push(&event).unwrap(), Pushed::Taken);
                // The worst caller seals after each.
                writer.flush().unwrap();
                expected.push(event);
            }
            let (summary, bytes) = writer.finish().unwrap();
            assert!(summary.bytes <= max_size, "{summary:?}");
            assert!(summary.bytes + 24_000 > max_size, "wasted: {summary:?}");
            let (events, status) = read(&bytes).unwrap();
            assert_eq!(events, expected);
            assert_eq!(status, Status::Complete);
        }
    }
}

#[test]
fn the_limit_holds_even_for_endless_closing_events() {
    let mut writer = CaptureWriter::new(Vec::new(), "test".into(), &meta(), MAX_SIZE_MIN).unwrap();
    let event = Event {
        ts_ns: 1,
        pid: 0,
        tid: 0,
        body: EventBody::TraceEnd {
            why: "x".repeat(1000),
        },
    };
    let mut taken = 0;
    while writer.push(&event).unwrap() == Pushed::Taken {
        writer.flush().unwrap();
        taken += 1;
    }
    let (summary, bytes) = writer.finish().unwrap();
    assert!(summary.bytes <= MAX_SIZE_MIN);
    assert_eq!(read(&bytes).unwrap().0.len(), taken);
}

#[test]
fn what_cannot_fit_is_refused() {
    let new = |meta: &CaptureMeta, max| CaptureWriter::new(Vec::new(), "x".into(), meta, max);
    let small = new(&meta(), MAX_SIZE_MIN - 1).err().unwrap().to_string();
    assert!(
        small.contains("65535") && small.contains("65536"),
        "{small}"
    );
    let mut large = meta();
    large.targets = vec!["x".repeat(20_000)];
    assert!(matches!(
        new(&large, MAX_SIZE_MIN),
        Err(CaptureError::TooLarge { .. })
    ));
    let mut writer = new(&meta(), u64::MAX).unwrap();
    let event = Event {
        ts_ns: 1,
        pid: 0,
        tid: 0,
        body: EventBody::TraceEnd {
            why: "x".repeat(EVENT_MAX),
        },
    };
    assert!(matches!(
        writer.push(&event),
        Err(CaptureError::TooLarge { .. })
    ));
    // It is as if the event had never come.
    let ok = free(1, 1, 1, 1);
    assert_eq!(writer.push(&ok).unwrap(), Pushed::Taken);
    assert_eq!(read(&writer.finish().unwrap().1).unwrap().0, [ok]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn varints_come_back(value: u64, signed: i64, rest: Vec<u8>) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        prop_assert!(bytes.len() <= 10);
        bytes.extend_from_slice(&rest);
        let mut left = bytes.as_slice();
        prop_assert_eq!(take_varint(&mut left), Ok(value));
        prop_assert_eq!(left, rest.as_slice());
        prop_assert_eq!(unzigzag(zigzag(signed)), signed);
    }

    #[test]
    fn any_events_come_back(
        events in prop::collection::vec(any_event(), 0..120),
        chunk in 1usize..200,
    ) {
        let bytes = write(&events, chunk);
        // The same events, the same bytes.
        prop_assert_eq!(&bytes, &write(&events, chunk));
        let (read, status) = read(&bytes).unwrap();
        prop_assert_eq!(read, events);
        prop_assert_eq!(status, Status::Complete);
    }

    #[test]
    fn blocks_that_come_and_go_come_back(
        events in busy_events(),
        chunk in 100usize..2000,
    ) {
        let (read, status) = read(&write(&events, chunk)).unwrap();
        prop_assert_eq!(read, events);
        prop_assert_eq!(status, Status::Complete);
    }

    #[test]
    fn no_event_takes_more_than_it_was_given_room_for(
        events in prop::collection::vec(any_event(), 1..40),
    ) {
        let mut encoder = codec::Encoder::default();
        for event in &events {
            let before = encoder.columns().len();
            encoder.push(event);
            prop_assert!(encoder.columns().len() - before <= codec::Encoder::size_max(event));
        }
    }
}
