//! HTTP/2 and gRPC on real servers: requests and statuses by endpoint, and known
//! bytes, with one stream and with many at once on a connection.
//!
//! In: servers and clients that count. Out: the same counts in memtrace's
//! report. Deliberately not here: the parser's own tests, which need no server.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use memtrace_tests::load::{H2load, LoadCounts};
use memtrace_tests::memtrace::Recording;
use memtrace_tests::process::{self, wait_until};
use memtrace_tests::report::{Report, require_within};
use memtrace_tests::server::{RequestCounts, Server, free_port};
use memtrace_tests::{gate, paths};
use serde_json::Value;
use tempfile::TempDir;

/// Requests of one connection at once.
const STREAMS: [u64; 3] = [1, 8, 64];

/// Whether a server speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Clear,
    Tls,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Clear, Self::Tls];

    fn url(self, port: u16, path: &str) -> String {
        let scheme = match self {
            Self::Clear => "http",
            Self::Tls => "https",
        };
        format!("{scheme}://127.0.0.1:{port}{path}")
    }
}

/// `key.pem` and `certificate.pem` in a directory.
fn make_certificate(directory: &Path) -> anyhow::Result<()> {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-noenc", "-days", "2", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", "/CN=127.0.0.1", "-keyout", "key.pem"])
        .args(["-out", "certificate.pem"])
        .current_dir(directory)
        .output()
        .context("cannot run openssl: run `cargo xtask setup`")?;
    ensure!(output.status.success(), "no certificate: {output:?}");
    Ok(())
}

fn load(requests: u64, clients: u64, streams: u64, urls: &[String]) -> anyhow::Result<LoadCounts> {
    H2load::start_streams(requests, clients, streams, urls)?.finish()
}

/// hypercorn with `http2_app.py`.
fn hypercorn(transport: Transport) -> anyhow::Result<Server> {
    let directory = TempDir::new()?;
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("hypercorn")?);
    command
        .args(["--bind", &format!("127.0.0.1:{port}"), "--keep-alive", "60"])
        .arg("http2_app:application")
        .current_dir(directory.path())
        .env("COUNTS_DIR", directory.path())
        .env("PYTHONPATH", paths::program_source("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if transport == Transport::Tls {
        make_certificate(directory.path())?;
        command.args(["--certfile", "certificate.pem", "--keyfile", "key.pem"]);
    }
    Server::start("hypercorn", command, directory, port, None)
}

/// What hypercorn's application says of its own requests since `before`.
fn counted(transport: Transport, port: u16) -> anyhow::Result<RequestCounts> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure"])
        .arg("--http2-prior-knowledge")
        .arg(transport.url(port, "/counts"))
        .output()
        .context("cannot run curl: run `cargo xtask setup`")?;
    ensure!(output.status.success(), "no counts: {output:?}");
    serde_json::from_slice(&output.stdout).context("the counts are no JSON")
}

fn count(counts: &RequestCounts, path: &str, status: &str) -> u64 {
    let of_path = counts.get(path);
    let count = of_path.and_then(|by_status| by_status.get(status));
    count.copied().unwrap_or(0)
}

/// A path, the status of its answers, and the bytes that a request allocates
/// there beside what every request does.
type Row = (&'static str, &'static str, f64);

/// Paths of `http2_app.py`, the plain one first.
const TASKS: [Row; 6] = [
    ("/plain/0", "200", 0.0),
    ("/block/20000000", "200", 20e6),
    ("/sleep/12000000", "200", 24e6),
    ("/gather/11000000", "200", 22e6),
    ("/thread/25000000", "200", 25e6),
    ("/missing/18000000", "404", 18e6),
];

/// Paths of `http2_server.js`.
const NODE: [Row; 3] = [
    ("/plain/0", "200", 0.0),
    ("/block/20000000", "200", 20e6),
    ("/missing/18000000", "404", 18e6),
];

/// More than what belongs to a request whatever it does (buffers of asyncio for
/// reading, 256 KiB each), and less than any block.
const OWN_BYTES_MAX: f64 = 2e6;

/// Requests of each row.
const EACH: u64 = 64;

/// Each row has its requests and statuses, and no request another one's block.
fn require_requests(report: &Report, rows: &[Row]) -> anyhow::Result<()> {
    for (path, status, bytes) in rows {
        let row = report.endpoint("GET", path)?;
        row.require_requests(EACH)?;
        let expected = BTreeMap::from([((*status).to_owned(), EACH)]);
        ensure!(row.statuses()? == expected, "{path}: {:?}", row.statuses()?);
        let largest = row.figure("alloc_bytes", "max")?;
        ensure!(largest < bytes + OWN_BYTES_MAX, "{path}: {largest} bytes");
    }
    Ok(())
}

/// Each request has its block.
fn require_blocks(report: &Report, rows: &[Row]) -> anyhow::Result<()> {
    let mean = |path| report.endpoint("GET", path)?.figure("alloc_bytes", "mean");
    let plain = mean(rows[0].0)?;
    for (path, _, bytes) in &rows[1..] {
        require_within(
            &format!("mean of {path}"),
            mean(path)? - plain,
            *bytes,
            0.02,
        )?;
    }
    Ok(())
}

