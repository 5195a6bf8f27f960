//! Threads that hand work to each other: one wakes, another was asleep.
//!
//! Futexes (and with them condition variables, semaphores and whatever else is
//! made of them), pipes, event descriptors, and pairs of sockets without names.
//! A wake-up is stated when the call that causes it is entered, before the woken
//! thread can run; what was waited for, when it has come.
//!
//! Left out is what only puts threads in turn: waits for a mutex, and for the
//! locks that a runtime keeps for itself. Left out are also wake-ups by threads
//! that have never had anything to do with a connection, and wake-ups of futexes
//! at which nobody was ever seen to sleep: most of those unlock a mutex.

use aya_ebpf::helpers::bpf_probe_read_user;
use memtrace_common::{
    event::{FLAG_EMPTY, HandoverKind, HandoverRecord, Kind, WatchedCall},
    limits::{FUTEX_PAIR, HANDOVER_BYTES_MAX},
    loss::Loss,
};

use crate::{
    counter,
    emit::{QUIET, header, record},
    go,
    kernel::{Channel, OpenFile, open_file},
    maps::{FUTEXES, TARGETS, ThreadState, existing_thread_state, thread_state},
    socket::touched,
};

// include/uapi/linux/futex.h
const FUTEX_CMD: u64 = 0x7f;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;
const FUTEX_REQUEUE: u64 = 3;
const FUTEX_CMP_REQUEUE: u64 = 4;
const FUTEX_WAKE_OP: u64 = 5;
const FUTEX_WAIT_BITSET: u64 = 9;
const FUTEX_WAKE_BITSET: u64 = 10;

const EAGAIN: i64 = 11;
/// An event descriptor takes and gives eight bytes (eventfd(2)).
const EVENT_BYTES: u64 = 8;

/// What a contended mutex of glibc holds (nptl/lowlevellock.h), and musl's wait
/// of a condition (src/thread/pthread_cond_timedwait.c).
const CONTENDED: u32 = 2;
/// The bit of a contended mutex of musl, whose other bits name its owner
/// (src/thread/pthread_mutex_timedlock.c). With no other bit, or with all, it is
/// a semaphore that is waited for (src/thread/sem_timedwait.c).
const WAITERS: u32 = 0x8000_0000;
/// How far above its stack pointer a thread's own frames are looked for.
const OWN_STACK_BYTES: u64 = 64 << 10;

/// Entry of futex: who wakes says so, and who is about to sleep.
#[inline(always)]
pub fn futex_entered(pid: u32, tid: u32, args: [u64; 4], stack_pointer: u64) {
    let [address, operation, value, _] = args;
    if is_of_runtime(pid, operation, address) {
        return;
    }
    match operation & FUTEX_CMD {
        FUTEX_WAKE | FUTEX_WAKE_BITSET | FUTEX_REQUEUE | FUTEX_CMP_REQUEUE | FUTEX_WAKE_OP => {
            if value != 0 {
                wakes(pid, tid, address, value);
            }
        }
        FUTEX_WAIT | FUTEX_WAIT_BITSET => {
            if is_for_work(args, stack_pointer)
                && let Some(state) = thread_state(tid)
            {
                let key = futex(pid, address);
                // SAFETY: the value is not looked at.
                if unsafe { FUTEXES.get(key) }.is_none() {
                    let _ = FUTEXES.insert(key, 1, 0);
                }
                sleeps(pid, tid, state, HandoverKind::Futex, address);
            }
        }
        _ => {}
    }
}

