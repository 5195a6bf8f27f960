//! `memtrace`, run as a user would.
//!
//! In: command-line arguments. Out: exit code, what it said, the capture and
//! the report the live run ended with. Deliberately not here: knowledge of
//! memtrace's insides.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::paths;
use crate::process::{DEADLINE, Running, Signal, peak_resident_bytes, signal, wait_until};
use crate::report::Report;

/// The documented exit codes.
pub mod exit_code {
    /// All is well.
    pub const OK: i32 = 0;
    /// The command line makes no sense.
    pub const USAGE: i32 = 2;
    /// The target is not there.
    pub const NO_TARGET: i32 = 3;
    /// Not root.
    pub const NOT_PERMITTED: i32 = 4;
    /// This kernel lacks what tracing needs.
    pub const NO_KERNEL_SUPPORT: i32 = 5;
    /// The capture or report cannot be written.
    pub const OUTPUT: i32 = 6;
    /// Another memtrace traces this target.
    pub const ALREADY_TRACED: i32 = 7;
    /// No allocator was found in the target.
    pub const NOTHING_TO_PROBE: i32 = 8;
    /// The capture cannot be read.
    pub const UNREADABLE_CAPTURE: i32 = 9;
}

/// A `memtrace record` under way, every probe in place.
#[derive(Debug)]
pub struct Recording {
    running: Running,
    lines: Receiver<String>,
    said: Vec<String>,
    directory: TempDir,
    capture: PathBuf,
}

/// A `memtrace record` that has ended.
#[derive(Debug)]
pub struct Recorded {
    /// `None` when a signal ended it.
    pub exit_code: Option<i32>,
    /// What it said on standard error.
    pub stderr: String,
    /// The capture file, there or not.
    pub capture: PathBuf,
    /// The largest resident set it had, in bytes.
    pub peak_resident_bytes: u64,
    live_json: PathBuf,
    _directory: TempDir,
}

impl Recording {
    /// Traces these processes and those they fork.
    pub fn of_pids(pids: &[u32]) -> anyhow::Result<Self> {
        Self::with(pid_arguments(pids))
    }

    /// Traces what these arguments of `memtrace record` say, until stopped.
    /// `-o` and `--json-out` are added.
    pub fn with<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> anyhow::Result<Self> {
        let directory = TempDir::new().context("no directory for the capture")?;
        let capture = directory.path().join("test.memtrace");
        Self::into_file(directory, capture, arguments)
    }

