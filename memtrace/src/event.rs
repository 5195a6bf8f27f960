//! What happened, as the collector understands it: one [`Event`] for each fact
//! that the kernel or the collector's own observation of `/proc` states.
//!
//! This is the vocabulary that `decode` and `capture` produce and `attribute`
//! consumes. It holds no opinion about requests.

use memtrace_common::event::{Addresses, ContextKind, CounterKind, HandoverKind, WaitKind};
use serde::{Deserialize, Serialize};

use crate::{
    id::{ProcessId, SocketId, StreamId},
    message::Message,
};

/// The name under which [`EventBody::Loss`] counts processes, not events: those
/// that came while the trace ran and were gone, or traced by another memtrace,
/// before they could be probed.
pub const PROCESSES_UNPROBED: &str = "process_not_probed";

/// One fact, with its time and the thread it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// CLOCK_MONOTONIC, ns.
    pub ts_ns: u64,
    /// Process id (tgid) in the initial PID namespace; 0 for facts about the
    /// trace itself.
    pub pid: u32,
    /// Thread id in the initial PID namespace; 0 where no thread is meant.
    pub tid: u32,
    /// The fact.
    pub body: EventBody,
}

/// A fact as it was first stated: with the bytes that moved. Only `dialogue`
/// sees those.
#[derive(Clone, Debug, PartialEq)]
pub struct RawEvent {
    /// The fact.
    pub event: Event,
    /// The bytes, if it is [`EventBody::Data`].
    pub captured: Captured,
}

/// What was captured of the bytes that a call moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes.
    pub payload: Vec<u8>,
    /// The last bytes if `payload` is not all of them, else empty.
    pub tail: Vec<u8>,
    /// A TLS library moved them on a socket: what they say is stated as the
    /// plaintext of a session.
    pub in_tls_call: bool,
}

impl From<Event> for RawEvent {
    fn from(event: Event) -> Self {
        RawEvent {
            event,
            captured: Captured::default(),
        }
    }
}

/// The facts. Kernel facts come first, in the order of their wire ids.
#[derive(Clone, Debug, PartialEq)]
pub enum EventBody {
    /// A block was handed out.
    Alloc {
        /// Its address.
        addr: u64,
        /// Requested bytes.
        size: u64,
    },
    /// A block is taken back.
    Free {
        /// Its address.
        addr: u64,
    },
    /// A block was replaced (a free of `old` and an allocation of `addr`).
    Realloc {
        /// The address given up.
        old: u64,
        /// The address obtained; 0 if `old` was only freed (size 0).
        addr: u64,
        /// Requested bytes.
        size: u64,
        /// ns between the call's entry and its return.
        elapsed_ns: u64,
    },
    /// A connection was accepted.
    Accept(SocketFact),
    /// A connection was opened from this side.
    Connect(SocketFact),
    /// Bytes moved on a stream.
    Data(Data),
    /// What the bytes of a stream amount to, and what its end means for the
    /// messages under way: stated right before the event that tells of it.
    Messages {
        /// On which stream.
        stream: StreamId,
        /// In their order, never empty.
        messages: Vec<Message>,
    },
    /// One or both directions were shut down.
    Shutdown {
        /// Which socket.
        socket: SocketId,
        /// SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2.
        how: u32,
    },
    /// A descriptor was closed.
    Close {
        /// Which socket.
        socket: SocketId,
        /// Which descriptor.
        fd: i32,
        /// No other descriptor or process holds the socket.
        last: bool,
    },
    /// A socket call failed for good.
    SocketError {
        /// Which socket.
        socket: SocketId,
        /// The positive errno.
        errno: u32,
    },
    /// A thread that had socket activity begins to wait for events.
    Wait {
        /// How it waits.
        kind: WaitKind,
        /// Descriptors waited for (poll: nfds; select: highest plus one;
        /// else 0).
        descriptors: u32,
    },
    /// A process or a thread was created.
    Fork {
        /// The child's process id (the parent's own for a thread).
        child_pid: u32,
        /// The child's thread id.
        child_tid: u32,
        /// The child process's start, ns since boot.
        start_ns: u64,
        /// A process, not a thread.
        process: bool,
        /// The child process is traced too.
        followed: bool,
    },
    /// The process replaced its program.
    Exec {
        /// Its start, ns since boot (unchanged by exec).
        start_ns: u64,
    },
    /// A thread ended.
    Exit {
        /// It was the process's last.
        process: bool,
    },
    /// An executable mapping appeared (dlopen).
    Mapped,
    /// A process moved to another cgroup.
    CgroupMove,
    /// The thread works in this context of its language runtime from now on.
    Context {
        /// What identifies it in the process; 0: none.
        context: u64,
        /// Of which kind.
        kind: ContextKind,
        /// Counts up whenever the thread enters or leaves a context, so that two
        /// stays in one context differ; 0 if the runtime does not count.
        entered: u32,
    },
    /// A context is gone; what identified it may be used again.
    ContextEnd {
        /// What identified it in the process.
        context: u64,
        /// Of which kind.
        kind: ContextKind,
    },
    /// The thread has made this context for work on behalf of another.
    ContextMade {
        /// What identifies the new context in the process.
        context: u64,
        /// On whose behalf; 0: of the one in which the thread works. Of Node's
        /// resources: the first of those that were made together, on behalf of the
        /// one in which the thread works.
        parent: u64,
        /// Of which kind.
        kind: ContextKind,
    },
    /// The thread is about to wake whoever waits for the key.
    Wake(Handover),
    /// The thread is about to wait for the key.
    Sleep(Handover),
    /// The thread's wait for the key ended because it was woken.
    Woken(Handover),
    /// What a runtime's own counter says.
    Counter {
        /// Which counter.
        kind: CounterKind,
        /// Its value, bytes.
        value: u64,
        /// The largest value since it was reset, bytes; 0 if not kept.
        peak: u64,
    },
    /// A garbage-collected heap handed out a block; its end is not seen.
    ManagedAlloc {
        /// Requested bytes.
        size: u64,
        /// What identifies its type in the process; 0: none.
        type_address: u64,
    },
    /// The collector knows the name of a type.
    TypeName {
        /// What identifies it in the process.
        type_address: u64,
        /// Its name in its language.
        name: String,
    },
    /// A TLS session is over; its address may be used again.
    TlsEnd {
        /// Its address in the process.
        session: u64,
    },
    /// The thread's first call to take in TLS records after it had received on a
    /// socket, and no plaintext came of it.
    TlsCall {
        /// The session's address in the process.
        session: u64,
        /// The descriptor on which the call itself moved bytes last; -1: none.
        fd: i32,
        /// It went on with the handshake, else it read.
        handshake: bool,
    },
    /// The collector describes a traced process: at the attach, and again when
    /// it has changed its program or loaded another allocator.
    Process(ProcessFact),
    /// The collector found an open socket when it attached.
    OpenSocket {
        /// Descriptor, identity and ends.
        fact: SocketFact,
        /// This side accepted it, as far as can be told: its local address is
        /// one this machine listens on.
        accepted: bool,
    },
    /// The running total of one cause of loss.
    Loss {
        /// Name of the cause.
        cause: String,
        /// Events lost to it since the trace began.
        total: u64,
    },
    /// Nothing happened but time, stated about every second, so that what is due
    /// is settled and a trace of an idle process has a duration.
    Clock,
    /// Every probe of the initial targets is in place: measuring begins.
    TraceBegin,
    /// Measuring has ended.
    TraceEnd {
        /// Why, in words for the report.
        why: String,
    },
}

