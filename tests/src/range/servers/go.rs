//! Go's net/http, http and https.
//!
//! In: the program in `programs/range/go`. Out: subjects.

use std::process::Command;

use super::with_backends;
use crate::programs;
use crate::range::backends::Backends;
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::{Bytes, Lengths, Started, Subject};
use crate::server::free_port;

const BYTES: u64 = 2_000_000;

fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::overhead("/plain"),
        Endpoint::asked("/freed", BYTES),
        Endpoint::asked("/later", BYTES),
        Endpoint::asked("/elsewhere", BYTES),
        Endpoint::kept("/kept", BYTES),
        Endpoint::asked("/sleep", BYTES),
        Endpoint::asked("/database", BYTES),
        Endpoint::asked("/cache", BYTES),
        Endpoint::asked("/gather", BYTES),
    ]
}

/// The Go subjects.
pub fn subjects() -> Vec<Subject> {
    let http = Subject {
        name: "Go net/http",
        model: "goroutines",
        bytes: Bytes::Runtime,
        driver: Driver::Http1,
        lengths: Lengths::AsSent,
        endpoints,
        start: |backends| start(backends, false),
    };
    let https = Subject {
        name: "Go https",
        model: "goroutines, TLS",
        driver: Driver::Https1,
        start: |backends| start(backends, true),
        ..http
    };
    let http2 = Subject {
        name: "Go HTTP/2",
        model: "goroutines, TLS, streams",
        driver: Driver::Https2,
        lengths: Lengths::InOrder,
        ..https
    };
    vec![http, https, http2]
}

fn start(backends: &Backends, tls: bool) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut command = Command::new(programs::range_go()?);
    command.arg(port.to_string());
    if tls {
        let certificate = backends.certificate();
        command.args([certificate.key(), certificate.certificate()]);
    }
    with_backends(backends, "range-go", command, port)
}
