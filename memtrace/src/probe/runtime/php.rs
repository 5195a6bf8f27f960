//! PHP, read from outside: where a process keeps the heap of the request that it
//! serves, and where that heap is given up.
//!
//! In: a process. Out: what the kernel programs need to read the heap's size and
//! peak ([`PhpTarget`]), and the place of the probe. Nothing is known of any
//! version: `zend_memory_usage` and `zend_memory_peak_usage` (Zend/zend_alloc.c)
//! are the functions that tell these figures to scripts, and their code says
//! where they read them. A PHP that is built for threads keeps its heaps
//! elsewhere and is not read.

mod code;

use std::{io, path::PathBuf};

use memtrace_common::config::PhpTarget;
use thiserror::Error;

use super::memory::{Image, Memory as _, ProcessMemory, unusable};
use crate::probe::{
    maps::FileIdentity,
    place::{self, Needs},
    symbols::Symbol,
};
use code::Field;

/// Bytes of the functions that are read.
const CODE_BYTES_MAX: u64 = 256;
/// Larger heaps are none, bytes.
const HEAP_BYTES_MAX: u64 = 1 << 40;

const USAGE: &str = "zend_memory_usage";
const PEAK_USAGE: &str = "zend_memory_peak_usage";
/// Called once for each request, when everything of it is over.
const HEAP_END: &str = "shutdown_memory_manager";
/// Only there in a PHP that is built for threads (TSRM/TSRM.c).
const THREADS: &str = "tsrm_get_ls_cache";

/// Why the heap cannot be read.
#[derive(Debug, Error)]
pub enum PhpError {
    /// Its file or memory could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It keeps a heap for each thread.
    #[error("this PHP is built for threads (ZTS) and keeps a heap for each")]
    Threads,
    /// A function is not exported.
    #[error("this PHP does not export {0}")]
    NoFunction(&'static str),
    /// The functions' code is not understood.
    #[error("the code of this PHP does not show where it keeps its heap")]
    Code,
    /// What is there does not look like a heap.
    #[error("what this PHP keeps where its heap should be is none")]
    Mismatch,
}

/// A PHP whose heap can be read.
#[derive(Debug)]
pub struct Php {
    /// What the kernel programs need.
    pub target: PhpTarget,
    /// File offset of the probe where the heap is given up.
    pub heap_end_offset: u64,
    image: Image,
}

impl Php {
    /// The file that holds it.
    pub fn file(&self) -> FileIdentity {
        self.image.file
    }

    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        self.image.attach_path()
    }
}

/// Looks for PHP in a process; `None` if there is none.
///
/// # Errors
/// There is one whose heap cannot be read.
pub fn find(pid: u32) -> Result<Option<Php>, PhpError> {
    let Some(mut image) = Image::find(pid, &is_php)? else {
        return Ok(None);
    };
    let names = [USAGE, PEAK_USAGE, HEAP_END, THREADS];
    let functions = image
        .elf
        .functions(&|name| names.contains(&name))
        .map_err(unusable)?
        .functions;
    let function = |name: &'static str| {
        let found = functions.iter().find(|function| function.name == name);
        found.ok_or(PhpError::NoFunction(name))
    };
    if function(THREADS).is_ok() {
        return Err(PhpError::Threads);
    }
    let machine = image.elf.facts().machine;
    let mut code = |function: &Symbol| -> io::Result<Vec<u8>> {
        let len = function.size.min(CODE_BYTES_MAX) as usize;
        image.elf.code(function.address, len).map_err(unusable)
    };
    let (usage, peak_usage, end) = (function(USAGE)?, function(PEAK_USAGE)?, function(HEAP_END)?);
    let usage = code::returned_field(&code(usage)?, usage.address, machine);
    let peak = code::returned_field(&code(peak_usage)?, peak_usage.address, machine);
    let place = place::choose(
        &code(end)?,
        end.address,
        machine,
        Needs {
            arguments: 0,
            returns: false,
        },
    );
    let mut target = layout(usage, peak).ok_or(PhpError::Code)?;
    target.heap_at = target.heap_at.wrapping_add(image.moved);
    check(pid, &target)?;
    Ok(Some(Php {
        target,
        heap_end_offset: end.file_offset + place.offset,
        image,
    }))
}

/// `php-fpm8.2`, `php-cgi`, `php`, `libphp8.2.so`, `libphp.so`.
fn is_php(name: &str) -> bool {
    let rest = name.strip_prefix("lib").unwrap_or(name);
    rest.strip_prefix("php").is_some_and(|rest| {
        rest.is_empty() || rest.starts_with(|c: char| matches!(c, '-' | '.') || c.is_ascii_digit())
    })
}

/// Two figures of one heap.
fn layout(size: Option<Field>, peak: Option<Field>) -> Option<PhpTarget> {
    let (size, peak) = (size?, peak?);
    (size.pointer_at == peak.pointer_at && size.offset != peak.offset).then_some(PhpTarget {
        heap_at: size.pointer_at,
        size: size.offset,
        peak: peak.offset,
    })
}

/// An error if there is a heap whose figures cannot be its own.
fn check(pid: u32, target: &PhpTarget) -> Result<(), PhpError> {
    let memory = ProcessMemory::open(pid)?;
    let heap = memory.u64(target.heap_at).ok_or(PhpError::Mismatch)?;
    // Before PHP has started there is none.
    if heap == 0 {
        return Ok(());
    }
    let figure = |offset: u32| {
        let at = heap.checked_add(offset.into())?;
        memory.u64(at).filter(|bytes| *bytes < HEAP_BYTES_MAX)
    };
    match (figure(target.size), figure(target.peak)) {
        (Some(_), Some(_)) => Ok(()),
        (_, _) => Err(PhpError::Mismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_php() {
        for name in [
            "php-fpm8.2",
            "php-fpm",
            "php",
            "php8.2",
            "php-cgi",
            "libphp8.2.so",
            "libphp.so",
        ] {
            assert!(is_php(name), "{name}");
        }
        for name in ["", "libphobos.so", "phpunit", "phpmyadmin.so", "xphp"] {
            assert!(!is_php(name), "{name}");
        }
    }

    #[test]
    fn the_two_figures_are_of_one_heap() {
        let field = |pointer_at, offset| Some(Field { pointer_at, offset });
        assert!(layout(field(64, 16), field(64, 24)).is_some());
        assert!(layout(field(64, 16), field(72, 24)).is_none());
        assert!(layout(field(64, 16), field(64, 16)).is_none());
        assert!(layout(None, field(64, 16)).is_none());
    }
}
