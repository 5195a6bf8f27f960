//! The memory of a process, and the files mapped in it, as a reader of its
//! runtime sees them.
//!
//! In: a process id. Out: words, texts, and the file that holds a runtime. Reads
//! only. What is read is not to be believed: the process changes it at the same
//! time, and it need not be what it is taken for.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
};

use crate::probe::{
    discover::open_mapped,
    maps::{self, FileIdentity, Mapping},
    symbols::{ElfError, ElfFile},
};

/// Memory that can be read, or cannot.
pub trait Memory {
    /// Fills the buffer from an address; false if not all of it is there.
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool;

    /// The word at an address.
    fn u64(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)
            .then(|| u64::from_ne_bytes(bytes))
    }

    /// The half word at an address.
    fn u32(&self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)
            .then(|| u32::from_ne_bytes(bytes))
    }

    /// The text at an address that ends with a zero byte within `len_max`; `None`
    /// if it is longer, or no UTF-8.
    fn text(&self, address: u64, len_max: usize) -> Option<String> {
        let mut text = Vec::new();
        while text.len() < len_max {
            // Never across a page's end: the next page need not be there.
            const PAGE_BYTES: u64 = 4096;
            let at = address.checked_add(text.len() as u64)?;
            let room = (PAGE_BYTES - at % PAGE_BYTES).min((len_max - text.len()) as u64);
            let mut piece = vec![0; room.min(64) as usize];
            if !self.read(at, &mut piece) {
                return None;
            }
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&piece[..end]);
                return String::from_utf8(text).ok();
            }
            text.extend_from_slice(&piece);
        }
        None
    }
}

/// The memory of a process.
#[derive(Debug)]
pub struct ProcessMemory(File);

impl ProcessMemory {
    /// Opens it for reading.
    ///
    /// # Errors
    /// The process is gone, or may not be read.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/mem")).map(ProcessMemory)
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        // Beyond that is no process's.
        i64::try_from(address).is_ok() && self.0.read_exact_at(buffer, address).is_ok()
    }
}

/// A program or library that a process has mapped.
#[derive(Debug)]
pub struct Image {
    /// Which file.
    pub file: FileIdentity,
    /// What it says about itself.
    pub elf: ElfFile<File>,
    /// What is added to its own addresses in the process.
    pub moved: u64,
    handle: File,
}

impl Image {
    /// The first mapped file with code whose name `want` accepts; `None` if there
    /// is none.
    ///
    /// # Errors
    /// It, or the process's memory map, could not be read.
    pub fn find(pid: u32, want: &dyn Fn(&str) -> bool) -> io::Result<Option<Image>> {
        let mappings = maps::parse(&std::fs::read(format!("/proc/{pid}/maps"))?);
        let is_wanted = |mapping: &&Mapping| {
            let name = mapping.path.file_name().and_then(|name| name.to_str());
            mapping.executable && name.is_some_and(want)
        };
        let Some(mapping) = mappings.iter().find(is_wanted) else {
            return Ok(None);
        };
        let Some(opened) = open_mapped(pid, mapping, &mappings).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let elf = ElfFile::open(opened.handle.try_clone()?).map_err(unusable)?;
        let moved = elf
            .moved(mapping.start, mapping.offset)
            .ok_or_else(|| unusable(ElfError::Damaged("program header table")))?;
        Ok(Some(Image {
            file: mapping.file,
            elf,
            moved,
            handle: opened.handle,
        }))
    }

    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }
}

/// A file that cannot be understood cannot be used, like one that cannot be read.
pub fn unusable(error: ElfError) -> io::Error {
    match error {
        ElfError::Read(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Pieces of memory, by their addresses.
    #[derive(Clone, Debug, Default)]
    pub struct Pieces(pub BTreeMap<u64, Vec<u8>>);

    impl Pieces {
        pub fn put(&mut self, address: u64, bytes: &[u8]) {
            self.0.insert(address, bytes.to_vec());
        }
    }

    impl Memory for Pieces {
        fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
            for (index, byte) in buffer.iter_mut().enumerate() {
                let Some(at) = address.checked_add(index as u64) else {
                    return false;
                };
                let found = self
                    .0
                    .range(..=at)
                    .next_back()
                    .and_then(|(start, piece)| piece.get(usize::try_from(at - start).ok()?));
                match found {
                    Some(value) => *byte = *value,
                    None => return false,
                }
            }
            true
        }
    }

    #[test]
    fn words_and_texts_of_this_process() {
        let memory = ProcessMemory::open(std::process::id()).expect("own memory");
        let word = 0x0123_4567_89ab_cdef_u64;
        assert_eq!(memory.u64(&raw const word as u64), Some(word));
        assert_eq!(memory.u64(8), None);
        assert_eq!(memory.u64(u64::MAX - 3), None);
        let text = c"gHotSpotVMStructs of a length beyond one piece of sixty-four bytes, surely";
        let at = text.as_ptr() as u64;
        assert_eq!(memory.text(at, 100).as_deref(), text.to_str().ok());
        assert_eq!(memory.text(at, 10), None);
    }

    #[test]
    fn this_test_is_where_its_own_file_says() {
        let name = std::env::current_exe().expect("a path");
        let name = name
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let image = Image::find(std::process::id(), &|other| other == name)
            .expect("own file")
            .expect("it is mapped");
        let mut elf = image.elf;
        let wanted = "this_test_is_where_its_own_file_says";
        let functions = elf
            .functions(&|name| name.contains(wanted))
            .expect("symbols");
        let own = this_test_is_where_its_own_file_says as fn() as usize as u64;
        assert!(
            functions
                .functions
                .iter()
                .any(|function| function.address.wrapping_add(image.moved) == own)
        );
        assert!(
            Image::find(std::process::id(), &|_| false)
                .expect("own maps")
                .is_none()
        );
    }
}
