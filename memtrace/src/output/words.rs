//! The report's names in plain words, and the sentences that every view for
//! people opens with.
//!
//! In: a report and its names of reasons and causes. Out: sentences, safe to
//! print, without colours.

use std::collections::BTreeMap;

use crate::output::text::{at_least, bytes, count, duration, escape, percent, plural};
use crate::report::{Endpoint, Mode, Process, Report};

/// Pids that are listed by number; of more, only the first ones are.
const PIDS_SHOWN_MAX: usize = 6;

/// Programs and allocators that are listed by name.
const NAMES_SHOWN_MAX: usize = 3;

/// What a reason for not being attributed means; an unknown one is returned
/// as it is.
pub fn reason_text(reason: &str) -> &str {
    match reason {
        "startup" => "by a process that the trace saw start, before its first message",
        "background_thread" => "by a thread that took part in no connection",
        "between_requests" => "by a serving thread that had no request at that time",
        "receive_buffer" => "by a serving thread to receive its next message, before it came",
        "connection_setup" => "for an accepted connection, before a request's first byte",
        "before_first_head" => "by a thread at work when the trace began, before its first message",
        "malformed_head" => "on a connection whose request head could not be parsed",
        "incomplete_head" => "on a connection that closed before its request head was whole",
        "tls_handshake" => "for a TLS session that was being set up",
        "tls_unread" => "on a connection that carries TLS whose plaintext is not seen",
        "several_requests" => {
            "after bytes of several requests had been received at once, and nothing told for which"
        }
        "connection_upkeep" => "for an HTTP/2 connection's own settings, pings and windows",
        "not_http" => "on a connection that carries no readable HTTP",
        "upgraded_connection" => "on a connection that left HTTP, such as a WebSocket",
        "outgoing_connection" => "for a connection the process opened itself, outside any request",
        "connection_closed" => "on a connection that its peer had closed, or that had failed",
        "ended_request" => "for a request whose response had long ended",
        "ambiguous" => "where several requests could be meant and nothing tells which",
        "tasks_untold" => "by a thread amid several requests, whose tasks are not told apart",
        unknown => unknown,
    }
}

/// What a cause of loss means; an unknown one is returned as it is.
pub fn cause_text(cause: &str) -> &str {
    match cause {
        "ring_full_alloc" => "allocator events came faster than they could be read",
        "ring_full_socket" => "socket events came faster than they could be read",
        "ring_full_task" => "process events came faster than they could be read",
        "threads_full" => "more threads than there is room for",
        "processes_full" => "more processes than there is room for",
        "connections_full" => "more connections than there is room for",
        "live_table_full" => "more live blocks than there is room for: their frees are unknown",
        "capture_full" => "events that came after the capture had reached its largest size",
        "undecodable" => "records of the kernel programs that make no sense",
        "alloc_abandoned" => "allocator calls whose return was not seen",
        "tls_abandoned" => "calls into a TLS library whose return was not seen",
        "payload_unreadable" => "message bytes that could not be read from the target's memory",
        "result_unreadable" => "results of successful calls that could not be read",
        "layout_mismatch" => "readings of a runtime whose layout is not the expected one",
        unknown => unknown,
    }
}

/// An endpoint's name, whole.
pub fn endpoint_name(endpoint: &Endpoint) -> String {
    format!("{} {}", escape(&endpoint.method), escape(&endpoint.route))
}

/// What is unusual about an endpoint's responses: statuses other than 2xx, the
/// server's own failures first, and requests that did not end well or at all.
/// Each is one item.
pub fn endpoint_remarks(endpoint: &Endpoint) -> Vec<String> {
    let unusual = endpoint
        .status
        .iter()
        .rev()
        .filter(|(status, _)| !(status.len() == 3 && status.starts_with('2')))
        .map(|(status, n)| (escape(status), *n));
    let ends = [
        ("aborted".to_string(), endpoint.outcomes.aborted),
        ("unanswered".to_string(), endpoint.outcomes.no_response),
        ("in-flight".to_string(), endpoint.in_flight),
    ];
    unusual
        .chain(ends)
        .filter(|(_, n)| *n > 0)
        .map(|(what, n)| format!("{what}×{}", count(n)))
        .collect()
}

