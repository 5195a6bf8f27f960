//! CPython, read from outside: where a process keeps the thread that runs, and
//! where that thread keeps its contextvars context.
//!
//! In: a process. Out: what the kernel programs need to state contexts
//! ([`Target`]), and where contexts are made. Only processes that have asyncio
//! or uvloop mapped are looked into: elsewhere contexts tell nothing.
//!
//! Layouts are those of the versions' own headers (`Include/cpython/pystate.h`,
//! `Include/internal/pycore_runtime.h`, `pycore_interp.h`, `pycore_gil.h`). The
//! kernel programs compare the thread that a state names with the thread that
//! runs, so that a layout that does not fit gives no context rather than a
//! wrong one.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
};

use memtrace_common::config::Target;
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, read::ReadCache};
use thiserror::Error;

use super::{
    discover::open_mapped,
    maps::{self, FileIdentity, Mapping},
    place::{self, Needs},
    symbols::ElfFile,
};

/// Why contexts cannot be read.
#[derive(Debug, Error)]
pub enum PythonError {
    /// A version whose layout is not known.
    #[error("the layout of CPython {0} is not known to this memtrace")]
    Version(String),
    /// Its file or memory could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// Its file could not be understood.
    #[error("its interpreter could not be examined: {0}")]
    Elf(String),
    /// The interpreter has not been set up yet.
    #[error("its interpreter is not running")]
    NotRunning,
}

/// A CPython interpreter whose contexts can be read.
#[derive(Debug)]
pub struct Python {
    /// The file that holds the interpreter.
    pub file: FileIdentity,
    /// What the kernel programs need.
    pub target: Target,
    /// File offset of the probe in `PyContext_CopyCurrent`.
    pub copy_current_offset: u64,
    handle: File,
}

impl Python {
    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }
}

/// Where a version keeps things, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    running: Running,
    context: u32,
    thread_id: u32,
}

/// Where the running thread state's address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    /// In `_PyRuntime` itself (`gilstate.tstate_current`).
    InRuntime(u64),
    /// In the main interpreter's GIL (`last_holder`): offsets of the main
    /// interpreter in `_PyRuntime` and of the GIL's address in it.
    InGil(u64, u64),
}

/// `last_holder` in `struct _gil_runtime_state`, behind `interval`.
const GIL_LAST_HOLDER: u64 = 8;

fn layout(minor: u32) -> Option<Layout> {
    let (running, context, thread_id) = match minor {
        8 => (Running::InRuntime(1368), 240, 176),
        9 | 10 => (Running::InRuntime(568), 240, 176),
        11 => (Running::InRuntime(576), 224, 152),
        12 => (Running::InGil(48, 384), 208, 136),
        13 => (Running::InGil(640, 16), 208, 152),
        _ => return None,
    };
    Some(Layout {
        running,
        context,
        thread_id,
    })
}

/// Looks for an interpreter with tasks in a process; `None` if it has none.
///
/// # Errors
/// It has one that cannot be read.
pub fn find(pid: u32) -> Result<Option<Python>, PythonError> {
    let mappings = maps::parse(&std::fs::read(format!("/proc/{pid}/maps"))?);
    let has_tasks = mappings.iter().any(|mapping| {
        let name = file_name(mapping);
        name.starts_with("_asyncio.") || (name.starts_with("loop.") && in_uvloop(mapping))
    });
    if !has_tasks {
        return Ok(None);
    }
    let Some((mapping, minor)) = mappings
        .iter()
        .filter(|mapping| mapping.executable)
        .find_map(|mapping| Some((mapping, minor_version(&file_name(mapping))?)))
    else {
        return Ok(None);
    };
    let layout = layout(minor).ok_or_else(|| PythonError::Version(format!("3.{minor}")))?;
    // A shared interpreter is named first by the program that is linked to it:
    // whichever of the files of that version has the symbols is it.
    let candidates = mappings.iter().filter(|other| {
        other.executable
            && (other.file == mapping.file || minor_version(&file_name(other)) == Some(minor))
    });
    for candidate in candidates {
        let Ok(Some(opened)) = open_mapped(pid, candidate, &mappings) else {
            continue;
        };
        if let Some((runtime, copy_current_offset)) = symbols(&opened.handle, candidate, &mappings)?
        {
            let thread_state_at = match layout.running {
                Running::InRuntime(offset) => runtime + offset,
                Running::InGil(interpreter, gil) => {
                    let memory = File::open(format!("/proc/{pid}/mem"))?;
                    let interpreter = pointer(&memory, runtime + interpreter)?;
                    pointer(&memory, interpreter + gil)? + GIL_LAST_HOLDER
                }
            };
            return Ok(Some(Python {
                file: candidate.file,
                target: Target {
                    thread_state_at,
                    context_offset: layout.context,
                    thread_id_offset: layout.thread_id,
                },
                copy_current_offset,
                handle: opened.handle,
            }));
        }
    }
    Ok(None)
}

