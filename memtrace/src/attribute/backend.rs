//! Questions to other servers, and their answers.
//!
//! In: what a strand sends and receives on connections that its process opened.
//! Out: for whom it asks, and for whom it goes on when something comes back.

use super::{
    Attributed, Attributor, Claim, How, Owner, Reason,
    connection::{Caller, ConnRef},
    strand::{BETWEEN, StrandId},
    work::Doing,
};
use crate::id::RequestId;

impl Attributor {
    /// Whether it is clear that a strand works for another request.
    pub(super) fn works_for_another(&self, strand: StrandId, request: RequestId) -> bool {
        let claimed = self.sure_claim(strand);
        claimed.is_some_and(|claimed| claimed != request)
    }

    /// Something was asked of another server: the answer is for the same.
    pub(super) fn asked(
        &mut self,
        strand: StrandId,
        conn: ConnRef,
        opened: bool,
        out: &mut Vec<Attributed>,
    ) {
        let claimed = self.sure_claim(strand);
        let caller = match claimed {
            Some(request) => Some(Caller::Request(request)),
            // Others ask as well of which nobody knows yet for whom.
            None if self.is_job(strand) => None,
            None => {
                self.strands.set_asked(strand);
                self.strands.refer(strand, out).map(Caller::Work)
            }
        };
        self.connections.set_caller(conn, caller, opened);
    }

    /// More was sent before anything came back: still on behalf of the same, if
    /// it is not clear that the strand works for another.
    pub(super) fn continued(
        &mut self,
        pid: u32,
        tid: u32,
        strand: StrandId,
        conn: ConnRef,
        caller: Caller,
        out: &mut Vec<Attributed>,
    ) {
        let claimed = self.strands.doing(strand).and_then(Doing::claimed);
        match (caller, claimed) {
            (Caller::Request(request), None) => {
                let how = How::Backend;
                let proven = Some(Owner::Request(Claim { request, how }));
                self.turn(pid, tid, Doing::request(request, how), proven, out);
            }
            (Caller::Request(_) | Caller::Work(_), _) => self.asked(strand, conn, false, out),
        }
    }

    /// A loop that opened a connection sends there once it is open: for whom it
    /// opened it, whatever it did before without a system call between.
    pub(super) fn began(
        &mut self,
        pid: u32,
        tid: u32,
        strand: StrandId,
        conn: ConnRef,
        caller: Caller,
        out: &mut Vec<Attributed>,
    ) {
        let claimed = self.strands.doing(strand).and_then(Doing::claimed);
        match (caller, strand) {
            (Caller::Request(request), StrandId::Thread(_))
                if claimed.is_some_and(|claimed| claimed != request)
                    && self.strands.in_progress(request) =>
            {
                self.turn(pid, tid, Doing::request(request, How::Backend), None, out);
                self.connections.set_sent(conn);
            }
            _ => {
                self.continued(pid, tid, strand, conn, caller, out);
                self.connections.set_sent(conn);
            }
        }
    }

    /// An answer came to what had been asked on someone's behalf.
    pub(super) fn answered(
        &mut self,
        pid: u32,
        tid: u32,
        strand: StrandId,
        conn: ConnRef,
        caller: Caller,
        out: &mut Vec<Attributed>,
    ) {
        let strands = &self.strands;
        if self
            .connections
            .answers_several(conn, |request| strands.in_progress(request))
        {
            // Whichever it is for, or all.
            if self.sure_claim(strand).is_none() || matches!(strand, StrandId::Thread(_)) {
                let next = Doing::unknown(Reason::SeveralRequests);
                self.turn(pid, tid, next, None, out);
            }
            return;
        }
        // A loop's connections are a pool's, which asks for the next in line when the
        // answer to the last has come.
        let process = self.processes.of_pid(pid, out);
        if let Caller::Request(request) = caller
            && self.processes.mixes_tasks(process)
            && !self.strands.in_progress(request)
        {
            self.turn(pid, tid, Doing::unknown(Reason::EndedRequest), None, out);
            return;
        }
        let own = self.strands.doing(strand).and_then(Doing::work);
        let next = match caller {
            Caller::Request(request) => Doing::request(request, How::Backend),
            // It is what this strand is doing anyway.
            Caller::Work(work) if own == Some(work) => return,
            Caller::Work(work) => match self.strands.works.owner(work) {
                Some(Owner::Request(claim)) => Doing::request(claim.request, How::Backend),
                Some(Owner::Reason(_)) => BETWEEN,
                None => Doing::following(work, How::Backend),
            },
        };
        let request = next.claimed();
        // A strand that goes on with the same does not begin anew.
        let same =
            request.is_some() && self.strands.doing(strand).and_then(Doing::claimed) == request;
        if !same {
            let idle = self
                .strands
                .doing(strand)
                .is_some_and(|doing| doing.presumes(Reason::BetweenRequests));
            let proven = match (strand, next) {
                // Nothing else was done since the thread waited.
                (
                    StrandId::Thread(_),
                    Doing::Open {
                        presumed: owner @ Owner::Request(_),
                        ..
                    },
                ) => Some(owner),
                _ => Some(Owner::Reason(Reason::ReceiveBuffer)),
            };
            self.turn(pid, tid, next, proven.filter(|_| idle), out);
        }
        if let Some(request) = request {
            self.learn_callback(strand, conn, request);
            self.reads(tid, strand, request, conn);
        }
    }
}
