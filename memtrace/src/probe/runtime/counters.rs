//! The counters that the runtimes of a process keep: found, handed to the kernel
//! half, and read here where the kernel half does not come by.
//!
//! In: a process, again whenever it has mapped something. Out: probes in place,
//! readings, and what cannot be read, in words.

use std::collections::HashMap;

use memtrace_common::config::Target;

use super::{
    jvm::{self, Found, Jvm, Reading},
    php,
};
use crate::probe::{attach::Links, load::Kernel};

/// What of a process's runtimes is counted.
#[derive(Debug, Default)]
pub struct Counters {
    jvm: Option<Jvm>,
    /// There is a Java virtual machine of which nothing can be told yet.
    waiting: bool,
    php: bool,
    /// What the Java threads' counters said last, by thread id.
    read: HashMap<u32, u64>,
    /// Why something is not counted, or not counted well.
    trouble: Trouble,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trouble {
    jvm: Option<String>,
    php: Option<String>,
    carriers: Option<String>,
}

impl Counters {
    /// Looks for what was not found yet. Returns whether the trouble has changed.
    pub fn probe(&mut self, pid: u32, kernel: &mut Kernel, links: &mut Links) -> bool {
        let before = self.trouble.clone();
        if self.jvm.is_none() {
            self.trouble.jvm = self.find_jvm(pid, kernel).err().map(|error| {
                format!("what its Java threads allocate on their heap is not counted: {error}")
            });
        }
        if !self.php {
            self.trouble.php = self
                .find_php(pid, kernel, links)
                .err()
                .map(|error| format!("the heap of its PHP requests is not measured: {error}"));
        }
        before != self.trouble
    }

    fn find_jvm(&mut self, pid: u32, kernel: &mut Kernel) -> Result<(), String> {
        self.waiting = false;
        let jvm = match jvm::find(pid).map_err(|error| error.to_string())? {
            Found::Nothing => return Ok(()),
            Found::NotYet => {
                self.waiting = true;
                return Ok(());
            }
            Found::Jvm(jvm) => jvm,
        };
        let known = jvm.target;
        kernel
            .change_target(pid, |target| Target {
                jvm: known,
                ..target
            })
            .map_err(|error| error.to_string())?;
        self.jvm = Some(jvm);
        Ok(())
    }

    fn find_php(&mut self, pid: u32, kernel: &mut Kernel, links: &mut Links) -> Result<(), String> {
        let Some(php) = php::find(pid).map_err(|error| error.to_string())? else {
            return Ok(());
        };
        kernel
            .change_target(pid, |target| Target {
                php: php.target,
                ..target
            })
            .map_err(|error| error.to_string())?;
        links
            .attach_heap_end(kernel, pid, &php)
            .map_err(|error| error.to_string())?;
        self.php = true;
        Ok(())
    }

    /// The process has another program.
    pub fn forget(&mut self) {
        *self = Counters::default();
    }

    /// What every thread's counter says, for threads that the kernel half never
    /// comes by; only of those that have changed since the last time.
    pub fn readings(&mut self) -> Vec<Reading> {
        let Some(jvm) = &self.jvm else {
            return Vec::new();
        };
        let mut readings = jvm.readings();
        let now = readings
            .iter()
            .map(|reading| (reading.tid, reading.allocated))
            .collect();
        let before = std::mem::replace(&mut self.read, now);
        readings.retain(|reading| before.get(&reading.tid) != Some(&reading.allocated));
        readings
    }

    /// Addresses of the `JavaThread`s there are.
    pub fn java_threads(&self) -> Vec<u64> {
        self.jvm.as_ref().map(Jvm::java_threads).unwrap_or_default()
    }

    /// Looks again for what could not be told yet, and whether the kernel half has
    /// met something that people must be told. Returns whether the trouble has
    /// changed.
    pub fn look(&mut self, pid: u32, kernel: &mut Kernel, links: &mut Links) -> bool {
        if self.waiting {
            return self.probe(pid, kernel, links);
        }
        if self.jvm.is_none() || self.trouble.carriers.is_some() {
            return false;
        }
        let met = kernel
            .target(pid)
            .is_ok_and(|target| target.jvm.carriers_met != 0);
        if met {
            self.trouble.carriers = Some(
                "its virtual threads take turns on few threads, which do the counting: what one \
                 allocates after a wait can be counted for the one that ran before it"
                    .to_owned(),
            );
        }
        met
    }

    /// What is not counted, or not counted well, in words.
    pub fn trouble(&self) -> impl Iterator<Item = &String> {
        let Trouble { jvm, php, carriers } = &self.trouble;
        [jvm, php, carriers].into_iter().flatten()
    }
}
