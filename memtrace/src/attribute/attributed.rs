//! What `attribute` says about each event: the language between it and
//! `store`, which knows no protocol.

use crate::{
    attribute::reason::Reason,
    event::ProcessFact,
    id::{ConnId, ProcessId, RequestId, WorkId},
};

/// To whom work belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A request.
    Request(Claim),
    /// No request, because …
    Reason(Reason),
}

/// By which rule work is a request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// The thread had received bytes of the request.
    Received,
    /// The thread then sent bytes of the response.
    Answered,
    /// The thread had just finished the response.
    Afterwards,
    /// The thread worked in a context that its language runtime had made for
    /// the request.
    Context,
    /// The thread had received bytes on a connection on which it had sent on
    /// behalf of the request.
    Backend,
    /// A thread that worked for the request had handed work to this one.
    HandedOver,
}

impl How {
    /// Every rule, in the order of their names in reports.
    pub const ALL: [How; 6] = [
        How::Received,
        How::Answered,
        How::Afterwards,
        How::Context,
        How::Backend,
        How::HandedOver,
    ];

    /// Position in [`How::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The rule's name in reports (`attribution`).
    pub const fn name(self) -> &'static str {
        match self {
            How::Received => "received",
            How::Answered => "answered",
            How::Afterwards => "afterwards",
            How::Context => "context",
            How::Backend => "backend",
            How::HandedOver => "handed_over",
        }
    }

    /// Whether the rule is contradicted by bytes that are sent for another
    /// request: what comes after a response is only presumed to be clean-up.
    pub const fn is_claim(self) -> bool {
        match self {
            How::Received | How::Answered | How::Context | How::Backend | How::HandedOver => true,
            How::Afterwards => false,
        }
    }
}

/// A request that is worked for, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Which request.
    pub request: RequestId,
    /// By which rule.
    pub how: How,
}

/// To whom an allocation belongs, as far as is known when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credit {
    /// To no request, for a reason that nothing will change.
    Reason(Reason),
    /// To whomever this stretch of work turns out to belong
    /// ([`Attributed::WorkSettled`], [`Attributed::WorkDisputed`]).
    Work(WorkId),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The whole response was sent.
    Complete,
    /// It ended in the middle of the response.
    Aborted(EndedBy),
    /// It ended before any response.
    NoResponse(EndedBy),
}

/// Who ended a request that was not answered whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndedBy {
    /// The client: it closed or reset the connection, or gave the request up.
    Client,
    /// The traced process: it closed the connection or gave the request up.
    Server,
    /// The end of the traced process.
    ProcessEnd,
}

/// A process, numbered in the order in which the trace met them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessIndex(pub u32);