fn hypercorn_streams(transport: Transport, streams: u64) -> anyhow::Result<()> {
    let server = hypercorn(transport)?;
    let urls = TASKS.map(|(path, ..)| transport.url(server.port(), path));
    let requests = EACH * TASKS.len() as u64;
    // The first requests import modules and fill caches: not what is measured.
    load(requests, 1, streams, &urls)?.require_all_answered(requests)?;
    let before = counted(transport, server.port())?;
    let recording = Recording::of_pids(&server.pids())?;
    load(requests, 1, streams, &urls)?.require_all_answered(requests)?;
    let report = recording.stop()?.complete_report()?;
    let after = counted(transport, server.port())?;
    for (path, status, _) in TASKS {
        let own = count(&after, path, status) - count(&before, path, status);
        ensure!(own == EACH, "the server's own count of {path}: {own}");
    }
    require_requests(&report, &TASKS)?;
    require_blocks(&report, &TASKS)
}

#[test]
fn tasks_of_one_connection() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for transport in Transport::ALL {
        for streams in STREAMS {
            hypercorn_streams(transport, streams)
                .map_err(|error| error.context(format!("{transport:?}, {streams} streams")))?;
        }
    }
    Ok(())
}

/// A connection that opens in HTTP/1.1 and goes on in HTTP/2: its first request
/// is answered in the second.
#[test]
fn an_upgrade() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = hypercorn(Transport::Clear)?;
    let rows = [
        ("/block/300000", "200"),
        ("/missing/200000", "404"),
        ("/sleep/100000", "200"),
    ];
    let urls = rows.map(|(path, _)| Transport::Clear.url(server.port(), path));
    let recording = Recording::of_pids(&server.pids())?;
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--http2"])
        .args(["--write-out", "%{http_version} "])
        .args(&urls)
        .output()
        .context("cannot run curl: run `cargo xtask setup`")?;
    let answers = String::from_utf8_lossy(&output.stdout);
    ensure!(
        answers.matches("\n2 ").count() == 3,
        "curl said {answers:?}"
    );
    let report = recording.stop()?.complete_report()?;
    for (path, status) in rows {
        let row = report.endpoint("GET", path)?;
        row.require_requests(1)?;
        let expected = BTreeMap::from([(status.to_owned(), 1)]);
        ensure!(row.statuses()? == expected, "{path}: {:?}", row.statuses()?);
    }
    ensure!(report.count("/connections/accepted")? == 1);
    Ok(())
}

/// What a connection's header table holds from before the trace is not known,
/// and not guessed: requests are counted, their routes are not told.
#[test]
fn a_connection_that_was_open_before() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = hypercorn(Transport::Clear)?;
    let each = 20;
    let mut client = Command::new(paths::in_venv("python")?)
        .arg(paths::program_source("python/http2_client.py"))
        .args([&server.port().to_string(), &each.to_string()])
        .args(["/block/100000", "/missing/50000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(client.stdout.take().context("no output")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    ensure!(line == "ready\n", "the client said {line:?}");
    let recording = Recording::of_pids(&server.pids())?;
    client.stdin.take().context("no input")?.write_all(b"\n")?;
    line.clear();
    said.read_line(&mut line)?;
    ensure!(client.wait()?.success());
    let counts: RequestCounts = serde_json::from_str(&line)?;
    ensure!(count(&counts, "/block/100000", "200") == each);
    ensure!(count(&counts, "/missing/50000", "404") == each);
    let report = recording.stop()?.complete_report()?;
    ensure!(report.requests()? == 2 * each, "{}", report.requests()?);
    for path in ["/block/100000", "/missing/50000"] {
        ensure!(report.find_endpoint("GET", path)?.is_none(), "{path}");
    }
    // 200 and 404 are in the table that every connection begins with.
    let statuses = BTreeMap::from([("200".to_owned(), each), ("404".to_owned(), each)]);
    ensure!(report.statuses()? == statuses, "{:?}", report.statuses()?);
    Ok(())
}

#[test]
fn nginx() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let directory = TempDir::new()?;
    let (tls, clear) = (free_port()?, free_port()?);
    make_certificate(directory.path())?;
    fs::create_dir(directory.path().join("www"))?;
    for (name, size) in [("small.txt", 2000), ("large.txt", 300_000)] {
        fs::write(directory.path().join("www").join(name), "x".repeat(size))?;
    }
    let source = paths::program_source("nginx/http2.conf");
    let configuration = fs::read_to_string(&source)?
        .replace("{{directory}}", &directory.path().to_string_lossy())
        .replace("{{tls}}", &tls.to_string())
        .replace("{{clear}}", &clear.to_string());
    let path = directory.path().join("nginx.conf");
    fs::write(&path, configuration)?;
    let log = directory.path().join("access.log");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory.path()).arg("-c").arg(&path);
    command.arg("-e").arg(directory.path().join("error.log"));
    let server = Server::start("nginx", command, directory, clear, None)?;
    wait_until("nginx's two workers", || {
        let workers = process::children(server.pid());
        Ok(workers.len() == 2
            && workers.iter().all(|worker| {
                fs::read_to_string(format!("/proc/{worker}/cmdline"))
                    .is_ok_and(|title| title.contains("worker process"))
            }))
    })?;
    let paths = ["/small.txt", "/large.txt", "/missing"];
    let clients = 4;
    let each = 64 * clients;
    let requests = each * paths.len() as u64;
    for (transport, port) in [(Transport::Clear, clear), (Transport::Tls, tls)] {
        for streams in STREAMS {
            fs::write(&log, "")?;
            let recording = Recording::of_pids(&server.pids())?;
            let urls = paths.map(|path| transport.url(port, path));
            load(requests, clients, streams, &urls)?.require_all_answered(requests)?;
            let report = recording.stop()?.complete_report()?;
            let mut logged = String::new();
            wait_until("nginx's log to have a line for each request", || {
                logged = fs::read_to_string(&log)?;
                Ok(logged.lines().count() as u64 >= requests)
            })?;
            for (path, status) in paths.into_iter().zip(["200", "200", "404"]) {
                let what = format!("{transport:?}, {streams} streams, {path}");
                let line = format!("GET {path} HTTP/2.0 {status}");
                let own = logged.lines().filter(|logged| **logged == line).count() as u64;
                ensure!(own == each, "{what}: nginx counts {own}");
                let row = report.endpoint("GET", path).context(what.clone())?;
                row.require_requests(each).context(what.clone())?;
                let expected = BTreeMap::from([(status.to_owned(), each)]);
                ensure!(row.statuses()? == expected, "{what}: {:?}", row.statuses()?);
            }
        }
    }
    Ok(())
}

