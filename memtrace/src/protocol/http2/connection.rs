//! One connection, both directions: bytes come in, messages go out.
//!
//! It walks each direction (`half`) step by step and matches what it finds with
//! the exchanges (`streams`). It does not look at single bytes.

use super::frame::{Frame, HEADER, Kind};
use super::half::{Half, Step};
use super::head::Head;
use super::streams::{Stream, Streams};
use super::{Abandoned, ExchangeId, Message, Side};
use crate::message::Protocol;
use crate::protocol::http1::Bytes;

/// The state of one connection, both directions.
#[derive(Debug)]
pub struct Connection {
    client: Half,
    server: Half,
    streams: Streams,
    /// The number of the next exchange.
    next: u32,
    /// The latest stream that the client is known to have opened.
    opened: u32,
    /// A stream above it is certain to be new. Else what looks like one may be
    /// the trailers of a request whose head was not seen.
    opened_certain: bool,
    /// Bytes of a client's header block on a stream that is not known.
    unplaced_bytes: u64,
    /// Calls of [`Connection::feed`]. Before the first, it is not told that the
    /// stream carries several exchanges.
    feeds: u64,
}

impl Connection {
    /// A connection of which `seen` bytes of the preface have passed, and
    /// nothing that the server sent is still under way. The first exchange gets
    /// the number `next`.
    pub fn in_preface(seen: usize, next: ExchangeId) -> Self {
        let server = Half::at_frame(Side::Server);
        Self::start(Half::in_preface(seen), server, next, true)
    }

    /// A connection that was open before it was seen: what it was transferring
    /// is passed over until frames open a feed.
    pub fn picked_up(next: ExchangeId) -> Self {
        let client = Half::picked_up(Side::Client);
        Self::start(client, Half::picked_up(Side::Server), next, false)
    }

    /// A connection that was upgraded by a request in HTTP/1.1, which is answered
    /// on stream 1 (RFC 7540, 3.2). The bytes are those so far.
    pub fn upgraded(exchange: ExchangeId, request_bytes: u64, response_bytes: u64) -> Self {
        const UPGRADED: u32 = 1;
        let next = ExchangeId(exchange.0.wrapping_add(1));
        let mut connection = Self::in_preface(0, next);
        connection.opened = UPGRADED;
        connection.streams.push(Stream {
            request_bytes,
            response_bytes,
            request_begun: true,
            request_over: true,
            response_begun: true,
            ..Stream::new(UPGRADED, exchange)
        });
        connection
    }

    fn start(client: Half, server: Half, next: ExchangeId, whole: bool) -> Self {
        Connection {
            client,
            server,
            streams: Streams::default(),
            next: next.0,
            opened: 0,
            opened_certain: whole,
            unplaced_bytes: 0,
            feeds: 0,
        }
    }

    /// Takes in bytes that `side` sent and adds what they amount to to `out`.
    pub fn feed(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        if self.feeds == 0 {
            out.push(Message::Multiplexed);
        }
        self.feeds += 1;
        let mut rest = bytes.captured();
        let mut missing = bytes.len - rest.len() as u64;
        self.half(side).resume(rest, bytes.len);
        if bytes.len > 0
            && let Some(frame) = self.half(side).under_way()
        {
            self.carry(frame, out);
        }
        while !rest.is_empty() {
            let frame = self.half(side).under_way();
            let (taken, step) = self.half(side).advance(rest);
            rest = rest.get(taken..).unwrap_or(&[]);
            self.count(side, frame, taken as u64);
            self.apply(side, step, out);
        }
        while missing > 0 {
            let frame = self.half(side).under_way();
            let (taken, step) = self.half(side).skip(missing);
            missing -= taken;
            self.count(side, frame, taken);
            self.apply(side, step, out);
        }
    }

    /// Bytes of either side may have been lost, nobody knows how many, or
    /// whether: what they may have changed is unknown from here on.
    pub fn lose(&mut self) {
        self.client.doubt();
        self.server.doubt();
        self.opened_certain = false;
        for stream in self.streams.iter_mut() {
            stream.end_missed = true;
        }
    }

