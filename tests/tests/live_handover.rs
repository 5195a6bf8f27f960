//! Work that changes threads: one accepts, one reads, another does the work, and
//! either of the two answers. Each endpoint's requests and bytes come out as the
//! server counts them, through whatever the work is handed over.
//!
//! In: the C server of thread pools, and waitress with a server behind it, at
//! concurrency 1, 8 and 64 with endpoints mixed that allocate distinct amounts.
//! Out: what memtrace credits to each. Deliberately not here: servers whose
//! threads do all of one request; see `live_known_bytes.rs`.

use std::process::Command;

use anyhow::{Context, ensure};
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::report::{Report, require_within};
use memtrace_tests::server::{Server, Serving, free_port};
use memtrace_tests::{client, gate, paths, programs};
use serde_json::Value;
use tempfile::TempDir;

/// Clients, and how often each endpoint is asked.
const LOADS: [(u64, u64); 3] = [(1, 100), (8, 400), (64, 640)];

/// Of all known bytes, those credited to a request of another endpoint, at most.
const WRONG_MAX: f64 = 0.01;
/// Of all bytes, those that belong to no request, at most.
const UNATTRIBUTED_MAX: f64 = 0.05;

/// The C server's endpoints: no sum of a few amounts is another one.
const ENDPOINTS: [(&str, &str, u64); 5] = [
    ("alloc", "/alloc/1000", 1000),
    ("keep", "/keep/3000", 3000),
    ("next", "/next/9000", 9000),
    ("other", "/other/27000", 27_000),
    ("locked", "/locked/81000", 81_000),
];

/// How the C server hands work over, and who answers.
#[derive(Clone, Copy, Debug)]
struct Pool {
    queue: &'static str,
    reader: &'static str,
    writer: &'static str,
}

impl Pool {
    fn start(self) -> anyhow::Result<Server> {
        let port = free_port()?;
        let mut command = Command::new(programs::pool_server()?);
        command
            .args(["--port", &port.to_string(), "--workers", "8"])
            .args(["--queue", self.queue])
            .args(["--reader", self.reader, "--writer", self.writer]);
        let directory = TempDir::new().context("no directory for a server")?;
        Server::start("pool_server", command, directory, port, None)
    }

