//! Socket calls of traced processes: when one has returned, its arguments and
//! its result decide what is stated; what ends something (a close, a wait) is
//! stated when it is entered.
//!
//! Two raw tracepoints see every system call, look its number up in a table and
//! turn away at once from those that are not watched. Arguments are still in the
//! registers when a call returns, so a call that was blocked when the trace began
//! is seen like any other. The same logic serves uprobes on libc's functions,
//! whose arguments must be kept from entry to return.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_attach_cookie, bpf_probe_read_user,
        generated::bpf_probe_read_user as raw_probe_read_user,
    },
    macros::{raw_tracepoint, uprobe, uretprobe},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};
use memtrace_common::{
    event::{
        DataHead, DataRecord, FLAG_IN_TLS_CALL, FLAG_LAST, FLAG_MORE, FLAG_UNREADABLE, Kind,
        SocketRecord, WaitKind, WaitRecord, WatchedCall,
    },
    limits::{IOVECS_MAX, PAYLOAD_HEAD, PAYLOAD_SMALL, TAIL},
    loss::Loss,
};

use crate::{
    context, counter,
    emit::{QUIET, URGENT, header, raw_header, record},
    go, handover, http2,
    kernel::{StreamSocket, open_file, read, stream_socket},
    maps::{
        ANEW, EVENTS, Moved, NEXT, NEXT_PROBE, SYSCALLS, ThreadState, current,
        existing_thread_state, get, is_target, lost, set, thread_state,
    },
    node, rustls,
};

const PROT_EXEC: u64 = 4;
const MSG_PEEK: u64 = 2;
const MSG_ERRQUEUE: u64 = 0x2000;
const EPIPE: i64 = 32;
const ECONNABORTED: i64 = 103;
const ECONNRESET: i64 = 104;
const ENOTCONN: i64 = 107;
const ETIMEDOUT: i64 = 110;
const EINPROGRESS: i64 = 115;

/// Places in [`NEXT`].
const NEXT_SYSCALL_RETURNED: u32 = 0;
const NEXT_SYSCALL_BYTES: u32 = 1;
const NEXT_SYSCALL_FRAMES: u32 = 2;
const NEXT_HANDOVER_ENTERED: u32 = 3;
const NEXT_HANDOVER_RETURNED: u32 = 4;

/// Places in [`NEXT_PROBE`].
const NEXT_PROBE_BYTES: u32 = 0;
const NEXT_PROBE_FRAMES: u32 = 1;

/// Payload room of the smallest data record.
const PAYLOAD_TINY: usize = 64;

/// match-proto:v3.8:include/trace/events/syscalls.h:sys_enter
/// (struct pt_regs *regs, long id)
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn syscall_enter(ctx: RawTracePointContext) -> i32 {
    let number: u64 = ctx.arg(1);
    let Some(call) = watched(number) else {
        return 0;
    };
    if !is_stated_at_entry(call) {
        return 0;
    }
    let (pid, tid) = current();
    if !is_target(pid) {
        return 0;
    }
    let regs: u64 = ctx.arg(0);
    if let Some(go) = go::program(pid) {
        // It is Go's scheduler that waits and wakes, not a goroutine.
        if is_handover(call)
            || matches!(
                call,
                WatchedCall::WaitEpoll | WatchedCall::WaitPoll | WatchedCall::WaitSelect
            )
        {
            return 0;
        }
        go::state_at_system_call(pid, tid, &go, regs);
    }
    if is_handover(call) {
        // Does not return; see syscall_exit.
        // SAFETY: both are programs of the same kind.
        unsafe { NEXT.tail_call(&ctx, NEXT_HANDOVER_ENTERED) };
    } else if let Some(args) = arguments(regs, true) {
        entered(pid, tid, call, args);
    }
    0
}

