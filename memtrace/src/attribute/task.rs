//! tokio's tasks: for whom each works.
//!
//! In: blocks as they are handed out and given back, and the tasks that threads
//! poll. Out: the tasks' contexts, as they are made and as they end.
//!
//! A task is known by its cell, a block of its own: whoever allocates that has
//! spawned the task. Which blocks are cells is told by their alignment, and, once
//! one of a size was polled, by their size. A server that answers several exchanges
//! of a connection at once (hyper) reads what there is, then spawns a task for each
//! exchange in the order in which they began: so does the order of the cells tell
//! whose each is, once their size is known.

use memtrace_common::event::ContextKind;

use super::{
    Attributed, Attributor, Claim, How, Owner, ProcessIndex,
    connection::ConnRef,
    strand::{BETWEEN, Origin, StrandId},
    work::Doing,
};
use crate::id::RequestId;

/// What cells are aligned to (tokio/src/runtime/task/core.rs), so that their
/// lengths are multiples of it as well.
const ALIGNMENT: u64 = 128;

impl Attributor {
    /// A block was handed out in a process with tasks: it may be the cell of one.
    pub(super) fn may_be_task(
        &mut self,
        pid: u32,
        tid: u32,
        addr: u64,
        size: u64,
        out: &mut Vec<Attributed>,
    ) {
        if size == 0 || !(addr | size).is_multiple_of(ALIGNMENT) {
            return;
        }
        let process = self.processes.of_pid(pid, out);
        let maker = self.strands.current(tid);
        let claimed = self.strands.doing(maker).and_then(Doing::claimed);
        self.context_made(pid, tid, addr, 0, ContextKind::Task, out);
        if let Some(context) = self.strands.context_mut(process, addr) {
            context.cell = size;
        }
        let Some(conn) = self.served_by(process, maker) else {
            return;
        };
        if !self.connections.is_multiplexed(conn) {
            return;
        }
        let from = self.processes.cells_from(process, size);
        let next = from.and_then(|from| self.connections.hand_on(conn, from));
        match next {
            Some(request) => {
                self.is_for_exchange(process, addr, request, out);
                // What is done for it from now on is done in the task.
                if claimed.is_some() {
                    self.strands.turn(maker, BETWEEN, None, out);
                }
            }
            None if self.connections.has_several(conn) => {
                if let Some(context) = self.strands.context_mut(process, addr) {
                    context.origin = Origin::OneOf(conn);
                }
            }
            None => {}
        }
    }

    /// The connection that a strand serves.
    fn served_by(&self, process: ProcessIndex, strand: StrandId) -> Option<ConnRef> {
        let StrandId::Context(_, context) = strand else {
            return None;
        };
        match self.strands.context(process, context)?.origin {
            Origin::Connection(conn) => Some(conn),
            Origin::Unknown
            | Origin::Request(_)
            | Origin::OneOf(_)
            | Origin::OneOfSeveral
            | Origin::Work(_)
            | Origin::Shared => None,
        }
    }

    /// The task with this cell, and the cell itself, is for this request.
    fn is_for_exchange(
        &mut self,
        process: ProcessIndex,
        cell: u64,
        request: RequestId,
        out: &mut Vec<Attributed>,
    ) {
        if let Some(context) = self.strands.context_mut(process, cell) {
            context.origin = Origin::Request(request);
        }
        let owner = Owner::Request(Claim {
            request,
            how: How::Context,
        });
        let work = self.strands.works.next_number();
        out.push(Attributed::BlockProven {
            process,
            addr: cell,
            work,
            owner,
        });
    }

    /// A thread polls the task with this cell; 0: none any more.
    pub(super) fn polls(&mut self, process: ProcessIndex, cell: u64) {
        self.processes.set_has_tasks(process);
        if let Some(context) = self.strands.context_mut(process, cell)
            && context.cell != 0
        {
            let next = self.connections.next_request();
            self.processes.learn_cell(process, context.cell, next);
        }
    }
}
