//! Every way to name a target, and every allocator it may have.
//!
//! In: servers in cgroups, in namespaces, under other allocators, started by
//! memtrace itself. Out: the exact counts of a known load. Deliberately not
//! here: targets that are not there; see `live_faults.rs`.

use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::{Recording, pid_arguments};
use memtrace_tests::probes::changed_code;
use memtrace_tests::process::{self, wait_until};
use memtrace_tests::server::{Server, Serving, alloc_server_arguments, free_port};
use memtrace_tests::{gate, programs};
use tempfile::TempDir;

const PATHS: [&str; 5] = [
    "/alloc/1000",
    "/calloc/2000",
    "/realloc/4000",
    "/memalign/500",
    "/keep/64",
];

/// A known load, and its exact traces in the report.
fn require_known_load(server: &Server, recording: Recording) -> anyhow::Result<()> {
    let urls = PATHS.map(|path| server.url(path));
    h2load(1000, 4, &urls)?.require_all_succeeded(1000)?;
    let report = recording.stop()?.complete_report()?;
    assert_eq!(report.requests()?, 1000);
    for (path, bytes, count) in [
        (PATHS[0], 1000.0, 1.0),
        (PATHS[1], 2000.0, 1.0),
        (PATHS[2], 7000.0, 3.0),
        (PATHS[3], 1500.0, 3.0),
        (PATHS[4], 64.0, 1.0),
    ] {
        let row = report.endpoint("GET", path)?;
        row.require_requests(200)?;
        assert_eq!(row.figure("alloc_bytes", "total")?, 200.0 * bytes, "{path}");
        assert_eq!(row.figure("alloc_count", "total")?, 200.0 * count, "{path}");
    }
    let kept = report.endpoint("GET", PATHS[4])?;
    assert_eq!(kept.figure("retained_bytes", "total")?, 200.0 * 64.0);
    Ok(())
}

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

// ---- allocators -------------------------------------------------------------

fn with_preloaded(library: &str) -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let path = Path::new("/usr/lib/x86_64-linux-gnu").join(library);
    if !path.exists() {
        bail!("{} is missing: run `cargo xtask setup`", path.display());
    }
    let program = programs::alloc_server()?;
    for serving in [Serving::Threads(4), Serving::Epoll] {
        let server = Server::alloc_server_at(&program, serving, None, |command| {
            command.env("LD_PRELOAD", &path);
        })?;
        let recording = Recording::of_pids(&server.pids())?;
        require_known_load(&server, recording).with_context(|| format!("{serving:?}"))?;
    }
    Ok(())
}

#[test]
fn jemalloc() -> anyhow::Result<()> {
    with_preloaded("libjemalloc.so.2")
}

#[test]
fn tcmalloc() -> anyhow::Result<()> {
    with_preloaded("libtcmalloc_minimal.so.4")
}

#[test]
fn mimalloc() -> anyhow::Result<()> {
    with_preloaded("libmimalloc.so.2.0")
}

fn with_program(program: &Path) -> anyhow::Result<()> {
    let server = Server::alloc_server_at(program, Serving::Threads(4), None, |_| ())?;
    let recording = Recording::of_pids(&server.pids())?;
    require_known_load(&server, recording)
}

#[test]
fn glibc() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    with_program(&programs::alloc_server()?)
}

#[test]
fn glibc_linked_statically() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    with_program(&programs::alloc_server_static()?)
}

#[test]
fn musl() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    with_program(&programs::alloc_server_musl()?)
}

// ---- ways to name a target ----------------------------------------------------

/// Two servers, one of them named: the other is not in the report.
#[test]
fn by_name() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let directory = TempDir::new()?;
    let program = directory.path().join("mt-named-server");
    fs::copy(programs::alloc_server()?, &program)?;
    let named = Server::alloc_server_at(&program, Serving::Threads(4), None, |_| ())?;
    let other = Server::alloc_server(Serving::Threads(4), None)?;
    let recording = Recording::with(arguments(&["--name", "mt-named-server"]))?;
    h2load(100, 4, [other.url("/alloc/1000")])?.require_all_succeeded(100)?;
    require_known_load(&named, recording)
}

