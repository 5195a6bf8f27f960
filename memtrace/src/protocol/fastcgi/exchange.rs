//! One request over FastCGI and its response: the content of its records comes
//! in, its messages go out.

use super::response::Head;
use crate::message::{Abandoned, ExchangeId, Message, Protocol, Series, Side};
use crate::protocol::{
    cgi::{Coding, Facts, Variables},
    http1::method_name,
    sse::{Events, Progress},
};

/// A request that is not over.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    /// Its number in records.
    pub(super) wire: u16,
    /// Until they have ended.
    variables: Option<Box<Variables>>,
    /// The end of the request was stated.
    received: bool,
    answer: Answer,
    status: Option<u16>,
    /// The last byte seen of END_REQUEST's body, and how many were.
    end: (u8, u64),
    request_bytes: u64,
    response_bytes: u64,
}

/// How far the response is.
#[derive(Debug)]
enum Answer {
    Awaited,
    Head(Box<Head>),
    Body,
    Events(Box<Events>),
}

impl Exchange {
    pub(super) fn new(id: ExchangeId, wire: u16) -> Self {
        Exchange {
            id,
            wire,
            variables: Some(Box::new(Variables::new(Coding::FastCgi))),
            received: false,
            answer: Answer::Awaited,
            status: None,
            end: (0, 0),
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    pub(super) fn count(&mut self, side: Side, bytes: u64) {
        let total = match side {
            Side::Client => &mut self.request_bytes,
            Side::Server => &mut self.response_bytes,
        };
        *total = total.saturating_add(bytes);
    }

    /// The next variables; `None`: not captured.
    pub(super) fn variables(&mut self, content: Option<&[u8]>, bytes: u64) {
        if let Some(variables) = &mut self.variables {
            match content {
                Some(content) => variables.feed(content),
                None => variables.skip(bytes),
            }
        }
    }

    pub(super) fn end_variables(&mut self, out: &mut Vec<Message>) {
        let Some(variables) = self.variables.take() else {
            return;
        };
        let Facts {
            method,
            target,
            content_length: _,
            complete,
        } = variables.facts();
        out.push(Message::RequestHead {
            exchange: self.id,
            method: method_name(method),
            target,
            protocol: Protocol::FastCgi,
            keep_alive: true,
            expect_continue: false,
            head_bytes: self.request_bytes,
            complete,
        });
    }

    pub(super) fn end_request(&mut self, out: &mut Vec<Message>) {
        if !std::mem::replace(&mut self.received, true) {
            out.push(Message::RequestEnd {
                exchange: self.id,
                request_bytes: self.request_bytes,
            });
        }
    }

    /// The next content of the response; `None`: not captured, `tail` is its
    /// end.
    pub(super) fn stdout(
        &mut self,
        content: Option<&[u8]>,
        bytes: u64,
        tail: &[u8],
        out: &mut Vec<Message>,
    ) {
        if matches!(self.answer, Answer::Awaited) {
            out.push(Message::ResponseBegin { exchange: self.id });
            self.answer = Answer::Head(Box::default());
        }
        match (&mut self.answer, content) {
            (Answer::Head(head), Some(content)) => {
                if let Some(end) = head.take(content) {
                    self.end_head(out);
                    let body = content.get(end..).unwrap_or(&[]);
                    if !body.is_empty() {
                        self.stdout(Some(body), body.len() as u64, &[], out);
                    }
                }
            }
            // Its status may have been in what is missing.
            (Answer::Head(_), None) => self.answer = Answer::Body,
            (Answer::Events(events), content) => {
                let (exchange, from) = (self.id, Side::Server);
                let say = |progress| {
                    out.push(match progress {
                        Progress::Begin => Message::SeriesMessageBegin { exchange, from },
                        Progress::End(bytes) => Message::SeriesMessage {
                            exchange,
                            from,
                            bytes,
                        },
                    });
                };
                match content {
                    Some(content) => events.feed(content, say),
                    None => events.skip(bytes, tail, say),
                }
            }
            (Answer::Awaited | Answer::Body, _) => {}
        }
    }

    fn end_head(&mut self, out: &mut Vec<Message>) {
        let Answer::Head(head) = std::mem::replace(&mut self.answer, Answer::Body) else {
            return;
        };
        let status = head.code();
        self.status = Some(status);
        out.push(Message::ResponseHead {
            exchange: self.id,
            status,
            head_bytes: head.bytes,
        });
        if head.is_event_stream() {
            self.answer = Answer::Events(Box::default());
            out.push(Message::SeriesBegin {
                exchange: self.id,
                series: Series::ServerSentEvents,
            });
        }
    }

    /// The next bytes of END_REQUEST's body. Says whether it is over.
    pub(super) fn end_body(
        &mut self,
        content: Option<&[u8]>,
        bytes: u64,
        out: &mut Vec<Message>,
    ) -> bool {
        let (status, seen) = &mut self.end;
        // The fifth byte says how it ended (5.5).
        let at = 4_u64
            .checked_sub(*seen)
            .and_then(|at| usize::try_from(at).ok());
        if let (Some(content), Some(at)) = (content, at)
            && let Some(&byte) = content.get(at)
        {
            *status = byte;
        }
        *seen += bytes;
        let (status, over) = (*status, *seen >= 8);
        if over {
            self.end(status, out);
        }
        over
    }

    /// The application has ended it; `status` is the protocol's: 0, or why it
    /// was refused.
    pub(super) fn end(&mut self, status: u8, out: &mut Vec<Message>) {
        if status == 0 && !matches!(self.answer, Answer::Awaited) {
            self.end_response(out);
        } else {
            self.abandon(Abandoned::ResetByServer, out);
        }
    }

    pub(super) fn aborted(&mut self, out: &mut Vec<Message>) {
        self.abandon(Abandoned::ResetByClient, out);
    }

    /// Too many are open.
    pub(super) fn give_up(mut self, out: &mut Vec<Message>) {
        self.abandon(Abandoned::PipelineTooLong, out);
    }

    /// Nothing more is sent for it. `unseen`: its end may have been sent, unseen.
    pub(super) fn close(mut self, unseen: bool, out: &mut Vec<Message>) {
        let how = match self.answer {
            Answer::Head(_) | Answer::Body | Answer::Events(_) if unseen => {
                self.end_response(out);
                return;
            }
            Answer::Head(_) | Answer::Body | Answer::Events(_) => Abandoned::PartialResponse,
            Answer::Awaited if self.received => Abandoned::NoResponse,
            Answer::Awaited => Abandoned::PartialRequest,
        };
        self.abandon(how, out);
    }

    fn end_response(&mut self, out: &mut Vec<Message>) {
        if let Answer::Head(_) = self.answer {
            // It ended in its head: no empty line was sent.
            self.end_head(out);
        }
        out.push(Message::ResponseEnd {
            exchange: self.id,
            response_bytes: self.response_bytes,
            request_bytes: self.request_bytes,
        });
    }

    fn abandon(&mut self, how: Abandoned, out: &mut Vec<Message>) {
        out.push(Message::RequestAbandoned {
            exchange: self.id,
            how,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            status: self.status,
        });
    }
}
