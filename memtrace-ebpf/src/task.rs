//! Processes and threads that come, go, or change their program; moves between
//! cgroups.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use memtrace_common::{
    config::Target,
    event::{FLAG_FOLLOWED, FLAG_PROCESS, Kind, TaskRecord},
    loss::Loss,
};

use crate::{
    emit::{QUIET, URGENT, header, record},
    kernel::read,
    maps::{TARGETS, THREADS, config, current, is_known, lost},
};

/// match-proto:v5.0:include/trace/events/sched.h:sched_process_fork
/// (struct task_struct *parent, struct task_struct *child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn task_fork(ctx: RawTracePointContext) -> i32 {
    let (pid, tid) = current();
    if !is_known(pid) {
        return 0;
    }
    let child: u64 = ctx.arg(1);
    let child_tid: u32 = read(child, config!(offsets.task_pid)).unwrap_or(0);
    let child_pid: u32 = read(child, config!(offsets.task_tgid)).unwrap_or(0);
    let mut flags = 0;
    if child_pid != pid {
        flags |= FLAG_PROCESS;
        if config!(follow_children) != 0 {
            // Before the child runs: its first socket call is seen already.
            // A forked child has its parent's memory, and so its runtime at
            // the same place.
            let inherited = match unsafe { TARGETS.get(pid) } {
                Some(target) => *target,
                None => Target::default(),
            };
            match TARGETS.insert(child_pid, inherited, 0) {
                Ok(()) => flags |= FLAG_FOLLOWED,
                Err(_) => lost(Loss::ProcessesFull),
            }
        }
    }
    let task = TaskRecord {
        header: header(Kind::Fork, flags, pid, tid),
        child_pid,
        child_tid,
        start_boottime_ns: read(child, config!(offsets.task_start_boottime)).unwrap_or(0),
    };
    let wakeup = if flags & FLAG_FOLLOWED != 0 {
        URGENT
    } else {
        QUIET
    };
    record(task, wakeup, Loss::RingFullTask);
    0
}

/// match-proto:v5.0:include/trace/events/sched.h:sched_process_exec
/// (struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn task_exec(ctx: RawTracePointContext) -> i32 {
    let (pid, tid) = current();
    if !is_known(pid) {
        return 0;
    }
    let task: u64 = ctx.arg(0);
    // Whatever a thread was in the middle of is gone with the old program, and
    // so is its runtime.
    let _ = THREADS.remove(tid);
    // SAFETY: an entry is replaced or removed only with its process or program.
    let begun = unsafe { TARGETS.get(pid) }.map_or(0, |target| target.begun);
    let program = Target {
        begun,
        ..Target::default()
    };
    let _ = TARGETS.insert(pid, program, 0);
    record(
        TaskRecord {
            header: header(Kind::Exec, 0, pid, tid),
            child_pid: pid,
            child_tid: tid,
            start_boottime_ns: read(task, config!(offsets.task_start_boottime)).unwrap_or(0),
        },
        URGENT,
        Loss::RingFullTask,
    );
    0
}

/// match-proto:v5.0:include/trace/events/sched.h:sched_process_exit
/// (struct task_struct *p)
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn task_exit(ctx: RawTracePointContext) -> i32 {
    let (pid, tid) = current();
    if !is_known(pid) {
        return 0;
    }
    let _ = THREADS.remove(tid);
    let task: u64 = ctx.arg(0);
    let signal: u64 = read(task, config!(offsets.task_signal)).unwrap_or(0);
    let live: u32 = read(signal, config!(offsets.signal_live)).unwrap_or(1);
    let (flags, wakeup) = if live == 0 {
        let _ = TARGETS.remove(pid);
        (FLAG_PROCESS, URGENT)
    } else {
        (0, QUIET)
    };
    record(
        TaskRecord {
            header: header(Kind::Exit, flags, pid, tid),
            child_pid: pid,
            child_tid: tid,
            start_boottime_ns: 0,
        },
        wakeup,
        Loss::RingFullTask,
    );
    0
}

/// match-proto:v5.0:include/trace/events/cgroup.h:cgroup_attach_task
/// (struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool)
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub fn task_cgroup_move(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(2);
    let pid: u32 = read(task, config!(offsets.task_tgid)).unwrap_or(0);
    record(
        TaskRecord {
            header: header(Kind::CgroupMove, 0, pid, pid),
            child_pid: pid,
            child_tid: pid,
            start_boottime_ns: 0,
        },
        URGENT,
        Loss::RingFullTask,
    );
    0
}
