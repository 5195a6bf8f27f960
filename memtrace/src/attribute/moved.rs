//! Bytes that have moved on a connection: whose work the strand does that moved them.
//!
//! In: what was received or sent, with the messages that it held. Out: what the
//! strand turns to, and what it did until then. What the bytes of a connection say
//! of its requests is known in `connection`.

use super::{
    Attributed, Attributor, Claim, How, Owner, ProcessIndex, Reason,
    buffer::Filled,
    connection::{AfterWrite, ConnRef, Turn},
    strand::{BETWEEN, Origin, StrandId},
    work::Doing,
};
use crate::{
    event::{Data, Direction},
    id::{RequestId, StreamId},
};

impl Attributor {
    pub(super) fn data(&mut self, pid: u32, tid: u32, data: &Data, out: &mut Vec<Attributed>) {
        let process = self.begin_thread(pid, tid, out);
        let thread = self.strands.thread_mut(tid);
        let block = thread.and_then(|thread| thread.buffers.take(data.buffer));
        let before = self.strands.claimed(tid);
        let first = out.len();
        self.data_moved(pid, tid, data, out);
        if let Some(Filled {
            addr,
            with_connection,
        }) = block
            && let Some(claim) = self.strands.claimed(tid)
            // A client's connection may have a buffer for all its requests.
            && (!with_connection || claim.how == How::Backend)
            && before.is_none_or(|before| before.request != claim.request)
        {
            let work = self.strands.works.next_number();
            let owner = Owner::Request(claim);
            // Before what the rest of the stretch amounts to is settled.
            out.insert(
                first,
                Attributed::BlockProven {
                    process,
                    addr,
                    work,
                    owner,
                },
            );
        }
    }

    pub(super) fn data_moved(
        &mut self,
        pid: u32,
        tid: u32,
        data: &Data,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let mut deciphered = self.moved(tid, process, data);
        let tls_is_read = self.processes.reads_tls(process);
        let Some((conn, mut turn)) = self.connections.data(data, process, tls_is_read, out) else {
            return;
        };
        if let Turn::To(Owner::Request(claim)) = turn
            && data.direction == Direction::Recv
            && self.receives_another(self.strands.current(tid), conn, claim.request)
        {
            turn = Turn::Unclear(Reason::SeveralRequests);
        }
        if self.connections.is_multiplexed(conn) {
            turn = self.taken_in_turns(tid, process, conn, turn);
        }
        match turn {
            Turn::Wrote(request, _) | Turn::To(Owner::Request(Claim { request, .. })) => {
                self.proves(tid, request, out);
            }
            _ => self.stir(tid, out),
        }
        let strand = self.strands.current(tid);
        // A callback that is set up to read later does nothing else before.
        deciphered |= matches!(data.stream, StreamId::Tls(_))
            && self.is_callback(strand)
            && self.is_idle(strand);
        match turn {
            Turn::Stay => {}
            Turn::Asked => self.asked(strand, conn, false, out),
            Turn::Began(caller) => self.began(pid, tid, strand, conn, caller, out),
            Turn::Continued(caller) => self.continued(pid, tid, strand, conn, caller, out),
            Turn::Answered(caller) => self.answered(pid, tid, strand, conn, caller, out),
            Turn::To(owner) => {
                self.processes.set_served(process);
                let claimed = self.sure_claim(strand);
                let is_given = self.strands.doing(strand).is_some_and(|doing| {
                    doing.is_handed_over() || doing.presumes(Reason::Ambiguous)
                });
                let proven = match claimed {
                    // What was done since the records came was for what they say,
                    // and so was what a thread had done that was given them.
                    None if deciphered || is_given => Some(owner),
                    _ if self.is_idle(strand) => Some(Owner::Reason(Reason::ReceiveBuffer)),
                    _ => None,
                };
                let next = match owner {
                    Owner::Request(claim) => Doing::request(claim.request, claim.how),
                    Owner::Reason(reason) => Doing::Reason(reason),
                };
                self.turn(pid, tid, next, proven, out);
                if let Owner::Request(claim) = owner {
                    self.worked_for(tid, claim.request);
                }
                if let (Owner::Request(claim), Direction::Recv) = (owner, data.direction) {
                    let request = claim.request;
                    self.learn(tid, strand, conn, Some(request));
                    self.reads(tid, strand, request, conn);
                }
            }
            Turn::Toward(reason) => {
                self.processes.set_served(process);
                // Idle until it made ready for these records: all of it is for
                // what they say.
                let begun = self.is_idle(strand);
                let known = self.strands.thread(tid).is_some_and(|thread| thread.served);
                if !(begun && known && reason == Reason::BetweenRequests) {
                    let proven = begun.then_some(Owner::Reason(reason));
                    self.turn(pid, tid, Doing::unknown(reason), proven, out);
                }
                self.received_records(tid, strand, conn, reason);
            }
            Turn::Unclear(reason) => {
                self.processes.set_served(process);
                let idle = self.is_idle(strand);
                let proven = idle.then_some(Owner::Reason(Reason::ReceiveBuffer));
                self.turn(pid, tid, Doing::unknown(reason), proven, out);
            }
            // Whoever works for one of them goes on; what was nobody's is theirs.
            Turn::WroteSeveral => {
                if self.strands.doing(strand).is_some_and(Doing::is_nobodys) {
                    let several = Reason::SeveralRequests;
                    let proven = Some(Owner::Reason(several));
                    self.turn(pid, tid, Doing::unknown(several), proven, out);
                }
            }
            Turn::Pushed(wrote, _) if self.works_for_another(strand, wrote) => {}
            Turn::Wrote(wrote, after) | Turn::Pushed(wrote, after) => {
                let next = match after {
                    // What comes next is told by whose bytes are sent next.
                    _ if self.is_for_others(strand, conn, wrote) => BETWEEN,
                    AfterWrite::Same => Doing::request(wrote, How::Answered),
                    AfterWrite::Next(next) => Doing::request(next, How::Received),
                    AfterWrite::Ended => Doing::request(wrote, How::Afterwards),
                };
                // Of several requests under way each may have gone on since the
                // loop waited, one after the other and without a system call:
                // that one of them writes proves nothing of the others.
                let own = usize::from(self.strands.in_progress(wrote));
                let claimed = self.strands.doing(strand).and_then(Doing::claimed);
                let mixed = self.processes.mixes_tasks(process)
                    && self.strands.under_way(process) > own
                    && (claimed.is_none() || matches!(strand, StrandId::Thread(_)))
                    && !self.is_job(strand);
                let (next, proven) = match (mixed, after) {
                    (true, AfterWrite::Ended) => (Doing::unknown(Reason::TasksUntold), claimed),
                    (true, _) => (next, claimed),
                    (false, _) => (next, Some(wrote)),
                };
                let proven = match proven {
                    Some(_) => Owner::Request(Claim {
                        request: wrote,
                        how: How::Answered,
                    }),
                    None => Owner::Reason(Reason::TasksUntold),
                };
                let proven = (!self.is_for_several(strand)).then_some(proven);
                self.turn(pid, tid, next, proven, out);
                self.proves_makers(strand, wrote, out);
                self.worked_for(tid, wrote);
                if after == AfterWrite::Ended {
                    self.places.done(tid);
                }
                self.learn(tid, strand, conn, None);
                self.learn_which(strand, conn, wrote);
            }
        }
    }

