//! Attaching the kernel programs, and taking them off again.
//!
//! In: the loaded [`Kernel`], processes and what was discovered in them. Out:
//! links; dropping them detaches. A process that is gone takes its breakpoints
//! with it; the links are dropped when that is seen.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
};

use memtrace_common::event::SocketCall;

use super::{
    discover::{AllocatorObject, Role, SocketObject},
    load::{Kernel, UprobeKind},
    maps::FileIdentity,
    sys::{self, Side},
};

/// Where socket facts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketProbes {
    /// System call tracepoints.
    #[default]
    Tracepoints,
    /// Uprobes on libc's functions.
    Libc,
}

/// The system calls watched: name, shape, whether their result matters.
/// Architectures lack some of them; a missing tracepoint is passed over.
const SYSTEM_CALLS: [(&str, SocketCall, bool); 23] = [
    ("read", SocketCall::Recv, true),
    ("recvfrom", SocketCall::RecvFlags, true),
    ("readv", SocketCall::RecvVector, true),
    ("recvmsg", SocketCall::RecvMessage, true),
    ("write", SocketCall::Send, true),
    ("sendto", SocketCall::Send, true),
    ("writev", SocketCall::SendVector, true),
    ("sendmsg", SocketCall::SendMessage, true),
    ("sendfile64", SocketCall::SendFile, true),
    ("sendfile", SocketCall::SendFile, true),
    ("splice", SocketCall::Splice, true),
    ("accept", SocketCall::Accept, true),
    ("accept4", SocketCall::Accept, true),
    ("connect", SocketCall::Connect, true),
    ("shutdown", SocketCall::Shutdown, false),
    ("close", SocketCall::Close, false),
    ("epoll_wait", SocketCall::WaitEpoll, false),
    ("epoll_pwait", SocketCall::WaitEpoll, false),
    ("epoll_pwait2", SocketCall::WaitEpoll, false),
    ("poll", SocketCall::WaitPoll, false),
    ("ppoll", SocketCall::WaitPoll, false),
    ("select", SocketCall::WaitSelect, false),
    ("pselect6", SocketCall::WaitSelect, false),
];

/// The libc functions watched instead, with their shape and whether their
/// result matters.
pub const LIBC_FUNCTIONS: [(&str, SocketCall, bool); 27] = [
    ("read", SocketCall::Recv, true),
    ("__read_chk", SocketCall::Recv, true),
    ("recv", SocketCall::RecvFlags, true),
    ("__recv_chk", SocketCall::Recv, true),
    ("recvfrom", SocketCall::RecvFlags, true),
    ("__recvfrom_chk", SocketCall::Recv, true),
    ("readv", SocketCall::RecvVector, true),
    ("recvmsg", SocketCall::RecvMessage, true),
    ("write", SocketCall::Send, true),
    ("send", SocketCall::Send, true),
    ("sendto", SocketCall::Send, true),
    ("writev", SocketCall::SendVector, true),
    ("sendmsg", SocketCall::SendMessage, true),
    ("sendfile", SocketCall::SendFile, true),
    ("sendfile64", SocketCall::SendFile, true),
    ("splice", SocketCall::Splice, true),
    ("accept", SocketCall::Accept, true),
    ("accept4", SocketCall::Accept, true),
    ("connect", SocketCall::Connect, true),
    ("shutdown", SocketCall::Shutdown, false),
    ("close", SocketCall::Close, false),
    ("epoll_wait", SocketCall::WaitEpoll, false),
    ("epoll_pwait", SocketCall::WaitEpoll, false),
    ("poll", SocketCall::WaitPoll, false),
    ("__poll_chk", SocketCall::WaitPoll, false),
    ("ppoll", SocketCall::WaitPoll, false),
    ("select", SocketCall::WaitSelect, false),
];

/// The links of one process.
#[derive(Debug, Default)]
struct ProcessLinks {
    /// Files whose probes are in place.
    files: HashSet<(FileIdentity, Subject)>,
    links: Vec<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Allocator,
    Sockets,
}

