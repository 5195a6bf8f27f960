//! HTTP/2 streams: so much of the bytes of a call is kept that no frame header
//! and no header block is missing, and hardly anything of the bodies.
//!
//! A stream is followed once it opens with the preface, or with what can only be
//! a request in the middle of a connection. From then on its frames are walked
//! by their lengths (RFC 9113, 4.1), in both directions: a record ends where a
//! body that is not kept ends, and the next one begins with the next frame. What
//! the frames say is not looked at. A wrong guess costs bytes in the ring and
//! nothing else: bytes that are no frames end the walk, and are stated like
//! those of any stream.
//!
//! Where a walk stands is in the thread's [`Moved`] and in the stream's [`Walk`],
//! and is read from there and written back at every step: the verifier goes
//! through a step once instead of once for every way that leads to it.

use aya_ebpf::{helpers::bpf_probe_read_user, macros::map, maps::LruHashMap};
use memtrace_common::{
    event::{FLAG_MORE, FLAG_TLS, Kind},
    limits::{HTTP2_STEPS, HTTP2_STREAMS_MAX, PAYLOAD_HEAD},
};

use crate::{
    maps::{Moved, get, set},
    socket::{data, emit, next_buffer, state_rest},
};

/// Bytes of a frame header.
const HEADER: u64 = 9;

/// Bytes of the preface.
const PREFACE: u32 = 24;

/// A body in front of a frame is kept rather than given a record of its own if
/// it is not longer than a record's own parts.
const GAP_MAX: u64 = 64;

/// The kinds of frames that matter here (RFC 9113, 6).
const DATA: u32 = 0;
const HEADERS: u32 = 1;
const LAST_KNOWN: u32 = 9;

/// Longest frame of an unknown kind that is believed, and longest header frame
/// by which a stream is recognised: the default of SETTINGS_MAX_FRAME_SIZE.
const FRAME_MAX: u32 = 16_384;

/// One direction of a stream.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key {
    /// The inode number of its socket, or the address of its TLS session.
    stream: u64,
    /// The process in which that address means something; 0 for a socket.
    pid: u32,
    received: u32,
}

/// Where in its frames a direction stands.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    /// Bytes left of the payload under way.
    left: u32,
    /// Not 0: that payload is kept.
    kept: u32,
    /// Bytes of a frame header that have passed.
    seen: u32,
    /// The first four of them: length and kind.
    opening: u32,
}

/// The streams that are followed. The one that was used least recently makes
/// room for another.
#[map]
pub static HTTP2: LruHashMap<Key, Walk> = LruHashMap::with_max_entries(HTTP2_STREAMS_MAX, 0);

/// Whether what was moved belongs to a stream that is followed; if so, it is set
/// out for [`walk`].
#[inline(always)]
pub fn sets_out(pid: u32, moved: *mut Moved) -> bool {
    let array = get!(moved.array);
    let mut buffer = get!(moved.buffer);
    let mut len = get!(moved.len);
    if array != 0 {
        // SAFETY: the helper checks the address.
        let Ok([base, size]) = (unsafe { bpf_probe_read_user(array as *const [u64; 2]) }) else {
            return false;
        };
        buffer = base;
        if size < len {
            len = size;
        }
    }
    if buffer == 0 || len == 0 {
        return false;
    }
    let key = key(pid, moved);
    if !is_opened(&key, buffer, len) && HTTP2.get_ptr(key).is_none() {
        return false;
    }
    if array != 0 {
        set!(moved.left = get!(moved.len));
        set!(moved.buffer = 0);
        set!(moved.end = 0);
    } else {
        set!(moved.left = 0);
        set!(moved.end = buffer + len);
    }
    set!(moved.at = get!(moved.buffer));
    set!(moved.kept = get!(moved.buffer));
    true
}

/// Whether the stream is followed from these bytes on.
#[inline(always)]
fn is_opened(key: &Key, buffer: u64, len: u64) -> bool {
    if len < HEADER {
        return false;
    }
    // SAFETY: the helper checks the address.
    let opening = unsafe { bpf_probe_read_user(buffer as *const [u8; HEADER as usize]) };
    let Ok(opening) = opening else {
        return false;
    };
    if opening[..8] == *b"PRI * HT" {
        begin(key, PREFACE);
        return true;
    }
    if opening[0] == 0
        && key.received != 0
        && HTTP2.get_ptr(key).is_none()
        && is_request(&opening, buffer, len)
    {
        begin(key, 0);
        return true;
    }
    false
}

