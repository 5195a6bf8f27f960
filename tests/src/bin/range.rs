//! The whole range: every subject at every concurrency.
//!
//! In: names of subjects (all, if none is given) and `--clients 1,8,64,256`; the
//! `memtrace` in `MEMTRACE_BIN`. Out: the table on standard output, and on
//! standard error each run as it ends, by endpoint. It asserts nothing: a subject
//! that memtrace gets wrong has its row like any other. One that cannot be
//! measured is named, and the exit code says so.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use memtrace_tests::gate;
use memtrace_tests::range::backends::Backends;
use memtrace_tests::range::{CLIENTS, Row, Subject, servers, table};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("range: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let (names, clients) = arguments(std::env::args().skip(1))?;
    let _alone = gate::tracing_allowed()?.context("the range traces live servers")?;
    let mut backends = Backends::start()?;
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for subject in servers::all() {
        if !names.is_empty() && !names.iter().any(|name| name == subject.name) {
            continue;
        }
        let result = measure(&subject, &mut backends, &clients, &mut rows);
        if let Err(error) = result {
            eprintln!("range: {error:#}");
            failed.push(subject.name);
        }
    }
    std::io::stdout().write_all(table::markdown(&rows).as_bytes())?;
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    if rows.is_empty() {
        bail!("no subject of that name");
    }
    Ok(())
}

fn measure(
    subject: &Subject,
    backends: &mut Backends,
    clients: &[usize],
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let overheads = subject.overheads(backends)?;
    let mut started = subject.warm(backends)?;
    for &clients in clients {
        let row = subject.measure(backends, &mut started, &overheads, clients)?;
        eprintln!("{}, {clients} clients", subject.name);
        eprint!("{}", table::endpoints(&row.figures));
        rows.push(row);
    }
    Ok(())
}

fn arguments(
    mut arguments: impl Iterator<Item = String>,
) -> anyhow::Result<(Vec<String>, Vec<usize>)> {
    let mut names = Vec::new();
    let mut clients = CLIENTS.to_vec();
    while let Some(argument) = arguments.next() {
        if argument == "--clients" {
            clients = arguments
                .next()
                .context("--clients takes numbers, such as 1,8")?
                .split(',')
                .map(|number| {
                    let number = number.parse().ok().filter(|number| *number != 0);
                    number.context("--clients takes numbers above 0, such as 1,8")
                })
                .collect::<anyhow::Result<_>>()?;
        } else if argument.starts_with('-') {
            bail!("usage: range [--clients 1,8,64,256] [SUBJECT…]");
        } else {
            names.push(argument);
        }
    }
    Ok((names, clients))
}
