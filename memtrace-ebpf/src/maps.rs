//! The maps, and the state that pairs a call's entry with its return.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use memtrace_common::{
    config::{Config, Target},
    limits::{FUTEXES_MAX, PROCESSES_MAX, RING_BYTES, SYSCALLS_MAX, THREADS_MAX},
    loss::Loss,
};

use crate::rustls::RustlsState;

/// Written by the collector before the programs are loaded, read-only after.
#[unsafe(no_mangle)]
static CONFIG: Config = Config {
    offsets: memtrace_common::config::KernelOffsets {
        task_pid: 0,
        task_tgid: 0,
        task_start_boottime: 0,
        task_group_leader: 0,
        task_signal: 0,
        task_files: 0,
        signal_live: 0,
        files_fdt: 0,
        fdtable_max_fds: 0,
        fdtable_fd: 0,
        file_inode: 0,
        file_private_data: 0,
        file_count: 0,
        file_count_one: 0,
        inode_mode: 0,
        inode_ino: 0,
        socket_type: 0,
        socket_sk: 0,
        sk_family: 0,
        sk_daddr: 0,
        sk_rcv_saddr: 0,
        sk_dport: 0,
        sk_num: 0,
        sk_v6_daddr: 0,
        sk_v6_rcv_saddr: 0,
        task_fsbase: 0,
        inode_pipe: 0,
        pipe_head: 0,
        pipe_tail: 0,
        file_flags: 0,
        file_dentry: 0,
        dentry_name: 0,
        eventfd_count: 0,
        eventfd_id: 0,
        sock_queued: 0,
        sock_socket: 0,
        socket_inode: 0,
        unix_peer: 0,
        unix_name: 0,
    },
    follow_children: 0,
    collector_pid: 0,
};

/// Reads one field of the configuration. Volatile, since the compiler must not
/// take the zeros above for the values.
macro_rules! config {
    ($($field:ident).+) => {
        unsafe { core::ptr::read_volatile(&raw const (*$crate::maps::config_ptr()).$($field).+) }
    };
}
pub(crate) use config;

/// Reads a member of a map value. What comes out of a map may be anything to the
/// verifier, which so goes through what follows once instead of once for every
/// way that leads to it.
macro_rules! get {
    ($value:ident.$member:ident) => {
        // SAFETY: a map value outlives the program's run.
        unsafe { (&raw const (*$value).$member).read_volatile() }
    };
}
pub(crate) use get;

/// Writes a member of a map value.
macro_rules! set {
    ($value:ident.$member:ident = $to:expr) => {{
        let to = $to;
        // SAFETY: a map value outlives the program's run.
        unsafe { (&raw mut (*$value).$member).write_volatile(to) }
    }};
}
pub(crate) use set;

/// The configuration's address, for [`config!`].
#[inline(always)]
pub fn config_ptr() -> *const Config {
    &raw const CONFIG
}

/// Records for the collector.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Traced processes, by process id.
#[map]
pub static TARGETS: HashMap<u32, Target> =
    HashMap::with_max_entries(PROCESSES_MAX, BPF_F_NO_PREALLOC);

/// Watched system calls: `WatchedCall` by system call number, 0 for the rest.
#[map]
pub static SYSCALLS: Array<u32> = Array::with_max_entries(SYSCALLS_MAX, 0);

/// The programs that go on where one ends: together they would be too much for
/// the verifier of a 6.1 kernel.
#[map]
pub static NEXT: ProgramArray = ProgramArray::with_max_entries(5, 0);

/// The same for probes of functions: one array holds programs of one kind.
#[map]
pub static NEXT_PROBE: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Number of traced processes whose runtime contexts are read: with none, an
/// allocation need not look for its process's entry.
#[map]
pub static CONTEXTS: Array<u32> = Array::with_max_entries(1, 0);

/// What each traced thread is in the middle of, by thread id.
#[map]
pub static THREADS: HashMap<u32, ThreadState> =
    HashMap::with_max_entries(THREADS_MAX, BPF_F_NO_PREALLOC);

