//! Applications behind a web server, and long connections: FastCGI, uwsgi,
//! WebSocket, server-sent events.
//!
//! In: real servers and clients that count. Out: the same counts in memtrace's
//! report. Deliberately not here: the parsers' own tests, which need no server.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::process::wait_until;
use memtrace_tests::report::Report;
use memtrace_tests::server::{Server, free_port};
use memtrace_tests::{gate, paths};
use serde_json::Value;
use tempfile::TempDir;

const REQUESTS: u64 = 400;
const CLIENTS: u64 = 4;

/// A configuration with its places filled in.
fn configuration(
    name: &str,
    directory: &Path,
    ports: &[(&str, u16)],
) -> anyhow::Result<std::path::PathBuf> {
    let source = paths::program_source(&format!("backends/{name}"));
    let mut text = fs::read_to_string(&source)
        .with_context(|| format!("cannot read {}", source.display()))?
        .replace("{{directory}}", &directory.to_string_lossy());
    for (place, port) in ports {
        text = text.replace(&format!("{{{{{place}}}}}"), &port.to_string());
    }
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// nginx, php-fpm and uWSGI; what they share is in nginx's directory.
struct Stack {
    nginx: Server,
    php: Server,
    uwsgi: Server,
    _shared: TempDir,
}

impl Stack {
    fn start() -> anyhow::Result<Self> {
        let shared = TempDir::new()?;
        let directory = shared.path();
        let ports = [
            ("port", free_port()?),
            ("fastcgi", free_port()?),
            ("uwsgi", free_port()?),
        ];
        for script in ["app.php", "app.py"] {
            fs::copy(
                paths::program_source(&format!("backends/{script}")),
                directory.join(script),
            )?;
        }
        let mut php = Command::new("php-fpm8.2");
        php.args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"])
            .arg(configuration("php-fpm.conf", directory, &ports)?);
        let php = Server::start("php-fpm", php, TempDir::new()?, ports[1].1, None)?;
        let mut uwsgi = Command::new("uwsgi-core");
        uwsgi
            .args(["--plugin", "python3", "--master", "--processes", "2"])
            .args(["--disable-logging", "--die-on-term", "--socket"])
            .arg(format!("127.0.0.1:{}", ports[2].1))
            .arg("--wsgi-file")
            .arg(directory.join("app.py"));
        let uwsgi = Server::start("uwsgi", uwsgi, TempDir::new()?, ports[2].1, None)?;
        wait_until("every worker of uWSGI and php-fpm", || {
            Ok(uwsgi.pids().len() == 3 && php.pids().len() == 7)
        })?;
        let mut nginx = Command::new("nginx");
        nginx
            .arg("-p")
            .arg(directory)
            .arg("-c")
            .arg(configuration("nginx.conf", directory, &ports)?)
            .arg("-e")
            .arg(directory.join("error.log"));
        let nginx = Server::start("nginx", nginx, TempDir::new()?, ports[0].1, None)?;
        Ok(Stack {
            nginx,
            php,
            uwsgi,
            _shared: shared,
        })
    }

    /// Asks for each path so many times; all must be answered.
    fn ask(&self, paths: &[&str]) -> anyhow::Result<()> {
        for path in paths {
            h2load(REQUESTS, CLIENTS, [self.nginx.url(path)])?.require_all_answered(REQUESTS)?;
        }
        Ok(())
    }
}

/// Requests of the rows with this protocol, method and a route that begins like
/// this, by status.
fn rows(report: &Report, protocol: &str, method: &str, route: &str) -> anyhow::Result<Vec<Value>> {
    let rows = report.0["endpoints"].as_array().context("no endpoints")?;
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok(rows
        .iter()
        .filter(|row| {
            text(row, "protocol") == protocol
                && text(row, "method") == method
                && text(row, "route").starts_with(route)
        })
        .cloned()
        .collect())
}

/// An error unless these rows are one, with so many requests, all seen whole.
fn require(
    report: &Report,
    [protocol, method, route]: [&str; 3],
    requests: u64,
) -> anyhow::Result<Value> {
    let found = rows(report, protocol, method, route)?;
    let [row] = &found[..] else {
        let all = &report.0["endpoints"];
        anyhow::bail!("{protocol} {method} {route}: not one row but {found:?} of {all}");
    };
    ensure!(
        row["requests"] == requests && row["observed"] == requests,
        "{protocol} {method} {route}: expected {requests}, found {row}"
    );
    Ok(row.clone())
}

/// Both ends traced: each request is one of nginx and one of php-fpm or uWSGI.
#[test]
fn applications_behind_nginx() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let stack = Stack::start()?;
    // These connections are open when the trace begins, and kept.
    stack.ask(&["/kept/page/100"])?;
    let pids = [stack.nginx.pids(), stack.php.pids(), stack.uwsgi.pids()].concat();
    let recording = Recording::of_pids(&pids)?;
    let sizes = [
        "/kept/page/20000?id=secret",
        "/unix/page/20",
        "/wsgi/page/20000",
    ];
    let missing = [
        "/kept/missing/300",
        "/unix/missing/9000",
        "/wsgi/missing/300",
    ];
    stack.ask(&sizes)?;
    stack.ask(&missing)?;
    let report = recording.stop()?.complete_report()?;
    for (place, protocol) in [("kept", "fastcgi"), ("unix", "fastcgi"), ("wsgi", "uwsgi")] {
        for (what, status) in [("page", "200"), ("missing", "404")] {
            let route = format!("/{place}/{what}/");
            for protocol in ["http/1", protocol] {
                let row = require(&report, [protocol, "GET", &route], REQUESTS)?;
                ensure!(row["status"][status] == REQUESTS, "{route}: {row}");
            }
        }
    }
    ensure!(
        !report.0.to_string().contains("secret"),
        "a value got through"
    );
    Ok(())
}

/// Each message of a WebSocket and each event is a request of its own.
#[test]
fn long_connections() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for loops in [
        ["--loop", "uvloop", "--http", "httptools"],
        ["--loop", "asyncio", "--http", "h11"],
    ] {
        let port = free_port()?;
        let mut uvicorn = Command::new(paths::in_venv("uvicorn")?);
        uvicorn
            .args(["--log-level", "warning", "--no-access-log"])
            .args(["--ws", "websockets", "--port", &port.to_string()])
            .args(loops)
            .arg("stream_app:app")
            .env("PYTHONPATH", paths::program_source("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let server = Server::start("uvicorn", uvicorn, TempDir::new()?, port, None)?;
        let recording = Recording::of_pids(&server.pids())?;
        let output = Command::new(paths::in_venv("python")?)
            .arg(paths::program_source("python/stream_client.py"))
            .arg(port.to_string())
            .output()?;
        ensure!(output.status.success(), "the client failed: {output:?}");
        let counts: Value = serde_json::from_slice(&output.stdout)?;
        let count = |what: &str| counts[what].as_u64().context("no count");
        let report = recording.stop()?.complete_report()?;
        let clients = count("clients")?;
        for ([protocol, method, route], requests) in [
            (["http/1", "GET", "/echo"], clients),
            (["websocket", "MESSAGE", "/echo"], count("answered")?),
            (["http/1", "GET", "/feed/"], clients),
            (["websocket", "PUSH", "/feed/"], count("received")?),
            (["http/1", "GET", "/events/"], clients),
            (["sse", "EVENT", "/events/"], count("events")?),
        ] {
            require(&report, [protocol, method, route], requests)?;
        }
        let pushes = rows(&report, "websocket", "PUSH", "/echo")?;
        ensure!(pushes.is_empty(), "answers are no messages of their own");
    }
    Ok(())
}
