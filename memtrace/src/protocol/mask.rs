//! Taking private content out of socket bytes: what the kernel captured comes
//! in, and leaves with the same length and without bodies, query values and
//! header values, before anything is stored.
//!
//! What may stay is decided byte by byte by the [`http1`](super::http1) parser,
//! which alone knows where heads end; this file only drives it. Kept are methods,
//! versions, paths, names of parameters and headers, status lines, chunk sizes,
//! and the values of the headers that frame a message or name its protocol.
//! Nothing is kept of bytes that were not recognised, apart from the few that
//! tell TLS and HTTP/2 apart.
//!
//! It does not shorten anything itself: it says how much is worth storing.

use super::http1::{Connection, Message, Side, Verdict};

/// Masks both directions of one connection.
///
/// It must be told everything that the later reader of the stored bytes is told
/// (also lost bytes and closed sides), in the same order. The reader then gets
/// the same messages from the masked bytes as it would from the original ones.
#[derive(Debug, Default)]
pub struct Masker {
    connection: Connection,
    /// Messages are for whoever reads the stored bytes; here they only need a
    /// place.
    unread: Vec<Message>,
}

impl Masker {
    /// For a connection that is seen from its first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a connection that was open before it was seen.
    pub fn picked_up() -> Self {
        Masker {
            connection: Connection::picked_up(),
            unread: Vec::new(),
        }
    }

    /// Masks in place the first bytes (`payload`) and, if these were cut, the
    /// last bytes (`tail`) of the `len` bytes that `side` sent. Returns how many
    /// leading bytes of `payload` are worth storing; the rest is content and
    /// holds zeros.
    pub fn mask(&mut self, side: Side, len: u64, payload: &mut [u8], tail: &mut [u8]) -> usize {
        let kept = self
            .connection
            .feed_masking(side, len, payload, tail, &mut self.unread);
        self.unread.clear();
        kept
    }

    /// Bytes that `side` sent were lost.
    pub fn lose(&mut self, side: Side) {
        self.connection.lose(side, &mut self.unread);
        self.unread.clear();
    }

    /// `side` sends no more.
    pub fn close_side(&mut self, side: Side) {
        self.connection.close_side(side, &mut self.unread);
        self.unread.clear();
    }

    /// What the connection turned out to be so far.
    pub fn is_http(&self) -> Verdict {
        self.connection.is_http()
    }
}

#[cfg(test)]
mod tests;
