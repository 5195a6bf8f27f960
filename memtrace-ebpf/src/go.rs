//! Go programs: blocks of Go's heap, and the goroutine in which a thread works.
//!
//! A goroutine moves between threads, and one thread works for many: every fact
//! about a thread of a Go program is preceded by the goroutine that it runs, if
//! that is not the one stated last. Go keeps the address of the running g in a
//! register; it counts only if the stack pointer is on that g's stack, so that
//! code that is not Go's, or a layout that is not the expected one, gives no
//! goroutine rather than a wrong one.
//!
//! Go copies stacks, return addresses and all: nothing here is the return probe
//! of a Go function. Functions are probed on the branch of their stack check,
//! which is passed once more by a call that must grow its stack first.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{bpf_get_current_task, bpf_probe_read_user},
    macros::uprobe,
    programs::ProbeContext,
};
use memtrace_common::{
    config::GoTarget,
    event::{ContextKind, ContextRecord, HandoverKind, HandoverRecord, Kind, ManagedAllocRecord},
    loss::Loss,
};

use crate::{
    emit::{QUIET, header, record},
    kernel::read,
    maps::{CONTEXTS, EVENTS, TARGETS, ThreadState, config, current, lost, thread_state},
};

/// `g.m`, bytes into a g (runtime/runtime2.go, the same from 1.17 to 1.27).
const G_M: u64 = 48;

/// [`ThreadState::goroutine`] of a thread that was stated to run none.
const NONE: u64 = u64::MAX;

/// Stack check of `runtime.mallocgc(size, type, needzero)`.
#[uprobe]
pub fn go_alloc(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    if !regs.to_morestack {
        alloc(&regs, false);
    }
    0
}

/// Stack check of one of the functions for small blocks that Go 1.27 calls
/// instead of `mallocgc`, or from it: what it calls itself is stated already.
#[uprobe]
pub fn go_alloc_small(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    if !regs.to_morestack {
        alloc(&regs, true);
    }
    0
}

#[inline(always)]
fn alloc(regs: &Registers, small: bool) {
    // A block of no bytes is none: all are at one address.
    if regs.first == 0 {
        return;
    }
    let (pid, tid) = current();
    let Some(go) = program(pid) else {
        return;
    };
    if small && caller(regs).is_some_and(|pc| pc > go.malloc_start && pc <= go.malloc_end) {
        return;
    }
    let Some(state) = thread_state(tid) else {
        return;
    };
    state_goroutine(pid, tid, state, &go, regs.g, regs.sp);
    record(
        ManagedAllocRecord {
            header: header(Kind::ManagedAlloc, 0, pid, tid),
            size: regs.first,
            type_address: regs.second,
        },
        QUIET,
        Loss::RingFullAlloc,
    );
}

/// The call of `runqput(p, new g, next)` in what a `go` statement runs on the
/// scheduler's stack: the new goroutine has its number, and has not run.
#[uprobe]
pub fn go_made(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    let (pid, tid) = current();
    if let Some(go) = program(pid) {
        made(pid, tid, &go, &regs);
    }
    0
}

#[inline(always)]
fn made(pid: u32, tid: u32, go: &GoTarget, regs: &Registers) -> Option<()> {
    let context: u64 = read_user(regs.second + u64::from(go.goid))?;
    // None: the runtime starts its own.
    let parent = match goroutine(go, regs.g, regs.sp) {
        Some(0) | None => return None,
        Some(parent) => parent,
    };
    if go.parent_goid != 0 && read_user(regs.second + u64::from(go.parent_goid)) != Some(parent) {
        lost(Loss::LayoutMismatch);
        return None;
    }
    record(
        ContextRecord {
            header: header(Kind::ContextMade, 0, pid, tid),
            context,
            parent,
            runtime: ContextKind::Goroutine as u32,
            entered: 0,
        },
        QUIET,
        Loss::RingFullTask,
    );
    Some(())
}

/// Stack check of `runtime.send(channel, waiting receiver, …)`: a goroutine gives
/// a value to one that waits for it.
#[uprobe]
pub fn go_gives(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    if !regs.to_morestack && has_values(regs.first) {
        handed(&regs, Kind::Wake);
    }
    0
}

/// Stack check of `runtime.recv(channel, waiting sender, …)`: a goroutine takes a
/// value from one that waits to be rid of it. Where the channel has room for
/// values, it takes that of another, which came first.
#[uprobe]
pub fn go_takes(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    let room: Option<u64> = read_user(regs.first + CHANNEL_ROOM);
    if !regs.to_morestack && room == Some(0) && has_values(regs.first) {
        handed(&regs, Kind::Woken);
    }
    0
}

