//! The asynchronous resource in whose callback a thread of Node works.
//!
//! Node keeps three numbers for each of its environments (src/env.h: `AsyncHooks`):
//! the resource whose callback runs, and how many there have been. They are read
//! where an allocation or a socket call is stated, and wherever a callback begins
//! or ends: each resource that was made since was made by the one whose callback
//! ran. (Timers call back one after the other without Node's native half: which one
//! has ended is known if it has settled a promise or allocated anything.)
//!
//! The continuations of promises run when a callback has ended, before the next one
//! begins, with no number of Node's. V8 counts them: each has its place in the order
//! in which they are queued, and run. The queue is read wherever one is queued, so
//! that it is known which one, or which callback, has made it. Where the queue cannot
//! be read they are taken for the callback's that has ended.
//!
//! Where the numbers are is known once a callback begins; they are believed if
//! the arrays around them have the sizes they should have, and the queue if what it
//! says of itself goes together.

use aya_ebpf::{
    helpers::bpf_probe_read_user,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{
    event::{ContextKind, ContextRecord, Kind},
    loss::Loss,
};

use crate::{
    emit::{QUIET, header, record},
    maps::{TARGETS, ThreadState, current, existing_thread_state, is_target, thread_state},
};

// `AsyncHooks` has three `AliasedBufferBase`s behind its table of virtual
// functions, each of 56 bytes: table, isolate, count, offset, buffer, array,
// index (src/aliased_buffer.h).
const STACK_COUNT: u64 = 8 + 16;
const FIELDS_COUNT: u64 = 8 + 56 + 16;
const IDS_COUNT: u64 = 8 + 2 * 56 + 16;
const IDS_BUFFER: u64 = 8 + 2 * 56 + 32;
/// `AsyncHooks::UidFields`: execution, trigger, counter, default trigger.
const IDS: u64 = 4;
/// `AsyncHooks::Fields`: 8 in Node 12, 9 since.
const FIELDS: core::ops::RangeInclusive<u64> = 8..=10;
/// The stack of numbers begins with room for 16 pairs, and grows threefold.
const STACK: core::ops::RangeInclusive<u64> = 32..=1 << 20;

/// The thread id is put above a resource's number: worker threads count for
/// themselves.
const THREAD_SHIFT: u32 = 40;

/// Entry of `AsyncHooks::push_async_context`: a callback begins.
#[uprobe]
pub fn node_begins(ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    if !is_target(pid) {
        return 0;
    }
    let Some(state) = thread_state(tid) else {
        return 0;
    };
    if state.node.ids_at == 0 {
        let hooks = ctx.arg::<u64>(0).unwrap_or(0);
        match ids_of(hooks) {
            Found::At(ids_at) => {
                if let Some([_, _, counter]) = ids(ids_at) {
                    state.node.ids_at = ids_at;
                    state.node.made = counter;
                }
            }
            Found::Otherwise => {
                if let Some(target) = TARGETS.get_ptr_mut(pid) {
                    // SAFETY: an entry is removed only with its process or program,
                    // and the kernel keeps the memory until this program has ended.
                    unsafe { (*target).node_unread = 1 };
                }
            }
            Found::Nothing => {}
        }
    }
    state_if_changed(pid, tid, state);
    0
}

/// Entry of `InternalCallbackScope::Close`: a callback has ended, and what it has
/// made ready runs.
#[uprobe]
pub fn node_ends(_ctx: ProbeContext) -> u32 {
    observe(|_| {})
}

/// Return of `InternalCallbackScope::Close`: nothing of JavaScript runs, but for a
/// callback around it.
#[uretprobe]
pub fn node_ended(_ctx: RetProbeContext) -> u32 {
    observe(|state| {
        state.node.cause = 0;
        state.node.in_row = 0;
    })
}

/// Entry of `Environment::RunTimers` and `Environment::CheckImmediate`: callbacks
/// run one after the other.
#[uprobe]
pub fn node_row(_ctx: ProbeContext) -> u32 {
    observe(|state| {
        state.node.cause = 0;
        state.node.in_row = 1;
    })
}

/// Entry of `MicrotaskQueue::RunMicrotasks`: the continuations that are ready run.
#[uprobe]
pub fn node_continues(ctx: ProbeContext) -> u32 {
    let queue = ctx.arg::<u64>(0).unwrap_or(0);
    observe(|state| {
        let Some(jobs) = jobs(queue) else {
            state.node.jobs_at = 0;
            return;
        };
        if state.node.jobs_at == queue && state.node.jobs_done != jobs.finished {
            state.node.jobs_lost = 1;
        }
        if state.node.jobs_lost != 0 {
            state.node.jobs_at = 0;
            return;
        }
        // One that is met for the first time may hold jobs of which nobody knows
        // who made them.
        if state.node.jobs_at != queue {
            state.node.jobs_at = queue;
            state.node.jobs_made = jobs.finished + jobs.waiting;
        }
        state.node.jobs_run = 1;
    })
}

/// Entry of `EnqueueMicrotask`, V8's own and that for others: a continuation is put
/// into the queue.
#[uprobe]
pub fn node_makes_job(_ctx: ProbeContext) -> u32 {
    observe(|_| {})
}

/// Return of `MicrotaskQueue::RunMicrotasks`: the continuations that were ready have
/// run.
#[uretprobe]
pub fn node_continued(_ctx: RetProbeContext) -> u32 {
    // None runs, and none waits.
    if let Some(state) = existing_thread_state(current().1) {
        state.node.jobs_run = 0;
    }
    observe(|state| {
        if let Some(jobs) = jobs(state.node.jobs_at) {
            state.node.jobs_made = jobs.finished + jobs.waiting;
            state.node.jobs_done = jobs.finished;
        }
        if state.node.in_row != 0 {
            state.node.cause = 0;
        }
    })
}

/// Entry of the function that settles a promise.
#[uprobe]
pub fn node_settles(_ctx: ProbeContext) -> u32 {
    observe(|_| {})
}

/// States what has changed until now, then changes what is to come.
#[inline(always)]
fn observe(change: impl FnOnce(&mut ThreadState)) -> u32 {
    let (pid, tid) = current();
    if is_target(pid)
        && let Some(state) = existing_thread_state(tid)
        && state.node.ids_at != 0
    {
        state_if_changed(pid, tid, state);
        change(state);
    }
    0
}

/// The thread waits for new events: nothing of JavaScript runs.
#[inline(always)]
pub fn waits(state: &mut ThreadState) {
    state.node.cause = 0;
    state.node.in_row = 0;
    state.node.jobs_run = 0;
}

/// States the resource whose callback or continuation runs if it is another than
/// was stated last, and which were made since.
#[inline(never)]
pub fn state_if_changed(pid: u32, tid: u32, state: &mut ThreadState) {
    let Some([running, _, counter]) = ids(state.node.ids_at) else {
        return;
    };
    if running != 0 {
        state.node.cause = running;
    }
    let mut context = number(tid, state.node.cause);
    let mut kind = ContextKind::Node;
    if state.node.jobs_at != 0 {
        match jobs(state.node.jobs_at) {
            Some(jobs) => {
                let runs = state.node.jobs_run != 0;
                let next = jobs.finished + jobs.waiting + u64::from(runs);
                let first = state.node.jobs_made;
                // Each that was made since was made by what ran then.
                if next > first {
                    let (last, first) = (job(tid, next - 1), job(tid, first));
                    say(Kind::ContextMade, pid, tid, last, first, ContextKind::Job);
                }
                state.node.jobs_made = next;
                if runs && running == 0 {
                    context = job(tid, jobs.finished);
                    kind = ContextKind::Job;
                }
            }
            None => state.node.jobs_at = 0,
        }
    }
    if context != state.context {
        state.context = context;
        say(Kind::Context, pid, tid, context, 0, kind);
    }
    let first = state.node.made + 1;
    if counter >= first {
        state.node.made = counter;
        let (last, first) = (number(tid, counter), number(tid, first));
        say(Kind::ContextMade, pid, tid, last, first, ContextKind::Node);
    }
}

/// V8's queue of jobs (src/execution/microtask-queue.h: `MicrotaskQueue`, in Node 18
/// to 24), behind its table of virtual functions: how many wait, for how many there
/// is room, where the first is, the ring, how many have run.
const QUEUE: u64 = 8;
/// Room for this many at most is believed.
const ROOM_MAX: u64 = 1 << 24;

/// How far a queue of jobs has come.
struct Jobs {
    /// So many have run; the next one has this number.
    finished: u64,
    /// So many wait.
    waiting: u64,
}

#[inline(always)]
fn jobs(queue: u64) -> Option<Jobs> {
    if queue == 0 {
        return None;
    }
    let [waiting, room, first, _, finished]: [u64; 5] = read_user(queue.wrapping_add(QUEUE))?;
    let fits = room & room.wrapping_sub(1) == 0
        && room <= ROOM_MAX
        && waiting <= room
        && (first < room || room == 0)
        && finished < JOB;
    fits.then_some(Jobs { finished, waiting })
}

/// What a job is called: beyond all resources.
#[inline(always)]
fn job(tid: u32, number: u64) -> u64 {
    (u64::from(tid) << THREAD_SHIFT) | JOB | (number & (JOB - 1))
}

/// Set in the name of a job, not in that of a resource.
const JOB: u64 = 1 << (THREAD_SHIFT - 1);

/// What a resource is called beyond its thread; 0 is none.
#[inline(always)]
fn number(tid: u32, id: u64) -> u64 {
    if id == 0 {
        return 0;
    }
    (u64::from(tid) << THREAD_SHIFT) | (id & (JOB - 1))
}

/// Where the numbers of some hooks are.
enum Found {
    /// Here.
    At(u64),
    /// Not where they should be.
    Otherwise,
    /// It could not be read.
    Nothing,
}

#[inline(always)]
fn ids_of(hooks: u64) -> Found {
    let word = |offset| read_user::<u64>(hooks.wrapping_add(offset));
    let (Some(stack), Some(fields), Some(count), Some(at)) = (
        word(STACK_COUNT),
        word(FIELDS_COUNT),
        word(IDS_COUNT),
        word(IDS_BUFFER),
    ) else {
        return Found::Nothing;
    };
    if count == IDS && FIELDS.contains(&fields) && STACK.contains(&stack) {
        Found::At(at)
    } else {
        Found::Otherwise
    }
}

/// The running resource's number, that of the one that caused it, and how many
/// there have been.
#[inline(always)]
fn ids(at: u64) -> Option<[u64; 3]> {
    let [running, trigger, counter]: [u64; 3] = read_user(at)?;
    Some([whole(running), whole(trigger), whole(counter)])
}

/// The whole part of a number in IEEE 754's binary64, which Node counts in; 0 for
/// those that are negative, below 1 or beyond 2^53.
#[inline(always)]
fn whole(bits: u64) -> u64 {
    const FRACTION_BITS: u64 = 52;
    let exponent = (bits >> FRACTION_BITS).wrapping_sub(1023);
    if exponent > FRACTION_BITS {
        return 0;
    }
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    ((1 << FRACTION_BITS) | fraction) >> ((FRACTION_BITS - exponent) & 63)
}

#[inline(always)]
fn read_user<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

#[inline(always)]
fn say(kind: Kind, pid: u32, tid: u32, context: u64, parent: u64, of: ContextKind) {
    record(
        ContextRecord {
            header: header(kind, 0, pid, tid),
            context,
            parent,
            runtime: of as u32,
            entered: 0,
        },
        QUIET,
        Loss::RingFullTask,
    );
}
