//! Reading kernel structures, at the offsets that the collector resolved from
//! the running kernel's BTF.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};
use memtrace_common::event::{Addresses, HandoverKind};

use crate::maps::config;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
/// include/uapi/asm-generic/fcntl.h, for x86-64 and arm64 alike.
const O_NONBLOCK: u32 = 0o4_000;
const S_IFSOCK: u16 = 0o140_000;

/// Something open in the current process.
#[derive(Clone, Copy)]
pub struct OpenFile {
    file: u64,
    inode: u64,
    mode: u16,
}

/// An open stream socket of the current process.
#[derive(Clone, Copy)]
pub struct StreamSocket {
    pub inode: u64,
    file: u64,
    sk: u64,
    family: u16,
}

/// A pipe, an event descriptor or a socket of a nameless pair.
#[derive(Clone, Copy)]
pub struct Channel {
    /// What both ends know of it.
    pub kind: HandoverKind,
    /// Where a reader of this descriptor waits.
    pub key: u64,
    /// Where somebody waits for what is written to this descriptor; 0: nobody
    /// can.
    pub peer_key: u64,
    /// Nothing is there to be read by this end.
    pub is_empty: bool,
    /// Nothing is there to be read by those whom a write to it reaches.
    pub peer_is_empty: bool,
}

/// Reads a `T` in kernel memory.
#[inline(always)]
pub fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address; `T` is plain data here.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// The socket behind a descriptor of the current process, if it is a TCP or
/// unix stream socket.
#[inline(always)]
pub fn stream_socket(fd: i32) -> Option<StreamSocket> {
    open_file(fd)?.stream_socket()
}

/// What is behind a descriptor of the current process.
///
/// `current->files->fdt->fd[fd]->f_inode`, as `fcheck` walks it (fs/file.c).
#[inline(always)]
pub fn open_file(fd: i32) -> Option<OpenFile> {
    if fd < 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let files: u64 = read(task, config!(offsets.task_files))?;
    let table: u64 = read(files, config!(offsets.files_fdt))?;
    let open_max: u32 = read(table, config!(offsets.fdtable_max_fds))?;
    if fd as u32 >= open_max {
        return None;
    }
    let array: u64 = read(table, config!(offsets.fdtable_fd))?;
    let file: u64 = read(array + fd as u64 * 8, 0)?;
    let inode: u64 = read(file, config!(offsets.file_inode))?;
    let mode: u16 = read(inode, config!(offsets.inode_mode))?;
    Some(OpenFile { file, inode, mode })
}

impl OpenFile {
    /// It as a TCP or unix stream socket.
    #[inline(always)]
    pub fn stream_socket(&self) -> Option<StreamSocket> {
        if self.mode & S_IFMT != S_IFSOCK {
            return None;
        }
        let socket: u64 = read(self.file, config!(offsets.file_private_data))?;
        let kind: u16 = read(socket, config!(offsets.socket_type))?;
        if kind != SOCK_STREAM {
            return None;
        }
        let sk: u64 = read(socket, config!(offsets.socket_sk))?;
        let family: u16 = read(sk, config!(offsets.sk_family))?;
        if family != AF_INET && family != AF_INET6 && family != AF_UNIX {
            return None;
        }
        Some(StreamSocket {
            inode: read(self.inode, config!(offsets.inode_ino))?,
            file: self.file,
            sk,
            family,
        })
    }

    /// It as something through which threads hand work to each other, if it is
    /// no socket.
    #[inline(always)]
    pub fn channel(&self) -> Option<Channel> {
        match self.mode & S_IFMT {
            S_IFIFO => self.pipe(),
            S_IFSOCK => None,
            _ => self.event(),
        }
    }

    /// Whether a call waits until it can go on.
    #[inline(always)]
    pub fn is_blocking(&self) -> bool {
        let flags: Option<u32> = read(self.file, config!(offsets.file_flags));
        flags.is_some_and(|flags| flags & O_NONBLOCK == 0)
    }

    /// Whether it is a socket of any kind.
    #[inline(always)]
    pub fn is_socket(&self) -> bool {
        self.mode & S_IFMT == S_IFSOCK
    }

    /// Whether it may be an event descriptor: it is no pipe and no socket.
    #[inline(always)]
    pub fn may_be_event(&self) -> bool {
        self.mode & S_IFMT != S_IFIFO && !self.is_socket()
    }

