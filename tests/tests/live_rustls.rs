//! Requests over rustls are seen as their plaintext, on the connections that carry
//! them; work in tokio's tasks is their request's.
//!
//! In: a server of blocking threads and one of hyper's tasks, whose sessions move
//! in memory after their handshake and whose tasks go from thread to thread. Out: requests, statuses and known bytes
//! against the server's own count and the generators'. Deliberately not here: a
//! server without symbols (`live_tls.rs`).

use anyhow::{Context as _, ensure};
use memtrace_tests::gate;
use memtrace_tests::load::{Connections, H2load, ab, h2load};
use memtrace_tests::memtrace::Recording;
use memtrace_tests::programs::Symbols;
use memtrace_tests::report::{Report, require_within};
use memtrace_tests::server::Server;
use memtrace_tests::tls::{self, Certificate, RustlsModel};

/// The last allocates half of its bytes before it sleeps, half after.
const PATHS: [&str; 4] = ["/alloc/1000000", "/keep/20000", "/missing", "/sleep/400000"];
const STATUSES: [&str; 4] = ["200", "200", "404", "200"];
/// Of each path; a multiple of any number of clients.
const EACH: u64 = 128;
const ASKED: u64 = 4 * EACH;
/// Requests before all others.
const FIRST: u64 = 8;

fn counted(certificate: &Certificate, server: &Server) -> anyhow::Result<u64> {
    let body = certificate.get(&server.https_url("/count"))?;
    Ok(String::from_utf8(body)?.trim().parse()?)
}

/// Each path was asked as often as it should, was answered as it should be, and
/// has its own bytes.
fn require_paths(report: &Report, each: u64) -> anyhow::Result<()> {
    for (path, status) in PATHS.into_iter().zip(STATUSES) {
        let row = report.endpoint("GET", path)?;
        row.require_requests(each)?;
        ensure!(
            row.statuses()?.get(status) == Some(&each),
            "{path}: {:?}",
            row.statuses()?
        );
    }
    let mean = |path, figure| report.endpoint("GET", path)?.figure(figure, "mean");
    let plain = mean("/missing", "alloc_bytes")?;
    let block = mean("/alloc/1000000", "alloc_bytes")? - plain;
    require_within("bytes of /alloc", block, 1e6, 0.02)?;
    let halves = mean("/sleep/400000", "alloc_bytes")? - plain;
    require_within("bytes of /sleep", halves, 4e5, 0.02)?;
    let kept = mean("/keep/20000", "retained_bytes")? - mean("/missing", "retained_bytes")?;
    require_within("bytes of /keep", kept, 2e4, 0.02)?;
    ensure!(report.count("/http/tls_unread_connections")? == 0);
    ensure!(report.troubles()?.is_empty(), "{:?}", report.troubles()?);
    Ok(())
}

/// Asks each path [`EACH`] times.
type Load = fn(&Server, clients: u64) -> anyhow::Result<()>;

fn kept_connections(server: &Server, clients: u64) -> anyhow::Result<()> {
    let urls = PATHS.map(|path| server.https_url(path));
    h2load(ASKED, clients, urls)?.require_all_answered(ASKED)
}

fn streams(server: &Server, clients: u64, at_once: u64) -> anyhow::Result<()> {
    let urls = PATHS.map(|path| server.https_url(path));
    let load = H2load::start_streams(ASKED, clients, at_once, urls)?;
    load.finish()?.require_all_answered(ASKED)
}

fn one_stream(server: &Server, clients: u64) -> anyhow::Result<()> {
    streams(server, clients, 1)
}

fn many_streams(server: &Server, clients: u64) -> anyhow::Result<()> {
    streams(server, clients, 4)
}

