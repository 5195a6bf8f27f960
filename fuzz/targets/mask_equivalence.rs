//! What masking leaves of any conversation gives the same messages as the
//! original, and masking it again changes nothing.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use memtrace::protocol::http1::{Connection, Message};
use memtrace::protocol::mask::Masker;
use memtrace_fuzz::conversation::{Act, acts};

fn connection(picked_up: bool) -> Connection {
    if picked_up {
        Connection::picked_up()
    } else {
        Connection::new()
    }
}

fn read(picked_up: bool, acts: &[Act]) -> Vec<Message> {
    let mut connection = connection(picked_up);
    let mut messages = Vec::new();
    for act in acts {
        match act {
            Act::Move {
                side,
                len,
                payload,
                tail,
            } => connection.feed(*side, Act::bytes(*len, payload, tail), &mut messages),
            Act::Lose(side) => connection.lose(*side, &mut messages),
            Act::Close(side) => connection.close_side(*side, &mut messages),
        }
    }
    connection.close(&mut messages);
    messages
}

fn masked(picked_up: bool, acts: &[Act]) -> Vec<Act> {
    let mut masker = if picked_up {
        Masker::picked_up()
    } else {
        Masker::new()
    };
    let mut acts = acts.to_vec();
    for act in &mut acts {
        match act {
            Act::Move {
                side,
                len,
                payload,
                tail,
            } => {
                let kept = masker.mask(*side, *len, payload, tail);
                assert!(payload[kept..].iter().all(|byte| *byte == 0));
                payload.truncate(kept);
            }
            Act::Lose(side) => masker.lose(*side),
            Act::Close(side) => masker.close_side(*side),
        }
    }
    acts
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok(picked_up) = input.arbitrary() else {
        return;
    };
    let Ok(acts) = acts(&mut input) else { return };
    let once = masked(picked_up, &acts);
    assert_eq!(read(picked_up, &once), read(picked_up, &acts));
    let stored = |acts: &[Act]| -> Vec<Vec<u8>> {
        let payload = |act: &Act| match act {
            Act::Move { payload, .. } => payload.clone(),
            Act::Lose(_) | Act::Close(_) => Vec::new(),
        };
        acts.iter().map(payload).collect()
    };
    assert_eq!(stored(&masked(picked_up, &once)), stored(&once));
});