/// A cgroup of version 2, removed in the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn create(name: &str) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| PathBuf::from(fields[1]))
            .context("no cgroup2 file system is mounted")?;
        let path = root.join(format!("memtrace-tests-{}", std::process::id()));
        fs::create_dir_all(path.join(name)).context("cannot create a cgroup")?;
        Ok(Self(path))
    }

    fn take_in(&self, name: &str, pids: &[u32]) -> anyhow::Result<()> {
        for pid in pids {
            fs::write(self.0.join(name).join("cgroup.procs"), pid.to_string())
                .with_context(|| format!("cannot move process {pid} into a cgroup"))?;
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for child in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(child.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// By the cgroup above the one the server is in.
#[test]
fn by_cgroup() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let cgroup = Cgroup::create("below")?;
    let server = Server::alloc_server(Serving::Threads(4), None)?;
    let other = Server::alloc_server(Serving::Threads(4), None)?;
    cgroup.take_in("below", &server.pids())?;
    let mut target = arguments(&["--cgroup"]);
    target.push(cgroup.0.clone().into());
    let recording = Recording::with(target)?;
    h2load(100, 4, [other.url("/alloc/1000")])?.require_all_succeeded(100)?;
    let outcome = require_known_load(&server, recording);
    drop(server);
    outcome
}

/// A process that joins the cgroup while it is traced.
#[test]
fn a_process_that_joins_the_cgroup() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let cgroup = Cgroup::create("below")?;
    let first = Server::alloc_server(Serving::Threads(4), None)?;
    let second = Server::alloc_server(Serving::Threads(4), None)?;
    cgroup.take_in("below", &first.pids())?;
    let mut target = arguments(&["--cgroup"]);
    target.push(cgroup.0.clone().into());
    let recording = Recording::with(target)?;
    cgroup.take_in("below", &second.pids())?;
    wait_until("probes in the process that joined", || {
        Ok(!changed_code(second.pid())?.is_empty())
    })?;
    h2load(100, 4, [first.url("/alloc/1000")])?.require_all_succeeded(100)?;
    h2load(100, 4, [second.url("/alloc/1000")])?.require_all_succeeded(100)?;
    let report = recording.stop()?.complete_report()?;
    drop((first, second));
    report.endpoint("GET", "/alloc/1000")?.require_requests(200)
}

/// By the first characters of a container's id, which its cgroup is named for.
#[test]
fn by_container() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let id = "5f0c8a7e1d2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081920a1b2c";
    let name = format!("docker-{id}.scope");
    let cgroup = Cgroup::create(&name)?;
    let server = Server::alloc_server(Serving::Threads(4), None)?;
    cgroup.take_in(&name, &server.pids())?;
    let recording = Recording::with(arguments(&["--container", &id[..12]]))?;
    let outcome = require_known_load(&server, recording);
    drop(server);
    outcome
}

/// A server in namespaces of its own, its program at a path that means nothing
/// outside.
#[test]
fn in_other_namespaces() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let program = programs::alloc_server()?;
    let port = free_port()?;
    let mut command = std::process::Command::new("unshare");
    // Inside, the program is on a file system that only this namespace sees.
    let script = format!(
        "mount -t tmpfs tmpfs /mnt && cp '{}' /mnt/server && exec /mnt/server --port {port}",
        program.display()
    );
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        &script,
    ]);
    let server = Server::start("unshare", command, TempDir::new()?, port, None)?;
    let inside = process::children(server.pid());
    assert_eq!(inside.len(), 1);
    assert!(!Path::new("/mnt/server").exists());
    let recording = Recording::of_pids(&inside)?;
    require_known_load(&server, recording)
}

