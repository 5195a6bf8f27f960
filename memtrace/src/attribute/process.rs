//! The traced processes, numbered in the order in which the trace met them.

use std::collections::HashMap;

use crate::{
    attribute::{Attributed, ProcessIndex},
    event::{Origin, ProcessFact},
    id::{ProcessId, RequestId},
    protocol::route::{self, RouteTable},
};

/// Distinct routes kept for one process; the rest is one row.
pub const ROUTES_MAX: usize = 500;

/// Sizes of tasks' cells kept for one process; tasks of others are told by who has
/// spawned them alone.
const CELLS_MAX: usize = 256;

#[derive(Debug)]
struct Process {
    id: ProcessId,
    fact: Option<ProcessFact>,
    origin: Origin,
    served: bool,
    /// See [`Processes::set_takes_turns`].
    takes_turns: bool,
    has_tasks: bool,
    /// Bytes of tasks' cells.
    cells: Vec<u64>,
    /// The first request that began when all of them were known.
    cells_from: RequestId,
    routes: RouteTable,
}

/// All processes, living and ended.
#[derive(Debug, Default)]
pub struct Processes {
    all: Vec<Process>,
    living: HashMap<u32, ProcessIndex>,
}

impl Processes {
    /// The process that has this id now; met for the first time if need be.
    pub fn of_pid(&mut self, pid: u32, out: &mut Vec<Attributed>) -> ProcessIndex {
        match self.living.get(&pid) {
            Some(index) => *index,
            None => self.begin(ProcessId { pid, start_ns: 0 }, Origin::Attached, out),
        }
    }

    /// The process that has this id now, if one is known.
    pub fn known(&self, pid: u32) -> Option<ProcessIndex> {
        self.living.get(&pid).copied()
    }

    /// Whether the process known under this number is surely another one.
    pub fn is_another(&self, process: ProcessId) -> bool {
        self.known(process.pid)
            .and_then(|index| self.get(index))
            .is_some_and(|known| known.id.start_ns != 0 && known.id != process)
    }

    fn begin(&mut self, id: ProcessId, origin: Origin, out: &mut Vec<Attributed>) -> ProcessIndex {
        let index = ProcessIndex(self.all.len() as u32);
        self.all.push(Process {
            id,
            fact: None,
            origin,
            served: false,
            takes_turns: false,
            has_tasks: false,
            cells: Vec::new(),
            cells_from: RequestId(0),
            routes: RouteTable::new(ROUTES_MAX),
        });
        self.living.insert(id.pid, index);
        out.push(Attributed::ProcessBegin { index, process: id });
        index
    }

    /// A traced process forked; the child is traced.
    pub fn forked(
        &mut self,
        parent_pid: u32,
        child: ProcessId,
        out: &mut Vec<Attributed>,
    ) -> ProcessIndex {
        // The collector may have looked at the child before its fork was read.
        if let Some(index) = self.known(child.pid)
            && self.get(index).is_some_and(|process| process.id == child)
        {
            return index;
        }
        let parent = self.known(parent_pid);
        let inherited = parent.and_then(|parent| self.get(parent)?.fact.clone());
        let index = self.begin(child, Origin::Joined, out);
        if let Some(mut fact) = inherited {
            fact.process = child;
            fact.parent_pid = parent_pid;
            fact.origin = Origin::Joined;
            fact.probed_after_ns = 0;
            self.describe(index, fact, out);
        }
        index
    }

    /// The collector has looked at a process. A start time other than the known
    /// one means another process with the same number.
    pub fn described(&mut self, fact: &ProcessFact, out: &mut Vec<Attributed>) {
        let id = fact.process;
        let index = match self.living.get(&id.pid) {
            Some(index)
                if self
                    .get(*index)
                    .is_some_and(|process| process.id.start_ns == id.start_ns) =>
            {
                *index
            }
            // Met by its events before it was looked at: the same process.
            Some(index)
                if self
                    .get(*index)
                    .is_some_and(|process| process.id.start_ns == 0) =>
            {
                let index = *index;
                if let Some(process) = self.all.get_mut(index.0 as usize) {
                    process.id = id;
                    process.origin = fact.origin;
                }
                index
            }
            _ => self.begin(id, fact.origin, out),
        };
        self.describe(index, fact.clone(), out);
    }

