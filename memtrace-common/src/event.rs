//! The records in the ring, as the kernel programs write them.
//!
//! Every record opens with a [`Header`]. All fields are in the machine's byte
//! order; the collector runs on the same machine, captures have their own
//! encoding. Kinds have fixed wire ids; a retired one leaves a hole.

use crate::limits::{PAYLOAD_HEAD, PAYLOAD_SMALL, TAIL};

/// What a record is.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`AllocRecord`]: a block was handed out.
    Alloc = 1,
    /// [`FreeRecord`]: a block is about to be taken back.
    Free = 2,
    /// [`ReallocRecord`]: a block was replaced by another.
    Realloc = 3,
    /// [`SocketRecord`]: accept returned a connection.
    Accept = 4,
    /// [`SocketRecord`]: connect was called (it may complete later).
    Connect = 5,
    /// [`DataRecord`]: bytes were received on a stream socket (length 0: the
    /// peer closed its side).
    Recv = 6,
    /// [`DataRecord`]: bytes were sent on a stream socket.
    Send = 7,
    /// [`SocketRecord`]: shutdown of one or both directions.
    Shutdown = 8,
    /// [`SocketRecord`]: a descriptor of the socket was closed.
    Close = 9,
    /// [`WaitRecord`]: a thread that had socket activity since its last such
    /// record begins to wait for events.
    Wait = 10,
    /// [`TaskRecord`]: a thread or process was created.
    Fork = 11,
    /// [`TaskRecord`]: a process replaced its program.
    Exec = 12,
    /// [`TaskRecord`]: a thread ended.
    Exit = 13,
    /// [`Header`] alone: a process mapped a file executable.
    Mapped = 14,
    /// [`TaskRecord`]: a process moved to another cgroup.
    CgroupMove = 15,
    /// [`SocketRecord`]: a socket call failed for good (reset, broken pipe);
    /// `how` holds the error number.
    SocketError = 16,
    /// [`ContextRecord`]: the thread now runs in this context of its language
    /// runtime (CPython's contextvars context).
    Context = 17,
    /// [`ContextRecord`]: the thread has made this context for work that it
    /// starts on behalf of another context, its own if none is named.
    ContextMade = 18,
    /// [`HandoverRecord`]: the thread is about to wake whoever waits for the key;
    /// with amount 0: what it had just stated has not happened.
    Wake = 19,
    /// [`HandoverRecord`]: the thread is about to wait for the key.
    Sleep = 20,
    /// [`HandoverRecord`]: the thread's wait for the key ended because it was
    /// woken.
    Woken = 21,
    /// [`CounterRecord`]: what a runtime's own counter says.
    Counter = 22,
    /// [`ManagedAllocRecord`]: a runtime with a garbage collector handed out a
    /// block; neither its address nor its end is seen.
    ManagedAlloc = 23,
    /// [`TlsRecord`]: a TLS session is over; its address may be used again.
    TlsEnd = 24,
    /// [`ContextRecord`]: a context is gone; what identified it may be used
    /// again.
    ContextEnd = 25,
    /// [`TlsRecord`]: the thread's first call to take in TLS records after it
    /// had received on a stream socket returned, and no plaintext came of it.
    TlsCall = 26,
}

impl Kind {
    /// The kind with this wire id, if there is one.
    pub const fn from_wire(id: u16) -> Option<Kind> {
        Some(match id {
            1 => Kind::Alloc,
            2 => Kind::Free,
            3 => Kind::Realloc,
            4 => Kind::Accept,
            5 => Kind::Connect,
            6 => Kind::Recv,
            7 => Kind::Send,
            8 => Kind::Shutdown,
            9 => Kind::Close,
            10 => Kind::Wait,
            11 => Kind::Fork,
            12 => Kind::Exec,
            13 => Kind::Exit,
            14 => Kind::Mapped,
            15 => Kind::CgroupMove,
            16 => Kind::SocketError,
            17 => Kind::Context,
            18 => Kind::ContextMade,
            19 => Kind::Wake,
            20 => Kind::Sleep,
            21 => Kind::Woken,
            22 => Kind::Counter,
            23 => Kind::ManagedAlloc,
            24 => Kind::TlsEnd,
            25 => Kind::ContextEnd,
            26 => Kind::TlsCall,
            _ => return None,
        })
    }
}