/// Futexes that a thread was seen to sleep at, by process and address: whoever
/// wakes at another one wakes nobody of interest (mostly, it unlocks a mutex).
#[map]
pub static FUTEXES: LruHashMap<[u64; 2], u8> = LruHashMap::with_max_entries(FUTEXES_MAX, 0);

/// Events lost, by [`Loss`].
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// What one thread is in the middle of.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ThreadState {
    pub alloc: PendingAlloc,
    pub call: PendingCall,
    pub tls: PendingTls,
    pub moved: Moved,
    /// Not 0: a socket record was emitted since the last Wait record.
    pub active: u64,
    /// The CPython thread state of this thread, once it was seen to run; 0
    /// before.
    pub python: u64,
    /// The CPython context stated last.
    pub context: u64,
    /// What the runtime counted when it was entered; [`ANEW`]: it is to be
    /// stated again.
    pub entered: u64,
    /// The greenlet stated last.
    pub greenlet: u64,
    /// The task of tokio's that it polls; 0: none.
    pub task: u64,
    /// The goroutine stated last; 0 if none was.
    pub goroutine: u64,
    /// One more than what its runtime's counter said last; 0 if it said nothing.
    pub counted: u64,
    /// Not 0: it has taken part in a connection or was woken for work.
    pub takes_part: u64,
    /// Where it was stated to sleep; 0 if it has done anything else since.
    pub slept_at: u64,
    pub node: NodeState,
    pub rustls: RustlsState,
}

/// What is known of the resources of a thread's Node environment.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NodeState {
    /// Where their numbers are; 0: the thread has none that are read.
    pub ids_at: u64,
    /// The number of the newest that was stated.
    pub made: u64,
    /// The one whose callback ran last, as long as its continuations may run.
    pub cause: u64,
    /// Not 0: callbacks run one after the other, each with its continuations.
    pub in_row: u64,
    /// Its queue of jobs; 0: it has none that is read.
    pub jobs_at: u64,
    /// Number of the next job, as far as was stated.
    pub jobs_made: u64,
    /// Not 0: jobs run.
    pub jobs_run: u64,
    /// How many had run when none did any more.
    pub jobs_done: u64,
    /// Not 0: some have run unseen, and none is told apart any more.
    pub jobs_lost: u64,
}

/// No runtime counts this far: the context is stated again.
pub const ANEW: u64 = u64::MAX;

/// The outermost allocator call that has not returned.
///
/// One slot is enough: whatever is called inside it has a lower stack pointer
/// and does not count, and only a return at exactly its stack pointer ends it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingAlloc {
    /// Stack pointer at entry; 0 if no call is pending.
    pub sp: u64,
    /// The old block, or where the result is stored.
    pub pointer: u64,
    /// Requested bytes.
    pub size: u64,
    /// Entry time, ns; taken only where an old block is given up.
    pub entry_ns: u64,
    /// `AllocCall` by wire id.
    pub call: u32,
    /// Calls seen inside it.
    pub nested: u32,
}

/// The libc socket function that has not returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingCall {
    /// Its arguments.
    pub args: [u64; 4],
    /// `WatchedCall` by wire id; 0 if none is pending.
    pub call: u64,
}

/// The outermost call into a TLS library that has not returned. One slot is
/// enough, as for allocator calls.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingTls {
    /// Stack pointer at entry; 0 if no call is pending.
    pub sp: u64,
    /// The session object.
    pub session: u64,
    /// The plaintext's buffer; 0: it has none.
    pub buffer: u64,
    /// Where the number of bytes is stored.
    pub out: u64,
    /// `TlsCall` by wire id.
    pub call: u32,
    /// Calls seen inside it.
    pub nested: u32,
    /// The descriptor of the stream socket on which bytes were last moved
    /// inside it; -1: none.
    pub fd: i32,
    /// Not 0: the thread has received on a stream socket since its last call to
    /// take in TLS records. Outlasts the call.
    pub received: u32,
}

