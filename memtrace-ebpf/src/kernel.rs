//! Reading kernel structures, at the offsets that the collector resolved from
//! the running kernel's BTF.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};
use memtrace_common::event::Addresses;

use crate::maps::config;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// An open stream socket of the current process.
#[derive(Clone, Copy)]
pub struct StreamSocket {
    pub inode: u64,
    file: u64,
    sk: u64,
    family: u16,
}

/// Reads a `T` in kernel memory.
#[inline(always)]
pub fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address; `T` is plain data here.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// The socket behind a descriptor of the current process, if it is a TCP or
/// unix stream socket.
///
/// `current->files->fdt->fd[fd]->f_inode`, as `fcheck` walks it (fs/file.c).
#[inline(always)]
pub fn stream_socket(fd: i32) -> Option<StreamSocket> {
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
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket: u64 = read(file, config!(offsets.file_private_data))?;
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
        inode: read(inode, config!(offsets.inode_ino))?,
        file,
        sk,
        family,
    })
}

impl StreamSocket {
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
