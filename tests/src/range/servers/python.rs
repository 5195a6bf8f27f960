//! Python's servers: gunicorn, uWSGI and waitress with a WSGI application;
//! uvicorn, hypercorn and granian with an ASGI one.
//!
//! In: the applications in `programs/range/python`. Out: subjects.

use std::process::Command;

use anyhow::Context;
use tempfile::TempDir;

use crate::paths;
use crate::process::wait_until;
use crate::range::backends::Backends;
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::servers::nginx;
use crate::range::{Bytes, Counts, Lengths, Started, Subject};
use crate::server::{Server, free_port};

/// Large beside the 256 KiB that asyncio allocates for each read, and beside what
/// frameworks need for a request.
///
/// All amounts have seven digits, so that paths are equally long.
const BYTES: u64 = 5_000_000;

fn wsgi_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::overhead("/plain"),
        Endpoint::asked("/freed", BYTES),
        Endpoint::asked("/at-once", BYTES),
        Endpoint::asked("/later", BYTES),
        Endpoint::asked("/elsewhere", BYTES),
        Endpoint::kept("/kept", BYTES),
        Endpoint::asked("/sleep", BYTES),
        Endpoint::asked("/database", BYTES),
        Endpoint::asked("/cache", BYTES),
    ]
}

fn asgi_endpoints() -> Vec<Endpoint> {
    let mut endpoints = wsgi_endpoints();
    endpoints.extend([
        Endpoint::asked("/gather", BYTES),
        Endpoint::asked("/to-thread", BYTES),
        Endpoint::asked("/sync", BYTES),
    ]);
    endpoints
}

const fn wsgi(
    name: &'static str,
    model: &'static str,
    start: fn(&Backends) -> anyhow::Result<Started>,
) -> Subject {
    Subject {
        name,
        model,
        bytes: Bytes::Libc,
        driver: Driver::Http1,
        lengths: Lengths::AsSent,
        endpoints: wsgi_endpoints,
        start,
    }
}

const fn asgi(
    name: &'static str,
    model: &'static str,
    start: fn(&Backends) -> anyhow::Result<Started>,
) -> Subject {
    Subject {
        endpoints: asgi_endpoints,
        ..wsgi(name, model, start)
    }
}

/// The Python subjects.
#[must_use]
pub fn subjects() -> Vec<Subject> {
    vec![
        wsgi("gunicorn sync", "a process for each request", |backends| {
            gunicorn(backends, &["--workers", "4"], 4)
        }),
        wsgi("gunicorn gthread", "threads", |backends| {
            let threads = ["--worker-class", "gthread", "--threads", "8"];
            gunicorn(backends, &[&threads[..], &["--workers", "2"]].concat(), 2)
        }),
        wsgi("gunicorn gevent", "greenlets", |backends| {
            gunicorn(backends, &["--worker-class", "gevent", "--workers", "1"], 1)
        }),
        asgi("uvicorn asyncio", "asyncio", |backends| {
            uvicorn(backends, &["--loop", "asyncio", "--http", "h11"])
        }),
        asgi("uvicorn uvloop", "asyncio on uvloop", |backends| {
            uvicorn(backends, &["--loop", "uvloop", "--http", "httptools"])
        }),
        wsgi("uWSGI", "processes with threads", |backends| {
            uwsgi(backends, "--http11-socket")
        }),
        Subject {
            lengths: Lengths::InOrder,
            ..wsgi("uWSGI behind nginx", "uwsgi protocol", behind_nginx)
        },
        wsgi("waitress", "a thread reads, a pool works", waitress),
        asgi("hypercorn", "asyncio", |backends| {
            hypercorn(backends, false)
        }),
        Subject {
            driver: Driver::Http2,
            lengths: Lengths::InOrder,
            ..asgi("hypercorn HTTP/2", "asyncio, streams", |backends| {
                hypercorn(backends, false)
            })
        },
        Subject {
            driver: Driver::Https2,
            lengths: Lengths::InOrder,
            ..asgi(
                "hypercorn HTTP/2 TLS",
                "asyncio, TLS, streams",
                |backends| hypercorn(backends, true),
            )
        },
        asgi("granian", "threads of another runtime", granian),
    ]
}

