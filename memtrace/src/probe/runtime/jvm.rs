//! HotSpot, read from outside: what each thread of a Java virtual machine says
//! that it has allocated.
//!
//! In: a process. Out: what the kernel programs need to read the counter of the
//! thread that runs ([`JvmTarget`]), and the counters of all threads at a moment.
//! Nothing is known of any version: `libjvm.so` publishes a table of its own
//! structures for debuggers (`gHotSpotVMStructs`,
//! src/hotspot/share/runtime/vmStructs.cpp), and what it does not name is not
//! read. The one thing it does not tell is where a thread finds its own
//! `JavaThread`: that is looked for in what each thread keeps for itself, and
//! taken for found when the threads agree. Objects, classes and stacks are not
//! looked at.

mod table;
mod types;

use std::{collections::HashMap, io};

use memtrace_common::config::JvmTarget;
use thiserror::Error;

use super::memory::{Image, Memory, ProcessMemory, unusable};
use crate::probe::target::process::Status;
use table::{Entries, VARIABLES};

/// What an open buffer may hold, bytes; see the kernel half.
const BUFFER_BYTES_MAX: u64 = 8 << 31;
/// Attempts at something that the process changes meanwhile.
const ATTEMPTS_MAX: u32 = 4;
/// Threads of one process that are read, the newest of them: 8 bytes each while
/// their list is looked through.
const THREADS_MAX: u32 = 65_536;
/// Threads that must agree before anything is concluded from them: a virtual
/// machine has more of its own before it runs a program.
const THREADS_TO_AGREE_MIN: usize = 3;
/// Threads that are asked.
const THREADS_ASKED_MAX: usize = 64;
/// What a C library keeps of a thread at its `pthread_t`, bytes (`struct pthread`
/// of glibc 2.36 has 2304; values of `pthread_setspecific` come first).
const THREAD_BYTES: usize = 2048;

/// Why the threads' counters cannot be read.
#[derive(Debug, Error)]
pub enum JvmError {
    /// Its file or memory could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// Another virtual machine than HotSpot.
    #[error("its libjvm.so describes no structures of its own (it is not HotSpot)")]
    NoTable,
    /// The table lacks something.
    #[error("this version of HotSpot does not tell where {0} is")]
    NoField(String),
    /// The table contradicts what is there, or the C library keeps threads in
    /// another way.
    #[error("its threads do not keep where they are told to keep")]
    Mismatch,
    /// The kernel half finds a thread by its thread pointer.
    #[error("that can be read on x86-64 only")]
    Machine,
}

/// What was found in a process.
#[derive(Debug)]
pub enum Found {
    /// No Java virtual machine.
    Nothing,
    /// One that has only just started: nothing can be told yet.
    NotYet,
    /// One whose threads' counters can be read.
    Jvm(Jvm),
}

/// A Java virtual machine whose threads' counters can be read.
#[derive(Debug)]
pub struct Jvm {
    /// What the kernel programs need.
    pub target: JvmTarget,
    threads: ThreadList<ProcessMemory>,
    pid: u32,
}

/// What a thread's counter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The thread's id in the initial PID namespace.
    pub tid: u32,
    /// Bytes that it has allocated since it began.
    pub allocated: u64,
}

/// Looks for a Java virtual machine in a process.
///
/// # Errors
/// There is one that cannot be read.
pub fn find(pid: u32) -> Result<Found, JvmError> {
    let Some(mut image) = Image::find(pid, &|name| name == "libjvm.so")? else {
        return Ok(Found::Nothing);
    };
    if cfg!(not(target_arch = "x86_64")) {
        return Err(JvmError::Machine);
    }
    let variables: HashMap<String, u64> = image
        .elf
        .variables(&|name| VARIABLES.contains(&name) || types::VARIABLES.contains(&name))
        .map_err(unusable)?
        .into_iter()
        .map(|(name, address)| (name, address.wrapping_add(image.moved)))
        .collect();
    let memory = ProcessMemory::open(pid)?;
    // Its variables are filled in when it is loaded.
    let Some(entries) = Entries::read(&memory, &variables)? else {
        return Ok(Found::NotYet);
    };
    let java_thread_bytes = types::size(&memory, &variables, "JavaThread").unwrap_or(0);
    let threads = ThreadList::new(memory, &entries)?;
    let Some(java_thread) = threads.own_pointer()? else {
        return Ok(Found::NotYet);
    };
    Ok(Found::Jvm(Jvm {
        target: JvmTarget {
            java_thread,
            java_thread_bytes,
            ..threads.layout
        },
        threads,
        pid,
    }))
}

