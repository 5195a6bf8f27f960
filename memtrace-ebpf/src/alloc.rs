//! Allocator calls: every function is one of a few shapes
//! (`memtrace_common::event::AllocCall`), told by the probe's cookie.
//!
//! The outermost call counts, whatever it calls inside: an inner call has a
//! lower stack pointer than the pending one. A pending call whose return never
//! came is recognised by a later call at a higher stack pointer.

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::{bpf_get_attach_cookie, bpf_ktime_get_ns, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{
    event::{AllocCall, AllocRecord, FreeRecord, Kind, ReallocRecord},
    limits::NESTED_CALLS_MAX,
    loss::Loss,
};

use crate::{
    context,
    emit::{QUIET, header, record},
    go,
    maps::{PendingAlloc, current, lost, thread_state},
};

/// Entry of any function that hands out a block, or that takes one back and
/// may call another probed function to do so.
#[uprobe]
pub fn alloc_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is this program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    if let Some(call) = AllocCall::from_wire(cookie) {
        enter(&ctx, call);
    }
    0
}

/// Return of the same functions.
#[uretprobe]
pub fn alloc_return(ctx: RetProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = unsafe { &*ctx.as_ptr().cast::<pt_regs>() };
    leave(stack_pointer_at_entry(regs), ctx.ret::<u64>());
    0
}

/// Entry of a function that takes back its first argument and calls no other
/// probed function.
#[uprobe]
pub fn free_enter(ctx: ProbeContext) -> u32 {
    let addr = ctx.arg::<u64>(0).unwrap_or(0);
    if addr == 0 {
        return 0;
    }
    let (pid, tid) = current();
    let Some(state) = thread_state(tid) else {
        return 0;
    };
    // SAFETY: the context of a uprobe is the register set.
    let sp = stack_pointer(unsafe { &*ctx.regs });
    if alloc_is_nested(&mut state.alloc, sp) {
        return 0;
    }
    free(pid, tid, addr);
    0
}

#[inline(always)]
fn enter(ctx: &ProbeContext, call: AllocCall) {
    let (pid, tid) = current();
    let Some(state) = thread_state(tid) else {
        return;
    };
    // SAFETY: the context of a uprobe is the register set.
    let sp = stack_pointer(unsafe { &*ctx.regs });
    if alloc_is_nested(&mut state.alloc, sp) {
        return;
    }
    let arg = |n| ctx.arg::<u64>(n).unwrap_or(0);
    let (pointer, size) = match call {
        AllocCall::Size => (0, arg(0)),
        AllocCall::CountSize => (0, product(arg(0), arg(1))),
        AllocCall::OldSize | AllocCall::ResizeInPlace => (arg(0), arg(1)),
        AllocCall::OldCountSize => (arg(0), product(arg(1), arg(2))),
        AllocCall::SkipSize => (0, arg(1)),
        AllocCall::OutAlignSize => (arg(0), arg(2)),
        AllocCall::SkipCountSize => (0, product(arg(1), arg(2))),
        AllocCall::SkipOldSize => (arg(1), arg(2)),
        AllocCall::Release => (arg(0), 0),
    };
    let entry_ns = match call {
        AllocCall::OldSize | AllocCall::OldCountSize | AllocCall::SkipOldSize if pointer != 0 => {
            // SAFETY: a helper without arguments.
            unsafe { bpf_ktime_get_ns() }
        }
        _ => 0,
    };
    state.slept_at = 0;
    state.alloc = PendingAlloc {
        sp,
        pointer,
        size,
        entry_ns,
        call: call as u32,
        nested: 0,
    };
    if matches!(call, AllocCall::Release) && pointer != 0 {
        free(pid, tid, pointer);
    }
}

