//! The threads of a process that sleep in a futex.
//!
//! In: a process. Out: each such thread and where it sleeps, from
//! `/proc/PID/task/TID/syscall` (fs/proc/base.c: `proc_pid_syscall`). The kernel
//! half sees only who falls asleep after the trace has begun; a server's idle
//! workers did so before. What only waits for its turn is left out here as it is
//! there.

use std::{fs, io};

/// The number of `futex` (arch/x86/entry/syscalls/syscall_64.tbl,
/// include/uapi/asm-generic/unistd.h).
const FUTEX: &str = if cfg!(target_arch = "x86_64") {
    "202"
} else {
    "98"
};
// include/uapi/linux/futex.h
const FUTEX_CMD: u64 = 0x7f;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAIT_BITSET: u64 = 9;
/// What a contended mutex of glibc holds (nptl/lowlevellock.h).
const CONTENDED: u64 = 2;
/// The bit of a contended mutex of musl (src/thread/pthread_mutex_timedlock.c).
const WAITERS: u64 = 0x8000_0000;

/// A thread that sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleeper {
    /// Its id in the initial PID namespace.
    pub tid: u32,
    /// The futex's address in the process.
    pub futex: u64,
}

/// Threads that may be waiting for work; those that end meanwhile are left out.
///
/// # Errors
/// The process is gone.
pub fn sleepers(pid: u32) -> io::Result<Vec<Sleeper>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let tid = entry.file_name().to_str().and_then(|tid| tid.parse().ok());
        if let Some(tid) = tid
            && let Ok(line) = fs::read_to_string(entry.path().join("syscall"))
            && let Some(futex) = waits_at(&line)
        {
            found.push(Sleeper { tid, futex });
        }
    }
    Ok(found)
}

/// Where a thread waits for work that is in this system call: number and
/// arguments, a running thread's line has neither.
fn waits_at(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    if words.next()? != FUTEX {
        return None;
    }
    let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (futex, operation, value) = (argument()?, argument()?, argument()?);
    match operation & FUTEX_CMD {
        FUTEX_WAIT if value == CONTENDED || value & WAITERS != 0 => None,
        FUTEX_WAIT | FUTEX_WAIT_BITSET => Some(futex),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_for_a_turn_waits_for_no_work() {
        let line = |operation: &str, value: &str| {
            format!("{FUTEX} 0x7f00 {operation} {value} 0x0 0x0 0xffffffff 0x7ffc0 0x7f12\n")
        };
        assert_eq!(waits_at(&line("0x189", "0x0")), Some(0x7f00));
        assert_eq!(waits_at(&line("0x80", "0x0")), Some(0x7f00));
        assert_eq!(waits_at(&line("0x80", "0x2")), None);
        assert_eq!(waits_at(&line("0x80", "0x80000123")), None);
        assert_eq!(waits_at(&line("0x81", "0x1")), None);
        for other in ["running\n", "-1 0x7ffc0 0x7f12\n", "0 0x3\n", "", FUTEX] {
            assert_eq!(waits_at(other), None, "{other}");
        }
    }

    #[test]
    fn a_thread_of_our_own_that_sleeps() {
        let (wakes, waits) = mpsc::channel::<()>();
        let (tells, told) = mpsc::channel();
        let sleeping = std::thread::spawn(move || {
            // PID/task/TID
            let own = fs::read_link("/proc/thread-self").expect("a thread has a name");
            let tid: Option<u32> = own.file_name().and_then(|tid| tid.to_str()?.parse().ok());
            tells.send(tid).expect("somebody listens");
            waits.recv()
        });
        let tid = told.recv().expect("it tells");
        // It falls asleep when it likes.
        let found = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let found = sleepers(std::process::id()).expect("own threads");
            found.iter().any(|sleeper| Some(sleeper.tid) == tid)
        });
        drop(wakes);
        assert!(found, "it does not sleep");
        assert!(sleeping.join().expect("it ends").is_err());
    }
}
