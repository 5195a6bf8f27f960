//! Arbitrary conversations on one connection, as pieces of both directions.
//!
//! In: the fuzzer's bytes, which are also the conversation's bytes: a dictionary
//! of HTTP works on them. Out: acts in order.

use arbitrary::{Result, Unstructured};
use memtrace::protocol::http1::{Bytes, Side};

/// One thing that happens to a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Bytes move; the kernel half saw the first of them, and the last.
    Move {
        /// Who sent them.
        side: Side,
        /// How many moved.
        len: u64,
        /// The first of them.
        payload: Vec<u8>,
        /// The last of them.
        tail: Vec<u8>,
    },
    /// A side sends no more.
    Close(Side),
}

impl Act {
    /// What the parser is told of bytes that moved.
    pub fn bytes<'a>(len: u64, payload: &'a [u8], tail: &'a [u8]) -> Bytes<'a> {
        Bytes { len, payload, tail }
    }
}

/// A conversation. One byte says what happens and one how much of the input it
/// takes; the input follows as it is.
pub fn acts(input: &mut Unstructured<'_>) -> Result<Vec<Act>> {
    let mut acts = Vec::new();
    while !input.is_empty() {
        let choice: u8 = input.arbitrary()?;
        let side = if choice & 1 == 0 {
            Side::Client
        } else {
            Side::Server
        };
        acts.push(match choice >> 1 {
            0 => Act::Close(side),
            how => {
                let wanted = usize::from(input.arbitrary::<u8>()?);
                let payload = input.bytes(wanted.min(input.len()))?.to_vec();
                let whole = payload.len() as u64;
                let (len, tail) = match how % 8 {
                    // Cut, with whatever stands next as its end.
                    2 => (
                        whole + u64::from(input.arbitrary::<u16>()?),
                        input.bytes(8.min(input.len()))?.to_vec(),
                    ),
                    // Contradictory: any length, a tail of any size.
                    3 => (
                        input.arbitrary()?,
                        input.bytes(5.min(input.len()))?.to_vec(),
                    ),
                    _ => (whole, Vec::new()),
                };
                Act::Move {
                    side,
                    len,
                    payload,
                    tail,
                }
            }
        });
    }
    Ok(acts)
}