/// Stack check of net/http's (and x/net's) `(*serverConn).runHandler(response
/// writer, request, handler)`, with which a goroutine of its own begins for each
/// request of an HTTP/2 connection.
#[uprobe]
pub fn go_serves(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    if !regs.to_morestack {
        serves(&regs);
    }
    0
}

/// `responseWriter.rws`, `responseWriterState.stream`: the first members;
/// `stream.id`: the second, behind a pointer (net/http/h2_bundle.go).
const STREAM_ID: u64 = 8;

#[inline(always)]
fn serves(regs: &Registers) -> Option<()> {
    let (pid, tid) = current();
    let go = program(pid)?;
    let state: u64 = read_user(regs.second)?;
    let stream: u64 = read_user(state)?;
    let id: u32 = read_user(stream + STREAM_ID)?;
    let state = thread_state(tid)?;
    state_goroutine(pid, tid, state, &go, regs.g, regs.sp);
    record(
        HandoverRecord {
            header: header(Kind::Woken, 0, pid, tid),
            key: u64::from(id),
            through: HandoverKind::Stream as u32,
            amount: 0,
        },
        QUIET,
        Loss::RingFullTask,
    );
    Some(())
}

/// `hchan.dataqsiz` and `hchan.elemsize` (runtime/chan.go, the same from 1.18 to
/// 1.27).
const CHANNEL_ROOM: u64 = 8;
const CHANNEL_VALUE_BYTES: u64 = 24;

/// Whether a channel's values are more than a signal: what counts or locks hands
/// no work over.
#[inline(always)]
fn has_values(channel: u64) -> bool {
    read_user::<u16>(channel + CHANNEL_VALUE_BYTES).is_some_and(|bytes| bytes != 0)
}

/// States that a value passes between this goroutine and the one that waits:
/// `sudog.g`, the first member (runtime/runtime2.go).
#[inline(always)]
fn handed(regs: &Registers, kind: Kind) -> Option<()> {
    let (pid, tid) = current();
    let go = program(pid)?;
    let waiting: u64 = read_user(regs.second)?;
    let key: u64 = read_user(waiting + u64::from(go.goid))?;
    let state = thread_state(tid)?;
    state_goroutine(pid, tid, state, &go, regs.g, regs.sp);
    record(
        HandoverRecord {
            header: header(kind, 0, pid, tid),
            key,
            through: HandoverKind::Channel as u32,
            amount: 0,
        },
        QUIET,
        Loss::RingFullTask,
    );
    Some(())
}

/// What is known of a traced process's Go runtime; `None` if it is no Go program.
#[inline(always)]
pub fn program(pid: u32) -> Option<GoTarget> {
    // SAFETY: an entry is replaced or removed only with its process or program.
    let target = unsafe { TARGETS.get(pid) }?;
    let go = target.go;
    (target.begun != 0 && go.goid != 0).then_some(go)
}

/// States the goroutine that makes a system call, if it is not the one stated
/// last. `regs`: the thread's registers, in kernel memory.
#[inline(always)]
pub fn state_at_system_call(pid: u32, tid: u32, go: &GoTarget, regs: u64) {
    if let (Some(g), Some(sp)) = (read(regs, G_REGISTER), read(regs, SP_REGISTER))
        && let Some(state) = thread_state(tid)
    {
        state_goroutine(pid, tid, state, go, g, sp);
    }
}

/// States the goroutine on whose behalf a thread runs C code at this stack
/// pointer, if the process is a Go program.
#[inline(always)]
pub fn state_in_c(pid: u32, tid: u32, state: &mut ThreadState, sp: u64) {
    // Without a process whose contexts are read none need be looked for.
    if let Some(1..) = CONTEXTS.get(0)
        && let Some(go) = program(pid)
    {
        state_goroutine(pid, tid, state, &go, 0, sp);
    }
}

