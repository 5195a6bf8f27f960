//! The counters of `programs/counting_shim.c`, read from outside.
//!
//! In: the files the shim maps, one for each process. Out: [`HeapCounts`].
//! Deliberately not here: waiting; see [`CountingShim::wait_until_quiet`] for
//! the one condition a reader needs.

use std::fs;
use std::ops::Sub;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{process, programs};

const MAGIC: u64 = u64::from_le_bytes(*b"CTSHIM01");

/// What a process has asked of its allocator, sizes as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapCounts {
    /// Successful allocations.
    pub alloc_count: u64,
    /// Bytes of those.
    pub alloc_bytes: u64,
    /// Frees of a block, `free(NULL)` not among them.
    pub free_count: u64,
    /// Bytes of those.
    pub free_bytes: u64,
}

impl Sub for HeapCounts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            alloc_count: self.alloc_count - before.alloc_count,
            alloc_bytes: self.alloc_bytes - before.alloc_bytes,
            free_count: self.free_count - before.free_count,
            free_bytes: self.free_bytes - before.free_bytes,
        }
    }
}

impl HeapCounts {
    /// All four counters of two added.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            alloc_count: self.alloc_count + other.alloc_count,
            alloc_bytes: self.alloc_bytes + other.alloc_bytes,
            free_count: self.free_count + other.free_count,
            free_bytes: self.free_bytes + other.free_bytes,
        }
    }
}

/// The shim and the directory it counts in.
#[derive(Debug)]
pub struct CountingShim {
    library: PathBuf,
    directory: TempDir,
}

impl CountingShim {
    /// Compiles the shim if need be.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            library: programs::counting_shim()?,
            directory: TempDir::new().context("no directory for the shim's counters")?,
        })
    }

    /// Has the command's process, and those it forks, count.
    pub fn preload_into(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("COUNTING_SHIM_FILE", self.directory.path().join("counts"));
    }

    /// The counters of one process at this moment.
    pub fn read(&self, pid: u32) -> anyhow::Result<HeapCounts> {
        let path = self.directory.path().join(format!("counts.{pid}"));
        let bytes = fs::read(&path)
            .with_context(|| format!("cannot read {}: was the shim preloaded?", path.display()))?;
        let fields: Vec<u64> = bytes
            .chunks_exact(8)
            .take(8)
            .filter_map(|field| Some(u64::from_le_bytes(field.try_into().ok()?)))
            .collect();
        let &[
            magic,
            of_pid,
            alloc_count,
            alloc_bytes,
            free_count,
            free_bytes,
            nested,
            unknown,
        ] = fields.as_slice()
        else {
            bail!("{} is too short for the shim's counters", path.display());
        };
        if magic != MAGIC || of_pid != u64::from(pid) {
            bail!(
                "{} is not a file of process {pid}'s counters",
                path.display()
            );
        }
        if nested != 0 || unknown != 0 {
            bail!(
                "process {pid}: {nested} nested calls and {unknown} frees of unknown blocks: \
                 this allocator is not counted exactly"
            );
        }
        Ok(HeapCounts {
            alloc_count,
            alloc_bytes,
            free_count,
            free_bytes,
        })
    }

    /// Waits until the counters of all these processes have stood still for
    /// 300 ms: what a finished load still had freed (closed connections, ended
    /// threads) is then done.
    pub fn wait_until_quiet(&self, pids: &[u32]) -> anyhow::Result<Vec<HeapCounts>> {
        self.wait_for_calls_at_most(pids, 0)
    }

    /// The same for servers that never stand still, as their timers tick: at
    /// most 200 calls in 300 ms, which is little beside a load's.
    pub fn wait_until_calm(&self, pids: &[u32]) -> anyhow::Result<Vec<HeapCounts>> {
        self.wait_for_calls_at_most(pids, 200)
    }

    fn wait_for_calls_at_most(
        &self,
        pids: &[u32],
        calls_max: u64,
    ) -> anyhow::Result<Vec<HeapCounts>> {
        let read_all = || -> anyhow::Result<Vec<HeapCounts>> {
            pids.iter().map(|&pid| self.read(pid)).collect()
        };
        let calls = |counts: &[HeapCounts]| -> u64 {
            counts
                .iter()
                .map(|counts| counts.alloc_count + counts.free_count)
                .sum()
        };
        let mut last = read_all()?;
        let mut calls_then = calls(&last);
        let mut since = Instant::now();
        process::wait_until("the shim's counters to stand still", || {
            last = read_all()?;
            if calls(&last) - calls_then > calls_max {
                calls_then = calls(&last);
                since = Instant::now();
            }
            Ok(since.elapsed() > Duration::from_millis(300))
        })?;
        Ok(last)
    }
}
