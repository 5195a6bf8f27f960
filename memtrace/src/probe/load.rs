//! The kernel programs: loading the embedded object, its maps, its counters.
//!
//! `aya-obj` parses and relocates the object, aya makes and reads the maps. The
//! programs are loaded here, since those for `uprobe.multi` must be loaded for
//! that attach type, which aya does not offer.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Pod,
    maps::{Array, HashMap as BpfHashMap, Map, MapData, PerCpuArray, RingBuf},
};
use aya_obj::{EbpfSectionKind, Object, ProgramSection};
use memtrace_common::{
    config::{Config, GoTarget, Target},
    event::WatchedCall,
    limits::FUTEX_PAIR,
    loss::Loss,
};
use thiserror::Error;

use super::{
    btf,
    sys::{self, ProgramType},
};

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
struct PodTarget(Target);

#[expect(
    unsafe_code,
    reason = "aya asks for the promise that a type is plain data"
)]
// SAFETY: `Target` is `repr(C)`, made of integers only, without padding.
unsafe impl Pod for PodTarget {}

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

/// The loaded kernel half. Dropping it takes every program and map away.
pub struct Kernel {
    maps: HashMap<String, Map>,
    programs: HashMap<String, OwnedFd>,
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
        let bytes = object_bytes()?;
        let vmlinux = std::fs::read("/sys/kernel/btf/vmlinux").map_err(LoadError::NoBtf)?;
        let config = Config {
            offsets: btf::kernel_offsets(&vmlinux)?,
            follow_children: u32::from(options.follow_children),
            collector_pid: std::process::id(),
        };
        drop(vmlinux);
        let mut object = Object::parse(&bytes).map_err(LoadError::refused)?;
        let config = sys::config_bytes(&config);
        object
            .patch_map_data(HashMap::from([("CONFIG", (&config[..], true))]))
            .map_err(LoadError::refused)?;
        let maps = make_maps(&object, options.ring_bytes)?;
        relocate(&mut object, &maps)?;
        let mut kernel = Kernel {
            maps,
            programs: HashMap::new(),
            perf_kind: 0,
            uprobes: UprobeKind::PerfEvent,
        };
        kernel.load_programs(&object)?;
        kernel.link_programs()?;
        Ok(kernel)
    }

    /// The ring of records. Can be taken once.
    ///
    /// # Errors
    /// It was taken already, or cannot be mapped.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        let map = self
            .maps
            .remove("EVENTS")
            .ok_or_else(|| missing("EVENTS"))?;
        RingBuf::try_from(map).map_err(LoadError::refused)
    }

    /// Makes a process known, or changes what is known of it.
    ///
    /// # Errors
    /// The map is full.
    pub fn set_target(&mut self, pid: u32, target: Target) -> Result<(), LoadError> {
        if target.thread_state_at != 0 || target.go.goid != 0 {
            Array::<_, u32>::try_from(self.map("CONTEXTS")?)
                .and_then(|mut contexts| contexts.set(0, 1, 0))
                .map_err(LoadError::refused)?;
        }
        self.targets()?
            .insert(pid, PodTarget(target), 0)
            .map_err(LoadError::refused)
    }

    /// States what there is to know of a process's Go runtime.
    ///
    /// # Errors
    /// The map is full.
    pub fn set_go(&mut self, pid: u32, go: GoTarget) -> Result<(), LoadError> {
        let known = self
            .targets()?
            .get(&pid, 0)
            .map_or_else(|_| Target::default(), |PodTarget(known)| known);
        // Every futex of the program is its scheduler's.
        let (locks_from, locks_until) = (0, u64::MAX);
        self.set_target(
            pid,
            Target {
                go,
                locks_from,
                locks_until,
                ..known
            },
        )
    }

    /// What the kernel programs know of a process.
    ///
    /// # Errors
    /// It is not traced.
    pub fn target(&mut self, pid: u32) -> Result<Target, LoadError> {
        let PodTarget(target) = self.targets()?.get(&pid, 0).map_err(LoadError::refused)?;
        Ok(target)
    }

    /// Changes what is known of a traced process.
    ///
    /// # Errors
    /// It is not traced, or the map is full.
    pub fn change_target(
        &mut self,
        pid: u32,
        change: impl FnOnce(Target) -> Target,
    ) -> Result<(), LoadError> {
        let target = change(self.target(pid)?);
        self.set_target(pid, target)
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

    /// States wake-ups at a futex of a process from now on: somebody sleeps there.
    ///
    /// # Errors
    /// The map cannot be reached.
    pub fn know_futex(&mut self, pid: u32, futex: u64) -> Result<(), LoadError> {
        let key = [u64::from(pid), futex & !FUTEX_PAIR];
        BpfHashMap::<_, [u64; 2], u8>::try_from(self.map("FUTEXES")?)
            .and_then(|mut futexes| futexes.insert(key, 1, 0))
            .map_err(LoadError::refused)
    }

    /// Watches a system call from now on.
    ///
    /// # Errors
    /// The map cannot be reached.
    pub fn watch(&mut self, number: u32, call: WatchedCall) -> Result<(), LoadError> {
        Array::<_, u32>::try_from(self.map("SYSCALLS")?)
            .and_then(|mut calls| calls.set(number, call as u32, 0))
            .map_err(LoadError::refused)
    }

    fn targets(&mut self) -> Result<BpfHashMap<&mut MapData, u32, PodTarget>, LoadError> {
        BpfHashMap::try_from(self.map("TARGETS")?).map_err(LoadError::refused)
    }

    fn map(&mut self, name: &str) -> Result<&mut Map, LoadError> {
        self.maps.get_mut(name).ok_or_else(|| missing(name))
    }

    /// Events lost so far, by cause, all processors together.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn lost(&self) -> Result<[u64; Loss::COUNT as usize], LoadError> {
        let map = self.maps.get("LOST").ok_or_else(|| missing("LOST"))?;
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

    /// The descriptor of a program.
    pub(super) fn program(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        self.programs
            .get(name)
            .map(|fd| fd.as_fd())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing(name).to_string()))
    }

    /// The number of the uprobe perf event source.
    pub(super) fn perf_kind(&self) -> u32 {
        self.perf_kind
    }

    /// Loads every program; those for uprobes for `uprobe.multi` where that
    /// works.
    fn load_programs(&mut self, object: &Object) -> Result<(), LoadError> {
        for (name, kind) in program_types(object)? {
            if kind != ProgramType::Uprobe {
                self.load_program(object, &name, kind, 0)?;
            }
        }
        let uprobes = || -> Result<Vec<String>, LoadError> {
            Ok(program_types(object)?
                .into_iter()
                .filter(|(_, kind)| *kind == ProgramType::Uprobe)
                .map(|(name, _)| name)
                .collect())
        };
        for (index, name) in uprobes()?.iter().enumerate() {
            match self.load_program(object, name, ProgramType::Uprobe, sys::ATTACH_UPROBE_MULTI) {
                Ok(()) => {
                    if index == 0 {
                        let works = sys::has_uprobe_multi(self.program(name).map_err(refused_io)?);
                        if !works {
                            break;
                        }
                        self.uprobes = UprobeKind::Multi;
                    }
                }
                // A kernel that does not know the attach type, or an error that
                // loading without it will show again.
                Err(_) if index == 0 => break,
                Err(error) => return Err(error),
            }
        }
        if self.uprobes == UprobeKind::Multi {
            return Ok(());
        }
        for name in uprobes()? {
            self.load_program(object, &name, ProgramType::Uprobe, 0)?;
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

    /// Tells programs where they go on.
    fn link_programs(&self) -> Result<(), LoadError> {
        for (map, place, program) in [
            ("NEXT", 0, "syscall_returned"),
            ("NEXT", 1, "syscall_bytes"),
            ("NEXT", 2, "syscall_frames"),
            ("NEXT", 3, "handover_entered"),
            ("NEXT", 4, "handover_returned"),
            ("NEXT_PROBE", 0, "probe_bytes"),
            ("NEXT_PROBE", 1, "probe_frames"),
        ] {
            let program = self.program(program).map_err(refused_io)?;
            let array = self
                .maps
                .get(map)
                .and_then(map_data)
                .ok_or_else(|| missing(map))?;
            let fd = program.as_raw_fd().to_ne_bytes();
            sys::set_map_element(array.fd().as_fd(), place, &fd).map_err(refused_io)?;
        }
        Ok(())
    }

    fn load_program(
        &mut self,
        object: &Object,
        name: &str,
        kind: ProgramType,
        expected_attach_type: u32,
    ) -> Result<(), LoadError> {
        let program = object.programs.get(name).ok_or_else(|| missing(name))?;
        let function = object
            .functions
            .get(&program.function_key())
            .ok_or_else(|| missing(name))?;
        let instructions = instruction_bytes(&function.instructions);
        let fd = sys::load_program(
            name,
            kind,
            &instructions,
            &program.license,
            expected_attach_type,
        )
        .map_err(refused_io)?;
        self.programs.insert(name.to_owned(), fd);
        Ok(())
    }
}

fn missing(name: &str) -> LoadError {
    LoadError::Refused(format!("the object lacks {name}"))
}

fn refused_io(error: io::Error) -> LoadError {
    LoadError::Refused(error.to_string())
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

/// The programs' names with their types, in order of their names.
fn program_types(object: &Object) -> Result<Vec<(String, ProgramType)>, LoadError> {
    let mut types = Vec::new();
    for (name, program) in &object.programs {
        let kind = match program.section {
            ProgramSection::UProbe { .. } | ProgramSection::URetProbe { .. } => ProgramType::Uprobe,
            ProgramSection::RawTracePoint => ProgramType::RawTracepoint,
            _ => {
                return Err(LoadError::Refused(format!(
                    "the object's program {name} is of a kind that memtrace does not use"
                )));
            }
        };
        types.push((name.clone(), kind));
    }
    types.sort();
    Ok(types)
}

fn make_maps(object: &Object, ring_bytes: u32) -> Result<HashMap<String, Map>, LoadError> {
    let mut maps = HashMap::new();
    for (name, definition) in &object.maps {
        let mut definition = definition.clone();
        if name == "EVENTS" {
            definition.set_max_entries(ring_bytes);
        }
        let read_only = definition.section_kind() == EbpfSectionKind::Rodata;
        let contents = definition.data().to_vec();
        let data = MapData::create(definition, name, None).map_err(LoadError::refused)?;
        if !contents.is_empty() {
            sys::set_map_contents(data.fd().as_fd(), &contents, read_only).map_err(refused_io)?;
        }
        let map = match name.as_str() {
            "EVENTS" => Map::RingBuf(data),
            "TARGETS" | "THREADS" => Map::HashMap(data),
            "FUTEXES" | "HTTP2" => Map::LruHashMap(data),
            "LOST" => Map::PerCpuArray(data),
            "NEXT" => Map::ProgramArray(data),
            _ => Map::Array(data),
        };
        maps.insert(name.clone(), map);
    }
    Ok(maps)
}

fn relocate(object: &mut Object, maps: &HashMap<String, Map>) -> Result<(), LoadError> {
    let text_sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let definitions = object.maps.clone();
    let descriptors: Vec<_> = definitions
        .iter()
        .filter_map(|(name, definition)| {
            let fd = map_data(maps.get(name)?)?.fd().as_fd().as_raw_fd();
            Some((name.as_str(), fd, definition))
        })
        .collect();
    object
        .relocate_maps(descriptors.into_iter(), &text_sections)
        .map_err(LoadError::refused)?;
    object
        .relocate_calls(&text_sections)
        .map_err(LoadError::refused)
}

fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
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