/// Header flag of a [`DataRecord`]: further parts of the same call follow.
pub const FLAG_MORE: u16 = 1;
/// Header flag of a [`DataRecord`]: the payload could not be read.
pub const FLAG_UNREADABLE: u16 = 2;
/// Header flag of a Close [`SocketRecord`]: it was the last reference.
pub const FLAG_LAST: u16 = 4;
/// Header flag of a Fork or Exit [`TaskRecord`]: it concerns the whole process
/// (fork: a new process, not a thread; exit: no thread is left).
pub const FLAG_PROCESS: u16 = 8;
/// Header flag of a Fork [`TaskRecord`]: the new process is traced as well.
pub const FLAG_FOLLOWED: u16 = 16;
/// Header flag of a [`DataRecord`]: plaintext of a TLS session; `inode` holds
/// the session's address in the process, `fd` the descriptor of the stream
/// socket on which the TLS call itself moved bytes last, -1 if it used none.
pub const FLAG_TLS: u16 = 32;
/// Header flag of a [`DataRecord`] of a socket: moved by a call into a TLS
/// library, and no payload is recorded.
pub const FLAG_IN_TLS_CALL: u16 = 64;

/// Header flag of a Wake [`HandoverRecord`]: nothing was there to be read before.
pub const FLAG_EMPTY: u16 = 64;

/// Opens every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// CLOCK_MONOTONIC, ns.
    pub ts_ns: u64,
    /// Process id (tgid) in the initial PID namespace.
    pub pid: u32,
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// [`Kind`], by wire id.
    pub kind: u16,
    /// `FLAG_*`.
    pub flags: u16,
    /// Padding.
    pub reserved: u32,
}

/// A block was handed out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocRecord {
    /// Kind `Alloc`.
    pub header: Header,
    /// The block's address.
    pub addr: u64,
    /// Requested bytes.
    pub size: u64,
}

/// A block is about to be taken back (recorded before its address can be
/// handed out again).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreeRecord {
    /// Kind `Free`.
    pub header: Header,
    /// The block's address, never 0.
    pub addr: u64,
}

/// A successful reallocation of an existing block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReallocRecord {
    /// Kind `Realloc`; the time is the call's return.
    pub header: Header,
    /// The block given up.
    pub old: u64,
    /// The block obtained (may equal `old`; 0: `old` was only freed, as glibc
    /// does for size 0).
    pub addr: u64,
    /// Requested bytes.
    pub size: u64,
    /// Time from the call's entry to its return, ns: within it the old address
    /// may already have been handed out to another thread.
    pub elapsed_ns: u64,
}

/// Both ends of a socket. IPv4 addresses take the first four bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Address family: AF_UNIX 1, AF_INET 2, AF_INET6 10.
    pub family: u16,
    /// Local port, host order.
    pub local_port: u16,
    /// Peer port, host order.
    pub peer_port: u16,
    /// Padding.
    pub reserved: u16,
    /// Local address, network order.
    pub local: [u8; 16],
    /// Peer address, network order.
    pub peer: [u8; 16],
}

/// Something happened to a socket that moved no bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketRecord {
    /// Kind `Accept`, `Connect`, `Shutdown`, `Close` or `SocketError`.
    pub header: Header,
    /// The socket's inode number: its identity for as long as it exists,
    /// whichever descriptors and processes hold it.
    pub inode: u64,
    /// The descriptor used.
    pub fd: i32,
    /// Shutdown: SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2. Error: the positive errno.
    pub how: u32,
    /// Both ends (Accept and Connect; else zero).
    pub addresses: Addresses,
}

