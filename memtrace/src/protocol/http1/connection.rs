//! One connection, both directions: bytes come in, messages go out.
//!
//! It walks each direction (`half`) step by step and hands what it finds to
//! `exchange` (messages that open and end), `framing` (what follows a head),
//! `series` (messages within content) and `gap` (what was not captured). It does
//! not look at single bytes.

use std::collections::VecDeque;

use super::chunk::{Chunk, LAST_CHUNK};
use super::exchange::{Exchange, Receiving, Sending};
use super::framing::Ended;
use super::half::{Half, State, Step};
use super::head::Head;
use super::probe::{Look, Probe, opens_with_request_line, opens_with_status};
use super::series::Series;
use super::{Bytes, ExchangeId, Handover, Http2Start, Message, Other, Side, Verdict};

/// The state of one connection, both directions.
#[derive(Debug)]
pub struct Connection {
    /// Seen from its first byte.
    pub(super) whole: bool,
    pub(super) verdict: Verdict,
    pub(super) next: u32,
    pub(super) client: Half,
    pub(super) server: Half,
    pub(super) receiving: Option<Receiving>,
    pub(super) sending: Sending,
    pub(super) queue: VecDeque<Exchange>,
    /// Requests that followed the last of a full queue and were not queued.
    pub(super) overflow: u64,
    /// Bytes from the client before any request was recognised.
    pub(super) unrecognised_bytes: u64,
    /// The messages within a response, or after an upgrade.
    pub(super) series: Option<Box<Series>>,
    pub(super) handover: Option<Box<Handover>>,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// A connection that is seen from its first byte.
    pub fn new() -> Self {
        Self::start(true)
    }

    /// A connection that was open before it was seen: what it was transferring
    /// is passed over until a message opens.
    pub fn picked_up() -> Self {
        Self::start(false)
    }

    fn start(whole: bool) -> Self {
        Connection {
            whole,
            verdict: Verdict::Unknown,
            next: 0,
            client: Half {
                side: Side::Client,
                state: State::LOST,
            },
            server: Half {
                side: Side::Server,
                state: if whole { State::Boundary } else { State::LOST },
            },
            receiving: None,
            sending: Sending::Nobody,
            queue: VecDeque::new(),
            overflow: 0,
            unrecognised_bytes: 0,
            series: None,
            handover: None,
        }
    }

    /// The connection goes on in HTTP/2, since the last feed.
    pub fn take_handover(&mut self) -> Option<Box<Handover>> {
        self.handover.take()
    }

    /// What the connection turned out to be so far.
    pub fn is_http(&self) -> Verdict {
        self.verdict
    }

    /// Takes in bytes that `side` sent and adds what they amount to to `out`.
    pub fn feed(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        let payload = bytes.captured();
        let missing = bytes.len - payload.len() as u64;
        let closes_chunks = missing == 0 && closes_chunks(payload);
        self.look_at_start(side, bytes, out);
        let mut rest = payload;
        while !rest.is_empty() && !self.is_upgraded_series() {
            let advance = self.half(side).advance(rest);
            let (walked, after) = rest.split_at(advance.used);
            rest = after;
            self.count(side, advance.counted);
            if advance.content && side == Side::Server {
                self.content(walked, out);
            }
            self.apply(side, advance.step, out);
            if let Some(handover) = &mut self.handover {
                handover.taken = payload.len() - rest.len();
                return;
            }
        }
        if self.is_upgraded_series() {
            let bytes = Bytes {
                len: missing + rest.len() as u64,
                payload: rest,
                tail: bytes.tail,
            };
            self.upgraded(side, bytes, out);
        } else if missing > 0 {
            self.skip(side, missing, bytes.tail, out);
            if let Some(handover) = &mut self.handover {
                handover.taken = payload.len();
            }
        } else if closes_chunks && self.is_seeking_last_chunk(side) {
            self.end_message(side, out);
        }
    }

    /// `side` sends no more (end of stream, or shut down for writing).
    pub fn close_side(&mut self, side: Side, out: &mut Vec<Message>) {
        let state = std::mem::replace(&mut self.half(side).state, State::Ignore);
        let at_end = matches!(state, State::UntilClose | State::Seek { .. });
        match side {
            Side::Client => {
                if at_end {
                    self.end_request(out);
                }
            }
            Side::Server => {
                if at_end && self.sending == Sending::First {
                    self.end_response(out);
                }
                self.sending = Sending::Nobody;
                while let Some(exchange) = self.queue.pop_front() {
                    self.abandon(exchange, out);
                }
            }
        }
    }

    /// The connection is gone.
    pub fn close(&mut self, out: &mut Vec<Message>) {
        self.close_side(Side::Client, out);
        self.close_side(Side::Server, out);
    }

