//! The report, version 1: what every output shows and other programs read.
//!
//! In: nothing; `analyse` fills these values. Out: plain data, the same for a
//! live run and for a capture read later. It holds no logic but the rounding
//! that keeps its figures exact through JSON and back; it formats nothing.
//!
//! Version 1 only grows: a field that is added after the first release carries
//! `#[serde(default)]`, and none is renamed, removed or given another meaning.
//! `schema/report-1.schema.json` describes the same shape for other programs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) mod sample;

mod request;

pub use request::RequestRow;

/// The value of [`Report::schema`].
pub const SCHEMA: &str = "memtrace.report/1";

/// Everything that one trace shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// How it was measured, and what was not seen.
    pub capture: Capture,
    /// Sums over all processes.
    pub totals: Totals,
    /// Every traced process, by pid and start.
    pub processes: Vec<Process>,
    /// Every endpoint, most allocated bytes first, then by name.
    pub endpoints: Vec<Endpoint>,
    /// Connections, in counts.
    pub connections: Connections,
    /// What could not be read as HTTP, in counts.
    pub http: Http,
    /// Allocations that belong to no request.
    pub unattributed: Unattributed,
    /// What the analysis concludes.
    pub findings: Vec<Finding>,
}

/// Whether every event was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every event.
    #[default]
    Exact,
    /// Events of a part of the time; figures are estimates with an interval.
    Sampled,
}

/// How it was measured, and what was not seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// Exact or sampled.
    pub mode: Mode,
    /// From the last probe's placement to the trace's end, ns.
    pub duration_ns: u64,
    /// Part of the time that was traced, 0 to 1; 1 in exact mode.
    pub observed_fraction: f64,
    /// Events recorded.
    pub events: u64,
    /// Events recorded per second of `duration_ns`.
    pub events_per_second: f64,
    /// Events that were not seen.
    pub lost: Lost,
    /// What tracing costs the traced processes.
    pub overhead: Overhead,
    /// The capture ends before its end mark: the tracer was killed, or the
    /// file was cut. What precedes the cut is whole.
    pub truncated: bool,
    /// What is wrong with the capture file and where, in words.
    pub damage: Option<String>,
    /// Release of the kernel that was traced.
    pub kernel: String,
    /// Why the trace ended, in words; empty while it runs and when truncated.
    pub why_ended: String,
    /// How long after its request's end a block must live to count as
    /// retained, ns.
    pub retain_ns: u64,
    /// Whatever else the reader should know, one sentence each.
    pub notes: Vec<String>,
}

/// Events that were not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Sum over the causes, in events.
    pub total: u64,
    /// Events by cause; a cause that lost nothing may be absent.
    pub by_cause: BTreeMap<String, u64>,
}

/// What tracing costs the traced processes, as fractions of their processor
/// time (0.02 is 2 %).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overhead {
    /// As measured or computed; none if it was not.
    pub estimate: Option<f64>,
    /// The most the user allowed; none if no limit was given.
    pub budget: Option<f64>,
}

/// Sums over all processes. Every byte in it is in one endpoint's or in
/// [`Unattributed`]'s total.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests seen.
    pub requests: u64,
    /// Requests seen per second of the capture.
    pub requests_per_second: f64,
    /// Requested bytes of all allocations.
    pub alloc_bytes: u64,
    /// Allocations.
    pub alloc_count: u64,
    /// Bytes of the freed blocks whose allocation was seen.
    pub free_bytes: u64,
    /// Frees, those of blocks from before the trace included.
    pub free_count: u64,
    /// Frees of blocks from before the trace: their size is not known.
    pub free_unknown_count: u64,
    /// Bytes allocated during the trace and not freed when it ended.
    pub live_bytes: u64,
    /// Figures that say too little, by the names of their fields: the runtime
    /// does not tell all that they should hold.
    #[serde(default)]
    pub incomplete: Vec<String>,
}

