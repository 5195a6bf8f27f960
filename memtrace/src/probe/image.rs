//! A program or library as a process has it mapped: where its symbols are in
//! the process, and where in the file to put a probe.
//!
//! In: a mapping of the process. Out: addresses, code and file offsets. It reads
//! the file and the process's memory, and knows no runtime.

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
};

use super::{
    discover::open_mapped,
    maps::{FileIdentity, Mapping},
    place::{self, Needs},
    symbols::{ElfError, ElfFile, Machine, Scope},
};

/// Another process's memory, or what stands for it in a test.
pub trait Memory {
    /// Fills the buffer from this address on.
    ///
    /// # Errors
    /// Not all of it can be read.
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The word at an address.
    ///
    /// # Errors
    /// It cannot be read.
    fn word(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

/// A process's `/proc/PID/mem`.
#[derive(Debug)]
pub struct ProcessMemory(File);

impl ProcessMemory {
    /// Opens it.
    ///
    /// # Errors
    /// The process is gone, or this one may not read it.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/mem")).map(Self)
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, address)
    }
}

/// A mapped program or library.
#[derive(Debug)]
pub struct Image {
    /// Which file.
    pub file: FileIdentity,
    handle: File,
    elf: ElfFile<File>,
    /// How far the file's addresses were moved when it was loaded.
    moved: u64,
    /// Those that were asked for: address in the file's own numbering, length.
    symbols: HashMap<String, (u64, u64)>,
}

impl Image {
    /// Opens the file of a mapping and looks for these symbols in it.
    ///
    /// # Errors
    /// In words: the file cannot be opened or understood.
    pub fn open(
        pid: u32,
        mapping: &Mapping,
        mappings: &[Mapping],
        names: &[&str],
        scope: Scope,
    ) -> Result<Option<Image>, String> {
        let Some(opened) = open_mapped(pid, mapping, mappings)? else {
            return Ok(None);
        };
        Self::of_file(opened.handle, mapping, mappings, names, scope)
            .map_err(|error| error.to_string())
    }

    fn of_file(
        handle: File,
        mapping: &Mapping,
        mappings: &[Mapping],
        names: &[&str],
        scope: Scope,
    ) -> Result<Option<Image>, ElfError> {
        let mut elf = ElfFile::open(handle.try_clone()?)?;
        let symbols = elf.addresses(names, scope)?;
        let lowest = mappings
            .iter()
            .filter(|other| other.file == mapping.file)
            .min_by_key(|other| other.offset);
        let moved = lowest.and_then(|lowest| elf.moved_lowest(lowest.start, lowest.offset));
        let Some(moved) = moved else {
            return Ok(None);
        };
        Ok(Some(Image {
            file: mapping.file,
            elf,
            handle,
            moved,
            symbols,
        }))
    }

    /// A symbol's address in the file's own numbering.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).map(|(address, _)| *address)
    }

    /// Where a variable is in the process, by its symbol.
    pub fn variable(&self, name: &str) -> Option<Range<u64>> {
        let (address, size) = *self.symbols.get(name)?;
        let start = self.in_process(address);
        Some(start..start.saturating_add(size))
    }

    /// Address and code of a function by its symbol, at most `len` bytes.
    pub fn function(&mut self, name: &str, len: u64) -> Option<(u64, Vec<u8>)> {
        let (address, size) = *self.symbols.get(name)?;
        let len = size.min(len) as usize;
        Some((address, self.code(address, len)))
    }

    /// Where an address of the file is in the process.
    pub fn in_process(&self, address: u64) -> u64 {
        address.wrapping_add(self.moved)
    }

    /// The address in the file's own numbering of one in the process.
    pub fn in_file(&self, address: u64) -> u64 {
        address.wrapping_sub(self.moved)
    }

    /// The code at an address of the file; empty where there is none.
    pub fn code(&mut self, address: u64, len: usize) -> Vec<u8> {
        self.elf.code(address, len).unwrap_or_default()
    }

    /// The instruction set.
    pub fn machine(&self) -> Machine {
        self.elf.facts().machine
    }

    /// The file offset at which to probe the function at an address of the file.
    pub fn place(&mut self, function: u64, needs: Needs) -> Option<u64> {
        let offset = self.elf.code_offset(function)?;
        let code = self.code(function, place::SCAN_BYTES_UNSIZED);
        let place = place::choose(&code, function, self.machine(), needs);
        offset.checked_add(place.offset)
    }

    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }
}

/// The name of a mapping's file.
pub fn file_name(mapping: &Mapping) -> String {
    mapping
        .path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