fn require_read(model: RustlsModel, load: Load) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    let server = tls::rustls(model, Symbols::All, &certificate)?;
    // What the threads make when they first work is nobody's measure.
    load(&server, 64)?;
    for clients in [1, 8, 64] {
        let what = format!("{model:?}, {clients} clients");
        let before = counted(&certificate, &server)?;
        let recording = Recording::of_pids(&server.pids())?;
        // What a kind of task looks like is known when one was seen.
        let first = server.https_url("/first");
        match model {
            RustlsModel::Tasks => H2load::start_streams(FIRST, 1, 1, [&first])?.finish()?,
            RustlsModel::Threads => h2load(FIRST, 1, [&first])?,
        }
        .require_all_answered(FIRST)?;
        load(&server, clients)?;
        let report = recording.stop()?.complete_report()?;
        let answered = counted(&certificate, &server)? - before;
        let asked = FIRST + ASKED;
        ensure!(answered == asked, "{what}: the server counts {answered}");
        ensure!(
            report.requests()? == asked,
            "{what}: {}",
            report.requests()?
        );
        require_paths(&report, EACH).context(what.clone())?;
        let accepted = report.count("/connections/accepted")?;
        let read = report.count("/http/tls_connections")?;
        ensure!(
            accepted == read,
            "{what}: {accepted} accepted, {read} with TLS"
        );
    }
    Ok(())
}

#[test]
fn threads() -> anyhow::Result<()> {
    require_read(RustlsModel::Threads, kept_connections)
}

#[test]
fn tasks() -> anyhow::Result<()> {
    require_read(RustlsModel::Tasks, kept_connections)
}

#[test]
fn tasks_over_http2() -> anyhow::Result<()> {
    require_read(RustlsModel::Tasks, one_stream)
}

/// Each exchange is a task of its own, and those of a connection are spawned
/// together.
#[test]
fn many_tasks_of_one_connection() -> anyhow::Result<()> {
    require_read(RustlsModel::Tasks, many_streams)
}

/// Without tokio's names nothing tells when a thread takes a task from another's
/// queue: requests are told, and nearly nothing is credited to a wrong one.
#[test]
fn exchanges_that_threads_take_in_turns() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    let server = tls::rustls(RustlsModel::Tasks, Symbols::WithoutTokio, &certificate)?;
    for clients in [1, 8] {
        streams(&server, clients, 4)?;
        let recording = Recording::of_pids(&server.pids())?;
        for _ in 0..8 {
            streams(&server, clients, 4)?;
        }
        let report = recording.stop()?.complete_report()?;
        let what = format!("{clients} clients");
        ensure!(report.requests()? == 8 * ASKED, "{what}");
        for (path, status) in PATHS.into_iter().zip(STATUSES) {
            let row = report.endpoint("GET", path)?;
            row.require_requests(8 * EACH).context(what.clone())?;
            ensure!(row.statuses()?.get(status) == Some(&(8 * EACH)), "{what}");
        }
        let mean = |path| report.endpoint("GET", path)?.figure("alloc_bytes", "mean");
        let credited = [
            mean(PATHS[0])?,
            mean(PATHS[1])?,
            mean(PATHS[2])?,
            mean(PATHS[3])?,
        ];
        // What is beyond its own, and the 2 kB that any takes.
        let wrong: f64 = (credited.iter().zip([1e6, 2e4, 0.0, 4e5]))
            .map(|(bytes, own)| (bytes - own - 3e3).max(0.0))
            .sum();
        ensure!(wrong < 0.01 * 1.42e6, "{what}: {credited:?}");
    }
    Ok(())
}

/// With a connection for each request, a session's place in memory is soon that of
/// another, and under load its request comes with the end of its handshake.
#[test]
fn sessions_that_move() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let certificate = Certificate::new()?;
    for model in [RustlsModel::Threads, RustlsModel::Tasks] {
        let server = tls::rustls(model, Symbols::All, &certificate)?;
        let recording = Recording::of_pids(&server.pids())?;
        for path in PATHS {
            let url = server.https_url(path);
            ab(EACH, 16, Connections::New, &url)?.require_all_answered(EACH)?;
        }
        let report = recording.stop()?.complete_report()?;
        let what = format!("{model:?}");
        ensure!(counted(&certificate, &server)? == ASKED, "{what}");
        ensure!(
            report.requests()? == ASKED,
            "{what}: {}",
            report.requests()?
        );
        for (path, status) in PATHS.into_iter().zip(STATUSES) {
            let row = report.endpoint("GET", path)?;
            row.require_requests(EACH).context(what.clone())?;
            let counted = row.statuses()?;
            ensure!(counted.get(status) == Some(&EACH), "{what}: {counted:?}");
        }
    }
    Ok(())
}