/// A traced process. A pid is reused, so `start_ns` is part of its identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Start, ns since boot, rounded down to 10 ms.
    pub start_ns: u64,
    /// Process id of its parent.
    pub parent_pid: u32,
    /// Path of its program inside its own root.
    pub exe: String,
    /// Its name, as `ps` shows it.
    pub comm: String,
    /// Language runtime recognised, such as `cpython 3.11`, else `native`.
    pub runtime: String,
    /// How it came to be traced: `attached`, `joined` or `started`.
    pub origin: String,
    /// Allocators probed, such as `glibc (/usr/lib/libc.so.6)`.
    pub allocators: Vec<String>,
    /// TLS libraries probed, such as `OpenSSL (/usr/lib/libssl.so.3)`.
    pub tls: Vec<String>,
    /// What keeps it from being seen whole, one sentence each.
    pub trouble: Vec<String>,
    /// Requested bytes of its allocations.
    pub alloc_bytes: u64,
    /// Its allocations.
    pub alloc_count: u64,
    /// Bytes of its freed blocks whose allocation was seen.
    pub free_bytes: u64,
    /// Its frees, those of blocks from before the trace included.
    pub free_count: u64,
    /// Its frees of blocks from before the trace.
    pub free_unknown_count: u64,
    /// Bytes allocated during the trace and not freed when it ended.
    pub live_bytes: u64,
    /// Figures that say too little, by the names of their fields: the runtime
    /// does not tell all that they should hold.
    #[serde(default)]
    pub incomplete: Vec<String>,
}

/// A quantity over the requests of one endpoint, in the unit that the field's
/// name ends with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Sum over all requests, those not seen whole included.
    pub total: u64,
    /// Mean over the requests seen whole; see [`mean`].
    pub mean: f64,
    /// Median over the requests seen whole.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
    /// 95 % confidence interval of the mean, low and high; none in exact mode.
    pub ci95: Option<[f64; 2]>,
}

/// The requests of one protocol, method and route template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Protocol, such as `http/1`.
    pub protocol: String,
    /// Method, such as `GET`.
    pub method: String,
    /// Route template, such as `/users/{id}`.
    pub route: String,
    /// Requests that began during the trace.
    pub requests: u64,
    /// Of these, seen whole: from the first byte to the end.
    pub observed: u64,
    /// Of these, not ended when the trace was.
    pub in_flight: u64,
    /// How the ended ones ended.
    pub outcomes: Outcomes,
    /// Responses by status code.
    pub status: BTreeMap<String, u64>,
    /// Its part of all allocated bytes, 0 to 1.
    pub share_of_alloc: f64,
    /// Requested bytes of a request's allocations.
    pub alloc_bytes: Distribution,
    /// Allocations of a request.
    pub alloc_count: Distribution,
    /// Largest sum of bytes that a request held at one time: that of its blocks,
    /// and that of the heap that its runtime kept for it, if it did (PHP).
    pub peak_bytes: Distribution,
    /// Bytes still live `capture.retain_ns` after their request ended.
    pub retained_bytes: Distribution,
    /// From a request's first byte received to its response's last sent, ns.
    pub duration_ns: Distribution,
    /// Bytes of a request on the wire, head and body.
    pub request_bytes: Distribution,
    /// Bytes of a response on the wire, head and body.
    pub response_bytes: Distribution,
    /// Freed bytes of blocks that its requests allocated, whenever and
    /// wherever they were freed.
    pub free_bytes: u64,
    /// Freed blocks that its requests allocated.
    pub free_count: u64,
    /// By which rule its allocations were attributed; the sums equal the totals
    /// of `alloc_bytes` and `alloc_count`.
    #[serde(default)]
    pub attribution: BTreeMap<String, Attribution>,
    /// Where its allocations come from, most bytes first.
    pub stacks: Vec<Stack>,
    /// What it allocated on heaps with a garbage collector, by type, most bytes
    /// first; at most 20, blocks of unknown type under an empty name.
    #[serde(default)]
    pub types: Vec<TypeSum>,
    /// Figures that say too little, by the names of their fields: the runtime
    /// does not tell all that they should hold.
    #[serde(default)]
    pub incomplete: Vec<String>,
}

