//! CPython, read from outside: where a process keeps the thread that runs, and
//! where that thread keeps its contextvars context.
//!
//! In: a process. Out: what the kernel programs need to state contexts
//! ([`Target`]), and where contexts are made and taken apart. Only processes
//! that have asyncio or uvloop are looked into: elsewhere contexts tell nothing.
//!
//! Versions 3.8 to 3.14, on x86-64. What is believed of a version is compared
//! with the process first (`layout`) and with the interpreter's own code
//! (`code`); the kernel programs compare the thread that a state names with
//! the thread that runs. What does not fit gives no context rather than a wrong
//! one.

mod code;
mod layout;

use std::{io, path::PathBuf};

use memtrace_common::config::Target;
use thiserror::Error;

use super::{
    image::{Image, Memory as _, ProcessMemory, file_name},
    maps::{self, FileIdentity, Mapping},
    members::members,
    place::Needs,
    symbols::{Machine, Scope},
};

/// Why contexts cannot be read.
#[derive(Debug, Error)]
pub enum PythonError {
    /// A version whose layout is not known.
    #[error("the layout of CPython {0} is not known to this memtrace (3.8 to 3.14 are)")]
    Version(String),
    /// A build whose threads run at the same time.
    #[error("its CPython is a free-threaded build, whose threads' states are kept elsewhere")]
    FreeThreaded,
    /// Its memory or code is not what its version's should be.
    #[error("its interpreter does not look as its version should: {0}")]
    Mismatch(&'static str),
    /// Its file or memory could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It has asyncio, but nothing mapped looks like the interpreter.
    #[error("its interpreter was not recognised: {0}")]
    NotFound(String),
    /// Another instruction set.
    #[error("contexts are read on x86-64 only")]
    Machine,
    /// The interpreter has not been set up yet.
    #[error("its interpreter is not running")]
    NotRunning,
}

/// A CPython interpreter whose contexts can be read.
#[derive(Debug)]
pub struct Python {
    /// The file that holds the interpreter.
    pub file: FileIdentity,
    /// Its version is 3 and this.
    pub minor: u32,
    /// What the kernel programs need.
    pub target: Target,
    /// File offsets of the functions that return a new copy of a context.
    pub makers: Vec<u64>,
    /// File offset of the function that takes a context apart.
    pub end: u64,
    image: Image,
}

impl Python {
    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        self.image.attach_path()
    }
}

const RUNTIME: &str = "_PyRuntime";
const VERSION: &str = "Py_Version";
const CONTEXT_TYPE: &str = "PyContext_Type";
const COPY_CURRENT: &str = "PyContext_CopyCurrent";
const COPY: &str = "PyContext_Copy";
const ASYNCIO: &str = "PyInit__asyncio";
/// `tp_dealloc` in `PyTypeObject`, builds with a GIL.
pub const TP_DEALLOC: u64 = 48;
/// `tp_init` in `PyTypeObject`, likewise.
pub const TP_INIT: u64 = 296;

/// Looks for an interpreter with tasks in a process; `None` if it has none.
///
/// # Errors
/// It has one that cannot be read.
pub fn find(pid: u32) -> Result<Option<Python>, PythonError> {
    let mappings = maps::parse(&std::fs::read(format!("/proc/{pid}/maps"))?);
    let has_tasks = mappings.iter().any(is_event_loop);
    let mut refused = None;
    for candidate in mappings.iter().filter(|mapping| may_hold_python(mapping)) {
        // What an interpreter has, its extension modules can link against.
        let names = [RUNTIME, VERSION, CONTEXT_TYPE, COPY_CURRENT, COPY, ASYNCIO];
        let image = match Image::open(pid, candidate, &mappings, &names, Scope::Exported) {
            Ok(Some(image)) => image,
            Ok(None) => continue,
            Err(words) => {
                refused = Some(words);
                continue;
            }
        };
        let Some(runtime) = image.symbol(RUNTIME) else {
            continue;
        };
        // Where asyncio is part of the interpreter, whether it is used cannot be
        // told from what is mapped.
        if !has_tasks && image.symbol(ASYNCIO).is_none() {
            return Ok(None);
        }
        if image.machine() != Machine::X86_64 {
            return Err(PythonError::Machine);
        }
        return read(pid, image, runtime, &file_name(candidate)).map(Some);
    }
    if !has_tasks {
        return Ok(None);
    }
    Err(PythonError::NotFound(refused.unwrap_or_else(|| {
        format!("no file of its own exports {RUNTIME}")
    })))
}

