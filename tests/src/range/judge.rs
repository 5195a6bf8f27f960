//! What memtrace got right, request by request.
//!
//! In: what was sent, what it allocates, memtrace's requests one by one and its
//! report. Out: [`Figures`]. Deliberately not here: bounds.
//!
//! A request is right if memtrace has exactly one of its endpoint, its length
//! on the wire (or, where that changes on the way, its rank among the lengths) and
//! its status, seen to its end. Its bytes are compared with the
//! known ones:
//!
//! - *right*: as many as memtrace gives it, up to the known amount;
//! - *wrong*: what memtrace gives it above the known amount and what the server
//!   itself allocates for such a request, if that is more than [`TOLERANCE`]; and
//!   all that it gives to a request that nobody sent;
//! - the rest of the known amount is *missing*: it is among the wrong bytes of
//!   another request, or among what memtrace gives to none.
//!
//! Where only the extent of a request's heap can be read, what memtrace has for
//! the request's peak takes the place of what it has for its allocations.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::range::drive::Sent;
use crate::range::endpoint::{Plan, Request};
use crate::range::listing::Listed;
use crate::range::{Bytes, Lengths};
use crate::report::{Report, route_covers};

/// The share of an endpoint's typical amount that a request may have above the
/// known one: 2 %.
pub const TOLERANCE: f64 = 0.02;

/// What memtrace got right in one run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Requests sent and answered.
    pub requests: u64,
    /// Of those, found.
    pub requests_right: u64,
    /// Requests that memtrace has and nobody sent.
    pub requests_extra: u64,
    /// Known bytes of all requests.
    pub known_bytes: u64,
    /// Of those, given to the request that allocated them.
    pub right_bytes: u64,
    /// Bytes given to a request that did not allocate them.
    pub wrong_bytes: u64,
    /// All bytes allocated while tracing, by memtrace's count, with the extents of
    /// heaps of which nothing else is known.
    pub alloc_bytes: u64,
    /// Of those, given to no request.
    pub unattributed_bytes: u64,
    /// The same by reason, largest first.
    pub reasons: Vec<(String, u64)>,
    /// The same figures for each endpoint.
    pub endpoints: Vec<EndpointFigures>,
}

/// What memtrace got right of one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointFigures {
    /// Its path, without the amount.
    pub path: String,
    /// Requests sent.
    pub requests: u64,
    /// Of those, found.
    pub requests_right: u64,
    /// What the server itself allocates for a request, by the shim's count.
    pub overhead_bytes: u64,
    /// Known bytes.
    pub known_bytes: u64,
    /// All bytes that memtrace gives to the requests found.
    pub given_bytes: u64,
    /// Right bytes.
    pub right_bytes: u64,
    /// Wrong bytes.
    pub wrong_bytes: u64,
    /// What memtrace says is retained.
    pub retained_bytes: u64,
    /// Requests whose bytes are wrong or missing by more than the tolerance.
    pub requests_off: u64,
}

impl Figures {
    /// Requests found, of those sent and those that nobody sent.
    #[must_use]
    pub fn requests_exact(&self) -> bool {
        self.requests_right == self.requests && self.requests_extra == 0
    }

    /// Right bytes as a share of the known ones; `None` if none are known.
    #[must_use]
    pub fn right_share(&self) -> Option<f64> {
        share(self.right_bytes, self.known_bytes)
    }

    /// Wrong bytes as a share of the known ones; `None` if none are known.
    #[must_use]
    pub fn wrong_share(&self) -> Option<f64> {
        share(self.wrong_bytes, self.known_bytes)
    }

    /// Unattributed bytes as a share of all; `None` if nothing was allocated.
    #[must_use]
    pub fn unattributed_share(&self) -> Option<f64> {
        share(self.unattributed_bytes, self.alloc_bytes)
    }
}

