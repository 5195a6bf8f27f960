//! One direction of a connection: captured bytes come in, what they amount to
//! goes out, one step at a time.
//!
//! It knows where in its stream it stands, and nothing of the other direction:
//! which request a response belongs to, and what follows a head, is for
//! `connection` to say.

use super::chunk::{self, Chunk};
use super::head::{self, Head};
use super::probe::{Look, Probe};
use super::{Defect, Side};

/// Where in its stream a direction stands.
#[derive(Debug)]
pub(super) enum State {
    /// Between messages.
    Boundary,
    /// In a head.
    Head(Box<Head>),
    /// In a body with this many bytes left, at least 1.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunk),
    /// In a body that lasts until the connection ends.
    UntilClose,
    /// The position is unknown: looks for a head at the start of each feed.
    Seek {
        /// The body under way is chunked, so its end may be recognised.
        chunked: bool,
        /// The bytes at the start of the feed, while they look like a head.
        probe: Option<Probe>,
    },
    /// No more HTTP/1 is expected of this direction.
    Ignore,
}

impl State {
    /// The position is unknown.
    pub(super) const LOST: State = State::Seek {
        chunked: false,
        probe: None,
    };
}

/// What the bytes of one step amount to.
#[derive(Debug)]
pub(super) enum Step {
    /// They go on with what was under way.
    More,
    /// The next byte opens a message.
    Begin,
    /// They completed a head.
    Head(Box<Head>),
    /// They completed a body.
    BodyEnd,
    /// They fit nowhere.
    Malformed(Defect),
    /// These bytes, at an unknown position, open a head, or not HTTP/1 at all.
    Found(Look, Probe),
}

/// The bytes of one step.
#[derive(Debug)]
pub(super) struct Advance {
    /// How many they are.
    pub(super) used: usize,
    /// How many of them belong to the message that was under way.
    pub(super) counted: u64,
    /// They are content: of a body, or of what followed an upgrade.
    pub(super) content: bool,
    /// What came of them.
    pub(super) step: Step,
}

impl Advance {
    fn framing(used: usize, step: Step) -> Self {
        Advance {
            used,
            counted: used as u64,
            content: false,
            step,
        }
    }

    fn content(used: usize, step: Step) -> Self {
        Advance {
            content: true,
            ..Advance::framing(used, step)
        }
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) side: Side,
    pub(super) state: State,
}

impl Half {
    /// Walks on into `rest`, which is not empty. Either the position or the
    /// state moves on.
    pub(super) fn advance(&mut self, rest: &[u8]) -> Advance {
        match &mut self.state {
            State::Boundary => {
                let blank = rest.iter().take_while(|&&byte| is_line_end(byte)).count();
                let step = if blank < rest.len() {
                    Step::Begin
                } else {
                    Step::More
                };
                Advance {
                    counted: 0,
                    ..Advance::framing(blank, step)
                }
            }
            State::Head(head) => match head.take(rest) {
                (used, head::Progress::More) => Advance::framing(used, Step::More),
                (used, head::Progress::Malformed(defect)) => {
                    Advance::framing(used, Step::Malformed(defect))
                }
                (used, head::Progress::Done) => {
                    let step = match std::mem::replace(&mut self.state, State::LOST) {
                        State::Head(head) => Step::Head(head),
                        _ => Step::More,
                    };
                    Advance::framing(used, step)
                }
            },
            State::Length(left) => {
                let take = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                *left -= take as u64;
                let step = if *left == 0 {
                    Step::BodyEnd
                } else {
                    Step::More
                };
                Advance::content(take, step)
            }
            State::Chunked(chunk) => {
                let (used, content, progress) = chunk.take(rest);
                let step = match progress {
                    chunk::Progress::More => Step::More,
                    chunk::Progress::Done => Step::BodyEnd,
                    chunk::Progress::Malformed => Step::Malformed(Defect::ChunkSize),
                };
                Advance {
                    content,
                    ..Advance::framing(used, step)
                }
            }
            State::Seek {
                probe: probe @ Some(_),
                ..
            } => advance_probe(self.side, probe, rest),
            State::UntilClose => Advance::content(rest.len(), Step::More),
            State::Seek { probe: None, .. } => Advance::framing(rest.len(), Step::More),
            State::Ignore => Advance {
                counted: 0,
                ..Advance::content(rest.len(), Step::More)
            },
        }
    }
}

fn advance_probe(side: Side, probing: &mut Option<Probe>, rest: &[u8]) -> Advance {
    // Empty lines, which belong to whatever was under way.
    let mut blank = 0;
    for (index, &byte) in rest.iter().enumerate() {
        let Some(probe) = probing else { break };
        if probe.bytes().is_empty() && is_line_end(byte) {
            blank += 1;
            continue;
        }
        let (counted, step) = match probe.push(side, byte) {
            Look::Undecided => continue,
            Look::Nothing => {
                let passed = probe.bytes().len() as u64;
                *probing = None;
                (blank + passed, Step::More)
            }
            look @ (Look::Head | Look::Http2 | Look::Tls) => {
                let probe = probing.take().unwrap_or_else(Probe::new);
                (blank, Step::Found(look, probe))
            }
        };
        return Advance {
            used: index + 1,
            counted,
            content: false,
            step,
        };
    }
    Advance {
        counted: blank,
        ..Advance::framing(rest.len(), Step::More)
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}
