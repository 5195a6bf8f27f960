//! What every report promises, whatever was traced.
//!
//! In: a report. Out: nothing, or a panic that names the broken promise. The
//! sums hold as long as no total exceeds 64 bits.

use std::collections::BTreeMap;

use memtrace::output::live::write_plain;
use memtrace::output::table::{self, TableOptions};
use memtrace::output::{Sort, csv, json};
use memtrace::report::{Distribution, Endpoint, Report};

/// Each byte and each block is in one place, and the parts of the report agree.
pub fn adds_up(report: &Report) {
    let Report {
        schema: _,
        capture,
        totals,
        processes,
        endpoints,
        connections,
        http: _,
        unattributed,
        findings: _,
    } = report;
    let of_endpoints = |figure: fn(&Endpoint) -> u64| endpoints.iter().map(figure).sum::<u64>();
    assert_eq!(
        of_endpoints(|endpoint| endpoint.alloc_bytes.total) + unattributed.alloc_bytes,
        totals.alloc_bytes,
        "bytes of endpoints and reasons"
    );
    assert_eq!(
        of_endpoints(|endpoint| endpoint.alloc_count.total) + unattributed.alloc_count,
        totals.alloc_count,
        "blocks of endpoints and reasons"
    );
    assert_eq!(of_endpoints(|e| e.requests), totals.requests, "requests");

    let mut sums = [0; 6];
    for process in processes {
        for (sum, figure) in sums.iter_mut().zip([
            process.alloc_bytes,
            process.alloc_count,
            process.free_bytes,
            process.free_count,
            process.free_unknown_count,
            process.live_bytes,
        ]) {
            *sum += figure;
        }
        assert!(
            process.free_bytes + process.live_bytes <= process.alloc_bytes,
            "a process freed and holds no more than it allocated: {process:?}"
        );
        assert!(process.free_unknown_count <= process.free_count);
        assert!(process.free_count - process.free_unknown_count <= process.alloc_count);
    }
    let [
        alloc_bytes,
        alloc_count,
        free_bytes,
        free_count,
        unknown,
        live_bytes,
    ] = sums;
    assert_eq!(alloc_bytes, totals.alloc_bytes, "bytes of processes");
    assert_eq!(alloc_count, totals.alloc_count, "blocks of processes");
    assert_eq!(free_bytes, totals.free_bytes, "freed bytes of processes");
    assert_eq!(free_count, totals.free_count, "frees of processes");
    assert_eq!(unknown, totals.free_unknown_count);
    assert!(totals.live_bytes <= live_bytes, "ended processes hold none");

    let mut sums = [0; 3];
    for (reason, of_reason) in &unattributed.by_reason {
        assert!(of_reason.live_bytes <= of_reason.alloc_bytes, "{reason}");
        sums[0] += of_reason.alloc_bytes;
        sums[1] += of_reason.alloc_count;
        sums[2] += of_reason.live_bytes;
    }
    let ambiguous = unattributed.by_reason.get("ambiguous");
    assert_eq!(
        unattributed
            .ambiguous
            .iter()
            .map(|a| a.alloc_bytes)
            .sum::<u64>(),
        ambiguous.map_or(0, |reason| reason.alloc_bytes),
        "bytes that are disputed"
    );
    assert_eq!(sums[0], unattributed.alloc_bytes, "bytes of reasons");
    assert_eq!(sums[1], unattributed.alloc_count, "blocks of reasons");
    assert_eq!(sums[2], unattributed.live_bytes, "live bytes of reasons");
    assert!(
        unattributed.live_bytes <= live_bytes,
        "{} bytes of no request are live, {live_bytes} of all",
        unattributed.live_bytes
    );

    assert_eq!(
        connections.accepted + connections.found_open + connections.connected,
        connections.closed + connections.open_at_end,
        "connections that were met are open or closed"
    );
    assert!(connections.open_max >= connections.open_at_end);
    assert_eq!(
        capture.lost.by_cause.values().sum::<u64>(),
        capture.lost.total
    );
    assert_eq!(capture.truncated, capture.damage.is_some());
    endpoints.iter().for_each(endpoint_adds_up);
    let names: BTreeMap<_, _> = endpoints
        .iter()
        .map(|endpoint| ((&endpoint.protocol, &endpoint.method, &endpoint.route), ()))
        .collect();
    assert_eq!(names.len(), endpoints.len(), "an endpoint is in one row");
}

