//! What is added up: the sums of a process, an endpoint, a reason, and of the
//! connections.
//!
//! In: sizes and the figures of requests. Out: totals that `analyse` reads. It
//! does not know which block or request a figure came from.

use std::collections::BTreeMap;

use super::{Distribution, End, Request, TypeSums};
use crate::{
    attribute::{How, Outcome},
    event::ProcessFact,
    id::ProcessId,
};

/// Totals of one process.
#[derive(Clone, Debug, Default)]
pub struct ProcessTotals {
    /// Which process.
    pub process: Option<ProcessId>,
    /// What is known of it.
    pub fact: Option<ProcessFact>,
    /// Allocations.
    pub allocated: Sum,
    /// Frees of blocks whose allocation was seen.
    pub freed: Sum,
    /// Frees of blocks whose allocation was not seen.
    pub freed_unknown_count: u64,
    /// Blocks whose release must have been missed: their address was handed out
    /// again.
    pub displaced_count: u64,
    /// Requested bytes of the blocks that are live, or were when the process
    /// ended.
    pub live_bytes: u64,
    /// Connections it accepted that carry TLS.
    pub tls_connections: u64,
    /// Those of them whose plaintext was seen.
    pub tls_read: u64,
    /// What the figures leave out.
    pub unseen: Unseen,
    /// It has ended.
    pub ended: bool,
}

/// What figures leave out because a runtime does not tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Into how many blocks some bytes were divided.
    pub counts: bool,
    /// When some bytes were given back.
    pub frees: bool,
    /// What was allocated in a heap of which only the extent is known.
    pub volume: bool,
}

impl Unseen {
    /// Either leaves it out.
    pub fn merge(&mut self, other: Unseen) {
        let Unseen {
            counts,
            frees,
            volume,
        } = other;
        self.counts |= counts;
        self.frees |= frees;
        self.volume |= volume;
    }
}

/// Bytes and blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub count: u64,
}

impl Sum {
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.count += 1;
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Sum) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.count += other.count;
    }

    pub(super) fn take_out(&mut self, other: Sum) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.count = self.count.saturating_sub(other.count);
    }
}

/// Sums by the rule of attribution, in the order of [`How::ALL`].
pub type ByRule = [Sum; How::ALL.len()];

/// What was allocated on someone's behalf and is still there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) allocated: Sum,
    pub(super) freed: Sum,
    pub(super) live_bytes: u64,
    pub(super) peak_bytes: u64,
    /// Memory whose frees are not seen: part of none of the above.
    pub(super) managed: Sum,
    /// Most bytes in use in the runtime's heap for this request.
    pub(super) heap_peak_bytes: u64,
    pub(super) unseen: Unseen,
}

impl Account {
    /// Everything allocated.
    pub(super) fn all(&self) -> Sum {
        let mut all = self.allocated;
        all.merge(self.managed);
        all
    }

    /// Most bytes held: the peaks of the blocks and of the runtime's heap, which
    /// need not have been at the same time.
    pub(super) fn peak(&self) -> u64 {
        self.peak_bytes.saturating_add(self.heap_peak_bytes)
    }

    pub(super) fn alloc(&mut self, size: u64) {
        self.allocated.add(size);
        self.live_bytes = self.live_bytes.saturating_add(size);
        self.peak_bytes = self.peak_bytes.max(self.live_bytes);
    }

    pub(super) fn free(&mut self, size: u64) {
        self.freed.add(size);
        self.live_bytes = self.live_bytes.saturating_sub(size);
    }

    /// Takes over another account. While that one grew, this one stood still:
    /// both belong to one thread's work.
    pub(super) fn merge(&mut self, other: Account) {
        self.allocated.merge(other.allocated);
        self.freed.merge(other.freed);
        self.peak_bytes = self
            .peak_bytes
            .max(self.live_bytes.saturating_add(other.peak_bytes));
        self.live_bytes = self.live_bytes.saturating_add(other.live_bytes);
        self.managed.merge(other.managed);
        self.heap_peak_bytes = self.heap_peak_bytes.max(other.heap_peak_bytes);
        self.unseen.merge(other.unseen);
    }

    /// Gives up a part that turned out to be another's. How large the peak was
    /// without it is not known: it stays, but for what was never its own.
    pub(super) fn take_out(&mut self, other: Account) {
        self.allocated.take_out(other.allocated);
        self.managed.take_out(other.managed);
        self.freed.take_out(other.freed);
        if self.peak_bytes == self.live_bytes {
            // The peak is now.
            self.peak_bytes = self.peak_bytes.saturating_sub(other.live_bytes);
        }
        self.live_bytes = self.live_bytes.saturating_sub(other.live_bytes);
        self.peak_bytes = self.peak_bytes.min(self.allocated.bytes);
    }
}