    fn describe(&mut self, index: ProcessIndex, fact: ProcessFact, out: &mut Vec<Attributed>) {
        if let Some(process) = self.all.get_mut(index.0 as usize) {
            process.fact = Some(fact.clone());
            out.push(Attributed::ProcessDescribed { index, fact });
        }
    }

    /// The process with this id has ended. Its number may be used again.
    pub fn ended(&mut self, pid: u32) -> Option<ProcessIndex> {
        let index = self.living.remove(&pid)?;
        if let Some(process) = self.all.get_mut(index.0 as usize) {
            process.routes = RouteTable::new(0);
        }
        Some(index)
    }

    /// A message was received in this process.
    pub fn set_served(&mut self, index: ProcessIndex) {
        if let Some(process) = self.all.get_mut(index.0 as usize) {
            process.served = true;
        }
    }

    /// Whether a message was received in this process.
    pub fn has_served(&self, index: ProcessIndex) -> bool {
        self.get(index).is_some_and(|process| process.served)
    }

    /// Whether the plaintext of TLS sessions of this process can be seen.
    pub fn reads_tls(&self, index: ProcessIndex) -> bool {
        self.get(index)
            .and_then(|process| process.fact.as_ref())
            .is_some_and(|fact| !fact.tls.is_empty())
    }

    /// A thread of it has turned to a task of tokio's.
    pub fn set_has_tasks(&mut self, index: ProcessIndex) {
        if let Some(process) = self.all.get_mut(index.0 as usize) {
            process.has_tasks = true;
        }
    }

    /// Whether its threads work for tasks of tokio's.
    pub fn has_tasks(&self, index: ProcessIndex) -> bool {
        self.get(index).is_some_and(|process| process.has_tasks)
    }

    /// A block of so many bytes was the cell of a task; `next`: the request that
    /// begins next.
    pub fn learn_cell(&mut self, index: ProcessIndex, size: u64, next: RequestId) {
        if let Some(process) = self.all.get_mut(index.0 as usize)
            && process.cells.len() < CELLS_MAX
            && !process.cells.contains(&size)
        {
            process.cells.push(size);
            process.cells_from = next;
        }
    }

    /// If cells of tasks are of so many bytes: the first request that began when
    /// those of all kinds that are known now were known.
    pub fn cells_from(&self, index: ProcessIndex, size: u64) -> Option<RequestId> {
        let process = self.get(index)?;
        process.cells.contains(&size).then_some(process.cells_from)
    }

    /// Several of its threads take turns at connections that carry several
    /// exchanges at once, and one of them answered another request than it was
    /// taken to work for.
    pub fn set_takes_turns(&mut self, index: ProcessIndex) {
        if let Some(process) = self.all.get_mut(index.0 as usize) {
            process.takes_turns = true;
        }
    }

    /// Whether its threads take turns at connections that carry several exchanges
    /// at once.
    pub fn takes_turns(&self, index: ProcessIndex) -> bool {
        self.get(index).is_some_and(|process| process.takes_turns)
    }

    /// Whether its event loop runs tasks that cannot be told apart.
    pub fn mixes_tasks(&self, index: ProcessIndex) -> bool {
        self.get(index)
            .and_then(|process| process.fact.as_ref())
            .is_some_and(|fact| fact.runtime == "node")
    }

    /// Whether its threads may turn from one request to another without a sign.
    pub fn has_untold_tasks(&self, index: ProcessIndex) -> bool {
        self.get(index)
            .and_then(|process| process.fact.as_ref())
            .is_some_and(ProcessFact::has_untold_tasks)
    }

    /// Whether the process ran before the trace began.
    pub fn was_attached(&self, index: ProcessIndex) -> bool {
        self.get(index)
            .is_none_or(|process| process.origin == Origin::Attached)
    }

    /// Method and route template of a request, bounded for each process.
    pub fn route(&mut self, index: ProcessIndex, method: &str, target: &str) -> (String, String) {
        match self.all.get_mut(index.0 as usize) {
            Some(process) => {
                let row = process.routes.fold(method, &route::template(target));
                (row.method, row.route)
            }
            None => (method.to_owned(), target.to_owned()),
        }
    }

    fn get(&self, index: ProcessIndex) -> Option<&Process> {
        self.all.get(index.0 as usize)
    }
}