fn read(pid: u32, mut image: Image, runtime: u64, name: &str) -> Result<Python, PythonError> {
    let memory = ProcessMemory::open(pid)?;
    let minor = match image.symbol(VERSION) {
        // PY_VERSION_HEX, exported since 3.11.
        Some(version) => {
            let hex = memory.word(image.in_process(version))? as u32;
            if hex >> 24 != 3 {
                return Err(PythonError::Version(format!("{}", hex >> 24)));
            }
            (hex >> 16) & 0xff
        }
        None => minor_version(name)
            .filter(|minor| *minor < 11)
            .ok_or_else(|| PythonError::NotFound(format!("{name} does not tell its version")))?,
    };
    let located = layout::locate(&memory, image.in_process(runtime), minor)?;
    let makers = makers(&mut image, u64::from(located.context))?;
    let type_object = image
        .symbol(CONTEXT_TYPE)
        .ok_or(PythonError::Mismatch("it has no contexts"))?;
    let dealloc = memory.word(image.in_process(type_object).wrapping_add(TP_DEALLOC))?;
    let entry = Needs {
        arguments: 1,
        returns: false,
    };
    let dealloc = image.in_file(dealloc);
    let end = image
        .place(dealloc, entry)
        .ok_or(PythonError::Mismatch("its type of contexts is none"))?;
    Ok(Python {
        file: image.file,
        minor,
        target: Target {
            thread_state_at: located.thread_state_at,
            context_offset: located.context,
            thread_id_offset: located.thread_id,
            ..Target::default()
        },
        makers,
        end,
        image,
    })
}

/// File offsets of the functions that return copies of contexts, once their
/// code was seen to look for the running thread's at `context`.
fn makers(image: &mut Image, context: u64) -> Result<Vec<u64>, PythonError> {
    let missing = || PythonError::Mismatch("it exports no functions for contexts");
    let (current, current_code) = image
        .function(COPY_CURRENT, code::LOOKED_AT)
        .ok_or_else(missing)?;
    let (copy, copy_code) = image.function(COPY, code::LOOKED_AT).ok_or_else(missing)?;
    let mut found = members(current, &current_code);
    for called in code::calls(current, &current_code) {
        let called_code = image.code(called, code::CALLED_LOOKED_AT);
        found.extend(members(called, &called_code));
    }
    if !found.contains(&context) {
        return Err(PythonError::Mismatch(
            "its code finds a thread's context elsewhere",
        ));
    }
    let makers = match code::maker((current, &current_code), (copy, &copy_code)) {
        Some(maker) => vec![maker],
        None => vec![current, copy],
    };
    let returns = Needs {
        arguments: 0,
        returns: true,
    };
    makers
        .into_iter()
        .map(|function| image.place(function, returns).ok_or_else(missing))
        .collect()
}

fn is_event_loop(mapping: &Mapping) -> bool {
    let name = file_name(mapping);
    let in_uvloop = mapping
        .path
        .parent()
        .and_then(|parent| parent.file_name())
        .is_some_and(|directory| directory == "uvloop");
    name.starts_with("_asyncio.") || (name.starts_with("loop.") && in_uvloop)
}

/// The program or a library of Python's, by its name: other libraries need not
/// be opened.
fn may_hold_python(mapping: &Mapping) -> bool {
    let name = file_name(mapping);
    mapping.executable && (name.contains("python") || !name.contains(".so"))
}

/// The 9 of `python3.9`, `libpython3.9.so.1.0`, `libpython3.8d.so`.
fn minor_version(name: &str) -> Option<u32> {
    let (_, rest) = name.split_once("python3.")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_files_name() {
        assert_eq!(minor_version("python3.10"), Some(10));
        assert_eq!(minor_version("libpython3.8.so.1.0"), Some(8));
        assert_eq!(minor_version("python3"), None);
        assert_eq!(minor_version("libpython2.7.so.1.0"), None);
    }
}