/// One part of the bytes that a call moved; `N` is the room for the payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRecord<const N: usize> {
    /// Everything but the payload.
    pub head: DataHead,
    /// The part's first bytes; `head.payload_len` of them are valid.
    pub payload: [u8; N],
}

/// A [`DataRecord`] without its payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataHead {
    /// Kind `Recv` or `Send`.
    pub header: Header,
    /// The socket's inode number.
    pub inode: u64,
    /// Bytes moved in this part.
    pub len: u64,
    /// Where received bytes were put; 0: nowhere in the process, or that is not
    /// known, or they were sent.
    pub buffer: u64,
    /// The descriptor used.
    pub fd: i32,
    /// Valid payload bytes, at most the record's room.
    pub payload_len: u32,
    /// The part's last bytes, valid if `payload_len` is less than `len` and
    /// `len` is at least [`TAIL`] and `tail_len` is [`TAIL`].
    pub tail: [u8; TAIL],
    /// Valid tail bytes: 0 or [`TAIL`].
    pub tail_len: u32,
    /// Padding.
    pub reserved: u32,
}

/// A part of at most a few bytes of interest.
pub type DataTiny = DataRecord<64>;
/// A part that does not open like a message head.
pub type DataSmall = DataRecord<PAYLOAD_SMALL>;
/// A part that opens like a message head.
pub type DataLarge = DataRecord<PAYLOAD_HEAD>;

/// A thread begins to wait.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitRecord {
    /// Kind `Wait`.
    pub header: Header,
    /// [`WaitKind`], by wire id.
    pub wait: u32,
    /// Descriptors waited for (poll: nfds; select: highest plus one; epoll: 0).
    pub descriptors: u32,
}

/// How a thread waits for descriptors.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitKind {
    /// epoll_wait, epoll_pwait, epoll_pwait2.
    Epoll = 1,
    /// poll, ppoll.
    Poll = 2,
    /// select, pselect6.
    Select = 3,
    /// accept, accept4.
    Accept = 4,
}

impl WaitKind {
    /// The kind with this wire id, if there is one.
    pub const fn from_wire(id: u32) -> Option<WaitKind> {
        Some(match id {
            1 => WaitKind::Epoll,
            2 => WaitKind::Poll,
            3 => WaitKind::Select,
            4 => WaitKind::Accept,
            _ => return None,
        })
    }
}

/// A thread or process came, went, or changed its program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRecord {
    /// Kind `Fork`, `Exec`, `Exit` or `CgroupMove`.
    pub header: Header,
    /// Fork: the new process id; else the process id.
    pub child_pid: u32,
    /// Fork: the new thread id; else the thread id.
    pub child_tid: u32,
    /// Start of the (new) process, ns since boot.
    pub start_boottime_ns: u64,
}

/// A thread's context in its language runtime.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextRecord {
    /// Kind `Context`, `ContextMade` or `ContextEnd`.
    pub header: Header,
    /// What identifies the context in its process (an address, a goroutine's
    /// number); 0: none.
    pub context: u64,
    /// `ContextMade`: the context on whose behalf it was made; 0: the one in
    /// which the thread works.
    pub parent: u64,
    /// [`ContextKind`], by wire id.
    pub runtime: u32,
    /// `Context`: counts up whenever the thread enters or leaves a context,
    /// where the runtime counts that (CPython), else 0.
    pub entered: u32,
}

/// What a context is in its runtime.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContextKind {
    /// CPython's contextvars context: of an asyncio task, a callback, a call
    /// handed to a worker thread.
    Python = 1,
    /// A greenlet.
    Greenlet = 2,
    /// A goroutine, by its number.
    Goroutine = 3,
    /// A resource of Node whose callback runs, by its number and thread. Many are
    /// made at a time: `ContextMade` names the last of them, and the first as its
    /// parent.
    Node = 4,
    /// A task of tokio's, by the address of its cell.
    Task = 5,
    /// One of Node's microtasks (the continuation of a promise), by its number and
    /// thread: it runs once, from its beginning to its end. Many are made at a time,
    /// as above.
    Job = 6,
}

