//! The context in which a thread of a language runtime works: for CPython the
//! contextvars context, of which each asyncio task has one of its own, and the
//! greenlet; for tokio the task.
//!
//! CPython's is read where an allocation or a socket call is stated, and stated
//! when the thread has entered or left a context since. A thread finds its own
//! state through the one that runs, which is the process's: it counts only if it
//! names this very thread, which also guards against a layout that is not the
//! expected one. Found once, it is looked at directly, as a thread in a system
//! call is not the one that runs.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_task, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{
    config::Target,
    event::{ContextKind, ContextRecord, Kind},
    loss::Loss,
};

use crate::{
    emit::{QUIET, header, record},
    kernel::read,
    maps::{CONTEXTS, TARGETS, ThreadState, config, current, is_target, thread_state},
    node,
};

/// Return of the CPython function that makes copies of contexts: a task, a
/// callback or a worker's call gets its context.
#[uretprobe]
pub fn context_made(ctx: RetProbeContext) -> u32 {
    let (pid, tid) = current();
    if ctx.as_ptr().is_null() || !is_target(pid) {
        return 0;
    }
    let context = ctx.ret::<u64>();
    if context != 0
        && let Some(thread) = thread_state(tid)
    {
        // Whose copy it is must be clear.
        state_if_changed(pid, tid, thread);
        state(Kind::ContextMade, pid, tid, context, ContextKind::Python, 0);
    }
    0
}

/// Entry of the function that takes a CPython context apart.
#[uprobe]
pub fn context_end(ctx: ProbeContext) -> u32 {
    ended(ctx.arg::<u64>(0).unwrap_or(0), ContextKind::Python)
}

/// Entry of greenlet's `g_switchstack`: its second argument goes on from here
/// (the first is where its result goes).
#[uprobe]
pub fn greenlet_switch(ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    let greenlet = ctx.arg::<u64>(1).unwrap_or(0);
    if greenlet == 0 || !is_target(pid) {
        return 0;
    }
    if let Some(thread) = thread_state(tid)
        && thread.greenlet != greenlet
    {
        thread.greenlet = greenlet;
        state(Kind::Context, pid, tid, greenlet, ContextKind::Greenlet, 0);
    }
    0
}

/// Entry of the function that sets up a new greenlet (`tp_init`). The entry
/// alone: the stacks of greenlets are moved about, and return probes with them.
#[uprobe]
pub fn greenlet_made(ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    let greenlet = greenlet_of(ctx.arg::<u64>(0).unwrap_or(0));
    if greenlet == 0 || !is_target(pid) {
        return 0;
    }
    if let Some(thread) = thread_state(tid) {
        state_if_changed(pid, tid, thread);
        let kind = ContextKind::Greenlet;
        state(Kind::ContextMade, pid, tid, greenlet, kind, 0);
    }
    0
}

/// Entry of the function that takes a greenlet apart.
#[uprobe]
pub fn greenlet_end(ctx: ProbeContext) -> u32 {
    let greenlet = greenlet_of(ctx.arg::<u64>(0).unwrap_or(0));
    ended(greenlet, ContextKind::Greenlet)
}

/// Entry of a function that polls tasks of tokio's: its argument is the task's cell.
#[uprobe]
pub fn task_begins(ctx: ProbeContext) -> u32 {
    turn_to_task(ctx.arg::<u64>(0).unwrap_or(0))
}

/// Return of the same function.
#[uretprobe]
pub fn task_pauses(_ctx: RetProbeContext) -> u32 {
    turn_to_task(0)
}

#[inline(always)]
fn turn_to_task(task: u64) -> u32 {
    let (pid, tid) = current();
    if is_target(pid)
        && let Some(thread) = thread_state(tid)
        && thread.task != task
    {
        thread.task = task;
        state(Kind::Context, pid, tid, task, ContextKind::Task, 0);
    }
    0
}

/// `pimpl` in `struct _greenlet` (greenlet.h since 2.0), behind the object's head
/// and two pointers: set before `tp_init`, and until `tp_dealloc` has run.
const GREENLET_IMPLEMENTATION: u64 = 32;

/// What switches, of a greenlet as Python knows it; 0 if it has nothing.
#[inline(always)]
fn greenlet_of(object: u64) -> u64 {
    let at = object.wrapping_add(GREENLET_IMPLEMENTATION) as *const u64;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(at) }.unwrap_or(0)
}

#[inline(always)]
fn ended(context: u64, kind: ContextKind) -> u32 {
    let (pid, tid) = current();
    if context != 0 && is_target(pid) {
        state(Kind::ContextEnd, pid, tid, context, kind, 0);
    }
    0
}

/// States the thread's CPython context if it has entered or left one since it
/// was stated last.
#[inline(always)]
pub fn state_if_changed(pid: u32, tid: u32, thread: &mut ThreadState) {
    if thread.node.ids_at != 0 {
        node::state_if_changed(pid, tid, thread);
        return;
    }
    match CONTEXTS.get(0) {
        Some(0) | None => return,
        Some(_) => {}
    }
    let Some([context, entered]) = current_context(pid, thread) else {
        return;
    };
    if context != thread.context || entered != thread.entered {
        thread.context = context;
        thread.entered = entered;
        let kind = ContextKind::Python;
        state(Kind::Context, pid, tid, context, kind, entered as u32);
    }
}

/// The context of this CPython thread, and how often it has entered or left
/// one.
#[inline(always)]
fn current_context(pid: u32, thread: &mut ThreadState) -> Option<[u64; 2]> {
    // SAFETY: an entry is replaced or removed only with its process or program.
    let target = *unsafe { TARGETS.get(pid) }?;
    if target.thread_state_at == 0 || config!(offsets.task_fsbase) == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let own: u64 = read(task, config!(offsets.task_fsbase))?;
    if own == 0 {
        return None;
    }
    let running: u64 = read_user(target.thread_state_at)?;
    if running != thread.python && names(&target, running, own) {
        thread.python = running;
    } else if !names(&target, thread.python, own) {
        return None;
    }
    read_user(thread.python + u64::from(target.context_offset))
}

/// Whether a thread state is that of the thread with this `pthread_t`.
#[inline(always)]
fn names(target: &Target, thread_state: u64, own: u64) -> bool {
    thread_state != 0 && read_user(thread_state + u64::from(target.thread_id_offset)) == Some(own)
}

#[inline(always)]
fn read_user<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

#[inline(always)]
fn state(kind: Kind, pid: u32, tid: u32, context: u64, runtime: ContextKind, entered: u32) {
    let header = header(kind, 0, pid, tid);
    record(
        ContextRecord {
            header,
            context,
            parent: 0,
            runtime: runtime as u32,
            entered,
        },
        QUIET,
        Loss::RingFullTask,
    );
}