/// Node answers in the call that reads: with one stream all is told, with many
/// what was read at once is for several.
#[test]
fn node() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for transport in Transport::ALL {
        let directory = TempDir::new()?;
        let port = free_port()?;
        let mut command = Command::new("node");
        command
            .arg(paths::program_source("node/http2_server.js"))
            .arg(port.to_string())
            .current_dir(directory.path());
        if transport == Transport::Tls {
            make_certificate(directory.path())?;
            command.args(["key.pem", "certificate.pem"]);
        }
        let server = Server::start("node", command, directory, port, None)?;
        let urls = NODE.map(|(path, ..)| transport.url(port, path));
        let requests = EACH * NODE.len() as u64;
        load(requests, 1, 64, &urls)?.require_all_answered(requests)?;
        for streams in STREAMS {
            let recording = Recording::of_pids(&server.pids())?;
            load(requests, 1, streams, &urls)?.require_all_answered(requests)?;
            let report = recording.stop()?.complete_report()?;
            let what = || format!("{transport:?}, {streams} streams");
            require_requests(&report, &NODE).with_context(what)?;
            if streams == 1 {
                require_blocks(&report, &NODE).with_context(what)?;
            }
        }
    }
    Ok(())
}

/// Methods are routes, and what `grpc-status` says is the status.
#[test]
fn grpc() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("python")?);
    command
        .arg(paths::program_source("python/grpc_server.py"))
        .arg(port.to_string());
    let server = Server::start("gRPC", command, TempDir::new()?, port, None)?;
    let size: u64 = 3_000_000;
    let calls = |concurrency: u64| -> anyhow::Result<Value> {
        let output = Command::new(paths::in_venv("python")?)
            .arg(paths::program_source("python/grpc_client.py"))
            .arg(port.to_string())
            .args([concurrency, EACH, size].map(|number| number.to_string()))
            .output()?;
        ensure!(output.status.success(), "the client failed: {output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    calls(8)?;
    for concurrency in STREAMS {
        let recording = Recording::of_pids(&server.pids())?;
        let counts = calls(concurrency)?;
        let report = recording.stop()?.complete_report()?;
        for (method, code, blocks) in [
            ("Block", "0", 1.0),
            ("Fail", "5", 1.0),
            ("Stream", "0", 3.0),
        ] {
            let what = format!("{concurrency} at once, {method}");
            ensure!(counts[method][code] == EACH, "{what}: {counts}");
            let row = report.endpoint("POST", &format!("/test.Bytes/{method}"))?;
            row.require_requests(EACH).context(what.clone())?;
            let expected = BTreeMap::from([(code.to_owned(), EACH)]);
            ensure!(row.statuses()? == expected, "{what}: {:?}", row.statuses()?);
            let bytes = blocks * size as f64;
            let largest = row.figure("alloc_bytes", "max")?;
            ensure!(largest < bytes + OWN_BYTES_MAX, "{what}: {largest} bytes");
            // At several at once one thread may write what others have made.
            if concurrency == 1 {
                let mean = row.figure("alloc_bytes", "mean")?;
                require_within(&what, mean, bytes, 0.02)?;
            }
        }
    }
    Ok(())
}
