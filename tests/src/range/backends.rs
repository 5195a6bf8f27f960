//! What the servers of the range need: real databases, Redis and PostgreSQL, and a
//! certificate.
//!
//! In: nothing. Out: both databases under way on 127.0.0.1, with data of their own.
//! PostgreSQL refuses to be root's; it runs as the user that its package makes.
//! Deliberately not here: tracing them.

use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::process::{Running, wait_until};
use crate::range::certificate::Certificate;
use crate::server::{Server, free_port};
use crate::shim::CountingShim;

/// Both databases, a certificate, and at times a shim that counts.
#[derive(Debug)]
pub struct Backends {
    redis: Server,
    postgres: Postgres,
    certificate: Certificate,
    shim: Option<CountingShim>,
}

#[derive(Debug)]
struct Postgres {
    // Dropped in this order: its files last.
    _running: Running,
    port: u16,
    _directory: TempDir,
}

/// The user of Debian's packages.
const POSTGRES_USER: &str = "postgres";

impl Backends {
    /// Starts both, and makes the certificate; ready to be asked.
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self {
            redis: redis()?,
            postgres: postgres()?,
            certificate: Certificate::new()?,
            shim: None,
        })
    }

    /// From now on, servers are started with this shim, or with none.
    pub fn preload(&mut self, shim: Option<CountingShim>) {
        self.shim = shim;
    }

    /// What is to be preloaded into a server that is started.
    #[must_use]
    pub fn shim(&self) -> Option<&CountingShim> {
        self.shim.as_ref()
    }

    /// For servers that speak TLS, and for their clients.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Tells a server where they are.
    pub fn name_in(&self, command: &mut Command) {
        let Postgres { port, .. } = self.postgres;
        command
            .env("REDIS_PORT", self.redis.port().to_string())
            .env("POSTGRES_PORT", port.to_string())
            .env(
                "POSTGRES_DSN",
                format!("postgresql://{POSTGRES_USER}@127.0.0.1:{port}/postgres?sslmode=disable"),
            );
    }
}

fn redis() -> anyhow::Result<Server> {
    let port = free_port()?;
    let directory = TempDir::new().context("no directory for Redis")?;
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(directory.path());
    Server::start("redis-server", command, directory, port, None)
}

/// Where Debian's package keeps the programs: by major version.
fn postgres_programs() -> anyhow::Result<std::path::PathBuf> {
    let versions = Path::new("/usr/lib/postgresql");
    let mut found: Vec<_> = std::fs::read_dir(versions)
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|programs| programs.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().with_context(|| {
        format!(
            "no PostgreSQL in {}: run `cargo xtask setup`",
            versions.display()
        )
    })
}

fn postgres() -> anyhow::Result<Postgres> {
    let programs = postgres_programs()?;
    let port = free_port()?;
    let directory = TempDir::new().context("no directory for PostgreSQL")?;
    let data = directory.path().join("data");
    if rustix::process::geteuid().is_root() {
        let (user, group) = user_ids(POSTGRES_USER)?;
        chown(directory.path(), Some(user), Some(group))
            .context("cannot give PostgreSQL its directory")?;
    }
    let as_user = |program: &str| {
        let program = programs.join(program);
        if !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", POSTGRES_USER, "--regid", POSTGRES_USER])
            .args(["--clear-groups", "--"])
            .arg(program);
        command
    };
    let made = as_user("initdb")
        .args(["--auth", "trust", "--username", POSTGRES_USER])
        .args([
            "--no-sync",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--pgdata",
        ])
        .arg(&data)
        .current_dir(directory.path())
        .output()
        .context("cannot run initdb: run `cargo xtask setup`")?;
    if !made.status.success() {
        bail!("initdb: {}", String::from_utf8_lossy(&made.stderr));
    }
    let log = std::fs::File::create(directory.path().join("output.log"))?;
    let mut command = as_user("postgres");
    command
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
        .args(["-c", "max_connections=400"])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut running = Running::start("postgres", &mut command)?;
    wait_until("PostgreSQL to take connections", || {
        if let Some(status) = running.ended()? {
            let log = std::fs::read_to_string(directory.path().join("output.log"));
            bail!("postgres ended ({status}): {}", log.unwrap_or_default());
        }
        Ok(is_ready(&programs, port))
    })?;
    Ok(Postgres {
        _running: running,
        port,
        _directory: directory,
    })
}

/// It takes connections before it answers them.
fn is_ready(programs: &Path, port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
        && Command::new(programs.join("pg_isready"))
            .args([
                "--quiet",
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ])
            .status()
            .is_ok_and(|status| status.success())
}

fn user_ids(name: &str) -> anyhow::Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    users
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .with_context(|| format!("there is no user {name}: run `cargo xtask setup`"))
}
