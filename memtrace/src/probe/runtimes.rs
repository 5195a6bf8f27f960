//! The language runtimes of one traced process whose contexts are read: which
//! are attached, and why others are not.
//!
//! In: a process. Out: its probes in place, and what keeps its contexts from
//! being read, in words. A runtime that is not known in every detail is left
//! alone and named.

use memtrace_common::config::Target;

use super::{attach::Links, greenlet, load::Kernel, node, python, runtime::go, turns};
use crate::event::{ASYNCIO_UNTOLD, GREENLETS_UNTOLD, NODE_UNTOLD};

/// What has become of the runtimes of a process.
#[derive(Debug, Default)]
pub struct Runtimes {
    /// CPython is read, or cannot be.
    python: bool,
    /// Which futexes are the runtime's own is known.
    turns: bool,
    /// greenlet is followed, or cannot be.
    greenlet: bool,
    /// Node's callbacks are followed, or cannot be.
    node: bool,
    /// The kernel half has met callbacks that it cannot follow.
    node_unread: bool,
    go: go::Followed,
    trouble: Vec<String>,
}

/// What [`examine`] calls a heap that stands in for an allocator.
pub const GO: &str = "Go's heap and goroutines";

impl Runtimes {
    /// Attaches to the runtimes that are there now. Returns whether what is known
    /// of the process has changed.
    pub fn attach(&mut self, kernel: &mut Kernel, links: &mut Links, pid: u32) -> bool {
        let go_changed = self.go.probe(pid, kernel, links);
        let before = self.trouble.len();
        if !self.python
            && let Some(found) = python::find(pid).transpose()
        {
            self.python = true;
            if let Err(error) = found
                .map_err(|error| error.to_string())
                .and_then(|python| read_contexts(kernel, links, pid, &python))
            {
                self.trouble.push(format!("{ASYNCIO_UNTOLD}: {error}"));
            }
        }
        if !self.turns
            && let Ok(Some(own)) = turns::of_process(pid)
        {
            self.turns = true;
            let told = kernel.change_target(pid, |target| Target {
                locks_from: own.start,
                locks_until: own.end,
                ..target
            });
            if let Err(error) = told {
                self.trouble
                    .push(format!("threads that wake each other mislead: {error}"));
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
                self.trouble.push(format!("{GREENLETS_UNTOLD}: {error}"));
            }
        }
        if !self.node
            && let Some(found) = node::find(pid).transpose()
        {
            self.node = true;
            if let Err(error) = found.map_err(|error| error.to_string()).and_then(|found| {
                links
                    .attach_node(kernel, pid, &found)
                    .map_err(|error| error.to_string())
            }) {
                self.trouble.push(format!("{NODE_UNTOLD}: {error}"));
            }
        }
        go_changed || self.trouble.len() != before
    }

    /// Looks whether the kernel half has met something that people must be told.
    /// Returns whether the trouble has changed.
    pub fn look(&mut self, pid: u32, kernel: &mut Kernel) -> bool {
        let is_unread = |target: Target| target.node_unread != 0;
        let met = self.node && !self.node_unread && kernel.target(pid).is_ok_and(is_unread);
        if met {
            self.node_unread = true;
            let error = node::NodeError::Layout;
            self.trouble.push(format!("{NODE_UNTOLD}: {error}"));
        }
        met
    }

    /// What could not be attached to, and why.
    pub fn trouble(&self) -> Vec<String> {
        [self.go.trouble(), &self.trouble].concat()
    }

    /// The heap that is probed in place of an allocator, for people.
    pub fn heap(&self) -> Option<&str> {
        self.go.described()
    }

    /// The name of the type that is described at this address, if it has one and
    /// was not asked for before.
    pub fn new_type(&mut self, address: u64) -> Option<String> {
        self.go.new_type(address)
    }
}

/// What a trace of this process would say: each reader's subject, and what it
/// reads or why it does not.
pub fn examine(pid: u32) -> Vec<(&'static str, Result<String, String>)> {
    let mut found = Vec::new();
    if let Some(go) = go::find(pid).transpose() {
        let told = go
            .map(|go| {
                let sites: usize = go.sites.by_program().iter().map(|(_, s)| s.len()).sum();
                let mut words = format!("{}, {sites} probes at entries", go.describe());
                for trouble in &go.trouble {
                    words.push_str("; ");
                    words.push_str(trouble);
                }
                words
            })
            .map_err(|error| format!("not seen: {error}"));
        found.push((GO, told));
    }
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
    if let Some(node) = node::find(pid).transpose() {
        let told = node
            .map(|node| match (node.makes_jobs.is_empty(), node.settles) {
                (false, _) => "told apart".to_owned(),
                (true, Some(_)) => "told apart, but not the continuations of promises".to_owned(),
                (true, None) => {
                    "told apart, but not the continuations of promises, nor timers that settle \
                     them"
                        .to_owned()
                }
            })
            .map_err(|error| format!("not told apart: {error}"));
        found.push(("Node's callbacks", told));
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
    let Target {
        thread_state_at,
        context_offset,
        thread_id_offset,
        ..
    } = python.target;
    kernel
        .change_target(pid, |target| Target {
            thread_state_at,
            context_offset,
            thread_id_offset,
            ..target
        })
        .map_err(|error| error.to_string())
}
