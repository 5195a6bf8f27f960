//! The kernel programs: loading the embedded object, its maps, its counters.
//!
//! aya loads the object and owns the maps. Programs for `uprobe.multi` must be
//! loaded for that attach type, which aya does not offer: they are loaded a
//! second time from the same bytes, bound to the same maps.

use std::{
    borrow::Cow,
    collections::HashSet,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{HashMap as BpfHashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::{Program, RawTracePoint, TracePoint, UProbe},
};
use aya_obj::Object;
use memtrace_common::{config::Config, loss::Loss};
use thiserror::Error;

use super::{btf, sys};

/// The object for this machine, built by `cargo xtask ebpf`.
#[cfg(target_arch = "x86_64")]
static EMBEDDED: &[u8] = aya::include_bytes_aligned!("../../bpf/memtrace.x86_64.o");
/// The object for this machine, built by `cargo xtask ebpf`.
#[cfg(target_arch = "aarch64")]
static EMBEDDED: &[u8] = aya::include_bytes_aligned!("../../bpf/memtrace.aarch64.o");

/// Names a file to be loaded instead of the embedded object.
pub const OBJECT_VARIABLE: &str = "MEMTRACE_BPF_OBJECT";

/// Why the kernel programs could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file named by [`OBJECT_VARIABLE`] cannot be read.
    #[error("{OBJECT_VARIABLE} names {path}, which cannot be read: {source}")]
    Object {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel publishes no type information.
    #[error(
        "this kernel has no type information at /sys/kernel/btf/vmlinux ({0}); memtrace needs a \
         kernel built with CONFIG_DEBUG_INFO_BTF"
    )]
    NoBtf(io::Error),
    /// The kernel lacks a structure member.
    #[error(transparent)]
    Btf(#[from] btf::BtfError),
    /// The kernel or the loader refused.
    #[error("the kernel refused memtrace's programs: {0}")]
    Refused(String),
}

impl LoadError {
    fn refused(error: impl std::error::Error) -> Self {
        // The interesting part (the verifier's last words) is at the end of
        // the chain.
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        LoadError::Refused(text)
    }
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodConfig(Config);

#[expect(unsafe_code, reason = "aya asks for the promise that a type is plain data")]
// SAFETY: `Config` is `repr(C)`, made of u32 only, without padding.
unsafe impl Pod for PodConfig {}

/// What can be chosen when loading.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Trace children of traced processes.
    pub follow_children: bool,
    /// Bytes of the ring; a power of two of at least a page.
    pub ring_bytes: u32,
}

/// How uprobes reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UprobeKind {
    /// One `uprobe.multi` link for all sites of a file in a process.
    Multi,
    /// One perf event for each site and process.
    PerfEvent,
}

impl UprobeKind {
    /// The kind's name in `doctor` and reports.
    pub fn name(self) -> &'static str {
        match self {
            UprobeKind::Multi => "uprobe.multi",
            UprobeKind::PerfEvent => "perf events",
        }
    }
}

/// The uprobe programs, by what they are attached to.
const UPROBE_PROGRAMS: [&str; 5] = [
    "alloc_enter",
    "alloc_return",
    "free_enter",
    "libc_enter",
    "libc_return",
];

/// The loaded kernel half. Dropping it takes every program and map away.
pub struct Kernel {
    ebpf: Ebpf,
    multi: Vec<(&'static str, OwnedFd)>,
    perf_kind: u32,
    /// How uprobes are attached.
    pub uprobes: UprobeKind,
}

impl Kernel {
    /// Loads the programs and makes the maps; nothing is attached yet.
    ///
    /// # Errors
    /// The kernel lacks something or refuses; see [`LoadError`].
    pub fn load(options: LoadOptions) -> Result<Kernel, LoadError> {
        let object = object_bytes()?;
        let vmlinux = std::fs::read("/sys/kernel/btf/vmlinux").map_err(LoadError::NoBtf)?;
        let config = PodConfig(Config {
            offsets: btf::kernel_offsets(&vmlinux)?,
            follow_children: u32::from(options.follow_children),
            collector_pid: std::process::id(),
        });
        drop(vmlinux);
        let mut ebpf = EbpfLoader::new()
            .override_global("CONFIG", &config, true)
            .map_max_entries("EVENTS", options.ring_bytes)
            .load(&object)
            .map_err(LoadError::refused)?;
        for (_, program) in ebpf.programs_mut() {
            load_program(program)?;
        }
        let mut kernel = Kernel {
            ebpf,
            multi: Vec::new(),
            perf_kind: 0,
            uprobes: UprobeKind::PerfEvent,
        };
        kernel.choose_uprobes(&object)?;
        Ok(kernel)
    }

