//! However a trace ends, the target serves on: no probe left, no request failed.
//! However a target ends, the trace is kept.
//!
//! In: signals to either side, under load. Out: servers at work, code as its
//! file has it, captures that open. Deliberately not here: wrong arguments and
//! full disks; see `live_faults.rs`.

use memtrace_tests::client::RawConnection;
use memtrace_tests::gate;
use memtrace_tests::load::{H2load, h2load};
use memtrace_tests::memtrace::{Recording, exit_code, pid_arguments};
use memtrace_tests::nginx::Nginx;
use memtrace_tests::probes::changed_code;
use memtrace_tests::process::{Signal, is_alive, signal, wait_until};
use memtrace_tests::server::{PythonServer, Server, Serving};

/// No byte of the processes' code is other than in its file. The kernel takes
/// probes out a moment after the tracer is gone.
fn require_no_probe_left(pids: &[u32]) -> anyhow::Result<()> {
    for &pid in pids {
        wait_until(&format!("process {pid}'s code to be its own again"), || {
            Ok(changed_code(pid)?.is_empty())
        })?;
    }
    Ok(())
}

fn serves_on_after(by: Signal) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let mut server = Server::alloc_server(Serving::Threads(16), None)?;
    let pids = server.pids();
    let recording = Recording::of_pids(&pids)?;
    // Else the check below could not fail.
    assert!(
        !changed_code(pids[0])?.is_empty(),
        "no probe to be seen while tracing"
    );
    let load = H2load::start(100_000, 8, [server.url("/alloc/1000")])?;
    wait_until("the load to be under way", || {
        Ok(server.alloc_server_counts()?.count("/requests/alloc")? > 1000)
    })?;
    let recorded = recording.stop_by(by)?;
    load.finish()?.require_all_succeeded(100_000)?;
    server.require_running()?;
    require_no_probe_left(&pids)?;
    h2load(1000, 8, [server.url("/alloc/1000")])?.require_all_succeeded(1000)?;
    if by == Signal::KILL {
        assert_eq!(recorded.exit_code, None);
        // Whatever was written is a report; how much that is, is not promised.
        if recorded.capture.exists() && recorded.capture_bytes()? > 0 {
            assert!(recorded.report()?.is_truncated()?);
        }
    } else {
        recorded.require_exit_code(exit_code::OK)?;
        assert!(recorded.report()?.requests()? > 0);
    }
    Ok(())
}

#[test]
fn the_server_serves_on_after_ctrl_c() -> anyhow::Result<()> {
    serves_on_after(Signal::INT)
}

#[test]
fn the_server_serves_on_after_sigterm() -> anyhow::Result<()> {
    serves_on_after(Signal::TERM)
}

#[test]
fn the_server_serves_on_after_sigkill() -> anyhow::Result<()> {
    serves_on_after(Signal::KILL)
}

/// nginx and Python, each traced four times by a memtrace that is killed.
#[test]
fn servers_serve_on_through_traces_killed_one_after_the_other() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let nginx = Nginx::start(None)?;
    let python = PythonServer::UvicornFastApi.start(None)?;
    for (server, path, requests) in [
        (nginx.server(), "/file.txt", 60_000),
        (&python, "/plain", 12_000),
    ] {
        let load = H2load::start(requests, 8, [server.url(path)])?;
        for _ in 0..4 {
            let recording = Recording::of_pids(&server.pids())?;
            recording.stop_by(Signal::KILL)?;
        }
        load.finish()?.require_all_succeeded(requests)?;
        require_no_probe_left(&server.pids())?;
    }
    Ok(())
}

#[test]
fn a_trace_ends_when_its_time_is_up() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Epoll, None)?;
    let mut arguments = pid_arguments(&server.pids());
    arguments.extend(["--duration".into(), "3s".into()]);
    let recording = Recording::with(arguments)?;
    h2load(100, 4, [server.url("/alloc/1000")])?.require_all_succeeded(100)?;
    let report = recording.finish()?.complete_report()?;
    report
        .endpoint("GET", "/alloc/1000")?
        .require_requests(100)?;
    let duration = report.number("/capture/duration_ns")?;
    assert!((2.5e9..6e9).contains(&duration), "{duration} ns");
    require_no_probe_left(&server.pids())
}