/// A socket that was accepted, connected or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFact {
    /// Its identity.
    pub socket: SocketId,
    /// The descriptor through which it was seen.
    pub fd: i32,
    /// Both ends.
    pub addresses: Addresses,
}

/// Which way bytes went, as the traced process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Received by the process.
    Recv,
    /// Sent by the process.
    Send,
}

/// Bytes that a call moved, in stream order. What they say is stated by
/// [`EventBody::Messages`]; the bytes themselves are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Which way.
    pub direction: Direction,
    /// On which stream.
    pub stream: StreamId,
    /// Through which descriptor; -1 if that is not known. Of a TLS session: on
    /// which the TLS call itself moved bytes last, -1 if on none.
    pub fd: i32,
    /// Bytes moved; 0 with `Recv` means the peer closed its side.
    pub len: u64,
    /// Where received bytes were put; 0: nowhere in the process, or that is not
    /// known, or they were sent.
    pub buffer: u64,
    /// Further parts of the same call follow.
    pub more: bool,
    /// The target's memory could not be read.
    pub unreadable: bool,
}

/// One thread wakes another that waits for the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handover {
    /// What both know, by its kind: see [`HandoverKind`].
    pub key: u64,
    /// Through what.
    pub kind: HandoverKind,
    /// How much, by its kind: see [`HandoverKind`]. `Sleep`: 0. `Wake` with 0:
    /// what the thread had just stated has not happened.
    pub amount: u32,
    /// `Wake`: nothing was there to be read before.
    pub alone: bool,
}

/// A traced process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessFact {
    /// Which process.
    pub process: ProcessId,
    /// Its parent's id.
    pub parent_pid: u32,
    /// Path of its program, as seen inside its own root.
    pub exe: String,
    /// Its name (`/proc/PID/comm`).
    pub comm: String,
    /// Language runtime recognised, such as `cpython 3.11`, else `native`.
    pub runtime: String,
    /// Allocators probed, such as `glibc (/usr/lib/…/libc.so.6)`.
    pub allocators: Vec<String>,
    /// TLS libraries probed, such as `OpenSSL (/usr/lib/…/libssl.so.3)`.
    pub tls: Vec<String>,
    /// How it came to be traced.
    pub origin: Origin,
    /// What keeps it from being seen whole, in words (no allocator found, probes
    /// refused …); empty if nothing does.
    pub trouble: Vec<String>,
    /// For a process that joined: how long it had run when its allocators had
    /// been probed, ns. What it allocated before is not seen.
    pub probed_after_ns: u64,
}

/// How the words begin that say that a process has asyncio's tasks, and that they
/// are not told apart.
pub const ASYNCIO_UNTOLD: &str = "asyncio tasks are not told apart";
/// The same of tokio's tasks.
pub const TASKS_UNTOLD: &str = "tokio's tasks are not told apart";
/// The same of greenlets.
pub const GREENLETS_UNTOLD: &str = "greenlets are not told apart";
/// The same of Node's callbacks.
pub const NODE_UNTOLD: &str = "Node's callbacks are not told apart";

impl ProcessFact {
    /// Whether a thread of the process may have turned from one request to another
    /// without a sign of it.
    pub fn has_untold_tasks(&self) -> bool {
        let untold = [ASYNCIO_UNTOLD, TASKS_UNTOLD, GREENLETS_UNTOLD, NODE_UNTOLD];
        let is_one = |words: &String| untold.iter().any(|begin| words.starts_with(begin));
        self.trouble.iter().any(is_one)
    }
}

/// How a process came to be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It ran before the trace began.
    Attached,
    /// It was forked by a traced process, or joined the traced cgroup or name.
    Joined,
    /// The trace started it.
    Started,
}
