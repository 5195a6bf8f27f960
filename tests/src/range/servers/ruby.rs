//! puma.
//!
//! In: the application in `programs/range/ruby`. Out: a subject.

use std::process::Command;

use super::with_backends;
use crate::paths;
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::{Bytes, Lengths, Subject};
use crate::server::free_port;

const BYTES: u64 = 5_000_000;

/// The Ruby subjects.
pub fn subjects() -> Vec<Subject> {
    vec![Subject {
        name: "puma",
        model: "a reactor, threads",
        bytes: Bytes::Libc,
        driver: Driver::Http1,
        lengths: Lengths::AsSent,
        endpoints: || {
            vec![
                Endpoint::overhead("/plain"),
                Endpoint::asked("/freed", BYTES),
                Endpoint::asked("/later", BYTES),
                Endpoint::kept("/kept", BYTES),
                Endpoint::asked("/sleep", BYTES),
                Endpoint::asked("/database", BYTES),
                Endpoint::asked("/cache", BYTES),
                Endpoint::asked("/thread", BYTES),
            ]
        },
        start: |backends| {
            let port = free_port()?;
            let mut command = Command::new("puma");
            command
                .args(["--threads", "8:8", "--workers", "0", "--quiet"])
                .args(["--environment", "production", "--bind"])
                .arg(format!("tcp://127.0.0.1:{port}?backlog=1024"))
                .arg(paths::program_source("range/ruby/config.ru"));
            with_backends(backends, "puma", command, port)
        },
    }]
}
