//! The allocators that a process has mapped, and what of them to probe.
//!
//! A process id comes in; a [`Discovery`] goes out: one [`AllocatorObject`] for
//! each mapped file that defines allocator functions, by inode, whatever its path
//! looks like inside the process's root. Nothing is attached here. Heaps that are
//! not reached through an allocator's functions are not looked for.

mod forward;
mod functions;
mod object;
mod sockets;

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::maps::{self, FileIdentity, Mapping};
use super::symbols::{ElfError, Linkage};
use super::target::process::inside_root;
use super::{tasks::TaskObject, tls::TlsObject};

pub use functions::{Allocator, Role};
pub use object::{Function, ObjectFacts, Skipped, examine};
pub use sockets::{SocketFunction, SocketObject};

/// Files remembered by an [`ObjectCache`]: a few hundred bytes each, some tens of
/// KiB for the few that hold an allocator.
const CACHE_ENTRIES_MAX: usize = 4096;

/// Why the allocators of a process could not be looked for.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The process is gone.
    #[error("process {0} has ended")]
    Gone(u32),
    /// Its memory map may not be read.
    #[error(
        "the memory map of process {pid} could not be read ({source}); run memtrace as root, \
         or with CAP_SYS_PTRACE"
    )]
    Maps {
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is nothing to probe.
    #[error("no allocator to probe was found in process {pid}: {reason}")]
    Nothing {
        /// The process.
        pid: u32,
        /// Why, and what to do.
        reason: String,
    },
}

/// A mapped file that holds allocators.
#[derive(Clone, Debug)]
pub struct AllocatorObject {
    /// Which file, as the process's memory map shows it.
    pub file: FileIdentity,
    /// Its path inside the process's root.
    pub path: PathBuf,
    /// The path no longer leads to it.
    pub deleted: bool,
    /// The `/proc` path through which it was opened.
    pub opened_through: PathBuf,
    /// What is in it.
    pub facts: Arc<ObjectFacts>,
    handle: Arc<File>,
}

impl AllocatorObject {
    /// The path to hand to the kernel when attaching. It leads to exactly the
    /// file that was examined, whatever has since become of the process and its
    /// mappings, but only in this process and as long as this object lives.
    /// Drop the object once the probes are attached: it keeps the file's mount
    /// busy.
    pub fn attach_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// The allocators in it and its path, such as
    /// `glibc (/usr/lib/x86_64-linux-gnu/libc.so.6)`.
    pub fn describe(&self) -> String {
        let names: Vec<String> = self
            .facts
            .allocators
            .iter()
            .map(ToString::to_string)
            .collect();
        format!("{} ({})", names.join(" + "), self.path.display())
    }
}

/// What was found in a process.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// The files to probe, in the order of their paths: the order of the
    /// mappings changes from one start of a program to the next.
    pub objects: Vec<AllocatorObject>,
    /// If there is none: why, and what to do.
    pub nothing: Option<String>,
    /// The files that hold TLS libraries, in the order of their paths.
    pub tls: Vec<TlsObject>,
    /// The files in which tasks are polled.
    pub tasks: Vec<TaskObject>,
    /// What could not be looked into, in words.
    pub trouble: Vec<String>,
}

/// What a file is known by between two looks at it.
type CacheKey = (u64, u64, i64, i64, u64);
/// What was found, or why nothing could be.
type Examined = Result<Arc<ObjectFacts>, Arc<ElfError>>;

/// Remembers what was found in files, so that a file that many processes map is
/// read once.
#[derive(Debug, Default)]
pub struct ObjectCache {
    known: HashMap<CacheKey, Examined>,
}

/// The allocators of a process, an error if there is none to probe.
pub fn allocators(pid: u32) -> Result<Vec<AllocatorObject>, DiscoverError> {
    let found = ObjectCache::new().discover(pid)?;
    if let Some(nothing) = found.nothing {
        let why: Vec<String> = std::iter::once(nothing).chain(found.trouble).collect();
        return Err(DiscoverError::Nothing {
            pid,
            reason: why.join("; "),
        });
    }
    Ok(found.objects)
}

impl ObjectCache {
    /// An empty cache.
    pub fn new() -> Self {
        ObjectCache::default()
    }