/// memtrace starts the server: by way of a shell, which execs it.
#[test]
fn a_command_that_memtrace_starts() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let port = free_port()?;
    let server = alloc_server_arguments(port, Serving::Threads(4)).join(" ");
    let script = format!("exec '{}' {server}", programs::alloc_server()?.display());
    let recording = Recording::with(arguments(&["--", "sh", "-c", &script]))?;
    wait_until("the command to take connections", || {
        Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
    })?;
    let url = format!("http://127.0.0.1:{port}/alloc/1000");
    h2load(500, 4, [&url])?.require_all_succeeded(500)?;
    h2load(1, 1, [format!("http://127.0.0.1:{port}/quit")])?.require_all_succeeded(1)?;
    // Its target is gone, so it ends.
    let report = recording.finish()?.complete_report()?;
    let row = report.endpoint("GET", "/alloc/1000")?;
    row.require_requests(500)?;
    assert_eq!(row.figure("alloc_bytes", "total")?, 500_000.0);
    Ok(())
}

/// A second server is started by the first process after the attach.
#[test]
fn a_child_that_is_started_later() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let (first, second) = (free_port()?, free_port()?);
    let program = programs::alloc_server()?;
    let directory = TempDir::new()?;
    let go = directory.path().join("go");
    // The shell serves nothing; both servers are its children.
    let script = format!(
        "'{program}' --port {first} & while ! [ -e '{go}' ]; do sleep 0.05; done; \
         '{program}' --port {second} & wait",
        program = program.display(),
        go = go.display(),
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]);
    let server = Server::start("sh", command, TempDir::new()?, first, None)?;
    let recording = Recording::with(pid_arguments(&[server.pid()]))?;
    fs::write(&go, "")?;
    wait_until("the second server", || {
        Ok(TcpStream::connect(("127.0.0.1", second)).is_ok())
    })?;
    // A child's allocator is probed soon after its fork; what it allocates
    // before is not seen, which the report says.
    let pids = server.pids();
    wait_until("probes in the second server", || {
        Ok(pids.iter().all(|pid| {
            !is_named(*pid, "alloc_server") || changed_code(*pid).is_ok_and(|code| !code.is_empty())
        }))
    })?;
    h2load(300, 4, [format!("http://127.0.0.1:{second}/alloc/1000")])?
        .require_all_succeeded(300)?;
    let report = recording.stop()?.complete_report()?;
    let row = report.endpoint("GET", "/alloc/1000")?;
    row.require_requests(300)?;
    assert_eq!(row.figure("alloc_bytes", "total")?, 300_000.0);
    Ok(())
}

/// A traced process that becomes another program by exec is traced on, while a
/// neighbour that runs the same program and libraries has no probe in it.
#[test]
fn a_process_that_becomes_another_program() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let neighbour = Server::alloc_server(Serving::Threads(1), None)?;
    let port = free_port()?;
    let directory = TempDir::new()?;
    let go = directory.path().join("go");
    let script = format!(
        "while ! [ -e '{go}' ]; do :; done; exec '{program}' --port {port}",
        go = go.display(),
        program = programs::alloc_server()?.display(),
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]);
    let shell = process::Running::start("sh", &mut command)?;
    let recording = Recording::with(pid_arguments(&[shell.pid()]))?;
    fs::write(&go, "")?;
    wait_until("the program to serve with probes in it", || {
        Ok(is_named(shell.pid(), "alloc_server")
            && TcpStream::connect(("127.0.0.1", port)).is_ok()
            && !changed_code(shell.pid())?.is_empty())
    })?;
    assert_eq!(changed_code(neighbour.pid())?, []);
    h2load(300, 4, [format!("http://127.0.0.1:{port}/alloc/1000")])?.require_all_succeeded(300)?;
    let report = recording.stop()?.complete_report()?;
    let row = report.endpoint("GET", "/alloc/1000")?;
    row.require_requests(300)?;
    assert_eq!(row.figure("alloc_bytes", "total")?, 300_000.0);
    Ok(())
}

/// Whether a process runs under this name.
fn is_named(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
}