/// One consequence of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Attributed {
    /// Measuring begins.
    TraceBegin {
        /// When, ns.
        ts_ns: u64,
    },
    /// A process is traced from now on, under this index.
    ProcessBegin {
        /// Its number, one above the last.
        index: ProcessIndex,
        /// Which process.
        process: ProcessId,
    },
    /// What is known of a process has changed.
    ProcessDescribed {
        /// Which process.
        index: ProcessIndex,
        /// Everything known of it.
        fact: ProcessFact,
    },
    /// A process replaced its program: all its memory is gone.
    ProcessExec {
        /// Which process.
        index: ProcessIndex,
    },
    /// A process has ended.
    ProcessEnd {
        /// Which process.
        index: ProcessIndex,
    },
    /// A block was handed out.
    Alloc {
        /// In which process.
        process: ProcessIndex,
        /// Its address.
        addr: u64,
        /// Requested bytes.
        size: u64,
        /// To whom it belongs.
        credit: Credit,
    },
    /// A block was taken back.
    Free {
        /// In which process.
        process: ProcessIndex,
        /// Its address.
        addr: u64,
    },
    /// A block was replaced.
    Realloc {
        /// In which process.
        process: ProcessIndex,
        /// The address given up.
        old: u64,
        /// The address obtained; 0 if none.
        addr: u64,
        /// Requested bytes.
        size: u64,
        /// When the call began, ns.
        entry_ns: u64,
        /// To whom the new block belongs.
        credit: Credit,
    },
    /// Memory was handed out by a heap whose frees are not seen (a garbage
    /// collector's).
    Managed {
        /// In which process.
        process: ProcessIndex,
        /// How much.
        bytes: u64,
        /// In how many blocks; none: that is not known.
        blocks: Option<u64>,
        /// What identifies its type in the process; 0: that is not known.
        type_address: u64,
        /// To whom it belongs.
        credit: Credit,
    },
    /// The name of a type is known.
    TypeName {
        /// In which process.
        process: ProcessIndex,
        /// What identifies it there.
        type_address: u64,
        /// Its name in its language.
        name: String,
    },
    /// The heap that a runtime keeps for one request was given up whole; what
    /// was allocated in it is not seen.
    RequestHeap {
        /// In which process.
        process: ProcessIndex,
        /// Whose it was.
        request: RequestId,
        /// Most bytes in use in it at one time.
        peak_bytes: u64,
    },
    /// A stretch of work begins whose owner may become known later.
    WorkBegin {
        /// Its number.
        work: WorkId,
        /// Its owner if nothing else is learnt.
        presumed: Owner,
    },
    /// The owner of a stretch of work is known.
    WorkSettled {
        /// Which work.
        work: WorkId,
        /// Its owner.
        owner: Owner,
    },
    /// Whatever becomes of the stretch in which a block was allocated, the block
    /// itself is this owner's: a stretch of its own.
    BlockProven {
        /// Whose address space.
        process: ProcessIndex,
        /// Where the block is.
        addr: u64,
        /// The number of its stretch.
        work: WorkId,
        /// Its owner.
        owner: Owner,
    },
    /// Two rules disagree on whose a stretch of work was.
    WorkDisputed {
        /// Which work.
        work: WorkId,
        /// For which requests they speak.
        candidates: [RequestId; 2],
    },
    /// The first byte of a request arrived.
    RequestBegin {
        /// Its number.
        request: RequestId,
        /// On which connection.
        conn: ConnId,
        /// In which process.
        process: ProcessIndex,
        /// When, ns.
        ts_ns: u64,
    },
    /// The request's head is whole.
    RequestNamed {
        /// Which request.
        request: RequestId,
        /// Protocol, such as `http/1`.
        protocol: &'static str,
        /// Method.
        method: String,
        /// Route template.
        route: String,
    },
    /// The response's final status is known.
    RequestStatus {
        /// Which request.
        request: RequestId,
        /// Status code.
        status: u16,
    },
    /// What looked like a request is none: what it allocated has this reason.
    RequestVoid {
        /// Which request.
        request: RequestId,
        /// Why.
        reason: Reason,
    },
    /// A request ended.
    RequestEnd {
        /// Which request.
        request: RequestId,
        /// How.
        outcome: Outcome,
        /// Bytes received for it, head included.
        request_bytes: u64,
        /// Bytes sent for it, heads included.
        response_bytes: u64,
        /// When, ns.
        ts_ns: u64,
    },
    /// A connection began to be traced.
    ConnBegin {
        /// Its number.
        conn: ConnId,
        /// How it came to be known.
        kind: ConnKind,
    },
    /// A connection was closed.
    ConnEnd {
        /// Its number.
        conn: ConnId,
    },
    /// A connection that the process accepted carries TLS.
    TlsConnection {
        /// Which process.
        process: ProcessIndex,
    },
    /// The plaintext on such a connection is seen.
    TlsRead {
        /// In which process.
        process: ProcessIndex,
    },
    /// Something on a connection is to be counted.
    ConnCount(ConnCount),
    /// The running total of a cause of loss.
    Loss {
        /// Name of the cause.
        cause: String,
        /// Events lost to it since the trace began.
        total: u64,
    },
    /// Measuring has ended.
    TraceEnd {
        /// When, ns.
        ts_ns: u64,
        /// Why, in words.
        why: String,
    },
}

/// How a connection came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnKind {
    /// Accepted by a traced process.
    Accepted,
    /// Opened by a traced process.
    Connected,
    /// Open before it could be seen to be opened.
    Found,
}

/// Things counted on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnCount {
    /// A request head that could not be understood.
    MalformedRequest,
    /// A response head that could not be understood.
    MalformedResponse,
    /// A response whose request was not seen.
    UnmatchedResponse,
    /// A connection that turned out to carry something else than HTTP/1.
    NotHttp,
    /// A connection that was upgraded to another protocol.
    Upgraded,
}
