//! Servers that are busy while the trace begins: a request is reported with all
//! that it allocated, or not at all.
//!
//! In: servers, and connections that ask before, while and after memtrace attaches.
//! Out: for each request in the report the bytes it asked for. Deliberately not
//! here: how long attaching takes.

use std::ops::RangeInclusive;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context;
use memtrace_tests::client::RawConnection;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::process::wait_until;
use memtrace_tests::range::listing;
use memtrace_tests::server::{PythonServer, Server, Serving, free_port};
use memtrace_tests::{gate, paths};
use tempfile::TempDir;

const CONNECTIONS: u64 = 4;
/// Requests of each connection that begin when every probe is in place.
const AFTERWARDS: u64 = 50;

/// `bytes`: what each request for the path allocates, with what the server needs
/// for itself.
fn busy(
    start: impl Fn() -> anyhow::Result<Server>,
    path: &str,
    bytes: &RangeInclusive<u64>,
) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = start()?;
    let pids = server.pids();
    let port = server.port();
    let (answered, is_traced) = (AtomicU64::new(0), AtomicBool::new(false));
    let ask = || -> anyhow::Result<()> {
        let mut connection = RawConnection::open(port)?;
        let mut left = AFTERWARDS;
        while left != 0 {
            if is_traced.load(Ordering::Acquire) {
                left -= 1;
            }
            assert_eq!(connection.get(path)?.status, 200);
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let recording = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(ask)).collect();
        let recording = wait_until("the server to be busy", || {
            Ok(answered.load(Ordering::Relaxed) >= CONNECTIONS * 10)
        })
        .and_then(|()| Recording::of_pids(&pids));
        // Whatever has become of it: the clients must end.
        is_traced.store(true, Ordering::Release);
        for client in clients {
            client.join().ok().context("a client panicked")??;
        }
        recording
    })?;
    let recorded = recording.stop()?;
    recorded.complete_report()?;
    let requests = listing::of_capture(&recorded.capture)?;
    let asked = answered.load(Ordering::Relaxed);
    assert!(requests.len() as u64 >= CONNECTIONS * AFTERWARDS);
    assert!(requests.len() as u64 <= asked);
    for (number, request) in requests.iter().enumerate() {
        assert!(request.complete, "request {number}: {request:?}");
        assert!(
            bytes.contains(&request.alloc_bytes),
            "request {number} of {}, asked were {asked}: {request:?}",
            requests.len()
        );
    }
    Ok(())
}

#[test]
fn threads() -> anyhow::Result<()> {
    let start = || Server::alloc_server(Serving::Threads(4), None);
    busy(start, "/alloc/1000", &(1000..=1000))
}

#[test]
fn event_loop() -> anyhow::Result<()> {
    let start = || Server::alloc_server(Serving::Epoll, None);
    busy(start, "/alloc/1000", &(1000..=1000))
}

/// Whose program has so many functions that to attach to it takes a while.
#[test]
fn node() -> anyhow::Result<()> {
    let start = || {
        let port = free_port()?;
        let mut command = Command::new("node");
        command
            .arg(paths::program_source("node/server.js"))
            .arg(port.to_string());
        Server::start("node", command, TempDir::new()?, port, None)
    };
    busy(start, "/big/1000000", &(1_000_000..=1_300_000))
}

/// Two processes, of which one is attached to after the other.
#[test]
fn gunicorn() -> anyhow::Result<()> {
    let start = || PythonServer::GunicornFlaskThreads.start(None);
    busy(start, "/big/1000000", &(1_000_000..=1_300_000))
}
