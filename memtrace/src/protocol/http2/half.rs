//! One direction of a connection: bytes come in, frames and decoded header
//! blocks go out, one step at a time.
//!
//! It knows where in its stream it stands and what its header table holds, and
//! nothing of exchanges.

use super::frame::{Frame, HEADER, Kind};
use super::head::Head;
use super::hpack::Table;
use super::recognise::opens_with_frames;
use super::{BLOCK_MAX, PREFACE};
use crate::message::Side;

/// Of a GOAWAY frame: the last stream that is (or will be) processed.
const GOAWAY_READ: usize = 4;

/// Where in its stream a direction stands.
#[derive(Debug)]
enum At {
    /// After this many bytes of the preface.
    Preface(usize),
    /// In a frame header, after this many bytes of it.
    Header([u8; HEADER], usize),
    /// In a payload, with this many bytes left, at least 1.
    Payload(Frame, u32),
    /// The position is unknown: looks for frames at the start of each feed.
    Lost,
}

const BOUNDARY: At = At::Header([0; HEADER], 0);

/// A header block under way.
#[derive(Debug)]
struct Block {
    /// The stream whose frames it is made of.
    stream: u32,
    ends_stream: bool,
    /// What it holds is a request that the server makes up.
    promised: bool,
    bytes: Vec<u8>,
    /// Where in `bytes` the payload of the frame under way begins.
    frame_at: usize,
    /// Something of it was not captured; only what comes before counts.
    cut: bool,
}

/// What the bytes of one step amount to.
#[derive(Debug)]
pub(super) enum Step {
    /// They go on with what was under way.
    More,
    /// A frame opens.
    Opens(Frame),
    /// A frame without a header block is over.
    Ends(Frame),
    /// A GOAWAY frame is over; it names the last stream that counts.
    GoAway(u32),
    /// A header block is over, the last frame of its stream among it or not.
    Block {
        stream: u32,
        ends_stream: bool,
        head: Box<Head>,
    },
    /// A header block of a pushed request is over.
    Pushed,
    /// The position is lost.
    Lost,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Half {
    side: Side,
    at: At,
    table: Table,
    block: Option<Block>,
    /// The first bytes of a GOAWAY frame.
    goaway: Vec<u8>,
}

impl Half {
    /// It begins with the rest of the preface after `seen` bytes of it.
    pub(super) fn in_preface(seen: usize) -> Half {
        Half::start(Side::Client, At::Preface(seen))
    }

    /// It begins with a frame.
    pub(super) fn at_frame(side: Side) -> Half {
        Half::start(side, BOUNDARY)
    }

    /// It was under way before it was seen.
    pub(super) fn picked_up(side: Side) -> Half {
        Half::start(side, At::Lost)
    }

    fn start(side: Side, at: At) -> Half {
        Half {
            side,
            at,
            table: Table::new(),
            block: None,
            goaway: Vec::new(),
        }
    }

    /// Header blocks may have passed unseen: what the table holds counts no more.
    pub(super) fn forget(&mut self) {
        self.table.forget();
    }

    /// Bytes may have passed unseen, nobody knows whether, or where.
    pub(super) fn doubt(&mut self) {
        self.table.forget();
        if let Some(block) = &mut self.block {
            block.cut = true;
        }
    }

    /// The frame that goes on with the next byte.
    pub(super) fn under_way(&self) -> Option<Frame> {
        match self.at {
            At::Payload(frame, _) => Some(frame),
            At::Preface(_) | At::Header(..) | At::Lost => None,
        }
    }

    /// A feed of `len` bytes starts with these: if the position is lost, frames
    /// that open it are where to go on.
    pub(super) fn resume(&mut self, start: &[u8], len: u64) {
        if matches!(self.at, At::Lost) && opens_with_frames(self.side, start, len) {
            self.at = BOUNDARY;
        }
    }

    /// Walks on over some of `rest`, which is not empty. Returns the bytes
    /// taken, at least 1 unless a frame without payload ended, and what came of
    /// it.
    pub(super) fn advance(&mut self, rest: &[u8]) -> (usize, Step) {
        match &mut self.at {
            At::Preface(seen) => {
                let expected = PREFACE.get(*seen..).unwrap_or(&[]);
                let same = rest.iter().zip(expected).take_while(|(a, b)| a == b);
                let taken = same.count();
                *seen += taken;
                if *seen == PREFACE.len() {
                    self.at = BOUNDARY;
                } else if taken < rest.len() {
                    return (rest.len(), self.lose());
                }
                (taken, Step::More)
            }
            At::Header(bytes, seen) => {
                let room = bytes.get_mut(*seen..).unwrap_or(&mut []);
                let taken = room.len().min(rest.len());
                for (to, from) in room.iter_mut().zip(rest) {
                    *to = *from;
                }
                *seen += taken;
                if *seen < HEADER {
                    return (taken, Step::More);
                }
                let frame = Frame::parse(*bytes);
                if !frame.is_plausible(self.side) {
                    return (rest.len(), self.lose());
                }
                self.open(frame);
                (taken, Step::Opens(frame))
            }
            At::Payload(frame, left) => {
                let frame = *frame;
                let taken = (*left as usize).min(rest.len());
                *left -= taken as u32;
                let over = *left == 0;
                self.keep(frame, &rest[..taken]);
                if over {
                    self.at = BOUNDARY;
                    (taken, self.close(frame))
                } else {
                    (taken, Step::More)
                }
            }
            At::Lost => (rest.len(), Step::More),
        }
    }