    /// What is reported of so many clients, and what the server counts.
    fn trace(self, (clients, each): (u64, u64)) -> anyhow::Result<(Report, Vec<Known>)> {
        let server = self.start()?;
        let recording = Recording::of_pids(&server.pids())?;
        let urls = ENDPOINTS.map(|(_, path, _)| server.url(path));
        let asked = each * ENDPOINTS.len() as u64;
        h2load(asked, clients, &urls)?.require_all_succeeded(asked)?;
        let report = recording.stop()?.complete_report()?;
        let counts: Value = serde_json::from_slice(&client::get_body(server.port(), "/count")?)?;
        let known = ENDPOINTS
            .into_iter()
            .map(|(name, path, bytes)| {
                let count = |what: &str| counts[what][name].as_u64().context("no such count");
                ensure!(count("bytes")? == each * bytes, "{path}: {counts}");
                Ok(Known {
                    path,
                    requests: count("requests")?,
                    bytes: count("bytes")? as f64,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok((report, known))
    }
}

/// What an endpoint has done.
#[derive(Debug)]
struct Known {
    path: &'static str,
    requests: u64,
    bytes: f64,
}

/// Row by row what was asked, and that hardly anything is credited elsewhere.
fn require_nothing_wrong(report: &Report, known: &[Known]) -> anyhow::Result<()> {
    let (mut all, mut wrong) = (0.0, 0.0);
    for Known {
        path,
        requests,
        bytes,
    } in known
    {
        let row = report.endpoint("GET", path)?;
        row.require_requests(*requests)?;
        all += bytes;
        wrong += (row.figure("alloc_bytes", "total")? - bytes).max(0.0);
    }
    ensure!(
        wrong <= all * WRONG_MAX,
        "{wrong} of {all} bytes are credited to the wrong requests"
    );
    Ok(())
}

/// The same, and that all of it is credited, but for what may be either of two
/// requests': a worker that has told another thread of its work may be done with
/// it.
fn require_known(report: &Report, known: &[Known]) -> anyhow::Result<()> {
    require_nothing_wrong(report, known)?;
    let (mut all, mut credited) = (0.0, 0.0);
    for Known { path, bytes, .. } in known {
        let row = report.endpoint("GET", path)?;
        all += bytes;
        credited += row.figure("alloc_bytes", "total")?;
    }
    require_within("bytes of all known endpoints", credited, all, 0.02)?;
    let unattributed = report.number("/unattributed/share_of_alloc")?;
    ensure!(
        unattributed < UNATTRIBUTED_MAX,
        "{unattributed} of the bytes belong to no request: {:?}",
        report.0.pointer("/unattributed/by_reason")
    );
    Ok(())
}

fn pool(pool: Pool) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for load in LOADS {
        let (report, known) = pool.trace(load)?;
        require_known(&report, &known)
            .with_context(|| format!("{pool:?} with {} clients", load.0))?;
    }
    Ok(())
}

const fn through(queue: &'static str) -> Pool {
    Pool {
        queue,
        reader: "poller",
        writer: "worker",
    }
}

#[test]
fn through_a_list_with_a_condition_variable() -> anyhow::Result<()> {
    pool(through("condition"))
}

#[test]
fn through_a_list_with_an_event_descriptor() -> anyhow::Result<()> {
    pool(through("event"))
}

#[test]
fn through_a_pipe() -> anyhow::Result<()> {
    pool(through("pipe"))
}

#[test]
fn through_a_pair_of_sockets() -> anyhow::Result<()> {
    pool(through("pair"))
}

/// The one that was given the work reads the request itself.
#[test]
fn the_worker_reads() -> anyhow::Result<()> {
    pool(Pool {
        reader: "worker",
        ..through("condition")
    })
}

/// Nobody but the message through the pipe tells whose work a thread does. Where
/// several read at once even that does not, and no request is credited with it.
#[test]
fn the_worker_never_touches_the_connection() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for queue in ["pipe", "pair"] {
        let pool = Pool {
            writer: "poller",
            ..through(queue)
        };
        let [alone, others @ ..] = LOADS;
        let (report, known) = pool.trace(alone)?;
        require_known(&report, &known).with_context(|| format!("{pool:?}"))?;
        for load in others {
            let (report, known) = pool.trace(load)?;
            require_nothing_wrong(&report, &known)
                .with_context(|| format!("{pool:?} with {} clients", load.0))?;
        }
    }
    Ok(())
}

/// waitress with the application of [`BLOCKS`], and a server for it to ask.
fn waitress(backend: &Server) -> anyhow::Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(paths::in_venv("waitress-serve")?);
    command
        .args(["--threads", "8", "--backlog", "1024"])
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg("pool_app:application")
        .env("PYTHONPATH", paths::program_source("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BACKEND", backend.port().to_string());
    let directory = TempDir::new().context("no directory for a server")?;
    Server::start("waitress", command, directory, port, None)
}

/// What the application allocates in blocks; all else is what a plain request
/// costs.
const BLOCKS: [(&str, f64); 4] = [
    ("/plain", 0.0),
    ("/keep/500000", 5e5),
    ("/asks/1000000", 1e6),
    ("/big/4000000", 4e6),
];
/// A plain request's own allocations, at most.
const PLAIN_BYTES_MAX: f64 = 20_000.0;

/// One thread reads all requests, a pool works, and asks another server in the
/// middle of it.
#[test]
fn waitress_with_a_server_behind_it() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let backend = Server::alloc_server(Serving::Threads(64), None)?;
    for (clients, each) in [(1, 40), (8, 80), (64, 128)] {
        let server = waitress(&backend)?;
        let urls = BLOCKS.map(|(path, _)| server.url(path));
        // The first requests import modules and fill caches: not what is measured.
        h2load(256, 64, &urls)?.require_all_succeeded(256)?;
        let recording = Recording::of_pids(&server.pids())?;
        let asked = each * BLOCKS.len() as u64;
        h2load(asked, clients, &urls)?.require_all_succeeded(asked)?;
        let report = recording.stop()?.complete_report()?;
        let plain = report.endpoint("GET", "/plain")?;
        let plain = plain.figure("alloc_bytes", "mean")?;
        ensure!(
            plain < PLAIN_BYTES_MAX,
            "{plain} bytes for a plain request, {clients} clients"
        );
        let known = BLOCKS.map(|(path, bytes)| Known {
            path,
            requests: each,
            bytes: each as f64 * (bytes + plain),
        });
        require_known(&report, &known)
            .with_context(|| format!("waitress with {clients} clients"))?;
    }
    Ok(())
}
