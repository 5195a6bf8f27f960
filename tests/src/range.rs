//! The ground-truth range: for each server model a real server whose requests
//! allocate known amounts, driven with its endpoints mixed, and what memtrace
//! makes of it.
//!
//! In: a [`Subject`] and a number of clients. Out: a [`Row`]: requests right of
//! total, bytes right, wrong and unattributed. The truth is what the client
//! sent and what the server itself counted, which must agree before memtrace is
//! looked at. Deliberately not here: bounds; whoever runs it asserts them.

pub mod backends;
pub mod certificate;
pub mod drive;
pub mod endpoint;
pub mod fixture;
pub mod judge;
pub mod listing;
pub mod servers;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};

use crate::memtrace::{Recorded, Recording};
use crate::process;
use crate::server::{RequestCounts, Server, parse_counts};
use crate::shim::CountingShim;
use backends::Backends;
use drive::Sent;
use endpoint::{Endpoint, Plan};
use judge::Figures;

/// A server model in the range.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The server, as the table has it.
    pub name: &'static str,
    /// How it serves, in words.
    pub model: &'static str,
    /// Whether memtrace can see the calls that make up the known bytes.
    pub bytes: Bytes,
    /// How it is asked.
    pub driver: drive::Driver,
    /// How the requests that it receives compare with those that were sent.
    pub lengths: Lengths,
    /// What it serves.
    pub endpoints: fn() -> Vec<Endpoint>,
    /// Starts it.
    pub start: fn(&Backends) -> anyhow::Result<Started>,
}

/// How the known bytes of a subject come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// By calls of the C library's allocator, which the shim can count.
    Libc,
    /// By calls of an allocator that the runtime brings along.
    Runtime,
    /// On a managed heap, of which only counters or samples can be read.
    Managed,
    /// On a heap that lives as long as a request and of which only the largest
    /// extent can be read: that is what is known of a request.
    Extent,
    /// The server has no endpoint of a known amount.
    Unknown,
}

/// How the length of a request at the traced server compares with that sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// It is the same.
    AsSent,
    /// A server in front, or a protocol that compresses, changes it; of two
    /// requests of an endpoint, the longer one stays the longer one.
    InOrder,
}

/// A server of the range under way.
#[derive(Debug)]
pub struct Started {
    /// The one in front of it that is asked in its place.
    pub front: Option<Server>,
    /// The one that is traced.
    pub server: Server,
    /// Servers that it needs, ended after it.
    pub behind: Vec<Server>,
    /// How it says what it served.
    pub counts: Counts,
    /// Requests asked of it so far.
    pub asked: u64,
}

/// Where a server's own count of requests is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// At `/counts`: JSON of path, status and number; the question itself is not
    /// among them.
    Endpoint,
    /// In a log of this name: lines of method, path, version and status.
    Log(&'static str),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The server.
    pub name: &'static str,
    /// Its model.
    pub model: &'static str,
    /// Whether its bytes can be seen.
    pub bytes: Bytes,
    /// Connections at once.
    pub clients: usize,
    /// What memtrace got right.
    pub figures: Figures,
}

impl Subject {
    /// What the server itself allocates for a request of each endpoint beside the
    /// known amount, in bytes, by the count of a shim that is preloaded into it.
    /// A few requests are asked for one after another, so that all that happens
    /// meanwhile is theirs. Of a heap's extent, what the runtime says of a request
    /// that allocates nothing, at `EXTENT`. Nothing where neither sees anything.
    pub fn overheads(&self, backends: &mut Backends) -> anyhow::Result<Vec<u64>> {
        let endpoints = (self.endpoints)();
        match self.bytes {
            Bytes::Libc => {}
            Bytes::Extent => {
                let extent = self.extent(backends)?;
                return Ok(vec![extent; endpoints.len()]);
            }
            Bytes::Runtime | Bytes::Managed | Bytes::Unknown => {
                return Ok(vec![0; endpoints.len()]);
            }
        }
        backends.preload(Some(CountingShim::new()?));
        let overheads = self.overheads_with_shim(backends, endpoints);
        backends.preload(None);
        overheads.with_context(|| format!("{} with the shim", self.name))
    }