#[inline(always)]
fn leave(sp_at_entry: u64, returned: u64) {
    let (pid, tid) = current();
    let Some(state) = crate::maps::existing_thread_state(tid) else {
        return;
    };
    let pending = state.alloc;
    if pending.sp == 0 || pending.sp != sp_at_entry {
        return;
    }
    state.alloc.sp = 0;
    let Some(call) = AllocCall::from_wire(u64::from(pending.call)) else {
        return;
    };
    context::state_if_changed(pid, tid, state);
    go::state_in_c(pid, tid, state, pending.sp);
    match call {
        AllocCall::Size | AllocCall::CountSize | AllocCall::SkipSize | AllocCall::SkipCountSize => {
            alloc(pid, tid, returned, pending.size)
        }
        AllocCall::OldSize | AllocCall::OldCountSize | AllocCall::SkipOldSize => {
            if pending.pointer == 0 {
                alloc(pid, tid, returned, pending.size);
            } else if returned != 0 || pending.size == 0 {
                // A null result for size 0 says that the block is gone
                // (glibc); for any other size that nothing has changed.
                realloc(pid, tid, &pending, returned);
            }
        }
        AllocCall::OutAlignSize => {
            if returned as i32 == 0 {
                // SAFETY: the helper checks the address.
                match unsafe { bpf_probe_read_user(pending.pointer as *const u64) } {
                    Ok(addr) => alloc(pid, tid, addr, pending.size),
                    Err(_) => lost(Loss::ResultUnreadable),
                }
            }
        }
        AllocCall::ResizeInPlace => {
            if returned >= pending.size {
                realloc(pid, tid, &pending, pending.pointer);
            }
        }
        AllocCall::Release => {}
    }
}

#[inline(always)]
fn alloc_is_nested(pending: &mut PendingAlloc, sp: u64) -> bool {
    is_nested(
        &mut pending.sp,
        &mut pending.nested,
        sp,
        Loss::AllocAbandoned,
    )
}

/// Whether a call at this stack pointer is inside the pending one. If it is
/// not, the pending one is over.
#[inline(always)]
pub fn is_nested(pending_sp: &mut u64, nested: &mut u32, sp: u64, abandoned: Loss) -> bool {
    if *pending_sp == 0 {
        return false;
    }
    if sp < *pending_sp && *nested < NESTED_CALLS_MAX {
        *nested += 1;
        return true;
    }
    // At the same stack pointer the pending call ended in a jump to this one;
    // anywhere else its return was missed.
    if sp != *pending_sp {
        lost(abandoned);
    }
    *pending_sp = 0;
    false
}

#[inline(always)]
fn alloc(pid: u32, tid: u32, addr: u64, size: u64) {
    if addr != 0 {
        let header = header(Kind::Alloc, 0, pid, tid);
        record(
            AllocRecord { header, addr, size },
            QUIET,
            Loss::RingFullAlloc,
        );
    }
}

#[inline(always)]
fn free(pid: u32, tid: u32, addr: u64) {
    let header = header(Kind::Free, 0, pid, tid);
    record(FreeRecord { header, addr }, QUIET, Loss::RingFullAlloc);
}

#[inline(always)]
fn realloc(pid: u32, tid: u32, pending: &PendingAlloc, addr: u64) {
    let header = header(Kind::Realloc, 0, pid, tid);
    record(
        ReallocRecord {
            header,
            old: pending.pointer,
            addr,
            size: pending.size,
            elapsed_ns: if pending.entry_ns == 0 {
                0
            } else {
                header.ts_ns - pending.entry_ns
            },
        },
        QUIET,
        Loss::RingFullAlloc,
    );
}

/// An overflowing product is a request that no allocator can meet.
#[inline(always)]
fn product(count: u64, size: u64) -> u64 {
    if (count >> 32 == 0 && size >> 32 == 0) || count <= 1 || size <= 1 {
        count * size
    } else {
        u64::MAX
    }
}

#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn stack_pointer(regs: &pt_regs) -> u64 {
    regs.rsp
}

/// `ret` has popped the return address (kernel: `uretprobe` handlers see the
/// registers as they are after the return).
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn stack_pointer_at_entry(regs: &pt_regs) -> u64 {
    regs.rsp - 8
}

#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn stack_pointer(regs: &pt_regs) -> u64 {
    regs.sp
}

/// The return address is in a register: nothing was popped.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn stack_pointer_at_entry(regs: &pt_regs) -> u64 {
    regs.sp
}
