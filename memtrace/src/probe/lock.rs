//! One memtrace for each process: a second one would double its cost.
//!
//! The lock is an abstract unix socket named after the process: it exists as
//! long as its holder, however that ends, and leaves nothing behind.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use crate::id::ProcessId;

/// Held while a process is traced.
#[derive(Debug)]
pub struct Lock {
    _listener: UnixListener,
}

/// Takes the lock of a process; `None` if another memtrace holds it.
///
/// # Errors
/// The socket cannot be made for another reason.
pub fn acquire(process: ProcessId) -> io::Result<Option<Lock>> {
    let name = format!("memtrace/{}/{}", process.pid, process.start_ns);
    let address = SocketAddr::from_abstract_name(name)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Some(Lock {
            _listener: listener,
        })),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_locked_once_until_its_holder_is_gone() {
        let process = ProcessId {
            pid: std::process::id(),
            start_ns: 77,
        };
        let held = acquire(process).expect("bind").expect("free");
        assert!(acquire(process).expect("bind").is_none());
        drop(held);
        assert!(acquire(process).expect("bind").is_some());
    }
}
