//! What cannot work ends with a clear sentence and the documented exit code,
//! and leaves the target alone.
//!
//! In: wrong targets, no rights, full disks, a second tracer. Out: exit codes
//! and messages. Deliberately not here: traces that end; see `live_ends.rs`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail};
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::{
    Recording, exit_code, pid_arguments, record_command, report_of, run, run_to_end,
};
use memtrace_tests::probes::changed_code;
use memtrace_tests::server::{Server, Serving};
use memtrace_tests::{gate, paths, programs};
use tempfile::TempDir;

/// Runs `memtrace record` with these arguments into a file nobody needs; it must
/// end by itself with this code, in one sentence that has these words in it.
fn require_refused(arguments: &[&str], code: i32, words: &[&str]) -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let mut command = record_command()?;
    command
        .arg("-o")
        .arg(directory.path().join("unused.memtrace"))
        .args(arguments);
    let output = run_to_end(command)?;
    require_refusal(&output, code, words)
}

fn require_refusal(output: &Output, code: i32, words: &[&str]) -> anyhow::Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(code) {
        bail!("ended with {}, not {code}: {stderr}", output.status);
    }
    for word in words {
        if !stderr.contains(word) {
            bail!("the message does not have {word:?} in it: {stderr}");
        }
    }
    if stderr.contains("panicked") || stderr.contains("stack backtrace") {
        bail!("a crash is no message: {stderr}");
    }
    Ok(())
}

#[test]
fn arguments_that_make_no_sense() -> anyhow::Result<()> {
    for arguments in [
        &["record"][..],
        &["record", "--pid", "none"],
        &["record", "--pid", "1", "--duration", "soon"],
        &["record", "--pid", "1", "--mode", "unheard-of"],
        &["record", "--unheard-of"],
        &["unheard-of"],
        &["report"],
    ] {
        let output = run(arguments)?;
        require_refusal(&output, exit_code::USAGE, &[])
            .with_context(|| format!("{arguments:?}"))?;
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn a_process_that_is_not_there() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    // Ended, and waited for: gone.
    let mut ended = Command::new("true").spawn()?;
    let pid = ended.id().to_string();
    ended.wait()?;
    require_refused(&["--pid", &pid], exit_code::NO_TARGET, &[&pid])?;
    // Larger than any Linux process id.
    require_refused(
        &["--pid", "2000000000"],
        exit_code::NO_TARGET,
        &["2000000000"],
    )?;
    let nobody = "no-such-process";
    require_refused(&["--name", nobody], exit_code::NO_TARGET, &[nobody])?;
    let container = "0123456789abcdef0123456789abcdef";
    require_refused(
        &["--container", container],
        exit_code::NO_TARGET,
        &[container],
    )?;
    let cgroup = "/no/such/cgroup";
    require_refused(&["--cgroup", cgroup], exit_code::NO_TARGET, &[cgroup])?;
    let program = "/no/such/program";
    require_refused(&["--", program], exit_code::NO_TARGET, &[program])
}

#[test]
fn a_user_who_may_not_trace() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Epoll, None)?;
    // Where anybody can run it, whatever the rights of the target directory.
    let directory = TempDir::new()?;
    let program = directory.path().join("memtrace");
    fs::copy(paths::memtrace()?, &program)?;
    let everybody = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(directory.path(), everybody.clone())?;
    fs::set_permissions(&program, everybody)?;
    let mut command = Command::new(&program);
    command
        .args(["record", "-o", "/tmp/unused.memtrace", "--pid"])
        .arg(server.pid().to_string())
        .current_dir("/")
        .uid(65534)
        .gid(65534);
    require_refusal(&run_to_end(command)?, exit_code::NOT_PERMITTED, &["root"])?;
    assert_eq!(changed_code(server.pid())?, []);
    Ok(())
}

/// The second is refused; the first loses nothing.
#[test]
fn two_memtraces_on_one_process() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(4), None)?;
    let pid = server.pid().to_string();
    let first = Recording::of_pids(&server.pids())?;
    h2load(200, 4, [server.url("/alloc/1000")])?.require_all_succeeded(200)?;
    require_refused(&["--pid", &pid], exit_code::ALREADY_TRACED, &[&pid])?;
    h2load(200, 4, [server.url("/alloc/1000")])?.require_all_succeeded(200)?;
    let report = first.stop()?.complete_report()?;
    let row = report.endpoint("GET", "/alloc/1000")?;
    row.require_requests(400)?;
    assert_eq!(row.figure("alloc_count", "total")?, 400.0);
    // And once the first is gone, another may.
    let next = Recording::of_pids(&server.pids())?;
    h2load(200, 4, [server.url("/alloc/1000")])?.require_all_succeeded(200)?;
    next.stop()?
        .complete_report()?
        .endpoint("GET", "/alloc/1000")?
        .require_requests(200)
}