fn gunicorn(backends: &Backends, class: &[&str], workers: usize) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("gunicorn")?);
    command
        .args(["--log-level", "warning", "--backlog", "1024"])
        .args(["--keep-alive", "60", "--bind", &format!("127.0.0.1:{port}")])
        .args(class)
        .arg("wsgi_app:application");
    start(backends, "gunicorn", command, port, workers)
}

fn uvicorn(backends: &Backends, loops: &[&str]) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("uvicorn")?);
    command
        .args(["--log-level", "warning", "--no-access-log"])
        .args(["--port", &port.to_string()])
        .args(["--timeout-keep-alive", "60"])
        .args(loops)
        .arg("asgi_app:application");
    start(backends, "uvicorn", command, port, 1)
}

fn granian(backends: &Backends) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("granian")?);
    command
        .args([
            "--interface",
            "asgi",
            "--log-level",
            "warning",
            "--workers",
            "1",
        ])
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .arg("asgi_app:application");
    start(backends, "granian", command, port, 1)
}

fn hypercorn(backends: &Backends, tls: bool) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("hypercorn")?);
    command
        .args(["--log-level", "warning", "--workers", "1"])
        .args(["--keep-alive", "60", "--backlog", "1024"])
        .args(["--bind", &format!("127.0.0.1:{port}")])
        .arg("asgi_app:application");
    if tls {
        let certificate = backends.certificate();
        command.arg("--keyfile").arg(certificate.key());
        command.arg("--certfile").arg(certificate.certificate());
    }
    start(backends, "hypercorn", command, port, 1)
}

fn behind_nginx(backends: &Backends) -> anyhow::Result<Started> {
    let started = uwsgi(backends, "--uwsgi-socket")?;
    let locations = format!(
        "location / {{ include /etc/nginx/uwsgi_params; uwsgi_pass 127.0.0.1:{}; }}",
        started.server.port()
    );
    Ok(Started {
        front: Some(nginx::start(&locations, None)?),
        ..started
    })
}

fn uwsgi(backends: &Backends, protocol: &str) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut command = Command::new("uwsgi");
    command
        .args(["--plugin", "python311", "--disable-logging", "--master"])
        .args(["--processes", "2", "--threads", "4", "--listen", "1024"])
        .args([protocol, &format!("127.0.0.1:{port}")])
        .arg("--virtualenv")
        .arg(paths::in_venv("")?.join(".."))
        .args(["--lazy-apps", "--die-on-term", "--wsgi-file"])
        .arg(paths::program_source("range/python/wsgi_app.py"));
    start(backends, "uwsgi", command, port, 2)
}

fn waitress(backends: &Backends) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("waitress-serve")?);
    command
        .args(["--threads", "8", "--backlog", "1024"])
        .args(["--connection-limit", "1000", "--channel-timeout", "60"])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("wsgi_app:application");
    start(backends, "waitress", command, port, 1)
}

/// Starts it; ready when every worker process has its file of counts.
fn start(
    backends: &Backends,
    name: &str,
    mut command: Command,
    port: u16,
    workers: usize,
) -> anyhow::Result<Started> {
    let directory = TempDir::new().context("no directory for a server")?;
    let search = std::env::join_paths([
        paths::program_source("range/python"),
        paths::program_source("python"),
    ])?;
    command
        .env("COUNTS_DIR", directory.path())
        .env("PYTHONPATH", search)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    backends.name_in(&mut command);
    let mut server = Server::start(name, command, directory, port, backends.shim())?;
    wait_until("every worker of the Python server", || {
        server.require_running()?;
        Ok(server.counts_files()? == workers)
    })?;
    Ok(Started::direct(server, Vec::new(), Counts::Endpoint))
}