    /// `side` sends no more (end of stream, or shut down for writing).
    pub fn close_side(&mut self, side: Side, out: &mut Vec<Message>) {
        if side == Side::Client {
            return;
        }
        for stream in self.streams.take_above(0) {
            if stream.response_over {
                continue;
            }
            if stream.end_missed {
                end_response(&stream, out);
            } else {
                let how = if stream.response_begun {
                    Abandoned::PartialResponse
                } else if stream.request_over {
                    Abandoned::NoResponse
                } else {
                    Abandoned::PartialRequest
                };
                abandon(&stream, how, out);
            }
        }
    }

    /// The connection is gone.
    pub fn close(&mut self, out: &mut Vec<Message>) {
        self.close_side(Side::Server, out);
    }

    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// `bytes` of this frame have moved.
    fn count(&mut self, side: Side, frame: Option<Frame>, bytes: u64) {
        let Some(frame) = frame.filter(|frame| frame.is_message()) else {
            return;
        };
        let counter = match (self.streams.get(frame.stream), side) {
            (Some(stream), Side::Client) => &mut stream.request_bytes,
            (Some(stream), Side::Server) => &mut stream.response_bytes,
            (None, Side::Client) => &mut self.unplaced_bytes,
            (None, Side::Server) => return,
        };
        *counter = counter.saturating_add(bytes);
    }

    /// Bytes of this frame are in this feed.
    fn carry(&mut self, frame: Frame, out: &mut Vec<Message>) {
        if (frame.is_message() || frame.kind == Kind::Reset)
            && let Some(stream) = self.streams.get(frame.stream)
            && stream.carried != self.feeds
            && !stream.response_over
        {
            stream.carried = self.feeds;
            out.push(Message::Carries {
                exchange: stream.exchange,
            });
        }
    }

    fn apply(&mut self, side: Side, step: Step, out: &mut Vec<Message>) {
        match step {
            Step::More | Step::Pushed => {}
            Step::Opens(frame) => {
                self.open(side, frame, out);
                let step = self.half(side).end_empty();
                self.apply(side, step, out);
            }
            Step::Ends(frame) if frame.ends_stream() => self.end(side, frame.stream, out),
            Step::Ends(frame) if frame.kind == Kind::Reset => self.reset(side, frame.stream, out),
            Step::Ends(_) => {}
            Step::GoAway(last) => {
                if side == Side::Server {
                    for stream in self.streams.take_above(last) {
                        if !stream.response_over {
                            abandon(&stream, Abandoned::ResetByServer, out);
                        }
                    }
                }
            }
            Step::Block {
                stream,
                ends_stream,
                head,
            } => {
                match side {
                    Side::Client => self.request_block(stream, ends_stream, &head, out),
                    Side::Server => self.response_block(stream, ends_stream, &head, out),
                }
                if ends_stream {
                    self.end(side, stream, out);
                }
            }
            Step::Lost => self.lost(side),
        }
    }

    fn open(&mut self, side: Side, frame: Frame, out: &mut Vec<Message>) {
        if frame.kind == Kind::Headers {
            match side {
                Side::Client => {
                    self.unplaced_bytes = 0;
                    if frame.stream > self.opened && self.opened_certain {
                        self.begin(frame.stream, out);
                    }
                }
                Side::Server => {
                    if let Some(stream) = self.streams.get(frame.stream)
                        && !stream.response_begun
                    {
                        stream.response_begun = true;
                        out.push(Message::ResponseBegin {
                            exchange: stream.exchange,
                        });
                    }
                }
            }
        }
        self.carry(frame, out);
        self.count(side, Some(frame), HEADER as u64);
    }

    /// A request opens.
    fn begin(&mut self, id: u32, out: &mut Vec<Message>) {
        // Clients number their streams without gaps, but for a few. A gap may be
        // a request that was not seen, and what it added to the header table.
        if self.opened > 0 && id > self.opened.saturating_add(2) {
            self.client.forget();
        }
        self.opened = id;
        let exchange = ExchangeId(self.next);
        self.next = self.next.wrapping_add(1);
        if self.streams.is_full() {
            self.make_room(out);
        }
        out.push(Message::RequestBegin { exchange });
        out.push(Message::Numbered {
            exchange,
            number: id,
        });
        if self.streams.is_full() {
            out.push(Message::RequestAbandoned {
                exchange,
                how: Abandoned::PipelineTooLong,
                request_bytes: 0,
                response_bytes: 0,
                status: None,
            });
        } else {
            self.streams.push(Stream::new(id, exchange));
        }
    }

