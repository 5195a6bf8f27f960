//! What is said of Node programs whose callbacks cannot be followed.
//!
//! In: programs that look like a Node which keeps its asynchronous resources
//! otherwise. Out: the words in `doctor` and in the report, and requests that are
//! seen nevertheless. Deliberately not here: Nodes that can be followed; see
//! `live_range.rs`.

use std::fs;
use std::process::Command;

use memtrace_tests::memtrace::{Recording, exit_code, require_exit_code, run};
use memtrace_tests::programs::{UnknownNode, unknown_node};
use memtrace_tests::server::{Server, free_port};
use memtrace_tests::{client, gate};
use tempfile::TempDir;

const UNTOLD: &str = "not told apart: it keeps what it knows of its asynchronous resources \
                      otherwise";

fn start(unknown: UnknownNode) -> anyhow::Result<Server> {
    let directory = TempDir::new()?;
    // Node is known by its file's name.
    let program = directory.path().join("node");
    fs::copy(unknown_node(unknown)?, &program)?;
    let port = free_port()?;
    let mut command = Command::new(&program);
    command.arg(port.to_string());
    Server::start("a Node that is not known", command, directory, port, None)
}

fn require_told_in_the_report(server: &Server) -> anyhow::Result<()> {
    let recording = Recording::of_pids(&server.pids())?;
    for _ in 0..3 {
        client::get_body(server.port(), "/alloc")?;
    }
    let report = recording.stop()?.complete_report()?;
    let troubles = report.troubles()?;
    let told = troubles.iter().filter(|words| words.contains(UNTOLD));
    assert_eq!(told.count(), 1, "{troubles:?}");
    let row = report.endpoint("GET", "/alloc")?;
    row.require_requests(3)?;
    assert_eq!(row.figure("alloc_bytes", "total")?, 3000.0);
    Ok(())
}

#[test]
fn whose_code_is_other() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = start(UnknownNode::Code)?;
    let doctor = run(["doctor", "--pid", &server.pid().to_string()])?;
    require_exit_code(&doctor, exit_code::OK)?;
    let said = String::from_utf8_lossy(&doctor.stdout);
    let line = said.lines().find(|line| line.contains("Node's callbacks"));
    assert!(line.is_some_and(|line| line.contains(UNTOLD)), "{said}");
    require_told_in_the_report(&server)
}

/// Only the kernel half, which meets the callbacks, can tell.
#[test]
fn whose_memory_is_other() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    require_told_in_the_report(&start(UnknownNode::Memory)?)
}