    fn extent(&self, backends: &Backends) -> anyhow::Result<u64> {
        let started = self.warm(backends)?;
        let body = self
            .driver
            .get(started.port(), backends.certificate(), EXTENT)?;
        let text = String::from_utf8_lossy(&body);
        text.trim()
            .parse()
            .with_context(|| format!("{} said of its heap: {text}", self.name))
    }

    fn overheads_with_shim(
        &self,
        backends: &Backends,
        endpoints: Vec<Endpoint>,
    ) -> anyhow::Result<Vec<u64>> {
        const REQUESTS: usize = 8;
        let started = self.warm(backends)?;
        let shim = backends.shim().context("no shim")?;
        let pids = process::tree(started.server.pid());
        let allocated = || -> anyhow::Result<u64> {
            pids.iter()
                .map(|&pid| Ok(shim.read(pid)?.alloc_bytes))
                .sum()
        };
        endpoints
            .into_iter()
            .map(|endpoint| {
                let plan = Plan::new(vec![endpoint], REQUESTS);
                let before = allocated()?;
                self.driver
                    .drive(started.port(), backends.certificate(), &plan, 1)?;
                let meanwhile = allocated()? - before;
                Ok(meanwhile.saturating_sub(plan.known_bytes()) / REQUESTS as u64)
            })
            .collect()
    }

    /// Its name in names of files.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.name.to_lowercase().replace([' ', '/'], "-")
    }

    /// Starts the server and asks every endpoint often enough that modules are
    /// imported and pools are full.
    pub fn warm(&self, backends: &Backends) -> anyhow::Result<Started> {
        let mut started =
            (self.start)(backends).with_context(|| format!("{} not started", self.name))?;
        let plan = Plan::new((self.endpoints)(), 40);
        self.driver
            .drive(started.port(), backends.certificate(), &plan, 64)
            .with_context(|| format!("{} not warmed", self.name))?;
        started.asked += plan.requests.len() as u64;
        Ok(started)
    }

    /// Traces the server while so many clients ask.
    pub fn measure(
        &self,
        backends: &Backends,
        started: &mut Started,
        overheads: &[u64],
        clients: usize,
    ) -> anyhow::Result<Row> {
        self.measure_into(backends, started, overheads, clients)
            .with_context(|| format!("{}, {clients} clients", self.name))
    }

    fn measure_into(
        &self,
        backends: &Backends,
        started: &mut Started,
        overheads: &[u64],
        clients: usize,
    ) -> anyhow::Result<Row> {
        let plan = Plan::new((self.endpoints)(), requests_of_each(clients));
        let (sent, recorded) = self.trace(backends, started, &plan, clients)?;
        let report = recorded.complete_report()?;
        let listing = listing::of_capture(&recorded.capture)?;
        if let Some(directory) = std::env::var_os(KEEP_CAPTURES) {
            let name = format!("{}-{clients}.memtrace", self.file_name());
            std::fs::copy(
                &recorded.capture,
                std::path::Path::new(&directory).join(name),
            )
            .context("the capture cannot be kept")?;
        }
        Ok(Row {
            name: self.name,
            model: self.model,
            bytes: self.bytes,
            clients,
            figures: judge::judge(
                &plan,
                &sent,
                (self.bytes, self.lengths),
                overheads,
                &listing,
                &report,
            )?,
        })
    }

    /// Traces the server while so many clients ask it for everything in the plan,
    /// and checks that it counted what was asked for.
    fn trace(
        &self,
        backends: &Backends,
        started: &mut Started,
        plan: &Plan,
        clients: usize,
    ) -> anyhow::Result<(Sent, Recorded)> {
        let before = self.request_counts(backends, started)?;
        let recording = Recording::of_pids(&process::tree(started.server.pid()))?;
        let sent = self
            .driver
            .drive(started.port(), backends.certificate(), plan, clients)?;
        let recorded = recording.stop()?;
        started.asked += plan.requests.len() as u64;
        let after = self.request_counts(backends, started)?;
        require_counts(&before, &after, &sent.counts(plan))?;
        Ok((sent, recorded))
    }

    /// What the server counted so far. A log is written after the answer, so it
    /// is read again until it has a line for each request.
    fn request_counts(
        &self,
        backends: &Backends,
        started: &Started,
    ) -> anyhow::Result<RequestCounts> {
        match started.counts {
            Counts::Endpoint => {
                let json = self
                    .driver
                    .get(started.port(), backends.certificate(), "/counts")?;
                parse_counts(&json)
            }
            Counts::Log(name) => {
                let mut counts = RequestCounts::new();
                process::wait_until("a line in the log for each request", || {
                    counts = log_counts(&started.server, name);
                    Ok(counts.values().flat_map(BTreeMap::values).sum::<u64>() >= started.asked)
                })?;
                Ok(counts)
            }
        }
    }
}

