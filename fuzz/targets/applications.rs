//! Any conversation gets through the parsers of what web servers speak with
//! applications, and through the choice between them; each exchange has one end.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use memtrace::event::Direction;
use memtrace::message::{Message, Side};
use memtrace::protocol::http1::Bytes;
use memtrace::protocol::session::Session;
use memtrace::protocol::{ajp, fastcgi, uwsgi};
use memtrace_fuzz::conversation::{Act, acts};
use memtrace_fuzz::exchanges;

fn direction(side: Side) -> Direction {
    match side {
        Side::Client => Direction::Recv,
        Side::Server => Direction::Send,
    }
}

/// Tells the acts to one who feeds and one who closes.
macro_rules! tell {
    ($to:expr, $acts:expr, $name:ident, $close:ident) => {{
        let mut to = $to;
        let mut messages: Vec<Message> = Vec::new();
        for act in $acts {
            match act {
                Act::Move {
                    side,
                    len,
                    payload,
                    tail,
                } => {
                    let bytes: Bytes<'_> = Act::bytes(*len, payload, tail);
                    to.feed($name(*side), bytes, &mut messages);
                }
                Act::Close(side) => to.$close($name(*side), &mut messages),
            }
        }
        to.close(&mut messages);
        messages
    }};
}

fn itself(side: Side) -> Side {
    side
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok(choice) = input.arbitrary::<u8>() else {
        return;
    };
    let Ok(acts) = acts(&mut input) else { return };
    let messages = match choice % 5 {
        0 => tell!(fastcgi::Connection::new(), &acts, itself, close_side),
        1 => tell!(uwsgi::Connection::new(), &acts, itself, close_side),
        2 => tell!(ajp::Connection::new(), &acts, itself, close_side),
        3 => tell!(Session::accepted(), &acts, direction, close_direction),
        _ => tell!(
            Session::found(choice > 127),
            &acts,
            direction,
            close_direction
        ),
    };
    exchanges::each_has_one_end(&messages);
});