/// Address of `_PyRuntime` in the process, and file offset of the probe in
/// `PyContext_CopyCurrent`.
fn symbols(
    handle: &File,
    mapping: &Mapping,
    mappings: &[Mapping],
) -> Result<Option<(u64, u64)>, PythonError> {
    let elf = |error: &dyn std::fmt::Display| PythonError::Elf(error.to_string());
    let cache = ReadCache::new(handle.try_clone()?);
    let file = object::File::parse(&cache).map_err(|error| elf(&error))?;
    let Some(runtime) = file
        .dynamic_symbols()
        .find(|symbol| symbol.name() == Ok("_PyRuntime") && symbol.address() != 0)
        .map(|symbol| symbol.address())
    else {
        return Ok(None);
    };
    // How far the file was moved when it was loaded: its first segment in the
    // file is its lowest mapping.
    let first = file
        .segments()
        .min_by_key(|segment| segment.file_range().0)
        .map(|segment| (segment.address(), segment.file_range().0));
    let lowest = mappings
        .iter()
        .filter(|other| other.file == mapping.file)
        .min_by_key(|other| other.offset);
    let (Some((address, offset)), Some(lowest)) = (first, lowest) else {
        return Ok(None);
    };
    let moved = lowest
        .start
        .wrapping_sub(lowest.offset)
        .wrapping_sub(address.wrapping_sub(offset));

    let mut elf_file = ElfFile::open(handle.try_clone()?).map_err(|error| elf(&error))?;
    let machine = elf_file.facts().machine;
    let functions = elf_file
        .functions(&|name| name == "PyContext_CopyCurrent")
        .map_err(|error| elf(&error))?
        .functions;
    let Some(function) = functions.first() else {
        return Ok(None);
    };
    let needs = Needs {
        arguments: 0,
        returns: true,
    };
    let len = usize::try_from(function.size)
        .unwrap_or(usize::MAX)
        .min(place::SCAN_BYTES_MAX);
    let code = elf_file.code(function.address, len).unwrap_or_default();
    let place = place::choose(&code, function.address, machine, needs);
    Ok(Some((
        runtime.wrapping_add(moved),
        function.file_offset + place.offset,
    )))
}

fn pointer(memory: &File, address: u64) -> Result<u64, PythonError> {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, address)?;
    match u64::from_ne_bytes(bytes) {
        0 => Err(PythonError::NotRunning),
        pointer => Ok(pointer),
    }
}

fn file_name(mapping: &Mapping) -> String {
    mapping
        .path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn in_uvloop(mapping: &Mapping) -> bool {
    mapping
        .path
        .parent()
        .and_then(|parent| parent.file_name())
        .is_some_and(|name| name == "uvloop")
}

/// The 11 of `python3.11`, `libpython3.11.so.1.0`, `libpython3.11d.so`.
fn minor_version(name: &str) -> Option<u32> {
    let rest = name
        .strip_prefix("libpython3.")
        .or_else(|| name.strip_prefix("python3."))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_files_name() {
        assert_eq!(minor_version("python3.11"), Some(11));
        assert_eq!(minor_version("libpython3.8.so.1.0"), Some(8));
        assert_eq!(minor_version("python3"), None);
        assert_eq!(minor_version("libpython2.7.so.1.0"), None);
    }

    #[test]
    fn an_unknown_version_has_no_layout() {
        assert_eq!(layout(7), None);
        assert_eq!(layout(14), None);
        assert_eq!(layout(11).map(|layout| layout.context), Some(224));
    }
}
