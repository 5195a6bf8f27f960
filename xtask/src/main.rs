//! The chores of this repository, each a command: `cargo xtask --help`.
//!
//! In: a command line. Out: what the chore prints, and whether it succeeded.
//! No chore is part of memtrace itself.

#[path = "../../memtrace/build/digest.rs"]
mod digest;

mod ci;
mod ebpf;
mod fixtures;
mod range;
mod setup;
mod stages;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// The chores of this repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    /// Install what the tests need (Debian packages, a Python environment)
    Setup,
    /// Set up, build and run every test
    Test(test::Options),
    /// Rebuild the kernel objects in memtrace/bpf from their sources
    Ebpf(ebpf::Options),
    /// Check that no stage imports a later one
    Stages,
    /// Boot other kernels and trace a known workload on each
    Vm {
        /// --memtrace PATH, --kernel SERIES (repeatable), --time-limit SECONDS
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure every server model of the tests, and keep the table in docs/range.md
    Range(range::Options),
    /// Record a small capture of each server model, to be replayed by the tests
    Fixtures(fixtures::Options),
    /// Do everything that CI does
    Ci,
}

fn main() -> ExitCode {
    match run(Chore::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let root = workspace::root()?;
    match chore {
        Chore::Setup => setup::run(),
        Chore::Test(options) => test::run(&root, &options),
        Chore::Ebpf(options) => ebpf::run(&root, &options),
        Chore::Stages => stages::run(&root),
        Chore::Vm { arguments } => vm::run(&vm::Options::from_arguments(root, arguments)?),
        Chore::Range(options) => range::run(&root, &options),
        Chore::Fixtures(options) => fixtures::run(&root, &options),
        Chore::Ci => ci::run(&root),
    }
}
