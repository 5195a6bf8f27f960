//! Probes that come and go in a busy Go server do it no harm: no request fails,
//! nothing hangs, nothing crashes, and no probe is left.
//!
//! In: the Go server by the oldest and the newest toolchain, under load over HTTP
//! and HTTPS, while memtrace attaches and detaches; for how long is told by
//! `MEMTRACE_SOAK_SECONDS`. Out: the load generator's counts, the server's own,
//! the kernel's list of probes. Deliberately not here: what memtrace reports; see
//! `live_go.rs`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use memtrace_tests::gate;
use memtrace_tests::go::{Build, ENDPOINTS, GoServer, Toolchain, build};
use memtrace_tests::load::H2load;
use memtrace_tests::memtrace::{Recording, exit_code};
use memtrace_tests::probes;

/// How long each server is under load, seconds; a proper soak takes 600.
const SECONDS: &str = "MEMTRACE_SOAK_SECONDS";
const SECONDS_DEFAULT: u64 = 6;

/// How long one trace takes, at least: attached for about as long as detached.
const TRACED: Duration = Duration::from_millis(700);

/// Requests of one round of load, over all endpoints.
const ROUND: u64 = 250 * ENDPOINTS.len() as u64;
const CLIENTS: u64 = 32;

fn soak_time() -> anyhow::Result<Duration> {
    let seconds = match std::env::var(SECONDS) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{SECONDS} is no number: {text:?}"))?,
        Err(_) => SECONDS_DEFAULT,
    };
    Ok(Duration::from_secs(seconds))
}

/// Load until the time is up; returns how many requests were answered.
fn load_until(end: Instant, urls: &[String]) -> anyhow::Result<u64> {
    let mut answered = 0;
    loop {
        H2load::start(ROUND, CLIENTS, urls)?
            .finish()?
            .require_all_succeeded(ROUND)?;
        answered += ROUND;
        if Instant::now() >= end {
            return Ok(answered);
        }
    }
}

/// Traces come and go until the time is up; returns how many.
fn attach_and_detach_until(end: Instant, pid: u32) -> anyhow::Result<u64> {
    let mut traces = 0;
    loop {
        let recording = Recording::of_pids(&[pid])?;
        std::thread::sleep(TRACED);
        recording.stop()?.require_exit_code(exit_code::OK)?;
        traces += 1;
        if Instant::now() >= end {
            return Ok(traces);
        }
    }
}

/// Returns how many requests the server has answered.
fn soak(server: &mut GoServer) -> anyhow::Result<u64> {
    let end = Instant::now() + soak_time()?;
    let urls = server.urls();
    let pid = server.pid();
    let (answered, traces) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load_until(end, &urls));
        let traces = attach_and_detach_until(end, pid);
        (load.join(), traces)
    });
    let Ok(answered) = answered else {
        bail!("the thread of the load generator panicked");
    };
    let (answered, traces) = (answered?, traces?);
    server.server().require_running()?;
    assert!(traces >= 2, "{traces} traces");
    println!("{answered} requests answered during {traces} traces");
    assert_eq!(probes::changed_code(pid)?, []);
    Ok(answered)
}

fn soak_over_http(toolchain: &Toolchain) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let mut server = GoServer::http(build(toolchain, Build::Plain)?)?;
    let answered = soak(&mut server)?;
    let counted: u64 = server
        .answered()?
        .iter()
        .map(|(_, requests)| requests)
        .sum();
    assert_eq!(counted, answered, "the server's own count");
    Ok(())
}

#[test]
fn oldest_over_http() -> anyhow::Result<()> {
    soak_over_http(&Toolchain::Debian)
}

#[test]
fn newest_over_http() -> anyhow::Result<()> {
    soak_over_http(&Toolchain::newest()?)
}

#[test]
fn newest_over_https() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let mut server = GoServer::https(build(&Toolchain::newest()?, Build::Plain)?)?;
    soak(&mut server).map(drop)
}
