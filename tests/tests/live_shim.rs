//! Allocations and frees of each process: memtrace's report against the
//! counting shim, over the same interval.
//!
//! In: servers under the preloaded shim. Out: equality for the C server, 1 %
//! for the others (their threads and timers work while nobody asks).
//! Deliberately not here: which request it was.

use memtrace_tests::gate;
use memtrace_tests::load::{Connections, ab, h2load};
use memtrace_tests::memtrace::Recording;
use memtrace_tests::nginx::Nginx;
use memtrace_tests::report::{Report, require_within};
use memtrace_tests::server::{PythonServer, Server, Serving};
use memtrace_tests::shim::{CountingShim, HeapCounts};

/// What a server does while nobody asks it.
#[derive(Clone, Copy)]
enum Idle {
    /// Nothing at all.
    Quiet,
    /// Little: its timers tick.
    Calm,
}

/// Traces an idle server, loads it, waits until it is idle again; what each
/// process used meanwhile, by the shim and by memtrace.
fn over_the_same_interval(
    server: &Server,
    shim: &CountingShim,
    idle: Idle,
    load: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(Vec<(u32, HeapCounts)>, Report)> {
    let pids = server.pids();
    let wait_until_idle = || match idle {
        Idle::Quiet => shim.wait_until_quiet(&pids),
        Idle::Calm => shim.wait_until_calm(&pids),
    };
    wait_until_idle()?;
    let recording = Recording::of_pids(&pids)?;
    let before = wait_until_idle()?;
    load()?;
    let after = wait_until_idle()?;
    let report = recording.stop()?.complete_report()?;
    let used = pids
        .iter()
        .zip(after.iter().zip(&before))
        .map(|(&pid, (&after, &before))| (pid, after - before))
        .collect();
    Ok((used, report))
}

fn c_server_equals_exactly(serving: Serving) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let shim = CountingShim::new()?;
    let server = Server::alloc_server(serving, Some(&shim))?;
    let urls = [
        "/alloc/1000",
        "/calloc/3000",
        "/realloc/4000",
        "/memalign/500",
        "/failing/700",
        "/keep/64",
        "/next/2000",
        "/other/300",
        "/alloc/300000",
        "/status/404",
    ]
    .map(|path| server.url(path));
    let (used, report) = over_the_same_interval(&server, &shim, Idle::Quiet, || {
        h2load(8000, 8, &urls)?.require_all_answered(8000)?;
        ab(500, 8, Connections::New, &server.url("/alloc/0"))?.require_all_succeeded(500)
    })?;
    let (pid, used) = used[0];
    // 800 of each path, then 500: realloc and memalign have 3, status none.
    assert_eq!(used.alloc_count, 800 * (7 + 3 + 3) + 500, "{used:?}");
    assert_eq!(report.heap_of(pid)?, used, "{serving:?}");
    Ok(())
}

#[test]
fn a_c_server_with_threads_equals_exactly() -> anyhow::Result<()> {
    c_server_equals_exactly(Serving::Threads(8))
}

#[test]
fn a_c_server_with_an_event_loop_equals_exactly() -> anyhow::Result<()> {
    c_server_equals_exactly(Serving::Epoll)
}

/// Every byte is either a request's or unattributed.
#[test]
fn endpoints_and_unattributed_add_up_to_the_processes() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let shim = CountingShim::new()?;
    let server = PythonServer::UvicornFastApi.start(Some(&shim))?;
    let url = server.url("/plain");
    let (_, report) = over_the_same_interval(&server, &shim, Idle::Calm, || {
        h2load(800, 8, [url])?.require_all_succeeded(800)
    })?;
    let sum = |array: &str, pointer: &str| -> f64 {
        let rows = report.0[array].as_array().into_iter().flatten();
        rows.filter_map(|row| row.pointer(pointer)?.as_f64()).sum()
    };
    for figure in ["alloc_bytes", "alloc_count"] {
        let of_requests = sum("endpoints", &format!("/{figure}/total"));
        let of_nobody = report.number(&format!("/unattributed/{figure}"))?;
        let of_processes = sum("processes", &format!("/{figure}"));
        assert!(of_requests > 0.0);
        assert_eq!(of_requests + of_nobody, of_processes, "{figure}");
    }
    Ok(())
}

/// Within 1 % of the shim, each process that did any work.
fn equals_within_one_percent(
    used: &[(u32, HeapCounts)],
    report: &Report,
    at_work: usize,
) -> anyhow::Result<()> {
    let mut found_at_work = 0;
    for &(pid, used) in used {
        // A master that only waits has nothing to compare.
        if used.alloc_count < 1000 {
            continue;
        }
        found_at_work += 1;
        let seen = report.heap_of(pid)?;
        for (what, seen, used) in [
            ("alloc_count", seen.alloc_count, used.alloc_count),
            ("alloc_bytes", seen.alloc_bytes, used.alloc_bytes),
            ("free_count", seen.free_count, used.free_count),
            ("free_bytes", seen.free_bytes, used.free_bytes),
        ] {
            let what = format!("{what} of process {pid}");
            require_within(&what, seen as f64, used as f64, 0.01)?;
        }
    }
    assert!(found_at_work >= at_work, "{found_at_work} processes worked");
    Ok(())
}

fn python_server_is_close(kind: PythonServer) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let shim = CountingShim::new()?;
    let server = kind.start(Some(&shim))?;
    let urls = ["/plain", "/big/100000", "/status/404", "/keep/1000"].map(|path| server.url(path));
    let (used, report) = over_the_same_interval(&server, &shim, Idle::Calm, || {
        h2load(2000, 8, &urls)?.require_all_answered(2000)
    })?;
    equals_within_one_percent(&used, &report, 1)
}

#[test]
fn gunicorn_flask_is_close() -> anyhow::Result<()> {
    python_server_is_close(PythonServer::GunicornFlaskThreads)
}

#[test]
fn gunicorn_django_is_close() -> anyhow::Result<()> {
    python_server_is_close(PythonServer::GunicornDjangoSync)
}

#[test]
fn uvicorn_fastapi_is_close() -> anyhow::Result<()> {
    python_server_is_close(PythonServer::UvicornFastApi)
}

#[test]
fn python_http_server_is_close() -> anyhow::Result<()> {
    python_server_is_close(PythonServer::HttpServer)
}

#[test]
fn nginx_is_close() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let shim = CountingShim::new()?;
    let nginx = Nginx::start(Some(&shim))?;
    let urls = ["/file.txt", "/proxied/alloc/500"].map(|path| nginx.server().url(path));
    let (used, report) = over_the_same_interval(nginx.server(), &shim, Idle::Calm, || {
        h2load(8000, 8, &urls)?.require_all_succeeded(8000)
    })?;
    equals_within_one_percent(&used, &report, 1)
}
