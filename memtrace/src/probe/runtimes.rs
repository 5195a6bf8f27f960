//! The language runtimes of one traced process whose contexts are read: which
//! are attached, and why others are not.
//!
//! In: a process. Out: its probes in place, and what keeps its contexts from
//! being read, in words. A runtime that is not known in every detail is left
//! alone and named.

use super::{attach::Links, greenlet, load::Kernel, python};

/// What has become of the runtimes of a process.
#[derive(Debug, Default)]
pub struct Runtimes {
    /// CPython is read, or cannot be.
    python: bool,
    /// greenlet is followed, or cannot be.
    greenlet: bool,
    trouble: Vec<String>,
}

impl Runtimes {
    /// Attaches to the runtimes that are there now. Returns whether there is
    /// new trouble.
    pub fn attach(&mut self, kernel: &mut Kernel, links: &mut Links, pid: u32) -> bool {
        let before = self.trouble.len();
        if !self.python
            && let Some(found) = python::find(pid).transpose()
        {
            self.python = true;
            if let Err(error) = found
                .map_err(|error| error.to_string())
                .and_then(|python| read_contexts(kernel, links, pid, &python))
            {
                self.trouble
                    .push(format!("asyncio tasks are not told apart: {error}"));
            }
        }
        if !self.greenlet
            && let Some(found) = greenlet::find(pid).transpose()
        {
            self.greenlet = true;
            if let Err(error) = found.map_err(|error| error.to_string()).and_then(|found| {
                links
                    .attach_greenlets(kernel, pid, &found)
                    .map_err(|error| error.to_string())
            }) {
                self.trouble
                    .push(format!("greenlets are not told apart: {error}"));
            }
        }
        self.trouble.len() != before
    }

    /// What could not be attached to, and why.
    pub fn trouble(&self) -> &[String] {
        &self.trouble
    }
}

/// What a trace of this process would say: each reader's subject, and what it
/// reads or why it does not.
pub fn examine(pid: u32) -> Vec<(&'static str, Result<String, String>)> {
    let mut found = Vec::new();
    if let Some(python) = python::find(pid).transpose() {
        let told = python
            .map(|python| format!("told apart (CPython 3.{})", python.minor))
            .map_err(|error| format!("not told apart: {error}"));
        found.push(("asyncio tasks", told));
    }
    if let Some(greenlet) = greenlet::find(pid).transpose() {
        let told = greenlet
            .map(|_| "told apart".to_owned())
            .map_err(|error| format!("not told apart: {error}"));
        found.push(("greenlets", told));
    }
    found
}

fn read_contexts(
    kernel: &mut Kernel,
    links: &mut Links,
    pid: u32,
    python: &python::Python,
) -> Result<(), String> {
    links
        .attach_contexts(kernel, pid, python)
        .map_err(|error| error.to_string())?;
    kernel
        .set_target(pid, python.target)
        .map_err(|error| error.to_string())
}