impl Jvm {
    /// Addresses of all `JavaThread`s there are.
    pub fn java_threads(&self) -> Vec<u64> {
        self.threads.all()
    }

    /// What every thread's counter says now, as far as it can be told; of the
    /// threads that begin or end meanwhile nothing may be said.
    pub fn readings(&self) -> Vec<Reading> {
        let outer = outer_ids(self.pid);
        self.threads
            .all()
            .into_iter()
            .filter_map(|java_thread| {
                Some(Reading {
                    tid: *outer.get(&self.threads.id(java_thread)?)?,
                    allocated: self.threads.allocated(java_thread)?,
                })
            })
            .collect()
    }
}

/// The threads of a Java virtual machine.
#[derive(Debug)]
struct ThreadList<M> {
    memory: M,
    layout: JvmTarget,
    /// Address of `ThreadsSMRSupport::_java_thread_list`.
    list_at: u64,
    /// `ThreadsList::_length`.
    length: u32,
    /// `ThreadsList::_threads`.
    threads: u32,
    /// `OSThread::_thread_id`.
    thread_id: u32,
}

impl<M: Memory> ThreadList<M> {
    /// Takes from the table where everything is.
    fn new(memory: M, entries: &Entries) -> Result<Self, JvmError> {
        let buffer = entries.offset("Thread", "_tlab")?;
        let in_buffer = |name| -> Result<u32, JvmError> {
            Ok(buffer + entries.offset("ThreadLocalAllocBuffer", name)?)
        };
        Ok(ThreadList {
            memory,
            layout: JvmTarget {
                java_thread: 0,
                // Moved to the base class in JDK 18.
                os_thread: entries
                    .offset("Thread", "_osthread")
                    .or_else(|_| entries.offset("JavaThread", "_osthread"))?,
                pthread_id: entries.offset("OSThread", "_pthread_id")?,
                allocated: entries.offset("Thread", "_allocated_bytes")?,
                buffer_start: in_buffer("_start")?,
                buffer_top: in_buffer("_top")?,
                // Before JDK 21 there are no virtual threads.
                continuation: entries.offset("JavaThread", "_cont_entry").unwrap_or(0),
                carriers_met: 0,
                java_thread_bytes: 0,
                reserved: 0,
            },
            list_at: entries.address("ThreadsSMRSupport", "_java_thread_list")?,
            length: entries.offset("ThreadsList", "_length")?,
            threads: entries.offset("ThreadsList", "_threads")?,
            thread_id: entries.offset("OSThread", "_thread_id")?,
        })
    }

    /// Addresses of all `JavaThread`s.
    fn all(&self) -> Vec<u64> {
        for _ in 0..ATTEMPTS_MAX {
            // A list that was replaced may have been freed while it was read.
            if let Some((list, threads)) = self.read_list()
                && self.memory.u64(self.list_at) == Some(list)
            {
                return threads;
            }
        }
        Vec::new()
    }

