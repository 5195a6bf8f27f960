//! Servers to trace: started, ready when they are returned, stopped when the
//! value ends.
//!
//! In: which server, with or without the counting shim. Out: its port, its
//! processes, its own counts. Deliberately not here: nginx, whose counts are
//! in its log; see [`crate::nginx`].

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Running, wait_until};
use crate::shim::CountingShim;
use crate::tls::Certificate;
use crate::{client, paths, programs};

/// Requests by path and status.
pub type RequestCounts = BTreeMap<String, BTreeMap<String, u64>>;

/// A server that listens on a port of 127.0.0.1.
#[derive(Debug)]
pub struct Server {
    running: Running,
    port: u16,
    directory: TempDir,
}

/// How the C server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// So many threads, each with one connection at a time.
    Threads(u32),
    /// One thread, all connections interleaved.
    Epoll,
}

/// The Python servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PythonServer {
    /// gunicorn, sync workers: a connection for each request.
    GunicornFlaskSync,
    /// gunicorn, threads: keep-alive.
    GunicornFlaskThreads,
    /// gunicorn, sync workers.
    GunicornDjangoSync,
    /// gunicorn, threads.
    GunicornDjangoThreads,
    /// uvicorn with uvloop and httptools.
    UvicornFastApi,
    /// uvicorn with asyncio and h11.
    UvicornFastApiAsyncio,
    /// http.server of the standard library, a thread for each connection.
    HttpServer,
}