/// What [`syscall_enter`] goes on with: a thread of a traced process may be about
/// to wake another one, or to wait for one.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn handover_entered(ctx: RawTracePointContext) -> i32 {
    let (pid, tid) = current();
    let regs: u64 = ctx.arg(0);
    if let Some(call) = watched(ctx.arg(1))
        && let Some(args) = arguments(regs, true)
    {
        if !matches!(call, WatchedCall::Futex) {
            entered(pid, tid, call, args);
        } else if let Some(stack_pointer) = stack_pointer(regs) {
            handover::futex_entered(pid, tid, args, stack_pointer);
        }
    }
    0
}

/// match-proto:v3.8:include/trace/events/syscalls.h:sys_exit
/// (struct pt_regs *regs, long ret)
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn syscall_exit(ctx: RawTracePointContext) -> i32 {
    let regs: u64 = ctx.arg(0);
    let Some(number) = syscall_number(regs) else {
        return 0;
    };
    let Some(call) = watched(number) else {
        return 0;
    };
    let (pid, tid) = current();
    if !is_target(pid) {
        return 0;
    }
    let result: i64 = ctx.arg(1);
    if let Some(go) = go::program(pid) {
        if let WatchedCall::Futex = call {
            return 0;
        }
        if result >= 0 || is_final(-result) || result == -EINPROGRESS {
            go::state_at_system_call(pid, tid, &go, regs);
        }
    }
    if let WatchedCall::Futex = call {
        // SAFETY: both are programs of the same kind.
        unsafe { NEXT.tail_call(&ctx, NEXT_HANDOVER_RETURNED) };
        return 0;
    }
    // Does not return where it works, and there is nothing to be done where it
    // does not: the collector puts the program there before this one runs.
    // SAFETY: both are programs of the same kind.
    unsafe { NEXT.tail_call(&ctx, NEXT_SYSCALL_RETURNED) };
    0
}

/// What [`syscall_exit`] goes on with: a watched call of a traced process.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn syscall_returned(ctx: RawTracePointContext) -> i32 {
    let regs: u64 = ctx.arg(0);
    let Some(call) = syscall_number(regs).and_then(watched) else {
        return 0;
    };
    let (pid, tid) = current();
    let Some(args) = arguments(regs, false) else {
        return 0;
    };
    let next = match returned(pid, tid, call, args, ctx.arg(1)) {
        Then::Done => return 0,
        Then::Bytes => NEXT_SYSCALL_BYTES,
        Then::Handover => NEXT_HANDOVER_RETURNED,
    };
    // SAFETY: both are programs of the same kind.
    unsafe { NEXT.tail_call(&ctx, next) };
    0
}

/// What [`syscall_exit`] and [`syscall_returned`] go on with: a thread may have
/// been woken by another one, or have woken nobody.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn handover_returned(ctx: RawTracePointContext) -> i32 {
    let regs: u64 = ctx.arg(0);
    let (pid, tid) = current();
    let result: i64 = ctx.arg(1);
    if let Some(call) = syscall_number(regs).and_then(watched)
        && let Some(args) = arguments(regs, false)
    {
        if !matches!(call, WatchedCall::Futex) {
            handover::moved(pid, tid, call, args, result);
        } else if let Some(stack_pointer) = stack_pointer(regs) {
            handover::futex_returned(pid, tid, args, stack_pointer, result);
        }
    }
    0
}

/// What [`syscall_returned`] goes on with: the call has moved bytes.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn syscall_bytes(ctx: RawTracePointContext) -> i32 {
    let (pid, tid) = current();
    if let Some(state) = existing_thread_state(tid) {
        let moved = &raw mut state.moved;
        if http2::sets_out(pid, moved) {
            // SAFETY: both are programs of the same kind.
            unsafe { NEXT.tail_call(&ctx, NEXT_SYSCALL_FRAMES) };
        }
        state_bytes(pid, tid, moved);
        if rustls::sets_out(pid, tid, state) {
            // SAFETY: both are programs of the same kind.
            unsafe { NEXT.tail_call(&ctx, NEXT_SYSCALL_BYTES) };
        }
    }
    0
}

