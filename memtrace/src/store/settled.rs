//! A single request whose figures are final, for those who want more than sums.
//!
//! In: a request of the store. Out: all that is known of it. It decides nothing.

use super::{ByRule, End, EndpointKey, Request, Store, Sum};
use crate::{
    attribute::Outcome,
    id::{ConnId, ProcessId, RequestId},
};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRequest {
    /// Its number in the trace, in the order of first bytes.
    pub request: RequestId,
    /// The connection it came on.
    pub conn: ConnId,
    /// The process that received it.
    pub process: Option<ProcessId>,
    /// Its endpoint.
    pub endpoint: EndpointKey,
    /// The status of its response, if one was seen.
    pub status: Option<u16>,
    /// When its first byte arrived, ns of the trace's clock.
    pub begin_ns: u64,
    /// How it ended; `None` if it had not when the trace did.
    pub end: Option<SettledEnd>,
    /// What was allocated for it.
    pub allocated: Sum,
    /// The largest live sum.
    pub peak_bytes: u64,
    /// What of it is retained: live when the retention time was over.
    pub retained_bytes: u64,
    /// Of what was allocated, how much by which rule.
    pub by_rule: ByRule,
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// From the first byte received to the last byte sent, ns.
    pub duration_ns: u64,
    /// Bytes received for it.
    pub request_bytes: u64,
    /// Bytes sent for it.
    pub response_bytes: u64,
}

impl Store {
    pub(super) fn note_settled(&mut self, id: RequestId, endpoint: usize, request: &Request) {
        let Some(settled) = &mut self.settled else {
            return;
        };
        let Some((endpoint, _)) = self.endpoints.get(endpoint) else {
            return;
        };
        let process = self
            .processes
            .get(request.process.0 as usize)
            .and_then(|(totals, _)| totals.process);
        settled.push(SettledRequest {
            request: id,
            conn: request.conn,
            process,
            endpoint: endpoint.clone(),
            status: request.status,
            begin_ns: request.begin_ns,
            end: request.end.map(|end| {
                let End {
                    at_ns,
                    outcome,
                    request_bytes,
                    response_bytes,
                } = end;
                SettledEnd {
                    outcome,
                    duration_ns: at_ns.saturating_sub(request.begin_ns),
                    request_bytes,
                    response_bytes,
                }
            }),
            allocated: request.account.all(),
            peak_bytes: request.account.peak(),
            retained_bytes: request.account.live_bytes,
            by_rule: request.by_rule,
        });
    }
}