fn endpoint_adds_up(endpoint: &Endpoint) {
    let by_rule = endpoint.attribution.values();
    assert_eq!(
        by_rule.clone().map(|rule| rule.alloc_bytes).sum::<u64>(),
        endpoint.alloc_bytes.total,
        "bytes by rule"
    );
    assert_eq!(
        by_rule.map(|rule| rule.alloc_count).sum::<u64>(),
        endpoint.alloc_count.total,
        "blocks by rule"
    );
    let outcomes = &endpoint.outcomes;
    assert_eq!(
        outcomes.ended_by_client + outcomes.ended_by_server + outcomes.ended_by_process_end,
        outcomes.aborted + outcomes.no_response,
        "who ended requests"
    );
    let ended = outcomes.complete + outcomes.aborted + outcomes.no_response;
    assert_ne!(endpoint.requests, 0, "{endpoint:?}");
    assert_eq!(ended + endpoint.in_flight, endpoint.requests);
    assert!(endpoint.observed <= ended);
    assert!(endpoint.status.values().sum::<u64>() <= endpoint.requests);
    assert!(endpoint.free_bytes <= endpoint.alloc_bytes.total);
    assert!(endpoint.free_count <= endpoint.alloc_count.total);
    let Endpoint {
        alloc_bytes,
        alloc_count,
        peak_bytes,
        retained_bytes,
        duration_ns,
        request_bytes,
        response_bytes,
        ..
    } = endpoint;
    for distribution in [
        alloc_bytes,
        alloc_count,
        peak_bytes,
        retained_bytes,
        duration_ns,
        request_bytes,
        response_bytes,
    ] {
        let Distribution {
            total,
            mean: _,
            p50,
            p90,
            p99,
            max,
            ci95: _,
        } = distribution;
        assert!(p50 <= p90 && p90 <= p99 && p99 <= max, "{distribution:?}");
        assert!(max <= total, "{distribution:?}");
    }
    // Held at one time is at most what was allocated, if all of that is known;
    // retained is held.
    if !endpoint.incomplete.contains(&"alloc_bytes".to_owned()) {
        assert!(peak_bytes.max <= alloc_bytes.max, "{endpoint:?}");
        assert!(peak_bytes.total <= alloc_bytes.total, "{endpoint:?}");
    }
    assert!(retained_bytes.max <= peak_bytes.max, "{endpoint:?}");
    assert!(retained_bytes.total <= peak_bytes.total, "{endpoint:?}");
    assert!(
        retained_bytes.total + endpoint.free_bytes <= alloc_bytes.total,
        "{endpoint:?}"
    );
}

/// The report as JSON.
pub fn to_json(report: &Report) -> String {
    let mut bytes = Vec::new();
    json::write(report, &mut bytes).expect("a vector takes everything");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// Every output takes the report, says nothing that a terminal would obey, and
/// the JSON can be read back. Returns the JSON.
pub fn prints(report: &Report) -> String {
    let json = to_json(report);
    harmless(&json);
    assert_eq!(&json::parse(&json).expect("our own JSON"), report);

    let mut rows = Vec::new();
    csv::write(report, &mut rows).expect("a vector takes everything");
    harmless(std::str::from_utf8(&rows).expect("CSV is UTF-8"));
    let lines = rows.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines > report.endpoints.len(), "a head and every endpoint");

    for (sort, width) in Sort::ALL
        .into_iter()
        .zip([0, 40, 60, 79, 80, 100, 120, 200, u16::MAX])
    {
        let options = TableOptions {
            sort,
            top: (width % 3 == 0).then_some(1),
            width,
            color: false,
        };
        let mut text = Vec::new();
        table::write(report, &options, &mut text).expect("a vector takes everything");
        write_plain(report, &options, &mut text).expect("a vector takes everything");
        harmless(std::str::from_utf8(&text).expect("tables are UTF-8"));
    }
    json
}

fn harmless(text: &str) {
    for c in text.chars() {
        assert!(
            c == '\n' || !c.is_control(),
            "a control character in {text:?}"
        );
    }
}