    /// The frame that just opened ends at once, if it has no payload.
    pub(super) fn end_empty(&mut self) -> Step {
        match self.at {
            At::Payload(frame, 0) => {
                self.at = BOUNDARY;
                self.close(frame)
            }
            At::Payload(..) | At::Preface(_) | At::Header(..) | At::Lost => Step::More,
        }
    }

    /// Passes over bytes that were not captured, `missing` of them, at least 1.
    /// Returns how many it could place, and what came of it.
    pub(super) fn skip(&mut self, missing: u64) -> (u64, Step) {
        match &mut self.at {
            At::Preface(seen) => {
                let taken = missing.min((PREFACE.len() - *seen) as u64);
                *seen += taken as usize;
                if *seen == PREFACE.len() {
                    self.at = BOUNDARY;
                }
                (taken, Step::More)
            }
            At::Payload(frame, left) => {
                let frame = *frame;
                let taken = missing.min(u64::from(*left));
                *left -= taken as u32;
                let over = *left == 0;
                if frame.kind != Kind::Data
                    && let Some(block) = &mut self.block
                {
                    block.cut = true;
                }
                if over {
                    self.at = BOUNDARY;
                    (taken, self.close(frame))
                } else {
                    (taken, Step::More)
                }
            }
            At::Header(..) => (missing, self.lose()),
            At::Lost => (missing, Step::More),
        }
    }

    fn lose(&mut self) -> Step {
        self.at = At::Lost;
        self.table.forget();
        self.block = None;
        Step::Lost
    }

    fn open(&mut self, frame: Frame) {
        self.at = At::Payload(frame, frame.len);
        match (frame.kind, &mut self.block) {
            (Kind::Continuation, Some(block)) if block.stream == frame.stream => {
                block.frame_at = block.bytes.len();
            }
            // A block was not seen, or not to its end (RFC 9113, 6.10).
            (Kind::Continuation, _) => {
                self.table.forget();
                self.block = None;
            }
            (_, block @ Some(_)) => {
                self.table.forget();
                *block = None;
            }
            (_, None) => {}
        }
        match frame.kind {
            Kind::Headers | Kind::PushPromise => {
                self.block = Some(Block {
                    stream: frame.stream,
                    ends_stream: frame.ends_stream(),
                    promised: frame.kind == Kind::PushPromise,
                    bytes: Vec::new(),
                    frame_at: 0,
                    cut: false,
                });
            }
            Kind::GoAway => self.goaway.clear(),
            Kind::Data
            | Kind::Priority
            | Kind::Reset
            | Kind::Settings
            | Kind::Ping
            | Kind::WindowUpdate
            | Kind::Continuation
            | Kind::Other => {}
        }
    }

    fn keep(&mut self, frame: Frame, bytes: &[u8]) {
        match frame.kind {
            Kind::Headers | Kind::PushPromise | Kind::Continuation => {
                if let Some(block) = self.block.as_mut().filter(|block| !block.cut) {
                    let room = BLOCK_MAX.saturating_sub(block.bytes.len());
                    block.cut = room < bytes.len();
                    block
                        .bytes
                        .extend_from_slice(&bytes[..room.min(bytes.len())]);
                }
            }
            Kind::GoAway => {
                let room = GOAWAY_READ.saturating_sub(self.goaway.len());
                self.goaway.extend(bytes.iter().take(room));
            }
            Kind::Data
            | Kind::Priority
            | Kind::Reset
            | Kind::Settings
            | Kind::Ping
            | Kind::WindowUpdate
            | Kind::Other => {}
        }
    }

    /// The payload of a frame is over.
    fn close(&mut self, frame: Frame) -> Step {
        match frame.kind {
            Kind::Headers | Kind::PushPromise | Kind::Continuation => self.close_block(frame),
            Kind::GoAway => match <[u8; 4]>::try_from(&self.goaway[..]) {
                Ok(last) => Step::GoAway(u32::from_be_bytes(last) & 0x7fff_ffff),
                Err(_) => Step::More,
            },
            Kind::Data
            | Kind::Priority
            | Kind::Reset
            | Kind::Settings
            | Kind::Ping
            | Kind::WindowUpdate
            | Kind::Other => Step::Ends(frame),
        }
    }

    fn close_block(&mut self, frame: Frame) -> Step {
        let Some(mut block) = self.block.take() else {
            return Step::More;
        };
        block.unwrap_frame(frame);
        if !frame.ends_headers() {
            self.block = Some(block);
            return Step::More;
        }
        let mut head = Head::default();
        let decoded = self.table.decode(&block.bytes, |field| head.add(field));
        head.cut = block.cut || decoded.is_err();
        if head.cut {
            self.table.forget();
        }
        if block.promised {
            return Step::Pushed;
        }
        Step::Block {
            stream: block.stream,
            ends_stream: block.ends_stream,
            head: Box::new(head),
        }
    }
}

impl Block {
    /// Leaves of the payload of `frame` the part that belongs to the block.
    fn unwrap_frame(&mut self, frame: Frame) {
        let payload = self.bytes.len() - self.frame_at;
        let padding = match (frame.is_padded(), self.bytes.get(self.frame_at)) {
            (false, _) => None,
            (true, Some(len)) => Some(usize::from(*len)),
            (true, None) => Some(0),
        };
        let before = frame.before_block() + usize::from(padding.is_some());
        let after = padding.unwrap_or(0);
        // Where the block's part ends, which may not have been captured.
        let end = (frame.len as usize).saturating_sub(after).min(payload);
        self.bytes.truncate(self.frame_at + end);
        if end < before {
            self.cut = true;
            self.bytes.truncate(self.frame_at);
        } else {
            self.bytes.drain(self.frame_at..self.frame_at + before);
        }
    }
}
