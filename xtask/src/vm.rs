//! `cargo xtask vm`: boots other kernels and traces a known workload on each.
//!
//! In: a memtrace binary (built here unless one is named) and, from Debian's
//! archive, one cloud kernel per series. Out: per kernel a console log
//! `<target>/vm/<kernel>.log`, a line per check, a table of verdicts and a
//! closing line `N passed, N failed`; an error if anything failed.
//!
//! The machine is emulated, so no KVM and no privileges are needed, and nothing
//! is installed or changed outside `<target>/vm`. Downloaded kernels are kept
//! there: delete the directory to take the archive's newest ones. What is
//! traced and what has to come out is in `load`, `verdict` and the programs of
//! `tests/programs/vm`; no figure is judged by time, only the whole boot is.

mod boot;
mod console;
mod image;
mod kernel;
mod load;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The kernel series that are booted unless others are asked for: the oldest
/// supported one (no multi-probe links) and a current long-term one.
const DEFAULT_SERIES: [&str; 2] = ["6.1", "6.12"];

/// From power-on to power-off, on an emulated processor; a boot with its trace
/// takes a tenth of this on an ordinary machine.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(240);

/// How much of a failed boot's console is shown.
const LOG_TAIL_LINES: usize = 60;

/// What `cargo xtask vm` can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The root of the workspace.
    pub root: PathBuf,
    /// The binary to test; `None` builds the release binary first.
    pub memtrace: Option<PathBuf>,
    /// Kernel series to boot, such as `6.1`; empty means the default ones.
    pub series: Vec<String>,
    /// How long one kernel may take, from power-on to power-off.
    pub time_limit: Duration,
}

impl Options {
    /// Every setting at its default.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            memtrace: None,
            series: Vec::new(),
            time_limit: DEFAULT_TIME_LIMIT,
        }
    }

    /// Reads `[--memtrace PATH] [--kernel SERIES]… [--time-limit SECONDS]`.
    pub fn from_arguments(
        root: PathBuf,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let mut options = Self::new(root);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value after it"))
            };
            match argument.as_str() {
                "--memtrace" => options.memtrace = Some(PathBuf::from(value()?)),
                "--kernel" => options.series.push(value()?),
                "--time-limit" => {
                    let seconds = value()?;
                    let seconds = seconds.parse().with_context(|| {
                        format!("--time-limit takes whole seconds, not `{seconds}`")
                    })?;
                    options.time_limit = Duration::from_secs(seconds);
                }
                _ => bail!(
                    "unknown option `{argument}`; \
                     vm takes --memtrace PATH, --kernel SERIES and --time-limit SECONDS"
                ),
            }
        }
        Ok(options)
    }
}

/// One kernel's line in the closing table.
struct Row {
    series: String,
    package: String,
    seconds: f64,
    passed: usize,
    failed: usize,
}

/// Boots every kernel asked for, prints what was found, and fails if a check did.
pub fn run(options: &Options) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernel boot tests use x86-64 kernels and the host's own programs; \
         run them on an x86-64 machine"
    );
    let target = target_directory(&options.root)?;
    let work = target.join("vm");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;

    let memtrace = match &options.memtrace {
        Some(path) => path.clone(),
        None => build_memtrace(&options.root, &target)?,
    };
    let initramfs = image::build(&image::Parts {
        programs: &options.root.join("tests/programs/vm"),
        memtrace: &memtrace,
        load: &load::guest_settings(),
        work: &work,
    })?;

    let series: Vec<String> = if options.series.is_empty() {
        DEFAULT_SERIES.map(String::from).to_vec()
    } else {
        options.series.clone()
    };
    let mut rows = Vec::new();
    for series in series {
        rows.push(test_kernel(&series, &work, &initramfs, options.time_limit)?);
    }
    close(&rows)
}

