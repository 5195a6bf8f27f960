//! Plaintext of rustls.
//!
//! rustls is handed a socket's bytes and hands over what is to be sent; it has no
//! descriptor, and its session is a plain value that may be moved in memory from
//! one call to the next. What names a session is therefore the socket: the thread
//! has received on it right before plaintext comes out, and sends on it right
//! after plaintext has gone in. The stream's id is the socket's inode number with
//! [`OF_SOCKET`] set; where the session lay last is remembered, so that what it
//! sends need not wait for the socket.
//!
//! Arguments are structures of the compiler's making. Seen in 0.21 to 0.23: a
//! payload is three words, of which the second is its address and the third its
//! length, whether it is borrowed or a vector; what is sent is an address and a
//! length (to 0.22), or four words of which the first is 0 where the next two are
//! an address and a length, and else an array of such pairs, its length, and where
//! in them to begin and to end.

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::{bpf_get_attach_cookie, bpf_probe_read_user},
    macros::{map, uprobe, uretprobe},
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{
    event::{FLAG_MORE, FLAG_TLS, Kind, RustlsCall},
    limits::RUSTLS_SESSIONS_MAX,
    loss::Loss,
};

use crate::{
    alloc::{stack_pointer, stack_pointer_at_entry},
    maps::{Moved, ThreadState, current, existing_thread_state, is_target, lost, thread_state},
    socket::{data, go_on_with_bytes, touched},
};

/// Set in the id of a stream that is a session on a known socket. No address of a
/// process has it.
const OF_SOCKET: u64 = 1 << 63;

/// Longest plaintext of a record (RFC 8446, 5.1), with room for the 256 bytes that
/// its inner form may have in addition (5.2).
const PLAINTEXT_MAX: u64 = (1 << 14) + 256;

/// Where a session lies, by process, and the inode number of its socket.
#[map]
static RUSTLS: LruHashMap<[u64; 2], u64> = LruHashMap::with_max_entries(RUSTLS_SESSIONS_MAX, 0);

/// Inode numbers of the sockets in [`RUSTLS`] that are open: where a session lay
/// whose socket was closed, another one may lie.
#[map]
static RUSTLS_SOCKETS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(RUSTLS_SESSIONS_MAX, 0);

/// What a thread has to do with sessions of rustls.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RustlsState {
    /// The socket on which it received last; 0: none.
    pub inode: u64,
    /// Bytes that it received there since it turned to it.
    pub received: u64,
    /// Stack pointer at the entry of the call that takes plaintext to send; 0 if
    /// none is pending.
    pub sp: u64,
    /// The session of that call, and as long as its bytes wait for their socket
    /// or it is to be seen whether they went where they were said to go; 0: none.
    pub session: u64,
    /// Where it was said to speak; 0: its bytes wait.
    pub expected: u64,
    /// The plaintext: one buffer, or an array of so many.
    pub buffer: u64,
    pub array: u64,
    pub count: u64,
    /// Bytes taken, in the first buffer and beyond it, while they wait.
    pub len: u64,
    pub rest: u64,
    /// The descriptor of `inode`.
    pub fd: i32,
    pub reserved: u32,
}

impl RustlsState {
    /// That of a thread that has had nothing to do with any.
    pub const NONE: RustlsState = RustlsState {
        inode: 0,
        received: 0,
        sp: 0,
        session: 0,
        expected: 0,
        buffer: 0,
        array: 0,
        count: 0,
        len: 0,
        rest: 0,
        fd: -1,
        reserved: 0,
    };
}