/// The trace ends with its target, and is whole.
#[test]
fn a_target_that_exits_or_is_killed() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for by in [Signal::TERM, Signal::KILL] {
        let mut server = Server::alloc_server(Serving::Threads(4), None)?;
        let recording = Recording::of_pids(&server.pids())?;
        h2load(
            1000,
            4,
            [server.url("/alloc/1000"), server.url("/keep/100")],
        )?
        .require_all_succeeded(1000)?;
        signal(server.pid(), by)?;
        server.running().wait()?;
        let recorded = recording.finish()?;
        let report = recorded.complete_report()?;
        report
            .endpoint("GET", "/alloc/1000")?
            .require_requests(500)?;
        report.endpoint("GET", "/keep/100")?.require_requests(500)?;
        assert_eq!(recorded.report()?, report);
    }
    Ok(())
}

/// In the middle of its load: what was answered was seen.
#[test]
fn a_target_that_is_killed_under_load() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let mut server = Server::alloc_server(Serving::Threads(4), None)?;
    let recording = Recording::of_pids(&server.pids())?;
    let mut connection = RawConnection::open(server.port())?;
    for _ in 0..500 {
        assert_eq!(connection.get("/alloc/1000")?.status, 200);
    }
    let mut in_the_middle = RawConnection::open(server.port())?;
    in_the_middle
        .send("POST /alloc/1000 HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhal")?;
    server.running().kill()?;
    let recorded = recording.finish()?;
    recorded.require_exit_code(exit_code::OK)?;
    let row = recorded.report()?.endpoint("GET", "/alloc/1000")?;
    assert_eq!(row.observed()?, 500);
    Ok(())
}

/// One worker of two ends and its master starts another: the trace goes on and
/// takes the new one in.
#[test]
fn a_worker_that_its_master_restarts() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let nginx = Nginx::start(None)?;
    let server = nginx.server();
    let recording = Recording::of_pids(&server.pids())?;
    let url = server.url("/proxied/alloc/500");
    h2load(1000, 8, [&url])?.require_all_succeeded(1000)?;
    let before = server.pids();
    for &worker in &before[1..] {
        signal(worker, Signal::KILL)?;
        wait_until("the worker's end", || Ok(!is_alive(worker)))?;
        nginx.wait_for_workers()?;
    }
    assert!(server.pids()[1..].iter().all(|pid| !before.contains(pid)));
    h2load(1000, 8, [&url])?.require_all_succeeded(1000)?;
    let report = recording.stop()?.complete_report()?;
    report
        .endpoint("GET", "/proxied/alloc/500")?
        .require_requests(2000)?;
    Ok(())
}

/// gunicorn starts its new worker from a module it imports afresh.
#[test]
fn a_python_worker_that_its_master_restarts() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = PythonServer::GunicornFlaskThreads.start(None)?;
    let recording = Recording::of_pids(&server.pids())?;
    let url = server.url("/plain");
    h2load(400, 8, [&url])?.require_all_succeeded(400)?;
    let worker = server.pids()[1];
    signal(worker, Signal::KILL)?;
    wait_until("gunicorn's new worker", || {
        let pids = server.pids();
        let ready = |pid: &u32| server.directory().join(format!("{pid}.counts")).exists();
        Ok(pids.len() == 3 && !pids.contains(&worker) && pids[1..].iter().all(ready))
    })?;
    h2load(400, 8, [&url])?.require_all_succeeded(400)?;
    let report = recording.stop()?.complete_report()?;
    let counts = server.python_counts()?;
    assert_eq!(counts["/plain"]["200"], 800);
    report.endpoint("GET", "/plain")?.require_requests(800)?;
    Ok(())
}

/// A target that forgets to answer is no reason to hang.
#[test]
fn a_stopped_target_does_not_hold_the_tracer() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(2), None)?;
    let recording = Recording::of_pids(&server.pids())?;
    h2load(100, 2, [server.url("/alloc/1000")])?.require_all_succeeded(100)?;
    signal(server.pid(), Signal::STOP)?;
    let recorded = recording.stop();
    signal(server.pid(), Signal::CONT)?;
    recorded?
        .complete_report()?
        .endpoint("GET", "/alloc/1000")?
        .require_requests(100)?;
    h2load(100, 2, [server.url("/alloc/1000")])?.require_all_succeeded(100)?;
    require_no_probe_left(&server.pids())
}