/// What was not seen, and what that means for the figures: one sentence for
/// each sort of trouble, then the causes of loss with their counts. Empty if
/// everything was seen.
pub fn warnings(report: &Report) -> Vec<String> {
    let capture = &report.capture;
    let mut lines = Vec::new();
    if capture.lost.total > 0 {
        lines.push(format!(
            "LOSS: {} not seen. The figures below are incomplete: bytes and requests may be \
             missing, and what was freed unseen counts as live.",
            if capture.lost.total == 1 {
                "1 event was".to_string()
            } else {
                format!("{} were", plural(capture.lost.total, "event"))
            }
        ));
        let mut causes: Vec<_> = capture.lost.by_cause.iter().collect();
        causes.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), name.as_str()));
        for (cause, n) in causes.into_iter().filter(|(_, n)| **n > 0) {
            let text = cause_text(cause);
            let name = escape(cause);
            lines.push(if text == cause {
                format!("  {} {name}", count(*n))
            } else {
                format!("  {} {name}: {text}", count(*n))
            });
        }
    }
    match (&capture.damage, capture.truncated) {
        (Some(damage), true) => lines.push(format!(
            "TRUNCATED: the capture ends early ({}). What came before is reported.",
            escape(damage)
        )),
        (Some(damage), false) => lines.push(format!("DAMAGED: {}.", escape(damage))),
        (None, true) => lines.push(
            "TRUNCATED: the capture ends early: the tracer was killed or the file was cut. \
             What came before is reported."
                .to_string(),
        ),
        (None, false) => {}
    }
    // Workers tend to have the same trouble: it is said once.
    let mut troubles: BTreeMap<&str, Vec<&Process>> = BTreeMap::new();
    for process in &report.processes {
        for trouble in &process.trouble {
            troubles.entry(trouble).or_default().push(process);
        }
    }
    for (trouble, processes) in troubles {
        lines.push(format!(
            "PARTLY SEEN: {}: {}.",
            pids(&processes),
            escape(trouble).trim_end_matches('.')
        ));
    }
    lines
}

/// What was traced: programs, pids, allocators.
pub fn targets(report: &Report) -> String {
    let processes = &report.processes;
    if processes.is_empty() {
        return "no process".to_string();
    }
    let programs = names(processes.iter().map(program));
    let allocators = names(
        processes
            .iter()
            .flat_map(|p| p.allocators.iter())
            .map(|allocator| short_allocator(allocator)),
    );
    let allocators = if allocators.is_empty() {
        "no allocator probed".to_string()
    } else {
        allocators
    };
    let pids = pids(&processes.iter().collect::<Vec<_>>());
    format!("{programs} ({pids}; {allocators})")
}

fn pids(processes: &[&Process]) -> String {
    let shown: Vec<String> = processes
        .iter()
        .take(PIDS_SHOWN_MAX)
        .map(|p| p.pid.to_string())
        .collect();
    let ending = if processes.len() == 1 { "" } else { "s" };
    let list = format!("pid{ending} {}", shown.join(", "));
    match processes.len().saturating_sub(PIDS_SHOWN_MAX) {
        0 => list,
        more => format!("{list} and {}", plural(more as u64, "other")),
    }
}

/// A process's program, or its name where the path is not known.
pub fn program(process: &Process) -> String {
    let name = if process.exe.is_empty() {
        &process.comm
    } else {
        &process.exe
    };
    if name.is_empty() {
        "unknown program".to_string()
    } else {
        escape(name)
    }
}

/// `glibc (/usr/lib/libc.so.6)` without the path.
pub fn short_allocator(allocator: &str) -> String {
    let end = allocator.find(" (").unwrap_or(allocator.len());
    escape(&allocator[..end])
}

