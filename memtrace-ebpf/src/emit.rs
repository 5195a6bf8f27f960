//! Putting records into the ring.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
};
use memtrace_common::{
    event::{Header, Kind},
    loss::Loss,
};

use crate::maps::{EVENTS, lost};

/// The collector empties the ring on its own clock: no wake-up for each record.
pub const QUIET: u64 = BPF_RB_NO_WAKEUP as u64;
/// Wakes the collector: something it must answer quickly (a new process).
pub const URGENT: u64 = BPF_RB_FORCE_WAKEUP as u64;

/// A header for the current moment.
#[inline(always)]
pub fn header(kind: Kind, flags: u16, pid: u32, tid: u32) -> Header {
    raw_header(kind as u16, flags, pid, tid)
}

/// The same for a kind by its wire id.
#[inline(always)]
pub fn raw_header(kind: u16, flags: u16, pid: u32, tid: u32) -> Header {
    Header {
        // SAFETY: a helper without arguments.
        ts_ns: unsafe { bpf_ktime_get_ns() },
        pid,
        tid,
        kind,
        flags,
        reserved: 0,
    }
}

/// Emits a whole record, or counts it under `cause`.
#[inline(always)]
pub fn record<T: Copy + 'static>(record: T, wakeup: u64, cause: Loss) {
    match EVENTS.reserve::<T>(0) {
        Some(mut entry) => {
            entry.write(record);
            entry.submit(wakeup);
        }
        None => lost(cause),
    }
}
