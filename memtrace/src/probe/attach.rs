//! Attaching the kernel programs, and taking them off again.
//!
//! In: the loaded [`Kernel`], processes and what was discovered in them. Out:
//! links; dropping them detaches. A process that is gone takes its breakpoints
//! with it; the links are dropped when that is seen.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::mpsc,
};

use memtrace_common::event::{RustlsCall, WatchedCall};

use super::{
    discover::{AllocatorObject, Role, SocketObject},
    greenlet::Greenlet,
    load::{Kernel, UprobeKind},
    maps::FileIdentity,
    node::Node,
    python::Python,
    runtime::{go::Go, php::Php},
    sys::{self, Side},
    tasks::TaskObject,
    tls::{self, TlsObject},
};

/// Where socket facts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketProbes {
    /// The system call tracepoints.
    #[default]
    Tracepoints,
    /// Uprobes on libc's functions.
    Libc,
}

/// The system calls watched, by their number on this architecture. (That of
/// aarch64 has only the newer form of some.)
const SYSTEM_CALLS: &[(libc::c_long, WatchedCall)] = &[
    (libc::SYS_read, WatchedCall::Recv),
    (libc::SYS_recvfrom, WatchedCall::RecvFlags),
    (libc::SYS_readv, WatchedCall::RecvVector),
    (libc::SYS_recvmsg, WatchedCall::RecvMessage),
    (libc::SYS_write, WatchedCall::Send),
    (libc::SYS_sendto, WatchedCall::Send),
    (libc::SYS_writev, WatchedCall::SendVector),
    (libc::SYS_sendmsg, WatchedCall::SendMessage),
    (libc::SYS_sendfile, WatchedCall::SendFile),
    (libc::SYS_splice, WatchedCall::Splice),
    (libc::SYS_accept, WatchedCall::Accept),
    (libc::SYS_accept4, WatchedCall::Accept),
    (libc::SYS_connect, WatchedCall::Connect),
    (libc::SYS_shutdown, WatchedCall::Shutdown),
    (libc::SYS_close, WatchedCall::Close),
    (libc::SYS_epoll_pwait, WatchedCall::WaitEpoll),
    (libc::SYS_epoll_pwait2, WatchedCall::WaitEpoll),
    (libc::SYS_ppoll, WatchedCall::WaitPoll),
    (libc::SYS_pselect6, WatchedCall::WaitSelect),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, WatchedCall::WaitEpoll),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, WatchedCall::WaitPoll),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, WatchedCall::WaitSelect),
];

/// The libc functions watched instead, with their shape and whether their
/// result matters.
pub const LIBC_FUNCTIONS: [(&str, WatchedCall, bool); 27] = [
    ("read", WatchedCall::Recv, true),
    ("__read_chk", WatchedCall::Recv, true),
    ("recv", WatchedCall::RecvFlags, true),
    ("__recv_chk", WatchedCall::Recv, true),
    ("recvfrom", WatchedCall::RecvFlags, true),
    ("__recvfrom_chk", WatchedCall::Recv, true),
    ("readv", WatchedCall::RecvVector, true),
    ("recvmsg", WatchedCall::RecvMessage, true),
    ("write", WatchedCall::Send, true),
    ("send", WatchedCall::Send, true),
    ("sendto", WatchedCall::Send, true),
    ("writev", WatchedCall::SendVector, true),
    ("sendmsg", WatchedCall::SendMessage, true),
    ("sendfile", WatchedCall::SendFile, true),
    ("sendfile64", WatchedCall::SendFile, true),
    ("splice", WatchedCall::Splice, true),
    ("accept", WatchedCall::Accept, true),
    ("accept4", WatchedCall::Accept, true),
    ("connect", WatchedCall::Connect, true),
    ("shutdown", WatchedCall::Shutdown, false),
    ("close", WatchedCall::Close, false),
    ("epoll_wait", WatchedCall::WaitEpoll, false),
    ("epoll_pwait", WatchedCall::WaitEpoll, false),
    ("poll", WatchedCall::WaitPoll, false),
    ("__poll_chk", WatchedCall::WaitPoll, false),
    ("ppoll", WatchedCall::WaitPoll, false),
    ("select", WatchedCall::WaitSelect, false),
];

/// The links of one process.
#[derive(Debug, Default)]
struct ProcessLinks {
    /// Files whose probes are in place.
    files: HashSet<(FileIdentity, Subject)>,
    entries: Vec<OwnedFd>,
    returns: Vec<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Allocator,
    Sockets,
    Contexts,
    Tls,
    Go,
    HeapEnd,
    Tasks,
}

