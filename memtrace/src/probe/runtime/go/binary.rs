//! A Go program's file: its version, its tables, its code.
//!
//! An opened file comes in. What it says of itself is checked against its own
//! length and against the limits below; what is found in the process's memory is
//! two addresses, which the callers check by what they find there.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use object::{
    Architecture, Object as _, ObjectSection as _, elf,
    read::{ReadCache, elf::ProgramHeader as _},
};

use super::{GoError, functions::Function};
use crate::probe::symbols::{FILE_BYTES_MAX, Machine};

/// Longest table of functions that is read, bytes: Kubernetes' has some 30 MiB.
const TABLE_BYTES_MAX: u64 = 256 << 20;
/// Longest function that is read, bytes.
const CODE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a data section that are searched for the module's description.
const SEARCH_BYTES_MAX: u64 = 64 << 20;
/// Bytes searched at once.
const SEARCH_WINDOW: usize = 1 << 20;

/// `.go.buildinfo`: 16 bytes of head, of which the last are the pointer size and
/// flags, 16 that are zero, then the version with its length in front
/// (debug/buildinfo, since 1.18).
const BUILD_INFO_MAGIC: &[u8] = b"\xff Go buildinf:";
const BUILD_INFO_FLAGS_AT: usize = 15;
const BUILD_INFO_INLINE: u8 = 2;
const BUILD_INFO_VERSION_AT: usize = 32;
const VERSION_BYTES_MAX: usize = 127;

/// `moduledata.text` (runtime/symtab.go, `type moduledata`).
const MODULE_TEXT_AT: u64 = 176;

/// The sections that may hold the module's description, the likeliest first.
const MODULE_SECTIONS: [&str; 4] = [".go.module", ".noptrdata", ".data", ".data.rel.ro"];

/// What the runtime says of the program in its own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// What offsets of functions count from.
    pub text: u64,
    /// What offsets of types' names count from.
    pub types: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    offset: u64,
    len: u64,
    executable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Section {
    address: u64,
    len: u64,
}

/// A Go program's file.
#[derive(Debug)]
pub struct Binary {
    handle: File,
    /// The version, as the program says itself.
    pub version: String,
    /// Its instruction set.
    pub machine: Machine,
    /// By its own numbering: the address of its first byte.
    pub address_of_first_byte: u64,
    /// How far below a thread's own base the running g's address is kept; 0 if
    /// that is not known.
    pub g_below_base: u16,
    segments: Vec<Segment>,
    table: Section,
    module_sections: Vec<Section>,
}

impl Binary {
    /// Reads what the file says of itself; `None` if it is no Go program.
    ///
    /// # Errors
    /// It is one that cannot be read.
    pub fn open(handle: File) -> Result<Option<Binary>, GoError> {
        let file_len = handle.metadata()?.len();
        if file_len > FILE_BYTES_MAX {
            return Ok(None);
        }
        let cache = ReadCache::new(handle.try_clone()?);
        let Ok(file) = object::read::elf::ElfFile64::<object::LittleEndian, _>::parse(&cache)
        else {
            return Ok(None);
        };
        let machine = match file.architecture() {
            Architecture::X86_64 => Machine::X86_64,
            Architecture::Aarch64 => Machine::Aarch64,
            _ => return Ok(None),
        };
        let Some(info) = file.section_by_name(".go.buildinfo") else {
            return Ok(None);
        };
        let head = (BUILD_INFO_VERSION_AT + 1 + VERSION_BYTES_MAX) as u64;
        let version = info
            .data_range(info.address(), head.min(info.size()))
            .ok()
            .flatten()
            .and_then(version)
            .ok_or(GoError::Binary(
                "it does not say its version as Go 1.18 and later do",
            ))?;
        let table = [".gopclntab", ".data.rel.ro.gopclntab"]
            .iter()
            .find_map(|name| file.section_by_name(name))
            .ok_or(GoError::Binary("it has no table of functions"))?;
        let table = Section {
            address: table.address(),
            len: table.size(),
        };
        let module_sections = MODULE_SECTIONS
            .iter()
            .filter_map(|name| file.section_by_name(name))
            .map(|section| Section {
                address: section.address(),
                len: section.size(),
            })
            .collect();
        let mut segments = Vec::new();
        // The runtime's one word, right below the base (System V ABI for x86-64,
        // variant II of thread-local storage), whether or not a loader knows of it.
        let mut g_below_base = match machine {
            Machine::X86_64 => 8,
            Machine::Aarch64 => 0,
        };
        let endian = file.endian();
        for program in file.elf_program_headers() {
            match program.p_type(endian) {
                elf::PT_LOAD => segments.push(Segment {
                    address: program.p_vaddr(endian),
                    offset: program.p_offset(endian),
                    // What lies beyond the file's end is not there.
                    len: program
                        .p_filesz(endian)
                        .min(file_len.saturating_sub(program.p_offset(endian))),
                    executable: (program.p_flags(endian) & elf::PF_X).0 != 0,
                }),
                // It is not the only one.
                elf::PT_TLS if program.p_memsz(endian) != 8 => g_below_base = 0,
                // Segment types are the format's, not ours.
                _ => {}
            }
        }
        let address_of_first_byte = segments
            .iter()
            .min_by_key(|segment| segment.offset)
            .map_or(0, |segment| segment.address.wrapping_sub(segment.offset));
        Ok(Some(Binary {
            version,
            machine,
            address_of_first_byte,
            g_below_base,
            segments,
            table,
            module_sections,
            handle,
        }))
    }

