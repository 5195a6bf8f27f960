//! A report of an imagined server, for the tests of everything that reads
//! reports. It has what real ones have: several processes and endpoints,
//! failures, a leak, unattributed bytes; and nothing lost.

use super::*;

/// A distribution with plausible percentiles around a mean.
pub(crate) fn around(total: u64, count: u64) -> Distribution {
    let middle = total.checked_div(count).unwrap_or(0);
    Distribution {
        total,
        mean: mean(total, count),
        p50: middle,
        p90: middle.saturating_add(middle / 4),
        p99: middle.saturating_add(middle / 2),
        max: middle.saturating_mul(2),
        ci95: None,
    }
}

/// An endpoint whose requests each allocate `bytes` in `count` blocks.
pub(crate) fn endpoint(method: &str, route: &str, requests: u64, bytes: u64) -> Endpoint {
    let count = 80;
    Endpoint {
        protocol: "http/1".into(),
        method: method.into(),
        route: route.into(),
        requests,
        observed: requests,
        in_flight: 0,
        outcomes: Outcomes {
            complete: requests,
            ..Outcomes::default()
        },
        status: BTreeMap::from([("200".into(), requests)]),
        share_of_alloc: 0.0,
        alloc_bytes: around(requests * bytes, requests),
        alloc_count: around(requests * count, requests),
        peak_bytes: around(requests * bytes / 3, requests),
        retained_bytes: around(0, requests),
        duration_ns: around(requests * 1_250_000, requests),
        request_bytes: around(requests * 118, requests),
        response_bytes: around(requests * 2_310, requests),
        free_bytes: requests * bytes,
        free_count: requests * count,
        attribution: [(
            "received".to_owned(),
            Attribution {
                alloc_bytes: requests * bytes,
                alloc_count: requests * count,
            },
        )]
        .into(),
        stacks: Vec::new(),
        types: Vec::new(),
        incomplete: Vec::new(),
    }
}

/// Sets totals and shares to what the endpoints and reasons add up to.
pub(crate) fn settle(report: &mut Report) {
    let by_reason = report.unattributed.by_reason.values();
    report.unattributed.alloc_bytes = by_reason.clone().map(|r| r.alloc_bytes).sum();
    report.unattributed.alloc_count = by_reason.clone().map(|r| r.alloc_count).sum();
    report.unattributed.live_bytes = by_reason.map(|r| r.live_bytes).sum();
    let endpoints = report.endpoints.iter();
    let bytes: u64 = endpoints.clone().map(|e| e.alloc_bytes.total).sum();
    let count: u64 = endpoints.clone().map(|e| e.alloc_count.total).sum();
    report.totals.requests = endpoints.map(|e| e.requests).sum();
    report.totals.requests_per_second =
        per_second(report.totals.requests, report.capture.duration_ns);
    let all = bytes + report.unattributed.alloc_bytes;
    report.totals.alloc_bytes = all;
    report.totals.alloc_count = count + report.unattributed.alloc_count;
    for endpoint in &mut report.endpoints {
        endpoint.share_of_alloc = share(endpoint.alloc_bytes.total, all);
    }
    for reason in report.unattributed.by_reason.values_mut() {
        reason.share_of_alloc = share(reason.alloc_bytes, all);
    }
    report.unattributed.share_of_alloc = share(report.unattributed.alloc_bytes, all);
    report
        .endpoints
        .sort_by_key(|e| std::cmp::Reverse(e.alloc_bytes.total));
}

