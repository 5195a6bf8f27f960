//! What `/proc` says about one process.
//!
//! Text of `/proc/PID/stat` and `/proc/PID/status` comes in; [`Stat`],
//! [`Status`] and a [`Description`] go out. Its sockets and its allocators are
//! told elsewhere.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{proc_path, read_text, runtime};
use crate::id::ProcessId;
use crate::probe::maps;
use crate::probe::symbols::ElfFile;

/// The flag of the kernel's own threads in field 9 of `/proc/PID/stat`
/// (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name.
    pub comm: String,
    /// Its parent's id, 0 if it has none.
    pub parent_pid: u32,
    /// It has ended and waits for its parent, or is about to be gone.
    pub ended: bool,
    /// It is a thread of the kernel.
    pub kernel_thread: bool,
    /// When it started, ns since boot, rounded down to [`ProcessId::TICK_NS`].
    pub start_ns: u64,
}

impl Stat {
    /// Reads a process's.
    pub fn read(pid: u32) -> io::Result<Stat> {
        let bytes = std::fs::read(proc_path(pid, "stat"))?;
        Stat::parse(&String::from_utf8_lossy(&bytes))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not in the known form"))
    }

    /// Takes the text apart. The name may contain blanks and parentheses: it
    /// ends at the last closing one.
    pub fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.split_once('(')?;
        let (comm, rest) = rest.rsplit_once(')')?;
        // Field 3 is the first behind the name.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let start_ticks: u64 = field(22)?.parse().ok()?;
        Some(Stat {
            comm: comm.to_owned(),
            parent_pid: field(4)?.parse().ok()?,
            ended: matches!(field(3)?, "Z" | "X" | "x"),
            kernel_thread: field(9)?.parse::<u64>().ok()? & KERNEL_THREAD != 0,
            start_ns: start_ticks.checked_mul(ProcessId::TICK_NS)?,
        })
    }
}

/// What `/proc/PID/status` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The name, with the kernel's escapes.
    pub name: String,
    /// The process it belongs to (its own id, unless it is a thread's).
    pub tgid: u32,
    /// Its ids in the PID namespaces below the initial one, outermost first.
    pub inner_pids: Vec<u32>,
}

impl Status {
    /// Reads a process's or thread's; `None` if it is gone.
    pub fn read(pid: u32) -> Option<Status> {
        Status::parse(&read_text(&proc_path(pid, "status"))?)
    }

    /// Takes the text apart.
    pub fn parse(text: &str) -> Option<Status> {
        let line = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
                .map(str::trim)
        };
        Some(Status {
            name: line("Name")?.to_owned(),
            tgid: line("Tgid")?.parse().ok()?,
            // Kernels built without PID namespaces have no such line.
            inner_pids: line("NSpid")
                .unwrap_or_default()
                .split_ascii_whitespace()
                .skip(1)
                .filter_map(|pid| pid.parse().ok())
                .collect(),
        })
    }
}

/// A process as a report names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Which process.
    pub process: ProcessId,
    /// Its parent's id, 0 if it has none.
    pub parent_pid: u32,
    /// Path of its program inside its own root; empty if it may not be known.
    pub exe: String,
    /// The program's file was deleted or replaced since it started.
    pub exe_deleted: bool,
    /// Its name.
    pub comm: String,
    /// The language runtime recognised, else `native`.
    pub runtime: String,
}

/// Describes a process.
pub fn describe(pid: u32) -> io::Result<Description> {
    let stat = Stat::read(pid)?;
    let (exe, exe_deleted) = match std::fs::read_link(proc_path(pid, "exe")) {
        Ok(path) => without_deleted(&inside_root(pid, &path)),
        Err(_) => (PathBuf::new(), false),
    };
    let mut mapped: Vec<PathBuf> = maps::parse(&std::fs::read(proc_path(pid, "maps"))?)
        .into_iter()
        .filter(|mapping| mapping.executable)
        .map(|mapping| mapping.path)
        .collect();
    mapped.dedup();
    let go = File::open(proc_path(pid, "exe"))
        .ok()
        .and_then(|file| ElfFile::open(file).ok())
        .is_some_and(|file| file.facts().go);
    Ok(Description {
        process: ProcessId::new(pid, stat.start_ns),
        parent_pid: stat.parent_pid,
        runtime: runtime::guess(&exe, &mapped, go),
        exe: exe.to_string_lossy().into_owned(),
        exe_deleted,
        comm: stat.comm,
    })
}