    fn read_list(&self) -> Option<(u64, Vec<u64>)> {
        let list = self.memory.u64(self.list_at)?;
        if list == 0 {
            return Some((0, Vec::new()));
        }
        let length = self.word32(list, self.length)?;
        let skipped = length.saturating_sub(THREADS_MAX);
        let mut bytes = vec![0; (length - skipped) as usize * 8];
        let first = self.word(list, self.threads)?;
        let first = first.checked_add(u64::from(skipped) * 8)?;
        if !self.memory.read(first, &mut bytes) {
            return None;
        }
        let (words, _) = bytes.as_chunks::<8>();
        let threads = words.iter().map(|word| u64::from_ne_bytes(*word));
        Some((list, threads.collect()))
    }

    /// The thread's id in its own PID namespace.
    fn id(&self, java_thread: u64) -> Option<u32> {
        let os_thread = self.word(java_thread, self.layout.os_thread)?;
        self.word32(os_thread, self.thread_id)
    }

    /// `Thread::cooked_allocated_bytes`, of a thread that may be running.
    fn allocated(&self, java_thread: u64) -> Option<u64> {
        let JvmTarget {
            allocated,
            buffer_start,
            buffer_top,
            ..
        } = self.layout;
        let sums = || {
            let start = self.word(java_thread, buffer_start)?;
            Some((self.word(java_thread, allocated)?, start))
        };
        let mut before = sums()?;
        for _ in 0..ATTEMPTS_MAX {
            let top = self.word(java_thread, buffer_top)?;
            let after = sums()?;
            if before == after {
                let (allocated, start) = after;
                let used = top.wrapping_sub(start);
                let is_open = start != 0 && used < BUFFER_BYTES_MAX;
                return allocated.checked_add(if is_open { used } else { 0 });
            }
            before = after;
        }
        None
    }

    /// Where a thread finds its own `JavaThread`, bytes from its `pthread_t`: the
    /// virtual machine keeps it there with `pthread_setspecific`
    /// (src/hotspot/os/posix/threadLocalStorage_posix.cpp). `None` while there are
    /// too few threads to tell.
    ///
    /// # Errors
    /// They do not agree on any place.
    fn own_pointer(&self) -> Result<Option<u32>, JvmError> {
        let mut asked = 0;
        let mut hits: HashMap<usize, usize> = HashMap::new();
        for java_thread in self.all().into_iter().take(THREADS_ASKED_MAX) {
            let mut bytes = vec![0; THREAD_BYTES];
            let Some(os_thread) = self.word(java_thread, self.layout.os_thread) else {
                continue;
            };
            let Some(pthread) = self.word(os_thread, self.layout.pthread_id) else {
                continue;
            };
            if !self.memory.read(pthread, &mut bytes) {
                continue;
            }
            asked += 1;
            let (words, _) = bytes.as_chunks::<8>();
            for (index, word) in words.iter().enumerate() {
                if u64::from_ne_bytes(*word) == java_thread {
                    *hits.entry(index * 8).or_default() += 1;
                }
            }
        }
        if asked < THREADS_TO_AGREE_MIN {
            return Ok(None);
        }
        // One may have been about to end.
        let agreed = hits
            .into_iter()
            .filter(|(offset, hits)| *offset != 0 && *hits + 1 >= asked)
            .map(|(offset, _)| offset as u32)
            .min();
        agreed.map(Some).ok_or(JvmError::Mismatch)
    }

    fn word(&self, base: u64, offset: u32) -> Option<u64> {
        self.memory.u64(base.checked_add(offset.into())?)
    }

    fn word32(&self, base: u64, offset: u32) -> Option<u32> {
        self.memory.u32(base.checked_add(offset.into())?)
    }
}

/// The ids of a process's threads in the initial PID namespace, by those that
/// they have in its own.
fn outer_ids(pid: u32) -> HashMap<u32, u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return HashMap::new();
    };
    let tids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    let nested = Status::read(pid).is_some_and(|status| !status.inner_pids.is_empty());
    tids.filter_map(|tid: u32| {
        if !nested {
            return Some((tid, tid));
        }
        Some((*Status::read(tid)?.inner_pids.last()?, tid))
    })
    .collect()
}

#[cfg(test)]
mod tests;