/// Thirty seconds of a Python server with two workers, one of whose endpoints
/// leaks.
pub(crate) fn report() -> Report {
    let mut leak = endpoint("POST", "/orders", 1_200, 86_016);
    leak.retained_bytes = around(1_200 * 4_096, 1_200);
    leak.free_bytes -= 1_200 * 4_096;
    leak.free_count -= 1_200;
    leak.status = BTreeMap::from([("201".into(), 1_188), ("422".into(), 9), ("500".into(), 2)]);
    leak.in_flight = 1;
    leak.observed = 1_199;
    leak.outcomes.complete = 1_199;
    leak.stacks = vec![Stack {
        alloc_bytes: 1_200 * 4_096,
        alloc_count: 1_200,
        retained_bytes: 1_200 * 4_096,
        frames: vec![
            Frame {
                name: "remember_order".into(),
                file: Some("app/orders.py".into()),
                line: Some(42),
                module: Some("/srv/app/orders.py".into()),
            },
            Frame::default(),
        ],
    }];
    let mut missing = endpoint("GET", "/static/{file}", 310, 9_300);
    missing.status = BTreeMap::from([("200".into(), 290), ("304".into(), 12), ("404".into(), 8)]);
    let reasons = [
        ("startup", 5_400_000, 8_800, 4_100_000),
        ("between_requests", 1_310_720, 4_200, 0),
        ("background_thread", 262_144, 64, 262_144),
        ("not_yet_described", 512, 2, 0),
    ];
    let mut report = Report {
        processes: vec![process(4_101, 4_100), process(4_102, 4_100)],
        endpoints: vec![
            endpoint("GET", "/products/{id}", 8_000, 24_576),
            leak,
            missing,
            endpoint("GET", "/health", 30, 512),
        ],
        connections: Connections {
            accepted: 64,
            found_open: 3,
            closed: 60,
            open_at_end: 7,
            open_max: 16,
            upgraded: 1,
            connected: 12,
        },
        ..Report::empty()
    };
    report.capture = Capture {
        mode: Mode::Exact,
        duration_ns: 30_000_000_000,
        observed_fraction: 1.0,
        events: 1_650_000,
        events_per_second: per_second(1_650_000, 30_000_000_000),
        lost: Lost::default(),
        overhead: Overhead {
            estimate: Some(0.034),
            budget: None,
        },
        truncated: false,
        damage: None,
        kernel: "6.1.0-37-amd64".into(),
        why_ended: "the time given with --duration was up".into(),
        retain_ns: 1_000_000_000,
        notes: Vec::new(),
    };
    for (name, alloc_bytes, alloc_count, live_bytes) in reasons {
        report.unattributed.by_reason.insert(
            name.into(),
            ReasonTotals {
                alloc_bytes,
                alloc_count,
                live_bytes,
                share_of_alloc: 0.0,
            },
        );
    }
    settle(&mut report);
    let all = report.totals.clone();
    let live = 1_200 * 4_096 + 4_362_144;
    report.processes[0].alloc_bytes = all.alloc_bytes / 2 + 1_000_000;
    report.processes[1].alloc_bytes = all.alloc_bytes - report.processes[0].alloc_bytes;
    for process in &mut report.processes {
        process.alloc_count = all.alloc_count / 2;
        process.free_count = all.alloc_count / 2 - 600;
        process.free_unknown_count = 35;
        process.live_bytes = live / 2;
        process.free_bytes = process.alloc_bytes - live / 2;
    }
    report.totals.live_bytes = live;
    report.totals.free_bytes = all.alloc_bytes - live;
    report.totals.free_count = all.alloc_count - 1_200;
    report.totals.free_unknown_count = 70;
    report
}

fn process(pid: u32, parent_pid: u32) -> Process {
    Process {
        pid,
        start_ns: 120_000_000_000,
        parent_pid,
        exe: "/usr/bin/python3.11".into(),
        comm: "gunicorn".into(),
        runtime: "cpython 3.11".into(),
        origin: "attached".into(),
        allocators: vec!["glibc (/usr/lib/x86_64-linux-gnu/libc.so.6)".into()],
        ..Process::default()
    }
}

/// The same with losses, a damaged file, a process that could not be probed
/// and something to conclude.
pub(crate) fn troubled() -> Report {
    let mut report = report();
    report.capture.lost = Lost {
        total: 1_234,
        by_cause: BTreeMap::from([
            ("ring_full_alloc".into(), 1_200),
            ("threads_full".into(), 4),
            ("new_cause".into(), 30),
        ]),
    };
    report.capture.truncated = true;
    report.capture.damage = Some("chunk 17 is cut short at byte 52,113".into());
    report.capture.why_ended = String::new();
    report.capture.notes = vec!["Two tracers watched pid 4101 at once.".into()];
    report.http.malformed_requests = 3;
    report.http.not_http_connections = 5;
    report.processes[1].trouble = vec!["no allocator was found: the file is stripped".into()];
    report.findings = vec![Finding {
        kind: "growth".into(),
        text: "POST /orders keeps 4.00 KiB of every request.".into(),
    }];
    report
}