/// Entry of `take_received_plaintext(session, payload)`: plaintext has come out of
/// what the thread has received.
#[uprobe]
pub fn rustls_received(ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    if !is_target(pid) {
        return 0;
    }
    let session = ctx.arg::<u64>(0).unwrap_or(0);
    let payload = ctx.arg::<u64>(1).unwrap_or(0);
    // SAFETY: the helper checks the address.
    let Ok([_, buffer, len]) = (unsafe { bpf_probe_read_user(payload as *const [u64; 3]) }) else {
        lost(Loss::PayloadUnreadable);
        return 0;
    };
    if len == 0 {
        return 0;
    }
    if len > PLAINTEXT_MAX {
        lost(Loss::LayoutMismatch);
        return 0;
    }
    let Some(state) = thread_state(tid) else {
        return 0;
    };
    touched(pid, tid, state);
    let inode = state.rustls.inode;
    let (stream, fd) = if inode != 0 && speaks_on(pid, session, inode, len, state) {
        (inode | OF_SOCKET, state.rustls.fd)
    } else {
        (session, -1)
    };
    state.moved = plaintext(Kind::Recv, stream, fd, 0, len);
    state.moved.buffer = buffer;
    go_on_with_bytes(&ctx);
    0
}

/// Whether the session speaks on the socket on which its thread received last: it
/// did before, or all of the plaintext may have come from what was received since.
#[inline(always)]
fn speaks_on(pid: u32, session: u64, inode: u64, len: u64, state: &ThreadState) -> bool {
    let key = [u64::from(pid), session];
    if let Some(known) = RUSTLS.get_ptr(key) {
        // SAFETY: an entry may be given to another session meanwhile, and then
        // says what is true of neither: both are a number.
        if unsafe { known.read_volatile() } == inode {
            return true;
        }
    }
    // Every record is longer than the plaintext in it (RFC 8446, 5.2).
    if len >= state.rustls.received {
        return false;
    }
    meet(key, inode);
    true
}

/// The session that lies there speaks on this socket.
#[inline(always)]
fn meet(key: [u64; 2], inode: u64) {
    // A map that is full gives way; a failure leaves the session to its socket.
    let _ = RUSTLS.insert(key, inode, 0);
    let _ = RUSTLS_SOCKETS.insert(inode, 0, 0);
}

/// A socket is closed for good.
#[inline(always)]
pub fn closed(inode: u64) {
    // Most were none of ours.
    let _ = RUSTLS_SOCKETS.remove(inode);
}

/// Entry of the function that takes plaintext to send.
#[uprobe]
pub fn rustls_sends(ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    if !is_target(pid) {
        return 0;
    }
    // SAFETY: the context is this program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let Some(state) = thread_state(tid) else {
        return 0;
    };
    let pending = &mut state.rustls;
    if pending.sp != 0 || (pending.session != 0 && pending.expected == 0) {
        lost(Loss::TlsAbandoned);
    }
    pending.sp = 0;
    pending.session = ctx.arg::<u64>(0).unwrap_or(0);
    pending.expected = 0;
    let at = ctx.arg::<u64>(1).unwrap_or(0);
    (pending.buffer, pending.array, pending.count) = (0, 0, 0);
    match RustlsCall::from_wire(cookie) {
        Some(RustlsCall::SendSlice) => pending.buffer = at,
        Some(RustlsCall::SendChunks) => {
            // SAFETY: the helper checks the address.
            match unsafe { bpf_probe_read_user(at as *const [u64; 4]) } {
                Ok([0, buffer, _, _]) => pending.buffer = buffer,
                Ok([array, count, 0, _]) => (pending.array, pending.count) = (array, count),
                // From the middle of an array: what it says is not looked at.
                Ok(_) => {}
                Err(_) => lost(Loss::PayloadUnreadable),
            }
        }
        Some(RustlsCall::Received | RustlsCall::End) | None => {
            pending.session = 0;
            return 0;
        }
    }
    // SAFETY: the context of a uprobe is the register set.
    pending.sp = stack_pointer(unsafe { &*ctx.regs });
    0
}

