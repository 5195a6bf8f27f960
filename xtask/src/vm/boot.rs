//! Boots one emulated machine and keeps what its console said.
//!
//! In: a kernel image, an initramfs, a log file, a time limit. Out: how the
//! machine ended, and the log. It does not read meaning into the console.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const MEMORY_MIB: &str = "1024";
/// Two, so that the server's threads really run side by side.
const PROCESSORS: &str = "2";
const EMULATOR: &str = "qemu-system-x86_64";

/// How long the end of the machine may go unnoticed.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It switched itself off (or panicked: the console tells which).
    PowerOff,
    /// It was still running at the time limit and was switched off from here.
    TimeLimit(Duration),
    /// The emulator itself failed.
    EmulatorFailed(String),
}

/// Boots until the machine is off or the time is up.
pub fn boot(kernel: &Path, initramfs: &Path, log: &Path, limit: Duration) -> Result<Ended> {
    let console = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = console.try_clone()?;
    let mut machine = Command::new(EMULATOR)
        .args([
            "-M", "q35", "-cpu", "max", "-accel", "tcg", "-m", MEMORY_MIB, "-smp", PROCESSORS,
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        // A panic restarts at once, and a restart ends the emulator.
        .args(["-append", "console=ttyS0 quiet panic=-1", "-no-reboot"])
        .args(["-nographic", "-net", "none"])
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(errors)
        .spawn()
        .with_context(|| {
            format!("cannot run {EMULATOR}; it comes with Debian's package qemu-system-x86")
        })?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = machine.try_wait()? {
            return Ok(if status.success() {
                Ended::PowerOff
            } else {
                Ended::EmulatorFailed(status.to_string())
            });
        }
        if Instant::now() >= deadline {
            machine
                .kill()
                .context("cannot end the emulator at the time limit")?;
            machine.wait()?;
            return Ok(Ended::TimeLimit(limit));
        }
        std::thread::sleep(END_CHECK_INTERVAL);
    }
}
