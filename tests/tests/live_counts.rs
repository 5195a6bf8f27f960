//! Requests per endpoint and by status: memtrace's report against the server's
//! own count and the load generator's, exactly, with no loss.
//!
//! In: real servers under a real load generator. Out: equality. Deliberately
//! not here: bytes; see `live_shim.rs` and `live_known_bytes.rs`.

use std::collections::BTreeMap;

use memtrace_tests::gate;
use memtrace_tests::load::{Connections, LoadCounts, ab, h2load};
use memtrace_tests::memtrace::Recording;
use memtrace_tests::nginx::Nginx;
use memtrace_tests::report::Report;
use memtrace_tests::server::{PythonServer, RequestCounts};

/// The report's rows equal the server's counts: each path, each status, and
/// nothing else.
fn require_counts(report: &Report, method: &str, counts: &RequestCounts) -> anyhow::Result<()> {
    let mut by_status = BTreeMap::new();
    for (path, statuses) in counts {
        let row = report.endpoint(method, path)?;
        row.require_requests(statuses.values().sum())?;
        assert_eq!(&row.statuses()?, statuses, "{path}");
        for (status, requests) in statuses {
            *by_status.entry(status.clone()).or_insert(0) += requests;
        }
    }
    let served: u64 = by_status.values().sum();
    assert_eq!(report.requests()?, served, "requests that nobody sent");
    assert_eq!(report.statuses()?, by_status);
    Ok(())
}

/// The server's counts by class of status equal the generators'.
fn require_generators(counts: &RequestCounts, loads: &[LoadCounts]) {
    let mut by_class = [0; 4];
    for (status, requests) in counts.values().flatten() {
        let class = usize::from(status.as_bytes()[0] - b'2');
        by_class[class] += requests;
    }
    let mut expected = [0; 4];
    for load in loads {
        for (sum, requests) in expected.iter_mut().zip(load.by_class) {
            *sum += requests;
        }
    }
    assert_eq!(by_class, expected);
}

fn python_server_counts(kind: PythonServer) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = kind.start(None)?;
    let recording = Recording::of_pids(&server.pids())?;
    let urls = ["/plain", "/big/100000", "/status/404", "/keep/1000"].map(|path| server.url(path));
    let kept = h2load(1600, 8, &urls)?;
    kept.require_all_answered(1600)?;
    let new = ab(400, 8, Connections::New, &server.url("/plain"))?;
    new.require_all_succeeded(400)?;
    let report = recording.stop()?.complete_report()?;
    let counts = server.python_counts()?;
    require_generators(&counts, &[kept, new]);
    require_counts(&report, "GET", &counts)
}

#[test]
fn gunicorn_flask_with_a_connection_for_each_request() -> anyhow::Result<()> {
    python_server_counts(PythonServer::GunicornFlaskSync)
}

#[test]
fn gunicorn_flask_with_threads_and_keep_alive() -> anyhow::Result<()> {
    python_server_counts(PythonServer::GunicornFlaskThreads)
}

#[test]
fn gunicorn_django_with_a_connection_for_each_request() -> anyhow::Result<()> {
    python_server_counts(PythonServer::GunicornDjangoSync)
}

#[test]
fn gunicorn_django_with_threads_and_keep_alive() -> anyhow::Result<()> {
    python_server_counts(PythonServer::GunicornDjangoThreads)
}

#[test]
fn uvicorn_fastapi_on_uvloop() -> anyhow::Result<()> {
    python_server_counts(PythonServer::UvicornFastApi)
}

#[test]
fn uvicorn_fastapi_on_asyncio() -> anyhow::Result<()> {
    python_server_counts(PythonServer::UvicornFastApiAsyncio)
}

#[test]
fn python_http_server() -> anyhow::Result<()> {
    python_server_counts(PythonServer::HttpServer)
}

/// Two workers, a static file, a proxied location; nginx's own requests to its
/// backend are not requests it serves.
#[test]
fn nginx_static_and_proxied() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let nginx = Nginx::start(None)?;
    let server = nginx.server();
    let recording = Recording::of_pids(&server.pids())?;
    let urls = [
        "/file.txt",
        "/proxied/alloc/500",
        "/missing",
        "/proxied/status/503",
    ]
    .map(|path| server.url(path));
    let kept = h2load(8000, 8, &urls)?;
    kept.require_all_answered(8000)?;
    let new = ab(1000, 8, Connections::New, &server.url("/file.txt"))?;
    let http10 = ab(
        1000,
        8,
        Connections::Kept,
        &server.url("/proxied/alloc/500"),
    )?;
    new.require_all_succeeded(1000)?;
    http10.require_all_succeeded(1000)?;
    let counts = nginx.counts(10_000)?;
    let report = recording.stop()?.complete_report()?;
    let backend = nginx.backend().alloc_server_counts()?;
    assert_eq!(backend.count("/requests/alloc")?, 3000);
    // ab does not say which class its other answers had; there were none here.
    require_generators(&counts, &[kept, new, http10]);
    require_counts(&report, "GET", &counts)
}

/// nginx and its backend in one capture: each counts what it served.
#[test]
fn nginx_and_its_backend_together() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let nginx = Nginx::start(None)?;
    let mut pids = nginx.server().pids();
    pids.extend(nginx.backend().pids());
    let recording = Recording::of_pids(&pids)?;
    let url = nginx.server().url("/proxied/alloc/500");
    h2load(2000, 8, [url])?.require_all_succeeded(2000)?;
    let report = recording.stop()?.complete_report()?;
    report
        .endpoint("GET", "/proxied/alloc/500")?
        .require_requests(2000)?;
    let behind = report.endpoint("GET", "/alloc/500")?;
    behind.require_requests(2000)?;
    assert_eq!(behind.figure("alloc_bytes", "total")?, 2000.0 * 500.0);
    Ok(())
}

/// Connections that were open before the attach are picked up.
#[test]
fn connections_that_were_open_before() -> anyhow::Result<()> {
    use memtrace_tests::client::RawConnection;
    use memtrace_tests::server::{Server, Serving};
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for serving in [Serving::Threads(4), Serving::Epoll] {
        let server = Server::alloc_server(serving, None)?;
        let mut connections = Vec::new();
        for _ in 0..4 {
            let mut connection = RawConnection::open(server.port())?;
            assert_eq!(connection.get("/alloc/77")?.status, 200);
            connections.push(connection);
        }
        let recording = Recording::of_pids(&server.pids())?;
        for _ in 0..25 {
            for connection in &mut connections {
                assert_eq!(connection.get("/alloc/1000")?.status, 200);
            }
        }
        let report = recording.stop()?.complete_report()?;
        let row = report.endpoint("GET", "/alloc/1000")?;
        row.require_requests(100)?;
        assert_eq!(
            row.figure("alloc_bytes", "total")?,
            100_000.0,
            "{serving:?}"
        );
    }
    Ok(())
}
