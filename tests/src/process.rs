//! Processes as seen from outside: start, watch, signal, end.
//!
//! In: a command, or a pid. Out: what /proc says of it. A [`Running`] ends with
//! its value. Deliberately not here: what the process is for.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Longest wait for anything that is not load: generous, as it is only
/// reached by failures.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks `condition` until it holds, up to [`DEADLINE`].
pub fn wait_until(
    what: &str,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > DEADLINE {
            bail!("waited {} s in vain: {what}", DEADLINE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{pid} is no process id"))?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {pid:?}"))
}

/// Whether the process is there and not a zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(") ")
                .map(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(false)
}

/// The direct children of a process, over all of its threads.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|child| child.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// A process and all of its descendants.
#[must_use]
pub fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    found
}

/// The largest resident set the process has had, in bytes; `None` once it is gone.
#[must_use]
pub fn peak_resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// A process that ends when the value does.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts it; `name` is for messages.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({command:?})"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot ask after {}", self.name))
    }

    /// Waits for its end, up to [`DEADLINE`].
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let mut status = None;
        let what = format!("the end of {}", self.name);
        wait_until(&what, || {
            status = self.ended()?;
            Ok(status.is_some())
        })?;
        status.with_context(|| what.clone())
    }

    /// Kills it at once, and its descendants.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        let descendants = tree(self.pid());
        if self.ended()?.is_none() {
            signal(self.pid(), Signal::KILL)?;
        }
        let status = self.wait()?;
        kill_those_left(&descendants[1..]);
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Servers with workers end them when asked; the deadline is for those
        // that a failed test left stuck.
        let descendants = tree(self.pid());
        if let Ok(Some(_)) = self.child.try_wait() {
            kill_those_left(&descendants[1..]);
            return;
        }
        let asked = signal(self.pid(), Signal::TERM).is_ok();
        let patience = Instant::now() + Duration::from_secs(5);
        while asked && Instant::now() < patience {
            if let Ok(Some(_)) = self.child.try_wait() {
                kill_those_left(&descendants[1..]);
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        kill_those_left(&descendants[1..]);
    }
}

fn kill_those_left(pids: &[u32]) {
    for &pid in pids {
        if is_alive(pid) {
            // Gone meanwhile is as good.
            let _ = signal(pid, Signal::KILL);
        }
    }
}
