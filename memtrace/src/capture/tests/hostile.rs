//! Bytes that no writer wrote.

use proptest::prelude::*;

use super::arbitrary::{busy_events, every_kind};
use super::{meta, read, write};
use crate::capture::column::{Column, put_varint};
use crate::capture::{
    CHUNK_HEADER_LEN, CHUNK_KIND, CHUNK_MAX, CaptureError, ChunkHeader, HEADER_LEN, Status,
};

/// Bytes before the first chunk of a capture with the tests' metadata.
fn header_len() -> usize {
    HEADER_LEN + serde_json::to_vec(&meta()).unwrap().len()
}

/// A capture of one chunk that has `content` and right checksums.
fn sealed(raw_len: u32, events: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = write(&[], 1);
    bytes.truncate(header_len());
    let header = ChunkHeader {
        kind: CHUNK_KIND,
        raw_len,
        content_len: content.len() as u32,
        events,
        content_crc: crc32fast::hash(content),
    };
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// The same with `columns` stored as they are.
fn sealed_columns(columns: &[Vec<u8>; Column::COUNT]) -> Vec<u8> {
    let mut content = Vec::new();
    for column in columns {
        put_varint(&mut content, column.len() as u64);
        put_varint(&mut content, column.len() as u64);
    }
    let raw_len = columns.iter().map(Vec::len).sum::<usize>();
    content.extend(columns.iter().flatten());
    sealed(
        raw_len as u32,
        columns[Column::Tags as usize].len() as u32,
        &content,
    )
}

fn damage(bytes: &[u8]) -> String {
    match read(bytes).unwrap().1 {
        Status::Damaged(words) => words,
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_files_are_no_captures() {
    for bytes in [
        &b"\x7fELF\x02\x01\x01"[..],
        b"{}",
        b"\n",
        b"\x89PNG\r\n",
        b"\x89mtrace\r\nxxxxxxxxxxxxxxx",
    ] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, CaptureError::NotACapture { .. }));
        assert!(error.to_string().contains("not a memtrace capture"));
    }
}

#[test]
fn another_version_says_so() {
    let mut bytes = write(&every_kind(), 5);
    bytes[8] = 3;
    let error = read(&bytes).unwrap_err().to_string();
    assert!(
        error.contains("version 3") && error.contains("reads version 2"),
        "{error}"
    );
    // Even if nothing behind the version can be understood, or is there.
    assert!(read(&bytes[..12]).is_err());
    assert!(read(&bytes[..11]).is_ok());
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let events = every_kind();
    let bytes = write(&events, 4);
    for position in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[position] ^= 1 << (position % 8);
        match read(&bad) {
            Ok((seen, status)) => {
                // Version 0, which never was, has flipped only its lowest bit.
                assert!(position == 8 || position >= 12);
                // Everything before the damage, and nothing that was not there.
                assert_eq!(seen, events[..seen.len()]);
                assert!(matches!(status, Status::Damaged(_)), "byte {position}");
            }
            Err(CaptureError::NotACapture { .. }) => assert!(position < 8),
            Err(CaptureError::OtherVersion { .. }) => assert!((8..12).contains(&position)),
            Err(other) => panic!("byte {position}: {other}"),
        }
    }
}

#[test]
fn chunks_before_the_damage_are_read() {
    let events = every_kind();
    let mut bytes = write(&events, 4);
    // The third chunk's content.
    let mut at = header_len();
    for _ in 0..2 {
        let length = &bytes[at + 8..at + 12];
        at += CHUNK_HEADER_LEN + u32::from_le_bytes(length.try_into().unwrap()) as usize;
    }
    bytes[at + CHUNK_HEADER_LEN + 3] ^= 0x10;
    let (seen, status) = read(&bytes).unwrap();
    assert_eq!(seen, events[..8]);
    let expected = format!(
        "the chunk at byte {at} is damaged (its checksum is wrong); \
         8 events before it were read"
    );
    assert_eq!(status, Status::Damaged(expected));
}

#[test]
fn a_missing_chunk_is_noticed() {
    let events = every_kind();
    let mut bytes = write(&events, 4);
    let at = header_len();
    let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    bytes.drain(at..at + CHUNK_HEADER_LEN + length);
    assert!(damage(&bytes).contains("counts other events"));
    let mut longer = write(&events, 4);
    longer.push(0);
    assert!(damage(&longer).contains("follow the end marker"));
}