/// Everything that is attached.
#[derive(Debug, Default)]
pub struct Links {
    system: Vec<OwnedFd>,
    processes: HashMap<u32, ProcessLinks>,
}

impl Links {
    /// Watches processes and threads come and go.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_tasks(&mut self, kernel: &mut Kernel, cgroups: bool) -> io::Result<()> {
        let mut programs = vec![
            ("task_fork", "sched_process_fork"),
            ("task_exec", "sched_process_exec"),
            ("task_exit", "sched_process_exit"),
        ];
        if cgroups {
            programs.push(("task_cgroup_move", "cgroup_attach_task"));
        }
        for (program, tracepoint) in programs {
            // aya keeps the link in the program: it goes with `kernel`.
            kernel
                .raw_tracepoint(program)?
                .attach(tracepoint)
                .map_err(|error| io::Error::other(format!("{tracepoint}: {error}")))?;
        }
        Ok(())
    }

    /// Watches libraries being mapped and, with `sockets`, socket calls, by
    /// system call tracepoints.
    ///
    /// # Errors
    /// The kernel has no system call tracepoints, or refuses them.
    pub fn attach_tracepoints(&mut self, kernel: &Kernel, sockets: bool) -> io::Result<()> {
        let tracefs = sys::tracefs().map_err(|error| context("tracefs", &error))?;
        let mut attach = |event: String, program: &str, cookie: u64| -> io::Result<()> {
            let path = format!("events/syscalls/{event}/id");
            let id = match sys::open_at(tracefs.as_fd(), &path) {
                Ok(file) => read_number(File::from(file))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(io::Error::from(io::ErrorKind::NotFound));
                }
                Err(error) => return Err(context(&path, &error)),
            };
            let perf = sys::perf_tracepoint(id).map_err(|error| context(&event, &error))?;
            let program = kernel.program_fd(program)?;
            let link = sys::link_perf_event(program, perf.as_fd(), cookie)
                .map_err(|error| context(&event, &error))?;
            self.system.push(link);
            self.system.push(perf);
            Ok(())
        };
        attach("sys_enter_mmap".into(), "mmap_enter", 0).map_err(no_tracepoints)?;
        if !sockets {
            return Ok(());
        }
        let mut received = false;
        for (name, call, has_result) in SYSTEM_CALLS {
            // The exit first: an entry without its exit would be kept.
            let exit = if has_result {
                attach(format!("sys_exit_{name}"), "syscall_exit", 0)
            } else {
                Ok(())
            };
            let both = exit
                .and_then(|()| attach(format!("sys_enter_{name}"), "syscall_enter", call as u64));
            match both {
                Ok(()) => received |= call == SocketCall::RecvFlags,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if received {
            Ok(())
        } else {
            Err(no_tracepoints(io::Error::from(io::ErrorKind::NotFound)))
        }
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

    /// Probes attached in a process: links, or perf events with their links.
    pub fn count(&self, pid: u32) -> usize {
        self.processes
            .get(&pid)
            .map_or(0, |process| process.links.len())
    }

    /// Forgets a process that is gone.
    pub fn detach_process(&mut self, pid: u32) {
        if let Some(process) = self.processes.remove(&pid) {
            close_all(process.links);
        }
    }

    /// Takes everything off. Breakpoints go at once; the call returns when the
    /// kernel has waited for the probes that are running.
    pub fn detach_all(&mut self) {
        let links: Vec<OwnedFd> = self
            .processes
            .drain()
            .flat_map(|(_, process)| process.links)
            .collect();
        close_all(links);
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
        let program = kernel.uprobe_program(program)?;
        let links = &mut self.processes.entry(pid).or_default().links;
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

fn read_number(mut file: File) -> io::Result<u64> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("not a number: {text}")))
}

fn context(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn no_tracepoints(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no system call tracepoints (CONFIG_FTRACE_SYSCALLS)",
        )
    } else {
        error
    }
}
