//! `cargo xtask test`: everything set up, built and tested.
//!
//! In: the workspace. Out: what `cargo test` prints; an error if a test failed.
//! The live tests trace the release binary, as users do. It tests nothing
//! itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{setup, workspace};

/// What `cargo xtask test` can be told.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Leave out the tests that need root and a kernel that can be traced
    #[arg(long)]
    without_kernel: bool,
    /// Leave the machine as it is: what the tests need is there already
    #[arg(long)]
    no_setup: bool,
    /// Passed on to `cargo test`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Sets up, builds and tests.
///
/// # Errors
/// Something is missing, does not compile or fails.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    ensure!(
        options.without_kernel || workspace::is_root(),
        "the live tests attach probes to servers, which takes root: run \
         `sudo --preserve-env=PATH cargo xtask test`, or leave them out with \
         `cargo xtask test --without-kernel`"
    );
    if !options.no_setup {
        setup::run()?;
    }
    let memtrace = build_release(root)?;
    let mut command = cargo_test(root, &memtrace);
    let names_packages = options.arguments.iter().any(|argument| {
        let argument = argument.to_string_lossy();
        argument.starts_with("-p") || argument.starts_with("--package")
    });
    if !names_packages {
        command.arg("--workspace");
    }
    if options.without_kernel {
        command.env("MEMTRACE_TESTS_WITHOUT_KERNEL", "1");
    }
    workspace::run(command.args(&options.arguments))
}

/// Runs the live tests alone, on kernel programs from a file instead of the
/// ones in the binary.
///
/// # Errors
/// A test failed.
pub fn run_live_on(root: &Path, object: &Path) -> Result<()> {
    let memtrace = build_release(root)?;
    workspace::run(
        cargo_test(root, &memtrace)
            .args(["--package", "memtrace-tests"])
            .env("MEMTRACE_BPF_OBJECT", object),
    )
}

/// Builds the binary that users get and returns its path.
///
/// # Errors
/// It does not compile.
pub fn build_release(root: &Path) -> Result<PathBuf> {
    workspace::run(workspace::cargo(root).args(["build", "--release", "--package", "memtrace"]))?;
    Ok(workspace::target(root)?.join("release/memtrace"))
}

fn cargo_test(root: &Path, memtrace: &Path) -> Command {
    let mut command = workspace::cargo(root);
    command.arg("test").env("MEMTRACE_BIN", memtrace);
    command
}