impl Figures {
    /// An error, with the endpoints that are to blame, unless requests are exact
    /// and bytes within bounds: known ones within 2 % for each endpoint whose
    /// allocator is visible, at most 1 % wrong, less than 5 % unattributed.
    pub fn require_bounds(&self, bytes: Bytes) -> anyhow::Result<()> {
        const WRONG_SHARE_MAX: f64 = 0.01;
        const UNATTRIBUTED_SHARE_MAX: f64 = 0.05;
        let mut broken = Vec::new();
        if !self.requests_exact() {
            broken.push(format!(
                "{} of {} requests are right, {} were never sent",
                self.requests_right, self.requests, self.requests_extra
            ));
        }
        let within = |endpoint: &EndpointFigures| {
            let (given, known) = (endpoint.given_bytes as f64, endpoint.known_bytes as f64);
            let overhead = (endpoint.overhead_bytes * endpoint.requests) as f64;
            known == 0.0
                || (given >= known * (1.0 - TOLERANCE)
                    && given <= (known + overhead) * (1.0 + TOLERANCE))
        };
        match bytes {
            Bytes::Libc | Bytes::Runtime | Bytes::Extent => {
                for endpoint in self.endpoints.iter().filter(|endpoint| !within(endpoint)) {
                    broken.push(format!(
                        "{} has {} bytes, which is not within {} % of {} and {} for each of {} \
                         requests",
                        endpoint.path,
                        endpoint.given_bytes,
                        TOLERANCE * 100.0,
                        endpoint.known_bytes,
                        endpoint.overhead_bytes,
                        endpoint.requests,
                    ));
                }
            }
            Bytes::Managed | Bytes::Unknown => {}
        }
        match bytes {
            Bytes::Libc | Bytes::Runtime | Bytes::Managed | Bytes::Extent => {
                let wrong = self.wrong_share().unwrap_or(0.0);
                if wrong > WRONG_SHARE_MAX {
                    broken.push(format!("{:.2} % of bytes are wrong", wrong * 100.0));
                }
                let unattributed = self.unattributed_share().unwrap_or(0.0);
                if unattributed >= UNATTRIBUTED_SHARE_MAX {
                    broken.push(format!(
                        "{:.2} % of bytes are unattributed: {:?}",
                        unattributed * 100.0,
                        self.reasons
                    ));
                }
            }
            Bytes::Unknown => {}
        }
        ensure!(broken.is_empty(), "{}", broken.join("; "));
        Ok(())
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole != 0).then(|| part as f64 / whole as f64)
}

/// Compares.
pub fn judge(
    plan: &Plan,
    sent: &Sent,
    (kind, lengths): (Bytes, Lengths),
    overheads: &[u64],
    listing: &[Listed],
    report: &Report,
) -> anyhow::Result<Figures> {
    let tolerances = tolerances(plan);
    let mut endpoints: Vec<EndpointFigures> = plan
        .endpoints
        .iter()
        .zip(overheads)
        .map(|(endpoint, overhead)| EndpointFigures {
            path: endpoint.path.to_owned(),
            overhead_bytes: *overhead,
            ..EndpointFigures::default()
        })
        .collect();

    for request in &plan.requests {
        endpoints[request.endpoint].requests += 1;
        endpoints[request.endpoint].known_bytes += request.bytes;
    }

    let found = find(plan, sent, lengths, listing);
    let mut extra = 0;
    let mut extra_bytes = 0;
    let mut extent_bytes = 0;
    for (listed, index) in listing.iter().zip(found) {
        let given = match kind {
            Bytes::Libc | Bytes::Runtime | Bytes::Managed | Bytes::Unknown => listed.alloc_bytes,
            Bytes::Extent => {
                extent_bytes += listed.peak_bytes;
                listed.peak_bytes
            }
        };
        let Some(index) = index else {
            extra += 1;
            extra_bytes += given;
            continue;
        };
        let Request {
            endpoint, bytes, ..
        } = plan.requests[index];
        let tolerance = tolerances[endpoint];
        let figures = &mut endpoints[endpoint];
        figures.requests_right += 1;
        figures.given_bytes += given;
        figures.retained_bytes += listed.retained_bytes;
        // An extent has what PHP itself needs in it, which would hide that much.
        let of_request = match kind {
            Bytes::Libc | Bytes::Runtime | Bytes::Managed | Bytes::Unknown => given,
            Bytes::Extent => given.saturating_sub(figures.overhead_bytes),
        };
        figures.right_bytes += of_request.min(bytes);
        let above = given.saturating_sub(bytes + figures.overhead_bytes);
        let below = bytes.saturating_sub(of_request);
        if above > tolerance {
            figures.wrong_bytes += above;
        }
        if above.max(below) > tolerance {
            figures.requests_off += 1;
        }
    }

    let sum = |of: fn(&EndpointFigures) -> u64| endpoints.iter().map(of).sum::<u64>();
    let mut reasons: Vec<(String, u64)> = report.unattributed()?.into_iter().collect();
    reasons.retain(|(_, bytes)| *bytes != 0);
    reasons.sort_by(|(a, a_bytes), (b, b_bytes)| b_bytes.cmp(a_bytes).then(a.cmp(b)));
    Ok(Figures {
        requests: plan.requests.len() as u64,
        requests_right: sum(|figures| figures.requests_right),
        requests_extra: extra,
        known_bytes: plan.known_bytes(),
        right_bytes: sum(|figures| figures.right_bytes),
        wrong_bytes: sum(|figures| figures.wrong_bytes) + extra_bytes,
        alloc_bytes: report.count("/totals/alloc_bytes")? + extent_bytes,
        unattributed_bytes: reasons.iter().map(|(_, bytes)| bytes).sum(),
        reasons,
        endpoints,
    })
}