/// What [`syscall_bytes`] goes on with where the bytes are frames, and this
/// program itself where they are many.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn syscall_frames(ctx: RawTracePointContext) -> i32 {
    let (pid, tid) = current();
    if let Some(state) = existing_thread_state(tid) {
        let moved = &raw mut state.moved;
        if http2::walk(pid, tid, moved) {
            // SAFETY: both are programs of the same kind.
            unsafe { NEXT.tail_call(&ctx, NEXT_SYSCALL_FRAMES) };
            http2::give_up(pid, tid, moved);
        }
    }
    0
}

/// What probes of functions that move bytes go on with.
#[uretprobe]
pub fn probe_bytes(ctx: RetProbeContext) -> u32 {
    let (pid, tid) = current();
    if let Some(state) = existing_thread_state(tid) {
        let moved = &raw mut state.moved;
        if http2::sets_out(pid, moved) {
            // SAFETY: both are programs of the same kind.
            unsafe { NEXT_PROBE.tail_call(&ctx, NEXT_PROBE_FRAMES) };
        }
        state_bytes(pid, tid, moved);
    }
    0
}

/// What [`probe_bytes`] goes on with where the bytes are frames, and this program
/// itself where they are many.
#[uretprobe]
pub fn probe_frames(ctx: RetProbeContext) -> u32 {
    let (pid, tid) = current();
    if let Some(state) = existing_thread_state(tid) {
        let moved = &raw mut state.moved;
        if http2::walk(pid, tid, moved) {
            // SAFETY: both are programs of the same kind.
            unsafe { NEXT_PROBE.tail_call(&ctx, NEXT_PROBE_FRAMES) };
            http2::give_up(pid, tid, moved);
        }
    }
    0
}

/// Goes on with [`probe_bytes`]: the thread's [`Moved`] says what there is to
/// state.
#[inline(always)]
pub fn go_on_with_bytes(ctx: &impl EbpfContext) {
    // SAFETY: both are programs of the same kind.
    unsafe { NEXT_PROBE.tail_call(ctx, NEXT_PROBE_BYTES) };
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
    let args = [arg(0), arg(1), arg(2), arg(3)];
    if let Some(call) = WatchedCall::from_wire(cookie as u32) {
        entered(pid, tid, call, args);
        if let Some(state) = thread_state(tid) {
            state.call.args = args;
            state.call.call = cookie;
        }
    }
    0
}

/// Return of a libc socket function. Its errno is out of reach, so a connect
/// under way looks like one that failed: both are stated.
#[uretprobe]
pub fn libc_return(ctx: RetProbeContext) -> u32 {
    let (pid, tid) = current();
    if let Some(state) = existing_thread_state(tid) {
        let pending = state.call;
        state.call.call = 0;
        let Some(call) = WatchedCall::from_wire(pending.call as u32) else {
            return 0;
        };
        let result = ctx.ret::<i64>();
        // int results are not extended to 64 bits; byte counts fit in 63.
        let result = if result as i32 != -1 {
            result
        } else if matches!(call, WatchedCall::Connect) {
            -EINPROGRESS
        } else {
            -1
        };
        match returned(pid, tid, call, pending.args, result) {
            Then::Done => {}
            Then::Bytes => go_on_with_bytes(&ctx),
            Then::Handover => handover::moved(pid, tid, call, pending.args, result),
        }
    }
    0
}

/// What is watched under a system call number.
#[inline(always)]
fn watched(number: u64) -> Option<WatchedCall> {
    WatchedCall::from_wire(*SYSCALLS.get(number as u32)?)
}

/// orig_rax: byte 120 of `struct pt_regs` (arch/x86/include/asm/ptrace.h).
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn syscall_number(regs: u64) -> Option<u64> {
    read(regs, 120)
}

/// rdi, rsi, rdx and r10: bytes 112, 104, 96 and 56 of `struct pt_regs`
/// (arch/x86/include/asm/ptrace.h), the same at entry and exit.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn arguments(regs: u64, _entry: bool) -> Option<[u64; 4]> {
    Some([
        read(regs, 112)?,
        read(regs, 104)?,
        read(regs, 96)?,
        read(regs, 56)?,
    ])
}

/// rsp: byte 152 of `struct pt_regs` (arch/x86/include/asm/ptrace.h).
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn stack_pointer(regs: u64) -> Option<u64> {
    read(regs, 152)
}