/// Everything that is attached.
#[derive(Debug, Default)]
pub struct Links {
    system: Vec<OwnedFd>,
    /// Closes the links of processes that are gone: the kernel waits some 30 ms
    /// for each, and events must not.
    reaper: Option<mpsc::Sender<Vec<OwnedFd>>>,
    processes: HashMap<u32, ProcessLinks>,
}

impl Links {
    /// Watches processes and threads come and go.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_tasks(&mut self, kernel: &Kernel, cgroups: bool) -> io::Result<()> {
        let mut programs = vec![
            ("task_fork", c"sched_process_fork"),
            ("task_exec", c"sched_process_exec"),
            ("task_exit", c"sched_process_exit"),
        ];
        if cgroups {
            programs.push(("task_cgroup_move", c"cgroup_attach_task"));
        }
        self.attach_raw_tracepoints(kernel, &programs)
    }

    /// Watches system calls: libraries being mapped, threads that wake each
    /// other and, with `sockets`, socket calls.
    ///
    /// # Errors
    /// The kernel has no system call tracepoints, or refuses them.
    pub fn attach_system_calls(&mut self, kernel: &mut Kernel, sockets: bool) -> io::Result<()> {
        let mut watched = vec![
            (libc::SYS_mmap, WatchedCall::Map),
            (libc::SYS_futex, WatchedCall::Futex),
        ];
        if sockets {
            watched.extend(SYSTEM_CALLS);
        }
        for (number, call) in watched {
            kernel
                .watch(number as u32, call)
                .map_err(io::Error::other)?;
        }
        let programs = [
            ("syscall_exit", c"sys_exit"),
            ("syscall_enter", c"sys_enter"),
        ];
        self.attach_raw_tracepoints(kernel, &programs)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this kernel has no system call tracepoints \
                     (CONFIG_HAVE_SYSCALL_TRACEPOINTS)",
                ),
                _ => error,
            })
    }

    fn attach_raw_tracepoints(
        &mut self,
        kernel: &Kernel,
        programs: &[(&str, &CStr)],
    ) -> io::Result<()> {
        for (program, tracepoint) in programs {
            let program = kernel.program(program)?;
            let link = sys::open_raw_tracepoint(program, tracepoint).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{}: {error}", tracepoint.to_string_lossy()),
                )
            })?;
            self.system.push(link);
        }
        Ok(())
    }

    /// Probes an allocator in a process; nothing if that was done already.
    /// Returns whether it was new.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_allocator(
        &mut self,
        kernel: &Kernel,
        pid: u32,
        object: &AllocatorObject,
    ) -> io::Result<bool> {
        if !self.is_new(pid, object.file, Subject::Allocator) {
            return Ok(false);
        }
        let mut calls = Vec::new();
        let mut frees = Vec::new();
        for function in &object.facts.functions {
            match function.role {
                Role::Allocate(call) => calls.push((function.offset, call as u64)),
                Role::Free => frees.push((function.offset, 0)),
            }
        }
        let path = object.attach_path();
        // Returns first: an entry without its return would stay pending.
        let batches = [
            ("alloc_return", Side::Return, &calls),
            ("alloc_enter", Side::Entry, &calls),
            ("free_enter", Side::Entry, &frees),
        ];
        for (program, side, sites) in batches {
            self.attach_sites(kernel, pid, &path, program, side, sites)?;
        }
        self.done(pid, object.file, Subject::Allocator);
        Ok(true)
    }

    /// Probes libc's socket functions in a process.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_libc_sockets(
        &mut self,
        kernel: &Kernel,
        pid: u32,
        object: &SocketObject,
    ) -> io::Result<()> {
        if !self.is_new(pid, object.file, Subject::Sockets) {
            return Ok(());
        }
        let path = object.attach_path();
        let entries: Vec<(u64, u64)> = object
            .functions
            .iter()
            .map(|function| (function.offset, function.call as u64))
            .collect();
        let returns: Vec<(u64, u64)> = object
            .functions
            .iter()
            .filter(|function| function.has_result)
            .map(|function| (function.offset, 0))
            .collect();
        self.attach_sites(kernel, pid, &path, "libc_return", Side::Return, &returns)?;
        self.attach_sites(kernel, pid, &path, "libc_enter", Side::Entry, &entries)?;
        self.done(pid, object.file, Subject::Sockets);
        Ok(())
    }

    /// Probes a TLS library in a process; nothing if that was done already.
    /// Returns whether it was new.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_tls(
        &mut self,
        kernel: &Kernel,
        pid: u32,
        object: &TlsObject,
    ) -> io::Result<bool> {
        if !self.is_new(pid, object.file, Subject::Tls) {
            return Ok(false);
        }
        let mut moves = Vec::new();
        let mut ends = Vec::new();
        let mut rustls_received = Vec::new();
        let mut rustls_sends = Vec::new();
        let mut rustls_ends = Vec::new();
        for function in &object.facts.functions {
            match function.role {
                tls::Role::Move(call) => moves.push((function.offset, call as u64)),
                tls::Role::End => ends.push((function.offset, 0)),
                tls::Role::Rustls(call) => match call {
                    RustlsCall::Received => &mut rustls_received,
                    RustlsCall::SendSlice | RustlsCall::SendChunks => &mut rustls_sends,
                    RustlsCall::End => &mut rustls_ends,
                }
                .push((function.offset, call as u64)),
            }
        }
        let path = object.attach_path();
        let batches = [
            ("tls_end", Side::Entry, &ends),
            ("tls_return", Side::Return, &moves),
            ("tls_enter", Side::Entry, &moves),
            ("rustls_end", Side::Entry, &rustls_ends),
            ("rustls_sent", Side::Return, &rustls_sends),
            ("rustls_sends", Side::Entry, &rustls_sends),
            ("rustls_received", Side::Entry, &rustls_received),
        ];
        for (program, side, sites) in batches {
            self.attach_sites(kernel, pid, &path, program, side, sites)?;
        }
        self.done(pid, object.file, Subject::Tls);
        Ok(true)
    }

    /// Watches contexts being made in a CPython process.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_contexts(
        &mut self,
        kernel: &Kernel,
        pid: u32,
        python: &Python,
    ) -> io::Result<()> {
        if !self.is_new(pid, python.file, Subject::Contexts) {
            return Ok(());
        }
        let makers: Vec<(u64, u64)> = python.makers.iter().map(|offset| (*offset, 0)).collect();
        let ends = [(python.end, 0)];
        let path = python.attach_path();
        self.attach_sites(kernel, pid, &path, "context_end", Side::Entry, &ends)?;
        self.attach_sites(kernel, pid, &path, "context_made", Side::Return, &makers)?;
        self.done(pid, python.file, Subject::Contexts);
        Ok(())
    }

    /// Watches the callbacks of a Node process.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_node(&mut self, kernel: &Kernel, pid: u32, node: &Node) -> io::Result<()> {
        if !self.is_new(pid, node.file, Subject::Contexts) {
            return Ok(());
        }
        let path = node.attach_path();
        let site = |offset: &u64| (*offset, 0);
        let rows: Vec<(u64, u64)> = node.rows.iter().map(site).collect();
        let settles: Vec<(u64, u64)> = node.settles.iter().map(site).collect();
        let makes: Vec<(u64, u64)> = node.makes_jobs.iter().map(site).collect();
        let continues = [(node.continues, 0)];
        // Where not all are seen to be made, they are not told apart.
        let runs = if makes.is_empty() {
            &[]
        } else {
            &continues[..]
        };
        for (program, side, sites) in [
            ("node_continued", Side::Return, &continues[..]),
            ("node_ended", Side::Return, &[(node.ends, 0)]),
            ("node_row", Side::Entry, &rows),
            ("node_settles", Side::Entry, &settles),
            ("node_makes_job", Side::Entry, &makes),
            ("node_continues", Side::Entry, runs),
            ("node_ends", Side::Entry, &[(node.ends, 0)]),
            // The others do nothing before this one was met.
            ("node_begins", Side::Entry, &[(node.begins, 0)]),
        ] {
            if !sites.is_empty() {
                self.attach_sites(kernel, pid, &path, program, side, sites)?;
            }
        }
        self.done(pid, node.file, Subject::Contexts);
        Ok(())
    }

    /// Watches threads turn from one task of tokio's to another.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_tasks_of(
        &mut self,
        kernel: &Kernel,
        pid: u32,
        object: &TaskObject,
    ) -> io::Result<()> {
        if !self.is_new(pid, object.file, Subject::Tasks) {
            return Ok(());
        }
        let path = object.attach_path();
        let sites: Vec<(u64, u64)> = object.facts.iter().map(|poll| (poll.offset, 0)).collect();
        self.attach_sites(kernel, pid, &path, "task_pauses", Side::Return, &sites)?;
        self.attach_sites(kernel, pid, &path, "task_begins", Side::Entry, &sites)?;
        self.done(pid, object.file, Subject::Tasks);
        Ok(())
    }

    /// Watches greenlets being made, switched and taken apart.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_greenlets(
        &mut self,
        kernel: &Kernel,
        pid: u32,
        greenlet: &Greenlet,
    ) -> io::Result<()> {
        if !self.is_new(pid, greenlet.file, Subject::Contexts) {
            return Ok(());
        }
        let path = greenlet.attach_path();
        for (program, offset) in [
            ("greenlet_end", greenlet.end),
            ("greenlet_made", greenlet.init),
            ("greenlet_switch", greenlet.switch),
        ] {
            self.attach_sites(kernel, pid, &path, program, Side::Entry, &[(offset, 0)])?;
        }
        self.done(pid, greenlet.file, Subject::Contexts);
        Ok(())
    }

    /// Probes a Go program: entries only, as Go moves its stacks.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_go(&mut self, kernel: &Kernel, pid: u32, go: &Go) -> io::Result<()> {
        if !self.is_new(pid, go.file, Subject::Go) {
            return Ok(());
        }
        let path = go.attach_path();
        for (program, offsets) in go.sites.by_program() {
            let sites: Vec<(u64, u64)> = offsets.iter().map(|offset| (*offset, 0)).collect();
            self.attach_sites(kernel, pid, &path, program, Side::Entry, &sites)?;
        }
        self.done(pid, go.file, Subject::Go);
        Ok(())
    }

    /// Watches a PHP process give up the heaps of its requests.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_heap_end(&mut self, kernel: &Kernel, pid: u32, php: &Php) -> io::Result<()> {
        if !self.is_new(pid, php.file(), Subject::HeapEnd) {
            return Ok(());
        }
        let sites = [(php.heap_end_offset, 0)];
        let path = php.attach_path();
        self.attach_sites(kernel, pid, &path, "heap_end", Side::Entry, &sites)?;
        self.done(pid, php.file(), Subject::HeapEnd);
        Ok(())
    }

    /// Probes attached in a process: links, or perf events with their links.
    pub fn count(&self, pid: u32) -> usize {
        self.processes
            .get(&pid)
            .map_or(0, |process| process.entries.len() + process.returns.len())
    }

    /// Forgets a process that is gone.
    pub fn detach_process(&mut self, pid: u32) {
        let Some(process) = self.processes.remove(&pid) else {
            return;
        };
        let reaper = self.reaper.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel::<Vec<OwnedFd>>();
            std::thread::spawn(move || receiver.into_iter().for_each(drop));
            sender
        });
        for links in [process.entries, process.returns] {
            // Without the thread the links are closed here.
            let _ = reaper.send(links);
        }
    }

    /// Takes everything off. Breakpoints go at once; the call returns when the
    /// kernel has waited for the uprobes that are running.
    ///
    /// Entries go before returns: a call whose entry was seen shall end.
    pub fn detach_all(&mut self) {
        let (mut entries, mut returns) = (Vec::new(), Vec::new());
        for (_, mut process) in self.processes.drain() {
            entries.append(&mut process.entries);
            returns.append(&mut process.returns);
        }
        close_all(entries);
        close_all(returns);
        close_all(std::mem::take(&mut self.system));
    }

    fn is_new(&self, pid: u32, file: FileIdentity, subject: Subject) -> bool {
        self.processes
            .get(&pid)
            .is_none_or(|process| !process.files.contains(&(file, subject)))
    }

    fn done(&mut self, pid: u32, file: FileIdentity, subject: Subject) {
        let process = self.processes.entry(pid).or_default();
        process.files.insert((file, subject));
    }

    fn attach_sites(
        &mut self,
        kernel: &Kernel,
        pid: u32,
        path: &std::path::Path,
        program: &str,
        side: Side,
        sites: &[(u64, u64)],
    ) -> io::Result<()> {
        if sites.is_empty() {
            return Ok(());
        }
        let program = kernel.program(program)?;
        let process = self.processes.entry(pid).or_default();
        let links = match side {
            Side::Entry => &mut process.entries,
            Side::Return => &mut process.returns,
        };
        match kernel.uprobes {
            UprobeKind::Multi => {
                links.push(sys::link_uprobe_multi(program, path, sites, pid, side)?);
            }
            UprobeKind::PerfEvent => {
                for (offset, cookie) in sites {
                    let event = sys::perf_uprobe(kernel.perf_kind(), path, *offset, pid, side)?;
                    let link = sys::link_perf_event(program, event.as_fd(), *cookie)?;
                    links.push(link);
                    links.push(event);
                }
            }
        }
        Ok(())
    }
}

/// Closing a uprobe link waits for a grace period of the kernel (some 30 ms);
/// waiting for many at once takes no longer than for one.
fn close_all(links: Vec<OwnedFd>) {
    const THREADS_MAX: usize = 16;
    if links.len() < 2 {
        return;
    }
    let share = links.len().div_ceil(THREADS_MAX);
    let mut links = links.into_iter().peekable();
    std::thread::scope(|scope| {
        while links.peek().is_some() {
            let batch: Vec<OwnedFd> = links.by_ref().take(share).collect();
            scope.spawn(move || drop(batch));
        }
    });
}