/// Return of futex: a sleeper was woken, or need not have slept; or a wake-up has
/// woken nobody.
#[inline(always)]
pub fn futex_returned(pid: u32, tid: u32, args: [u64; 4], stack_pointer: u64, result: i64) {
    let [address, operation, value, _] = args;
    if is_of_runtime(pid, operation, address) {
        return;
    }
    match operation & FUTEX_CMD {
        FUTEX_WAKE | FUTEX_WAKE_BITSET | FUTEX_REQUEUE | FUTEX_CMP_REQUEUE | FUTEX_WAKE_OP => {
            if result <= 0 && value != 0 {
                wakes(pid, tid, address, 0);
            }
        }
        FUTEX_WAIT | FUTEX_WAIT_BITSET if result == 0 || result == -EAGAIN => {
            if is_for_work(args, stack_pointer)
                && let Some(state) = thread_state(tid)
            {
                touched(pid, tid, state);
                let amount = u64::from(result == 0);
                state_fact(
                    pid,
                    tid,
                    Kind::Woken,
                    0,
                    HandoverKind::Futex,
                    address,
                    amount,
                );
            }
        }
        _ => {}
    }
}

/// States a wake-up at a futex at which somebody was seen to sleep.
#[inline(always)]
fn wakes(pid: u32, tid: u32, address: u64, amount: u64) {
    // SAFETY: the value is not looked at.
    if unsafe { FUTEXES.get(futex(pid, address)) }.is_some()
        && let Some(state) = existing_thread_state(tid)
        && state.takes_part != 0
    {
        if amount != 0 {
            counter::state_if_changed(pid, tid, state);
        }
        let kind = HandoverKind::Futex;
        state_fact(pid, tid, Kind::Wake, 0, kind, address, amount);
    }
}

/// Entry of a write.
#[inline(always)]
pub fn write_entered(pid: u32, tid: u32, fd: i32, buffer: u64, len: u64) {
    if let Some(channel) = written(tid, fd, len)
        && let Some(amount) = amount(&channel, buffer, len)
    {
        let flags = if channel.peer_is_empty { FLAG_EMPTY } else { 0 };
        let kind = channel.kind;
        state_fact(pid, tid, Kind::Wake, flags, kind, channel.peer_key, amount);
    }
}

/// Return of a read that has read something, or of a write that has written less
/// than it was to, if threads hand work over through what is open.
#[inline(always)]
pub fn moved(pid: u32, tid: u32, call: WatchedCall, args: [u64; 4], result: i64) {
    let fd = args[0] as i32;
    match call {
        WatchedCall::Send => write_fell_short(pid, tid, fd, args[2]),
        WatchedCall::Recv | WatchedCall::RecvFlags if go::program(pid).is_none() => {
            let len = result as u64;
            if let Some(channel) = open_file(fd).and_then(|file| channel(&file, len)) {
                read_returned(pid, tid, &channel, args[1], len);
            }
        }
        _ => {}
    }
}

#[inline(always)]
fn write_fell_short(pid: u32, tid: u32, fd: i32, len: u64) {
    if let Some(channel) = written(tid, fd, len) {
        state_fact(pid, tid, Kind::Wake, 0, channel.kind, channel.peer_key, 0);
    }
}

/// Where a thread that has to do with connections writes a message to another.
#[inline(always)]
fn written(tid: u32, fd: i32, len: u64) -> Option<Channel> {
    if len == 0 || len > HANDOVER_BYTES_MAX || existing_thread_state(tid)?.takes_part == 0 {
        return None;
    }
    let channel = channel(&open_file(fd)?, len)?;
    (channel.peer_key != 0).then_some(channel)
}

/// Entry of a read that waits if nothing is there. (Readers of sockets wait for
/// their peer's next message in any case.)
#[inline(always)]
pub fn read_entered(pid: u32, tid: u32, fd: i32, room: u64) {
    if let Some(file) = open_file(fd)
        && !file.is_socket()
        && let Some(channel) = channel(&file, room)
        && channel.is_empty
        && file.is_blocking()
        && let Some(state) = thread_state(tid)
    {
        sleeps(pid, tid, state, channel.kind, channel.key);
    }
}

