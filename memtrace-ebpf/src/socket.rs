//! Socket calls of traced processes: at entry the socket is looked up and the
//! arguments are kept, at exit the result decides what is stated.
//!
//! The same logic serves system call tracepoints and uprobes on libc's
//! functions; the probe's cookie tells the call
//! (`memtrace_common::event::SocketCall`).

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_attach_cookie, bpf_probe_read_user,
        generated::bpf_probe_read_user as raw_probe_read_user,
    },
    macros::{tracepoint, uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext, TracePointContext},
};
use memtrace_common::{
    event::{
        DataHead, DataRecord, FLAG_LAST, FLAG_MORE, FLAG_UNREADABLE, Kind, SocketCall,
        SocketRecord, WaitKind, WaitRecord,
    },
    limits::{IOVECS_MAX, PAYLOAD_HEAD, PAYLOAD_SMALL, TAIL},
    loss::Loss,
};

use crate::{
    emit::{QUIET, header, record},
    kernel::{StreamSocket, stream_socket},
    maps::{
        EVENTS, PendingCall, ThreadState, current, existing_thread_state, is_target, lost,
        thread_state,
    },
};

const MSG_PEEK: u64 = 2;
const MSG_ERRQUEUE: u64 = 0x2000;
const EPIPE: i64 = 32;
const ECONNABORTED: i64 = 103;
const ECONNRESET: i64 = 104;
const ENOTCONN: i64 = 107;
const ETIMEDOUT: i64 = 110;
const EINPROGRESS: i64 = 115;

/// Payload room of the smallest data record.
const PAYLOAD_TINY: usize = 64;

/// What to do when the pending call returns.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq)]
enum Op {
    Recv = 1,
    RecvVector = 2,
    RecvUnread = 3,
    Send = 4,
    SendVector = 5,
    SendUnread = 6,
    Accept = 7,
    Connect = 8,
}

/// sys_enter of a socket call. Arguments start at byte 16, eight bytes each
/// (trace_event_raw_sys_enter, since 2.6.33).
#[tracepoint]
pub fn syscall_enter(ctx: TracePointContext) -> u32 {
    let (pid, tid) = current();
    if !is_target(pid) {
        return 0;
    }
    // SAFETY: the context is this program's own; the reads are inside it.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let arg = |n: usize| unsafe { ctx.read_at::<u64>(16 + 8 * n) }.unwrap_or(0);
    if let Some(call) = SocketCall::from_wire(cookie) {
        begin(pid, tid, call, [arg(0), arg(1), arg(2), arg(3)]);
    }
    0
}

/// sys_exit of a socket call: the result is at byte 16
/// (trace_event_raw_sys_exit).
#[tracepoint]
pub fn syscall_exit(ctx: TracePointContext) -> u32 {
    let (pid, tid) = current();
    if let Some(state) = existing_thread_state(tid) {
        // SAFETY: inside the context.
        let result = unsafe { ctx.read_at::<i64>(16) }.unwrap_or(-1);
        finish(pid, tid, state, result);
    }
    0
}

/// Entry of a libc socket function.
#[uprobe]
pub fn libc_enter(ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    if !is_target(pid) {
        return 0;
    }
    // SAFETY: the context is this program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let arg = |n| ctx.arg::<u64>(n).unwrap_or(0);
    if let Some(call) = SocketCall::from_wire(cookie) {
        begin(pid, tid, call, [arg(0), arg(1), arg(2), arg(3)]);
    }
    0
}

/// Return of a libc socket function. Its errno is out of reach, so a connect
/// under way looks like one that failed: both are stated.
#[uretprobe]
pub fn libc_return(ctx: RetProbeContext) -> u32 {
    let (pid, tid) = current();
    if let Some(state) = existing_thread_state(tid) {
        let result = ctx.ret::<i64>();
        let connecting = state.call.op == Op::Connect as u32 && result as i32 == -1;
        // int results are not extended to 64 bits; byte counts fit in 63.
        let result = if connecting {
            -EINPROGRESS
        } else if result as i32 == -1 {
            -1
        } else {
            result
        };
        finish(pid, tid, state, result);
    }
    0
}

