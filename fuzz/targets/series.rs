//! Any bytes get through the parsers of WebSocket frames and of server-sent
//! events; each message that ends has begun, and begins once.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use memtrace::protocol::sse::{self, Events};
use memtrace::protocol::websocket::{self, Frames};
use memtrace_fuzz::conversation::{Act, acts};

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok(acts) = acts(&mut input) else { return };
    let (mut frames_open, mut event_open) = (false, false);
    let mut frames = None;
    let mut events = Events::new();
    for act in &acts {
        let Act::Move {
            side,
            len,
            payload,
            tail,
        } = act
        else {
            continue;
        };
        let frames = frames.get_or_insert_with(|| Frames::new(*side));
        frames.feed(Act::bytes(*len, payload, tail), |progress| match progress {
            websocket::Progress::Begin => {
                assert!(!std::mem::replace(&mut frames_open, true));
            }
            websocket::Progress::End(_) => {
                assert!(std::mem::replace(&mut frames_open, false));
            }
            websocket::Progress::Untold => frames_open = false,
        });
        let mut say = |progress| match progress {
            sse::Progress::Begin => assert!(!std::mem::replace(&mut event_open, true)),
            sse::Progress::End(_) => assert!(std::mem::replace(&mut event_open, false)),
        };
        events.feed(payload, &mut say);
        events.skip(len.saturating_sub(payload.len() as u64), tail, &mut say);
    }
});
