//! Every bound the kernel side keeps, with the arithmetic that justifies it.

/// Bytes of the ring that carries records to the collector.
///
/// An allocation record takes 48 bytes in the ring (40 and the ring's own
/// 8-byte header), so 8 MiB hold about 175,000: more than half a second at
/// 300,000 events a second, while the collector empties it every few
/// milliseconds. The collector maps it twice in a row, so that a record that
/// wraps reads in one piece: its memory grows by twice this size.
pub const RING_BYTES: u32 = 8 << 20;

/// Threads whose state can be held at once; one more is counted as loss.
///
/// Entries are allocated on demand (about 330 bytes each).
pub const THREADS_MAX: u32 = 65_536;

/// Processes traced at once; one more is counted as loss.
pub const PROCESSES_MAX: u32 = 16_384;

/// Futexes known to be slept at, over all processes, the least recently used
/// forgotten first: only wake-ups of these are stated. A server's pools have a
/// few; a runtime that makes one for each wait (CPython's conditions) uses the
/// same addresses again. About 1.5 MB of kernel memory.
pub const FUTEXES_MAX: u32 = 16_384;

/// Most bytes of a write that is looked at as a message to another thread:
/// PIPE_BUF, up to which the kernel keeps a message in one piece (pipe(7)).
pub const HANDOVER_BYTES_MAX: u64 = 4096;

/// Most bytes recorded of one message part that does not open like a message
/// head: enough for a chunk-size line or the rest of a split head.
pub const PAYLOAD_SMALL: usize = 512;

/// Most bytes recorded of one message part that opens like a request or
/// response head.
pub const PAYLOAD_HEAD: usize = 4096;

/// Bytes recorded of a part's end when its payload was cut: the last five
/// decide whether a chunked body ended (`0\r\n\r\n`).
pub const TAIL: usize = 8;

/// Directions of HTTP/2 streams whose frames are followed at once; the one used
/// least recently gives way, and is then stated like any other stream.
///
/// Room for all is taken at once: about 100 bytes each.
pub const HTTP2_STREAMS_MAX: u32 = 16_384;

/// Sessions of rustls whose socket is known at once; the one used least recently
/// gives way, and is then met again by what it receives next.
///
/// Room for all is taken at once: about 80 bytes each.
pub const RUSTLS_SESSIONS_MAX: u32 = 16_384;

/// Steps in which one run of the program that walks frames goes: one for each
/// frame, buffer and record. The verifier goes through each of them.
///
/// One run goes on with another as often as the kernel lets programs go on (33
/// times, `MAX_TAIL_CALL_CNT` in include/linux/bpf.h, of which three lead here):
/// 1,240 steps of one call. What follows is stated like the bytes of any other
/// stream.
pub const HTTP2_STEPS: u32 = 40;

/// System call numbers that can be watched: above every architecture's.
pub const SYSCALLS_MAX: u32 = 512;

/// Parts of a vectored call that are looked into; the rest is reported as one
/// part without payload, its length counted.
pub const IOVECS_MAX: usize = 8;

/// Nested calls seen inside one pending allocator or TLS call before that call is
/// taken for abandoned (its return was never seen).
pub const NESTED_CALLS_MAX: u32 = 64;

/// The bits of a futex's address by which it differs from its neighbour: glibc's
/// condition variable has two, which it uses in turn, in eight bytes
/// (`__g_signals` in sysdeps/nptl/bits/thread-shared-types.h).
pub const FUTEX_PAIR: u64 = 7;
