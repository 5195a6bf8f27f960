//! Plaintext of Go's crypto/tls, and the end of its sessions.
//!
//! What was received is stated where `(*Conn).Read` returns, at each of its return
//! instructions: the function keeps its arguments in the room that its caller has
//! left for them right behind the return address, which the collector has checked,
//! so that a read that was waiting when the trace began is stated like any other.
//! What is sent is stated before it is sent, at the stack check of `(*Conn).Write`.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use memtrace_common::{
    event::{FLAG_TLS, Kind, TlsRecord},
    loss::Loss,
};

use crate::{
    emit::{QUIET, header, record},
    go::{Registers, program, read_user, registers, state_goroutine},
    http2,
    maps::{Moved, current, lost, thread_state},
    socket::{go_on_with_bytes, touched},
};

/// A return instruction of `(*Conn).Read(buffer)`; the first result is the number
/// of bytes.
#[uprobe]
pub fn go_tls_read(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    let received = regs.first as i64;
    if received > 0 {
        match read_user::<[u64; 2]>(regs.sp + 8) {
            Some([session, buffer]) => {
                let len = received as u64;
                if has_moved(Kind::Recv, &regs, session, buffer, len) {
                    go_on_with_bytes(&ctx);
                }
            }
            None => lost(Loss::PayloadUnreadable),
        }
    }
    0
}

/// Stack check of `(*Conn).Write(buffer)`.
#[uprobe]
pub fn go_tls_write(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    if !regs.to_morestack
        && regs.third != 0
        && has_moved(Kind::Send, &regs, regs.first, regs.second, regs.third)
    {
        go_on_with_bytes(&ctx);
    }
    0
}

/// Stack check of `(*Conn).Close()`.
#[uprobe]
pub fn go_tls_end(ctx: ProbeContext) -> u32 {
    // SAFETY: the context of a uprobe is the register set.
    let regs = registers(unsafe { &*ctx.regs });
    let (pid, tid) = current();
    if !regs.to_morestack && program(pid).is_some() {
        http2::forget_session(pid, regs.first);
        record(
            TlsRecord {
                header: header(Kind::TlsEnd, 0, pid, tid),
                session: regs.first,
                fd: -1,
                call: 0,
            },
            QUIET,
            Loss::RingFullSocket,
        );
    }
    0
}

/// Sets out to state plaintext that a goroutine has moved.
#[inline(always)]
fn has_moved(kind: Kind, regs: &Registers, session: u64, buffer: u64, len: u64) -> bool {
    let (pid, tid) = current();
    let Some(go) = program(pid) else {
        return false;
    };
    let Some(state) = thread_state(tid) else {
        return false;
    };
    state_goroutine(pid, tid, state, &go, regs.g, regs.sp);
    touched(pid, tid, state);
    state.moved = Moved {
        stream: session,
        buffer,
        array: 0,
        count: 0,
        len,
        left: 0,
        at: 0,
        end: 0,
        kept: 0,
        fd: -1,
        kind: kind as u16,
        flags: FLAG_TLS,
    };
    true
}
