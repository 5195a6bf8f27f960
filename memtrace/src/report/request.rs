//! One request by itself, for those who want more than sums and quantiles.
//! Shape alone, as the rest of the report.

/// One request whose figures are final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// Its number in the trace, in the order of first bytes, from 0.
    pub request: u32,
    /// The number of its connection in the trace, from 0.
    pub connection: u32,
    /// The process that received it.
    pub pid: Option<u32>,
    /// Protocol, as in the endpoints.
    pub protocol: String,
    /// Method.
    pub method: String,
    /// Route template.
    pub route: String,
    /// Status of the response, if one was seen.
    pub status: Option<u16>,
    /// `complete`, `aborted`, `no_response`, or `in_flight` if the trace ended
    /// first.
    pub outcome: &'static str,
    /// Who ended it if it is not complete: `client`, `server` or `process_end`.
    pub ended_by: Option<&'static str>,
    /// When its first byte arrived, ns; all rows share the origin.
    pub begin_ns: u64,
    /// From the first byte received to the last byte sent, ns; `None` in flight.
    pub duration_ns: Option<u64>,
    /// Bytes received for it; `None` in flight.
    pub request_bytes: Option<u64>,
    /// Bytes sent for it; `None` in flight.
    pub response_bytes: Option<u64>,
    /// Requested bytes allocated for it.
    pub alloc_bytes: u64,
    /// Allocations of those.
    pub alloc_count: u64,
    /// Largest live sum, bytes.
    pub peak_bytes: u64,
    /// Bytes live when the retention time was over.
    pub retained_bytes: u64,
    /// Of the allocated bytes, how many by each rule of attribution.
    pub attribution: Vec<(&'static str, u64)>,
}
