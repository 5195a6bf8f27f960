//! The Java server on the JDK's own HTTP server, and what its runtime says that its
//! handlers have allocated.
//!
//! In: how many threads answer. Out: a running server; requests and bytes of each
//! path. Deliberately not here: anything that memtrace says.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::bail;
use serde::Deserialize;
use tempfile::TempDir;

use crate::client;
use crate::paths;
use crate::process::Running;
use crate::server::{Server, free_port};

/// What the server counts of one path.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
pub struct Counted {
    /// Requests answered.
    pub requests: u64,
    /// Bytes that its handlers' threads have allocated in them.
    pub alloc_bytes: u64,
}

/// Compiles the server and starts it with a pool of so many threads.
///
/// # Errors
/// It does not compile or does not start.
pub fn start(threads: usize) -> anyhow::Result<Server> {
    let directory = TempDir::new()?;
    let mut compile = Command::new("javac");
    compile
        .arg("-d")
        .arg(directory.path())
        .arg(paths::program_source("java/AllocServer.java"));
    let status = Running::start("javac", &mut compile)?.wait()?;
    if !status.success() {
        bail!("javac ended with {status}");
    }
    let port = free_port()?;
    let mut command = Command::new("java");
    command
        .arg("-Dsun.net.httpserver.nodelay=true")
        .arg("-cp")
        .arg(directory.path())
        .args(["AllocServer", &port.to_string(), &threads.to_string()]);
    Server::start("java", command, directory, port, None)
}

/// The server's own counts by path.
///
/// # Errors
/// It does not answer.
pub fn counted(server: &Server) -> anyhow::Result<BTreeMap<String, Counted>> {
    Ok(serde_json::from_slice(&client::get_body(
        server.port(),
        "/counts",
    )?)?)
}