/// The allocations that one rule attributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribution {
    /// Their requested bytes.
    pub alloc_bytes: u64,
    /// Their number.
    pub alloc_count: u64,
}

/// What was allocated of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeSum {
    /// Its name in its language.
    pub name: String,
    /// Requested bytes of its blocks.
    pub alloc_bytes: u64,
    /// Its blocks.
    pub alloc_count: u64,
}

/// How requests ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Answered in full.
    pub complete: u64,
    /// The connection ended while the response was being sent.
    pub aborted: u64,
    /// The connection ended before any byte of a response.
    pub no_response: u64,
    /// Of the two above, ended by the client: it closed or reset the
    /// connection, or gave the request up.
    #[serde(default)]
    pub ended_by_client: u64,
    /// Of the two above, ended by the traced process: it closed the connection
    /// or gave the request up (a timeout, say).
    #[serde(default)]
    pub ended_by_server: u64,
    /// Of the two above, ended by the end of the process.
    #[serde(default)]
    pub ended_by_process_end: u64,
}

/// One distinct call stack of an endpoint's allocations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Requested bytes allocated here.
    pub alloc_bytes: u64,
    /// Allocations made here.
    pub alloc_count: u64,
    /// Bytes allocated here and retained.
    pub retained_bytes: u64,
    /// The allocator's caller first.
    pub frames: Vec<Frame>,
}

/// One function of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Function, or its address if it has no name.
    pub name: String,
    /// Source file, if known.
    pub file: Option<String>,
    /// Source line, if known.
    pub line: Option<u32>,
    /// Executable or library that holds it, if known.
    pub module: Option<String>,
}

/// Connections, in counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Accepted during the trace.
    pub accepted: u64,
    /// Open before the trace and met during it.
    pub found_open: u64,
    /// Closed during the trace.
    pub closed: u64,
    /// Open when the trace ended.
    pub open_at_end: u64,
    /// Most open at one time.
    pub open_max: u64,
    /// Left HTTP for another protocol (such as WebSocket).
    pub upgraded: u64,
    /// Opened by the traced processes to others.
    pub connected: u64,
}

/// What could not be read as HTTP, in counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// Request heads that could not be parsed.
    pub malformed_requests: u64,
    /// Response heads that could not be parsed.
    pub malformed_responses: u64,
    /// Responses whose request was not seen.
    pub unmatched_responses: u64,
    /// Accepted connections that carried something else, in the clear or as the
    /// plaintext of TLS.
    pub not_http_connections: u64,
    /// Accepted connections that carried TLS.
    pub tls_connections: u64,
    /// Those of them whose plaintext was not seen: no message came, or no TLS
    /// library could be probed.
    pub tls_unread_connections: u64,
}

/// Allocations that belong to no request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unattributed {
    /// Their requested bytes.
    pub alloc_bytes: u64,
    /// Their number.
    pub alloc_count: u64,
    /// Of their bytes, not freed when the trace ended.
    pub live_bytes: u64,
    /// Their part of all allocated bytes, 0 to 1.
    pub share_of_alloc: f64,
    /// The same by reason; the sums equal the figures above.
    pub by_reason: BTreeMap<String, ReasonTotals>,
    /// What the reason `ambiguous` is made of, most bytes first.
    #[serde(default)]
    pub ambiguous: Vec<Ambiguous>,
    /// Figures that say too little, by the names of their fields: the runtime
    /// does not tell all that they should hold.
    #[serde(default)]
    pub incomplete: Vec<String>,
}

