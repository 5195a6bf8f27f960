//! Messages within one exchange: content comes in, where its events or, after an
//! upgrade, its WebSocket messages begin and end goes out.
//!
//! What makes such a message is for `sse` and `websocket` to say.

use super::connection::Connection;
use super::{Bytes, ExchangeId, Message, Side};
use crate::message::Series as Kind;
use crate::protocol::{
    sse::{self, Events},
    websocket::{self, Frames},
};

/// The messages of one exchange.
#[derive(Debug)]
pub(super) struct Series {
    exchange: ExchangeId,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Events(Events),
    /// Events that cannot be told apart: the content is compressed.
    Untold,
    WebSocket {
        client: Frames,
        server: Frames,
    },
}

impl Connection {
    /// From here on the response, or what follows it, is a series. `coded`: its
    /// content is compressed.
    pub(super) fn begin_series(
        &mut self,
        exchange: ExchangeId,
        series: Kind,
        coded: bool,
        out: &mut Vec<Message>,
    ) {
        out.push(Message::SeriesBegin { exchange, series });
        let of = match series {
            Kind::ServerSentEvents if coded => Of::Untold,
            Kind::ServerSentEvents => Of::Events(Events::new()),
            Kind::WebSocket => Of::WebSocket {
                client: Frames::new(Side::Client),
                server: Frames::new(Side::Server),
            },
        };
        self.series = Some(Box::new(Series { exchange, of }));
    }

    /// The response that was a series is over.
    pub(super) fn end_series(&mut self) {
        self.series = None;
    }

    /// The connection was upgraded to a series.
    pub(super) fn is_upgraded_series(&self) -> bool {
        matches!(
            self.series.as_deref(),
            Some(Series {
                of: Of::WebSocket { .. },
                ..
            })
        )
    }

    /// Bytes after the upgrade.
    pub(super) fn upgraded(&mut self, side: Side, bytes: Bytes<'_>, out: &mut Vec<Message>) {
        let Some(Series {
            exchange,
            of: Of::WebSocket { client, server },
        }) = self.series.as_deref_mut()
        else {
            return;
        };
        let (exchange, from) = (*exchange, side);
        let frames = match side {
            Side::Client => client,
            Side::Server => server,
        };
        frames.feed(bytes, |progress| {
            out.push(match progress {
                websocket::Progress::Begin => Message::SeriesMessageBegin { exchange, from },
                websocket::Progress::End(bytes) => Message::SeriesMessage {
                    exchange,
                    from,
                    bytes,
                },
                websocket::Progress::Untold => Message::SeriesCut { exchange, from },
            });
        });
    }

    /// Content of the response under way.
    pub(super) fn content(&mut self, content: &[u8], out: &mut Vec<Message>) {
        self.events(out, |events, say| events.feed(content, say));
    }

    /// Content of the response under way that was not captured; `tail` is its
    /// end, if that is known.
    pub(super) fn content_gap(&mut self, bytes: u64, tail: &[u8], out: &mut Vec<Message>) {
        self.events(out, |events, say| events.skip(bytes, tail, say));
    }

    /// Where in the content of the response under way the next bytes belong is
    /// not known.
    pub(super) fn content_lost(&mut self, out: &mut Vec<Message>) {
        if let Some(Series { exchange, of }) = self.series.as_deref_mut()
            && let Of::Events(events) = of
        {
            *events = Events::new();
            out.push(Message::SeriesCut {
                exchange: *exchange,
                from: Side::Server,
            });
        }
    }

    fn events(
        &mut self,
        out: &mut Vec<Message>,
        feed: impl FnOnce(&mut Events, &mut dyn FnMut(sse::Progress)),
    ) {
        let Some(Series { exchange, of }) = self.series.as_deref_mut() else {
            return;
        };
        let (exchange, from) = (*exchange, Side::Server);
        match of {
            Of::Events(events) => feed(events, &mut |progress| {
                out.push(match progress {
                    sse::Progress::Begin => Message::SeriesMessageBegin { exchange, from },
                    sse::Progress::End(bytes) => Message::SeriesMessage {
                        exchange,
                        from,
                        bytes,
                    },
                });
            }),
            Of::Untold => out.push(Message::SeriesCut { exchange, from }),
            Of::WebSocket { .. } => {}
        }
    }
}