#[inline(always)]
fn begin(pid: u32, tid: u32, call: SocketCall, args: [u64; 4]) {
    match call {
        SocketCall::WaitEpoll => return wait(pid, tid, WaitKind::Epoll, 0),
        SocketCall::WaitPoll => return wait(pid, tid, WaitKind::Poll, args[1] as u32),
        SocketCall::WaitSelect => return wait(pid, tid, WaitKind::Select, args[0] as u32),
        SocketCall::Accept => {
            wait(pid, tid, WaitKind::Accept, 0);
            if let Some(state) = thread_state(tid) {
                state.call = PendingCall {
                    inode: 0,
                    buffer: 0,
                    op: Op::Accept as u32,
                    fd: args[0] as i32,
                    buffers: 0,
                };
            }
            return;
        }
        _ => {}
    }

    let mut fd = args[0] as i32;
    let mut socket = stream_socket(fd);
    let mut splice_out = false;
    if matches!(call, SocketCall::Splice) && socket.is_none() {
        fd = args[2] as i32;
        socket = stream_socket(fd);
        splice_out = true;
    }
    let Some(socket) = socket else { return };

    let (op, buffer, buffers) = match call {
        SocketCall::Recv => (Op::Recv, args[1], 0),
        SocketCall::RecvFlags => {
            if args[3] & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
                return;
            }
            (Op::Recv, args[1], 0)
        }
        SocketCall::RecvVector => (Op::RecvVector, args[1], args[2]),
        SocketCall::RecvMessage => {
            if args[2] & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
                return;
            }
            let (array, count) = message_buffers(args[1]);
            (Op::RecvVector, array, count)
        }
        SocketCall::Send => (Op::Send, args[1], 0),
        SocketCall::SendVector => (Op::SendVector, args[1], args[2]),
        SocketCall::SendMessage => {
            let (array, count) = message_buffers(args[1]);
            (Op::SendVector, array, count)
        }
        SocketCall::SendFile => (Op::SendUnread, 0, 0),
        SocketCall::Splice => {
            if splice_out {
                (Op::SendUnread, 0, 0)
            } else {
                (Op::RecvUnread, 0, 0)
            }
        }
        SocketCall::Connect => (Op::Connect, 0, 0),
        SocketCall::Shutdown => {
            state_fact(pid, tid, Kind::Shutdown, 0, &socket, fd, args[1] as u32);
            return;
        }
        SocketCall::Close => {
            let flags = if socket.is_last_reference() { FLAG_LAST } else { 0 };
            state_fact(pid, tid, Kind::Close, flags, &socket, fd, 0);
            return;
        }
        SocketCall::Accept
        | SocketCall::WaitEpoll
        | SocketCall::WaitPoll
        | SocketCall::WaitSelect => return,
    };
    if let Some(state) = thread_state(tid) {
        state.call = PendingCall {
            inode: socket.inode,
            buffer,
            op: op as u32,
            fd,
            buffers,
        };
    }
}

#[inline(always)]
fn finish(pid: u32, tid: u32, state: &mut ThreadState, result: i64) {
    let call = state.call;
    if call.op == 0 {
        return;
    }
    state.call.op = 0;

    if call.op == Op::Accept as u32 {
        if result >= 0
            && let Some(socket) = stream_socket(result as i32)
        {
            state.active = 1;
            state_fact(pid, tid, Kind::Accept, 0, &socket, result as i32, 0);
        }
        return;
    }
    if call.op == Op::Connect as u32 {
        if (result == 0 || result == -EINPROGRESS)
            && let Some(socket) = stream_socket(call.fd)
        {
            state_fact(pid, tid, Kind::Connect, 0, &socket, call.fd, 0);
        }
        return;
    }
    if result < 0 {
        let errno = -result;
        if errno == ECONNRESET
            || errno == EPIPE
            || errno == ETIMEDOUT
            || errno == ECONNABORTED
            || errno == ENOTCONN
        {
            record(
                SocketRecord {
                    header: header(Kind::SocketError, 0, pid, tid),
                    inode: call.inode,
                    fd: call.fd,
                    how: errno as u32,
                    ..SocketRecord::default()
                },
                QUIET,
                Loss::RingFullSocket,
            );
        }
        return;
    }
    state.active = 1;
    let receiving = call.op <= Op::RecvUnread as u32;
    if result == 0 && !receiving {
        return;
    }
    let mut part = Part {
        kind: if receiving { Kind::Recv } else { Kind::Send },
        pid,
        tid,
        inode: call.inode,
        fd: call.fd,
        buffer: 0,
        len: result as u64,
        more: false,
    };
    if call.op == Op::Recv as u32 || call.op == Op::Send as u32 {
        part.buffer = call.buffer;
        data(&part);
    } else if call.op == Op::RecvVector as u32 || call.op == Op::SendVector as u32 {
        vector(&mut part, call.buffer, call.buffers);
    } else {
        data(&part);
    }
}

/// `msg_iov` and `msg_iovlen` of a `struct user_msghdr`, at bytes 16 and 24
/// (include/linux/socket.h).
#[inline(always)]
fn message_buffers(message: u64) -> (u64, u64) {
    // SAFETY: the helper checks the address.
    let pair = unsafe { bpf_probe_read_user((message + 16) as *const [u64; 2]) };
    match pair {
        Ok([array, count]) => (array, count),
        Err(_) => (0, 0),
    }
}

