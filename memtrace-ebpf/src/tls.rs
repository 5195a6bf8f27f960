//! Calls into TLS libraries: the plaintext that they take and give, and the end
//! of their sessions.
//!
//! Every function is one of a few shapes (`memtrace_common::event::TlsCall`),
//! told by the probe's cookie. The outermost call counts, whatever it calls
//! inside, so that a function built on another one, or TLS inside TLS, states
//! its plaintext once. A call that moved bytes states them when it has returned;
//! one that moved none is stated only if it was the first that may have taken in
//! what the thread had received. Looking (SSL_peek) is not probed.

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::{bpf_get_attach_cookie, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{
    event::{FLAG_TLS, Kind, TlsCall, TlsRecord},
    loss::Loss,
};

use crate::{
    alloc::{is_nested, stack_pointer, stack_pointer_at_entry},
    emit::{QUIET, header, record},
    http2,
    maps::{Moved, PendingTls, current, existing_thread_state, is_target, lost, thread_state},
    socket::{go_on_with_bytes, touched},
};

/// Entry of a function that moves plaintext.
#[uprobe]
pub fn tls_enter(ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    if !is_target(pid) {
        return 0;
    }
    // SAFETY: the context is this program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let Some(call) = TlsCall::from_wire(cookie) else {
        return 0;
    };
    let Some(state) = thread_state(tid) else {
        return 0;
    };
    // SAFETY: the context of a uprobe is the register set.
    let sp = stack_pointer(unsafe { &*ctx.regs });
    let pending = &mut state.tls;
    if is_nested(&mut pending.sp, &mut pending.nested, sp, Loss::TlsAbandoned) {
        return 0;
    }
    let arg = |n| ctx.arg::<u64>(n).unwrap_or(0);
    *pending = PendingTls {
        sp,
        session: arg(0),
        buffer: match call {
            TlsCall::SendFile | TlsCall::Flush | TlsCall::Handshake => 0,
            TlsCall::Read | TlsCall::Write | TlsCall::ReadOut | TlsCall::WriteOut => arg(1),
        },
        out: arg(3),
        call: call as u32,
        nested: 0,
        fd: -1,
        received: pending.received,
    };
    0
}

/// Return of the same functions.
#[uretprobe]
pub fn tls_return(ctx: RetProbeContext) -> u32 {
    let (pid, tid) = current();
    let Some(state) = existing_thread_state(tid) else {
        return 0;
    };
    // SAFETY: the context of a uprobe is the register set.
    let regs = unsafe { &*ctx.as_ptr().cast::<pt_regs>() };
    let pending = state.tls;
    if pending.sp == 0 || pending.sp != stack_pointer_at_entry(regs) {
        return 0;
    }
    state.tls.sp = 0;
    let Some(call) = TlsCall::from_wire(u64::from(pending.call)) else {
        return 0;
    };
    let returned = ctx.ret::<i64>();
    let (kind, len) = match call {
        // int results are not extended to 64 bits, and no TLS call moves 2 GiB.
        TlsCall::Read => (Kind::Recv, i64::from(returned as i32)),
        TlsCall::Write => (Kind::Send, i64::from(returned as i32)),
        TlsCall::ReadOut => (Kind::Recv, stored(returned, pending.out)),
        TlsCall::WriteOut => (Kind::Send, stored(returned, pending.out)),
        TlsCall::SendFile => (Kind::Send, returned),
        TlsCall::Handshake => (Kind::Recv, 0),
        TlsCall::Flush => return 0,
    };
    let mut first = false;
    if matches!(kind, Kind::Recv) {
        first = pending.received != 0;
        state.tls.received = 0;
    }
    if len > 0 {
        touched(pid, tid, state);
        state.moved = Moved {
            stream: pending.session,
            buffer: pending.buffer,
            array: 0,
            count: 0,
            len: len as u64,
            left: 0,
            at: 0,
            end: 0,
            kept: 0,
            fd: pending.fd,
            kind: kind as u16,
            flags: FLAG_TLS,
        };
        go_on_with_bytes(&ctx);
    } else if first {
        session_fact(
            Kind::TlsCall,
            pid,
            tid,
            pending.session,
            pending.fd,
            pending.call,
        );
    }
    0
}

/// Entry of a function that ends the session of its first argument.
#[uprobe]
pub fn tls_end(ctx: ProbeContext) -> u32 {
    let (pid, tid) = current();
    let session = ctx.arg::<u64>(0).unwrap_or(0);
    if session != 0 && is_target(pid) {
        http2::forget_session(pid, session);
        session_fact(Kind::TlsEnd, pid, tid, session, -1, 0);
    }
    0
}

#[inline(always)]
fn session_fact(kind: Kind, pid: u32, tid: u32, session: u64, fd: i32, call: u32) {
    record(
        TlsRecord {
            header: header(kind, 0, pid, tid),
            session,
            fd,
            call,
        },
        QUIET,
        Loss::RingFullSocket,
    );
}

/// The number that a successful call has stored.
#[inline(always)]
fn stored(returned: i64, out: u64) -> i64 {
    if returned as i32 != 1 {
        return 0;
    }
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_user(out as *const i64) } {
        Ok(len) => len,
        Err(_) => {
            lost(Loss::ResultUnreadable);
            0
        }
    }
}