/// States the goroutine that the thread runs, if it is not the one stated last.
#[inline(always)]
pub fn state_goroutine(
    pid: u32,
    tid: u32,
    state: &mut ThreadState,
    go: &GoTarget,
    g: u64,
    sp: u64,
) {
    let running = match goroutine(go, g, sp) {
        Some(running) => running,
        // C code: what its register holds is no g.
        None => kept_below_base(go)
            .and_then(|g| goroutine(go, g, sp))
            .unwrap_or_default(),
    };
    let stated = if running == 0 { NONE } else { running };
    if state.goroutine == stated {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<ContextRecord>(0) else {
        // What follows on this thread is that of an unknown goroutine; the next
        // fact states it again.
        state.goroutine = 0;
        lost(Loss::RingFullTask);
        return;
    };
    state.goroutine = stated;
    entry.write(ContextRecord {
        header: header(Kind::Context, 0, pid, tid),
        context: running,
        parent: 0,
        runtime: ContextKind::Goroutine as u32,
        entered: 0,
    });
    entry.submit(QUIET);
}

/// The number of the goroutine that runs on this g; 0 if the scheduler works for
/// none, `None` if this is not the g that runs.
#[inline(always)]
fn goroutine(go: &GoTarget, g: u64, sp: u64) -> Option<u64> {
    if g == 0 {
        return None;
    }
    // `g.stack`, the first member: its lowest address and the one above its
    // highest.
    let [low, high]: [u64; 2] = read_user(g)?;
    if sp < low || sp > high {
        return None;
    }
    let number: u64 = read_user(g + u64::from(go.goid))?;
    if number != 0 {
        return Some(number);
    }
    // The scheduler's own g has no number: it works for the one that it left.
    let m: u64 = read_user(g + G_M)?;
    let left: u64 = read_user(m + u64::from(go.curg))?;
    if left == 0 {
        return Some(0);
    }
    read_user(left + u64::from(go.goid))
}

/// The g that the runtime keeps for C code that calls back.
#[inline(always)]
fn kept_below_base(go: &GoTarget) -> Option<u64> {
    if go.g_below_base == 0 || config!(offsets.task_fsbase) == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let base: u64 = read(task, config!(offsets.task_fsbase))?;
    if base == 0 {
        return None;
    }
    read_user(base - u64::from(go.g_below_base))
}

#[inline(always)]
pub fn read_user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address; `T` is plain data here.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

/// The registers that matter, by their part in Go's calling convention
/// (cmd/compile/abi-internal.md).
pub struct Registers {
    /// The first three integer arguments, and results.
    pub first: u64,
    pub second: u64,
    pub third: u64,
    /// The running g.
    pub g: u64,
    pub sp: u64,
    /// Where the call returns to, if the architecture keeps it in a register.
    #[cfg(bpf_target_arch = "aarch64")]
    link: u64,
    /// The stack check's branch is taken: the stack grows (or the goroutine is
    /// preempted), and the call starts anew.
    pub to_morestack: bool,
}

/// `jbe`: taken if the carry or the zero flag is set.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn registers(regs: &pt_regs) -> Registers {
    const CARRY: u64 = 1;
    const ZERO: u64 = 1 << 6;
    Registers {
        first: regs.rax,
        second: regs.rbx,
        third: regs.rcx,
        g: regs.r14,
        sp: regs.rsp,
        to_morestack: regs.eflags & (CARRY | ZERO) != 0,
    }
}

/// The call's return address: at its stack check nothing has been pushed.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn caller(regs: &Registers) -> Option<u64> {
    read_user(regs.sp)
}

/// r14 and rsp: bytes 8 and 152 of `struct pt_regs`
/// (arch/x86/include/asm/ptrace.h).
#[cfg(bpf_target_arch = "x86_64")]
const G_REGISTER: u32 = 8;
#[cfg(bpf_target_arch = "x86_64")]
const SP_REGISTER: u32 = 152;

/// `b.ls`: taken if the carry flag is clear or the zero flag is set.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn registers(regs: &pt_regs) -> Registers {
    const CARRY: u64 = 1 << 29;
    const ZERO: u64 = 1 << 30;
    Registers {
        first: regs.regs[0],
        second: regs.regs[1],
        third: regs.regs[2],
        g: regs.regs[28],
        sp: regs.sp,
        link: regs.regs[30],
        to_morestack: regs.pstate & CARRY == 0 || regs.pstate & ZERO != 0,
    }
}

#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn caller(regs: &Registers) -> Option<u64> {
    Some(regs.link)
}

/// x28 and sp: bytes 224 and 248 of `struct pt_regs`
/// (arch/arm64/include/asm/ptrace.h).
#[cfg(bpf_target_arch = "aarch64")]
const G_REGISTER: u32 = 224;
#[cfg(bpf_target_arch = "aarch64")]
const SP_REGISTER: u32 = 248;
