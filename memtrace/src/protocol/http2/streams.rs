//! The exchanges under way on one connection, by their streams.

use std::collections::VecDeque;

use super::{ExchangeId, STREAMS_MAX};

/// An exchange under way.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its number on the wire: odd.
    pub(super) id: u32,
    pub(super) exchange: ExchangeId,
    /// The feed in which bytes of it were last told of.
    pub(super) carried: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// Of the final response.
    pub(super) status: Option<u16>,
    pub(super) request_begun: bool,
    pub(super) request_over: bool,
    pub(super) response_begun: bool,
    /// The head of the final response was seen: what follows are trailers.
    pub(super) responded: bool,
    /// The exchange is over; the request is still being sent.
    pub(super) response_over: bool,
    /// Bytes of the server were lost since it began: its end may be among them.
    pub(super) end_missed: bool,
}

impl Stream {
    pub(super) fn new(id: u32, exchange: ExchangeId) -> Stream {
        Stream {
            id,
            exchange,
            carried: 0,
            request_bytes: 0,
            response_bytes: 0,
            status: None,
            request_begun: false,
            request_over: false,
            response_begun: false,
            responded: false,
            response_over: false,
            end_missed: false,
        }
    }
}

/// Streams in the order of their numbers, which is the one they open in.
#[derive(Debug, Default)]
pub(super) struct Streams(VecDeque<Stream>);

impl Streams {
    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.position(id)?;
        self.0.get_mut(at)
    }

    pub(super) fn take(&mut self, id: u32) -> Option<Stream> {
        let at = self.position(id)?;
        let stream = self.0.remove(at);
        // An idle connection holds no room for exchanges.
        if self.0.is_empty() && self.0.capacity() > 16 {
            self.0 = VecDeque::new();
        }
        stream
    }

    /// Adds one whose number is above all others'.
    pub(super) fn push(&mut self, stream: Stream) {
        debug_assert!(self.0.back().is_none_or(|last| last.id < stream.id));
        self.0.push_back(stream);
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= STREAMS_MAX
    }

    /// The first of which this is true.
    pub(super) fn first(&self, which: impl Fn(&Stream) -> bool) -> Option<u32> {
        self.0
            .iter()
            .find(|stream| which(stream))
            .map(|stream| stream.id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.0.iter_mut()
    }

    pub(super) fn retain(&mut self, which: impl FnMut(&Stream) -> bool) {
        self.0.retain(which);
    }

    /// Takes those with a number above `id`.
    pub(super) fn take_above(&mut self, id: u32) -> VecDeque<Stream> {
        let at = self.0.partition_point(|stream| stream.id <= id);
        self.0.split_off(at)
    }

    fn position(&self, id: u32) -> Option<usize> {
        self.0.binary_search_by_key(&id, |stream| stream.id).ok()
    }
}
