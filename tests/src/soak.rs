//! Probes that come and go in a busy server.
//!
//! In: a server's process and what to ask it for; for how long is told by
//! `MEMTRACE_SOAK_SECONDS`. Out: how many requests were answered, all of which
//! have to be, and how often the process was traced meanwhile. Deliberately not
//! here: what memtrace reports.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::load::H2load;
use crate::memtrace::{Recording, exit_code};
use crate::probes;

/// How long each server is under load, seconds; a proper soak takes 600.
const SECONDS: &str = "MEMTRACE_SOAK_SECONDS";
const SECONDS_DEFAULT: u64 = 6;

/// How long one trace takes, at least: attached for about as long as detached.
const TRACED: Duration = Duration::from_millis(700);

/// Requests of one round of load, for each URL.
const ROUND: u64 = 250;
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
    let round = ROUND * urls.len() as u64;
    let mut answered = 0;
    loop {
        H2load::start(round, CLIENTS, urls)?
            .finish()?
            .require_all_succeeded(round)?;
        answered += round;
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

/// Asks for all of these while the process is traced again and again. Returns how
/// many requests were answered.
///
/// # Errors
/// A request failed, a trace did, or a probe is left.
pub fn soak(pid: u32, urls: &[String]) -> anyhow::Result<u64> {
    let end = Instant::now() + soak_time()?;
    let (answered, traces) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load_until(end, urls));
        let traces = attach_and_detach_until(end, pid);
        (load.join(), traces)
    });
    let Ok(answered) = answered else {
        bail!("the thread of the load generator panicked");
    };
    let (answered, traces) = (answered?, traces?);
    ensure!(traces >= 2, "{traces} traces");
    println!("{answered} requests answered during {traces} traces");
    let changed = probes::changed_code(pid)?;
    ensure!(changed.is_empty(), "probes are left: {changed:?}");
    Ok(answered)
}