/// The bytes that a call of the thread has moved, between the program that saw
/// the call and the one that states them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Moved {
    /// The inode number of the socket, or the address of the TLS session.
    pub stream: u64,
    /// Where the bytes are in the process; 0: they never were, or are in several
    /// buffers.
    pub buffer: u64,
    /// The array of `count` buffers; 0: there is one at most. Both, and `len`,
    /// change from part to part as they are stated.
    pub array: u64,
    pub count: u64,
    pub len: u64,
    /// Bytes in the buffers that come after.
    pub left: u64,
    /// Where the walk over frames stands in the present buffer, and where that
    /// ends; the part under way begins at `buffer`.
    pub at: u64,
    pub end: u64,
    /// Where the bytes of that part that are kept end.
    pub kept: u64,
    pub fd: i32,
    /// `Kind` by wire id.
    pub kind: u16,
    /// `FLAG_IN_TLS_CALL`: a TLS library has moved them, and what they say is
    /// stated as plaintext. `FLAG_TLS`: they are plaintext.
    pub flags: u16,
}

static EMPTY: ThreadState = ThreadState {
    alloc: PendingAlloc {
        sp: 0,
        pointer: 0,
        size: 0,
        entry_ns: 0,
        call: 0,
        nested: 0,
    },
    call: PendingCall {
        args: [0; 4],
        call: 0,
    },
    tls: PendingTls {
        sp: 0,
        session: 0,
        buffer: 0,
        out: 0,
        call: 0,
        nested: 0,
        fd: -1,
        received: 0,
    },
    moved: Moved {
        stream: 0,
        buffer: 0,
        array: 0,
        count: 0,
        len: 0,
        left: 0,
        at: 0,
        end: 0,
        kept: 0,
        fd: -1,
        kind: 0,
        flags: 0,
    },
    active: 0,
    python: 0,
    context: 0,
    entered: 0,
    greenlet: 0,
    task: 0,
    goroutine: 0,
    counted: 0,
    takes_part: 0,
    slept_at: 0,
    node: NodeState {
        ids_at: 0,
        made: 0,
        cause: 0,
        in_row: 0,
        jobs_at: 0,
        jobs_made: 0,
        jobs_run: 0,
        jobs_done: 0,
        jobs_lost: 0,
    },
    rustls: RustlsState::NONE,
};

/// Process and thread id of the current task.
#[inline(always)]
pub fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// Whether the process is traced: every probe of it is in place.
#[inline(always)]
pub fn is_target(pid: u32) -> bool {
    // SAFETY: an entry is replaced or removed only with its process or program.
    unsafe { TARGETS.get(pid) }.is_some_and(|target| target.begun != 0)
}

/// Whether the process is traced or is about to be.
#[inline(always)]
pub fn is_known(pid: u32) -> bool {
    TARGETS.get_ptr(pid).is_some()
}

/// The thread's state, made on its first use.
#[inline(always)]
pub fn thread_state(tid: u32) -> Option<&'static mut ThreadState> {
    if let Some(state) = existing_thread_state(tid) {
        return Some(state);
    }
    // Another program of the same thread cannot have been faster: a thread
    // runs one probe at a time.
    // By reference: the stack has no room for one.
    let empty: &ThreadState = &EMPTY;
    if THREADS.insert(tid, empty, u64::from(BPF_NOEXIST)).is_err() {
        lost(Loss::ThreadsFull);
        return None;
    }
    existing_thread_state(tid)
}

/// The thread's state, if it has one.
#[inline(always)]
pub fn existing_thread_state(tid: u32) -> Option<&'static mut ThreadState> {
    // SAFETY: a map value lives until the entry is deleted, which happens only
    // when its thread exits; only programs run by that thread touch it.
    THREADS.get_ptr_mut(tid).map(|state| unsafe { &mut *state })
}

/// Counts one event that will not be seen.
#[inline(always)]
pub fn lost(cause: Loss) {
    if let Some(counter) = LOST.get_ptr_mut(cause as u32) {
        // SAFETY: per-CPU value. A preempting program may lose one count of
        // two that meet here; the cause stays non-zero.
        unsafe { *counter += 1 };
    }
}