/// One part for each of the first buffers that took bytes, one without payload
/// for the rest.
#[inline(always)]
fn vector(part: &mut Part, array: u64, count: u64) {
    let mut left = part.len;
    if left == 0 {
        data(part);
        return;
    }
    for index in 0..IOVECS_MAX as u64 {
        if index >= count || left == 0 {
            break;
        }
        // SAFETY: the helper checks the address.
        let iovec = unsafe { bpf_probe_read_user((array + index * 16) as *const [u64; 2]) };
        let Ok([base, size]) = iovec else { break };
        let len = if size < left { size } else { left };
        if len == 0 {
            continue;
        }
        left -= len;
        part.buffer = base;
        part.len = len;
        part.more = left != 0;
        data(part);
    }
    if left != 0 {
        part.buffer = 0;
        part.len = left;
        part.more = false;
        data(part);
    }
}

/// What one data record says, but for the payload.
#[repr(C)]
struct Part {
    kind: Kind,
    pid: u32,
    tid: u32,
    inode: u64,
    fd: i32,
    /// Where the bytes are in the process; 0: they never were.
    buffer: u64,
    len: u64,
    more: bool,
}

/// Emits one part with as much payload as its beginning deserves.
#[inline(never)]
fn data(part: &Part) {
    if part.len <= PAYLOAD_TINY as u64 || part.buffer == 0 {
        data_record::<PAYLOAD_TINY>(part);
    } else if part.len <= PAYLOAD_SMALL as u64 || !opens_like_a_head(part.buffer) {
        data_record::<PAYLOAD_SMALL>(part);
    } else {
        data_record::<PAYLOAD_HEAD>(part);
    }
}

/// Whether the bytes open like an HTTP request or status line. Only decides
/// how much is kept: a wrong guess loses no framing that the rest shows.
#[inline(always)]
fn opens_like_a_head(buffer: u64) -> bool {
    // SAFETY: the helper checks the address.
    let Ok(word) = (unsafe { bpf_probe_read_user(buffer as *const [u8; 4]) }) else {
        return false;
    };
    let word = u32::from_ne_bytes(word);
    const fn opening(text: &[u8; 4]) -> u32 {
        u32::from_ne_bytes(*text)
    }
    word == opening(b"GET ")
        || word == opening(b"POST")
        || word == opening(b"PUT ")
        || word == opening(b"HEAD")
        || word == opening(b"DELE")
        || word == opening(b"PATC")
        || word == opening(b"OPTI")
        || word == opening(b"CONN")
        || word == opening(b"TRAC")
        || word == opening(b"HTTP")
}

#[inline(always)]
fn data_record<const N: usize>(part: &Part) {
    let Some(mut entry) = EVENTS.reserve::<DataRecord<N>>(0) else {
        lost(Loss::RingFullSocket);
        return;
    };
    let record = entry.as_mut_ptr();
    let mut flags = if part.more { FLAG_MORE } else { 0 };
    let mut payload_len = 0u32;
    let mut tail = [0u8; TAIL];
    let mut tail_len = 0u32;
    if part.buffer != 0 && part.len != 0 {
        payload_len = if part.len < N as u64 {
            part.len as u32
        } else {
            N as u32
        };
        // SAFETY: the destination has room for N bytes and payload_len is at
        // most N; the helper checks the source.
        let failed = unsafe {
            raw_probe_read_user(
                (&raw mut (*record).payload).cast(),
                payload_len,
                part.buffer as *const _,
            )
        };
        if failed != 0 {
            payload_len = 0;
            flags |= FLAG_UNREADABLE;
            lost(Loss::PayloadUnreadable);
        } else if part.len > N as u64 {
            let end = part.buffer + part.len - TAIL as u64;
            // SAFETY: the helper checks the address.
            if let Ok(bytes) = unsafe { bpf_probe_read_user(end as *const [u8; TAIL]) } {
                tail = bytes;
                tail_len = TAIL as u32;
            }
        }
    }
    // SAFETY: the record is reserved memory of the right size and alignment.
    unsafe {
        (&raw mut (*record).head).write(DataHead {
            header: header(part.kind, flags, part.pid, part.tid),
            inode: part.inode,
            len: part.len,
            fd: part.fd,
            payload_len,
            tail,
            tail_len,
            reserved: 0,
        });
    }
    entry.submit(QUIET);
}

#[inline(always)]
fn state_fact(
    pid: u32,
    tid: u32,
    kind: Kind,
    flags: u16,
    socket: &StreamSocket,
    fd: i32,
    how: u32,
) {
    record(
        SocketRecord {
            header: header(kind, flags, pid, tid),
            inode: socket.inode,
            fd,
            how,
            addresses: if matches!(kind, Kind::Accept | Kind::Connect) {
                socket.addresses()
            } else {
                Default::default()
            },
        },
        QUIET,
        Loss::RingFullSocket,
    );
}

/// States that the thread begins to wait, once after each socket activity.
#[inline(always)]
fn wait(pid: u32, tid: u32, kind: WaitKind, descriptors: u32) {
    let Some(state) = existing_thread_state(tid) else {
        return;
    };
    if state.active == 0 {
        return;
    }
    state.active = 0;
    record(
        WaitRecord {
            header: header(Kind::Wait, 0, pid, tid),
            wait: kind as u32,
            descriptors,
        },
        QUIET,
        Loss::RingFullSocket,
    );
}