/// Allocations on whose request two rules disagree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ambiguous {
    /// The endpoints of the requests in question, such as `GET /users/{id}`.
    pub candidates: Vec<String>,
    /// Their requested bytes.
    pub alloc_bytes: u64,
    /// Their number.
    pub alloc_count: u64,
}

/// The unattributed allocations of one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReasonTotals {
    /// Their requested bytes.
    pub alloc_bytes: u64,
    /// Their number.
    pub alloc_count: u64,
    /// Of their bytes, not freed when the trace ended.
    pub live_bytes: u64,
    /// Their part of all allocated bytes, 0 to 1.
    pub share_of_alloc: f64,
}

/// One conclusion of the analysis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What sort of conclusion, for programs, such as `growth`.
    pub kind: String,
    /// The conclusion in words.
    pub text: String,
}

impl Report {
    /// A report of nothing: no process, no request.
    pub fn empty() -> Report {
        Report {
            schema: SCHEMA.to_string(),
            capture: Capture {
                observed_fraction: 1.0,
                ..Capture::default()
            },
            totals: Totals::default(),
            processes: Vec::new(),
            endpoints: Vec::new(),
            connections: Connections::default(),
            http: Http::default(),
            unattributed: Unattributed::default(),
            findings: Vec::new(),
        }
    }
}

/// `total / count` as reports carry it: rounded to three decimals, 0 for no
/// count.
pub fn mean(total: u64, count: u64) -> f64 {
    rounded(total as f64 / count as f64, 1e3)
}

/// `part / whole` as reports carry it: rounded to six decimals, 0 for no
/// whole.
pub fn share(part: u64, whole: u64) -> f64 {
    rounded(part as f64 / whole as f64, 1e6)
}

/// `count` per second over `duration_ns`, rounded to three decimals, 0 for no
/// duration.
pub fn per_second(count: u64, duration_ns: u64) -> f64 {
    rounded(count as f64 * 1e9 / duration_ns as f64, 1e3)
}

/// A finite number with so few digits that any JSON reader returns the same:
/// a parser that is not exact in the last bit still is below 2^53 digits'
/// worth, so what does not fit there is rounded to a whole number.
fn rounded(value: f64, steps: f64) -> f64 {
    const EXACT_MAX: f64 = (1_u64 << 53) as f64;
    if !value.is_finite() {
        0.0
    } else if value.abs() * steps < EXACT_MAX {
        (value * steps).round() / steps
    } else {
        value.round()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_finite_and_rounded() {
        assert_eq!(mean(10, 3), 3.333);
        assert_eq!(mean(10, 0), 0.0);
        assert_eq!(mean(0, 0), 0.0);
        assert_eq!(mean(u64::MAX, 1), u64::MAX as f64);
        assert_eq!(share(1, 3), 0.333333);
        assert_eq!(share(1, 0), 0.0);
        assert_eq!(per_second(12_000, 30_000_000_000), 400.0);
        assert_eq!(per_second(12_000, 0), 0.0);
    }

    #[test]
    fn the_sample_adds_up() {
        // The sample stands for real reports in every other test, so it must
        // keep the promise that no byte is in two places or in none.
        let report = sample::report();
        let of_endpoints: u64 = report.endpoints.iter().map(|e| e.alloc_bytes.total).sum();
        let of_reasons: u64 = report
            .unattributed
            .by_reason
            .values()
            .map(|r| r.alloc_bytes)
            .sum();
        let of_processes: u64 = report.processes.iter().map(|p| p.alloc_bytes).sum();
        assert_eq!(of_reasons, report.unattributed.alloc_bytes);
        assert_eq!(of_endpoints + of_reasons, report.totals.alloc_bytes);
        assert_eq!(of_processes, report.totals.alloc_bytes);
        let requests: u64 = report.endpoints.iter().map(|e| e.requests).sum();
        assert_eq!(requests, report.totals.requests);
    }
}