/// sp: byte 248 of `struct pt_regs` (arch/arm64/include/asm/ptrace.h).
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn stack_pointer(regs: u64) -> Option<u64> {
    read(regs, 248)
}

/// syscallno: byte 280 of `struct pt_regs` (arch/arm64/include/asm/ptrace.h).
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn syscall_number(regs: u64) -> Option<u64> {
    let number: i32 = read(regs, 280)?;
    Some(number as u64)
}

/// x0 to x3: bytes 0 to 24 of `struct pt_regs` (arch/arm64/include/asm/ptrace.h);
/// at exit x0 holds the result, and orig_x0 at byte 272 what it was.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn arguments(regs: u64, entry: bool) -> Option<[u64; 4]> {
    Some([
        read(regs, if entry { 0 } else { 272 })?,
        read(regs, 8)?,
        read(regs, 16)?,
        read(regs, 24)?,
    ])
}

/// Calls that end something, which is there only before they run, and calls that
/// may set another thread to work or wait for it.
#[inline(always)]
fn is_stated_at_entry(call: WatchedCall) -> bool {
    is_handover(call)
        || matches!(
            call,
            WatchedCall::Accept
                | WatchedCall::Shutdown
                | WatchedCall::Close
                | WatchedCall::WaitEpoll
                | WatchedCall::WaitPoll
                | WatchedCall::WaitSelect
        )
}

/// Calls that may set another thread to work or wait for it.
#[inline(always)]
fn is_handover(call: WatchedCall) -> bool {
    matches!(
        call,
        WatchedCall::Recv | WatchedCall::Send | WatchedCall::Futex
    )
}

#[inline(always)]
fn entered(pid: u32, tid: u32, call: WatchedCall, args: [u64; 4]) {
    match call {
        WatchedCall::WaitEpoll => wait(pid, tid, WaitKind::Epoll, 0),
        WatchedCall::WaitPoll => wait(pid, tid, WaitKind::Poll, args[1] as u32),
        WatchedCall::WaitSelect => wait(pid, tid, WaitKind::Select, args[0] as u32),
        WatchedCall::Accept => wait(pid, tid, WaitKind::Accept, 0),
        WatchedCall::Shutdown | WatchedCall::Close => {
            let fd = args[0] as i32;
            let Some(socket) = stream_socket(fd) else {
                return;
            };
            if let Some(state) = existing_thread_state(tid) {
                counter::state_if_changed(pid, tid, state);
            }
            if matches!(call, WatchedCall::Shutdown) {
                state_fact(pid, tid, Kind::Shutdown, 0, &socket, fd, args[1] as u32);
            } else {
                let flags = if socket.is_last_reference() {
                    rustls::closed(socket.inode);
                    FLAG_LAST
                } else {
                    0
                };
                state_fact(pid, tid, Kind::Close, flags, &socket, fd, 0);
            }
        }
        WatchedCall::Recv => handover::read_entered(pid, tid, args[0] as i32, args[2]),
        WatchedCall::Send => {
            handover::write_entered(pid, tid, args[0] as i32, args[1], args[2]);
        }
        WatchedCall::RecvFlags
        | WatchedCall::RecvVector
        | WatchedCall::RecvMessage
        | WatchedCall::SendVector
        | WatchedCall::SendMessage
        | WatchedCall::SendFile
        | WatchedCall::Splice
        | WatchedCall::Connect
        | WatchedCall::Map
        | WatchedCall::Futex => {}
    }
}

/// Where a call's bytes are.
#[derive(Clone, Copy)]
enum Bytes {
    /// In one buffer.
    At(u64),
    /// In an array of so many buffers.
    In(u64, u64),
    /// Not in the process.
    Nowhere,
}

/// What is still to be stated of a call.
enum Then {
    /// Nothing.
    Done,
    /// The bytes that are the thread's [`Moved`].
    Bytes,
    /// What it means to other threads.
    Handover,
}

