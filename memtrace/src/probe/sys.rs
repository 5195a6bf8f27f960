//! The system calls that no library offers: loading a program for
//! `uprobe.multi`, links with cookies, perf-event probes.
//!
//! Everything unsafe about talking to the kernel is in this file. Each
//! function turns borrowed Rust values into one system call and its result
//! into an owned descriptor or an `io::Error`.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use memtrace_common::config::Config;
use tokio::io::unix::AsyncFd;

/// `BPF_PROG_LOAD`.
const BPF_PROG_LOAD: i64 = 5;
/// `BPF_LINK_CREATE`.
const BPF_LINK_CREATE: i64 = 28;
/// `BPF_MAP_UPDATE_ELEM`.
const BPF_MAP_UPDATE_ELEM: i64 = 2;
/// `BPF_RAW_TRACEPOINT_OPEN`.
const BPF_RAW_TRACEPOINT_OPEN: i64 = 17;
/// `BPF_MAP_FREEZE`.
const BPF_MAP_FREEZE: i64 = 22;
/// `BPF_PERF_EVENT`, the attach type of a link to a perf event.
const ATTACH_PERF_EVENT: u32 = 41;
/// `BPF_TRACE_UPROBE_MULTI`.
pub const ATTACH_UPROBE_MULTI: u32 = 48;
/// `BPF_F_UPROBE_MULTI_RETURN`.
const UPROBE_MULTI_RETURN: u32 = 1;
/// Bytes of verifier log that an error carries.
const VERIFIER_LOG_BYTES: usize = 1 << 20;

/// The fields of `union bpf_attr` that `BPF_PROG_LOAD` reads here
/// (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The fields of `union bpf_attr` that `BPF_LINK_CREATE` reads for
/// `uprobe_multi`.
#[repr(C)]
#[derive(Default)]
struct LinkUprobeMulti {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    padding: u32,
}

/// The fields of `union bpf_attr` that `BPF_LINK_CREATE` reads for a perf
/// event.
#[repr(C)]
#[derive(Default)]
struct LinkPerfEvent {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    bpf_cookie: u64,
}

/// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER5`'s 112 bytes.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    rest: [u64; 5],
}

const _: () = assert!(size_of::<PerfEventAttr>() == 112);

/// The fields of `union bpf_attr` that `BPF_MAP_UPDATE_ELEM` reads.
#[repr(C)]
#[derive(Default)]
struct MapElement {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The fields of `union bpf_attr` that `BPF_MAP_FREEZE` reads.
#[repr(C)]
#[derive(Default)]
struct MapFreeze {
    map_fd: u32,
}

/// The fields of `union bpf_attr` that `BPF_RAW_TRACEPOINT_OPEN` reads.
#[repr(C)]
#[derive(Default)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    padding: u32,
    cookie: u64,
}

/// The types of programs that memtrace has (`enum bpf_prog_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum ProgramType {
    /// `BPF_PROG_TYPE_KPROBE`, which uprobes are as well.
    Uprobe = 2,
    /// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
    RawTracepoint = 17,
}

/// Which side of a call a uprobe watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The instruction itself.
    Entry,
    /// The function's return.
    Return,
}

fn owned(result: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed out this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i64, attr: &T) -> i64 {
    // SAFETY: the attribute is a live `repr(C)` value of the stated size, and
    // the memory it points to outlives the call (all callers keep it).
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    }
}

fn bpf_fd<T>(command: i64, attr: &T) -> io::Result<OwnedFd> {
    owned(bpf(command, attr))
}

fn bpf_done<T>(command: i64, attr: &T) -> io::Result<()> {
    if bpf(command, attr) < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The configuration as the kernel programs see it.
pub fn config_bytes(config: &Config) -> Vec<u8> {
    // SAFETY: `Config` is `repr(C)`, made of u32 only, without padding.
    unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(config).cast::<u8>(), size_of::<Config>())
    }
    .to_vec()
}

