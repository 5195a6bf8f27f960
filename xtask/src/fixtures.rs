//! `cargo xtask fixtures`: a small capture of each server of the range, and the
//! report that it gives, in `tests/fixtures/replay`.
//!
//! In: the release binary and the program `fixtures` of `tests/`. Out: captures
//! recorded anew with their reports, or, of those that are there, the reports
//! alone: what changed in them is for a person to look at before it is committed.
//! It judges nothing itself.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::{setup, test, workspace};

/// What `cargo xtask fixtures` can be told.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Record nothing: keep the reports that the captures give now
    #[arg(long, conflicts_with = "subjects")]
    accept: bool,
    /// Leave the machine as it is: what the range needs is there already
    #[arg(long)]
    no_setup: bool,
    /// Only these subjects, by their names in docs/range.md
    subjects: Vec<OsString>,
}

/// Records, or accepts.
///
/// # Errors
/// Something is missing or does not compile, or a subject could not be recorded.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    if !options.accept {
        ensure!(
            workspace::is_root(),
            "captures are made of live servers, which takes root: run \
             `sudo --preserve-env=PATH cargo xtask fixtures`"
        );
        if !options.no_setup {
            setup::run()?;
        }
    }
    let memtrace = test::build_release(root)?;
    let mut fixtures = workspace::cargo(root);
    fixtures
        .args(["run", "--package", "memtrace-tests"])
        .args(["--bin", "fixtures", "--"])
        .env("MEMTRACE_BIN", memtrace);
    if options.accept {
        fixtures.arg("--accept");
    }
    workspace::run(fixtures.args(&options.subjects))
}