/// Its return: the number of bytes that it has taken.
#[uretprobe]
pub fn rustls_sent(ctx: RetProbeContext) -> u32 {
    let (pid, tid) = current();
    let Some(state) = existing_thread_state(tid) else {
        return 0;
    };
    // SAFETY: the context of a uprobe is the register set.
    let regs = unsafe { &*ctx.as_ptr().cast::<pt_regs>() };
    if state.rustls.sp == 0 || state.rustls.sp != stack_pointer_at_entry(regs) {
        return 0;
    }
    state.rustls.sp = 0;
    let len = ctx.ret::<u64>();
    // A count of bytes in memory: no other value is one.
    if len == 0 || len > i64::MAX as u64 {
        state.rustls.session = 0;
        return 0;
    }
    let key = [u64::from(pid), state.rustls.session];
    let known = match RUSTLS.get_ptr(key) {
        // SAFETY: as above.
        Some(inode) => unsafe { inode.read_volatile() },
        None => 0,
    };
    if known == 0 || RUSTLS_SOCKETS.get_ptr(known).is_none() {
        waits_for_its_socket(&mut state.rustls, len);
        return 0;
    }
    touched(pid, tid, state);
    state.rustls.expected = known;
    let (buffer, array, count) = (state.rustls.buffer, state.rustls.array, state.rustls.count);
    state.moved = plaintext(Kind::Send, known | OF_SOCKET, -1, 0, len);
    (state.moved.buffer, state.moved.array, state.moved.count) = (buffer, array, count);
    go_on_with_bytes(&ctx);
    0
}

/// The session was moved in memory since it was met: which it is shows when the
/// thread sends. An array of buffers does not last so long; the first buffer does.
#[inline(always)]
fn waits_for_its_socket(pending: &mut RustlsState, len: u64) {
    pending.len = len;
    pending.rest = 0;
    if pending.array == 0 {
        return;
    }
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_user(pending.array as *const [u64; 2]) } {
        Ok([buffer, size]) => {
            pending.buffer = buffer;
            pending.len = if size < len { size } else { len };
            pending.rest = len - pending.len;
        }
        Err(_) => pending.buffer = 0,
    }
}

/// Entry of what takes a session apart: its place is anyone's.
#[uprobe]
pub fn rustls_end(ctx: ProbeContext) -> u32 {
    let (pid, _) = current();
    if is_target(pid) {
        // Most sessions were never met.
        let _ = RUSTLS.remove([u64::from(pid), ctx.arg::<u64>(0).unwrap_or(0)]);
    }
    0
}

/// The thread has received on a socket.
#[inline(always)]
pub fn received(state: &mut ThreadState, inode: u64, fd: i32, len: u64) {
    if state.rustls.inode != inode {
        state.rustls.inode = inode;
        state.rustls.received = 0;
    }
    state.rustls.received += len;
    state.rustls.fd = fd;
}

/// Whether bytes that a session took wait for the socket on which the thread has
/// sent now. If so, they are set out to be stated, and the session is met.
#[inline(always)]
pub fn sets_out(pid: u32, tid: u32, state: &mut ThreadState) -> bool {
    let session = state.rustls.session;
    if session == 0 || state.moved.kind != Kind::Send as u16 || state.moved.flags != 0 {
        return false;
    }
    let key = [u64::from(pid), session];
    let (inode, fd) = (state.moved.stream, state.moved.fd);
    let expected = state.rustls.expected;
    if expected != 0 {
        state.rustls.session = 0;
        if expected != inode {
            // Another session lies where that one was.
            let _ = RUSTLS.remove(key);
        }
        return false;
    }
    state.rustls.session = 0;
    meet(key, inode);
    let (buffer, len, rest) = (state.rustls.buffer, state.rustls.len, state.rustls.rest);
    let flags = if rest != 0 { FLAG_MORE } else { 0 };
    state.moved = plaintext(Kind::Send, inode | OF_SOCKET, fd, flags, len);
    state.moved.buffer = buffer;
    if rest != 0 {
        data(pid, tid, &raw mut state.moved);
        state.moved = plaintext(Kind::Send, inode | OF_SOCKET, fd, 0, rest);
    }
    true
}

#[inline(always)]
fn plaintext(kind: Kind, stream: u64, fd: i32, flags: u16, len: u64) -> Moved {
    Moved {
        stream,
        buffer: 0,
        array: 0,
        count: 0,
        len,
        left: 0,
        at: 0,
        end: 0,
        kept: 0,
        fd,
        kind: kind as u16,
        flags: FLAG_TLS | flags,
    }
}