    /// The ring of records. Can be taken once.
    ///
    /// # Errors
    /// It was taken already, or cannot be mapped.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        let map = self
            .ebpf
            .take_map("EVENTS")
            .ok_or_else(|| LoadError::Refused("the object has no EVENTS map".into()))?;
        RingBuf::try_from(map).map_err(LoadError::refused)
    }

    /// Begins to state facts about a process.
    ///
    /// # Errors
    /// The map is full.
    pub fn add_target(&mut self, pid: u32) -> Result<(), LoadError> {
        self.targets()?
            .insert(pid, 1, 0)
            .map_err(LoadError::refused)
    }

    /// Stops stating facts about a process; unknown ones are ignored.
    ///
    /// # Errors
    /// The map cannot be reached.
    pub fn remove_target(&mut self, pid: u32) -> Result<(), LoadError> {
        // The process may have removed itself when it exited.
        let _ = self.targets()?.remove(&pid);
        Ok(())
    }

    fn targets(&mut self) -> Result<BpfHashMap<&mut MapData, u32, u32>, LoadError> {
        let map = self
            .ebpf
            .map_mut("TARGETS")
            .ok_or_else(|| LoadError::Refused("the object has no TARGETS map".into()))?;
        BpfHashMap::try_from(map).map_err(LoadError::refused)
    }

    /// Events lost so far, by cause, all processors together.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn lost(&self) -> Result<[u64; Loss::COUNT as usize], LoadError> {
        let map = self
            .ebpf
            .map("LOST")
            .ok_or_else(|| LoadError::Refused("the object has no LOST map".into()))?;
        let counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(map).map_err(LoadError::refused)?;
        let mut lost = [0; Loss::COUNT as usize];
        for (index, total) in lost.iter_mut().enumerate() {
            *total = counters
                .get(&(index as u32), 0)
                .map_err(LoadError::refused)?
                .iter()
                .sum();
        }
        Ok(lost)
    }

    /// The descriptor of a program that is attached as a uprobe.
    pub(super) fn uprobe_program(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        match self.uprobes {
            UprobeKind::Multi => self
                .multi
                .iter()
                .find(|(other, _)| *other == name)
                .map(|(_, fd)| fd.as_fd())
                .ok_or_else(|| missing_program(name)),
            UprobeKind::PerfEvent => self.program_fd(name),
        }
    }

    /// The descriptor of a program as aya loaded it.
    pub(super) fn program_fd(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        let program = self
            .ebpf
            .program(name)
            .ok_or_else(|| missing_program(name))?;
        Ok(program.fd().map_err(io::Error::other)?.as_fd())
    }

    /// A raw tracepoint program, to be attached by aya.
    pub(super) fn raw_tracepoint(&mut self, name: &str) -> io::Result<&mut RawTracePoint> {
        self.ebpf
            .program_mut(name)
            .and_then(|program| <&mut RawTracePoint>::try_from(program).ok())
            .ok_or_else(|| missing_program(name))
    }

    /// The number of the uprobe perf event source.
    pub(super) fn perf_kind(&self) -> u32 {
        self.perf_kind
    }

    /// Prefers `uprobe.multi` where it works.
    fn choose_uprobes(&mut self, object: &[u8]) -> Result<(), LoadError> {
        let programs = multi_programs(object, &self.ebpf)?;
        let works = programs
            .first()
            .is_some_and(|(_, program)| sys::has_uprobe_multi(program.as_fd()));
        if works {
            self.multi = programs;
            self.uprobes = UprobeKind::Multi;
            return Ok(());
        }
        let path = "/sys/bus/event_source/devices/uprobe/type";
        let kind = std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        self.perf_kind = kind.ok_or_else(|| {
            LoadError::Refused(format!(
                "it has neither uprobe.multi links nor the uprobe event source ({path}); memtrace \
                 needs a kernel built with CONFIG_UPROBE_EVENTS"
            ))
        })?;
        Ok(())
    }
}