/// For each request that memtrace has, which one of the plan it is, if any.
fn find(plan: &Plan, sent: &Sent, lengths: Lengths, listing: &[Listed]) -> Vec<Option<usize>> {
    let mut found = vec![None; listing.len()];
    for (number, endpoint) in plan.endpoints.iter().enumerate() {
        // The length on the wire, then the place in the plan.
        let mut planned: Vec<(u64, usize)> = (0..plan.requests.len())
            .filter(|&index| plan.requests[index].endpoint == number)
            .map(|index| (sent.request_bytes[index], index))
            .collect();
        planned.sort_unstable();
        let mut seen: Vec<(u64, usize)> = listing
            .iter()
            .enumerate()
            .filter(|(_, listed)| listed.method == "GET" && listed.complete)
            .filter(|(_, listed)| covers(&listed.route, endpoint.path))
            .filter_map(|(index, listed)| Some((listed.request_bytes?, index)))
            .collect();
        seen.sort_unstable();
        match lengths {
            Lengths::AsSent => {
                let mut planned = planned.into_iter().peekable();
                for (length, listed) in seen {
                    while planned.next_if(|(sent, _)| *sent < length).is_some() {}
                    if let Some((_, index)) = planned.next_if(|(sent, _)| *sent == length) {
                        found[listed] = Some(index);
                    }
                }
            }
            Lengths::InOrder => {
                for ((_, listed), (_, index)) in seen.into_iter().zip(planned) {
                    found[listed] = Some(index);
                }
            }
        }
    }
    for (found, listed) in found.iter_mut().zip(listing) {
        if found.is_some_and(|index| listed.status != Some(sent.statuses[index])) {
            *found = None;
        }
    }
    found
}

/// For each endpoint, the bytes that a request may have above the known ones. An
/// endpoint without a known amount is measured by those that have one.
fn tolerances(plan: &Plan) -> Vec<u64> {
    let mut means: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for request in plan.requests.iter().filter(|request| request.bytes != 0) {
        let (bytes, count) = means.entry(request.endpoint).or_default();
        *bytes += request.bytes;
        *count += 1;
    }
    let typical = means.values().map(|(bytes, count)| bytes / count).max();
    (0..plan.endpoints.len())
        .map(|endpoint| {
            let mean = means.get(&endpoint).map(|(bytes, count)| bytes / count);
            (mean.or(typical).unwrap_or(0) as f64 * TOLERANCE) as u64
        })
        .collect()
}