    /// What a turn means on a connection that carries several exchanges at once.
    /// Where several threads take turns at it, the tasks of its exchanges go from
    /// queue to queue without a sign: that shows when one that was taken to work for
    /// one request answers another. From then on nothing is said of whose work the
    /// process's threads do on such connections.
    fn taken_in_turns(
        &mut self,
        tid: u32,
        process: ProcessIndex,
        conn: ConnRef,
        turn: Turn,
    ) -> Turn {
        let by_several = self.connections.moved_by(conn, tid);
        let strand = self.strands.current(tid);
        let (Turn::Wrote(request, _) | Turn::To(Owner::Request(Claim { request, .. }))) = turn
        else {
            return turn;
        };
        if !matches!(strand, StrandId::Thread(_)) {
            return turn;
        }
        if by_several
            && matches!(turn, Turn::Wrote(..))
            && let Some(other) = self.strands.doing(strand).and_then(Doing::claimed)
            && other != request
            && self.connections.has_open(conn, other)
        {
            self.processes.set_takes_turns(process);
        }
        if self.processes.takes_turns(process) {
            return Turn::Unclear(Reason::TasksUntold);
        }
        turn
    }

    /// Whether bytes of other requests have come on the connection, for which
    /// nothing was done before these came.
    pub(super) fn receives_another(
        &self,
        strand: StrandId,
        conn: ConnRef,
        request: RequestId,
    ) -> bool {
        let Some(doing) = self
            .strands
            .doing(strand)
            .filter(|doing| doing.work().is_none())
        else {
            return false;
        };
        let of_another = match doing.claimed() {
            Some(other) => other != request && self.connections.has_open(conn, other),
            None => doing.presumes(Reason::SeveralRequests),
        };
        of_another && self.connections.is_multiplexed(conn)
    }

    /// Whether a strand may answer others of a connection's requests next than the
    /// one that it has just answered.
    pub(super) fn is_for_others(&self, strand: StrandId, conn: ConnRef, wrote: RequestId) -> bool {
        !self.is_for_one(strand) && self.connections.has_others(conn, wrote)
    }

    /// Whether what is done on a strand is for several requests, whichever is
    /// answered first, or last: for all whose bytes it has received.
    pub(super) fn is_for_several(&self, strand: StrandId) -> bool {
        let doing = self.strands.doing(strand);
        !self.is_for_one(strand)
            && doing.is_some_and(|doing| doing.presumes(Reason::SeveralRequests))
    }

    /// Whether a strand works for one request alone, known or not.
    pub(super) fn is_for_one(&self, strand: StrandId) -> bool {
        let StrandId::Context(process, context) = strand else {
            return false;
        };
        let origin = self
            .strands
            .context(process, context)
            .map(|context| context.origin);
        matches!(
            origin,
            Some(Origin::Request(_) | Origin::OneOf(_) | Origin::OneOfSeveral | Origin::Work(_))
        )
    }

    /// Whether a strand has done nothing since it last waited but what it takes
    /// to receive.
    pub(super) fn is_idle(&self, strand: StrandId) -> bool {
        // A context that reads has done nothing else since it was entered.
        let in_context = matches!(strand, StrandId::Context(..));
        self.strands.doing(strand).is_some_and(|doing| {
            doing.presumes(Reason::BetweenRequests)
                || in_context && doing.presumes(Reason::ConnectionSetup)
        })
    }
}
