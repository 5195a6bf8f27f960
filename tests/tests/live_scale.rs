//! Many connections, many requests, little memory.
//!
//! In: 1,000 connections at once, 100,000 requests in one capture. Out: exact
//! counts, and the collector's largest resident set. Deliberately not here:
//! what tracing costs the target.

use memtrace_tests::client::RawConnection;
use memtrace_tests::gate;
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::nginx::Nginx;
use memtrace_tests::server::{Server, Serving};

const COLLECTOR_BYTES_MAX: u64 = 50 * 1000 * 1000;

#[test]
fn a_thousand_connections_at_once() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Epoll, None)?;
    let recording = Recording::of_pids(&server.pids())?;
    // Open all the time, and each with a request of its own in the end.
    let mut open = Vec::new();
    for _ in 0..2000 {
        open.push(RawConnection::open(server.port())?);
    }
    h2load(
        10_000,
        1000,
        [server.url("/alloc/1000"), server.url("/later/500")],
    )?
    .require_all_succeeded(10_000)?;
    for connection in &mut open {
        assert_eq!(connection.get("/keep/700")?.status, 200);
    }
    let recorded = recording.stop()?;
    let report = recorded.complete_report()?;
    // What the loop allocates for a request that it answers later is disputed if
    // it goes on to answer another before it waits or receives.
    let disputed = report.disputed_bytes("/later/")?;
    for (path, requests, bytes, disputed) in [
        ("/alloc/1000", 5000, 1000, 0),
        ("/later/500", 5000, 500, disputed),
        ("/keep/700", 2000, 700, 0),
    ] {
        let row = report.endpoint("GET", path)?;
        row.require_requests(requests)?;
        let credited = row.figure("alloc_bytes", "total")? as u64;
        assert_eq!(credited + disputed, requests * bytes, "{path}");
        assert!(
            disputed * 50 < requests * bytes,
            "{path}: {disputed} disputed"
        );
    }
    // Its own are open all the time; of the load's, the first may be done before
    // the last is opened.
    assert!(report.count("/connections/open_max")? > 2000);
    assert_eq!(report.count("/connections/open_at_end")?, 2000);
    assert_eq!(report.count("/connections/accepted")?, 3000);
    require_little_memory(recorded.peak_resident_bytes);
    Ok(())
}

#[test]
fn a_thousand_connections_to_nginx() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let nginx = Nginx::start(None)?;
    let recording = Recording::of_pids(&nginx.server().pids())?;
    h2load(20_000, 1000, [nginx.server().url("/file.txt")])?.require_all_succeeded(20_000)?;
    let report = recording.stop()?.complete_report()?;
    assert_eq!(nginx.counts(20_000)?["/file.txt"]["200"], 20_000);
    report
        .endpoint("GET", "/file.txt")?
        .require_requests(20_000)
}

#[test]
fn a_hundred_thousand_requests_in_one_capture() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(8), None)?;
    let recording = Recording::of_pids(&server.pids())?;
    let urls = [
        "/alloc/1000",
        "/realloc/4000",
        "/other/300",
        "/next/400",
        "/keep/16",
    ]
    .map(|path| server.url(path));
    h2load(100_000, 8, &urls)?.require_all_succeeded(100_000)?;
    let recorded = recording.stop()?;
    let report = recorded.complete_report()?;
    assert_eq!(report.requests()?, 100_000);
    let kept = report.endpoint("GET", "/keep/16")?;
    assert_eq!(kept.figure("retained_bytes", "total")?, 20_000.0 * 16.0);
    assert_eq!(recorded.report()?, report);
    eprintln!(
        "collector: {} bytes resident at most; capture: {} bytes",
        recorded.peak_resident_bytes,
        recorded.capture_bytes()?
    );
    require_little_memory(recorded.peak_resident_bytes);
    Ok(())
}

fn require_little_memory(peak_bytes: u64) {
    assert!(peak_bytes > 0, "the collector's memory was not seen");
    assert!(
        peak_bytes < COLLECTOR_BYTES_MAX,
        "the collector had {peak_bytes} bytes resident"
    );
}