/// States what a call has done, but for the bytes that it has moved.
#[inline(always)]
fn returned(pid: u32, tid: u32, call: WatchedCall, args: [u64; 4], result: i64) -> Then {
    let mut fd = args[0] as i32;
    let (kind, bytes) = match call {
        WatchedCall::Recv => (Kind::Recv, Bytes::At(args[1])),
        WatchedCall::RecvFlags => {
            if args[3] & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
                return Then::Done;
            }
            (Kind::Recv, Bytes::At(args[1]))
        }
        WatchedCall::RecvVector => (Kind::Recv, Bytes::In(args[1], args[2])),
        WatchedCall::RecvMessage => {
            if args[2] & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
                return Then::Done;
            }
            (Kind::Recv, message_buffers(args[1]))
        }
        WatchedCall::Send => (Kind::Send, Bytes::At(args[1])),
        WatchedCall::SendVector => (Kind::Send, Bytes::In(args[1], args[2])),
        WatchedCall::SendMessage => (Kind::Send, message_buffers(args[1])),
        WatchedCall::SendFile => (Kind::Send, Bytes::Nowhere),
        WatchedCall::Splice => {
            // One end is a pipe; the other may be a socket.
            if result <= 0 {
                return Then::Done;
            }
            if stream_socket(fd).is_some() {
                (Kind::Recv, Bytes::Nowhere)
            } else {
                fd = args[2] as i32;
                (Kind::Send, Bytes::Nowhere)
            }
        }
        WatchedCall::Accept => {
            if result >= 0
                && let Some(socket) = stream_socket(result as i32)
                && let Some(state) = thread_state(tid)
            {
                touched(pid, tid, state);
                state_fact(pid, tid, Kind::Accept, 0, &socket, result as i32, 0);
            }
            return Then::Done;
        }
        WatchedCall::Connect => {
            if (result == 0 || result == -EINPROGRESS)
                && let Some(socket) = stream_socket(fd)
                && let Some(state) = thread_state(tid)
            {
                context::state_if_changed(pid, tid, state);
                state_fact(pid, tid, Kind::Connect, 0, &socket, fd, 0);
            }
            return Then::Done;
        }
        WatchedCall::Map => {
            // Anonymous memory is never mapped executable by a loader; whether
            // there is a file is seen by the collector.
            if args[2] & PROT_EXEC != 0 && result > 0 {
                record(
                    header(Kind::Mapped, 0, pid, tid),
                    URGENT,
                    Loss::RingFullTask,
                );
            }
            return Then::Done;
        }
        WatchedCall::Shutdown
        | WatchedCall::Close
        | WatchedCall::WaitEpoll
        | WatchedCall::WaitPoll
        | WatchedCall::WaitSelect
        | WatchedCall::Futex => return Then::Done,
    };
    let fell_short = matches!(call, WatchedCall::Send) && result != args[2] as i64;
    if result < 0 && !is_final(-result) && !fell_short {
        return Then::Done;
    }
    let Some(file) = open_file(fd) else {
        return Then::Done;
    };
    // What threads tell each other is no connection.
    let Some(socket) = file.stream_socket().filter(|socket| !socket.is_nameless()) else {
        return if fell_short || (result > 0 && matches!(kind, Kind::Recv)) {
            Then::Handover
        } else {
            Then::Done
        };
    };
    if result < 0 && !is_final(-result) {
        return Then::Done;
    }
    if result < 0 {
        state_fact(pid, tid, Kind::SocketError, 0, &socket, fd, -result as u32);
        return Then::Done;
    }
    if result == 0 && matches!(kind, Kind::Send) {
        return Then::Done;
    }
    let Some(state) = thread_state(tid) else {
        return Then::Done;
    };
    touched(pid, tid, state);
    let in_tls_call = state.tls.sp != 0;
    if in_tls_call {
        state.tls.fd = fd;
    }
    if matches!(kind, Kind::Recv) {
        state.tls.received = 1;
        rustls::received(state, socket.inode, fd, result as u64);
    }
    let (buffer, array, count) = match bytes {
        _ if in_tls_call => (0, 0, 0),
        Bytes::At(buffer) => (buffer, 0, 0),
        Bytes::In(array, count) => (0, array, count),
        Bytes::Nowhere => (0, 0, 0),
    };
    state.moved = Moved {
        stream: socket.inode,
        buffer,
        array,
        count,
        len: result as u64,
        left: 0,
        at: 0,
        end: 0,
        kept: 0,
        fd,
        kind: kind as u16,
        flags: if in_tls_call { FLAG_IN_TLS_CALL } else { 0 },
    };
    Then::Bytes
}

