//! Bytes that were not captured: their number and their end come in, the best
//! known position in the stream goes out.
//!
//! What can be counted is counted exactly; otherwise the position is lost until
//! something that looks like a head opens a feed. Nothing is guessed beyond that.

use super::chunk::{self, LAST_CHUNK};
use super::connection::Connection;
use super::exchange::Sending;
use super::framing::Ended;
use super::half::State;
use super::head::Head;
use super::{Defect, Message, Side, Verdict};

/// What ends a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

impl Connection {
    /// The rest of a head was not captured. `tail` is the end of what came with
    /// it.
    fn cut_head(&mut self, side: Side, mut head: Head, tail: &[u8], out: &mut Vec<Message>) {
        let whole_start = head.in_fields();
        if !head.cut() {
            let unmatched = side == Side::Server && self.sending != Sending::First;
            if unmatched && self.verdict == Verdict::Http1 {
                out.push(Message::UnmatchedResponse { status: None });
            }
            self.malformed(side, Defect::HeadNotCaptured, out);
            return;
        }
        let ended = if whole_start && tail.ends_with(HEAD_END) {
            Ended::Inferred
        } else {
            Ended::Unknown
        };
        self.end_head(side, head, ended, out);
    }

    /// Passes over `bytes` that were not captured; `tail` is their end.
    pub(super) fn skip(&mut self, side: Side, bytes: u64, tail: &[u8], out: &mut Vec<Message>) {
        let state = std::mem::replace(&mut self.half(side).state, State::LOST);
        match state {
            State::Boundary => {
                self.begin(side, out);
                self.skip(side, bytes, tail, out);
            }
            State::Head(head) => {
                self.count(side, bytes);
                self.cut_head(side, *head, tail, out);
            }
            State::Length(left) if left > bytes => {
                self.count(side, bytes);
                self.gap(side, bytes, tail, out);
                self.half(side).state = State::Length(left - bytes);
            }
            State::Length(left) => {
                self.count(side, left);
                self.gap(side, left, if bytes == left { tail } else { &[] }, out);
                self.end_message(side, out);
                if bytes > left {
                    self.skip(side, bytes - left, tail, out);
                }
            }
            State::Chunked(mut chunk) => {
                self.count(side, bytes);
                match chunk.skip(bytes, tail) {
                    chunk::Progress::More => {
                        // The line end after a chunk's data is no content.
                        let (content, end) = if chunk.is_between() {
                            let end = tail.strip_suffix(b"\r\n").unwrap_or(&[]);
                            (bytes.saturating_sub(2), end)
                        } else {
                            (bytes, tail)
                        };
                        self.gap(side, content, end, out);
                        self.half(side).state = State::Chunked(chunk);
                    }
                    chunk::Progress::Done => self.end_message(side, out),
                    chunk::Progress::Malformed => {
                        if side == Side::Server {
                            self.content_lost(out);
                        }
                        self.half(side).state = State::Seek {
                            chunked: true,
                            probe: None,
                        };
                    }
                }
            }
            State::Seek { chunked, probe } => {
                let probed = probe.map_or(0, |probe| probe.bytes().len() as u64);
                self.count(side, bytes.saturating_add(probed));
                self.half(side).state = State::Seek {
                    chunked,
                    probe: None,
                };
                if tail.ends_with(LAST_CHUNK) && self.is_seeking_last_chunk(side) {
                    self.end_message(side, out);
                }
            }
            State::UntilClose => {
                self.count(side, bytes);
                self.gap(side, bytes, tail, out);
                self.half(side).state = State::UntilClose;
            }
            State::Ignore => self.half(side).state = State::Ignore,
        }
    }

    fn gap(&mut self, side: Side, bytes: u64, tail: &[u8], out: &mut Vec<Message>) {
        if side == Side::Server {
            self.content_gap(bytes, tail, out);
        }
    }
}
