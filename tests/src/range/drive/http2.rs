//! An HTTP/2 client of few words (RFC 9113): several requests at once on one
//! connection, each a HEADERS frame.
//!
//! In: a connection, and requests from whoever knows the next. Out: the bodies of
//! answers with status 200; anything else is an error. Headers are sent as
//! literals without index (RFC 7541, 6.2.2), so that a longer header makes a
//! longer frame. Deliberately not here: decoding headers but for the status, and
//! all that servers of the range do not do.

use std::collections::HashMap;
use std::io::{Read, Write};

use anyhow::{Context, bail, ensure};

use crate::client::{SERVER_NAME, Stream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;

// Frame types (RFC 9113, 6) and flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The largest flow-control window (RFC 9113, 6.9.1): answers are never held up.
const WINDOW_MAX: u32 = (1 << 31) - 1;
const WINDOW_INITIAL: u32 = 65_535;

/// `:status: 200` in the static table (RFC 7541, appendix A), indexed.
const STATUS_200: u8 = 0x88;

/// One connection.
#[derive(Debug)]
pub struct Http2 {
    stream: Stream,
    scheme: &'static str,
    next_stream: u32,
    open: HashMap<u32, (usize, Vec<u8>)>,
}

impl Http2 {
    /// Speaks the preface and the settings.
    pub fn new(mut stream: Stream) -> anyhow::Result<Self> {
        let scheme = match stream {
            Stream::Plain(_) => "http",
            Stream::Tls(_) => "https",
        };
        let mut opening = PREFACE.to_vec();
        // No push (2), and the largest window for each stream (4).
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend(WINDOW_MAX.to_be_bytes());
        push_frame(&mut opening, SETTINGS, 0, 0, &settings);
        let more = (WINDOW_MAX - WINDOW_INITIAL).to_be_bytes();
        push_frame(&mut opening, WINDOW_UPDATE, 0, 0, &more);
        send(&mut stream, &opening)?;
        Ok(Self {
            stream,
            scheme,
            next_stream: 1,
            open: HashMap::new(),
        })
    }

    /// Asks for a path, with a header to make the request longer; the bytes of
    /// its frame. `request` names the answer.
    pub fn ask(&mut self, request: usize, path: &str, padding: usize) -> anyhow::Result<u64> {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "GET"),
            (":scheme", self.scheme),
            (":path", path),
            (":authority", SERVER_NAME),
            ("x-length", "x".repeat(padding).as_str()),
        ] {
            block.push(0);
            push_text(&mut block, name);
            push_text(&mut block, value);
        }
        let mut bytes = Vec::new();
        let flags = END_STREAM | END_HEADERS;
        push_frame(&mut bytes, HEADERS, flags, self.next_stream, &block);
        send(&mut self.stream, &bytes)?;
        self.open.insert(self.next_stream, (request, Vec::new()));
        self.next_stream += 2;
        Ok(bytes.len() as u64)
    }

    /// Requests that have no whole answer yet.
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Waits for the next whole answer: which request, and its body.
    pub fn answer(&mut self) -> anyhow::Result<(usize, Vec<u8>)> {
        loop {
            let mut head = [0; FRAME_HEAD_BYTES];
            self.read(&mut head)?;
            let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = head;
            let length = u32::from_be_bytes([0, l2, l1, l0]);
            let id = u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]);
            let mut payload = vec![0; length as usize];
            self.read(&mut payload)?;
            match kind {
                SETTINGS | PING if flags & ACK == 0 => {
                    let mut answer = Vec::new();
                    let echoed = if kind == PING {
                        payload.as_slice()
                    } else {
                        &[]
                    };
                    push_frame(&mut answer, kind, ACK, 0, echoed);
                    send(&mut self.stream, &answer)?;
                }
                HEADERS => {
                    // Updates of the table's size (RFC 7541, 6.3) may come first.
                    let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                    let trailers = self.open.get(&id).is_some_and(|(_, body)| !body.is_empty());
                    ensure!(
                        first == Some(&STATUS_200) || trailers,
                        "an answer whose status is not 200: {payload:02x?}"
                    );
                }
                DATA => {
                    let (_, body) = self.open.get_mut(&id).context("DATA nobody asked for")?;
                    body.extend(payload);
                }
                RST_STREAM | GOAWAY => bail!("the server gave up (frame {kind}): {payload:02x?}"),
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return self.open.remove(&id).context("an end nobody asked for");
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        self.stream
            .read_exact(buffer)
            .context("cannot read a frame from the server")
    }
}

fn send(stream: &mut Stream, bytes: &[u8]) -> anyhow::Result<()> {
    stream
        .write_all(bytes)
        .and_then(|()| stream.flush())
        .context("cannot send a frame to the server")
}

fn push_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, l2, l1, l0] = (payload.len() as u32).to_be_bytes();
    bytes.extend([l2, l1, l0, kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// A string without Huffman coding (RFC 7541, 5.2); its length has seven bits and,
/// if they do not suffice, groups of seven more (5.1).
fn push_text(bytes: &mut Vec<u8>, text: &str) {
    const PREFIX_MAX: usize = 127;
    if text.len() < PREFIX_MAX {
        bytes.push(text.len() as u8);
    } else {
        bytes.push(PREFIX_MAX as u8);
        let mut rest = text.len() - PREFIX_MAX;
        while rest >= 128 {
            bytes.push((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        bytes.push(rest as u8);
    }
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_coded_as_the_rfc_says() {
        let coded = |length: usize| {
            let mut bytes = Vec::new();
            push_text(&mut bytes, &"x".repeat(length));
            bytes.truncate(bytes.len() - length);
            bytes
        };
        assert_eq!(coded(3), [3]);
        assert_eq!(coded(126), [126]);
        assert_eq!(coded(127), [127, 0]);
        // RFC 7541, C.1.2 has 1337 with a prefix of five bits; with seven:
        assert_eq!(coded(1337), [127, 0xba, 0x09]);
    }
}