    /// Another descriptor of the file.
    ///
    /// # Errors
    /// None is left.
    pub fn handle(&self) -> io::Result<File> {
        self.handle.try_clone()
    }

    /// The bytes of the table of functions.
    ///
    /// # Errors
    /// The file cannot be read, or the table is too long.
    pub fn function_table(&self) -> Result<Vec<u8>, GoError> {
        if self.table.len > TABLE_BYTES_MAX {
            return Err(GoError::Binary("its table of functions is too long"));
        }
        self.data(self.table.address, self.table.len as usize)
            .ok_or(GoError::Binary("its table of functions is cut"))
    }

    /// A function's code.
    pub fn code(&self, function: Function) -> Option<Vec<u8>> {
        let len = function.end.checked_sub(function.start)?;
        self.code_offset(function.start)?;
        let len = usize::try_from(len.min(CODE_BYTES_MAX)).ok()?;
        self.data(function.start, len)
    }

    /// The file offset of the code at an address of the file's own numbering.
    pub fn code_offset(&self, address: u64) -> Option<u64> {
        let segment = self.segment(address).filter(|segment| segment.executable)?;
        segment.offset.checked_add(address - segment.address)
    }

    /// The file's bytes at an address of its own numbering: `len`, or as many as
    /// the segment has; `None` if there are none.
    pub fn data(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let segment = self.segment(address)?;
        let skip = address - segment.address;
        let len = usize::try_from(segment.len - skip).ok()?.min(len);
        let mut bytes = vec![0; len];
        self.handle
            .read_exact_at(&mut bytes, segment.offset.checked_add(skip)?)
            .ok()?;
        Some(bytes)
    }

    fn segment(&self, address: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| address.wrapping_sub(segment.address) < segment.len)
    }

    /// Looks for the module's description in a process's memory: it opens with
    /// the address of the table of functions. `moved`: how far the file was moved
    /// when it was loaded. `None` if it is not there (yet).
    pub fn module(&self, memory: &File, moved: u64, types_at: u64) -> Option<Module> {
        let table = self.table.address.wrapping_add(moved);
        self.module_sections.iter().find_map(|section| {
            let start = section.address.wrapping_add(moved);
            let at = find_word(memory, start, section.len.min(SEARCH_BYTES_MAX), table)?;
            let module = Module {
                text: word_at(memory, at.checked_add(MODULE_TEXT_AT)?)?,
                types: word_at(memory, at.checked_add(types_at)?)?,
            };
            // Code begins in code.
            self.code_offset(module.text.wrapping_sub(moved))?;
            Some(module)
        })
    }
}

/// The address of the first aligned word of this value in `start..start + len`.
fn find_word(memory: &File, start: u64, len: u64, value: u64) -> Option<u64> {
    let mut window = vec![0; SEARCH_WINDOW];
    let mut at = start;
    let end = start.checked_add(len)?;
    while at < end {
        let len = usize::try_from(end - at).ok()?.min(window.len());
        let bytes = window.get_mut(..len)?;
        memory.read_exact_at(bytes, at).ok()?;
        let found = bytes
            .chunks_exact(8)
            .position(|word| word == value.to_ne_bytes());
        if let Some(index) = found {
            return at.checked_add(index as u64 * 8);
        }
        at = at.checked_add(len as u64)?;
    }
    None
}

fn word_at(memory: &File, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

/// The version that the build information tells.
fn version(info: &[u8]) -> Option<String> {
    let head = info.get(..BUILD_INFO_VERSION_AT)?;
    if !head.starts_with(BUILD_INFO_MAGIC)
        || head.get(BUILD_INFO_FLAGS_AT)? & BUILD_INFO_INLINE == 0
    {
        return None;
    }
    let (len, rest) = info.get(BUILD_INFO_VERSION_AT..)?.split_first()?;
    // Longer ones have a length of two bytes: none are known.
    let text = rest.get(..usize::from(*len).min(VERSION_BYTES_MAX))?;
    let text = std::str::from_utf8(text).ok()?;
    let printable = !text.is_empty() && !text.chars().any(char::is_control);
    printable.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(version: &[u8], flags: u8) -> Vec<u8> {
        let mut bytes = BUILD_INFO_MAGIC.to_vec();
        bytes.extend([8, flags]);
        bytes.extend([0; 16]);
        bytes.push(version.len() as u8);
        bytes.extend(version);
        bytes
    }

    #[test]
    fn the_version_is_in_the_build_information() {
        assert_eq!(version(&info(b"go1.22.5", 2)).as_deref(), Some("go1.22.5"));
        // Before 1.18 there was an address here.
        assert_eq!(version(&info(b"go1.17.1", 0)), None);
        assert_eq!(version(&info(b"", 2)), None);
        assert_eq!(version(&info(b"go1\n", 2)), None);
        assert_eq!(version(&info(b"go1.22.5", 2)[..36]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = version(&bytes);
            bytes.splice(0..0, info(b"go1.20", 2));
            bytes.truncate(40);
            let _ = version(&bytes);
        }
    }
}
