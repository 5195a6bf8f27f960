//! Endpoints that allocate a known number of bytes show it, whatever else is
//! going on; what is kept is retained, what is given back is not.
//!
//! In: the C server and Python's `bytearray` at concurrency 1, 8 and 64. Out:
//! figures within 2 %, exact where the server is. Deliberately not here:
//! process totals; see `live_shim.rs`.

use memtrace_tests::gate;
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::report::{Report, require_within};
use memtrace_tests::server::{PythonServer, Server, Serving};

const CONCURRENCIES: [u64; 3] = [1, 8, 64];

fn require_mean(report: &Report, path: &str, figure: &str, bytes: f64) -> anyhow::Result<()> {
    let mean = report.endpoint("GET", path)?.figure(figure, "mean")?;
    require_within(&format!("mean {figure} of {path}"), mean, bytes, 0.02)
}

fn mixed_endpoints(serving: Serving, clients: u64) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(serving, None)?;
    let paths = [
        ("/alloc/1000", 1000.0),
        ("/calloc/20000", 20_000.0),
        ("/realloc/4000", 7000.0),
        ("/memalign/500", 1500.0),
        ("/keep/3000", 3000.0),
        ("/other/700", 700.0),
        ("/later/9000", 9000.0),
        ("/body/100", 0.0),
    ];
    let recording = Recording::of_pids(&server.pids())?;
    let each = 64;
    let requests = each * paths.len() as u64;
    let urls = paths.map(|(path, _)| server.url(path));
    h2load(requests, clients, &urls)?.require_all_succeeded(requests)?;
    let report = recording.stop()?.complete_report()?;
    for (path, bytes) in paths {
        let row = report.endpoint("GET", path)?;
        row.require_requests(each)?;
        require_mean(&report, path, "alloc_bytes", bytes)?;
        // Each request alike, not only their mean.
        let largest = row.figure("alloc_bytes", "max")?;
        require_within(&format!("largest of {path}"), largest, bytes, 0.02)?;
        let retained = if path == "/keep/3000" { bytes } else { 0.0 };
        require_mean(&report, path, "retained_bytes", retained)?;
    }
    // realloc's three blocks never live together.
    require_mean(&report, "/realloc/4000", "peak_bytes", 4000.0)?;
    require_mean(&report, "/memalign/500", "peak_bytes", 500.0)?;
    require_mean(&report, "/later/9000", "peak_bytes", 9000.0)
}

#[test]
fn threads_serve_mixed_endpoints() -> anyhow::Result<()> {
    for clients in CONCURRENCIES {
        mixed_endpoints(Serving::Threads(8), clients)?;
    }
    Ok(())
}

#[test]
fn an_event_loop_serves_mixed_endpoints() -> anyhow::Result<()> {
    for clients in CONCURRENCIES {
        mixed_endpoints(Serving::Epoll, clients)?;
    }
    Ok(())
}

/// Many threads at once, so that requests really overlap.
#[test]
fn sixty_four_threads_serve_mixed_endpoints() -> anyhow::Result<()> {
    mixed_endpoints(Serving::Threads(64), 64)
}

/// A block that the next request frees is not retained; one that nobody frees
/// is, at its full size.
#[test]
fn retained_is_what_nobody_gave_back() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for serving in [Serving::Threads(8), Serving::Epoll] {
        let server = Server::alloc_server(serving, None)?;
        let recording = Recording::of_pids(&server.pids())?;
        h2load(400, 8, [server.url("/next/5000"), server.url("/keep/6000")])?
            .require_all_succeeded(400)?;
        // Frees the last one, and allocates nothing.
        h2load(1, 1, [server.url("/next/0")])?.require_all_succeeded(1)?;
        let report = recording.stop()?.complete_report()?;
        let next = report.endpoint("GET", "/next/5000")?;
        assert_eq!(next.figure("retained_bytes", "total")?, 0.0, "{serving:?}");
        assert_eq!(next.figure("alloc_bytes", "total")?, 200.0 * 5000.0);
        let keep = report.endpoint("GET", "/keep/6000")?;
        assert_eq!(keep.figure("retained_bytes", "total")?, 200.0 * 6000.0);
        assert_eq!(keep.figure("retained_bytes", "mean")?, 6000.0);
    }
    Ok(())
}

fn python_bytearrays(kind: PythonServer, clients: u64) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = kind.start(None)?;
    let urls = ["/big/4000000", "/keep/1000000", "/plain"].map(|path| server.url(path));
    // The first requests import modules and fill caches: not what is measured.
    h2load(192, 64, &urls)?.require_all_succeeded(192)?;
    let recording = Recording::of_pids(&server.pids())?;
    h2load(192, clients, &urls)?.require_all_succeeded(192)?;
    let report = recording.stop()?.complete_report()?;
    let plain = report
        .endpoint("GET", "/plain")?
        .figure("alloc_bytes", "mean")?;
    assert!(
        plain < 200_000.0,
        "{plain} bytes for a plain request of {kind:?}"
    );
    require_mean(&report, "/big/4000000", "alloc_bytes", 4e6)?;
    require_mean(&report, "/big/4000000", "peak_bytes", 4e6)?;
    require_mean(&report, "/keep/1000000", "retained_bytes", 1e6)?;
    let retained = report
        .endpoint("GET", "/big/4000000")?
        .figure("retained_bytes", "mean")?;
    assert!(
        retained < 80_000.0,
        "{retained} bytes retained of blocks given back"
    );
    Ok(())
}

#[test]
fn flask_bytearrays() -> anyhow::Result<()> {
    for clients in CONCURRENCIES {
        python_bytearrays(PythonServer::GunicornFlaskThreads, clients)?;
    }
    Ok(())
}

#[test]
fn django_bytearrays() -> anyhow::Result<()> {
    for clients in CONCURRENCIES {
        python_bytearrays(PythonServer::GunicornDjangoSync, clients)?;
    }
    Ok(())
}

#[test]
fn fastapi_bytearrays() -> anyhow::Result<()> {
    for clients in CONCURRENCIES {
        python_bytearrays(PythonServer::UvicornFastApi, clients)?;
    }
    Ok(())
}

#[test]
fn http_server_bytearrays() -> anyhow::Result<()> {
    for clients in CONCURRENCIES {
        python_bytearrays(PythonServer::HttpServer, clients)?;
    }
    Ok(())
}