/// Fills the one value of a data section's map, and freezes it if the programs
/// only read it.
///
/// # Errors
/// The kernel's refusal.
pub fn set_map_contents(map: BorrowedFd<'_>, contents: &[u8], read_only: bool) -> io::Result<()> {
    set_map_element(map, 0, contents)?;
    let map_fd = map.as_raw_fd() as u32;
    if read_only {
        bpf_done(BPF_MAP_FREEZE, &MapFreeze { map_fd })?;
    }
    Ok(())
}

/// Sets one element of an array map.
///
/// # Errors
/// The kernel's refusal.
pub fn set_map_element(map: BorrowedFd<'_>, key: u32, contents: &[u8]) -> io::Result<()> {
    let map_fd = map.as_raw_fd() as u32;
    bpf_done(
        BPF_MAP_UPDATE_ELEM,
        &MapElement {
            map_fd,
            key: std::ptr::from_ref(&key) as u64,
            value: contents.as_ptr() as u64,
            ..MapElement::default()
        },
    )
}

/// Runs a program at a raw tracepoint for as long as the descriptor is open.
///
/// # Errors
/// The kernel's refusal, or it has no such tracepoint.
pub fn open_raw_tracepoint(program: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    bpf_fd(
        BPF_RAW_TRACEPOINT_OPEN,
        &RawTracepointOpen {
            name: name.as_ptr() as u64,
            prog_fd: program.as_raw_fd() as u32,
            ..RawTracepointOpen::default()
        },
    )
}

/// Loads a program. `instructions` are whole eBPF instructions of eight
/// bytes each.
///
/// # Errors
/// The kernel's refusal, with the end of the verifier's log.
pub fn load_program(
    name: &str,
    kind: ProgramType,
    instructions: &[u8],
    license: &CStr,
    expected_attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type: kind as u32,
        insn_cnt: (instructions.len() / 8) as u32,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type,
        ..ProgLoad::default()
    };
    for (to, from) in attr.prog_name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    match bpf_fd(BPF_PROG_LOAD, &attr) {
        Ok(fd) => Ok(fd),
        Err(first) => {
            let mut log = vec![0u8; VERIFIER_LOG_BYTES];
            attr.log_level = 1;
            attr.log_size = log.len() as u32;
            attr.log_buf = log.as_mut_ptr() as u64;
            if let Ok(fd) = bpf_fd(BPF_PROG_LOAD, &attr) {
                return Ok(fd);
            }
            let text = CStr::from_bytes_until_nul(&log)
                .map(|text| text.to_string_lossy().into_owned())
                .unwrap_or_default();
            let end: Vec<&str> = text.lines().rev().take(12).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            Err(io::Error::new(
                first.kind(),
                format!("program {name}: {first}\n{}", end.join("\n")),
            ))
        }
    }
}

/// Attaches one program at many offsets of one file, in one process, at once
/// (6.6 and later).
///
/// # Errors
/// The kernel's refusal; nothing is attached then.
pub fn link_uprobe_multi(
    program: BorrowedFd<'_>,
    path: &Path,
    sites: &[(u64, u64)],
    pid: u32,
    side: Side,
) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let offsets: Vec<u64> = sites.iter().map(|(offset, _)| *offset).collect();
    let cookies: Vec<u64> = sites.iter().map(|(_, cookie)| *cookie).collect();
    let attr = LinkUprobeMulti {
        prog_fd: program.as_raw_fd() as u32,
        attach_type: ATTACH_UPROBE_MULTI,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        cnt: sites.len() as u32,
        multi_flags: match side {
            Side::Entry => 0,
            Side::Return => UPROBE_MULTI_RETURN,
        },
        pid,
        ..LinkUprobeMulti::default()
    };
    bpf_fd(BPF_LINK_CREATE, &attr)
}

