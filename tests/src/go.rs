//! The Go server, built by any of the toolchains that `cargo xtask setup`
//! installs, and what it counts itself.
//!
//! In: a toolchain, a way to build, a scheme. Out: a running server, and the
//! bytes of a request as `runtime.MemStats` measures them. Deliberately not here:
//! anything that memtrace says.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use tempfile::TempDir;

use crate::client::RawConnection;
use crate::paths;
use crate::server::{Server, free_port};

/// A Go toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// Debian's.
    Debian,
    /// One of `tests/programs/go/toolchains.txt`, by its version.
    Installed(String),
}

impl Toolchain {
    /// Every one, the oldest first.
    pub fn all() -> anyhow::Result<Vec<Toolchain>> {
        let path = paths::program_source("go/toolchains.txt");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let installed = text
            .split_whitespace()
            .map(|version| Toolchain::Installed(version.to_owned()));
        Ok(std::iter::once(Toolchain::Debian)
            .chain(installed)
            .collect())
    }

    /// The newest.
    pub fn newest() -> anyhow::Result<Toolchain> {
        let mut all = Self::all()?;
        all.pop().context("there is no Go toolchain")
    }

    fn name(&self) -> &str {
        match self {
            Toolchain::Debian => "debian",
            Toolchain::Installed(version) => version,
        }
    }

    /// The `go` command, which finds the rest of the toolchain by its own path.
    fn command(&self) -> anyhow::Result<Command> {
        let path = match self {
            Toolchain::Debian => PathBuf::from("/usr/bin/go"),
            Toolchain::Installed(version) => paths::repository()
                .join("target/go")
                .join(version)
                .join("go/bin/go"),
        };
        if !path.exists() {
            bail!("{} is missing: run `cargo xtask setup`", path.display());
        }
        let mut command = Command::new(path);
        let target = paths::target()?;
        command
            .env_remove("GOROOT")
            .env_remove("GOFLAGS")
            .env("GOCACHE", target.join("go-cache"))
            .env("GOPATH", target.join("go-path"))
            // Nothing but the toolchain's own library.
            .env("GO111MODULE", "off")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local");
        Ok(command)
    }
}

/// How the server is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As `go build` does it: with C code, for name resolution.
    Plain,
    /// Without symbols and debug information.
    Stripped,
    /// Position-independent.
    Pie,
    /// Without C code: nothing but Go in the process.
    WithoutC,
}

impl Build {
    /// Every one.
    pub const ALL: [Build; 4] = [Build::Plain, Build::Stripped, Build::Pie, Build::WithoutC];
}

/// Builds the server if that was not done already.
pub fn build(toolchain: &Toolchain, build: Build) -> anyhow::Result<PathBuf> {
    let directory = paths::target()?.join("test-programs");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let lock = File::create(directory.join("lock")).context("cannot create the build lock")?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot take the build lock")?;

    let source = paths::program_source("go/server.go");
    let output = directory.join(format!("go_server_{}_{build:?}", toolchain.name()));
    let mut command = toolchain.command()?;
    command.arg("build").arg("-o").arg(&output);
    match build {
        Build::Plain => command.env("CGO_ENABLED", "1"),
        Build::Stripped => command.env("CGO_ENABLED", "1").arg("-ldflags=-s -w"),
        Build::Pie => command.env("CGO_ENABLED", "1").arg("-buildmode=pie"),
        Build::WithoutC => command.env("CGO_ENABLED", "0"),
    };
    // `go` itself knows what has changed since.
    let result = command
        .arg(&source)
        .output()
        .context("cannot run go: run `cargo xtask setup`")?;
    if !result.status.success() {
        bail!(
            "go build ({toolchain:?}, {build:?}): {}",
            String::from_utf8_lossy(&result.stderr)
        );
    }
    Ok(output)
}

/// The endpoints, in the order in which `/stats` counts them.
pub const ENDPOINTS: [&str; 8] = [
    "/small",
    "/medium",
    "/large",
    "/kept",
    "/children",
    "/sleep",
    "/json",
    "/pool",
];

/// A running Go server.
#[derive(Debug)]
pub struct GoServer {
    server: Server,
    scheme: &'static str,
}

/// What `/stats` tells.
#[derive(Clone, Debug, Deserialize)]
struct Stats {
    total_alloc: u64,
    answered: Vec<u64>,
}

impl GoServer {
    /// Starts a built server that speaks HTTP.
    pub fn http(program: impl AsRef<OsStr>) -> anyhow::Result<Self> {
        Self::start(program, "http")
    }

    /// Starts a built server that speaks HTTPS, HTTP/2 included.
    pub fn https(program: impl AsRef<OsStr>) -> anyhow::Result<Self> {
        Self::start(program, "https")
    }

    fn start(program: impl AsRef<OsStr>, scheme: &'static str) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args([scheme, &format!("127.0.0.1:{port}")]);
        let directory = TempDir::new().context("no directory for a server")?;
        Ok(Self {
            server: Server::start("the Go server", command, directory, port, None)?,
            scheme,
        })
    }

    /// The server itself.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The URLs of its endpoints.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let port = self.server.port();
        ENDPOINTS
            .iter()
            .map(|path| format!("{}://127.0.0.1:{port}{path}", self.scheme))
            .collect()
    }

    /// Requests answered, by endpoint. Only over HTTP.
    pub fn answered(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let stats = stats(&mut RawConnection::open(self.server.port())?)?;
        Ok(ENDPOINTS.into_iter().zip(stats.answered).collect())
    }

    /// Bytes that one request of an endpoint allocates, by the difference that
    /// so many of them make to `runtime.MemStats.TotalAlloc`. Only over HTTP, and
    /// only while nobody else asks.
    pub fn bytes_per_request(&self, path: &str, requests: u64) -> anyhow::Result<f64> {
        let mut connection = RawConnection::open(self.server.port())?;
        // The first ones fill pools.
        for _ in 0..4 {
            ask(&mut connection, path)?;
        }
        // Asking costs something too.
        let before = stats(&mut connection)?.total_alloc;
        let asked = stats(&mut connection)?.total_alloc;
        for _ in 0..requests {
            ask(&mut connection, path)?;
        }
        let after = stats(&mut connection)?.total_alloc;
        let bytes = after.saturating_sub(asked) as f64 - asked.saturating_sub(before) as f64;
        Ok(bytes / requests as f64)
    }
}

fn stats(connection: &mut RawConnection) -> anyhow::Result<Stats> {
    let response = connection.get("/stats")?;
    serde_json::from_slice(&response.body).context("the Go server's /stats is no JSON")
}

fn ask(connection: &mut RawConnection, path: &str) -> anyhow::Result<()> {
    let status = connection.get(path)?.status;
    if status != 200 {
        bail!("{path} answered {status}");
    }
    Ok(())
}
