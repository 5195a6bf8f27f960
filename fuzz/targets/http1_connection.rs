//! Any conversation gets through the HTTP/1 parser, and each exchange has one
//! end.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use memtrace::protocol::http1::Connection;
use memtrace_fuzz::conversation::{Act, acts};
use memtrace_fuzz::exchanges;

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok(picked_up) = input.arbitrary() else {
        return;
    };
    let Ok(acts) = acts(&mut input) else { return };
    let mut connection = if picked_up {
        Connection::picked_up()
    } else {
        Connection::new()
    };
    let mut messages = Vec::new();
    for act in &acts {
        match act {
            Act::Move {
                side,
                len,
                payload,
                tail,
            } => connection.feed(*side, Act::bytes(*len, payload, tail), &mut messages),
            Act::Close(side) => connection.close_side(*side, &mut messages),
        }
    }
    connection.close(&mut messages);
    exchanges::each_has_one_end(&messages);
});