/// A path as a process with another root directory would write it. The kernel
/// shows paths of a changed root in full, those of another mount namespace from
/// that namespace's root.
pub fn inside_root(pid: u32, path: &Path) -> PathBuf {
    match std::fs::read_link(proc_path(pid, "root")) {
        Ok(root) if root != Path::new("/") => match path.strip_prefix(&root) {
            Ok(inside) => Path::new("/").join(inside),
            Err(_) => path.to_owned(),
        },
        Ok(_) | Err(_) => path.to_owned(),
    }
}

/// A program's path without the kernel's mark for deleted files, and whether it
/// bore one.
fn without_deleted(path: &Path) -> (PathBuf, bool) {
    match path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"))
    {
        Some(kept) => (PathBuf::from(kept), true),
        None => (path.to_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "4242 (a) b (c) S 17 4242 4242 0 -1 4194304 1 0 0 0 12 3 0 0 20 0 8 0 \
                        123456 1000 20 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0";

    #[test]
    fn a_name_with_blanks_and_parentheses() {
        let stat = Stat::parse(STAT).expect("the known form");
        assert_eq!(stat.comm, "a) b (c");
        assert_eq!(stat.parent_pid, 17);
        assert_eq!(stat.start_ns, 1_234_560_000_000);
        assert!(!stat.ended && !stat.kernel_thread);
        assert!(Stat::parse(&STAT.replace(") S", ") Z")).is_some_and(|stat| stat.ended));
        assert!(
            Stat::parse(&STAT.replace("4194304", "2129984")).is_some_and(|stat| stat.kernel_thread)
        );
    }

    #[test]
    fn inner_ids() {
        let status = Status::parse("Name:\tnginx\nTgid:\t900\nPid:\t901\nNSpid:\t901\t12\t1\n");
        let status = status.expect("the known form");
        assert_eq!((status.tgid, status.inner_pids), (900, vec![12, 1]));
        let plain = Status::parse("Name:\tnginx\nTgid:\t900\nNSpid:\t900\n");
        assert_eq!(plain.expect("the known form").inner_pids, [0u32; 0]);
        assert_eq!(Status::parse("Name:\tnginx\n"), None);
    }

    #[test]
    fn this_process_is_described() {
        let pid = std::process::id();
        let own = describe(pid).expect("a description");
        assert_eq!(own.process.pid, pid);
        assert_eq!(own.process.start_ns % ProcessId::TICK_NS, 0);
        assert_eq!(own.parent_pid, std::os::unix::process::parent_id());
        assert_eq!(own.runtime, "native");
        let program = std::env::current_exe().expect("own program");
        assert_eq!(Path::new(&own.exe), program);
        assert!(!own.exe_deleted);
        let uptime = std::fs::read_to_string("/proc/uptime").expect("uptime");
        let uptime: f64 = uptime
            .split(' ')
            .next()
            .and_then(|seconds| seconds.parse().ok())
            .expect("seconds");
        assert!(own.process.start_ns as f64 / 1e9 <= uptime);
        assert!(own.process.start_ns > 0);
    }

    #[test]
    fn deleted_programs() {
        let told = |path: &str| without_deleted(Path::new(path));
        assert_eq!(
            told("/usr/bin/x (deleted)"),
            (PathBuf::from("/usr/bin/x"), true)
        );
        assert_eq!(told("/usr/bin/x"), (PathBuf::from("/usr/bin/x"), false));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,300}", at in 0..STAT.len(), byte: u8) {
            Stat::parse(&text);
            Status::parse(&text);
            let mut damaged = STAT.as_bytes().to_vec();
            damaged[at] = byte;
            Stat::parse(&String::from_utf8_lossy(&damaged));
        }

        #[test]
        fn any_name_is_read_back(comm in "[^\0]{1,15}") {
            let text = STAT.replace("a) b (c", &comm);
            prop_assert_eq!(Stat::parse(&text).map(|stat| stat.comm), Some(comm));
        }
    }
}
