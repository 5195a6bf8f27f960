//! Why bytes belong to no request. Unknown is a value with a name: every
//! reason reads true on its own in a report.

/// Why an allocation is credited to no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The process was started during the trace and had not yet received a
    /// message.
    Startup,
    /// The thread never took part in a connection.
    BackgroundThread,
    /// The thread serves requests, and at that time had none: it had waited for
    /// events, or had closed its connection.
    BetweenRequests,
    /// Between waiting for events and receiving a message: for the buffer into
    /// which it was received.
    ReceiveBuffer,
    /// A connection had been accepted and no byte of a request had arrived.
    ConnectionSetup,
    /// The trace began while the thread was at work; no message had been seen
    /// on it yet.
    BeforeFirstHead,
    /// The request's head could not be understood.
    MalformedHead,
    /// The connection closed before the request's head was whole.
    IncompleteHead,
    /// A TLS session was being set up: records had been received, and no
    /// plaintext had come of them yet.
    TlsHandshake,
    /// The connection carries TLS whose plaintext is not seen.
    TlsUnread,
    /// Bytes of several requests had been received at once, and nothing told for
    /// which of them the work was.
    SeveralRequests,
    /// What had been received on the connection was of no request: settings,
    /// pings and windows of HTTP/2.
    ConnectionUpkeep,
    /// The connection carries something other than HTTP.
    NotHttp,
    /// The peer had closed the connection or it had failed.
    ConnectionClosed,
    /// It was done for a request whose response had long ended.
    EndedRequest,
    /// Two rules disagree on which request it was done for.
    Ambiguous,
    /// The thread was in the middle of several requests, and nothing tells which
    /// it worked for.
    TasksUntold,
}

impl Reason {
    /// Every reason, in the order of their wire names.
    pub const ALL: [Reason; 17] = [
        Reason::Startup,
        Reason::BackgroundThread,
        Reason::BetweenRequests,
        Reason::ReceiveBuffer,
        Reason::ConnectionSetup,
        Reason::BeforeFirstHead,
        Reason::MalformedHead,
        Reason::IncompleteHead,
        Reason::TlsHandshake,
        Reason::TlsUnread,
        Reason::SeveralRequests,
        Reason::ConnectionUpkeep,
        Reason::NotHttp,
        Reason::ConnectionClosed,
        Reason::EndedRequest,
        Reason::Ambiguous,
        Reason::TasksUntold,
    ];

    /// Position in [`Reason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The reason's name in reports (`unattributed.by_reason`).
    pub fn name(self) -> &'static str {
        match self {
            Reason::Startup => "startup",
            Reason::BackgroundThread => "background_thread",
            Reason::BetweenRequests => "between_requests",
            Reason::ReceiveBuffer => "receive_buffer",
            Reason::ConnectionSetup => "connection_setup",
            Reason::BeforeFirstHead => "before_first_head",
            Reason::MalformedHead => "malformed_head",
            Reason::IncompleteHead => "incomplete_head",
            Reason::TlsHandshake => "tls_handshake",
            Reason::TlsUnread => "tls_unread",
            Reason::SeveralRequests => "several_requests",
            Reason::ConnectionUpkeep => "connection_upkeep",
            Reason::NotHttp => "not_http",
            Reason::ConnectionClosed => "connection_closed",
            Reason::EndedRequest => "ended_request",
            Reason::Ambiguous => "ambiguous",
            Reason::TasksUntold => "tasks_untold",
        }
    }
}
