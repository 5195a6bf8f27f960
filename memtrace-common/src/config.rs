//! What the collector tells the kernel programs before they start.

/// Offsets into kernel structures, in bytes, resolved from the running
/// kernel's BTF by the collector (the kernel programs carry no relocations of
/// their own, so that one object serves every kernel).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelOffsets {
    /// `task_struct.pid` (the thread's id).
    pub task_pid: u32,
    /// `task_struct.tgid` (the process's id).
    pub task_tgid: u32,
    /// `task_struct.start_boottime`, ns since boot (5.5 and later).
    pub task_start_boottime: u32,
    /// `task_struct.group_leader`.
    pub task_group_leader: u32,
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `task_struct.files`.
    pub task_files: u32,
    /// `signal_struct.live` (threads not yet exited).
    pub signal_live: u32,
    /// `files_struct.fdt`.
    pub files_fdt: u32,
    /// `fdtable.max_fds`.
    pub fdtable_max_fds: u32,
    /// `fdtable.fd`.
    pub fdtable_fd: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `file.private_data` (the `struct socket` of a socket).
    pub file_private_data: u32,
    /// `file.f_count` (up to 6.12) or `file.f_ref` (since 6.13).
    pub file_count: u32,
    /// What `file_count` holds when this descriptor is the last reference:
    /// 1 for `f_count`, 0 for `f_ref` (`FILE_REF_ONEREF`).
    pub file_count_one: u32,
    /// `inode.i_mode`.
    pub inode_mode: u32,
    /// `inode.i_ino`.
    pub inode_ino: u32,
    /// `socket.type`.
    pub socket_type: u32,
    /// `socket.sk`.
    pub socket_sk: u32,
    /// `sock_common.skc_family`.
    pub sk_family: u32,
    /// `sock_common.skc_daddr` (IPv4 peer).
    pub sk_daddr: u32,
    /// `sock_common.skc_rcv_saddr` (IPv4 local).
    pub sk_rcv_saddr: u32,
    /// `sock_common.skc_dport` (network order).
    pub sk_dport: u32,
    /// `sock_common.skc_num` (local port, host order).
    pub sk_num: u32,
    /// `sock_common.skc_v6_daddr`.
    pub sk_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`.
    pub sk_v6_rcv_saddr: u32,
    /// `task_struct.thread.fsbase` on x86-64: the thread's own `pthread_t`. 0
    /// where there is no such member.
    pub task_fsbase: u32,
    /// `inode.i_pipe`.
    pub inode_pipe: u32,
    /// `pipe_inode_info.head` (5.5 and later), a 32-bit position.
    pub pipe_head: u32,
    /// `pipe_inode_info.tail`.
    pub pipe_tail: u32,
    /// `file.f_flags`.
    pub file_flags: u32,
    /// `file.f_path.dentry`.
    pub file_dentry: u32,
    /// `dentry.d_name.name`.
    pub dentry_name: u32,
    /// `eventfd_ctx.count`, 64 bits; 0 if the kernel has no event descriptors.
    pub eventfd_count: u32,
    /// `eventfd_ctx.id` (5.2 and later); 0 like its neighbour.
    pub eventfd_id: u32,
    /// `sock.sk_receive_queue.qlen`.
    pub sock_queued: u32,
    /// `sock.sk_socket`.
    pub sock_socket: u32,
    /// `socket_alloc.vfs_inode`: a socket's inode lies behind it.
    pub socket_inode: u32,
    /// `unix_sock.peer`; 0 if the kernel has unix sockets in a module.
    pub unix_peer: u32,
    /// `unix_sock.addr`, null for a socket without a name; 0 like its neighbour.
    pub unix_name: u32,
}

/// The kernel programs' configuration, one read-only global.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where to find things in this kernel.
    pub offsets: KernelOffsets,
    /// 1 if children of traced processes are traced too.
    pub follow_children: u32,
    /// The collector's own process id: never traced.
    pub collector_pid: u32,
}

/// What the kernel programs know of a traced process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// 1: what its threads do is stated; 0: its probes are still being put in
    /// place, and what it does meanwhile would be known by half.
    pub begun: u32,
    /// Set to 1 by the kernel programs when they meet a callback of Node where its
    /// resource's number is not what it should be.
    pub node_unread: u32,
    /// Where the process keeps the address of the running CPython thread
    /// state; 0 if its contexts are not read.
    pub thread_state_at: u64,
    /// `PyThreadState.context`, bytes into the thread state; `context_ver`
    /// follows it.
    pub context_offset: u32,
    /// `PyThreadState.thread_id`, bytes into the thread state.
    pub thread_id_offset: u32,
    /// First address of the runtime's own futexes, which put its threads in
    /// turn and hand no work over (CPython: the GIL, in `_PyRuntime`).
    pub locks_from: u64,
    /// End of that range; at or below its start: there is none.
    pub locks_until: u64,
    /// What there is to know of a Go program's runtime.
    pub go: GoTarget,
    /// Where Java threads count what they allocate.
    pub jvm: JvmTarget,
    /// Where PHP keeps the heap of its request.
    pub php: PhpTarget,
}

/// Where a Go program's runtime keeps what tells its goroutines apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoTarget {
    /// Address of `runtime.mallocgc` in the process.
    pub malloc_start: u64,
    /// Address of the first byte behind it.
    pub malloc_end: u64,
    /// `g.goid`, bytes into a g; 0: this is no Go program.
    pub goid: u16,
    /// `g.parentGoid`, bytes into a g; 0: this version has none.
    pub parent_goid: u16,
    /// `m.curg`, bytes into an m.
    pub curg: u16,
    /// How far below a thread's own base the running g's address is kept, bytes;
    /// 0: not known.
    pub g_below_base: u16,
}

const _: () = assert!(size_of::<GoTarget>() == 24);

/// Where the threads of a Java virtual machine (HotSpot) count what they
/// allocate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JvmTarget {
    /// Where a thread keeps the address of its `JavaThread`, bytes from its
    /// `pthread_t`; 0: counters are not read.
    pub java_thread: u32,
    /// `_osthread`, bytes into a `JavaThread`.
    pub os_thread: u32,
    /// `OSThread::_pthread_id`.
    pub pthread_id: u32,
    /// `_allocated_bytes`, bytes into a `JavaThread`: without the open buffer.
    pub allocated: u32,
    /// `_tlab._start`, bytes into a `JavaThread`: the open buffer.
    pub buffer_start: u32,
    /// `_tlab._top`, bytes into a `JavaThread`: how far it is used.
    pub buffer_top: u32,
    /// `_cont_entry`, bytes into a `JavaThread`: not null while it carries a
    /// virtual thread. 0: there are no virtual threads.
    pub continuation: u32,
    /// Set to 1 by the kernel programs when they meet a thread that carries a
    /// virtual thread.
    pub carriers_met: u32,
    /// Bytes of a `JavaThread`, in which is the `Parker` where it waits until the
    /// program wakes it; 0: it is not known where it waits for what.
    pub java_thread_bytes: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where PHP (without threads) keeps the heap of the request that it serves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhpTarget {
    /// Address of the pointer to the heap; 0: it is not read.
    pub heap_at: u64,
    /// Bytes in use, bytes into the heap.
    pub size: u32,
    /// Most bytes in use since the request began, bytes into the heap.
    pub peak: u32,
}

const _: () = assert!(size_of::<JvmTarget>() == 40);
const _: () = assert!(size_of::<PhpTarget>() == 16);
const _: () = assert!(size_of::<Target>() == 120);
const _: () = assert!(size_of::<KernelOffsets>() == 156);
const _: () = assert!(size_of::<Config>() == 164);
