//! The orders in which endpoints can be shown.
//!
//! In: endpoints and an order. Out: references in that order. It moves nothing
//! and drops nothing.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::report::Endpoint;

/// An order of endpoints: largest first, except by name. Ties go by name, so
/// an order is always the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Bytes allocated in total.
    #[default]
    Bytes,
    /// Bytes allocated by a request, mean.
    Mean,
    /// Bytes allocated by a request, 99th percentile.
    P99,
    /// Bytes retained by a request, mean.
    Retained,
    /// Most bytes held by a request, 99th percentile.
    Peak,
    /// Number of requests.
    Requests,
    /// Duration of a request, mean.
    Duration,
    /// Allocations of a request, mean.
    Count,
    /// Route, then method, then protocol, alphabetically.
    Name,
}

impl Sort {
    /// Every order, as the live view goes through them.
    pub const ALL: [Sort; 9] = [
        Sort::Bytes,
        Sort::Mean,
        Sort::P99,
        Sort::Retained,
        Sort::Peak,
        Sort::Requests,
        Sort::Duration,
        Sort::Count,
        Sort::Name,
    ];

    /// What the order is called on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Sort::Bytes => "bytes",
            Sort::Mean => "mean",
            Sort::P99 => "p99",
            Sort::Retained => "retained",
            Sort::Peak => "peak",
            Sort::Requests => "requests",
            Sort::Duration => "duration",
            Sort::Count => "count",
            Sort::Name => "name",
        }
    }

    /// The order after this one, the first after the last.
    pub fn next(self) -> Sort {
        self.step(1)
    }

    /// The order before this one, the last before the first.
    pub fn previous(self) -> Sort {
        self.step(Sort::ALL.len() - 1)
    }

    fn step(self, by: usize) -> Sort {
        let here = Sort::ALL.iter().position(|s| *s == self).unwrap_or(0);
        Sort::ALL[(here + by) % Sort::ALL.len()]
    }

    /// The endpoints in this order, or in the opposite one.
    pub fn order(self, endpoints: &[Endpoint], reverse: bool) -> Vec<&Endpoint> {
        let mut ordered: Vec<&Endpoint> = endpoints.iter().collect();
        ordered.sort_by(|a, b| {
            let by_key = self.compare(a, b);
            let by_key = if reverse { by_key.reverse() } else { by_key };
            by_key.then_with(|| by_name(a, b))
        });
        ordered
    }

    fn compare(self, a: &Endpoint, b: &Endpoint) -> Ordering {
        match self {
            Sort::Bytes => b.alloc_bytes.total.cmp(&a.alloc_bytes.total),
            Sort::Mean => b.alloc_bytes.mean.total_cmp(&a.alloc_bytes.mean),
            Sort::P99 => b.alloc_bytes.p99.cmp(&a.alloc_bytes.p99),
            Sort::Retained => b.retained_bytes.mean.total_cmp(&a.retained_bytes.mean),
            Sort::Peak => b.peak_bytes.p99.cmp(&a.peak_bytes.p99),
            Sort::Requests => b.requests.cmp(&a.requests),
            Sort::Duration => b.duration_ns.mean.total_cmp(&a.duration_ns.mean),
            Sort::Count => b.alloc_count.mean.total_cmp(&a.alloc_count.mean),
            Sort::Name => by_name(a, b),
        }
    }
}

fn by_name(a: &Endpoint, b: &Endpoint) -> Ordering {
    (&a.route, &a.method, &a.protocol).cmp(&(&b.route, &b.method, &b.protocol))
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSort(String);

impl fmt::Display for UnknownSort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Sort::ALL.map(Sort::name).join(", ");
        write!(f, "cannot sort by {:?}; give one of: {names}", self.0)
    }
}

impl std::error::Error for UnknownSort {}

impl FromStr for Sort {
    type Err = UnknownSort;

    fn from_str(word: &str) -> Result<Sort, UnknownSort> {
        Sort::ALL
            .into_iter()
            .find(|sort| sort.name() == word)
            .ok_or_else(|| UnknownSort(word.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn routes(sort: Sort, reverse: bool) -> Vec<String> {
        let mut report = sample::report();
        // Each order must be told apart from the others by one endpoint.
        let find = |route: &str| {
            report
                .endpoints
                .iter()
                .position(|e| e.route == route)
                .expect("an endpoint of the sample")
        };
        let (health, file) = (find("/health"), find("/static/{file}"));
        report.endpoints[health].duration_ns.mean = 9e9;
        report.endpoints[health].peak_bytes.p99 = 1 << 40;
        report.endpoints[file].alloc_count.mean = 1e6;
        report.endpoints[file].alloc_bytes.p99 = 1 << 40;
        sort.order(&report.endpoints, reverse)
            .iter()
            .map(|e| e.route.clone())
            .collect()
    }

    #[test]
    fn each_order_puts_its_largest_first() {
        for (sort, first) in [
            (Sort::Bytes, "/products/{id}"),
            (Sort::Mean, "/orders"),
            (Sort::P99, "/static/{file}"),
            (Sort::Retained, "/orders"),
            (Sort::Peak, "/health"),
            (Sort::Requests, "/products/{id}"),
            (Sort::Duration, "/health"),
            (Sort::Count, "/static/{file}"),
            (Sort::Name, "/health"),
        ] {
            assert_eq!(routes(sort, false)[0], first, "by {sort}");
        }
        assert_eq!(
            routes(Sort::Bytes, true),
            ["/health", "/static/{file}", "/orders", "/products/{id}"]
        );
    }

    #[test]
    fn equal_endpoints_go_by_name_in_both_directions() {
        let endpoints = [
            sample::endpoint("PUT", "/a", 1, 8),
            sample::endpoint("GET", "/b", 1, 8),
            sample::endpoint("GET", "/a", 1, 8),
        ];
        for reverse in [false, true] {
            let names: Vec<String> = Sort::Bytes
                .order(&endpoints, reverse)
                .iter()
                .map(|e| format!("{} {}", e.method, e.route))
                .collect();
            assert_eq!(names, ["GET /a", "PUT /a", "GET /b"]);
        }
    }

    #[test]
    fn every_name_is_read_back_and_the_cycle_closes() {
        let mut sort = Sort::default();
        for expected in Sort::ALL {
            assert_eq!(sort, expected);
            assert_eq!(sort.name().parse(), Ok(sort));
            assert_eq!(sort.next().previous(), sort);
            sort = sort.next();
        }
        assert_eq!(sort, Sort::default());
        let error = "size".parse::<Sort>().unwrap_err().to_string();
        assert!(
            error.contains("\"size\"") && error.contains("retained"),
            "{error}"
        );
    }
}