impl ContextKind {
    /// The kind with this wire id, if there is one.
    pub const fn from_wire(id: u32) -> Option<ContextKind> {
        Some(match id {
            1 => ContextKind::Python,
            2 => ContextKind::Greenlet,
            3 => ContextKind::Goroutine,
            4 => ContextKind::Node,
            5 => ContextKind::Task,
            6 => ContextKind::Job,
            _ => return None,
        })
    }
}

/// One thread wakes another that waits for the same key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandoverRecord {
    /// Kind `Wake`, `Sleep` or `Woken`.
    pub header: Header,
    /// See [`HandoverKind`].
    pub key: u64,
    /// [`HandoverKind`], by wire id.
    pub through: u32,
    /// `Wake` and `Woken`: how much, see [`HandoverKind`]; at most `u32::MAX` is
    /// stated. `Sleep`: 0.
    pub amount: u32,
}

/// Through what a thread wakes another.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandoverKind {
    /// A futex: its address in the process. Amount: how many threads are woken
    /// at most; 1 for the woken one, 0 if it did not even fall asleep because
    /// the futex had just been changed.
    Futex = 1,
    /// A pipe: its inode number. Amount: bytes.
    Pipe = 2,
    /// An event descriptor: the kernel's number for it. Amount: what is added to
    /// its counter, or was read from it.
    EventFd = 3,
    /// A pair of connected sockets without names: the inode number of the
    /// reading end. Amount: bytes.
    SocketPair = 4,
    /// A channel at which one of two goroutines waits: the other states `Wake`
    /// with the number of the one that it gives a value to, or `Woken` with that
    /// of the one from which it takes one. Amount: 0.
    Channel = 5,
    /// A stream of an HTTP/2 connection, by its number: the goroutine that is to
    /// answer the request on it begins, and states `Woken`. Amount: 0.
    Stream = 6,
}

impl HandoverKind {
    /// The kind with this wire id, if there is one.
    pub const fn from_wire(id: u32) -> Option<HandoverKind> {
        Some(match id {
            1 => HandoverKind::Futex,
            2 => HandoverKind::Pipe,
            3 => HandoverKind::EventFd,
            4 => HandoverKind::SocketPair,
            5 => HandoverKind::Channel,
            6 => HandoverKind::Stream,
            _ => return None,
        })
    }
}

/// What a runtime's own counter says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterRecord {
    /// Kind `Counter`.
    pub header: Header,
    /// The counter, bytes; see [`CounterKind`].
    pub value: u64,
    /// The largest value since the counter was reset, bytes, where the runtime
    /// keeps it, else 0.
    pub peak: u64,
    /// [`CounterKind`], by wire id.
    pub counter: u32,
    /// Padding.
    pub reserved: u32,
}

/// A counter that a runtime keeps.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CounterKind {
    /// Bytes that this thread has allocated since it began; never falls (JVM).
    ThreadAllocated = 1,
    /// Bytes in use in the heap of the request that this process serves (PHP).
    RequestHeap = 2,
}

impl CounterKind {
    /// The kind with this wire id, if there is one.
    pub const fn from_wire(id: u32) -> Option<CounterKind> {
        Some(match id {
            1 => CounterKind::ThreadAllocated,
            2 => CounterKind::RequestHeap,
            _ => return None,
        })
    }
}

/// A block from a heap with a garbage collector.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManagedAllocRecord {
    /// Kind `ManagedAlloc`.
    pub header: Header,
    /// Requested bytes.
    pub size: u64,
    /// Address of the runtime's description of the type; 0: none.
    pub type_address: u64,
}

/// Something about a TLS session that moved no bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsRecord {
    /// Kind `TlsEnd` or `TlsCall`.
    pub header: Header,
    /// The session's address in the process.
    pub session: u64,
    /// `TlsCall`: the descriptor of the stream socket on which the call itself
    /// moved bytes last; -1 if on none.
    pub fd: i32,
    /// `TlsCall`: the function's shape ([`TlsCall`]), by wire id.
    pub call: u32,
}

