//! nginx with two workers: a static file, and a location proxied to the C
//! server.
//!
//! In: the template `programs/nginx/nginx.conf`. Out: a running server, and the
//! counts of its access log. Deliberately not here: the system's own nginx and
//! its configuration.

use std::fs;
use std::process::Command;

use anyhow::Context;
use tempfile::TempDir;

use crate::paths;
use crate::process::{self, wait_until};
use crate::server::{RequestCounts, Server, Serving, free_port};
use crate::shim::CountingShim;
use crate::tls::Certificate;

/// nginx and the server behind it.
#[derive(Debug)]
pub struct Nginx {
    // Dropped in this order: nginx first.
    server: Server,
    backend: Server,
}

/// Bytes of the static file `/file.txt`.
pub const FILE_BYTES: usize = 2000;

impl Nginx {
    /// Starts both; ready when both workers run. The shim is preloaded into
    /// nginx only.
    pub fn start(shim: Option<&CountingShim>) -> anyhow::Result<Self> {
        Self::start_with(shim, None)
    }

    /// Starts both, nginx over TLS.
    pub fn start_tls(certificate: &Certificate) -> anyhow::Result<Self> {
        Self::start_with(None, Some(certificate))
    }

    fn start_with(
        shim: Option<&CountingShim>,
        certificate: Option<&Certificate>,
    ) -> anyhow::Result<Self> {
        let backend = Server::alloc_server(Serving::Epoll, None)?;
        let directory = TempDir::new().context("no directory for nginx")?;
        let port = free_port()?;
        let source = paths::program_source("nginx/nginx.conf");
        let configuration = fs::read_to_string(&source)
            .with_context(|| format!("cannot read {}", source.display()))?
            .replace("{{directory}}", &directory.path().to_string_lossy())
            .replace("{{port}}", &port.to_string())
            .replace("{{backend}}", &format!("127.0.0.1:{}", backend.port()))
            .replace("{{tls}}", certificate.map_or("", |_| "ssl"))
            .replace(
                "{{certificate}}",
                &certificate.map_or_else(String::new, |certificate| {
                    format!(
                        "ssl_certificate {}; ssl_certificate_key {};\n\
                         location /secure/ {{ proxy_pass https://127.0.0.1:{port}/; }}",
                        certificate.certificate().display(),
                        certificate.key().display()
                    )
                }),
            );
        let path = directory.path().join("nginx.conf");
        fs::write(&path, configuration).context("cannot write nginx's configuration")?;
        fs::create_dir(directory.path().join("www"))?;
        fs::write(
            directory.path().join("www/file.txt"),
            "x".repeat(FILE_BYTES),
        )?;

        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(&path);
        // Else it opens the system's error log before it reads its configuration.
        command.arg("-e").arg(directory.path().join("error.log"));
        let nginx = Self {
            server: Server::start("nginx", command, directory, port, shim)?,
            backend,
        };
        nginx.wait_for_workers()?;
        Ok(nginx)
    }

    /// Waits until two workers run.
    pub fn wait_for_workers(&self) -> anyhow::Result<()> {
        wait_until("nginx's two workers", || {
            let workers = process::children(self.server.pid());
            Ok(workers.len() == 2
                && workers.iter().all(|worker| {
                    fs::read_to_string(format!("/proc/{worker}/cmdline"))
                        .is_ok_and(|title| title.contains("worker process"))
                }))
        })
    }

    /// nginx itself.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The C server behind `/proxied/`.
    #[must_use]
    pub fn backend(&self) -> &Server {
        &self.backend
    }

    /// Requests by path and status, from the access log. A line is written
    /// just after the answer, so wait for `expected` of them.
    pub fn counts(&self, expected: u64) -> anyhow::Result<RequestCounts> {
        let path = self.server.directory().join("access.log");
        let mut log = String::new();
        wait_until("nginx's log to have a line for each request", || {
            log = fs::read_to_string(&path).context("cannot read nginx's log")?;
            Ok(log.lines().count() as u64 >= expected)
        })?;
        let mut counts = RequestCounts::new();
        for line in log.lines() {
            // `GET /path HTTP/1.1 200`
            let mut words = line.split(' ');
            let path = words.nth(1).unwrap_or_default();
            let status = words.next_back().unwrap_or_default();
            *counts
                .entry(path.to_owned())
                .or_default()
                .entry(status.to_owned())
                .or_default() += 1;
        }
        Ok(counts)
    }
}