/// Whether the kernel has `uprobe.multi` with a process filter that works.
///
/// The first kernels with it filtered by thread instead of by process; those
/// that were mended reject a negative pid before they look at the path, the
/// others fail on the path (a directory) with EBADF, those without the link
/// type with EINVAL on a valid pid too.
pub fn has_uprobe_multi(program: BorrowedFd<'_>) -> bool {
    let attempt = |pid: u32| {
        let path = c"/";
        let offset = 1u64;
        let attr = LinkUprobeMulti {
            prog_fd: program.as_raw_fd() as u32,
            attach_type: ATTACH_UPROBE_MULTI,
            path: path.as_ptr() as u64,
            offsets: std::ptr::from_ref(&offset) as u64,
            cnt: 1,
            pid,
            ..LinkUprobeMulti::default()
        };
        bpf_fd(BPF_LINK_CREATE, &attr)
            .err()
            .and_then(|error| error.raw_os_error())
    };
    attempt(0) == Some(libc::EBADF) && attempt(u32::MAX) == Some(libc::EINVAL)
}

fn perf_event_open(attr: &PerfEventAttr, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    // PERF_FLAG_FD_CLOEXEC
    let flags: u64 = 8;
    // SAFETY: the attribute is a live value whose size field states its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attr),
            pid,
            cpu,
            -1,
            flags,
        )
    };
    owned(result)
}

/// Opens a uprobe as a perf event in one process. `kind` is the number in
/// `/sys/bus/event_source/devices/uprobe/type`.
///
/// # Errors
/// The kernel's refusal.
pub fn perf_uprobe(
    kind: u32,
    path: &Path,
    offset: u64,
    pid: u32,
    side: Side,
) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let attr = PerfEventAttr {
        kind,
        size: size_of::<PerfEventAttr>() as u32,
        config: match side {
            Side::Entry => 0,
            Side::Return => 1,
        },
        config1: path.as_ptr() as u64,
        config2: offset,
        ..PerfEventAttr::default()
    };
    let pid = i32::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    perf_event_open(&attr, pid, -1)
}

/// Runs a program whenever the perf event fires, with a cookie (5.15 and
/// later).
///
/// # Errors
/// The kernel's refusal.
pub fn link_perf_event(
    program: BorrowedFd<'_>,
    event: BorrowedFd<'_>,
    cookie: u64,
) -> io::Result<OwnedFd> {
    let attr = LinkPerfEvent {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: event.as_raw_fd() as u32,
        attach_type: ATTACH_PERF_EVENT,
        flags: 0,
        bpf_cookie: cookie,
    };
    bpf_fd(BPF_LINK_CREATE, &attr)
}

fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "path with a NUL byte"))
}

/// The clock of all events, ns.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The clock of processes' start times, ns since boot.
pub fn boottime_ns() -> u64 {
    clock_ns(libc::CLOCK_BOOTTIME)
}

/// Wall-clock time, ns since 1970.
pub fn realtime_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the result is written to a live timespec.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The effective user id.
pub fn effective_user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Kernel release and machine, as `uname` tells them.
pub fn kernel_and_machine() -> (String, String) {
    // SAFETY: utsname is plain arrays, for which zeros are valid; uname fills
    // them with C strings.
    let names = unsafe {
        let mut names: libc::utsname = std::mem::zeroed();
        libc::uname(&mut names);
        names
    };
    let text = |field: &[libc::c_char]| {
        let bytes: Vec<u8> = field
            .iter()
            .map(|c| *c as u8)
            .take_while(|byte| *byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    (text(&names.release), text(&names.machine))
}

/// Asks the scheduler to prefer this process: a collector that waits for its
/// turn on a busy machine loses events. A refusal changes nothing else.
pub fn prefer_this_process() {
    const NICE: i32 = -10;
    // SAFETY: plain numbers; 0 means the calling process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Sends a signal to a process.
///
/// # Errors
/// As `kill`.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: plain numbers.
    if unsafe { libc::kill(pid, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A descriptor that tasks can wait for.
///
/// # Errors
/// It cannot be polled, or there is no runtime.
pub fn waitable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped,
    // and the `AsyncFd` that owns it deregisters before it drops it.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
