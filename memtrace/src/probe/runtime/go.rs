//! Go programs, read from outside: where to probe their heap and their
//! goroutines, and what the kernel programs need to tell those apart.
//!
//! In: a process. Out: a [`Go`] with the sites to probe and the names of its
//! types; nothing is attached here. What a program does not say itself (its
//! version, its functions) comes from a table of layouts by version; a version
//! that is not in it is not read. The kernel programs check what they read
//! against the stack that is in use and against what a goroutine says of its
//! parent, so that a layout that does not fit gives no goroutine.
//!
//! Only the program itself is looked at, not libraries written in Go.

mod binary;
mod followed;
mod functions;
mod sites;
mod types;

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use memtrace_common::config::GoTarget;
use thiserror::Error;

use self::{
    binary::{Binary, Module},
    functions::{Function, Functions},
};
use crate::probe::{
    discover::open_mapped,
    maps::{self, FileIdentity, Mapping},
};

pub use followed::Followed;
pub use types::TypeNames;

/// Why a Go program cannot be read.
#[derive(Debug, Error)]
pub enum GoError {
    /// A version whose layout is not known.
    #[error("the layout of {0} is not known to this memtrace")]
    Version(String),
    /// Its file or memory could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// Its file could not be understood.
    #[error("its program could not be examined: {0}")]
    Binary(&'static str),
    /// A function that is to be probed is not there, or not of the expected form.
    #[error("{0} was not found, or does not open as Go's functions do")]
    Function(&'static str),
    /// The program has only just been mapped.
    #[error("its runtime is not set up yet")]
    NotRunning,
    /// The kernel's refusal.
    #[error("the kernel refused: {0}")]
    Refused(String),
}

/// A Go program that can be read.
#[derive(Debug)]
pub struct Go {
    /// Its file.
    pub file: FileIdentity,
    /// Its version, as it says itself, such as `go1.22.5`.
    pub version: String,
    /// Its path, as the memory map shows it.
    pub path: PathBuf,
    /// What the kernel programs need.
    pub target: GoTarget,
    /// Where to put which program.
    pub sites: Sites,
    /// The names of its types.
    pub types: TypeNames,
    /// What of it is not seen, in words.
    pub trouble: Vec<String>,
    handle: File,
}

/// File offsets to probe, by the kernel program that belongs there.
#[derive(Debug, Default)]
pub struct Sites {
    /// `go_alloc`.
    pub alloc: Vec<u64>,
    /// `go_alloc_small`.
    pub alloc_small: Vec<u64>,
    /// `go_made`.
    pub made: Vec<u64>,
    /// `go_gives`.
    pub gives: Vec<u64>,
    /// `go_takes`.
    pub takes: Vec<u64>,
    /// `go_serves`.
    pub serves: Vec<u64>,
    /// `go_tls_read`.
    pub tls_read: Vec<u64>,
    /// `go_tls_write`.
    pub tls_write: Vec<u64>,
    /// `go_tls_end`.
    pub tls_end: Vec<u64>,
}

impl Sites {
    /// The kernel programs with the sites that each belongs to.
    pub fn by_program(&self) -> [(&'static str, &[u64]); 9] {
        [
            ("go_made", &self.made),
            ("go_gives", &self.gives),
            ("go_takes", &self.takes),
            ("go_serves", &self.serves),
            ("go_tls_end", &self.tls_end),
            ("go_tls_read", &self.tls_read),
            ("go_tls_write", &self.tls_write),
            ("go_alloc_small", &self.alloc_small),
            ("go_alloc", &self.alloc),
        ]
    }
}

impl Go {
    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// The heap and the program, for people, such as `go1.22.5 (/usr/bin/x)`.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.version, self.path.display())
    }
}

/// Where a version keeps things, in bytes (`type g`, `type m` of
/// runtime/runtime2.go, `type moduledata` of runtime/symtab.go; read from the
/// debug information of programs built with 1.19 and 1.21 to 1.27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    goid: u16,
    /// 0 where there is none.
    parent_goid: u16,
    curg: u16,
    /// `moduledata.types`.
    types: u64,
}

/// The layout of Go 1.`minor`.
fn layout(minor: u32) -> Option<Layout> {
    let (goid, parent_goid, curg) = match minor {
        18..=20 => (152, 0, 192),
        21 | 22 => (152, 272, 192),
        23 | 24 => (160, 280, 192),
        25 => (152, 272, 184),
        26 | 27 => (152, 280, 184),
        _ => return None,
    };
    // 1.20 put the coverage counters in front of it.
    let types = if minor < 20 { 280 } else { 296 };
    Some(Layout {
        goid,
        parent_goid,
        curg,
        types,
    })
}

/// Looks for a Go program in a process; `None` if it runs none.
///
/// # Errors
/// It runs one that cannot be read.
pub fn find(pid: u32) -> Result<Option<Go>, GoError> {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    let mappings = maps::parse(&std::fs::read(format!("/proc/{pid}/maps"))?);
    let of_program =
        |mapping: &&Mapping| mapping.path == exe || shown_as_deleted(mapping, exe.as_path());
    let Some(mapping) = mappings.iter().find(of_program) else {
        return Ok(None);
    };
    let Ok(Some(opened)) = open_mapped(pid, mapping, &mappings) else {
        return Ok(None);
    };
    let Some(binary) = Binary::open(opened.handle)? else {
        return Ok(None);
    };
    let version = binary.version.clone();
    let layout = minor_version(&version)
        .and_then(layout)
        .ok_or_else(|| GoError::Version(version.clone()))?;
    // The file's lowest mapping holds its lowest segment.
    let lowest = mappings
        .iter()
        .filter(|other| other.file == mapping.file)
        .map(|other| other.start.wrapping_sub(other.offset))
        .min();
    let moved = lowest
        .unwrap_or(0)
        .wrapping_sub(binary.address_of_first_byte);
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let module = binary
        .module(&memory, moved, layout.types)
        .ok_or(GoError::NotRunning)?;
    examine(binary, module, layout, moved, mapping).map(Some)
}

/// What of an opened program is to be probed.
fn examine(
    binary: Binary,
    module: Module,
    layout: Layout,
    moved: u64,
    mapping: &Mapping,
) -> Result<Go, GoError> {
    let mut trouble = Vec::new();
    let table = binary.function_table()?;
    let functions = Functions::parse(&table, module.text.wrapping_sub(moved))
        .ok_or(GoError::Binary("its table of functions is damaged"))?;
    let wanted = Wanted::among(&functions);
    let malloc = wanted.malloc.ok_or(GoError::Function(MALLOC))?;
    let mut found = Sites {
        alloc: vec![check_of(&binary, &malloc).ok_or(GoError::Function(MALLOC))?],
        ..Sites::default()
    };
    for function in &wanted.small {
        let site = check_of(&binary, function).ok_or(GoError::Function(MALLOC_SMALL))?;
        found.alloc_small.push(site);
    }
    match wanted.made_site(&binary) {
        Some(site) => found.made.push(site),
        None => trouble.push(format!(
            "goroutines are not followed to those that they start: {}",
            GoError::Function(NEWPROC)
        )),
    }
    for (function, name, place) in [
        (wanted.send, SEND, &mut found.gives),
        (wanted.recv, RECV, &mut found.takes),
    ] {
        match function.and_then(|function| check_of(&binary, &function)) {
            Some(site) => place.push(site),
            None => trouble.push(format!(
                "goroutines are not followed to those that take their values: {}",
                GoError::Function(name)
            )),
        }
    }
    // A program may have the library's, x/net's, or none.
    for function in &wanted.run_handler {
        match check_of(&binary, function) {
            Some(at) => found.serves.push(at),
            None => trouble.push(
                "which goroutine answers which request of an HTTP/2 connection is not known: its \
                 function does not open as Go's functions do"
                    .to_owned(),
            ),
        }
    }
    // A program without TLS lacks all three.
    if let Some(read) = &wanted.tls_read {
        match wanted.tls_sites(&binary, read) {
            Some([reads, writes, ends]) => {
                (found.tls_read, found.tls_write, found.tls_end) = (reads, writes, ends);
            }
            None => trouble.push(
                "the plaintext of its TLS connections is not seen: crypto/tls was not found, or \
                 does not keep its arguments as Go's functions do"
                    .to_owned(),
            ),
        }
    }
    if binary.g_below_base == 0 {
        trouble.push(
            "what C code allocates is not told apart by goroutine: the program has thread-local \
             data of its own"
                .to_owned(),
        );
    }
    Ok(Go {
        file: mapping.file,
        version: binary.version.clone(),
        path: mapping.path.clone(),
        target: GoTarget {
            malloc_start: malloc.start.wrapping_add(moved),
            malloc_end: malloc.end.wrapping_add(moved),
            goid: layout.goid,
            parent_goid: layout.parent_goid,
            curg: layout.curg,
            g_below_base: binary.g_below_base,
        },
        sites: found,
        trouble,
        handle: binary.handle()?,
        types: TypeNames::new(binary, module.types, moved),
    })
}

const MALLOC: &str = "runtime.mallocgc";
const MALLOC_SMALL: &str = "one of runtime.mallocgc's functions for small blocks";
const NEWPROC: &str = "runtime.newproc.func1";
const RUNQPUT: &str = "runtime.runqput";
/// A value passes directly between two goroutines (runtime/chan.go).
const SEND: &str = "runtime.send";
const RECV: &str = "runtime.recv";

/// The functions of interest.
#[derive(Debug, Default)]
struct Wanted {
    malloc: Option<Function>,
    small: Vec<Function>,
    newproc: Option<Function>,
    runqput: Option<Function>,
    send: Option<Function>,
    recv: Option<Function>,
    run_handler: Vec<Function>,
    tls_read: Option<Function>,
    tls_write: Option<Function>,
    tls_close: Option<Function>,
}

impl Wanted {
    fn among(functions: &Functions<'_>) -> Wanted {
        let mut wanted = Wanted::default();
        functions.each(&mut |name, function| match name {
            MALLOC => wanted.malloc = Some(function),
            NEWPROC => wanted.newproc = Some(function),
            RUNQPUT => wanted.runqput = Some(function),
            SEND => wanted.send = Some(function),
            RECV => wanted.recv = Some(function),
            "crypto/tls.(*Conn).Read" => wanted.tls_read = Some(function),
            "crypto/tls.(*Conn).Write" => wanted.tls_write = Some(function),
            "crypto/tls.(*Conn).Close" => wanted.tls_close = Some(function),
            _ if is_malloc_small(name) => wanted.small.push(function),
            _ if is_run_handler(name) => wanted.run_handler.push(function),
            _ => {}
        });
        wanted
    }

