//! Go's net/http, with TLS and without: each endpoint's requests exactly, and the bytes that Go's own
//! memory statistics measure, whichever goroutines and threads the work is done
//! on.
//!
//! In: the Go server, by every toolchain there is, at concurrency 1 to 256 with
//! its endpoints mixed. Out: counts and bytes. Deliberately not here: what
//! happens while probes come and go; see `live_go_soak.rs`.

use memtrace_tests::gate;
use memtrace_tests::go::{Build, ENDPOINTS, GoServer, Toolchain, build};
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::report::{Report, require_within};

/// Of all allocated bytes, those that belong to no request, at most.
const UNATTRIBUTED_MAX: f64 = 0.05;

/// What the server says that its endpoints allocate.
fn truth(server: &GoServer, requests: u64) -> anyhow::Result<Vec<(&'static str, f64)>> {
    ENDPOINTS
        .into_iter()
        .map(|path| Ok((path, server.bytes_per_request(path, requests)?)))
        .collect()
}

/// Each endpoint has exactly these requests and, within 2 %, these bytes.
fn require_endpoints(
    report: &Report,
    truth: &[(&'static str, f64)],
    each: u64,
) -> anyhow::Result<()> {
    for (path, bytes) in truth {
        let row = report.endpoint("GET", path)?;
        row.require_requests(each)?;
        let mean = row.figure("alloc_bytes", "mean")?;
        require_within(&format!("bytes of a request of {path}"), mean, *bytes, 0.02)?;
    }
    let unattributed = report.number("/unattributed/share_of_alloc")?;
    assert!(
        unattributed < UNATTRIBUTED_MAX,
        "{unattributed} of the bytes belong to no request: {:?}",
        report.0.pointer("/unattributed/by_reason")
    );
    Ok(())
}

fn mixed(program: &std::path::Path, clients: u64, each: u64) -> anyhow::Result<()> {
    let mut server = GoServer::http(program)?;
    let truth = truth(&server, 40)?;
    let before = server.answered()?;
    let recording = Recording::of_pids(&[server.pid()])?;
    let asked = each * ENDPOINTS.len() as u64;
    h2load(asked, clients, server.urls())?.require_all_succeeded(asked)?;
    let report = recording.stop()?.complete_report()?;
    server.server().require_running()?;
    for ((path, before), (_, after)) in before.iter().zip(server.answered()?) {
        assert_eq!(after - before, each, "the server's own count of {path}");
    }
    require_endpoints(&report, &truth, each)
}

#[test]
fn every_toolchain() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for toolchain in Toolchain::all()? {
        let program = build(&toolchain, Build::Plain)?;
        mixed(&program, 8, 200).map_err(|error| error.context(format!("{toolchain:?}")))?;
    }
    Ok(())
}

#[test]
fn every_concurrency() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let program = build(&Toolchain::newest()?, Build::Plain)?;
    for (clients, each) in [(1, 40), (8, 400), (64, 640), (256, 1024)] {
        mixed(&program, clients, each)
            .map_err(|error| error.context(format!("{clients} clients")))?;
    }
    Ok(())
}

/// The same requests through crypto/tls, which allocates next to nothing itself
/// once a connection is set up.
#[test]
fn over_https() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for (toolchain, clients) in [(Toolchain::Debian, 8), (Toolchain::newest()?, 64)] {
        let program = build(&toolchain, Build::Stripped)?;
        let truth = truth(&GoServer::http(&program)?, 40)?;
        let mut server = GoServer::https(&program)?;
        let recording = Recording::of_pids(&[server.pid()])?;
        let (each, paths) = (4 * clients, ENDPOINTS.len() as u64);
        h2load(each * paths, clients, server.urls())?.require_all_succeeded(each * paths)?;
        let report = recording.stop()?.complete_report()?;
        server.server().require_running()?;
        require_endpoints(&report, &truth, each)
            .map_err(|error| error.context(format!("{toolchain:?}")))?;
    }
    Ok(())
}

#[test]
fn every_build() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for way in Build::ALL {
        let program = build(&Toolchain::newest()?, way)?;
        mixed(&program, 8, 160).map_err(|error| error.context(format!("{way:?}")))?;
    }
    Ok(())
}

/// What is allocated is told by type, and what the garbage collector takes back
/// is said not to be known.
#[test]
fn types_and_what_is_not_known() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let program = build(&Toolchain::newest()?, Build::Stripped)?;
    let server = GoServer::http(&program)?;
    let recording = Recording::of_pids(&[server.pid()])?;
    h2load(160, 4, server.urls())?.require_all_succeeded(160)?;
    let recorded = recording.stop()?;
    let report = recorded.complete_report()?;
    report.require_schema()?;
    assert_eq!(report, recorded.report()?, "live and from the capture");
    let json = report.endpoint("GET", "/json")?;
    let names: Vec<String> = json.types()?.into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"main.record".to_owned()), "{names:?}");
    let (name, bytes) = report
        .endpoint("GET", "/medium")?
        .types()?
        .into_iter()
        .next()
        .unwrap_or_default();
    assert_eq!(name, "uint8");
    assert!(bytes >= 20 * 3 * 32 * 1024, "{bytes} bytes of {name}");
    for path in ENDPOINTS {
        let incomplete = report.endpoint("GET", path)?.incomplete()?;
        for figure in ["peak_bytes", "retained_bytes", "free_bytes"] {
            assert!(
                incomplete.contains(&figure.to_owned()),
                "{path}: {incomplete:?}"
            );
        }
    }
    Ok(())
}
