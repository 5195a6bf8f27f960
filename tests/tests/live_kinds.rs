//! Kinds of sockets and allocators that the common servers do not have: unix
//! sockets, IPv6, an allocator loaded with dlopen, operator new.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use memtrace_tests::memtrace::Recording;
use memtrace_tests::probes::changed_code;
use memtrace_tests::process::wait_until;
use memtrace_tests::server::{Server, free_port};
use memtrace_tests::{gate, programs};
use tempfile::TempDir;

const REQUESTS: u64 = 50;

struct Kinds {
    server: Server,
    socket: PathBuf,
}

fn start(library: &str) -> anyhow::Result<Kinds> {
    let directory = TempDir::new()?;
    let socket = directory.path().join("socket");
    let port = free_port()?;
    let mut command = Command::new(programs::kinds_server()?);
    command.arg(port.to_string()).arg(&socket).arg(library);
    let server = Server::start("kinds_server", command, directory, port, None)?;
    Ok(Kinds { server, socket })
}

/// Asks for `path` so many times on one connection; every answer must be good.
fn ask(mut stream: impl Read + Write, path: &str, times: u64) -> anyhow::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
    for _ in 0..times {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let mut answer = [0; ANSWER.len()];
        stream.read_exact(&mut answer).context("no whole answer")?;
        ensure!(
            answer == ANSWER,
            "{path}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(())
}

fn tcp(address: &str, port: u16) -> anyhow::Result<TcpStream> {
    TcpStream::connect((address, port)).context("cannot connect")
}

/// Requests over a unix socket and over IPv6 are seen like those over IPv4.
#[test]
fn unix_sockets_and_ipv6() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let Kinds { server, socket } = start("none")?;
    let recording = Recording::of_pids(&server.pids())?;
    ask(UnixStream::connect(&socket)?, "/plain/1100", REQUESTS)?;
    ask(tcp("::1", server.port())?, "/plain/2200", REQUESTS)?;
    ask(tcp("127.0.0.1", server.port())?, "/plain/3300", REQUESTS)?;
    let report = recording.stop()?.complete_report()?;
    let row = report.endpoint("GET", "/plain/1100")?;
    row.require_requests(3 * REQUESTS)?;
    let bytes = (1100 + 2200 + 3300) * REQUESTS;
    assert_eq!(row.figure("alloc_bytes", "total")?, bytes as f64);
    assert_eq!(report.count("/connections/accepted")?, 3);
    Ok(())
}

fn loaded_later(library: &str) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let Kinds { server, socket: _ } = start(library)?;
    let recording = Recording::of_pids(&server.pids())?;
    ask(tcp("127.0.0.1", server.port())?, "/load", 1)?;
    let name = library.trim_end_matches(char::is_numeric);
    wait_until("probes in the loaded library", || {
        Ok(changed_code(server.pid())?
            .iter()
            .any(|difference| difference.file.contains(name)))
    })?;
    ask(tcp("127.0.0.1", server.port())?, "/loaded/5000", REQUESTS)?;
    ask(tcp("127.0.0.1", server.port())?, "/new/700", REQUESTS)?;
    let report = recording.stop()?.complete_report()?;
    for (path, bytes) in [("/loaded/5000", 5000), ("/new/700", 700)] {
        let row = report.endpoint("GET", path)?;
        row.require_requests(REQUESTS)?;
        assert_eq!(
            row.figure("alloc_bytes", "total")?,
            (bytes * REQUESTS) as f64
        );
        assert_eq!(row.figure("alloc_count", "total")?, REQUESTS as f64);
        assert_eq!(row.figure("retained_bytes", "total")?, 0.0);
    }
    Ok(())
}

/// tcmalloc, loaded while it is traced: its malloc, and its operator new, which
/// does not end in it.
#[test]
fn tcmalloc_loaded_later() -> anyhow::Result<()> {
    loaded_later("libtcmalloc_minimal.so.4")
}

/// mimalloc, loaded while it is traced.
#[test]
fn mimalloc_loaded_later() -> anyhow::Result<()> {
    loaded_later("libmimalloc.so.2")
}
