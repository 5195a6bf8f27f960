//! The kernel half of memtrace.
//!
//! In: probe hits on allocator functions, system calls and task events
//! of traced processes. Out: one record in the ring for each fact
//! (`memtrace_common::event`), a counter for each that could not be stated.
//! It never decides which request a fact belongs to, never writes to a
//! process, and holds no state but what pairs a call's entry with its return.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]

mod alloc;
mod context;
mod counter;
mod emit;
mod go;
mod go_tls;
mod handover;
mod http2;
mod kernel;
mod maps;
mod node;
mod rustls;
mod socket;
mod task;
mod tls;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier admits no program that could reach this.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