    pub(super) fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// The start of a feed is where a head is looked for when the position is
    /// not known.
    fn look_at_start(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        let start = bytes.captured();
        let busy = self.sending != Sending::Nobody;
        let misled =
            side == Side::Server && self.sending == Sending::Unmatched && !self.queue.is_empty();
        let half = self.half(side);
        match &mut half.state {
            State::Seek { probe: Some(_), .. } => {}
            State::Seek { chunked: true, .. }
                if side == Side::Server && busy && Chunk::fills(bytes) =>
            {
                half.state = State::Chunked(Chunk::new());
            }
            State::Seek { probe, .. } => {
                *probe = (!start.is_empty()).then(Probe::new);
                if side == Side::Client && opens_with_request_line(start) {
                    self.leave_message(side, out);
                    self.begin(side, out);
                }
            }
            // The unseen request may have been a HEAD, whose response has no
            // body in spite of what its head says.
            State::Length(_) | State::Chunked(_) | State::UntilClose
                if misled && opens_with_status(start) =>
            {
                self.sending = Sending::Nobody;
                self.server.state = State::Boundary;
            }
            State::Boundary
            | State::Head(_)
            | State::Length(_)
            | State::Chunked(_)
            | State::UntilClose
            | State::Ignore => {}
        }
    }

    pub(super) fn is_seeking_last_chunk(&self, side: Side) -> bool {
        let (half, busy) = match side {
            Side::Client => (&self.client, self.receiving.is_some()),
            Side::Server => (&self.server, self.sending != Sending::Nobody),
        };
        busy && matches!(half.state, State::Seek { chunked: true, .. })
    }

    /// `bytes` more belong to the message that is under way.
    pub(super) fn count(&mut self, side: Side, bytes: u64) {
        match side {
            Side::Client => match &mut self.receiving {
                Some(request) => request.bytes = request.bytes.saturating_add(bytes),
                None => {
                    self.unrecognised_bytes = self.unrecognised_bytes.saturating_add(bytes);
                }
            },
            Side::Server => {
                if self.sending == Sending::First
                    && let Some(exchange) = self.queue.front_mut()
                {
                    exchange.response_bytes = exchange.response_bytes.saturating_add(bytes);
                }
            }
        }
    }

    fn apply(&mut self, side: Side, step: Step, out: &mut Vec<Message>) {
        match step {
            Step::More => {}
            Step::Begin => self.begin(side, out),
            Step::Head(head) => self.end_head(side, *head, Ended::Seen, out),
            Step::BodyEnd => self.end_message(side, out),
            Step::Malformed(defect) => self.malformed(side, defect, out),
            Step::Found(Look::Head, probe) => self.found_head(side, &probe, out),
            Step::Found(look, probe) => {
                self.count(side, probe.bytes().len() as u64);
                if self.verdict != Verdict::Http1 {
                    self.found_other(look, &probe);
                }
            }
        }
    }

    fn found_other(&mut self, look: Look, probe: &Probe) {
        match look {
            Look::Http2 => self.hand_over(Http2Start::Preface(probe.bytes().len())),
            Look::Tls => {
                self.verdict = Verdict::NotHttp(Other::Tls);
                // In mid-stream three bytes may deceive, so a head still counts
                // there.
                if self.whole {
                    self.client.state = State::Ignore;
                    self.server.state = State::Ignore;
                }
            }
            Look::Undecided | Look::Head | Look::Nothing => {}
        }
    }

    pub(super) fn hand_over(&mut self, start: Http2Start) {
        self.client.state = State::Ignore;
        self.server.state = State::Ignore;
        self.handover = Some(Box::new(Handover {
            start,
            next: ExchangeId(self.next),
            taken: 0,
        }));
    }

    /// A head opens at a position that was not known.
    fn found_head(&mut self, side: Side, probe: &Probe, out: &mut Vec<Message>) {
        let bytes = probe.bytes();
        if side == Side::Server
            && self.sending == Sending::First
            && self.queue.len() == 1
            && let Some(exchange) = self.queue.front()
        {
            if exchange.status.is_some() {
                // No request waits for another response: it is content.
                self.count(side, bytes.len() as u64);
                return;
            }
            // The final response after one of which the head was not seen.
            self.server.state = State::Head(Box::new(Head::new(side)));
        } else {
            self.leave_message(side, out);
            self.begin(side, out);
        }
        if let State::Head(head) = &mut self.half(side).state {
            // Too short to end a line, and known to open one.
            head.take(bytes);
        }
        self.count(side, bytes.len() as u64);
    }
}

/// Do these bytes, a whole feed, end with the last chunk of a body?
fn closes_chunks(bytes: &[u8]) -> bool {
    bytes.ends_with(LAST_CHUNK) || bytes == &LAST_CHUNK[2..]
}
