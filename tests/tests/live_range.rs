//! The range in short: every server model of it, each within its bounds.
//!
//! In: the subjects of the range, at 1, 8 and 64 clients. Out: the bounds of
//! `Figures::require_bounds` for those that hold, and for those that do not, what
//! they hold today ([`SHORT`]), so that none gets worse unseen. Nothing is left
//! out. `cargo xtask range` has every concurrency.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use memtrace_tests::gate;
use memtrace_tests::range::backends::Backends;
use memtrace_tests::range::judge::Figures;
use memtrace_tests::range::{servers, table};

const CLIENTS: [usize; 3] = [1, 8, 64];

const NGINX: &[&str] = &[
    "nginx static",
    "nginx HTTP/2 TLS",
    "nginx proxy",
    "nginx FastCGI",
];
const PHP: &[&str] = &["php-fpm"];
const APACHE: &[&str] = &["Apache event", "Apache worker", "Apache prefork"];
const GUNICORN: &[&str] = &["gunicorn sync", "gunicorn gthread", "gunicorn gevent"];
const ASYNCIO: &[&str] = &["uvicorn asyncio", "uvicorn uvloop", "hypercorn"];
const ASYNCIO_HTTP2: &[&str] = &["hypercorn HTTP/2", "hypercorn HTTP/2 TLS"];
const UWSGI: &[&str] = &["uWSGI", "uWSGI behind nginx"];
const HANDED_OVER: &[&str] = &["waitress", "granian"];
const NODE: &[&str] = &["Node http", "Node https"];
const GO: &[&str] = &["Go net/http", "Go https", "Go HTTP/2"];
const TOMCAT: &[&str] = &["Tomcat"];
const PUMA: &[&str] = &["puma"];
const OTHERS: &[&str] = &["haproxy", "lighttpd"];

/// A model that falls short, and what it holds nevertheless, all shares in percent
/// of a whole run.
struct Short {
    name: &'static str,
    requests_min: f64,
    right_min: f64,
    wrong_max: f64,
    unattributed_max: f64,
    /// Why it does.
    why: &'static str,
}

#[rustfmt::skip]
const SHORT: &[Short] = &[
    Short { name: "nginx HTTP/2 TLS", requests_min: 100.0, right_min: 98.0, wrong_max: 1.0, unattributed_max: 15.0,
        why: "what is made ready for several streams at once is no one's of them" },
    Short { name: "waitress", requests_min: 100.0, right_min: 70.0, wrong_max: 2.0, unattributed_max: 30.0,
        why: "a thread reads and another works: whose its work is shows at its end" },
    Short { name: "granian", requests_min: 100.0, right_min: 0.0, wrong_max: 1.0, unattributed_max: 100.0,
        why: "threads of a runtime that is not read hand work to Python's" },
    Short { name: "Node http", requests_min: 100.0, right_min: 95.0, wrong_max: 1.0, unattributed_max: 8.0,
        why: "who waits for a second answer on a connection that several share shows only at times" },
    Short { name: "Node https", requests_min: 100.0, right_min: 95.0, wrong_max: 1.0, unattributed_max: 8.0,
        why: "the same" },
    Short { name: "Tomcat", requests_min: 100.0, right_min: 97.0, wrong_max: 1.0, unattributed_max: 15.0,
        why: "while it is compiled, the compiler's threads allocate for nobody" },
    Short { name: "puma", requests_min: 100.0, right_min: 96.0, wrong_max: 1.0, unattributed_max: 5.0,
        why: "which of its threads has taken what was not seen to be given shows only at times" },
];

impl Short {
    fn require(&self, figures: &Figures) -> anyhow::Result<()> {
        let percent = |share: Option<f64>| share.unwrap_or(0.0) * 100.0;
        let requests = figures.requests_right as f64 / figures.requests as f64 * 100.0;
        ensure!(
            requests >= self.requests_min && figures.requests_extra == 0,
            "{requests:.2} % of requests are right, {} were never sent; {} % were",
            figures.requests_extra,
            self.requests_min
        );
        let right = percent(figures.right_share());
        ensure!(
            figures.known_bytes == 0 || right >= self.right_min,
            "{right:.2} % of bytes are right; {} % were",
            self.right_min
        );
        let wrong = percent(figures.wrong_share());
        ensure!(
            wrong <= self.wrong_max,
            "{wrong:.2} % of bytes are wrong; {} % were",
            self.wrong_max
        );
        let unattributed = percent(figures.unattributed_share());
        ensure!(
            unattributed <= self.unattributed_max,
            "{unattributed:.2} % of bytes are unattributed; {} % were: {:?}",
            self.unattributed_max,
            figures.reasons
        );
        Ok(())
    }
}

fn holds(names: &[&str]) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let mut backends = Backends::start()?;
    for name in names {
        let subject = servers::all()
            .into_iter()
            .find(|subject| subject.name == *name)
            .with_context(|| format!("the range has no {name}"))?;
        let short = SHORT.iter().find(|short| short.name == *name);
        let overheads = subject.overheads(&mut backends)?;
        let mut started = subject.warm(&backends)?;
        for clients in CLIENTS {
            let row = subject.measure(&backends, &mut started, &overheads, clients)?;
            let within = match short {
                Some(short) => short
                    .require(&row.figures)
                    .with_context(|| format!("short already: {}", short.why)),
                None => row.figures.require_bounds(row.bytes),
            };
            within.with_context(|| {
                let endpoints = table::endpoints(&row.figures);
                format!("{name}, {clients} clients:\n{endpoints}")
            })?;
        }
    }
    Ok(())
}

#[test]
fn every_subject_is_here() {
    let groups = [
        NGINX,
        PHP,
        APACHE,
        GUNICORN,
        ASYNCIO,
        ASYNCIO_HTTP2,
        UWSGI,
        HANDED_OVER,
        NODE,
        GO,
        TOMCAT,
        PUMA,
        OTHERS,
    ];
    let here: BTreeSet<&str> = groups.into_iter().flatten().copied().collect();
    let all: BTreeSet<&str> = servers::all().iter().map(|subject| subject.name).collect();
    assert_eq!(here, all);
    let short: BTreeSet<&str> = SHORT.iter().map(|short| short.name).collect();
    assert!(short.is_subset(&all) && short.len() == SHORT.len());
}

#[test]
fn nginx() -> anyhow::Result<()> {
    holds(NGINX)
}

#[test]
fn php() -> anyhow::Result<()> {
    holds(PHP)
}

#[test]
fn apache() -> anyhow::Result<()> {
    holds(APACHE)
}

#[test]
fn gunicorn() -> anyhow::Result<()> {
    holds(GUNICORN)
}

#[test]
fn asyncio() -> anyhow::Result<()> {
    holds(ASYNCIO)
}

#[test]
fn asyncio_over_http2() -> anyhow::Result<()> {
    holds(ASYNCIO_HTTP2)
}

#[test]
fn uwsgi() -> anyhow::Result<()> {
    holds(UWSGI)
}

#[test]
fn threads_that_hand_over() -> anyhow::Result<()> {
    holds(HANDED_OVER)
}

#[test]
fn node() -> anyhow::Result<()> {
    holds(NODE)
}

#[test]
fn go() -> anyhow::Result<()> {
    holds(GO)
}

#[test]
fn tomcat() -> anyhow::Result<()> {
    holds(TOMCAT)
}

#[test]
fn puma() -> anyhow::Result<()> {
    holds(PUMA)
}

#[test]
fn proxies_and_file_servers() -> anyhow::Result<()> {
    holds(OTHERS)
}