/// A tracer that was killed holds nothing against the next one.
#[test]
fn another_memtrace_after_one_was_killed() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Threads(4), None)?;
    Recording::of_pids(&server.pids())?.stop_by(memtrace_tests::process::Signal::KILL)?;
    let next = Recording::of_pids(&server.pids())?;
    h2load(200, 4, [server.url("/alloc/1000")])?.require_all_succeeded(200)?;
    next.stop()?
        .complete_report()?
        .endpoint("GET", "/alloc/1000")?
        .require_requests(200)
}

/// Two processes of one program can be traced by two memtraces.
#[test]
fn two_memtraces_on_two_processes_of_one_program() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let servers = [
        Server::alloc_server(Serving::Threads(4), None)?,
        Server::alloc_server(Serving::Epoll, None)?,
    ];
    let first = Recording::of_pids(&servers[0].pids())?;
    let second = Recording::of_pids(&servers[1].pids())?;
    h2load(300, 4, [servers[0].url("/alloc/1000")])?.require_all_succeeded(300)?;
    h2load(500, 4, [servers[1].url("/alloc/1000")])?.require_all_succeeded(500)?;
    for (recording, server, requests) in [(first, &servers[0], 300), (second, &servers[1], 500)] {
        let report = recording.stop()?.complete_report()?;
        assert_eq!(report.requests()?, requests);
        assert_eq!(report.pids()?, [u64::from(server.pid())]);
        assert_eq!(report.heap_of(server.pid())?.alloc_count, requests);
    }
    Ok(())
}

#[test]
fn a_static_stripped_binary() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let program = programs::alloc_server_static_stripped()?;
    let mut server = Server::alloc_server_at(&program, Serving::Threads(2), None, |_| ())?;
    let pid = server.pid().to_string();
    require_refused(
        &["--pid", &pid],
        exit_code::NOTHING_TO_PROBE,
        &["allocator"],
    )?;
    server.require_running()?;
    h2load(100, 2, [server.url("/alloc/1000")])?.require_all_succeeded(100)
}

#[test]
fn an_output_that_cannot_be_written() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let server = Server::alloc_server(Serving::Epoll, None)?;
    let directory = TempDir::new()?;
    for output in [
        directory.path().join("missing/file.memtrace"),
        directory.path().to_owned(),
    ] {
        let output = output.to_string_lossy().into_owned();
        let mut command = record_command()?;
        command.args(["-o", &output, "--pid", &server.pid().to_string()]);
        require_refusal(&run_to_end(command)?, exit_code::OUTPUT, &[&output])?;
    }
    assert_eq!(changed_code(server.pid())?, []);
    Ok(())
}

/// A file system of its own, as small as a test needs it.
struct SmallDisk {
    place: TempDir,
}

impl SmallDisk {
    fn mount(bytes: u64) -> anyhow::Result<Self> {
        let place = TempDir::new()?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(place.path())
            .status()
            .context("cannot run mount")?;
        if !status.success() {
            bail!("mount ended with {status}");
        }
        Ok(Self { place })
    }

    fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a tracer that a failed test left behind may hold a file.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// The disk fills under the capture: said, kept as far as it goes, and no
/// request fails.
#[test]
fn a_disk_that_is_full() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let disk = SmallDisk::mount(64 * 1024)?;
    let capture: PathBuf = disk.path().join("full.memtrace");
    let mut server = Server::alloc_server(Serving::Threads(8), None)?;
    let mut recording = Recording::to(&capture, pid_arguments(&server.pids()))?;
    h2load(
        100_000,
        8,
        [server.url("/alloc/1000"), server.url("/keep/100")],
    )?
    .require_all_succeeded(100_000)?;
    // It has ended by itself, or ends now; either way it says why.
    let recorded = if recording.is_running()? {
        recording.stop()?
    } else {
        recording.finish()?
    };
    recorded.require_exit_code(exit_code::OUTPUT)?;
    assert!(
        recorded.stderr.contains(&*capture.to_string_lossy()),
        "the message names the file: {}",
        recorded.stderr
    );
    server.require_running()?;
    let report = report_of(&capture)?;
    assert!(report.is_truncated()?);
    h2load(1000, 8, [server.url("/alloc/1000")])?.require_all_succeeded(1000)
}
