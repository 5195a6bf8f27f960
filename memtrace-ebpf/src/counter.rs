//! What a runtime itself counts: read where a thread's work may pass to another
//! owner, before the fact that tells of it.
//!
//! A HotSpot thread counts the bytes of the buffers that it has used up, and of
//! what found no room in them; what it has used of the open buffer is added, as
//! `Thread::cooked_allocated_bytes` does. PHP counts the bytes in use in the heap
//! of its request, and the most there ever were.

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_probe_read_user},
    macros::uprobe,
    programs::ProbeContext,
};
use memtrace_common::{
    config::JvmTarget,
    event::{CounterKind, CounterRecord, Kind},
    loss::Loss,
};

use crate::{
    emit::{QUIET, header, record},
    kernel::read,
    maps::{TARGETS, ThreadState, config, current},
};

/// What an open buffer may hold, bytes: HotSpot's are smaller than an array of
/// 2^31 words. Guards against a buffer that is being replaced.
const BUFFER_BYTES_MAX: u64 = 8 << 31;
/// Readings of a counter that another thread may be changing.
const READINGS_MAX: u32 = 3;

/// States what the thread has allocated if its runtime counts that, and if the
/// figure has changed.
#[inline(never)]
pub fn state_if_changed(pid: u32, tid: u32, thread: &mut ThreadState) {
    let Some(target) = TARGETS.get_ptr_mut(pid) else {
        return;
    };
    // SAFETY: an entry is removed only with its process or program, and the
    // kernel keeps the memory until this program has ended.
    let jvm = unsafe { &mut (*target).jvm };
    if jvm.java_thread == 0 {
        return;
    }
    let Some(value) = thread_allocated(jvm) else {
        return;
    };
    // One more, so that 0 is a thread's first reading.
    if thread.counted == value + 1 {
        return;
    }
    thread.counted = value + 1;
    state(pid, tid, CounterKind::ThreadAllocated, value, 0);
}

/// Entry of PHP's `shutdown_memory_manager`: a request's heap is given up.
#[uprobe]
pub fn heap_end(_ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    // SAFETY: as above.
    let Some(target) = (unsafe { TARGETS.get(pid) }) else {
        return 0;
    };
    let php = target.php;
    if target.begun != 0
        && php.heap_at != 0
        && let Some(heap) = read_user(php.heap_at)
        && heap != 0
        && let Some(size) = read_user(heap + u64::from(php.size))
        && let Some(peak) = read_user(heap + u64::from(php.peak))
    {
        state(pid, tid, CounterKind::RequestHeap, size, peak);
    }
    0
}

/// Address of the running thread's `JavaThread`, if it is a Java thread.
#[inline(always)]
pub fn own_java_thread(jvm: &JvmTarget) -> Option<u64> {
    let own = own_pthread_id()?;
    let java_thread = read_user(own + u64::from(jvm.java_thread)).filter(|at| *at != 0)?;
    // It names this thread, or it is not what it is taken for.
    let os_thread = read_user(java_thread + u64::from(jvm.os_thread))?;
    (read_user(os_thread + u64::from(jvm.pthread_id))? == own).then_some(java_thread)
}

/// What the running thread has allocated since it began, if it is a Java thread.
#[inline(always)]
fn thread_allocated(jvm: &mut JvmTarget) -> Option<u64> {
    let java_thread = own_java_thread(jvm)?;
    if jvm.continuation != 0
        && jvm.carriers_met == 0
        && read_user(java_thread + u64::from(jvm.continuation))? != 0
    {
        jvm.carriers_met = 1;
    }
    let allocated_at = java_thread + u64::from(jvm.allocated);
    let mut allocated = read_user(allocated_at)?;
    for _ in 0..READINGS_MAX {
        let start = read_user(java_thread + u64::from(jvm.buffer_start))?;
        let top = read_user(java_thread + u64::from(jvm.buffer_top))?;
        let again = read_user(allocated_at)?;
        if again == allocated {
            let used = top.wrapping_sub(start);
            let is_open = start != 0 && used < BUFFER_BYTES_MAX;
            return allocated.checked_add(if is_open { used } else { 0 });
        }
        // A collection has closed the buffer meanwhile.
        allocated = again;
    }
    None
}

/// The running thread's `pthread_t`: on x86-64 its thread pointer.
#[inline(always)]
fn own_pthread_id() -> Option<u64> {
    if config!(offsets.task_fsbase) == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    read(task, config!(offsets.task_fsbase)).filter(|own| *own != 0)
}

#[inline(always)]
fn read_user(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

#[inline(always)]
fn state(pid: u32, tid: u32, counter: CounterKind, value: u64, peak: u64) {
    record(
        CounterRecord {
            header: header(Kind::Counter, 0, pid, tid),
            value,
            peak,
            counter: counter as u32,
            reserved: 0,
        },
        QUIET,
        Loss::RingFullTask,
    );
}