/// Both directions stand between frames; this one has so many bytes of preface
/// before it.
#[inline(always)]
fn begin(key: &Key, preface: u32) {
    let mut walk = Walk {
        left: preface,
        kept: 1,
        seen: 0,
        opening: 0,
    };
    // A map that is full gives way; a failure leaves the stream unfollowed.
    let _ = HTTP2.insert(key, walk, 0);
    walk.left = 0;
    let _ = HTTP2.insert(other_way(key), walk, 0);
}

#[inline(always)]
fn key(pid: u32, moved: *mut Moved) -> Key {
    Key {
        stream: get!(moved.stream),
        pid: if get!(moved.flags) & FLAG_TLS != 0 {
            pid
        } else {
            0
        },
        received: u32::from(get!(moved.kind) == Kind::Recv as u16),
    }
}

#[inline(always)]
fn other_way(key: &Key) -> Key {
    Key {
        stream: key.stream,
        pid: key.pid,
        received: key.received ^ 1,
    }
}

/// A TLS session ends; another may be put at its address.
#[inline(always)]
pub fn forget_session(pid: u32, session: u64) {
    let key = Key {
        stream: session,
        pid,
        received: 0,
    };
    // It may not have been followed.
    let _ = HTTP2.remove(key);
    let _ = HTTP2.remove(other_way(&key));
}

/// Whether a header frame of a client opens these bytes: on an odd stream, with
/// flags that it can have, and followed by a frame if by anything.
#[inline(always)]
fn is_request(opening: &[u8; HEADER as usize], buffer: u64, len: u64) -> bool {
    const FLAGS: u8 = 0x1 | 0x4 | 0x8 | 0x20;
    let [l0, l1, l2, kind, flags, s0, _, _, s3] = *opening;
    let first = u32::from_be_bytes([l0, l1, l2, kind]);
    let length = first >> 8;
    if u32::from(kind) != HEADERS
        || flags & !FLAGS != 0
        || s0 & 0x80 != 0
        || s3 & 1 == 0
        || length == 0
        || length > FRAME_MAX
    {
        return false;
    }
    let next = HEADER + u64::from(length);
    if next + 4 > len {
        return true;
    }
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_user((buffer + next) as *const [u8; 4]) } {
        Ok(next) => is_frame(u32::from_be_bytes(next)),
        Err(_) => false,
    }
}

/// Whether these four bytes, length and kind, can open a frame: most kinds have
/// lengths of their own (RFC 9113, 6.3 to 6.9).
#[inline(always)]
fn is_frame(opening: u32) -> bool {
    let length = opening >> 8;
    match opening & 0xff {
        2 => length == 5,
        3 | 8 => length == 4,
        4 => length.is_multiple_of(6) && length < 6 * 256,
        6 => length == 8,
        7 => (8..=FRAME_MAX).contains(&length),
        kind => kind <= LAST_KNOWN || length <= FRAME_MAX,
    }
}

/// What comes after a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Step,
    Done,
    /// These are no frames.
    GiveUp,
}

/// States what was moved, as far as one run goes. Says whether anything is left.
#[inline(always)]
pub fn walk(pid: u32, tid: u32, moved: *mut Moved) -> bool {
    let Some(walk) = HTTP2.get_ptr_mut(key(pid, moved)) else {
        give_up(pid, tid, moved);
        return false;
    };
    for _ in 0..HTTP2_STEPS {
        match step(pid, tid, walk, moved) {
            Next::Step => {}
            Next::Done => return false,
            Next::GiveUp => {
                give_up(pid, tid, moved);
                return false;
            }
        }
    }
    true
}

/// What was moved is no frames, or too many: the rest is stated like the bytes
/// of any stream, and this one is followed again where a request opens a call.
#[inline(never)]
pub fn give_up(pid: u32, tid: u32, moved: *mut Moved) {
    // Another stream may have taken its place.
    let _ = HTTP2.remove(key(pid, moved));
    let rest = get!(moved.end) - get!(moved.buffer);
    if rest != 0 {
        set!(moved.len = rest);
        set_more(moved, get!(moved.left) != 0);
        data(pid, tid, moved);
    }
    if get!(moved.left) != 0 {
        state_rest(pid, tid, moved);
    }
}