/// What an allocator function takes and returns; the attach cookie of an entry
/// probe.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllocCall {
    /// `f(size, …)` returns a block: malloc, valloc, `operator new`, mallocx.
    Size = 1,
    /// `f(count, size)` returns a block: calloc.
    CountSize = 2,
    /// `f(old, size, …)` returns a block: realloc, rallocx.
    OldSize = 3,
    /// `f(old, count, size)` returns a block: reallocarray.
    OldCountSize = 4,
    /// `f(_, size)` returns a block: memalign, aligned_alloc, heap-first forms.
    SkipSize = 5,
    /// `f(out, align, size)` returns 0 and stores the block: posix_memalign.
    OutAlignSize = 6,
    /// `f(old, size, …)` resizes in place and returns the new usable size, which
    /// is at least `size` on success: xallocx.
    ResizeInPlace = 7,
    /// `f(_, count, size)` returns a block: mi_heap_calloc.
    SkipCountSize = 8,
    /// `f(_, old, size)` returns a block: mi_heap_realloc.
    SkipOldSize = 9,
    /// `f(block, …)` takes a block back and may call another probed function
    /// to do so, which then does not count: free of an interposer.
    Release = 10,
}

impl AllocCall {
    /// The call shape with this wire id, if there is one.
    pub const fn from_wire(id: u64) -> Option<AllocCall> {
        Some(match id {
            1 => AllocCall::Size,
            2 => AllocCall::CountSize,
            3 => AllocCall::OldSize,
            4 => AllocCall::OldCountSize,
            5 => AllocCall::SkipSize,
            6 => AllocCall::OutAlignSize,
            7 => AllocCall::ResizeInPlace,
            8 => AllocCall::SkipCountSize,
            9 => AllocCall::SkipOldSize,
            10 => AllocCall::Release,
            _ => return None,
        })
    }
}

/// What a TLS library's function takes and returns; the attach cookie of an
/// entry probe. The session comes first, then the plaintext's buffer.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsCall {
    /// `f(session, buffer, …)` returns the bytes received: SSL_read,
    /// gnutls_record_recv.
    Read = 1,
    /// `f(session, buffer, …)` returns the bytes sent: SSL_write,
    /// gnutls_record_send.
    Write = 2,
    /// `f(session, buffer, size, out)` returns 1 and stores the bytes received:
    /// SSL_read_ex.
    ReadOut = 3,
    /// `f(session, buffer, size, out)` returns 1 and stores the bytes sent:
    /// SSL_write_ex.
    WriteOut = 4,
    /// `f(session, …)` returns the bytes sent, which were never in the process:
    /// SSL_sendfile.
    SendFile = 5,
    /// `f(session, …)` sends what earlier calls took and stated:
    /// gnutls_record_uncork.
    Flush = 6,
    /// `f(session)` moves no plaintext: SSL_do_handshake.
    Handshake = 7,
}

impl TlsCall {
    /// The call shape with this wire id, if there is one.
    pub const fn from_wire(id: u64) -> Option<TlsCall> {
        Some(match id {
            1 => TlsCall::Read,
            2 => TlsCall::Write,
            3 => TlsCall::ReadOut,
            4 => TlsCall::WriteOut,
            5 => TlsCall::SendFile,
            6 => TlsCall::Flush,
            7 => TlsCall::Handshake,
            _ => return None,
        })
    }
}

/// What a function of rustls takes and returns; the attach cookie of an entry
/// probe. The session comes first.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RustlsCall {
    /// `f(session, payload)` is handed the plaintext of a record.
    Received = 1,
    /// `f(session, address, length)` returns the bytes that it takes to send.
    SendSlice = 2,
    /// `f(session, chunks, …)` returns the bytes that it takes to send.
    SendChunks = 3,
    /// `f(session)` takes the session apart.
    End = 4,
}