/// Boots one kernel and prints its checks. Only a machine that cannot be set up
/// is an error here: whatever goes wrong inside is a failed check.
fn test_kernel(series: &str, work: &Path, initramfs: &Path, limit: Duration) -> Result<Row> {
    let kernel = kernel::obtain(series, work)?;
    let log = work.join(format!("{}.log", kernel.package));
    println!("\n{series}: booting {}", kernel.package);
    let started = Instant::now();
    let ended = boot::boot(&kernel.image, initramfs, &log, limit)?;
    let seconds = started.elapsed().as_secs_f64();

    let console_text = console::read_log(&log)?;
    let checks = verdict::judge(&console_text, series, &ended);
    let failed = checks.iter().filter(|check| check.outcome.is_err()).count();
    for check in &checks {
        match &check.outcome {
            Ok(()) => println!("{series}: ok      {}", check.name),
            Err(reason) => println!("{series}: FAILED  {}: {reason}", check.name),
        }
    }
    if failed > 0 {
        println!(
            "{series}: the last {LOG_TAIL_LINES} lines of {}:",
            log.display()
        );
        for line in console::tail(&console_text, LOG_TAIL_LINES) {
            println!("    {line}");
        }
    }
    Ok(Row {
        series: series.to_owned(),
        package: kernel.package,
        seconds,
        passed: checks.len() - failed,
        failed,
    })
}

/// Prints the table and the closing line; an error if any check failed.
fn close(rows: &[Row]) -> Result<()> {
    let width = rows.iter().map(|row| row.package.len()).max().unwrap_or(0);
    println!(
        "\n{:<8}{:<width$}  {:>8}  {:>9}  verdict",
        "series", "kernel", "seconds", "checks"
    );
    for row in rows {
        println!(
            "{:<8}{:<width$}  {:>8.1}  {:>9}  {}",
            row.series,
            row.package,
            row.seconds,
            format!("{}/{}", row.passed, row.passed + row.failed),
            if row.failed == 0 { "passed" } else { "FAILED" }
        );
    }
    let passed: usize = rows.iter().map(|row| row.passed).sum();
    let failed: usize = rows.iter().map(|row| row.failed).sum();
    println!("\n{passed} passed, {failed} failed");
    ensure!(
        failed == 0,
        "{failed} of {} checks failed on other kernels",
        passed + failed
    );
    Ok(())
}

fn target_directory(root: &Path) -> Result<PathBuf> {
    let named = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let target = root.join(named);
    std::fs::create_dir_all(&target)
        .and_then(|()| target.canonicalize())
        .with_context(|| format!("cannot create {}", target.display()))
}

fn build_memtrace(root: &Path, target: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run_to_success(
        Command::new(cargo)
            .args(["build", "--release", "--package", "memtrace"])
            .arg("--target-dir")
            .arg(target)
            .current_dir(root),
        "building memtrace",
    )?;
    Ok(target.join("release/memtrace"))
}

/// Runs a program whose output is for the person watching.
fn run_to_success(command: &mut Command, what: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{what}: cannot run {}", command.get_program().display()))?;
    ensure!(
        status.success(),
        "{what}: {} ended with {status}",
        command.get_program().display()
    );
    Ok(())
}

/// Runs a program and returns what it printed on its standard output.
fn output_of(command: &mut Command, what: &str) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{what}: cannot run {}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{what}: {} ended with {}: {}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).with_context(|| {
        format!(
            "{what}: the output of {} is not text",
            command.get_program().display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options> {
        Options::from_arguments("/w".into(), arguments.iter().map(|text| text.to_string()))
    }

    #[test]
    fn options_are_read() {
        let options = parse(&["--kernel", "6.1", "--time-limit", "9", "--memtrace", "m"]).unwrap();
        assert_eq!(options.series, ["6.1"]);
        assert_eq!(options.time_limit, Duration::from_secs(9));
        assert_eq!(options.memtrace, Some("m".into()));
    }

    #[test]
    fn wrong_options_are_named() {
        for arguments in [&["--kernel"][..], &["--time-limit", "soon"], &["--fast"]] {
            let error = parse(arguments).unwrap_err().to_string();
            assert!(error.contains(arguments[0]), "{error}");
        }
    }

    #[test]
    fn one_failed_check_fails_the_run() {
        let row = |failed| Row {
            series: "6.1".into(),
            package: "p".into(),
            seconds: 1.0,
            passed: 3,
            failed,
        };
        assert!(close(&[row(0), row(0)]).is_ok());
        assert!(close(&[row(0), row(1)]).is_err());
    }
}