#[inline(always)]
fn read_returned(pid: u32, tid: u32, channel: &Channel, buffer: u64, len: u64) {
    if let Some(amount) = amount(channel, buffer, len)
        && let Some(state) = thread_state(tid)
    {
        touched(pid, tid, state);
        state_fact(pid, tid, Kind::Woken, 0, channel.kind, channel.key, amount);
    }
}

/// What is open, if threads can hand work over through it with so many bytes.
#[inline(always)]
fn channel(file: &OpenFile, len: u64) -> Option<Channel> {
    if file.is_socket() {
        return file.stream_socket()?.pair();
    }
    if file.may_be_event() && len < EVENT_BYTES {
        return None;
    }
    file.channel()
}

/// How much a call moves: bytes, or the number in an event's eight bytes.
#[inline(always)]
fn amount(channel: &Channel, buffer: u64, len: u64) -> Option<u64> {
    match channel.kind {
        HandoverKind::EventFd => {
            // SAFETY: the helper checks the address.
            unsafe { bpf_probe_read_user(buffer as *const u64) }.ok()
        }
        HandoverKind::Futex
        | HandoverKind::Pipe
        | HandoverKind::SocketPair
        | HandoverKind::Channel
        | HandoverKind::Stream => Some(len),
    }
}

/// The thread is about to sleep; said once until it is woken or does something
/// else, as a wait may be one of many short ones.
#[inline(always)]
fn sleeps(pid: u32, tid: u32, state: &mut ThreadState, kind: HandoverKind, key: u64) {
    if state.slept_at != key {
        state.slept_at = key;
        counter::state_if_changed(pid, tid, state);
        state_fact(pid, tid, Kind::Sleep, 0, kind, key, 0);
    }
}

/// Whether a thread that waits like this may be waiting for work, not only for
/// its turn.
#[inline(always)]
fn is_for_work(args: [u64; 4], stack_pointer: u64) -> bool {
    let [address, operation, value, _] = args;
    let value = value as u32;
    if operation & FUTEX_CMD == FUTEX_WAIT {
        // musl's conditions are waited for in the waiter's own frame.
        let own = address.wrapping_sub(stack_pointer) < OWN_STACK_BYTES;
        let owner = value & !WAITERS;
        if (value == CONTENDED && !own) || (value & WAITERS != 0 && owner != 0 && owner != !WAITERS)
        {
            return false;
        }
    }
    true
}

/// Whether a futex is one that the process's language runtime keeps for itself.
///
/// A Java program's threads wait for each other in their own `Parker`s, which are
/// part of the `JavaThread`s (src/hotspot/share/runtime/park.hpp): of what nobody
/// waits for there, the wake-ups are not stated either.
#[inline(always)]
fn is_of_runtime(pid: u32, operation: u64, address: u64) -> bool {
    // SAFETY: an entry is replaced or removed only with its process or program.
    let Some(target) = (unsafe { TARGETS.get(pid) }) else {
        return true;
    };
    if target.jvm.java_thread_bytes == 0 {
        return address >= target.locks_from && address < target.locks_until;
    }
    match operation & FUTEX_CMD {
        FUTEX_WAIT | FUTEX_WAIT_BITSET => match counter::own_java_thread(&target.jvm) {
            Some(at) => address.wrapping_sub(at) >= u64::from(target.jvm.java_thread_bytes),
            None => true,
        },
        _ => false,
    }
}

#[inline(always)]
fn futex(pid: u32, address: u64) -> [u64; 2] {
    [u64::from(pid), address & !FUTEX_PAIR]
}

#[inline(always)]
fn state_fact(
    pid: u32,
    tid: u32,
    kind: Kind,
    flags: u16,
    through: HandoverKind,
    key: u64,
    amount: u64,
) {
    record(
        HandoverRecord {
            header: header(kind, flags, pid, tid),
            key,
            through: through as u32,
            amount: if amount > u64::from(u32::MAX) {
                u32::MAX
            } else {
                amount as u32
            },
        },
        QUIET,
        Loss::RingFullTask,
    );
}