    /// Looks through every file that the process has mapped executable.
    pub fn discover(&mut self, pid: u32) -> Result<Discovery, DiscoverError> {
        let text =
            std::fs::read(format!("/proc/{pid}/maps")).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => DiscoverError::Gone(pid),
                _ if source.raw_os_error() == Some(libc::ESRCH) => DiscoverError::Gone(pid),
                _ => DiscoverError::Maps { pid, source },
            })?;
        let mappings = maps::parse(&text);
        let mut found = Discovery::default();
        let mut seen = HashSet::new();
        for mapping in mappings.iter().filter(|mapping| mapping.executable) {
            if !seen.insert(mapping.file) {
                continue;
            }
            let opened = match open_mapped(pid, mapping, &mappings) {
                Ok(Some(opened)) => opened,
                // A device or the like: no program text.
                Ok(None) => continue,
                Err(why) => {
                    found.trouble.push(why);
                    continue;
                }
            };
            match self.examined(&opened.handle) {
                Ok(facts) => {
                    for name in &facts.resolvers {
                        found.trouble.push(format!(
                            "{name} of {} is chosen when the program starts and cannot be probed",
                            mapping.path.display()
                        ));
                    }
                    let handle = Arc::new(opened.handle);
                    let path = inside_root(pid, &mapping.path);
                    if !facts.tls.functions.is_empty() {
                        found.tls.push(TlsObject::new(
                            mapping.file,
                            path.clone(),
                            facts.tls.clone(),
                            Arc::clone(&handle),
                        ));
                    }
                    if !facts.tasks.is_empty() {
                        found.tasks.push(TaskObject::new(
                            mapping.file,
                            path.clone(),
                            facts.tasks.clone(),
                            Arc::clone(&handle),
                        ));
                    }
                    if !facts.functions.is_empty() {
                        found.objects.push(AllocatorObject {
                            file: mapping.file,
                            path,
                            deleted: mapping.deleted,
                            opened_through: opened.through,
                            facts,
                            handle,
                        });
                    }
                }
                Err(error) => match &*error {
                    // Generated code kept in a file.
                    ElfError::NotElf => {}
                    // The program itself is named by the explanation below.
                    ElfError::Machine(_) => {}
                    ElfError::Read(_) | ElfError::TooLong(_) | ElfError::Damaged(_) => {
                        found.trouble.push(format!(
                            "{} was not searched for allocators: {error}",
                            mapping.path.display()
                        ));
                    }
                },
            }
        }
        found
            .objects
            .sort_by(|a, b| (&a.path, a.file).cmp(&(&b.path, b.file)));
        found
            .tls
            .sort_by(|a, b| (&a.path, a.file).cmp(&(&b.path, b.file)));
        if found.objects.is_empty() {
            found.nothing = Some(self.explain_nothing(pid));
        }
        Ok(found)
    }

    /// What is in an opened file.
    fn examined(&mut self, file: &File) -> Examined {
        let meta = file
            .metadata()
            .map_err(|error| Arc::new(ElfError::Read(error)))?;
        let key = (
            meta.dev(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.size(),
        );
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let examined = examine(file).map(Arc::new).map_err(Arc::new);
        if self.known.len() >= CACHE_ENTRIES_MAX {
            self.known.clear();
        }
        // A failed read may succeed next time.
        if !matches!(&examined, Err(error) if matches!(**error, ElfError::Read(_))) {
            self.known.insert(key, examined.clone());
        }
        examined
    }

    /// Why nothing was found in a process, and what to do.
    fn explain_nothing(&mut self, pid: u32) -> String {
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        let shown = std::fs::read_link(&exe)
            .map_or_else(|_| exe.display().to_string(), |p| p.display().to_string());
        let examined = match File::open(&exe) {
            Ok(file) => self.examined(&file),
            Err(error) => return format!("its program {shown} could not be opened: {error}"),
        };
        match examined {
            Err(error) => format!("its program {shown} cannot be traced: {error}"),
            Ok(facts) if facts.elf.go => {
                format!("its program {shown} is a Go program without C code")
            }
            Ok(facts) => match (facts.elf.linkage, facts.elf.full_symbols) {
                (Linkage::StaticExecutable, false) => format!(
                    "its program {shown} is statically linked and stripped, so nothing tells \
                     where its allocator is; keep its symbols (build without strip or -s), or \
                     link it with a shared C library or allocator"
                ),
                (Linkage::StaticExecutable, true) => format!(
                    "its program {shown} is statically linked and defines no allocator under a \
                     name that memtrace knows; link it with a shared C library or allocator"
                ),
                (Linkage::DynamicExecutable | Linkage::SharedLibrary, _) => format!(
                    "neither its program {shown} nor a library it has loaded so far defines \
                     allocator functions; if it has only just started, attach again"
                ),
            },
        }
    }
}

/// An opened file and how it was reached.
pub(super) struct Opened {
    pub(super) handle: File,
    through: PathBuf,
}

/// Opens a mapped file: through the mapping itself, which leads to the very file,
/// deleted or not and in whichever mount namespace; where that is not permitted,
/// through the process's root, if the path still leads to the same file. `None`
/// if it is no regular file.
pub(super) fn open_mapped(
    pid: u32,
    mapping: &Mapping,
    mappings: &[Mapping],
) -> Result<Option<Opened>, String> {
    // The process may have split or dropped a mapping in the meantime; any other
    // of the same file will do.
    let same = mappings.iter().filter(|other| other.file == mapping.file);
    let mut refused = None;
    for candidate in same {
        let through = PathBuf::from(format!(
            "/proc/{pid}/map_files/{}",
            candidate.map_files_name()
        ));
        match open_regular(&through) {
            Ok(Some(handle)) => return Ok(Some(Opened { handle, through })),
            Ok(None) => return Ok(None),
            Err(error) => refused = Some(error),
        }
    }
    let shown = mapping.path.display();
    if mapping.deleted {
        return Err(format!(
            "{shown} was deleted since it was mapped, and the mapping itself could not be \
             opened{}; run memtrace as root",
            refused.map_or_else(String::new, |error| format!(" ({error})"))
        ));
    }
    let inside = inside_root(pid, &mapping.path);
    let inside = inside.strip_prefix("/").unwrap_or(&inside);
    let through = Path::new("/proc")
        .join(pid.to_string())
        .join("root")
        .join(inside);
    let handle = match open_regular(&through) {
        Ok(Some(handle)) => handle,
        Ok(None) => return Ok(None),
        Err(error) => return Err(format!("{shown} could not be opened: {error}")),
    };
    // Device numbers are left out of it: some file systems show another one to
    // stat than the memory map has.
    match handle.metadata() {
        Ok(meta) if meta.ino() == mapping.file.inode => Ok(Some(Opened { handle, through })),
        Ok(_) => Err(format!(
            "{shown} was replaced since the process mapped it, and the mapping itself could not \
             be opened; run memtrace as root, or restart the process"
        )),
        Err(error) => Err(format!("{shown} could not be examined: {error}")),
    }
}

/// Opens a regular file for reading; `None` for anything else, which is not even
/// opened: to open a device can be to operate it.
fn open_regular(path: &Path) -> io::Result<Option<File>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

#[cfg(test)]
mod tests;
