//! Identities. A bare number identifies nothing: pids are reused, descriptors
//! are reused, so each identity carries what makes it unique.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process: its id in the initial PID namespace and when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id (tgid).
    pub pid: u32,
    /// Start time, ns since boot, rounded down to the kernel's clock tick
    /// (10 ms), which is what `/proc/PID/stat` field 22 can tell.
    pub start_ns: u64,
}

impl ProcessId {
    /// The kernel's USER_HZ tick on every supported architecture, in ns.
    pub const TICK_NS: u64 = 10_000_000;

    /// An identity from an exact start time.
    pub fn new(pid: u32, start_boottime_ns: u64) -> Self {
        ProcessId {
            pid,
            start_ns: start_boottime_ns / Self::TICK_NS * Self::TICK_NS,
        }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)
    }
}

/// A socket, by the inode number of its open file: shared by every descriptor
/// and process that holds it, and visible as `socket:[N]` in `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SocketId(pub u64);

/// Bytes in order, both ways: what a protocol is spoken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StreamId {
    /// A socket.
    Socket(SocketId),
    /// The plaintext of a TLS session, by the address of the library's session
    /// object in the process that the event names.
    Tls(u64),
}

/// A connection, numbered in the order in which the trace met them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnId(pub u32);

/// A request, numbered in the order in which their first bytes arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u32);

/// A stretch of work of one thread, the unit in which allocations are
/// attributed: whatever is learnt later settles the whole stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkId(pub u32);
