//! Reports as they look, at the widths that matter.

use super::*;
use crate::output::text;
use crate::report::sample;
use crate::report::{Process, ReasonTotals};

fn shown(report: &Report, options: &TableOptions) -> String {
    let mut out = Vec::new();
    write(report, options, &mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("text is UTF-8")
}

fn at(width: u16) -> TableOptions {
    TableOptions {
        width,
        ..TableOptions::default()
    }
}

#[test]
fn a_clean_report_at_100_columns() {
    let expected = "\
Traced     /usr/bin/python3.11 (pids 4101, 4102; glibc)
Measured   30.0 s, every event, overhead about 3.4%
Requests   9,540 (318/s)
Allocated  295 MiB in 776,266 allocations; 8.85 MiB of it still live
Ended      the time given with --duration was up

                                ALLOC/REQ  ALLOC/REQ  RETAINED      PEAK     ALLOC
ENDPOINT              REQUESTS       MEAN        P99      MEAN       P99     TOTAL  SHARE
GET /products/{id}       8,000   24.0 KiB   36.0 KiB       0 B  12.0 KiB   188 MiB  63.5%
POST /orders             1,200   84.0 KiB    126 KiB  4.00 KiB  42.0 KiB  98.4 MiB  33.3%
  500×2 422×9
  in-flight×1
GET /static/{file}         310   9.08 KiB   13.6 KiB       0 B  4.54 KiB  2.75 MiB   0.9%
  404×8 304×12
GET /health                 30      512 B      768 B       0 B     255 B  15.0 KiB  <0.1%
By bytes. ALLOC, RETAINED and PEAK are bytes per request: all it asked for; what still lived 1.00 s
after it ended; the most it held at once. Under a name: statuses other than 2xx; requests cut short,
unanswered, in flight.

WITHOUT A REQUEST  6.65 MiB in 13,066 allocations, 2.3% of all bytes
REASON                BYTES  ALLOCS      LIVE  SHARE  ALLOCATED
startup            5.15 MiB   8,800  3.91 MiB   1.7%  by a process that the trace saw start, before
                                                      its first message
between_requests   1.25 MiB   4,200       0 B   0.4%  by a serving thread that had no request at
                                                      that time
background_thread   256 KiB      64   256 KiB   0.1%  by a thread that took part in no connection
not_yet_described     512 B       2       0 B  <0.1%

 PID  ALLOCATED   ALLOCS    FREES      LIVE  PROGRAM, RUNTIME, ALLOCATORS
4101    149 MiB  388,133  387,533  4.42 MiB  /usr/bin/python3.11, cpython 3.11, glibc
4102    147 MiB  388,133  387,533  4.42 MiB  /usr/bin/python3.11, cpython 3.11, glibc
Allocator: glibc (/usr/lib/x86_64-linux-gnu/libc.so.6)

Connections: 64 accepted, 3 open before the trace, 60 closed, 7 open at the end, 16 at most at once,
  1 upgraded, 12 opened to others.
";
    assert_eq!(shown(&sample::report(), &at(100)), expected);
}

#[test]
fn a_troubled_report_at_80_columns() {
    let expected = "\
LOSS: 1,234 events were not seen. The figures below are incomplete: bytes and
  requests may be missing, and what was freed unseen counts as live.
  1,200 ring_full_alloc: allocator events came faster than they could be read
  30 new_cause
  4 threads_full: more threads than there is room for
TRUNCATED: the capture ends early (chunk 17 is cut short at byte 52,113). What
  came before is reported.
PARTLY SEEN: pid 4102: no allocator was found: the file is stripped.

Traced     /usr/bin/python3.11 (pids 4101, 4102; glibc)
Measured   30.0 s, every event, overhead about 3.4%
Requests   9,540 (318/s)
Allocated  295 MiB in 776,266 allocations; 8.85 MiB of it still live
Note       Two tracers watched pid 4101 at once.

                                ALLOC/REQ  ALLOC/REQ  RETAINED      PEAK
ENDPOINT              REQUESTS       MEAN        P99      MEAN       P99  SHARE
GET /products/{id}       8,000   24.0 KiB   36.0 KiB       0 B  12.0 KiB  63.5%
POST /orders             1,200   84.0 KiB    126 KiB  4.00 KiB  42.0 KiB  33.3%
  500×2 422×9
  in-flight×1
… and 2 more endpoints (2.76 MiB)
By bytes. ALLOC, RETAINED and PEAK are bytes per request: all it asked for; what
still lived 1.00 s after it ended; the most it held at once. Under a name:
statuses other than 2xx; requests cut short, unanswered, in flight.

FINDINGS
- POST /orders keeps 4.00 KiB of every request.

WITHOUT A REQUEST  6.65 MiB in 13,066 allocations, 2.3% of all bytes
REASON                BYTES  ALLOCS      LIVE  SHARE  ALLOCATED
startup            5.15 MiB   8,800  3.91 MiB   1.7%  by a process that the
                                                      trace saw start, before
                                                      its first message
between_requests   1.25 MiB   4,200       0 B   0.4%  by a serving thread that
                                                      had no request at that
                                                      time
background_thread   256 KiB      64   256 KiB   0.1%  by a thread that took part
                                                      in no connection
not_yet_described     512 B       2       0 B  <0.1%

 PID  ALLOCATED   ALLOCS    FREES      LIVE  PROGRAM, RUNTIME, ALLOCATORS
4101    149 MiB  388,133  387,533  4.42 MiB  /usr/bin/python3.11, cpython 3.11,
                                             glibc
4102    147 MiB  388,133  387,533  4.42 MiB  /usr/bin/python3.11, cpython 3.11,
                                             glibc
Allocator: glibc (/usr/lib/x86_64-linux-gnu/libc.so.6)

Connections: 64 accepted, 3 open before the trace, 60 closed, 7 open at the end,
  16 at most at once, 1 upgraded, 12 opened to others.
Not read: 3 malformed request heads, 5 connections that carried no HTTP/1.
";
    let options = TableOptions {
        top: Some(2),
        ..at(80)
    };
    assert_eq!(shown(&sample::troubled(), &options), expected);
}

#[test]
fn a_report_of_nothing_says_what_to_check() {
    let expected = "\
Traced     no process
Measured   0 ns, every event
Requests   0 (0/s)
Allocated  0 B in 0 allocations; 0 B of it still live

NO HTTP REQUEST WAS SEEN
- No connection was seen: was there traffic, and do these processes serve it? `ss -ltnp` shows which
  process listens on which port.
- If clients speak HTTP/2 to these processes: it is not read yet.
- `memtrace doctor --pid N` tells what can be seen of a process.

WITHOUT A REQUEST  0 B in 0 allocations, 0% of all bytes

Connections: 0 accepted.
";
    assert_eq!(shown(&Report::empty(), &at(100)), expected);

    let mut unread = Report::empty();
    unread.connections.accepted = 5;
    unread.http.not_http_connections = 5;
    let text = shown(&unread, &at(100));
    assert!(text.contains("- 5 connections carried no HTTP/1. HTTP/2 is not read yet"));
    assert!(!text.contains("No connection was seen"));
}

#[test]
fn the_order_and_the_number_of_rows_are_the_readers() {
    let options = TableOptions {
        sort: Sort::Requests,
        top: Some(1),
        ..at(100)
    };
    let text = shown(&sample::report(), &options);
    assert!(text.contains("GET /products/{id}"));
    assert!(!text.contains("POST /orders"));
    assert!(text.contains("\n… and 3 more endpoints (101 MiB)\nBy requests. "));
    let options = TableOptions {
        top: Some(3),
        ..options
    };
    assert!(shown(&sample::report(), &options).contains("… and 1 more endpoint (15.0 KiB)"));
    let options = TableOptions {
        top: Some(0),
        ..options
    };
    assert!(shown(&sample::report(), &options).contains("… and 4 more endpoints (289 MiB)"));
    let options = TableOptions {
        top: Some(4),
        ..options
    };
    assert!(!shown(&sample::report(), &options).contains("… and"));
}

/// Whatever the figures and names, no line is wider than the terminal.
#[test]
fn nothing_is_wider_than_the_terminal() {
    let mut report = sample::troubled();
    for route in ["/a".repeat(300), "/漢字".repeat(90), "/e\u{301}".repeat(50)] {
        report
            .endpoints
            .push(sample::endpoint("GET", &route, 3, 100));
    }
    report.processes[0].exe = "/opt/long path/".repeat(20);
    report.capture.why_ended = "the target ended; ".repeat(20);
    for width in [80, 81, 93, 100, 120, 140, 200] {
        for sort in Sort::ALL {
            let options = TableOptions { sort, ..at(width) };
            for line in shown(&report, &options).lines() {
                assert!(text::width(line) <= usize::from(width), "{width}: {line}");
            }
        }
    }
    // Widths that no terminal has do no harm.
    for width in [0, 1, 39, u16::MAX] {
        assert!(shown(&report, &at(width)).contains("ENDPOINT"));
    }
}

#[test]
fn a_long_route_keeps_both_ends() {
    let mut report = sample::report();
    report.endpoints[0].route = "/api/v1/organisations/{id}/projects/{id}/export".into();
    let text = shown(&report, &at(80));
    assert!(text.contains("\nGET /api/v…id}/export "), "{text}");
    let text = shown(&report, &at(140));
    assert!(text.contains("GET /api/v1/organisations/{id}/projects/{id}/export "));
}

#[test]
fn the_largest_numbers_are_shown() {
    let mut report = sample::report();
    let most = sample::around(u64::MAX, 1);
    let endpoint = &mut report.endpoints[0];
    endpoint.requests = u64::MAX;
    endpoint.alloc_bytes = most.clone();
    endpoint.alloc_count = most.clone();
    endpoint.duration_ns = most;
    endpoint.share_of_alloc = 1.0;
    report.endpoints[1].alloc_bytes.total = u64::MAX;
    report.totals.alloc_bytes = u64::MAX;
    report.capture.duration_ns = u64::MAX;
    let options = TableOptions {
        top: Some(0),
        ..at(200)
    };
    assert!(shown(&report, &options).contains("… and 4 more endpoints (16.0 EiB)"));
    let text = shown(&report, &at(200));
    assert!(text.contains("18,446,744,073,709,551,615"));
    assert!(text.contains("Allocated  16.0 EiB in"));
    assert!(text.contains("5,124,095 h 35 m"));
}

/// A client chooses paths and methods: none of them may reach the terminal as
/// more than text.
#[test]
fn hostile_text_is_only_text() {
    let hostile = "\x1b]0;owned\x07\x1b[2J\r\n\u{9b}31m\u{202e}\u{200f}\0";
    let mut report = sample::troubled();
    let name = || hostile.to_string();
    let endpoint = &mut report.endpoints[0];
    endpoint.method = name();
    endpoint.route = name();
    endpoint.status.insert(name(), 3);
    report.capture.why_ended = name();
    report.capture.damage = Some(name());
    report.capture.notes = vec![name()];
    report.capture.lost.by_cause.insert(name(), 1);
    report.findings[0].text = name();
    let reasons = &mut report.unattributed.by_reason;
    reasons.insert(name(), ReasonTotals::default());
    report.processes.push(Process {
        exe: name(),
        comm: name(),
        runtime: name(),
        allocators: vec![name(), format!("{hostile} (/{hostile})")],
        trouble: vec![name()],
        ..Process::default()
    });
    let text = shown(&report, &at(200));
    assert!(text.contains("\\u{1b}]0;owned\\u{7}"));
    let bad: Vec<char> = text
        .chars()
        .filter(|c| *c != '\n' && (c.is_control() || c.escape_debug().len() > 2))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn colours_only_when_asked_for() {
    let options = TableOptions {
        color: true,
        ..at(100)
    };
    let text = shown(&sample::troubled(), &options);
    assert!(text.starts_with("\x1b[1;31mLOSS: "));
    assert!(text.contains("\x1b[1mWITHOUT A REQUEST\x1b[0m"));
    assert!(!shown(&sample::troubled(), &at(100)).contains('\x1b'));
}

#[test]
fn many_processes_are_summed_up() {
    let mut report = sample::report();
    let one = report.processes[0].clone();
    report.processes = (1..=22)
        .map(|pid| Process {
            pid,
            alloc_bytes: 1_024 * u64::from(pid),
            trouble: vec!["it left before it could be probed".into()],
            ..one.clone()
        })
        .collect();
    let text = shown(&report, &at(100));
    assert!(
        text.contains("\n… and 2 more processes (3.00 KiB)\n"),
        "{text}"
    );
    assert!(text.starts_with(
        "PARTLY SEEN: pids 1, 2, 3, 4, 5, 6 and 16 others: it left before it could be probed."
    ));
}
