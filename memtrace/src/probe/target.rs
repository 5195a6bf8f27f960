//! Which processes to trace.
//!
//! What the user asked for comes in as a [`Selector`]; process ids in the
//! initial PID namespace go out, or a sentence that says why there are none and
//! what to do. What is known of each process is in the rooms below. Nothing is
//! attached here, and nothing is remembered: resolving again finds what has
//! joined since.

pub mod cgroup;
pub mod container;
pub mod process;
pub mod runtime;
pub mod sleepers;
pub mod sockets;

use std::io;
use std::path::{Path, PathBuf};

use process::{Stat, Status};

/// The kernel cuts process names to this length, bytes.
pub const COMM_BYTES_MAX: usize = 15;
/// Names suggested for one that no process has.
const SUGGESTIONS_MAX: usize = 5;

/// What the user asked to trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// One process, by its id in the initial PID namespace.
    Pid(u32),
    /// Every process in a cgroup and below it. The path is one in the file
    /// system, or one below a cgroup mount.
    Cgroup(PathBuf),
    /// Every process of a container, by its id, the start of its id, or its name
    /// where the engine names cgroups so.
    Container(String),
    /// Every process of this name (`/proc/PID/comm`).
    Name(String),
}

/// Why there is nothing to trace.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No process has the id.
    #[error("no process has the id {pid}{}", inner_hint(.pid, .inner))]
    NoProcess {
        /// The id asked for.
        pid: u32,
        /// Processes that have this id in a PID namespace of their own: id in
        /// the initial namespace, and name.
        inner: Vec<(u32, String)>,
    },
    /// The id is a thread's.
    #[error("{tid} is a thread of process {pid} ({comm}); use --pid {pid}")]
    Thread {
        /// The id asked for.
        tid: u32,
        /// The process it belongs to.
        pid: u32,
        /// That process's name.
        comm: String,
    },
    /// The process has ended and waits for its parent.
    #[error(
        "process {pid} ({comm}) has ended and only waits for its parent {parent_pid} to take note; \
         there is nothing left to trace"
    )]
    Zombie {
        /// The id asked for.
        pid: u32,
        /// Its name.
        comm: String,
        /// Its parent.
        parent_pid: u32,
    },
    /// The process is the kernel's.
    #[error("process {pid} ({comm}) is a thread of the kernel: it has no program to trace")]
    KernelThread {
        /// The id asked for.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// memtrace was asked to trace itself.
    #[error("process {0} is this memtrace, which cannot trace itself")]
    Itself(u32),
    /// No process has the name.
    #[error("no process is named {name:?}{}", name_hint(.similar))]
    NoName {
        /// The name asked for.
        name: String,
        /// Names that look alike.
        similar: Vec<String>,
    },
    /// The path leads to no cgroup.
    #[error(
        "there is no cgroup {}: it is neither a cgroup directory nor a path below {}; \
         `cat /proc/PID/cgroup` shows the cgroups of a process", .path.display(), mounts_hint(.mounts)
    )]
    NoCgroup {
        /// The path asked for.
        path: PathBuf,
        /// Where cgroups are mounted.
        mounts: Vec<PathBuf>,
    },
    /// No container has the id.
    #[error("no running container has the id or name {wanted:?}{}", container_hint(.known))]
    NoContainer {
        /// What was asked for.
        wanted: String,
        /// Containers that run.
        known: Vec<String>,
    },
    /// The start of an id is too short to be taken for one.
    #[error(
        "{wanted:?} is too short for the start of a container id: give at least \
         {} characters, or the whole name",
        container::PREFIX_CHARS_MIN
    )]
    ShortContainer {
        /// What was asked for.
        wanted: String,
    },
    /// Several containers' ids begin so.
    #[error("several containers begin with {wanted:?}: {}; give more of the id", .candidates.join(", "))]
    AmbiguousContainer {
        /// What was asked for.
        wanted: String,
        /// Their ids.
        candidates: Vec<String>,
    },
    /// Something of `/proc` or of a cgroup could not be read.
    #[error("{} could not be read: {source}; run memtrace as root", .path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn inner_hint(pid: &u32, inner: &[(u32, String)]) -> String {
    match inner {
        [] => "; `ps -e` lists those that run".to_owned(),
        [(host, comm)] => format!(
            "; inside its own PID namespace process {host} ({comm}) is number {pid}: use --pid {host}"
        ),
        [_, ..] => {
            let list: Vec<String> = inner
                .iter()
                .take(SUGGESTIONS_MAX)
                .map(|(host, comm)| format!("{host} ({comm})"))
                .collect();
            format!(
                "; inside PID namespaces of their own these processes are number {pid}: {}; use \
                 the number that stands here",
                list.join(", ")
            )
        }
    }
}

