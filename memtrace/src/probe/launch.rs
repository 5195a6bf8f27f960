//! Starting a command that is traced from its first instruction.
//!
//! The child waits before it becomes the command until its probes are in
//! place; it still has this program's memory map then, so the C library that it
//! will most likely use is found in it.
#![allow(unsafe_code)]

use std::{
    ffi::OsString,
    io::{self, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::{Child, Command},
    thread::JoinHandle,
};

/// A child that waits to become the command.
pub struct Waiting {
    /// Its process id.
    pub pid: u32,
    go: io::PipeWriter,
    spawning: JoinHandle<io::Result<Child>>,
}

impl Waiting {
    /// Forks the child. It waits until [`Waiting::start`].
    ///
    /// # Errors
    /// The fork failed.
    pub fn new(command: &[OsString]) -> io::Result<Waiting> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let (mut pid_reader, pid_writer) = io::pipe()?;
        let (go_reader, go_writer) = io::pipe()?;
        let go_fd = go_writer.as_raw_fd();
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: between fork and exec only async-signal-safe calls are made:
        // getpid, close, write and read on inherited descriptors.
        unsafe {
            command.pre_exec(move || {
                // The child's own copy would keep the pipe open for ever if
                // memtrace went away.
                libc::close(go_fd);
                let pid = libc::getpid().to_ne_bytes();
                let mut byte = 0u8;
                let written = libc::write(pid_writer.as_raw_fd(), pid.as_ptr().cast(), pid.len());
                if written != pid.len() as isize {
                    return Err(io::Error::last_os_error());
                }
                match libc::read(go_reader.as_raw_fd(), (&raw mut byte).cast(), 1) {
                    1 => Ok(()),
                    // memtrace is gone: there is nothing to run for.
                    0 => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        // `spawn` returns only when the child has become the command (or
        // failed to), so it waits in a thread of its own.
        let spawning = std::thread::spawn(move || command.spawn());
        let mut pid = [0u8; 4];
        match pid_reader.read_exact(&mut pid) {
            Ok(()) => Ok(Waiting {
                pid: u32::from_ne_bytes(pid),
                go: go_writer,
                spawning,
            }),
            Err(error) => Err(match spawning.join() {
                Ok(Err(error)) => error,
                Ok(Ok(_)) | Err(_) => error,
            }),
        }
    }

    /// Lets the child become the command.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn start(self) -> io::Result<Child> {
        let Waiting {
            pid: _,
            mut go,
            spawning,
        } = self;
        go.write_all(b"g")?;
        drop(go);
        spawning
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
    }
}
