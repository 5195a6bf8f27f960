//! Frames written out by hand, and generated ones in any pieces.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A frame as its sender writes it.
fn frame(from: Side, first: u8, len: usize) -> Vec<u8> {
    let mask = if from == Side::Client { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match len {
        0..126 => bytes.push(mask | len as u8),
        126..65536 => {
            bytes.push(mask | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    if from == Side::Client {
        bytes.extend([0x81, 0, 1, 0x81]);
    }
    // A payload that looks like frames.
    bytes.extend([0x81, 0x05].iter().cycle().take(len));
    bytes
}

fn whole(bytes: &[u8]) -> Bytes<'_> {
    Bytes {
        len: bytes.len() as u64,
        payload: bytes,
        tail: &[],
    }
}

fn said(frames: &mut Frames, bytes: Bytes<'_>) -> Vec<Progress> {
    let mut said = Vec::new();
    frames.feed(bytes, |progress| said.push(progress));
    said
}

#[test]
fn data_frames_are_messages_and_control_frames_none() {
    for from in [Side::Client, Side::Server] {
        let mut frames = Frames::new(from);
        let ping = frame(from, 0x89, 4);
        assert_eq!(said(&mut frames, whole(&ping)), []);
        for len in [0, 125, 126, 65_535, 65_536] {
            let text = frame(from, 0x81, len);
            let bytes = text.len() as u64;
            assert_eq!(
                said(&mut frames, whole(&text)),
                [Progress::Begin, Progress::End(bytes)]
            );
        }
        let compressed = frame(from, 0xc2, 7);
        assert_eq!(said(&mut frames, whole(&compressed)).len(), 2);
    }
}

#[test]
fn fragments_make_one_message_whatever_comes_between() {
    let from = Side::Client;
    let parts = [
        frame(from, 0x01, 10),
        frame(from, 0x89, 0),
        frame(from, 0x00, 20),
        frame(from, 0x8a, 3),
        frame(from, 0x80, 0),
    ];
    let mut frames = Frames::new(from);
    assert_eq!(said(&mut frames, whole(&parts[0])), [Progress::Begin]);
    let data = (parts[0].len() + parts[2].len() + parts[4].len()) as u64;
    assert_eq!(
        said(&mut frames, whole(&parts[1..].concat())),
        [Progress::End(data)]
    );
}

#[test]
fn a_long_payload_need_not_be_captured() {
    let from = Side::Server;
    let message = frame(from, 0x82, 100_000);
    let mut frames = Frames::new(from);
    let cut = |bytes: u64, payload: usize| Bytes {
        len: bytes,
        payload: &message[..payload],
        tail: &[],
    };
    assert_eq!(said(&mut frames, cut(60_000, 512)), [Progress::Begin]);
    assert_eq!(
        said(&mut frames, cut(40_010, 0)),
        [Progress::End(message.len() as u64)]
    );
}

#[test]
fn a_lost_position_is_found_where_frames_fill_what_moved() {
    let from = Side::Client;
    let burst = frame(from, 0x81, 30).repeat(20);
    let mut frames = Frames::new(from);
    let cut = Bytes {
        len: burst.len() as u64,
        payload: &burst[..100],
        tail: &[],
    };
    let told = said(&mut frames, cut);
    assert_eq!(told.last(), Some(&Progress::Untold));
    // Something from the middle of a frame.
    assert_eq!(said(&mut frames, whole(&burst[3..])), [Progress::Untold]);
    let two = frame(from, 0x81, 30).repeat(2);
    assert_eq!(said(&mut frames, whole(&two)).len(), 4);
}

#[test]
fn what_is_no_frame_loses_the_position() {
    for bad in [
        &[0x83, 0x80][..],
        &[0x91, 0x80],
        &[0x81, 0x05],
        &[0x09, 0x80],
        &[0x89, 0xfe, 0, 200],
        &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut frames = Frames::new(Side::Client);
        let told = said(&mut frames, whole(bad));
        assert_eq!(told.last(), Some(&Progress::Untold), "{bad:x?}");
    }
}

/// First bytes and lengths of a valid stream's frames, and its messages' sizes.
fn stream() -> impl Strategy<Value = (Vec<(u8, usize)>, Vec<usize>)> {
    let len = || prop_oneof![0..10_usize, 120..130_usize, 65_530..65_540_usize];
    let message = (vec(len(), 1..4), any::<bool>(), 1..3_u8);
    vec(message, 0..6).prop_map(|messages| {
        let (mut frames, mut sizes) = (Vec::new(), Vec::new());
        for (parts, ping, opcode) in messages {
            sizes.push(parts.len());
            let count = parts.len();
            for (index, len) in parts.into_iter().enumerate() {
                let code = if index == 0 { opcode } else { 0 };
                let last = if index + 1 == count { 0x80 } else { 0 };
                frames.push((code | last, len));
                if ping {
                    frames.push((0x89, 2));
                }
            }
        }
        (frames, sizes)
    })
}

proptest! {
    /// Messages are counted exactly, in any pieces.
    #[test]
    fn messages_are_found((planned, sizes) in stream(), client: bool, pieces in vec(1..3000_usize, 1..9)) {
        let from = if client { Side::Client } else { Side::Server };
        let bytes: Vec<u8> = planned.iter().flat_map(|&(first, len)| frame(from, first, len)).collect();
        let mut frames = Frames::new(from);
        let mut told = Vec::new();
        let mut rest = &bytes[..];
        for piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            told.extend(said(&mut frames, whole(now)));
            rest = later;
        }
        let begun = told.iter().filter(|progress| **progress == Progress::Begin).count();
        prop_assert_eq!(begun, sizes.len());
        let ended: u64 = told.iter().filter_map(|progress| match progress {
            Progress::End(bytes) => Some(*bytes),
            _ => None,
        }).sum();
        let data: usize = planned
            .iter()
            .filter(|(first, _)| first & 0x08 == 0)
            .map(|&(first, len)| frame(from, first, len).len())
            .sum();
        prop_assert_eq!(ended, data as u64);
        prop_assert_eq!(told.len(), 2 * begun);
    }

    /// Anything is survived, and no message ends that did not begin.
    #[test]
    fn noise_is_survived(
        feeds in vec((vec(any::<u8>(), 0..40), prop_oneof![Just(0), 0..100_u64, any::<u64>()]), 0..12),
        client: bool,
    ) {
        let mut frames = Frames::new(if client { Side::Client } else { Side::Server });
        let mut open = false;
        for (payload, beyond) in &feeds {
            let bytes = Bytes {
                len: (payload.len() as u64).saturating_add(*beyond),
                payload,
                tail: &[],
            };
            for progress in said(&mut frames, bytes) {
                match progress {
                    Progress::Begin => {
                        prop_assert!(!open);
                        open = true;
                    }
                    Progress::End(_) => {
                        prop_assert!(open);
                        open = false;
                    }
                    Progress::Untold => open = false,
                }
            }
        }
    }
}
