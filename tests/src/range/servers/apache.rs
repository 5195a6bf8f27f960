//! Apache with its three ways of serving: event, worker and prefork.
//!
//! In: the configuration and the Lua handlers in `programs/range/apache`. Out:
//! subjects. A keep-alive connection occupies a worker and prefork thread; there
//! the client's connections are as many as threads at most, and the rest waits.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context;

use super::directory;
use crate::paths;
use crate::range::backends::Backends;
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::{Bytes, Counts, Lengths, Started, Subject};
use crate::server::{Server, free_port};

const BYTES: u64 = 5_000_000;

/// The Apache subjects.
pub fn subjects() -> Vec<Subject> {
    let subject = |name, model, start| Subject {
        name,
        model,
        bytes: Bytes::Libc,
        driver: Driver::Http1,
        lengths: Lengths::AsSent,
        endpoints: || {
            vec![
                Endpoint::overhead("/plain.txt"),
                Endpoint::asked("/freed", BYTES),
                Endpoint::asked("/at-once", BYTES),
            ]
        },
        start,
    };
    vec![
        subject("Apache event", "a listener, threads", |backends| {
            start(backends, "event")
        }),
        subject("Apache worker", "threads", |backends| {
            start(backends, "worker")
        }),
        subject("Apache prefork", "processes", |backends| {
            start(backends, "prefork")
        }),
    ]
}

fn start(backends: &Backends, mpm: &str) -> anyhow::Result<Started> {
    let directory = directory("Apache")?;
    let port = free_port()?;
    let read = |name: &str| {
        let source = paths::program_source(name);
        fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))
    };
    let configuration = read("range/apache/apache.conf")?
        .replace("{{directory}}", &directory.path().to_string_lossy())
        .replace("{{port}}", &port.to_string())
        .replace("{{mpm}}", mpm);
    let path = directory.path().join("apache.conf");
    fs::write(&path, configuration).context("cannot write Apache's configuration")?;
    fs::write(
        directory.path().join("range.lua"),
        read("range/apache/range.lua")?,
    )?;
    fs::create_dir(directory.path().join("www"))?;
    fs::write(directory.path().join("www/plain.txt"), "plain\n")?;
    let mut command = Command::new("/usr/sbin/apache2");
    command.arg("-f").arg(&path).arg("-DFOREGROUND");
    // When it ends, it ends its process group.
    command.process_group(0);
    let server = Server::start("Apache", command, directory, port, backends.shim())?;
    Ok(Started::direct(
        server,
        Vec::new(),
        Counts::Log("access.log"),
    ))
}
