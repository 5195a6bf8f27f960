//! Causes of loss that the kernel side counts. Wire ids are fixed: a retired
//! cause leaves a hole.

/// Why something was not seen. The discriminant indexes the kernel's per-CPU
/// counter array.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The ring was full: one record of an allocator event was dropped.
    RingFullAlloc = 0,
    /// The ring was full: one record of a socket event was dropped.
    RingFullSocket = 1,
    /// The ring was full: one record of a process or thread event was dropped.
    RingFullTask = 2,
    /// No room for the state of another thread: its events are not seen.
    ThreadsFull = 3,
    /// No room for another followed process.
    ProcessesFull = 4,
    /// An allocator call began whose return was never seen.
    AllocAbandoned = 5,
    /// A socket payload could not be read from the target's memory.
    PayloadUnreadable = 6,
    /// A successful call (`posix_memalign`, `SSL_read_ex`) whose stored result
    /// could not be read.
    ResultUnreadable = 7,
    /// A TLS call began whose return was never seen: what it moved is not known.
    TlsAbandoned = 8,
    /// What was read of a runtime contradicts itself: its layout is not the
    /// expected one, and nothing is stated of its contexts.
    LayoutMismatch = 9,
}

impl Loss {
    /// Number of causes, and length of the kernel's counter array.
    pub const COUNT: u32 = 10;

    /// Every cause, by its wire id.
    pub const ALL: [Loss; Self::COUNT as usize] = [
        Loss::RingFullAlloc,
        Loss::RingFullSocket,
        Loss::RingFullTask,
        Loss::ThreadsFull,
        Loss::ProcessesFull,
        Loss::AllocAbandoned,
        Loss::PayloadUnreadable,
        Loss::ResultUnreadable,
        Loss::TlsAbandoned,
        Loss::LayoutMismatch,
    ];

    /// The cause's name in reports (`lost.by_cause`).
    pub const fn name(self) -> &'static str {
        match self {
            Loss::RingFullAlloc => "ring_full_alloc",
            Loss::RingFullSocket => "ring_full_socket",
            Loss::RingFullTask => "ring_full_task",
            Loss::ThreadsFull => "threads_full",
            Loss::ProcessesFull => "processes_full",
            Loss::AllocAbandoned => "alloc_abandoned",
            Loss::PayloadUnreadable => "payload_unreadable",
            Loss::ResultUnreadable => "result_unreadable",
            Loss::TlsAbandoned => "tls_abandoned",
            Loss::LayoutMismatch => "layout_mismatch",
        }
    }
}
