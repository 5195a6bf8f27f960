//! The subjects of the range.
//!
//! In: nothing. Out: every [`Subject`], in the order of the table. Deliberately
//! not here: how each is started; see the files of this directory.

mod apache;
mod go;
mod nginx;
mod node;
mod others;
mod php;
mod python;
mod ruby;
mod tomcat;

use std::process::Command;

use super::Subject;
use super::backends::Backends;
use super::{Counts, Started};
use crate::server::Server;

/// Every subject.
#[must_use]
pub fn all() -> Vec<Subject> {
    let mut subjects = nginx::subjects();
    subjects.extend(php::subjects());
    subjects.extend(apache::subjects());
    subjects.extend(python::subjects());
    subjects.extend(node::subjects());
    subjects.extend(go::subjects());
    subjects.extend(tomcat::subjects());
    subjects.extend(ruby::subjects());
    subjects.extend(others::subjects());
    subjects
}

/// A server that is told where the databases are and counts at `/counts`.
fn with_backends(
    backends: &Backends,
    name: &str,
    mut command: Command,
    port: u16,
) -> anyhow::Result<Started> {
    let directory = directory(name)?;
    backends.name_in(&mut command);
    let server = Server::start(name, command, directory, port, backends.shim())?;
    Ok(Started::direct(server, Vec::new(), Counts::Endpoint))
}

/// An empty directory that every user may enter: servers leave root behind.
fn directory(name: &str) -> anyhow::Result<tempfile::TempDir> {
    use anyhow::Context as _;
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::TempDir::new().with_context(|| format!("no directory for {name}"))?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("the directory of {name} cannot be opened up"))?;
    Ok(directory)
}
