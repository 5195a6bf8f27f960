//! Tomcat.
//!
//! In: the servlet and the configuration in `programs/range/java`. Out: a
//! subject.

use std::fs;
use std::process::Command;

use anyhow::Context;

use super::directory;
use crate::range::backends::Backends;
use crate::range::drive::Driver;
use crate::range::endpoint::Endpoint;
use crate::range::{Bytes, Counts, Lengths, Started, Subject};
use crate::server::{Server, free_port};
use crate::{paths, programs};

const BYTES: u64 = 2_000_000;

/// Where Debian's package keeps Tomcat.
const HOME: &str = "/usr/share/tomcat10";

/// The Tomcat subjects.
pub fn subjects() -> Vec<Subject> {
    vec![Subject {
        name: "Tomcat",
        model: "acceptor, poller, threads",
        bytes: Bytes::Managed,
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
        start,
    }]
}

fn start(backends: &Backends) -> anyhow::Result<Started> {
    let directory = directory("Tomcat")?;
    let port = free_port()?;
    let base = directory.path();
    let application = base.join("webapps/ROOT/WEB-INF");
    for made in ["conf", "logs", "temp", "work"] {
        fs::create_dir(base.join(made))?;
    }
    fs::create_dir_all(application.join("lib"))?;
    let source = |name: &str| paths::program_source(&format!("range/java/{name}"));
    let server = fs::read_to_string(source("server.xml"))?.replace("{{port}}", &port.to_string());
    fs::write(base.join("conf/server.xml"), server)?;
    fs::copy(source("web.xml"), application.join("web.xml"))?;
    // Copies, as Tomcat follows no links.
    fs::create_dir(application.join("classes"))?;
    for class in fs::read_dir(programs::range_servlet()?)? {
        let class = class?;
        fs::copy(
            class.path(),
            application.join("classes").join(class.file_name()),
        )?;
    }
    fs::copy(
        "/usr/share/java/postgresql.jar",
        application.join("lib/postgresql.jar"),
    )
    .context("no JDBC driver: run `cargo xtask setup`")?;

    let mut command = Command::new("java");
    command
        .args(["-Xms1g", "-Xmx1g", "-cp"])
        .arg(format!(
            "{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar"
        ))
        .arg(format!("-Dcatalina.home={HOME}"))
        .arg(format!("-Dcatalina.base={}", base.display()))
        .arg(format!("-Djava.io.tmpdir={}", base.join("temp").display()))
        .args(["org.apache.catalina.startup.Bootstrap", "start"]);
    backends.name_in(&mut command);
    let server = Server::start("Tomcat", command, directory, port, None)
        .context("run `cargo xtask setup` if it is not installed")?;
    Ok(Started::direct(server, Vec::new(), Counts::Endpoint))
}
