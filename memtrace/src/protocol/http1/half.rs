//! One direction of a connection: captured bytes come in, what they amount to
//! goes out, one step at a time.
//!
//! It knows where in its stream it stands, and nothing of the other direction:
//! which request a response belongs to, and what follows a head, is for
//! `connection` to say.

use super::canvas::Canvas;
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
    /// Nothing more is expected of this direction.
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

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) side: Side,
    pub(super) state: State,
}

impl Half {
    /// Walks on from `position`, which lies within the canvas. Returns the new
    /// position, the bytes that belong to the message that was under way, and
    /// what came of it. Either the position or the state moves on.
    pub(super) fn advance(
        &mut self,
        canvas: &mut Canvas<'_>,
        position: usize,
    ) -> (usize, u64, Step) {
        let rest = canvas.rest(position).len();
        match &mut self.state {
            State::Boundary => {
                let blank = canvas.rest(position).iter();
                let blank = blank.take_while(|&&byte| is_line_end(byte)).count();
                for index in position..position + blank {
                    let byte = canvas.rest(index).first().copied().unwrap_or(b'\n');
                    canvas.keep(index, byte);
                }
                let step = if blank < rest {
                    Step::Begin
                } else {
                    Step::More
                };
                (position + blank, 0, step)
            }
            State::Head(_) => self.advance_head(canvas, position),
            State::Length(left) => {
                let take = at_most(*left, rest);
                canvas.drop_range(position, position + take);
                *left -= take as u64;
                let step = if *left == 0 {
                    Step::BodyEnd
                } else {
                    Step::More
                };
                (position + take, take as u64, step)
            }
            State::Chunked(chunk) => advance_chunked(chunk, canvas, position),
            State::Seek { probe: Some(_), .. } => self.advance_probe(canvas, position),
            State::UntilClose | State::Seek { probe: None, .. } => {
                canvas.drop_range(position, position + rest);
                (position + rest, rest as u64, Step::More)
            }
            State::Ignore => {
                canvas.drop_range(position, position + rest);
                (position + rest, 0, Step::More)
            }
        }
    }

    fn advance_head(&mut self, canvas: &mut Canvas<'_>, from: usize) -> (usize, u64, Step) {
        let mut position = from;
        let mut outcome = head::Progress::More;
        if let State::Head(head) = &mut self.state {
            while outcome == head::Progress::More
                && let rest = canvas.rest(position)
                && let Some(&byte) = rest.first()
            {
                let (masked, progress) = head.step(rest, byte);
                canvas.keep(position, masked);
                position += 1;
                outcome = progress;
            }
        }
        let step = match outcome {
            head::Progress::More => Step::More,
            head::Progress::Malformed(defect) => Step::Malformed(defect),
            head::Progress::Done => {
                if let State::Head(head) = std::mem::replace(&mut self.state, State::LOST) {
                    Step::Head(head)
                } else {
                    Step::More
                }
            }
        };
        (position, (position - from) as u64, step)
    }

    fn advance_probe(&mut self, canvas: &mut Canvas<'_>, from: usize) -> (usize, u64, Step) {
        let State::Seek {
            probe: probing @ Some(_),
            ..
        } = &mut self.state
        else {
            return (from, 0, Step::More);
        };
        // Empty lines, which belong to whatever was under way.
        let mut blank = 0;
        for position in from..canvas.len() {
            let (Some(probe), Some(&byte)) = (probing.as_mut(), canvas.rest(position).first())
            else {
                break;
            };
            if probe.bytes().is_empty() && is_line_end(byte) {
                canvas.keep(position, byte);
                blank += 1;
                continue;
            }
            match probe.push(self.side, byte) {
                Look::Undecided => canvas.keep(position, byte),
                Look::Nothing => {
                    let passed = probe.bytes().len() as u64;
                    *probing = None;
                    canvas.drop_range(position, position + 1);
                    return (position + 1, blank + passed, Step::More);
                }
                look @ (Look::Head | Look::Http2 | Look::Tls) => {
                    canvas.keep(position, byte);
                    let probe = probing.take().unwrap_or_else(Probe::new);
                    return (position + 1, blank, Step::Found(look, probe));
                }
            }
        }
        (canvas.len(), blank, Step::More)
    }
}

fn advance_chunked(chunk: &mut Chunk, canvas: &mut Canvas<'_>, from: usize) -> (usize, u64, Step) {
    let mut position = from;
    while position < canvas.len() {
        let rest = canvas.rest(position);
        let step = if let Chunk::Data(left) = chunk {
            let take = at_most(*left, rest.len());
            canvas.drop_range(position, position + take);
            position += take;
            match chunk.skip(take as u64, &[]) {
                chunk::Progress::More => continue,
                chunk::Progress::Done => Step::BodyEnd,
                chunk::Progress::Malformed => Step::Malformed(Defect::ChunkSize),
            }
        } else {
            let Some(&byte) = rest.first() else { break };
            let (masked, progress) = chunk.step(rest, byte);
            canvas.keep(position, masked);
            position += 1;
            match progress {
                chunk::Progress::More => continue,
                chunk::Progress::Done => Step::BodyEnd,
                chunk::Progress::Malformed => Step::Malformed(Defect::ChunkSize),
            }
        };
        return (position, (position - from) as u64, step);
    }
    (position, (position - from) as u64, Step::More)
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// `left`, or `available` if that is less.
fn at_most(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}