#[test]
fn lengths_are_not_believed() {
    // Far more than is there, and than a chunk may hold.
    let mut bytes = sealed(u32::MAX, 1, b"");
    assert!(damage(&bytes).contains("makes no sense"));
    let at = header_len();
    let huge = ChunkHeader {
        kind: CHUNK_KIND,
        raw_len: 1,
        content_len: u32::MAX,
        events: 1,
        content_crc: 0,
    };
    bytes[at..at + CHUNK_HEADER_LEN].copy_from_slice(&huge.to_bytes());
    assert!(damage(&bytes).contains("makes no sense"));
    // Columns that do not add up.
    assert!(damage(&sealed(3, 1, &[1; 18])).contains("contradict"));
    let mut content = Vec::new();
    for _ in 0..18 {
        put_varint(&mut content, u64::MAX);
    }
    assert!(damage(&sealed(200, 1, &content)).contains("contradict"));
    assert!(damage(&sealed(9, 1, &[0xff; 40])).contains("a number is"));
    // No events.
    assert!(damage(&sealed(0, 0, &[0; 18])).contains("contradict"));
}

#[test]
fn a_column_expands_to_what_it_claims_and_no_more() {
    // Tags that expand to more, less, and exactly what their length says.
    for (real, claimed, good) in [
        (CHUNK_MAX * 8, 1000, false),
        (999, 1000, false),
        (1000, 1000, true),
    ] {
        let squeezed = zstd::bulk::compress(&vec![20; real], 3).unwrap();
        let mut content = Vec::new();
        let zeros = vec![0; claimed];
        let threads = [0, 1, 0];
        for column in 0..Column::COUNT {
            let (raw, stored) = match column {
                0 => (claimed, squeezed.len()),
                1 => (threads.len(), threads.len()),
                2 | 3 => (zeros.len(), zeros.len()),
                _ => (0, 0),
            };
            put_varint(&mut content, raw as u64);
            put_varint(&mut content, stored as u64);
        }
        content.extend_from_slice(&squeezed);
        content.extend_from_slice(&threads);
        content.extend_from_slice(&zeros);
        content.extend_from_slice(&zeros);
        let words = damage(&sealed(
            (claimed * 3 + threads.len()) as u32,
            claimed as u32,
            &content,
        ));
        // The good one unpacks; then its first event has no thread.
        assert_eq!(words.contains("names no thread"), good, "{words}");
    }
}

/// Columns of which some values are likely to be understood.
fn likely_columns() -> impl Strategy<Value = [Vec<u8>; Column::COUNT]> {
    let byte = || prop_oneof![4 => 0..4u8, 1 => any::<u8>()];
    let column = move || prop::collection::vec(byte(), 0..300);
    let tag = prop_oneof![8 => 1..22u8, 1 => any::<u8>()];
    let tags = prop::collection::vec(tag, 1..120);
    let rest = prop::array::uniform7(column());
    (tags, any::<bool>(), rest).prop_map(|(mut tags, thread, rest)| {
        if thread {
            tags[0] |= 0x80;
        }
        let low = vec![1; tags.len()];
        let [a, b, c, d, e, f, g] = rest;
        [tags, a, low, b, c, d, e, f, g]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        prop_assert!(matches!(
            read(&bytes),
            Ok((_, Status::Truncated(_) | Status::Damaged(_))) | Err(_)
        ));
    }

    #[test]
    fn any_chunk_content_is_survived(content: Vec<u8>, raw_len in 0..2000u32, events in 0..99u32) {
        prop_assert!(matches!(
            read(&sealed(raw_len, events, &content)),
            Ok((_, Status::Truncated(_) | Status::Damaged(_)))
        ));
    }

    #[test]
    fn any_columns_are_survived(columns in likely_columns()) {
        let bytes = sealed_columns(&columns);
        let (events, status) = read(&bytes).unwrap();
        prop_assert!(events.len() <= columns[0].len());
        // No end marker, so it is truncated at best.
        prop_assert!(matches!(status, Status::Truncated(_) | Status::Damaged(_)));
    }

    #[test]
    fn changed_captures_are_never_taken_for_whole(
        events in busy_events(),
        chunk in 1usize..900,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let good = write(&events, chunk);
        let mut bad = good.clone();
        for (position, change) in edits {
            bad[position.index(good.len())] ^= change;
        }
        bad.truncate(cut.index(good.len() * 4) + 1);
        if bad != good && let Ok((seen, status)) = read(&bad) {
            prop_assert_eq!(&seen[..], &events[..seen.len()]);
            prop_assert!(status != Status::Complete);
        }
    }
}
