//! Runtimes that count for themselves: what Java threads allocate on their heap,
//! and how large PHP's heap of a request became.
//!
//! In: a Java server that asks its own runtime what its handlers allocated, and
//! PHP scripts that answer with their peak. Out: requests exact, bytes within
//! 2 %; and a Java server under load that takes no harm. Deliberately not here: native memory of these runtimes, which is probed
//! like everybody's.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Context;
use memtrace_tests::java::{self, Counted};
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::process::wait_until;
use memtrace_tests::report::{Report, require_within};
use memtrace_tests::server::{Server, free_port};
use memtrace_tests::soak::soak;
use memtrace_tests::{client, gate, paths};
use serde_json::Value;
use tempfile::TempDir;

fn incomplete(report: &Report, index: usize) -> Vec<&str> {
    let names = report.0["endpoints"][index]["incomplete"].as_array();
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn java_threads(clients: u64) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = java::start(8)?;
    let paths = ["/alloc/4000000", "/two/3000000", "/plain"];
    let urls = paths.map(|path| server.url(path));
    // Classes are loaded by the first requests.
    h2load(192, clients, &urls)?.require_all_succeeded(192)?;
    let before = java::counted(&server)?;
    let recording = Recording::of_pids(&server.pids())?;
    h2load(384, clients, &urls)?.require_all_succeeded(384)?;
    let report = recording.stop()?.complete_report()?;
    let after = java::counted(&server)?;
    for path in paths {
        let of = |counts: &BTreeMap<String, Counted>| counts.get(path).copied().unwrap_or_default();
        let (before, after) = (of(&before), of(&after));
        let row = report.endpoint("GET", path)?;
        row.require_requests(after.requests - before.requests)?;
        if path != "/plain" {
            let told = row.figure("alloc_bytes", "total")?;
            let own = (after.alloc_bytes - before.alloc_bytes) as f64;
            require_within(&format!("bytes of {path}"), told, own, 0.02)?;
        }
    }
    // What is still there of a collected heap is not claimed to be known.
    for index in 0..3 {
        assert!(incomplete(&report, index).contains(&"retained_bytes"));
        assert!(!incomplete(&report, index).contains(&"alloc_bytes"));
    }
    Ok(())
}

#[test]
fn java_threads_count_what_they_allocate() -> anyhow::Result<()> {
    for clients in [1, 8, 64] {
        java_threads(clients)?;
    }
    Ok(())
}

#[test]
fn a_busy_java_server_is_traced_again_and_again() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let mut server = java::start(8)?;
    let urls = ["/alloc/10000", "/two/20000", "/plain"].map(|path| server.url(path));
    let answered = soak(server.pid(), &urls)?;
    server.require_running()?;
    let counted = java::counted(&server)?;
    let counted: u64 = counted.values().map(|of_path| of_path.requests).sum();
    assert_eq!(counted, answered, "the server's own count");
    Ok(())
}

#[test]
fn php_requests_have_the_peak_of_their_heap() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let port = free_port()?;
    let mut command = Command::new("php");
    command
        .args(["-S", &format!("127.0.0.1:{port}")])
        .arg(paths::program_source("php/peak.php"));
    let server = Server::start("php", command, TempDir::new()?, port, None)?;
    let recording = Recording::of_pids(&server.pids())?;
    let mut peaks = Vec::new();
    for path in ["/small/1000000", "/large/9000000"] {
        let mut peak = 0.0;
        for _ in 0..10 {
            let body = String::from_utf8(client::get_body(port, path)?)?;
            peak = body.trim().parse().context("PHP told no peak")?;
        }
        peaks.push((path, peak));
    }
    // The heap of the last request is given up after its answer.
    wait_until("the last request's end", || {
        Ok(client::get_body(port, "/plain/0").is_ok())
    })?;
    let report = recording.stop()?.complete_report()?;
    for (path, peak) in peaks {
        let row = report.endpoint("GET", path)?;
        row.require_requests(10)?;
        let told = row.figure("peak_bytes", "p50")?;
        require_within(&format!("peak of {path}"), told, peak, 0.02)?;
    }
    Ok(())
}
