//! What ends a stretch of work without saying whose it was: a wait for new events,
//! and a connection's end.

use memtrace_common::event::{ContextKind, WaitKind};

use super::{
    Attributed, Attributor, Owner, Reason,
    strand::{BETWEEN, Origin, StrandId},
    work::Doing,
};
use crate::id::SocketId;

impl Attributor {
    pub(super) fn close(
        &mut self,
        ts_ns: u64,
        pid: u32,
        tid: u32,
        socket: SocketId,
        last: bool,
        out: &mut Vec<Attributed>,
    ) {
        let worked_here = match self.strands.doing(self.strands.current(tid)) {
            Some(doing) => match doing.claimed() {
                Some(request) => self.connections.owes(socket, request),
                // It may yet be told whose all of it is.
                None if doing.is_following() => false,
                // After a response, or with nothing to do: whatever the
                // connection, the thread is done with it; unless it asked
                // something there since, for whomever that was.
                None => !doing
                    .work()
                    .is_some_and(|work| self.connections.was_asked_in(socket, work)),
            },
            None => false,
        };
        let gone = self.connections.close(socket, last, ts_ns, out);
        if worked_here && gone {
            self.turn(pid, tid, BETWEEN, None, out);
        }
    }

    pub(super) fn wait(
        &mut self,
        tid: u32,
        kind: WaitKind,
        descriptors: u32,
        out: &mut Vec<Attributed>,
    ) {
        let for_new_events = match kind {
            WaitKind::Epoll | WaitKind::Accept => true,
            WaitKind::Poll => descriptors > 1,
            // The highest descriptor says nothing of how many there are; but who
            // has handed its request over does not wait on its behalf.
            WaitKind::Select => self.places.has_given(tid),
        };
        let Some(thread) = self.strands.thread_mut(tid) else {
            return;
        };
        thread.accepted = None;
        thread.moved = None;
        thread.records = None;
        let own = thread.own;
        let in_request = match own {
            Doing::Open { asked: true, .. } => true,
            own => own.claimed().is_some() || own.is_following() || own.presumes(Reason::Ambiguous),
        };
        let (process, context) = (thread.process, thread.context);
        if for_new_events || (!in_request && context.is_none()) {
            self.places.polls(tid);
        }
        if for_new_events {
            self.strands.turns += 1;
            self.connections.end_answered(process, out);
        }
        if for_new_events || !in_request {
            if let Some(thread) = self.strands.thread_mut(tid) {
                thread.reading = None;
            }
            // Between two waits without a message, continuations of any request
            // under way may have run.
            let mixed = for_new_events
                && self.processes.mixes_tasks(process)
                && self.strands.under_way(process) > 0
                && (own.presumes(Reason::BetweenRequests) || own.presumes(Reason::ConnectionSetup));
            let proven = mixed.then_some(Owner::Reason(Reason::TasksUntold));
            self.strands
                .turn(StrandId::Thread(tid), BETWEEN, proven, out);
        }
        // A loop's own context waits with the loop, a task's does not: it goes
        // on later.
        let Some(context) = context else { return };
        let Some(known) = self.strands.context(process, context) else {
            return;
        };
        if known.kind != ContextKind::Python {
            return;
        }
        let of_loop = match known.origin {
            Origin::Shared | Origin::Connection(_) => true,
            Origin::Unknown => !known.made,
            Origin::Request(_) | Origin::OneOf(_) | Origin::OneOfSeveral | Origin::Work(_) => false,
        };
        if for_new_events && of_loop {
            self.strands
                .turn(StrandId::Context(process, context), BETWEEN, None, out);
        }
        // It is stated again before anything else is done in it.
        if let Some(thread) = self.strands.thread_mut(tid) {
            thread.context = None;
            if for_new_events {
                thread.reading = None;
                thread.waits_in = Some(context);
            }
        }
    }
}