    /// The same, with the capture in a given place.
    pub fn to<A: AsRef<OsStr>>(
        capture: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Self> {
        let directory = TempDir::new().context("no directory for the report")?;
        Self::into_file(directory, capture.to_owned(), arguments)
    }

    fn into_file<A: AsRef<OsStr>>(
        directory: TempDir,
        capture: PathBuf,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Self> {
        let mut command = record_command()?;
        command
            .arg("-o")
            .arg(&capture)
            .arg("--json-out")
            .arg(directory.path().join("live.json"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut running = Running::start("memtrace record", &mut command)?;
        let stderr = running
            .child()
            .stderr
            .take()
            .context("memtrace has no standard error")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Nobody listens once the test is over.
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut recording = Self {
            running,
            lines,
            said: Vec::new(),
            directory,
            capture,
        };
        recording.wait_for_probes()?;
        Ok(recording)
    }

    fn wait_for_probes(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(patience) {
                Ok(line) => {
                    let is_ready = line.starts_with("memtrace: tracing");
                    self.said.push(line);
                    if is_ready {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!(
                    "memtrace did not say that it traces; it said: {:?}",
                    self.said
                ),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.running.wait()?;
                    bail!("memtrace ended ({status}); it said: {:?}", self.said);
                }
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.running.ended()?.is_none())
    }

    /// Stops it as Ctrl-C does.
    pub fn stop(self) -> anyhow::Result<Recorded> {
        self.stop_by(Signal::INT)
    }

    /// Stops it by any signal.
    pub fn stop_by(self, by: Signal) -> anyhow::Result<Recorded> {
        signal(self.pid(), by)?;
        self.finish()
    }

    /// Waits until it ends by itself.
    pub fn finish(mut self) -> anyhow::Result<Recorded> {
        let pid = self.pid();
        let mut peak_bytes = 0;
        let mut status = None;
        wait_until("the end of memtrace", || {
            peak_bytes = peak_resident_bytes(pid).unwrap_or(0).max(peak_bytes);
            status = self.running.ended()?;
            Ok(status.is_some())
        })?;
        // The reader ends at the end of its pipe, and the channel with it.
        self.said.extend(self.lines.iter());
        Ok(Recorded {
            exit_code: status.and_then(|status| status.code()),
            stderr: self.said.join("\n"),
            capture: self.capture,
            peak_resident_bytes: peak_bytes,
            live_json: self.directory.path().join("live.json"),
            _directory: self.directory,
        })
    }
}

impl Recorded {
    /// An error unless it ended with this code.
    pub fn require_exit_code(&self, expected: i32) -> anyhow::Result<()> {
        if self.exit_code != Some(expected) {
            bail!(
                "memtrace record ended with {:?}, not {expected}; it said:\n{}",
                self.exit_code,
                self.stderr
            );
        }
        Ok(())
    }

    /// The report that the live run ended with.
    pub fn live_report(&self) -> anyhow::Result<Report> {
        let json = fs::read(&self.live_json)
            .with_context(|| format!("the live run left no report; it said:\n{}", self.stderr))?;
        Report::parse(&json)
    }

    /// The report that `memtrace report` makes of the capture.
    pub fn report(&self) -> anyhow::Result<Report> {
        report_of(&self.capture)
    }

    /// The report of a run that must have ended well and seen everything.
    pub fn complete_report(&self) -> anyhow::Result<Report> {
        self.require_exit_code(exit_code::OK)?;
        let report = self.live_report()?;
        report.require_no_loss()?;
        Ok(report)
    }

    /// The size of the capture in bytes.
    pub fn capture_bytes(&self) -> anyhow::Result<u64> {
        let metadata = fs::metadata(&self.capture)
            .with_context(|| format!("no capture at {}", self.capture.display()))?;
        Ok(metadata.len())
    }
}

/// `--pid` for each of these.
#[must_use]
pub fn pid_arguments(pids: &[u32]) -> Vec<OsString> {
    pids.iter()
        .flat_map(|pid| [OsString::from("--pid"), OsString::from(pid.to_string())])
        .collect()
}

/// `memtrace record`, without any argument yet.
pub fn record_command() -> anyhow::Result<Command> {
    let mut command = Command::new(paths::memtrace()?);
    command.arg("record").stdin(Stdio::null());
    Ok(command)
}

/// Runs `memtrace` to its end, which must come by itself.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> anyhow::Result<Output> {
    let mut command = Command::new(paths::memtrace()?);
    command.args(arguments).stdin(Stdio::null());
    run_to_end(command)
}

/// The same for a command made elsewhere; an error, and killed, if it does not
/// end in time.
pub fn run_to_end(mut command: Command) -> anyhow::Result<Output> {
    // Files, as nobody would empty pipes meanwhile.
    let directory = TempDir::new().context("no directory for the output")?;
    let (stdout, stderr) = (
        directory.path().join("stdout"),
        directory.path().join("stderr"),
    );
    command
        .stdout(File::create(&stdout)?)
        .stderr(File::create(&stderr)?);
    let status = Running::start("memtrace", &mut command)?
        .wait()
        .with_context(|| format!("{command:?}"))?;
    Ok(Output {
        status,
        stdout: fs::read(&stdout)?,
        stderr: fs::read(&stderr)?,
    })
}

/// The JSON report of a capture, byte for byte.
pub fn report_json(capture: &Path) -> anyhow::Result<Vec<u8>> {
    let output = run([
        OsStr::new("report"),
        capture.as_os_str(),
        OsStr::new("--format"),
        OsStr::new("json"),
    ])?;
    require_exit_code(&output, exit_code::OK)?;
    Ok(output.stdout)
}

/// The report of a capture.
pub fn report_of(capture: &Path) -> anyhow::Result<Report> {
    Report::parse(&report_json(capture)?)
}

/// An error unless the run ended with this code.
pub fn require_exit_code(output: &Output, expected: i32) -> anyhow::Result<()> {
    if output.status.code() != Some(expected) {
        bail!(
            "memtrace ended with {}, not {expected}; it said:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
