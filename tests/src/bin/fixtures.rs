//! Small captures of the range's servers, recorded anew, or their reports alone.
//!
//! In: a directory, if not the repository's (`--directory`), and names of subjects
//! (all, if none is given), or `--accept`; the `memtrace` in `MEMTRACE_BIN`. Out:
//! captures and reports there. A subject that cannot be recorded is named, and the
//! exit code says so.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use memtrace_tests::gate;
use memtrace_tests::range::backends::Backends;
use memtrace_tests::range::{fixture, servers};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fixtures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    directory: PathBuf,
    accept: bool,
    names: Vec<String>,
}

fn run() -> anyhow::Result<()> {
    let Arguments {
        directory,
        accept,
        names,
    } = arguments(std::env::args().skip(1))?;
    if accept {
        return fixture::captures(&directory)?
            .iter()
            .try_for_each(|capture| fixture::accept(capture));
    }
    let _alone = gate::tracing_allowed()?.context("captures are made of live servers")?;
    let backends = Backends::start()?;
    let mut failed = Vec::new();
    for subject in servers::all() {
        if !names.is_empty() && !names.iter().any(|name| name == subject.name) {
            continue;
        }
        if let Err(error) = fixture::record(&subject, &backends, &directory) {
            eprintln!("fixtures: {error:#}");
            failed.push(subject.name);
        }
    }
    if !failed.is_empty() {
        bail!("not recorded: {}", failed.join(", "));
    }
    Ok(())
}

fn arguments(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
    let mut read = Arguments {
        directory: fixture::directory(),
        accept: false,
        names: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--accept" => read.accept = true,
            "--directory" => {
                let directory = arguments.next().context("--directory takes a path")?;
                read.directory = PathBuf::from(directory);
            }
            name if name.starts_with('-') => {
                bail!("usage: fixtures [--directory PATH] [--accept | SUBJECT…]");
            }
            _ => read.names.push(argument),
        }
    }
    Ok(read)
}