fn name_hint(similar: &[String]) -> String {
    if similar.is_empty() {
        "; `ps -eo pid,comm` lists the names".to_owned()
    } else {
        format!("; running processes have the names {}", similar.join(", "))
    }
}

fn mounts_hint(mounts: &[PathBuf]) -> String {
    if mounts.is_empty() {
        return "a cgroup mount, of which there is none".to_owned();
    }
    let list: Vec<String> = mounts.iter().map(|m| m.display().to_string()).collect();
    list.join(", ")
}

fn container_hint(known: &[String]) -> String {
    if known.is_empty() {
        "; no process's cgroup looks like a container's: use --cgroup or --pid".to_owned()
    } else {
        format!("; running: {}", known.join(", "))
    }
}

impl Selector {
    /// The processes selected at this moment, in ascending order, without this
    /// memtrace, threads of the kernel and processes that have ended. A cgroup
    /// that exists but is empty selects none: processes may join it.
    pub fn resolve(&self) -> Result<Vec<u32>, TargetError> {
        let mut pids = match self {
            Selector::Pid(pid) => return resolve_pid(*pid).map(|pid| vec![pid]),
            Selector::Cgroup(path) => cgroup::processes_of_cgroup(&cgroup::find_directory(path)?)?,
            Selector::Container(wanted) => {
                let texts = each_process(|pid| Some((pid, read_text(&proc_path(pid, "cgroup"))?)))?;
                container::find(wanted, &texts)?
            }
            Selector::Name(name) => {
                let comms = each_process(|pid| {
                    let stat = Stat::read(pid).ok()?;
                    (!stat.kernel_thread).then_some((pid, stat.comm))
                })?;
                named(name, &comms)?
            }
        };
        pids.retain(|pid| traceable(*pid));
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The cgroup directory below which joining processes are selected too:
    /// the one asked for, or the container's. `None` for other selectors, and
    /// for a container whose cgroup cannot be seen from here.
    pub fn cgroup_directory(&self) -> Result<Option<PathBuf>, TargetError> {
        match self {
            Selector::Pid(_) | Selector::Name(_) => Ok(None),
            Selector::Cgroup(path) => cgroup::find_directory(path).map(Some),
            Selector::Container(wanted) => {
                let texts = each_process(|pid| Some((pid, read_text(&proc_path(pid, "cgroup"))?)))?;
                let pids = container::find(wanted, &texts)?;
                let path = texts
                    .iter()
                    .filter(|(pid, _)| pids.contains(pid))
                    .find_map(|(_, text)| container::cgroup_path(wanted, text));
                Ok(path.and_then(|path| cgroup::find_directory(Path::new(&path)).ok()))
            }
        }
    }
}

/// Checks that one process can be traced.
fn resolve_pid(pid: u32) -> Result<u32, TargetError> {
    if pid == std::process::id() {
        return Err(TargetError::Itself(pid));
    }
    let stat = match Stat::read(pid) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(TargetError::Unreadable {
                path: proc_path(pid, "stat"),
                source: error,
            });
        }
        Err(_) => {
            let mut inner = each_process(|host| {
                let status = Status::read(host)?;
                (status.inner_pids.contains(&pid)).then_some((host, status.name))
            })?;
            inner.sort_unstable();
            return Err(TargetError::NoProcess { pid, inner });
        }
    };
    if let Some(status) = Status::read(pid)
        && status.tgid != pid
    {
        return Err(TargetError::Thread {
            tid: pid,
            pid: status.tgid,
            comm: Stat::read(status.tgid).map_or(status.name, |stat| stat.comm),
        });
    }
    if stat.kernel_thread {
        return Err(TargetError::KernelThread {
            pid,
            comm: stat.comm,
        });
    }
    if stat.ended {
        return Err(TargetError::Zombie {
            pid,
            comm: stat.comm,
            parent_pid: stat.parent_pid,
        });
    }
    Ok(pid)
}