    /// Parts with the oldest exchange that is over, or may well be.
    fn make_room(&mut self, out: &mut Vec<Message>) {
        let over = self.streams.first(|stream| stream.response_over);
        let over = over.or_else(|| self.streams.first(|stream| stream.end_missed));
        if let Some(stream) = over.and_then(|id| self.streams.take(id))
            && !stream.response_over
        {
            end_response(&stream, out);
        }
    }

    fn request_block(&mut self, id: u32, ends_stream: bool, head: &Head, out: &mut Vec<Message>) {
        if !self.opened_certain && id > self.opened {
            // Trailers end the stream, and have no pseudo-headers.
            if !head.opens_request && ends_stream {
                return;
            }
            self.begin(id, out);
            self.opened_certain = true;
            let feeds = self.feeds;
            if let Some(stream) = self.streams.get(id) {
                stream.request_bytes = self.unplaced_bytes;
                stream.carried = feeds;
                out.push(Message::Carries {
                    exchange: stream.exchange,
                });
            }
        }
        let Some(stream) = self.streams.get(id).filter(|stream| !stream.request_begun) else {
            return;
        };
        stream.request_begun = true;
        out.push(Message::RequestHead {
            exchange: stream.exchange,
            method: head.method().to_owned(),
            target: head.target().to_owned(),
            protocol: if head.grpc {
                Protocol::Grpc
            } else {
                Protocol::Http2
            },
            keep_alive: true,
            expect_continue: head.expect_continue,
            head_bytes: stream.request_bytes,
            complete: !head.cut,
        });
    }

    fn response_block(&mut self, id: u32, ends_stream: bool, head: &Head, out: &mut Vec<Message>) {
        let is_interim = head.status.is_some_and(|status| status < 200) && !ends_stream;
        let Some(stream) = self.streams.get(id) else {
            // Even streams are pushed.
            if id % 2 == 1 && !is_interim && head.status.is_some() {
                out.push(Message::UnmatchedResponse {
                    status: head.status,
                });
            }
            return;
        };
        let exchange = stream.exchange;
        match head.status {
            Some(status) if is_interim => {
                out.push(Message::Interim { exchange, status });
                return;
            }
            Some(status) if !stream.responded => {
                stream.status = Some(status);
                out.push(Message::ResponseHead {
                    exchange,
                    status,
                    head_bytes: stream.response_bytes,
                });
            }
            Some(_) | None => {}
        }
        stream.responded = true;
        if let Some(status) = head.grpc_status {
            out.push(Message::GrpcStatus { exchange, status });
        }
    }

    /// `side` has sent all of its message.
    fn end(&mut self, side: Side, id: u32, out: &mut Vec<Message>) {
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        match side {
            Side::Client if stream.request_over => {}
            Side::Client => {
                stream.request_over = true;
                out.push(Message::RequestEnd {
                    exchange: stream.exchange,
                    request_bytes: stream.request_bytes,
                });
            }
            Side::Server if stream.response_over => {}
            Side::Server => {
                stream.response_over = true;
                end_response(stream, out);
            }
        }
        if stream.request_over && stream.response_over {
            self.streams.take(id);
        }
    }

    fn reset(&mut self, side: Side, id: u32, out: &mut Vec<Message>) {
        if let Some(stream) = self.streams.take(id)
            && !stream.response_over
        {
            let how = match side {
                Side::Client => Abandoned::ResetByClient,
                Side::Server => Abandoned::ResetByServer,
            };
            abandon(&stream, how, out);
        }
    }

    /// Frames of `side` may have passed unseen.
    fn lost(&mut self, side: Side) {
        if side == Side::Client {
            self.opened_certain = false;
        }
        for stream in self.streams.iter_mut() {
            match side {
                // Its end may have been among them, and nothing waits for it.
                Side::Client => stream.request_over = true,
                Side::Server => stream.end_missed = true,
            }
        }
        self.streams
            .retain(|stream| !(stream.request_over && stream.response_over));
    }
}

fn end_response(stream: &Stream, out: &mut Vec<Message>) {
    out.push(Message::ResponseEnd {
        exchange: stream.exchange,
        response_bytes: stream.response_bytes,
        request_bytes: stream.request_bytes,
    });
}

fn abandon(stream: &Stream, how: Abandoned, out: &mut Vec<Message>) {
    out.push(Message::RequestAbandoned {
        exchange: stream.exchange,
        how,
        request_bytes: stream.request_bytes,
        response_bytes: stream.response_bytes,
        status: stream.status,
    });
}
