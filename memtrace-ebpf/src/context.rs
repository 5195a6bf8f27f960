//! The context in which a thread of a language runtime works: for CPython the
//! contextvars context, of which each asyncio task has one of its own.
//!
//! Read where an allocation or moved bytes are stated, and stated when it differs
//! from the one stated last. The running thread state is the process's, not the thread's:
//! it counts only if it names this very thread, which also guards against a
//! layout that is not the expected one.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_task, bpf_probe_read_user},
    macros::uretprobe,
    programs::RetProbeContext,
};
use memtrace_common::{
    event::{ContextKind, ContextRecord, Kind},
    loss::Loss,
};

use crate::{
    emit::{QUIET, header, record},
    kernel::read,
    maps::{CONTEXTS, TARGETS, ThreadState, config, current, is_target, thread_state},
};

/// Return of CPython's `PyContext_CopyCurrent`: a task, a callback or a worker's
/// call gets its context.
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
        state(Kind::ContextMade, pid, tid, context);
    }
    0
}

/// States the thread's context if it is not the one stated last.
#[inline(always)]
pub fn state_if_changed(pid: u32, tid: u32, thread: &mut ThreadState) {
    match CONTEXTS.get(0) {
        Some(0) | None => return,
        Some(_) => {}
    }
    let Some(context) = current_context(pid, thread) else {
        return;
    };
    if context != thread.context {
        thread.context = context;
        state(Kind::Context, pid, tid, context);
    }
}

/// The context of this thread. In a system call another thread may hold the
/// interpreter: then it is read from the state in which this one was seen
/// before, which lasts as long as the thread.
#[inline(always)]
fn current_context(pid: u32, thread: &mut ThreadState) -> Option<u64> {
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
    let names = u64::from(target.thread_id_offset);
    let running = read_user(target.thread_state_at).unwrap_or(0);
    if running != 0 && read_user(running + names) == Some(own) {
        thread.python = running;
    } else if thread.python == 0 || read_user(thread.python + names) != Some(own) {
        return None;
    }
    read_user(thread.python + u64::from(target.context_offset))
}

#[inline(always)]
fn read_user(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

#[inline(always)]
fn state(kind: Kind, pid: u32, tid: u32, context: u64) {
    let header = header(kind, 0, pid, tid);
    record(
        ContextRecord {
            header,
            context,
            parent: 0,
            runtime: ContextKind::Python as u32,
            reserved: 0,
        },
        QUIET,
        Loss::RingFullTask,
    );
}
