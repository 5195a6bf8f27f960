//! The range where it holds: for these server models requests are exact, known
//! bytes right, few wrong and few unattributed, each endpoint for itself.
//!
//! In: the subjects of the range, at 8 and 64 clients. Out: the bounds of
//! `Figures::require_bounds`. `cargo xtask range` has all of them at every
//! concurrency, and those that do not hold yet.

use anyhow::Context;
use memtrace_tests::gate;
use memtrace_tests::range::backends::Backends;
use memtrace_tests::range::{servers, table};

const CLIENTS: [usize; 2] = [8, 64];

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
        let overheads = subject.overheads(&mut backends)?;
        let mut started = subject.warm(&backends)?;
        for clients in CLIENTS {
            let row = subject.measure(&backends, &mut started, &overheads, clients)?;
            row.figures.require_bounds(row.bytes).with_context(|| {
                let endpoints = table::endpoints(&row.figures);
                format!("{name}, {clients} clients:\n{endpoints}")
            })?;
        }
    }
    Ok(())
}

#[test]
fn nginx() -> anyhow::Result<()> {
    holds(&["nginx static"])
}

#[test]
fn apache() -> anyhow::Result<()> {
    holds(&["Apache event", "Apache worker", "Apache prefork"])
}

#[test]
fn gunicorn() -> anyhow::Result<()> {
    holds(&["gunicorn sync", "gunicorn gthread", "gunicorn gevent"])
}

#[test]
fn uvicorn() -> anyhow::Result<()> {
    holds(&["uvicorn uvloop"])
}

#[test]
fn uwsgi() -> anyhow::Result<()> {
    holds(&["uWSGI", "uWSGI behind nginx"])
}

#[test]
fn proxies_and_file_servers() -> anyhow::Result<()> {
    holds(&["haproxy", "lighttpd"])
}
