//! The socket functions of a process's C library, for kernels that refuse
//! system call tracepoints.

use std::{collections::HashSet, fs::File, os::fd::AsRawFd as _, path::PathBuf, sync::Arc};

use memtrace_common::event::WatchedCall;

use super::{DiscoverError, ObjectCache, open_mapped};
use crate::probe::{
    attach::LIBC_FUNCTIONS,
    maps::{self, FileIdentity},
    place::{self, Needs},
    symbols::ElfFile,
};

/// A mapped file that holds socket functions.
#[derive(Clone, Debug)]
pub struct SocketObject {
    /// Which file.
    pub file: FileIdentity,
    /// What to probe.
    pub functions: Vec<SocketFunction>,
    handle: Arc<File>,
}

impl SocketObject {
    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }
}

/// A socket function.
#[derive(Clone, Debug)]
pub struct SocketFunction {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub call: WatchedCall,
    /// Its return is probed as well.
    pub has_result: bool,
    /// File offset of the probe.
    pub offset: u64,
}

/// Bytes of a function that are read to choose the place of its probe.
const CODE_BYTES: usize = 64;

impl ObjectCache {
    /// Every mapped file that defines both recv and send.
    pub fn socket_objects(&mut self, pid: u32) -> Result<Vec<SocketObject>, DiscoverError> {
        let text = std::fs::read(format!("/proc/{pid}/maps"))
            .map_err(|source| DiscoverError::Maps { pid, source })?;
        let mappings = maps::parse(&text);
        let mut files = HashSet::new();
        let mut objects = Vec::new();
        for mapping in mappings.iter().filter(|mapping| mapping.executable) {
            let file = mapping.file;
            if !files.insert(file) {
                continue;
            }
            let Ok(Some(opened)) = open_mapped(pid, mapping, &mappings) else {
                continue;
            };
            let handle = opened.handle;
            let Ok(mut elf) = handle
                .try_clone()
                .map_err(|_| ())
                .and_then(|handle| ElfFile::open(handle).map_err(|_| ()))
            else {
                continue;
            };
            let machine = elf.facts().machine;
            let wanted = |name: &str| LIBC_FUNCTIONS.iter().any(|(known, _, _)| *known == name);
            let Ok(symbols) = elf.functions(&wanted) else {
                continue;
            };
            let has = |name| symbols.functions.iter().any(|symbol| symbol.name == name);
            if !has("recv") || !has("send") {
                continue;
            }
            let mut seen = HashSet::new();
            let mut functions = Vec::new();
            for (name, call, has_result) in LIBC_FUNCTIONS {
                let Some(symbol) = symbols.functions.iter().find(|s| s.name == name) else {
                    continue;
                };
                if !seen.insert(symbol.address) {
                    continue;
                }
                let needs = Needs {
                    arguments: 4,
                    returns: has_result,
                };
                let len = CODE_BYTES.min(usize::try_from(symbol.size).unwrap_or(CODE_BYTES));
                let code = elf.code(symbol.address, len).unwrap_or_default();
                let place = place::choose(&code, symbol.address, machine, needs);
                functions.push(SocketFunction {
                    name,
                    call,
                    has_result,
                    offset: symbol.file_offset + place.offset,
                });
            }
            objects.push(SocketObject {
                file,
                functions,
                handle: Arc::new(handle),
            });
        }
        Ok(objects)
    }
}
