//! greenlet, read from outside: which greenlet a thread goes on in.
//!
//! In: a process. Out: where its greenlet library switches, sets up and takes
//! apart greenlets. Versions since 2.0, whose `Greenlet::g_switchstack` is
//! exported; it is called on the greenlet that goes on. x86-64 only, as the
//! place of the argument is the machine's.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{
    image::{Image, Memory as _, ProcessMemory, file_name},
    maps::{self, FileIdentity, Mapping},
    place::Needs,
    python::{TP_DEALLOC, TP_INIT},
    symbols::{Machine, Scope},
};

/// Why switches cannot be seen.
#[derive(Debug, Error)]
pub enum GreenletError {
    /// Before 2.0, or built otherwise.
    #[error("its greenlet library does not export the function that switches (2.0 and later do)")]
    NoSwitch,
    /// Another instruction set.
    #[error("greenlets are followed on x86-64 only")]
    Machine,
    /// Its file or memory could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// Its file could not be opened or understood.
    #[error("{0}")]
    File(String),
}

/// A greenlet library whose switches can be seen.
#[derive(Debug)]
pub struct Greenlet {
    /// Its file.
    pub file: FileIdentity,
    /// File offset of the function that switches.
    pub switch: u64,
    /// File offset of the function that sets up a new greenlet.
    pub init: u64,
    /// File offset of the function that takes a greenlet apart.
    pub end: u64,
    image: Image,
}

impl Greenlet {
    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        self.image.attach_path()
    }
}

/// `greenlet::Greenlet::g_switchstack()` (src/greenlet/TGreenlet.cpp). It
/// returns a structure: the first argument is where to, the second the greenlet.
const SWITCH: &str = "_ZN8greenlet8Greenlet13g_switchstackEv";
const TYPE: &str = "PyGreenlet_Type";

/// Looks for a greenlet library in a process; `None` if it has none.
///
/// # Errors
/// It has one that cannot be followed.
pub fn find(pid: u32) -> Result<Option<Greenlet>, GreenletError> {
    let mappings = maps::parse(&std::fs::read(format!("/proc/{pid}/maps"))?);
    let Some(mapping) = mappings.iter().find(|mapping| is_greenlet(mapping)) else {
        return Ok(None);
    };
    let image = Image::open(pid, mapping, &mappings, &[SWITCH, TYPE], Scope::Any);
    let Some(mut image) = image.map_err(GreenletError::File)? else {
        return Ok(None);
    };
    if image.machine() != Machine::X86_64 {
        return Err(GreenletError::Machine);
    }
    let (Some(switch), Some(kind)) = (image.symbol(SWITCH), image.symbol(TYPE)) else {
        return Err(GreenletError::NoSwitch);
    };
    let memory = ProcessMemory::open(pid)?;
    let slot = |offset: u64| memory.word(image.in_process(kind).wrapping_add(offset));
    let (init, end) = (slot(TP_INIT)?, slot(TP_DEALLOC)?);
    let (init, end) = (image.in_file(init), image.in_file(end));
    let mut place = |function: u64, arguments: usize| {
        let needs = Needs {
            arguments,
            returns: false,
        };
        image.place(function, needs).ok_or(GreenletError::NoSwitch)
    };
    Ok(Some(Greenlet {
        file: mapping.file,
        switch: place(switch, 2)?,
        init: place(init, 1)?,
        end: place(end, 1)?,
        image,
    }))
}

/// `_greenlet.cpython-311-x86_64-linux-gnu.so`; before 1.0 without the `_`.
fn is_greenlet(mapping: &Mapping) -> bool {
    let name = file_name(mapping);
    let name = name.strip_prefix('_').unwrap_or(&name);
    mapping.executable && name.starts_with("greenlet.") && name.contains(".so")
}
