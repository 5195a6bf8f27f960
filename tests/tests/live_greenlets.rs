//! gevent: requests that wait in the middle keep their bytes apart, and those of
//! the greenlets that they spawn.
//!
//! In: gevent's own server, 64 clients, endpoints mixed. Out: figures within 2 %.
//! Deliberately not here: gunicorn; see the range.

use std::process::Command;

use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::report::require_within;
use memtrace_tests::server::{Server, free_port};
use memtrace_tests::{gate, paths};
use tempfile::TempDir;

/// Each endpoint and the bytes of its two blocks: large against what gevent
/// makes for any request.
const ENDPOINTS: [(&str, f64); 3] = [
    ("/sleep/20000000", 40e6),
    ("/gather/24000000", 48e6),
    ("/backend/32000000", 64e6),
];

fn start(arguments: &[&str]) -> anyhow::Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("python")?);
    command
        .arg(paths::program_source("python/gevent_server.py"))
        .args(["--port", &port.to_string()])
        .args(arguments);
    Server::start("gevent", command, TempDir::new()?, port, None)
}

#[test]
fn requests_that_wait_keep_their_bytes_apart() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let backend = start(&[])?;
    let server = start(&["--backend", &backend.port().to_string()])?;
    let mut urls: Vec<String> = ENDPOINTS.iter().map(|(path, _)| server.url(path)).collect();
    urls.push(server.url("/plain/0"));
    // The first of each kind imports modules: not what is measured.
    h2load(4, 1, &urls)?.require_all_succeeded(4)?;
    for clients in [1, 8, 64] {
        let recording = Recording::of_pids(&server.pids())?;
        h2load(256, clients, &urls)?.require_all_succeeded(256)?;
        let report = recording.stop()?.complete_report()?;
        for (path, bytes) in ENDPOINTS {
            let row = report.endpoint("GET", path)?;
            row.require_requests(64)?;
            for figure in ["mean", "p50", "p99", "max"] {
                let what = format!("{figure} of {path}, {clients} clients");
                require_within(&what, row.figure("alloc_bytes", figure)?, bytes, 0.02)?;
            }
        }
        let plain = report.endpoint("GET", "/plain/0")?;
        plain.require_requests(64)?;
        let largest = plain.figure("alloc_bytes", "max")?;
        assert!(largest < 1e6, "{largest} bytes for a plain request");
        assert_eq!(report.troubles()?, Vec::<String>::new());
    }
    Ok(())
}