fn names(all: impl Iterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for name in all {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    let more = distinct.len().saturating_sub(NAMES_SHOWN_MAX);
    distinct.truncate(NAMES_SHOWN_MAX);
    let list = distinct.join(", ");
    if more > 0 {
        format!("{list} and {}", plural(more as u64, "other"))
    } else {
        list
    }
}

/// How long was traced, in which mode, at which cost.
pub fn measured(report: &Report) -> String {
    let capture = &report.capture;
    let mut text = match capture.mode {
        Mode::Exact => format!("{}, every event", duration(capture.duration_ns)),
        Mode::Sampled => format!(
            "{}, {} of the time sampled",
            duration(capture.duration_ns),
            percent(capture.observed_fraction)
        ),
    };
    if let Some(estimate) = capture.overhead.estimate {
        text.push_str(&format!(", overhead about {}", percent(estimate)));
        if let Some(budget) = capture.overhead.budget {
            text.push_str(&format!(" of {} allowed", percent(budget)));
        }
    }
    text
}

/// What all processes allocated.
pub fn allocated(report: &Report) -> String {
    let totals = &report.totals;
    let figure = |shown, field| at_least(shown, field, &totals.incomplete);
    format!(
        "{} in {}; {} of it still live",
        figure(bytes(totals.alloc_bytes), "alloc_bytes"),
        figure(plural(totals.alloc_count, "allocation"), "alloc_count"),
        figure(bytes(totals.live_bytes), "live_bytes")
    )
}

/// The connections in one sentence.
pub fn connections(report: &Report) -> String {
    let c = &report.connections;
    let mut parts = vec![format!("{} accepted", count(c.accepted))];
    for (n, what) in [
        (c.found_open, "open before the trace"),
        (c.closed, "closed"),
        (c.open_at_end, "open at the end"),
        (c.open_max, "at most at once"),
        (c.upgraded, "upgraded"),
        (c.connected, "opened to others"),
    ] {
        if n > 0 {
            parts.push(format!("{} {what}", count(n)));
        }
    }
    parts.join(", ")
}

/// What could not be read as HTTP; nothing if everything could.
pub fn http_trouble(report: &Report) -> Option<String> {
    let http = &report.http;
    let parts: Vec<String> = [
        (http.malformed_requests, "malformed request head"),
        (http.malformed_responses, "malformed response head"),
        (http.unmatched_responses, "response without a request seen"),
        (
            http.not_http_connections,
            "connection that carried no HTTP/1",
        ),
        (
            http.tls_unread_connections,
            "connection that carried TLS of which no plaintext was seen",
        ),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| {
        // The noun that takes the plural is the first word or the last.
        match what.split_once(' ') {
            Some((noun, rest)) if noun == "response" || noun == "connection" => {
                format!("{} {rest}", plural(n, noun))
            }
            Some(_) | None => plural(n, what),
        }
    })
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What to look into when no request was seen, one advice a line.
pub fn no_requests(report: &Report) -> Vec<String> {
    let connections = &report.connections;
    let not_http = report.http.not_http_connections;
    let mut advice = Vec::new();
    if connections.accepted + connections.found_open == 0 {
        advice.push(
            "No connection was seen: was there traffic, and do these processes serve it? \
             `ss -ltnp` shows which process listens on which port."
                .to_string(),
        );
    } else {
        advice.push(format!("Connections: {}.", self::connections(report)));
    }
    let tls_unread = report.http.tls_unread_connections;
    if tls_unread > 0 {
        advice.push(format!(
            "{} carried TLS of which no plaintext was seen. Requests over TLS are read where the \
             process's TLS library can be probed: trace the process behind the one that ends \
             TLS, or try in clear text.",
            plural(tls_unread, "connection")
        ));
    }
    if not_http > 0 {
        advice.push(format!(
            "{} carried no HTTP/1. HTTP/2 is not read yet: try over HTTP/1.",
            plural(not_http, "connection")
        ));
    } else {
        advice.push("If clients speak HTTP/2 to these processes: it is not read yet.".to_string());
    }
    advice.push("`memtrace doctor --pid N` tells what can be seen of a process.".to_string());
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_name_without_words_stands_for_itself() {
        assert_eq!(reason_text("of_tomorrow"), "of_tomorrow");
        assert_eq!(cause_text("of_tomorrow"), "of_tomorrow");
    }

    #[test]
    fn remarks_leave_out_what_went_well() {
        let report = sample::report();
        assert_eq!(
            endpoint_remarks(&report.endpoints[1]),
            ["500×2", "422×9", "in-flight×1"]
        );
        assert!(endpoint_remarks(&report.endpoints[0]).is_empty());
    }

    #[test]
    fn many_targets_are_summed_up() {
        let mut report = sample::report();
        assert_eq!(
            targets(&report),
            "/usr/bin/python3.11 (pids 4101, 4102; glibc)"
        );
        let one = report.processes[0].clone();
        report.processes = (1..=40)
            .map(|pid| Process {
                pid,
                exe: format!("/bin/p{}", pid % 5),
                ..one.clone()
            })
            .collect();
        assert_eq!(
            targets(&report),
            "/bin/p1, /bin/p2, /bin/p3 and 2 others (pids 1, 2, 3, 4, 5, 6 and 34 others; glibc)"
        );
    }

    #[test]
    fn a_clean_report_has_no_warnings_and_a_troubled_one_has_them_all() {
        assert!(warnings(&sample::report()).is_empty());
        let lines = warnings(&sample::troubled());
        assert!(lines[0].starts_with("LOSS: 1,234 events were not seen."));
        assert_eq!(
            lines[1],
            "  1,200 ring_full_alloc: allocator events came faster than they could be read"
        );
        assert_eq!(lines[2], "  30 new_cause");
        assert!(lines[4].starts_with("TRUNCATED: the capture ends early (chunk 17"));
        assert_eq!(
            lines[5],
            "PARTLY SEEN: pid 4102: no allocator was found: the file is stripped."
        );
        assert_eq!(
            http_trouble(&sample::troubled()).as_deref(),
            Some("3 malformed request heads, 5 connections that carried no HTTP/1")
        );
    }
}
