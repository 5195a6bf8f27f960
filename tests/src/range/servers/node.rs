//! Node, http and https.
//!
//! In: the program in `programs/range/node`. Out: subjects.

use std::process::Command;

use super::with_backends;
use crate::paths;
use crate::range::backends::Backends;
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::{Bytes, Lengths, Started, Subject};
use crate::server::free_port;

const BYTES: u64 = 5_000_000;

/// The length of the file that the program makes for itself.
const FILE_BYTES: u64 = 5_000_000;

fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::overhead("/plain"),
        Endpoint::asked("/freed", BYTES),
        Endpoint::asked("/later", BYTES),
        Endpoint::kept("/kept", BYTES),
        Endpoint::asked("/sleep", BYTES),
        Endpoint::asked("/database", BYTES),
        Endpoint::asked("/cache", BYTES),
        Endpoint::asked("/gather", BYTES),
        Endpoint::fixed("/file", FILE_BYTES),
    ]
}

/// The Node subjects.
pub fn subjects() -> Vec<Subject> {
    let http = Subject {
        name: "Node http",
        model: "event loop",
        bytes: Bytes::Libc,
        driver: Driver::Http1,
        lengths: Lengths::AsSent,
        endpoints,
        start: |backends| start(backends, false),
    };
    let https = Subject {
        name: "Node https",
        model: "event loop, TLS",
        driver: Driver::Https1,
        start: |backends| start(backends, true),
        ..http
    };
    vec![http, https]
}

fn start(backends: &Backends, tls: bool) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut command = Command::new("node");
    command
        .arg(paths::program_source("range/node/app.js"))
        .arg(port.to_string());
    if tls {
        let certificate = backends.certificate();
        command.args([certificate.key(), certificate.certificate()]);
    }
    with_backends(backends, "node", command, port)
}