/// Whether a route is that of an endpoint's requests.
fn covers(route: &str, path: &str) -> bool {
    route_covers(route, path) || route_covers(route, &format!("{path}/0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::endpoint::Endpoint;

    fn run(change: impl FnOnce(&mut Vec<Listed>)) -> anyhow::Result<Figures> {
        run_of(Bytes::Libc, change)
    }

    fn run_of(kind: Bytes, change: impl FnOnce(&mut Vec<Listed>)) -> anyhow::Result<Figures> {
        let plan = Plan::new(
            vec![
                Endpoint::overhead("/plain"),
                Endpoint::asked("/freed", 100_000),
            ],
            4,
        );
        let sent = Sent {
            request_bytes: plan
                .requests
                .iter()
                .map(|r| 160 + r.number as u64)
                .collect(),
            statuses: vec![200; plan.requests.len()],
        };
        let mut listing: Vec<Listed> = plan
            .requests
            .iter()
            .map(|request| Listed {
                method: "GET".into(),
                route: if request.bytes == 0 {
                    "/plain"
                } else {
                    "/freed/{id}"
                }
                .into(),
                status: Some(200),
                complete: true,
                request_bytes: Some(160 + request.number as u64),
                // What a server needs for any request.
                alloc_bytes: request.bytes + 500,
                peak_bytes: 0,
                retained_bytes: 0,
            })
            .collect();
        change(&mut listing);
        let report = Report::parse(
            br#"{"schema":"memtrace.report/1","totals":{"alloc_bytes":500000},
                "unattributed":{"by_reason":{"startup":{"alloc_bytes":5000},
                                             "not_http":{"alloc_bytes":0}}}}"#,
        )?;
        judge(
            &plan,
            &sent,
            (kind, Lengths::AsSent),
            &[500, 500],
            &listing,
            &report,
        )
    }

    #[test]
    fn what_is_right_is_right() -> anyhow::Result<()> {
        let figures = run(|_| ())?;
        assert!(figures.requests_exact());
        assert_eq!(figures.known_bytes, 100_000 + 105_000 + 110_000 + 115_000);
        assert_eq!(figures.right_bytes, figures.known_bytes);
        assert_eq!(figures.wrong_bytes, 0);
        assert_eq!(figures.reasons, [("startup".to_owned(), 5000)]);
        assert_eq!(figures.unattributed_share(), Some(0.01));
        figures.require_bounds(Bytes::Libc)?;
        Ok(())
    }

    /// Two requests of one endpoint with each other's bytes: the endpoint's sum
    /// is right, and still it shows.
    #[test]
    fn bytes_swapped_within_an_endpoint_show() -> anyhow::Result<()> {
        let figures = run(|listing| {
            let mut of_freed = listing
                .iter_mut()
                .filter(|listed| listed.route == "/freed/{id}");
            let (a, b) = (of_freed.next(), of_freed.next());
            if let (Some(a), Some(b)) = (a, b) {
                std::mem::swap(&mut a.alloc_bytes, &mut b.alloc_bytes);
            }
        })?;
        assert!(figures.requests_exact());
        assert!(figures.wrong_bytes >= 5000, "{figures:?}");
        assert_eq!(figures.endpoints[1].requests_off, 2);
        assert!(figures.require_bounds(Bytes::Managed).is_err());
        Ok(())
    }

    /// Of heaps' extents, 115,500 is right where 115,000 is known, and 115,000 is
    /// not all of it.
    #[test]
    fn an_extent_is_judged_by_the_peak() -> anyhow::Result<()> {
        let extend = |listing: &mut Vec<Listed>, missing: u64| {
            for listed in listing {
                listed.peak_bytes = std::mem::take(&mut listed.alloc_bytes);
                listed.peak_bytes -= missing.min(listed.peak_bytes);
            }
        };
        let figures = run_of(Bytes::Extent, |listing| extend(listing, 0))?;
        assert_eq!(figures.right_bytes, figures.known_bytes);
        figures.require_bounds(Bytes::Extent)?;
        let figures = run_of(Bytes::Extent, |listing| extend(listing, 3000))?;
        assert_eq!(figures.right_bytes, figures.known_bytes - 4 * 3000);
        assert_eq!(figures.endpoints[1].requests_off, 4);
        assert!(figures.require_bounds(Bytes::Extent).is_err());
        Ok(())
    }

    #[test]
    fn bytes_of_another_endpoint_show() -> anyhow::Result<()> {
        let figures = run(|listing| {
            let plain = listing.iter_mut().find(|listed| listed.route == "/plain");
            if let Some(plain) = plain {
                plain.alloc_bytes += 100_000;
            }
        })?;
        assert_eq!(figures.wrong_bytes, 100_000);
        assert_eq!(figures.endpoints[0].wrong_bytes, 100_000);
        Ok(())
    }

    #[test]
    fn requests_missed_doubled_or_invented_show() -> anyhow::Result<()> {
        let figures = run(|listing| {
            let doubled = listing[0].clone();
            listing[1].request_bytes = Some(1);
            listing.push(doubled);
        })?;
        assert_eq!((figures.requests_right, figures.requests_extra), (7, 2));
        assert!(!figures.requests_exact());
        assert!(figures.require_bounds(Bytes::Unknown).is_err());
        let figures = run(|listing| listing[0].status = None)?;
        assert_eq!((figures.requests_right, figures.requests_extra), (7, 1));
        Ok(())
    }
}
