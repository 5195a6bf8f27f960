//! A mapped file that something was found in, held open until its probes are in place.

use std::{fs::File, os::fd::AsRawFd as _, path::PathBuf, sync::Arc};

use super::maps::FileIdentity;

/// A mapped file, and what is in it.
#[derive(Clone, Debug)]
pub struct ProbedObject<F> {
    /// Which file, as the process's memory map shows it.
    pub file: FileIdentity,
    /// Its path inside the process's root.
    pub path: PathBuf,
    /// What is in it.
    pub facts: F,
    handle: Arc<File>,
}

impl<F> ProbedObject<F> {
    /// A file, by the handle through which it was examined.
    pub fn new(file: FileIdentity, path: PathBuf, facts: F, handle: Arc<File>) -> Self {
        ProbedObject {
            file,
            path,
            facts,
            handle,
        }
    }

    /// The path to hand to the kernel when attaching, valid in this process as
    /// long as this object lives.
    pub fn attach_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }
}
