//! php-fpm, asked through nginx.
//!
//! In: the script in `programs/range/php`. Out: a subject, and php-fpm behind
//! others.

use std::fs;
use std::process::Command;

use anyhow::Context;

use super::{directory, nginx};
use crate::paths;
use crate::process::{self, wait_until};
use crate::range::backends::Backends;
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::{Bytes, Counts, Lengths, Started, Subject};
use crate::server::{Server, free_port};

/// Large beside what PHP itself holds for a request, some 350 KiB.
const BYTES: u64 = 5_000_000;

/// The PHP subjects.
pub fn subjects() -> Vec<Subject> {
    vec![Subject {
        name: "php-fpm",
        model: "FastCGI, a process for each request",
        bytes: Bytes::Extent,
        driver: Driver::Http1,
        lengths: Lengths::InOrder,
        endpoints: || {
            vec![
                Endpoint::overhead("/plain"),
                Endpoint::asked("/freed", BYTES),
                Endpoint::asked("/at-once", BYTES),
                Endpoint::asked("/sleep", BYTES),
                Endpoint::asked("/cache", BYTES),
            ]
        },
        start: |backends| {
            let server = fpm(backends)?;
            let location = format!(
                "location / {{ {} fastcgi_param REQUEST_URI $uri; }}",
                pass(server.port())
            );
            Ok(Started {
                front: Some(nginx::start(&location, None)?),
                server,
                behind: Vec::new(),
                counts: Counts::Log("access.log"),
                asked: 0,
            })
        },
    }]
}

/// What a location of nginx needs to pass requests on, but for the URI.
pub fn pass(port: u16) -> String {
    format!(
        "fastcgi_pass 127.0.0.1:{port}; fastcgi_param REQUEST_METHOD $request_method; \
         fastcgi_param SCRIPT_NAME $uri; fastcgi_param SCRIPT_FILENAME {};",
        paths::program_source("range/php/range.php").display()
    )
}

/// php-fpm; ready when its processes run.
pub fn fpm(backends: &Backends) -> anyhow::Result<Server> {
    let directory = directory("php-fpm")?;
    let port = free_port()?;
    let source = paths::program_source("range/php/php-fpm.conf");
    let configuration = fs::read_to_string(&source)
        .with_context(|| format!("cannot read {}", source.display()))?
        .replace("{{directory}}", &directory.path().to_string_lossy())
        .replace("{{port}}", &port.to_string());
    let path = directory.path().join("php-fpm.conf");
    fs::write(&path, configuration).context("cannot write php-fpm's configuration")?;
    let mut command = Command::new(program()?);
    command
        .args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"])
        .arg(&path);
    backends.name_in(&mut command);
    let server = Server::start("php-fpm", command, directory, port, None)?;
    wait_until("php-fpm's processes", || {
        Ok(process::children(server.pid()).len() == 4)
    })?;
    Ok(server)
}

/// Debian's program has the version in its name.
fn program() -> anyhow::Result<std::path::PathBuf> {
    let mut found: Vec<_> = fs::read_dir("/usr/sbin")
        .context("cannot read /usr/sbin")?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("php-fpm"))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
        .pop()
        .context("no php-fpm in /usr/sbin: run `cargo xtask setup`")
}
