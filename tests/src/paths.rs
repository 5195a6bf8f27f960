//! Where things are. In: the environment and this crate's place. Out: paths.
//! Deliberately not here: creating any of them but the directory for built
//! test programs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};

/// The file given here is tested instead of the built `memtrace`.
pub const MEMTRACE_BIN: &str = "MEMTRACE_BIN";

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// The source of a test program, by its name under `tests/programs`.
#[must_use]
pub fn program_source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(name)
}

/// cargo's target directory, from the place of the running program.
pub fn target() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program runs from")?;
    // <target>/<profile>/deps/<test>, or <target>/<profile>/<program>
    let directory = program.parent();
    let profile = match directory {
        Some(deps) if deps.ends_with("deps") => deps.parent(),
        profile => profile,
    };
    profile
        .and_then(Path::parent)
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory", program.display()))
}

/// The `memtrace` to test: the one named by [`MEMTRACE_BIN`], else the newer of
/// the release and debug builds.
pub fn memtrace() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os(MEMTRACE_BIN) {
        let named = PathBuf::from(named);
        if !named.is_file() {
            bail!("{MEMTRACE_BIN} names {}, which is no file", named.display());
        }
        return Ok(named);
    }
    let target = target()?;
    let built = |profile: &str| -> Option<(SystemTime, PathBuf)> {
        let path = target.join(profile).join("memtrace");
        let modified = path.metadata().ok()?.modified().ok()?;
        Some((modified, path))
    };
    built("release")
        .into_iter()
        .chain(built("debug"))
        .max()
        .map(|(_, path)| path)
        .with_context(|| {
            format!(
                "no memtrace in {}: build it first with `cargo build --release`, \
                 or name one with {MEMTRACE_BIN}",
                target.display()
            )
        })
}

/// A program of the Python environment that `cargo xtask setup` makes.
pub fn in_venv(program: &str) -> anyhow::Result<PathBuf> {
    let path = repository().join("target/venv/bin").join(program);
    if !path.exists() {
        bail!("{} is missing: run `cargo xtask setup`", path.display());
    }
    Ok(path)
}