/// The concurrencies of the whole range.
pub const CLIENTS: [usize; 4] = [1, 8, 64, 256];

/// Where a server of [`Bytes::Extent`] says how far its heap extends for a request
/// without a known amount, in bytes.
const EXTENT: &str = "/extent";

/// A directory in which the captures of the range are kept, for looking into.
pub const KEEP_CAPTURES: &str = "MEMTRACE_RANGE_CAPTURES";

/// Enough that every connection sees every endpoint, few enough that a run takes
/// seconds.
fn requests_of_each(clients: usize) -> usize {
    match clients {
        0..=8 => 24,
        9..=64 => 48,
        _ => 80,
    }
}

impl Started {
    /// A server that is asked directly.
    #[must_use]
    pub fn direct(server: Server, behind: Vec<Server>, counts: Counts) -> Self {
        Self {
            front: None,
            server,
            behind,
            counts,
            asked: 0,
        }
    }

    fn port(&self) -> u16 {
        self.front.as_ref().unwrap_or(&self.server).port()
    }
}

fn log_counts(server: &Server, name: &str) -> RequestCounts {
    // Not there before the first request.
    let log = std::fs::read_to_string(server.directory().join(name)).unwrap_or_default();
    let mut counts = RequestCounts::new();
    for line in log.lines() {
        // `GET /path HTTP/1.1 200`, between lines of other things in some logs.
        let words: Vec<&str> = line.split(' ').collect();
        if let ["GET", path, _, status] = words[..] {
            *counts
                .entry(path.to_owned())
                .or_default()
                .entry(status.to_owned())
                .or_default() += 1;
        }
    }
    counts
}

/// The server's own count of what it served meanwhile equals what was sent.
fn require_counts(
    before: &RequestCounts,
    after: &RequestCounts,
    sent: &RequestCounts,
) -> anyhow::Result<()> {
    let count = |counts: &RequestCounts, path: &str, status: &str| {
        let statuses = counts.get(path);
        statuses.and_then(|statuses| statuses.get(status).copied())
    };
    let keys: BTreeSet<(&String, &String)> = [before, after, sent]
        .into_iter()
        .flatten()
        .flat_map(|(path, statuses)| statuses.keys().map(move |status| (path, status)))
        .collect();
    for (path, status) in keys {
        let now = count(after, path, status).unwrap_or(0);
        let then = count(before, path, status).unwrap_or(0);
        let asked = count(sent, path, status).unwrap_or(0);
        if now != then + asked {
            bail!("{path} {status}: the server counted {now} after {then}; {asked} were asked for");
        }
    }
    Ok(())
}