fn missing_program(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("the object has no program {name}"),
    )
}

fn object_bytes() -> Result<Cow<'static, [u8]>, LoadError> {
    match std::env::var(OBJECT_VARIABLE) {
        Ok(path) if !path.is_empty() => match std::fs::read(&path) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(source) => Err(LoadError::Object { path, source }),
        },
        _ => Ok(Cow::Borrowed(EMBEDDED)),
    }
}

fn load_program(program: &mut Program) -> Result<(), LoadError> {
    if let Ok(program) = <&mut UProbe>::try_from(&mut *program) {
        return program.load().map_err(LoadError::refused);
    }
    if let Ok(program) = <&mut TracePoint>::try_from(&mut *program) {
        return program.load().map_err(LoadError::refused);
    }
    if let Ok(program) = <&mut RawTracePoint>::try_from(&mut *program) {
        return program.load().map_err(LoadError::refused);
    }
    Err(LoadError::Refused(
        "the object has a program of a kind that memtrace does not use".into(),
    ))
}

/// The uprobe programs loaded for `uprobe.multi`, on the maps that aya made.
fn multi_programs(
    object: &[u8],
    ebpf: &Ebpf,
) -> Result<Vec<(&'static str, OwnedFd)>, LoadError> {
    let mut object = Object::parse(object).map_err(LoadError::refused)?;
    let text_sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let object_maps = object.maps.clone();
    let maps: Vec<_> = object_maps
        .iter()
        .filter_map(|(name, map)| {
            let fd = map_data(ebpf.map(name)?)?.fd().as_fd().as_raw_fd();
            Some((name.as_str(), fd, map))
        })
        .collect();
    object
        .relocate_maps(maps.into_iter(), &text_sections)
        .map_err(LoadError::refused)?;
    object
        .relocate_calls(&text_sections)
        .map_err(LoadError::refused)?;
    let mut programs = Vec::new();
    for name in UPROBE_PROGRAMS {
        let program = object
            .programs
            .get(name)
            .ok_or_else(|| LoadError::Refused(missing_program(name).to_string()))?;
        let function = object
            .functions
            .get(&program.function_key())
            .ok_or_else(|| LoadError::Refused(missing_program(name).to_string()))?;
        let instructions = instruction_bytes(&function.instructions);
        match sys::load_uprobe_program(
            name,
            &instructions,
            &program.license,
            sys::ATTACH_UPROBE_MULTI,
        ) {
            Ok(fd) => programs.push((name, fd)),
            // A kernel that does not know the attach type: no multi links.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
            Err(error) => return Err(LoadError::Refused(error.to_string())),
        }
    }
    Ok(programs)
}

fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// An eBPF instruction is eight bytes: code, two registers, offset, immediate
/// (include/uapi/linux/bpf.h, `struct bpf_insn`).
fn instruction_bytes(instructions: &[aya_obj::generated::bpf_insn]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(instructions.len() * 8);
    for instruction in instructions {
        let registers = if cfg!(target_endian = "little") {
            instruction.dst_reg() | instruction.src_reg() << 4
        } else {
            instruction.dst_reg() << 4 | instruction.src_reg()
        };
        bytes.push(instruction.code);
        bytes.push(registers);
        bytes.extend(instruction.off.to_ne_bytes());
        bytes.extend(instruction.imm.to_ne_bytes());
    }
    bytes
}