#[inline(never)]
fn step(pid: u32, tid: u32, walk: *mut Walk, moved: *mut Moved) -> Next {
    let at = get!(moved.at);
    if at != get!(moved.buffer) && is_record_over(walk, moved) {
        record(pid, tid, moved);
        return Next::Step;
    }
    if at == get!(moved.end) {
        if get!(moved.left) == 0 {
            return Next::Done;
        }
        if get!(moved.count) == 0 || !next_buffer(moved) {
            return Next::GiveUp;
        }
        let base = get!(moved.buffer);
        set!(moved.at = base);
        set!(moved.kept = base);
        set!(moved.end = base + get!(moved.len));
        return Next::Step;
    }
    if get!(walk.left) == 0 && !header(walk, moved) {
        return Next::GiveUp;
    }
    pass(walk, moved);
    Next::Step
}

/// A record is over with its buffer. Bytes to be kept are in a new one if they
/// are too far from what the present one keeps, or it is full.
#[inline(always)]
fn is_record_over(walk: *mut Walk, moved: *mut Moved) -> bool {
    let at = get!(moved.at);
    if at == get!(moved.end) {
        return true;
    }
    if get!(walk.left) != 0 && get!(walk.kept) == 0 {
        return false;
    }
    at - get!(moved.kept) > GAP_MAX || at - get!(moved.buffer) + HEADER > PAYLOAD_HEAD as u64
}

/// Emits the record under way, up to the position, where the next one begins.
#[inline(always)]
fn record(pid: u32, tid: u32, moved: *mut Moved) {
    let at = get!(moved.at);
    let start = get!(moved.buffer);
    set!(moved.len = at - start);
    set_more(moved, at != get!(moved.end) || get!(moved.left) != 0);
    emit(pid, tid, moved, get!(moved.kept) - start);
    let at = get!(moved.at);
    set!(moved.buffer = at);
    set!(moved.kept = at);
}

/// Says whether bytes of the same call follow.
#[inline(always)]
fn set_more(moved: *mut Moved, more: bool) {
    let flags = get!(moved.flags) & !FLAG_MORE;
    set!(moved.flags = if more { flags | FLAG_MORE } else { flags });
}

/// Passes over the payload under way, as far as the record has room for it.
#[inline(always)]
fn pass(walk: *mut Walk, moved: *mut Moved) {
    let at = get!(moved.at);
    let left = get!(walk.left);
    let mut step = u64::from(left);
    let ahead = get!(moved.end) - at;
    if step > ahead {
        step = ahead;
    }
    if get!(walk.kept) != 0 {
        let room = PAYLOAD_HEAD as u64 - (at - get!(moved.buffer));
        if step > room {
            step = room;
        }
        set!(moved.kept = at + step);
    }
    set!(moved.at = at + step);
    set!(walk.left = left - step as u32);
}

/// Takes a frame header, or one byte of it if it is split between calls. Says
/// whether it can be one.
#[inline(always)]
fn header(walk: *mut Walk, moved: *mut Moved) -> bool {
    let at = get!(moved.at);
    let mut seen = get!(walk.seen);
    if seen == 0 && get!(moved.end) - at >= HEADER {
        // SAFETY: the helper checks the address.
        let Ok(opening) = (unsafe { bpf_probe_read_user(at as *const [u8; 4]) }) else {
            return false;
        };
        set!(walk.opening = u32::from_be_bytes(opening));
        seen = HEADER as u32;
        set!(moved.at = at + HEADER);
        set!(moved.kept = at + HEADER);
    } else {
        // SAFETY: the helper checks the address.
        let Ok(byte) = (unsafe { bpf_probe_read_user(at as *const u8) }) else {
            return false;
        };
        if seen < 4 {
            set!(walk.opening = get!(walk.opening) << 8 | u32::from(byte));
        }
        seen += 1;
        set!(moved.at = at + 1);
        set!(moved.kept = at + 1);
    }
    if seen < HEADER as u32 {
        set!(walk.seen = seen);
        return true;
    }
    let opening = get!(walk.opening);
    set!(walk.left = opening >> 8);
    set!(walk.kept = u32::from(opening & 0xff != DATA));
    set!(walk.seen = 0);
    is_frame(opening)
}
