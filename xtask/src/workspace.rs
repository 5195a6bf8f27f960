//! Where things are, and running other programs.
//!
//! In: the environment. Out: paths, and commands that either succeed or say
//! which of them did not. Deliberately not here: what any chore is made of.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The repository's root.
pub fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .context("xtask is not in a repository")
}

/// Cargo's target directory, made if missing.
pub fn target(root: &Path) -> Result<PathBuf> {
    let named = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let target = root.join(named);
    fs::create_dir_all(&target)
        .and_then(|()| target.canonicalize())
        .with_context(|| format!("cannot create {}", target.display()))
}

/// The cargo that runs this, at the repository's root.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Where cargo keeps what it downloads and installs.
pub fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    env::home_dir()
        .map(|home| home.join(".cargo"))
        .context("neither CARGO_HOME nor HOME says where cargo keeps its files")
}

/// `PATH`, with the place of cargo's installed programs at its end.
pub fn search_path() -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([cargo_home()?.join("bin")]);
    env::join_paths(directories).context("PATH cannot be extended")
}

/// Whether a program of this name would be found.
pub fn is_installed(program: &str) -> Result<bool> {
    let path = search_path()?;
    Ok(env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    // The owner of a process's directory is its effective user.
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The program itself for root, through sudo for others.
pub fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Runs it with its output shown; an error that names it unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let named = named(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run `{named}`"))?;
    ensure!(status.success(), "`{named}` ended with {status}");
    Ok(())
}

/// Runs it and returns its output; `None` if it cannot be run or fails.
pub fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}

fn named(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
}
