//! Resources of Node, which make each other and have their callbacks run.
//!
//! In: which resources were made. Out: for whom each works: for whom the callback
//! works that made it. What its own callbacks do is known by that, as for any
//! context (`context`); the resource of a connection works for whoever is served
//! by what comes on it.

use super::{Attributed, Attributor};
use memtrace_common::event::ContextKind;

/// Resources made between two facts that are remembered, the last of them.
const MADE_MAX: u64 = 1024;

impl Attributor {
    /// All resources from `first` to `last` were made by what the thread does.
    pub(super) fn resources_made(
        &mut self,
        pid: u32,
        tid: u32,
        (first, last): (u64, u64),
        out: &mut Vec<Attributed>,
    ) {
        let first = first.max(last.saturating_sub(MADE_MAX - 1));
        for resource in first..=last {
            self.context_made(pid, tid, resource, 0, ContextKind::Node, out);
        }
    }
}
