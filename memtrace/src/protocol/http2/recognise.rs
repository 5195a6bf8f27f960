//! Do these bytes look like HTTP/2 frames? The start of a feed comes in, a
//! verdict goes out. Used where the position in a stream, or its protocol, is
//! not known.

use super::frame::{Frame, HEADER, Kind};
use super::head::Head;
use super::hpack::{Stop, Table};
use crate::message::Side;

/// What the frames at the start of a feed tell.
#[derive(Debug, Default)]
struct Seen {
    /// Frame headers of known kinds that were captured; all are plausible.
    frames: u32,
    /// The last of these frames ends with the feed.
    ends: bool,
    /// Who sends header blocks like the first of them, if that tells.
    opened_by: Option<Side>,
}

/// Which end sends such bytes, the first of a feed of `len` bytes, if they are
/// certain to be HTTP/2 frames. That takes a header block of which static entries,
/// or those that the block itself adds, tell a request from a response.
pub fn sender_of(start: &[u8], len: u64) -> Option<Side> {
    // Frames longer than this are rare, and many other bytes end here.
    if start.first() != Some(&0) {
        return None;
    }
    [Side::Client, Side::Server]
        .into_iter()
        .find(|&side| look(side, start, len).is_some_and(|seen| seen.opened_by == Some(side)))
}

/// Are these first bytes of a feed of `len` bytes, which `side` sent on an HTTP/2
/// connection, the start of a frame?
pub(super) fn opens_with_frames(side: Side, start: &[u8], len: u64) -> bool {
    look(side, start, len)
        .is_some_and(|seen| seen.frames > 1 || seen.ends || seen.opened_by == Some(side))
}

/// `None`: at least one of the headers is no frame's.
fn look(side: Side, start: &[u8], len: u64) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut at: u64 = 0;
    while let Ok(position) = usize::try_from(at)
        && let Some(bytes) = start
            .get(position..)
            .and_then(<[u8]>::first_chunk::<HEADER>)
    {
        let frame = Frame::parse(*bytes);
        if !frame.is_plausible(side) {
            return None;
        }
        // Almost anything could be an extension's.
        let is_known = frame.kind != Kind::Other;
        seen.frames += u32::from(is_known);
        if frame.kind == Kind::Headers && seen.opened_by.is_none() {
            let payload = start.get(position + HEADER..).unwrap_or(&[]);
            seen.opened_by = block_sender(frame, payload).ok()?;
        }
        at += HEADER as u64 + u64::from(frame.len);
        seen.ends = is_known && at == len;
    }
    Some(seen)
}

/// Who sends this header block, as far as it tells.
fn block_sender(frame: Frame, payload: &[u8]) -> Result<Option<Side>, Stop> {
    let payload = payload.get(..frame.len as usize).unwrap_or(payload);
    let padding = match payload.first() {
        Some(len) if frame.is_padded() => 1 + usize::from(*len),
        Some(_) | None => 0,
    };
    let before = frame.before_block() + padding.min(1);
    let end = (frame.len as usize).saturating_sub(padding.saturating_sub(1));
    let block = payload
        .get(before..end.min(payload.len()))
        .ok_or(Stop::Broken)?;
    let mut head = Head::default();
    let decoded = Table::new().decode(block, |field| head.add(field));
    let whole = end <= payload.len() && frame.ends_headers();
    match decoded {
        Ok(()) => {}
        Err(Stop::Cut) if !whole => {}
        Err(stop) => return Err(stop),
    }
    match (head.opens_request, head.status) {
        (true, None) => Ok(Some(Side::Client)),
        (false, Some(_)) => Ok(Some(Side::Server)),
        (false, None) => Ok(None),
        (true, Some(_)) => Err(Stop::Broken),
    }
}