    #[inline(always)]
    fn pipe(&self) -> Option<Channel> {
        let pipe: u64 = read(self.inode, config!(offsets.inode_pipe))?;
        let head: u32 = read(pipe, config!(offsets.pipe_head))?;
        let tail: u32 = read(pipe, config!(offsets.pipe_tail))?;
        let key: u64 = read(self.inode, config!(offsets.inode_ino))?;
        Some(Channel {
            kind: HandoverKind::Pipe,
            key,
            peer_key: key,
            is_empty: head == tail,
            peer_is_empty: head == tail,
        })
    }

    /// An event descriptor is an anonymous file of that name
    /// (`do_eventfd`, fs/eventfd.c).
    #[inline(always)]
    fn event(&self) -> Option<Channel> {
        if config!(offsets.eventfd_id) == 0 {
            return None;
        }
        let entry: u64 = read(self.file, config!(offsets.file_dentry))?;
        let name: u64 = read(entry, config!(offsets.dentry_name))?;
        let name: [u8; 8] = read(name, 0)?;
        if u64::from_ne_bytes(name) != u64::from_ne_bytes(*b"[eventfd") {
            return None;
        }
        let event: u64 = read(self.file, config!(offsets.file_private_data))?;
        let count: u64 = read(event, config!(offsets.eventfd_count))?;
        let id: u32 = read(event, config!(offsets.eventfd_id))?;
        Some(Channel {
            kind: HandoverKind::EventFd,
            key: u64::from(id),
            peer_key: u64::from(id),
            is_empty: count == 0,
            peer_is_empty: count == 0,
        })
    }
}

impl StreamSocket {
    /// The socket and its peer, if both are without a name: those that
    /// socketpair made, and no connection to a server.
    #[inline(always)]
    pub fn pair(&self) -> Option<Channel> {
        let peer = self.nameless_peer()?;
        let queued: u32 = read(self.sk, config!(offsets.sock_queued))?;
        let queued_there: u32 = read(peer, config!(offsets.sock_queued))?;
        // A peer that was closed has no socket any more.
        let socket: u64 = read(peer, config!(offsets.sock_socket))?;
        let peer_key = if socket == 0 {
            0
        } else {
            let inode = socket + u64::from(config!(offsets.socket_inode));
            read(inode, config!(offsets.inode_ino))?
        };
        Some(Channel {
            kind: HandoverKind::SocketPair,
            key: self.inode,
            peer_key,
            is_empty: queued == 0,
            peer_is_empty: queued_there == 0,
        })
    }

    /// Whether it is one of such a pair.
    #[inline(always)]
    pub fn is_nameless(&self) -> bool {
        self.nameless_peer().is_some()
    }

    #[inline(always)]
    fn nameless_peer(&self) -> Option<u64> {
        if self.family != AF_UNIX || config!(offsets.unix_peer) == 0 {
            return None;
        }
        let peer: u64 = read(self.sk, config!(offsets.unix_peer))?;
        let name: u64 = read(self.sk, config!(offsets.unix_name))?;
        if peer == 0 || name != 0 {
            return None;
        }
        let name: u64 = read(peer, config!(offsets.unix_name))?;
        (name == 0).then_some(peer)
    }

    /// Whether the current process holds the only reference to it.
    #[inline(always)]
    pub fn is_last_reference(&self) -> bool {
        let count: Option<u64> = read(self.file, config!(offsets.file_count));
        count == Some(u64::from(config!(offsets.file_count_one)))
    }

    /// Both ends.
    #[inline(always)]
    pub fn addresses(&self) -> Addresses {
        let mut addresses = Addresses {
            family: self.family,
            ..Addresses::default()
        };
        if self.family == AF_UNIX {
            return addresses;
        }
        addresses.local_port = read(self.sk, config!(offsets.sk_num)).unwrap_or(0);
        addresses.peer_port = u16::from_be(read(self.sk, config!(offsets.sk_dport)).unwrap_or(0));
        if self.family == AF_INET {
            let local: [u8; 4] = read(self.sk, config!(offsets.sk_rcv_saddr)).unwrap_or([0; 4]);
            let peer: [u8; 4] = read(self.sk, config!(offsets.sk_daddr)).unwrap_or([0; 4]);
            addresses.local[..4].copy_from_slice(&local);
            addresses.peer[..4].copy_from_slice(&peer);
        } else {
            addresses.local = read(self.sk, config!(offsets.sk_v6_rcv_saddr)).unwrap_or([0; 16]);
            addresses.peer = read(self.sk, config!(offsets.sk_v6_daddr)).unwrap_or([0; 16]);
        }
        addresses
    }
}