/// Errors after which the connection is of no more use.
#[inline(always)]
fn is_final(errno: i64) -> bool {
    errno == ECONNRESET
        || errno == EPIPE
        || errno == ETIMEDOUT
        || errno == ECONNABORTED
        || errno == ENOTCONN
}

/// The thread takes part in a connection, or was woken for work: the context in
/// which it does is stated before, and again before whatever it does next; so is
/// what it has allocated until now, and its next wait.
#[inline(always)]
pub fn touched(pid: u32, tid: u32, state: &mut ThreadState) {
    context::state_if_changed(pid, tid, state);
    counter::state_if_changed(pid, tid, state);
    state.active = 1;
    state.takes_part = 1;
    state.slept_at = 0;
    state.entered = ANEW;
}

/// `msg_iov` and `msg_iovlen` of a `struct user_msghdr`, at bytes 16 and 24
/// (include/linux/socket.h).
#[inline(always)]
fn message_buffers(message: u64) -> Bytes {
    // SAFETY: the helper checks the address.
    let pair = unsafe { bpf_probe_read_user((message + 16) as *const [u64; 2]) };
    match pair {
        Ok([array, count]) => Bytes::In(array, count),
        Err(_) => Bytes::Nowhere,
    }
}

/// States the bytes that the thread has just moved: one part for each of the
/// first buffers that took some, one without payload for the rest.
#[inline(always)]
fn state_bytes(pid: u32, tid: u32, moved: *mut Moved) {
    if get!(moved.array) == 0 || get!(moved.len) == 0 {
        data(pid, tid, moved);
        return;
    }
    set!(moved.left = get!(moved.len));
    for _ in 0..IOVECS_MAX {
        if get!(moved.count) == 0 || !next_buffer(moved) {
            break;
        }
        if get!(moved.len) != 0 {
            data(pid, tid, moved);
        }
        if get!(moved.left) == 0 {
            return;
        }
    }
    state_rest(pid, tid, moved);
}

/// States the bytes in the buffers that were not looked at, as one part.
#[inline(always)]
pub fn state_rest(pid: u32, tid: u32, moved: *mut Moved) {
    set!(moved.buffer = 0);
    set!(moved.len = get!(moved.left));
    set!(moved.flags = get!(moved.flags) & !FLAG_MORE);
    data(pid, tid, moved);
}

/// Makes what the next buffer took the part to be stated. Keeps nothing in
/// registers: the verifier of 6.1 may take a value that it has seen on one way
/// through a loop with a call for the only one.
#[inline(always)]
pub fn next_buffer(moved: *mut Moved) -> bool {
    let array = get!(moved.array);
    // SAFETY: the helper checks the address.
    let Ok([base, size]) = (unsafe { bpf_probe_read_user(array as *const [u64; 2]) }) else {
        return false;
    };
    set!(moved.array = array + 16);
    set!(moved.count = get!(moved.count) - 1);
    let left = get!(moved.left);
    let len = if size < left { size } else { left };
    set!(moved.buffer = base);
    set!(moved.len = len);
    set!(moved.left = left - len);
    let flags = get!(moved.flags) & !FLAG_MORE;
    set!(
        moved.flags = if left != len {
            flags | FLAG_MORE
        } else {
            flags
        }
    );
    true
}

/// Emits one part with as much payload as its beginning deserves.
#[inline(never)]
pub fn data(pid: u32, tid: u32, moved: *mut Moved) {
    let wanted = if get!(moved.len) > PAYLOAD_SMALL as u64 && opens_like_a_head(get!(moved.buffer))
    {
        PAYLOAD_HEAD
    } else {
        PAYLOAD_SMALL
    };
    emit(pid, tid, moved, wanted as u64);
}

