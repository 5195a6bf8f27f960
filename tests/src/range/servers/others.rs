//! Servers of the same models that run no code of the user's: haproxy and
//! lighttpd. Their requests are known, their bytes are not.

use std::fs;
use std::process::Command;

use anyhow::Context;

use super::directory;
use crate::range::backends::Backends;
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::{Bytes, Counts, Lengths, Started, Subject};
use crate::server::{Server, Serving, free_port};

/// The subjects without known bytes.
pub fn subjects() -> Vec<Subject> {
    let subject = |name, model, endpoints, start| Subject {
        name,
        model,
        bytes: Bytes::Unknown,
        driver: Driver::Http1,
        lengths: Lengths::AsSent,
        endpoints,
        start,
    };
    vec![
        subject(
            "haproxy",
            "event loop, upstream HTTP",
            || {
                ["/alloc/1000", "/later/1000", "/body/20000"]
                    .map(Endpoint::overhead)
                    .to_vec()
            },
            haproxy,
        ),
        subject(
            "lighttpd",
            "event loop",
            || {
                ["/small.bin", "/large.bin"]
                    .map(Endpoint::overhead)
                    .to_vec()
            },
            lighttpd,
        ),
    ]
}

fn haproxy(backends: &Backends) -> anyhow::Result<Started> {
    let backend = Server::alloc_server(Serving::Epoll, None)?;
    let directory = directory("haproxy")?;
    let port = free_port()?;
    let path = directory.path().join("haproxy.cfg");
    let configuration = format!(
        "global\n    log stdout format raw local0\n    maxconn 2000\n    nbthread 2\n\
         defaults\n    mode http\n    log global\n    log-format \"%HM %HP %HV %ST\"\n    \
         timeout connect 10s\n    timeout client 60s\n    timeout server 60s\n\
         frontend range\n    bind 127.0.0.1:{port}\n    default_backend behind\n\
         backend behind\n    server one 127.0.0.1:{}\n",
        backend.port()
    );
    fs::write(&path, configuration).context("cannot write haproxy's configuration")?;
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&path);
    let server = Server::start("haproxy", command, directory, port, backends.shim())?;
    // Standard output is where it logs.
    Ok(Started::direct(
        server,
        vec![backend],
        Counts::Log("output.log"),
    ))
}

fn lighttpd(backends: &Backends) -> anyhow::Result<Started> {
    let directory = directory("lighttpd")?;
    let port = free_port()?;
    let files = directory.path().join("www");
    fs::create_dir(&files)?;
    fs::write(files.join("small.bin"), vec![b'x'; 2000])?;
    fs::write(files.join("large.bin"), vec![b'x'; 200_000])?;
    let path = directory.path().join("lighttpd.conf");
    let configuration = format!(
        "server.modules = (\"mod_accesslog\")\nserver.port = {port}\n\
         server.bind = \"127.0.0.1\"\nserver.document-root = \"{}\"\n\
         server.max-keep-alive-requests = 100000\nserver.max-keep-alive-idle = 60\n\
         server.max-connections = 1000\n\
         accesslog.filename = \"{}\"\naccesslog.format = \"%m %U %H %s\"\n",
        files.display(),
        directory.path().join("access.log").display()
    );
    fs::write(&path, configuration).context("cannot write lighttpd's configuration")?;
    let mut command = Command::new("lighttpd");
    command.args(["-D", "-f"]).arg(&path);
    let server = Server::start("lighttpd", command, directory, port, backends.shim())?;
    Ok(Started::direct(
        server,
        Vec::new(),
        Counts::Log("access.log"),
    ))
}
