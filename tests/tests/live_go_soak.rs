//! Probes that come and go in a busy Go server do it no harm: no request fails,
//! nothing hangs, nothing crashes, and no probe is left.
//!
//! In: the Go server by the oldest and the newest toolchain, under load over HTTP
//! and HTTPS, while memtrace attaches and detaches; for how long is told by
//! `MEMTRACE_SOAK_SECONDS`. Out: the load generator's counts, the server's own,
//! the kernel's list of probes. Deliberately not here: what memtrace reports; see
//! `live_go.rs`.

use memtrace_tests::gate;
use memtrace_tests::go::{Build, GoServer, Toolchain, build};
use memtrace_tests::soak::soak;

/// Returns how many requests the server has answered.
fn soaked(server: &mut GoServer) -> anyhow::Result<u64> {
    let answered = soak(server.pid(), &server.urls())?;
    server.server().require_running()?;
    Ok(answered)
}

fn soak_over_http(toolchain: &Toolchain) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let mut server = GoServer::http(build(toolchain, Build::Plain)?)?;
    let answered = soaked(&mut server)?;
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
    soaked(&mut server).map(drop)
}