/// Emits one part with so many bytes of payload, or somewhat more.
#[inline(never)]
pub fn emit(pid: u32, tid: u32, moved: *mut Moved, wanted: u64) {
    let len = get!(moved.len);
    let wanted = if wanted < len { wanted } else { len };
    if wanted <= PAYLOAD_TINY as u64 || get!(moved.buffer) == 0 {
        data_record::<PAYLOAD_TINY>(pid, tid, moved);
    } else if wanted <= PAYLOAD_SMALL as u64 {
        data_record::<PAYLOAD_SMALL>(pid, tid, moved);
    } else {
        data_record::<PAYLOAD_HEAD>(pid, tid, moved);
    }
}

/// Whether the bytes open like a message head of any protocol that is followed.
/// Only decides how much is kept: a wrong guess loses no framing that the rest
/// shows.
#[inline(always)]
fn opens_like_a_head(buffer: u64) -> bool {
    // SAFETY: the helper checks the address.
    let Ok(bytes) = (unsafe { bpf_probe_read_user(buffer as *const [u8; 8]) }) else {
        return false;
    };
    let word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
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
        || opens_like_variables(&bytes)
        || opens_like_frames(&bytes)
}

/// The same for requests to an application, whose first bytes no text has: a
/// FastCGI request, the content of its variables alone (php-fpm reads each
/// record's header by itself), a uwsgi request, an AJP request.
#[inline(always)]
fn opens_like_variables(bytes: &[u8; 8]) -> bool {
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    match *bytes {
        [1, 1, _, _, 0, 8, _, 0] => true,
        // Two lengths, the second in one byte or in four, and a name.
        [1..=31, 0..=127, a, b, ..] if is_name(a) && is_name(b) => true,
        [1..=31, 128, _, _, _, a, b, _] if is_name(a) && is_name(b) => true,
        [_, _, _, 0, 2..=64, 0, a, b] if is_name(a) && is_name(b) => true,
        [0x12, 0x34, _, _, 2, ..] => true,
        _ => false,
    }
}

/// Several WebSocket messages may be read at once: a text or binary frame that
/// ends its message, short and masked.
#[inline(always)]
fn opens_like_frames(bytes: &[u8; 8]) -> bool {
    matches!(bytes, [0x81 | 0x82 | 0xc1 | 0xc2, 0x80..=0xfd, ..])
}

#[inline(always)]
fn data_record<const N: usize>(pid: u32, tid: u32, moved: *mut Moved) {
    let Some(mut entry) = EVENTS.reserve::<DataRecord<N>>(0) else {
        lost(Loss::RingFullSocket);
        return;
    };
    let record = entry.as_mut_ptr();
    let kind = get!(moved.kind);
    let stream = get!(moved.stream);
    let fd = get!(moved.fd);
    let mut flags = get!(moved.flags);
    let buffer = get!(moved.buffer);
    let len = get!(moved.len);
    let mut payload_len = 0u32;
    let mut tail = [0u8; TAIL];
    let mut tail_len = 0u32;
    if buffer != 0 && len != 0 {
        payload_len = if len < N as u64 { len as u32 } else { N as u32 };
        // SAFETY: the destination has room for N bytes and payload_len is at
        // most N; the helper checks the source.
        let failed = unsafe {
            raw_probe_read_user(
                (&raw mut (*record).payload).cast(),
                payload_len,
                buffer as *const _,
            )
        };
        if failed != 0 {
            payload_len = 0;
            flags |= FLAG_UNREADABLE;
            lost(Loss::PayloadUnreadable);
        } else if len > N as u64 {
            let end = buffer + len - TAIL as u64;
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
            header: raw_header(kind, flags, pid, tid),
            inode: stream,
            len,
            buffer,
            fd,
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
    node::waits(state);
    if state.active == 0 {
        return;
    }
    context::state_if_changed(pid, tid, state);
    counter::state_if_changed(pid, tid, state);
    state.active = 0;
    state.entered = ANEW;
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