/// Whether a process found by a wider selector is one to trace.
fn traceable(pid: u32) -> bool {
    pid != std::process::id()
        && Stat::read(pid).is_ok_and(|stat| !stat.kernel_thread && !stat.ended)
}

/// The processes of a name among those given; alike names if there is none.
fn named(name: &str, comms: &[(u32, String)]) -> Result<Vec<u32>, TargetError> {
    let wanted = cut(name);
    let pids: Vec<u32> = comms
        .iter()
        .filter(|(pid, comm)| *comm == wanted && *pid != std::process::id())
        .map(|(pid, _)| *pid)
        .collect();
    if !pids.is_empty() {
        return Ok(pids);
    }
    let mut similar: Vec<(usize, String)> = comms
        .iter()
        .filter(|(pid, _)| *pid != std::process::id())
        .filter_map(|(_, comm)| Some((likeness(&wanted, comm)?, comm.clone())))
        .collect();
    similar.sort();
    similar.dedup();
    Err(TargetError::NoName {
        name: name.to_owned(),
        similar: similar
            .into_iter()
            .map(|(_, comm)| comm)
            .take(SUGGESTIONS_MAX)
            .collect(),
    })
}

/// A name as the kernel would keep it.
fn cut(name: &str) -> String {
    let bytes = name.as_bytes();
    String::from_utf8_lossy(&bytes[..bytes.len().min(COMM_BYTES_MAX)]).into_owned()
}

/// How alike two names are, small numbers for very; `None` for not at all.
fn likeness(wanted: &str, comm: &str) -> Option<usize> {
    let (a, b) = (wanted.to_lowercase(), comm.to_lowercase());
    if a == b {
        return Some(0);
    }
    if a.len() >= 3 && b.len() >= 3 && (a.contains(&b) || b.contains(&a)) {
        return Some(1);
    }
    let distance = edit_distance(a.as_bytes(), b.as_bytes());
    (distance <= 2 && distance < a.len()).then_some(1 + distance)
}

/// How many bytes must be changed, added or removed to make one name the other.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// What `look` finds in each process, processes without passed over.
fn each_process<T>(look: impl Fn(u32) -> Option<T>) -> Result<Vec<T>, TargetError> {
    let path = Path::new("/proc");
    let entries = std::fs::read_dir(path).map_err(|source| TargetError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(look)
        .collect())
}

/// The processes that descend from any of those given, without them, in
/// ascending order.
pub fn descendants(ancestors: &[u32]) -> Result<Vec<u32>, TargetError> {
    let parents = each_process(|pid| Some((pid, Stat::read(pid).ok()?.parent_pid)))?;
    let mut found: Vec<u32> = Vec::new();
    let mut next = ancestors.to_vec();
    // Every pass goes one generation down; /proc can change underneath, but a
    // process is taken once, so this ends.
    while !next.is_empty() {
        let children: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| {
                next.contains(parent) && !ancestors.contains(pid) && !found.contains(pid)
            })
            .map(|(pid, _)| *pid)
            .collect();
        found.extend(&children);
        next = children;
    }
    found.retain(|pid| traceable(*pid));
    found.sort_unstable();
    Ok(found)
}

/// A file of a process's directory in `/proc`.
fn proc_path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// A file's text, with what is not UTF-8 replaced; `None` if it cannot be read.
fn read_text(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
