//! asyncio on every CPython that is here: requests that await in the middle
//! keep their bytes apart, and a version that is not known says so.
//!
//! In: a server of asyncio alone, in both of its styles, on this machine's
//! interpreters and on those that `cargo xtask setup` unpacks; 64 clients,
//! endpoints mixed. Out: figures within 2 %. Deliberately not here: frameworks;
//! see `live_known_bytes.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_tests::load::h2load;
use memtrace_tests::memtrace::Recording;
use memtrace_tests::report::require_within;
use memtrace_tests::server::{Server, free_port};
use memtrace_tests::{gate, memtrace, paths};
use tempfile::TempDir;

/// Each endpoint and the bytes of its two blocks: large against the quarter of
/// a megabyte that asyncio makes for each read.
const ENDPOINTS: [(&str, f64); 4] = [
    ("/sleep/20000000", 40e6),
    ("/gather/24000000", 48e6),
    ("/thread/28000000", 56e6),
    ("/backend/32000000", 64e6),
];

/// How the server serves a connection: a task for each request, or one for all.
const STYLES: [&str; 2] = ["protocol", "streams"];

/// An interpreter, and the root in which it runs if not this machine's.
#[derive(Clone, Debug)]
struct Interpreter {
    program: PathBuf,
    root: Option<PathBuf>,
}

impl Interpreter {
    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let source = std::fs::read_to_string(paths::program_source("python/asyncio_server.py"))?;
        let mut command = match &self.root {
            Some(root) => {
                let mut command = Command::new("chroot");
                command.arg(root).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(["-c", &source]).args(arguments);
        Ok(command)
    }

    fn start(&self, arguments: &[&str]) -> anyhow::Result<Server> {
        let port = free_port()?;
        let mut command = self.command(arguments)?;
        command.args(["--port", &port.to_string()]);
        let name = format!("{self:?}");
        Server::start(&name, command, TempDir::new()?, port, None)
    }
}

/// Debian's own, those of its other releases, and those under `PYENV_ROOT`.
fn interpreters() -> Vec<Interpreter> {
    let mut found = vec![Interpreter {
        program: "/usr/bin/python3".into(),
        root: None,
    }];
    for root in directories(&paths::repository().join("target/pythons")) {
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        if let Some((_, version)) = name.split_once('-') {
            let program = PathBuf::from(format!("/usr/bin/python{version}"));
            let is_there = root.join(format!("usr/bin/python{version}")).exists();
            found.extend(is_there.then_some(Interpreter {
                program,
                root: Some(root.clone()),
            }));
        }
    }
    if let Some(root) = std::env::var_os("PYENV_ROOT") {
        for version in directories(&Path::new(&root).join("versions")) {
            let name = version.file_name().unwrap_or_default().to_string_lossy();
            let mut parts = name.split('.').map(str::parse::<u32>);
            if let (Some(Ok(3)), Some(Ok(8..))) = (parts.next(), parts.next()) {
                found.push(Interpreter {
                    program: version.join("bin/python3"),
                    root: None,
                });
            }
        }
    }
    found
}

fn directories(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn is_unknown(interpreter: &Interpreter) -> bool {
    interpreter.program.ends_with("python3.15")
}

fn keeps_requests_apart(
    interpreter: &Interpreter,
    style: &str,
    event_loop: &str,
) -> anyhow::Result<()> {
    let backend = interpreter.start(&[])?;
    let port = backend.port().to_string();
    let server =
        interpreter.start(&["--style", style, "--loop", event_loop, "--backend", &port])?;
    let mut urls: Vec<String> = ENDPOINTS.iter().map(|(path, _)| server.url(path)).collect();
    urls.push(server.url("/plain/0"));
    // The first to use a thread imports what it takes: that is not what is measured.
    h2load(5, 1, &urls)?.require_all_succeeded(5)?;
    let recording = Recording::of_pids(&server.pids())?;
    let requests = 64 * urls.len() as u64;
    h2load(requests, 64, &urls)?.require_all_succeeded(requests)?;
    let report = recording.stop()?.complete_report()?;
    for (path, bytes) in ENDPOINTS {
        let row = report.endpoint("GET", path)?;
        row.require_requests(64)?;
        for figure in ["mean", "p50", "p99", "max"] {
            let what = format!("{figure} of {path}, {interpreter:?}, {style}, {event_loop}");
            require_within(&what, row.figure("alloc_bytes", figure)?, bytes, 0.02)?;
        }
    }
    let plain = report.endpoint("GET", "/plain/0")?;
    let largest = plain.figure("alloc_bytes", "max")?;
    assert!(largest < 1e6, "{largest} bytes for a plain request");
    Ok(())
}

#[test]
fn requests_that_await_keep_their_bytes_apart() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for interpreter in interpreters().iter().filter(|other| !is_unknown(other)) {
        for style in STYLES {
            keeps_requests_apart(interpreter, style, "asyncio")?;
        }
    }
    Ok(())
}

#[test]
fn uvloop_keeps_their_bytes_apart_as_well() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    let interpreter = Interpreter {
        program: paths::in_venv("python")?,
        root: None,
    };
    for style in STYLES {
        keeps_requests_apart(&interpreter, style, "uvloop")?;
    }
    Ok(())
}

#[test]
fn a_version_that_is_not_known_is_named() -> anyhow::Result<()> {
    let Some(_alone) = gate::tracing_allowed()? else {
        return Ok(());
    };
    for interpreter in interpreters().iter().filter(|other| is_unknown(other)) {
        let backend = interpreter.start(&[])?;
        let server = interpreter.start(&["--backend", &backend.port().to_string()])?;
        let output = memtrace::run(["doctor", "--pid", &server.pid().to_string()])?;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("CPython 3.15 is not known"), "{said}");
        let recording = Recording::of_pids(&server.pids())?;
        let urls = ENDPOINTS.map(|(path, _)| server.url(path));
        h2load(256, 64, &urls)?.require_all_succeeded(256)?;
        let report = recording.stop()?.complete_report()?;
        let troubles = report.troubles()?;
        assert!(
            matches!(&troubles[..], [one] if one.contains("CPython 3.15 is not known")),
            "{troubles:?}"
        );
        // Too little is said of each, and nothing of another's.
        for (path, bytes) in ENDPOINTS {
            let row = report.endpoint("GET", path)?;
            row.require_requests(64)?;
            let largest = row.figure("alloc_bytes", "max")?;
            assert!(largest < 1.02 * bytes, "{largest} bytes for {path}");
        }
    }
    Ok(())
}
