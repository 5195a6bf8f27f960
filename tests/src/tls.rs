//! What it takes to speak TLS: a certificate, a client that trusts it, and
//! servers that no other test needs.
//!
//! In: nothing. Out: files and running servers, gone with their values.
//! Deliberately not here: servers that also speak in clear text; they take a
//! [`Certificate`].

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::paths;
use crate::process::wait_until;
use crate::programs::{self, Linked, Symbols};
use crate::server::{RequestCounts, Server, free_port, parse_counts};

/// A key and a certificate for 127.0.0.1, signed by itself.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Makes one.
    pub fn new() -> anyhow::Result<Self> {
        let directory = TempDir::new().context("no directory for a certificate")?;
        let output = Command::new("openssl")
            .args(["req", "-x509", "-noenc", "-days", "2"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=127.0.0.1"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .output()
            .context("cannot run openssl: run `cargo xtask setup`")?;
        if !output.status.success() {
            bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { directory })
    }

    /// The file of the key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// The file of the certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// The body of a GET over HTTP/1.1, whatever the status.
    pub fn get(&self, url: &str) -> anyhow::Result<Vec<u8>> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--http1.1", "--max-time", "60"])
            .arg("--cacert")
            .arg(self.certificate())
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .context("cannot run curl: run `cargo xtask setup`")?;
        if !output.status.success() {
            bail!("curl {url}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }

    /// What a server counted, by its `/counts`.
    pub fn counts(&self, server: &Server) -> anyhow::Result<RequestCounts> {
        parse_counts(&self.get(&server.https_url("/counts"))?)
    }
}

/// One connection over TLS, by `openssl s_client`.
#[derive(Debug)]
pub struct TlsConnection {
    client: Child,
    answers: BufReader<ChildStdout>,
}

impl TlsConnection {
    /// Connects; the handshake may still be under way.
    pub fn open(port: u16) -> anyhow::Result<Self> {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect"])
            .arg(format!("127.0.0.1:{port}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run openssl: run `cargo xtask setup`")?;
        let answers = client.stdout.take().context("openssl has no output")?;
        Ok(Self {
            client,
            answers: BufReader::new(answers),
        })
    }

    /// Asks for a path and reads the answer, whose length its head must tell.
    /// Returns the status line.
    pub fn get(&mut self, path: &str) -> anyhow::Result<String> {
        let input = self.client.stdin.as_mut().context("openssl has no input")?;
        write!(input, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")?;
        input.flush()?;
        let mut line = || -> anyhow::Result<String> {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                bail!("the server closed the connection");
            }
            Ok(line.trim_end().to_owned())
        };
        let status = line()?;
        let mut length = None;
        loop {
            let field = line()?.to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(value) = field.strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length.context("the answer tells no length")?];
        self.answers.read_exact(&mut body)?;
        Ok(status)
    }
}

impl Drop for TlsConnection {
    fn drop(&mut self) {
        // It may have ended with its server.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// hypercorn with one worker process: asyncio's streams over its TLS.
pub fn hypercorn(certificate: &Certificate) -> anyhow::Result<Server> {
    let port = free_port()?;
    let directory = TempDir::new().context("no directory for a server")?;
    let mut command = Command::new(paths::in_venv("hypercorn")?);
    command
        .args(["--bind", &format!("127.0.0.1:{port}"), "--keep-alive", "60"])
        .arg("--certfile")
        .arg(certificate.certificate())
        .arg("--keyfile")
        .arg(certificate.key())
        .arg("fastapi_app:application")
        .env("COUNTS_DIR", directory.path())
        .env("PYTHONPATH", paths::program_source("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let mut server = Server::start("hypercorn", command, directory, port, None)?;
    wait_until("hypercorn's worker", || {
        server.require_running()?;
        Ok(server.counts_files()? == 1)
    })?;
    Ok(server)
}

/// The server that uses each form of OpenSSL's calls.
pub fn openssl_forms(linked: Linked, certificate: &Certificate) -> anyhow::Result<Server> {
    let command = Command::new(programs::tls_server(linked)?);
    start("tls_server", command, certificate)
}

/// Node's https server, which has OpenSSL linked in.
pub fn node(certificate: &Certificate) -> anyhow::Result<Server> {
    let mut command = Command::new("node");
    command.arg(paths::program_source("node/server.js"));
    start("node", command, certificate)
}

/// How the server on rustls works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RustlsModel {
    /// A thread for each connection, on blocking sockets.
    Threads,
    /// hyper: a task for each connection, on two of tokio's threads.
    Tasks,
}

/// A server on rustls.
pub fn rustls(
    model: RustlsModel,
    symbols: Symbols,
    certificate: &Certificate,
) -> anyhow::Result<Server> {
    let mut command = Command::new(programs::rustls_server(symbols)?);
    command.arg(match model {
        RustlsModel::Threads => "threads",
        RustlsModel::Tasks => "tasks",
    });
    start("rustls_server", command, certificate)
}

/// Starts a server that takes its port, its key and its certificate.
fn start(name: &str, mut command: Command, certificate: &Certificate) -> anyhow::Result<Server> {
    let port = free_port()?;
    let directory = TempDir::new().context("no directory for a server")?;
    command
        .arg(port.to_string())
        .arg(certificate.key())
        .arg(certificate.certificate());
    Server::start(name, command, directory, port, None)
}

/// lighttpd with one of its TLS modules: `mod_gnutls` or `mod_openssl`.
pub fn lighttpd(module: &str, certificate: &Certificate) -> anyhow::Result<Server> {
    let port = free_port()?;
    let directory = TempDir::new().context("no directory for a server")?;
    std::fs::write(directory.path().join("file.txt"), "x".repeat(2000))?;
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    let configuration = format!(
        "server.document-root = {}\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
         server.modules = (\"{module}\")\nserver.max-keep-alive-requests = 100000\n\
         ssl.engine = \"enable\"\nssl.pemfile = {}\nssl.privkey = {}\n",
        quoted(directory.path()),
        quoted(&certificate.certificate()),
        quoted(&certificate.key()),
    );
    let path = directory.path().join("lighttpd.conf");
    std::fs::write(&path, configuration)?;
    let mut command = Command::new("lighttpd");
    command.arg("-D").arg("-f").arg(path);
    Server::start(module, command, directory, port, None)
}

/// GnuTLS's own example server: one connection for each request.
pub fn gnutls_serv(certificate: &Certificate) -> anyhow::Result<Server> {
    let port = free_port()?;
    let directory = TempDir::new().context("no directory for a server")?;
    let mut command = Command::new("gnutls-serv");
    command
        .args(["--quiet", "--http", "--port", &port.to_string()])
        .arg("--x509certfile")
        .arg(certificate.certificate())
        .arg("--x509keyfile")
        .arg(certificate.key());
    Server::start("gnutls-serv", command, directory, port, None)
}