/// What belongs to no request, for one reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReasonTotals {
    /// Allocations.
    pub allocated: Sum,
    /// Of them, requested bytes that are live.
    pub live_bytes: u64,
    /// What the figures leave out.
    pub unseen: Unseen,
}

impl ReasonTotals {
    pub(super) fn add(&mut self, account: &Account) {
        self.allocated.merge(account.all());
        self.live_bytes = self.live_bytes.saturating_add(account.live_bytes);
        self.unseen.merge(account.unseen);
    }

    /// Gives up a part that turned out to be another's.
    pub(super) fn take_out(&mut self, account: &Account) {
        self.allocated.take_out(account.all());
        self.live_bytes = self.live_bytes.saturating_sub(account.live_bytes);
    }
}

/// What tells endpoints apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// Protocol, without its minor version.
    pub protocol: &'static str,
    /// Method.
    pub method: String,
    /// Route template.
    pub route: String,
}

/// Totals of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointTotals {
    /// Requests whose head was received, ended or not.
    pub requests: u64,
    /// Requests that have not ended (at the end of the trace).
    pub in_flight: u64,
    /// Requests by outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Requests by the status of their response.
    pub status: BTreeMap<u16, u64>,
    /// Everything allocated, also by requests that have not ended.
    pub allocated: Sum,
    /// Of what was allocated, how much by which rule.
    pub by_rule: ByRule,
    /// Of what was allocated, what was freed within the retention time.
    pub freed: Sum,
    /// Requested bytes, by request.
    pub alloc_bytes: Distribution,
    /// Allocations, by request.
    pub alloc_count: Distribution,
    /// Largest live sum, by request.
    pub peak_bytes: Distribution,
    /// Bytes live when the retention time was over, by request.
    pub retained_bytes: Distribution,
    /// Time from the first byte received to the last byte sent, ns, by request.
    pub duration_ns: Distribution,
    /// Bytes received, by request.
    pub request_bytes: Distribution,
    /// Bytes sent, by request.
    pub response_bytes: Distribution,
    /// What the figures leave out.
    pub unseen: Unseen,
    /// What was allocated on heaps with a garbage collector, by type.
    pub types: TypeSums,
}

/// Connections, counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionTotals {
    /// Accepted by traced processes.
    pub accepted: u64,
    /// Opened by traced processes.
    pub connected: u64,
    /// Open before they could be seen to be opened.
    pub found_open: u64,
    /// Closed.
    pub closed: u64,
    /// Open now.
    pub open: u64,
    /// Most open at once.
    pub open_max: u64,
    /// Upgraded to another protocol.
    pub upgraded: u64,
    /// Carrying something other than HTTP/1.
    pub not_http: u64,
    /// Request heads that could not be understood.
    pub malformed_requests: u64,
    /// Response heads that could not be understood.
    pub malformed_responses: u64,
    /// Responses whose request was not seen.
    pub unmatched_responses: u64,
}

impl EndpointTotals {
    /// A request whose figures are final.
    pub(super) fn add_ended(&mut self, request: &Request, end: End) {
        self.retained_bytes.record(request.account.live_bytes);
        self.add_answered(request, end);
    }

    /// A request that has ended; what it retains is not known yet.
    pub(super) fn add_answered(&mut self, request: &Request, end: End) {
        let allocated = request.account.all();
        let Account {
            allocated: _,
            managed: _,
            freed,
            live_bytes: _,
            peak_bytes: _,
            heap_peak_bytes: _,
            unseen,
        } = request.account;
        self.requests += 1;
        *self.outcomes.entry(end.outcome).or_default() += 1;
        if let Some(status) = request.status {
            *self.status.entry(status).or_default() += 1;
        }
        self.allocated.merge(allocated);
        self.add_by_rule(&request.by_rule);
        self.freed.merge(freed);
        self.alloc_bytes.record(allocated.bytes);
        self.alloc_count.record(allocated.count);
        self.peak_bytes.record(request.account.peak());
        self.unseen.merge(unseen);
        self.types.merge(&request.types);
        self.duration_ns
            .record(end.at_ns.saturating_sub(request.begin_ns));
        self.request_bytes.record(end.request_bytes);
        self.response_bytes.record(end.response_bytes);
    }

    /// A request that has not ended: counted, and its bytes are part of the
    /// total, but not of any distribution.
    pub(super) fn add_in_flight(&mut self, request: &Request) {
        self.requests += 1;
        self.in_flight += 1;
        if let Some(status) = request.status {
            *self.status.entry(status).or_default() += 1;
        }
        self.allocated.merge(request.account.all());
        self.add_by_rule(&request.by_rule);
        self.freed.merge(request.account.freed);
        self.unseen.merge(request.account.unseen);
        self.types.merge(&request.types);
    }

    fn add_by_rule(&mut self, by_rule: &ByRule) {
        for (sum, more) in self.by_rule.iter_mut().zip(by_rule) {
            sum.merge(*more);
        }
    }
}