impl PythonServer {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::GunicornFlaskSync,
        Self::GunicornFlaskThreads,
        Self::GunicornDjangoSync,
        Self::GunicornDjangoThreads,
        Self::UvicornFastApi,
        Self::UvicornFastApiAsyncio,
        Self::HttpServer,
    ];

    fn worker_processes(self) -> usize {
        match self {
            Self::GunicornFlaskSync
            | Self::GunicornFlaskThreads
            | Self::GunicornDjangoSync
            | Self::GunicornDjangoThreads => 2,
            Self::UvicornFastApi | Self::UvicornFastApiAsyncio | Self::HttpServer => 1,
        }
    }

    fn command(self, port: u16) -> anyhow::Result<Command> {
        let gunicorn = |app: &str, class: &[&str]| -> anyhow::Result<Command> {
            let mut command = Command::new(paths::in_venv("gunicorn")?);
            command
                .args([
                    "--workers",
                    "2",
                    "--log-level",
                    "warning",
                    "--backlog",
                    "1024",
                ])
                .args(["--keep-alive", "60", "--bind", &format!("127.0.0.1:{port}")])
                .args(class)
                .arg(app);
            Ok(command)
        };
        let uvicorn = |loops: &[&str]| -> anyhow::Result<Command> {
            let mut command = Command::new(paths::in_venv("uvicorn")?);
            command
                .args(["--log-level", "warning", "--no-access-log"])
                .args(["--port", &port.to_string()])
                .args(loops)
                .arg("fastapi_app:application");
            Ok(command)
        };
        let threads = ["--worker-class", "gthread", "--threads", "8"];
        Ok(match self {
            Self::GunicornFlaskSync => gunicorn("flask_app:application", &[])?,
            Self::GunicornFlaskThreads => gunicorn("flask_app:application", &threads)?,
            Self::GunicornDjangoSync => gunicorn("django_app:application", &[])?,
            Self::GunicornDjangoThreads => gunicorn("django_app:application", &threads)?,
            Self::UvicornFastApi => uvicorn(&["--loop", "uvloop", "--http", "httptools"])?,
            Self::UvicornFastApiAsyncio => uvicorn(&["--loop", "asyncio", "--http", "h11"])?,
            Self::HttpServer => {
                let mut command = Command::new(paths::in_venv("python")?);
                command
                    .arg(paths::program_source("python/http_server.py"))
                    .arg(port.to_string());
                command
            }
        })
    }

    /// Starts it; ready when every worker process can answer.
    pub fn start(self, shim: Option<&CountingShim>) -> anyhow::Result<Server> {
        self.start_with(shim, |_| ())
    }

    /// Starts it over TLS.
    pub fn start_tls(self, certificate: &Certificate) -> anyhow::Result<Server> {
        let names = match self {
            Self::UvicornFastApi | Self::UvicornFastApiAsyncio => {
                ["--ssl-certfile", "--ssl-keyfile"]
            }
            Self::GunicornFlaskSync
            | Self::GunicornFlaskThreads
            | Self::GunicornDjangoSync
            | Self::GunicornDjangoThreads => ["--certfile", "--keyfile"],
            Self::HttpServer => bail!("the server of the standard library speaks no TLS here"),
        };
        self.start_with(None, |command| {
            command
                .arg(names[0])
                .arg(certificate.certificate())
                .arg(names[1])
                .arg(certificate.key());
        })
    }

    fn start_with(
        self,
        shim: Option<&CountingShim>,
        change: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Server> {
        let port = free_port()?;
        let mut command = self.command(port)?;
        change(&mut command);
        let directory = TempDir::new().context("no directory for a server")?;
        command
            .env("COUNTS_DIR", directory.path())
            .env("PYTHONPATH", paths::program_source("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let mut server = Server::start(&format!("{self:?}"), command, directory, port, shim)?;
        wait_until("every worker of the Python server", || {
            server.require_running()?;
            Ok(server.counts_files()? == self.worker_processes())
        })?;
        Ok(server)
    }
}

impl Server {
    /// Starts the C server.
    pub fn alloc_server(serving: Serving, shim: Option<&CountingShim>) -> anyhow::Result<Self> {
        Self::alloc_server_at(&programs::alloc_server()?, serving, shim, |_| ())
    }

    /// Starts a given build of the C server, with a last change to the command.
    pub fn alloc_server_at(
        program: &Path,
        serving: Serving,
        shim: Option<&CountingShim>,
        change: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(alloc_server_arguments(port, serving));
        change(&mut command);
        let directory = TempDir::new().context("no directory for a server")?;
        Self::start("alloc_server", command, directory, port, shim)
    }

    /// Starts any command; ready when the port takes connections. Its output
    /// goes into the directory, and into the message if it ends at once.
    pub fn start(
        name: &str,
        mut command: Command,
        directory: TempDir,
        port: u16,
        shim: Option<&CountingShim>,
    ) -> anyhow::Result<Self> {
        let log = fs::File::create(directory.path().join("output.log"))
            .context("cannot create a server's log")?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(shim) = shim {
            shim.preload_into(&mut command);
        }
        let mut server = Self {
            running: Running::start(name, &mut command)?,
            port,
            directory,
        };
        wait_until(&format!("{name} to take connections"), || {
            server.require_running()?;
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(server)
    }

    /// Its first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Its processes, the first one first.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        process::tree(self.pid())
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The URL of a path that begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The same over TLS.
    #[must_use]
    pub fn https_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// The process itself, to end it.
    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// An error, with what the server said, if it has ended.
    pub fn require_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.running.ended()? {
            let log = fs::read_to_string(self.directory().join("output.log")).unwrap_or_default();
            bail!("the server ended ({status}); it said:\n{log}");
        }
        Ok(())
    }

    /// The C server's own counts, as its `/count` gives them.
    pub fn alloc_server_counts(&self) -> anyhow::Result<AllocServerCounts> {
        let json = client::get_body(self.port, "/count")?;
        Ok(AllocServerCounts(
            serde_json::from_slice(&json).context("the C server's /count is no JSON")?,
        ))
    }

    /// A Python server's own counts; the question itself is not among them,
    /// as it is only counted once answered.
    pub fn python_counts(&self) -> anyhow::Result<RequestCounts> {
        parse_counts(&client::get_body(self.port, "/counts")?)
    }

    /// Worker processes that have opened their file of counts.
    pub fn counts_files(&self) -> anyhow::Result<usize> {
        let entries = fs::read_dir(self.directory())?;
        Ok(entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "counts"))
            .count())
    }
}

/// What a server counts at `/counts`, the question itself left out.
pub fn parse_counts(json: &[u8]) -> anyhow::Result<RequestCounts> {
    let mut counts: RequestCounts =
        serde_json::from_slice(json).context("the server's /counts is no JSON")?;
    counts.remove("/counts");
    Ok(counts)
}

/// What the C server counted.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocServerCounts(pub Value);

impl AllocServerCounts {
    /// A number by its JSON pointer, such as `/requests/alloc`.
    pub fn count(&self, pointer: &str) -> anyhow::Result<u64> {
        self.0
            .pointer(pointer)
            .and_then(Value::as_u64)
            .with_context(|| format!("the C server counts no {pointer}"))
    }
}

/// The C server's arguments.
#[must_use]
pub fn alloc_server_arguments(port: u16, serving: Serving) -> Vec<String> {
    let mut arguments = vec!["--port".to_owned(), port.to_string()];
    match serving {
        Serving::Threads(threads) => {
            arguments.extend(["--threads".to_owned(), threads.to_string()]);
        }
        Serving::Epoll => arguments.push("--epoll".to_owned()),
    }
    arguments
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener
        .local_addr()
        .context("a port without a number")?
        .port())
}