impl RustlsCall {
    /// The call shape with this wire id, if there is one.
    pub const fn from_wire(id: u64) -> Option<RustlsCall> {
        Some(match id {
            1 => RustlsCall::Received,
            2 => RustlsCall::SendSlice,
            3 => RustlsCall::SendChunks,
            4 => RustlsCall::End,
            _ => return None,
        })
    }
}

const _: () = assert!(size_of::<Header>() == 24);
const _: () = assert!(size_of::<AllocRecord>() == 40);
const _: () = assert!(size_of::<FreeRecord>() == 32);
const _: () = assert!(size_of::<ReallocRecord>() == 56);
const _: () = assert!(size_of::<Addresses>() == 40);
const _: () = assert!(size_of::<SocketRecord>() == 80);
const _: () = assert!(size_of::<DataHead>() == 72);
const _: () = assert!(size_of::<DataTiny>() == 136);
const _: () = assert!(size_of::<WaitRecord>() == 32);
const _: () = assert!(size_of::<TaskRecord>() == 40);
const _: () = assert!(size_of::<ContextRecord>() == 48);
const _: () = assert!(size_of::<HandoverRecord>() == 40);
const _: () = assert!(size_of::<CounterRecord>() == 48);
const _: () = assert!(size_of::<ManagedAllocRecord>() == 40);
const _: () = assert!(size_of::<TlsRecord>() == 40);

/// A system call, or a libc function, that is watched, by the shape of its
/// arguments: the value of a system call's number in the kernel half's table, or
/// the attach cookie of a libc probe.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchedCall {
    /// `f(fd, buffer, length)`: read.
    Recv = 1,
    /// `f(fd, buffer, length, flags, …)`: recv, recvfrom.
    RecvFlags = 2,
    /// `f(fd, iovecs, count)`: readv.
    RecvVector = 3,
    /// `f(fd, message, flags)`: recvmsg.
    RecvMessage = 4,
    /// `f(fd, buffer, length, …)`: write, send, sendto.
    Send = 5,
    /// `f(fd, iovecs, count)`: writev.
    SendVector = 6,
    /// `f(fd, message, flags)`: sendmsg.
    SendMessage = 7,
    /// `f(out_fd, in_fd, …)`: sendfile.
    SendFile = 8,
    /// `f(in_fd, in_offset, out_fd, …)`: splice.
    Splice = 9,
    /// `f(fd, …)` returns a descriptor: accept, accept4.
    Accept = 10,
    /// `f(fd, …)`: connect.
    Connect = 11,
    /// `f(fd, how)`: shutdown.
    Shutdown = 12,
    /// `f(fd)`: close.
    Close = 13,
    /// epoll_wait, epoll_pwait, epoll_pwait2.
    WaitEpoll = 14,
    /// `f(fds, nfds, …)`: poll, ppoll.
    WaitPoll = 15,
    /// `f(highest_plus_one, …)`: select, pselect6.
    WaitSelect = 16,
    /// `f(addr, length, prot, flags, fd, offset)`: mmap.
    Map = 17,
    /// `f(addr, operation, value, …)`: futex.
    Futex = 18,
}

impl WatchedCall {
    /// The call with this wire id, if there is one.
    pub const fn from_wire(id: u32) -> Option<WatchedCall> {
        Some(match id {
            1 => WatchedCall::Recv,
            2 => WatchedCall::RecvFlags,
            3 => WatchedCall::RecvVector,
            4 => WatchedCall::RecvMessage,
            5 => WatchedCall::Send,
            6 => WatchedCall::SendVector,
            7 => WatchedCall::SendMessage,
            8 => WatchedCall::SendFile,
            9 => WatchedCall::Splice,
            10 => WatchedCall::Accept,
            11 => WatchedCall::Connect,
            12 => WatchedCall::Shutdown,
            13 => WatchedCall::Close,
            14 => WatchedCall::WaitEpoll,
            15 => WatchedCall::WaitPoll,
            16 => WatchedCall::WaitSelect,
            17 => WatchedCall::Map,
            18 => WatchedCall::Futex,
            _ => return None,
        })
    }
}