    /// The returns of `Read`, and the stack checks of `Write` and `Close`.
    fn tls_sites(&self, binary: &Binary, read: &Function) -> Option<[Vec<u64>; 3]> {
        let code = binary.code(*read)?;
        let reads = sites::returns_with_arguments(&code, read.start, binary.machine)?
            .into_iter()
            .map(|at| binary.code_offset(read.start.checked_add(at)?))
            .collect::<Option<Vec<u64>>>()?;
        let check = |function: &Option<Function>| check_of(binary, function.as_ref()?);
        let (write, close) = (check(&self.tls_write)?, check(&self.tls_close)?);
        Some([reads, vec![write], vec![close]])
    }

    /// The call of `runqput` in what a `go` statement runs on the scheduler's
    /// stack (runtime/proc.go, `newproc`).
    fn made_site(&self, binary: &Binary) -> Option<u64> {
        let (newproc, runqput) = (self.newproc?, self.runqput?);
        let code = binary.code(newproc)?;
        let at = sites::only_call(&code, newproc.start, binary.machine, runqput.start)?;
        binary.code_offset(newproc.start.checked_add(at)?)
    }
}

/// What a goroutine begins with that answers a request on an HTTP/2 connection,
/// wherever that version has the server: `net/http.(*http2serverConn).runHandler`,
/// or in a package of its own, as in `golang.org/x/net/http2`.
fn is_run_handler(name: &str) -> bool {
    name.strip_suffix(".runHandler").is_some_and(|receiver| {
        receiver.ends_with("http2.(*serverConn)") || receiver.ends_with("http.(*http2serverConn)")
    })
}

/// `mallocgcTinySC2`, `mallocgcSmallNoScanSC3`, `mallocgcSmallScanNoHeaderSC1`
/// (runtime/malloc_generated.go, 1.26 and later).
fn is_malloc_small(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("runtime.mallocgc") else {
        return false;
    };
    ["Tiny", "SmallNoScan", "SmallScanNoHeader"]
        .iter()
        .filter_map(|kind| rest.strip_prefix(kind)?.strip_prefix("SC"))
        .any(|class| !class.is_empty() && class.bytes().all(|byte| byte.is_ascii_digit()))
}

/// File offset of the branch of a function's stack check.
fn check_of(binary: &Binary, function: &Function) -> Option<u64> {
    let code = binary.code(*function)?;
    let at = sites::stack_check(&code, function.start, binary.machine)?;
    binary.code_offset(function.start.checked_add(at)?)
}

/// The 22 of `go1.22.5`, `go1.22rc1`, `go1.22.5 X:nocoverageredesign`.
fn minor_version(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("go1.")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// `/proc/PID/exe` marks a deleted program in its path; the memory map's reader
/// has taken the mark off.
fn shown_as_deleted(mapping: &Mapping, exe: &Path) -> bool {
    mapping.deleted
        && exe
            .to_str()
            .and_then(|exe| exe.strip_suffix(" (deleted)"))
            .is_some_and(|exe| mapping.path == Path::new(exe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_programs_own() {
        assert_eq!(minor_version("go1.19.8"), Some(19));
        assert_eq!(minor_version("go1.27rc1"), Some(27));
        assert_eq!(minor_version("go1.24.2 X:nocoverageredesign"), Some(24));
        assert_eq!(minor_version("devel go1.28-0123456789"), None);
        assert_eq!(minor_version("go2.0"), None);
        assert_eq!(minor_version(""), None);
    }

    #[test]
    fn an_unknown_version_has_no_layout() {
        assert_eq!(layout(17), None);
        assert_eq!(layout(28), None);
        assert_eq!(layout(23).map(|layout| layout.goid), Some(160));
        assert_eq!(layout(19).map(|layout| layout.types), Some(280));
    }

    #[test]
    fn functions_for_small_blocks_are_told_by_their_names() {
        for name in [
            "runtime.mallocgcTinySC2",
            "runtime.mallocgcSmallNoScanSC7",
            "runtime.mallocgcSmallScanNoHeaderSC10",
        ] {
            assert!(is_malloc_small(name), "{name}");
        }
        for name in [
            "runtime.mallocgc",
            "runtime.mallocgcTiny",
            "runtime.mallocgcSmallNoScanSlowPath",
            "runtime.mallocgcSmallNoScanSC7.func1",
            "runtime.mallocgcTinySC",
        ] {
            assert!(!is_malloc_small(name), "{name}");
        }
    }
}
