//! Work that is handed from thread to thread.
//!
//! In: what [`place`] and [`places`] know of sleepers and wake-ups, and what
//! each thread does. Out: what threads turn to. The rules:
//! - a thread that had nothing to do when it fell asleep, and is woken by one
//!   that works for a request, works for that request, until it sleeps there
//!   again or anything else is learnt;
//! - a thread that slept in the middle of a request goes on with it: that was
//!   contention, or a wait for a result;
//! - where it is not known which of several requests a thread was given, or
//!   whether it had something to do, its work is ambiguous unless something
//!   proves whose it was;
//! - if it then wakes one that is handed no work itself and waits in the middle of
//!   a request, it has worked for that one (if it is known to have worked for
//!   another, it is not known any more);
//! - a thread that waits for many things at once (an event loop) and is woken
//!   works for nobody known: who woke it is a candidate;
//! - a thread that has told others of its work may be done with it;
//! - a thread works for the request of the one that made it.

mod place;
mod places;
#[cfg(test)]
mod tests;

use self::place::{Gift, Given, Place};
pub use self::places::Places;
use super::{
    Attributed, Attributor, Claim, How, Owner, Reason,
    buffer::Buffers,
    strand::{BETWEEN, Origin, StrandId, Thread},
    work::Doing,
};
use crate::{event::Handover, id::RequestId};

/// What a thread had to do when it fell asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    /// Nothing.
    Yes,
    /// Something, or nothing.
    Maybe,
    /// Something.
    No,
}

impl Attributor {
    /// The thread is about to sleep.
    pub(super) fn sleeps(
        &mut self,
        pid: u32,
        tid: u32,
        handover: &Handover,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        self.stir(tid, out);
        let place = Place::of(process, handover);
        let idle = self.idle(tid, place);
        self.places.sleeps(tid, place, idle == Idle::Yes);
        let strand = self.strands.current(tid);
        let Some(doing) = self.strands.doing(strand).copied() else {
            return;
        };
        match (idle, doing.claimed()) {
            (Idle::Yes, Some(_)) => self.strands.turn(strand, BETWEEN, None, out),
            (Idle::Yes, None) if doing.presumes(Reason::Ambiguous) || doing.is_afterwards() => {
                self.strands.turn(strand, BETWEEN, None, out);
            }
            (Idle::No, Some(request)) => self.places.sleeps_within(tid, place, request),
            (Idle::Yes | Idle::Maybe | Idle::No, _) => {}
        }
    }

    /// The thread is about to wake others.
    pub(super) fn wakes(
        &mut self,
        pid: u32,
        tid: u32,
        handover: &Handover,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let place = Place::of(process, handover);
        if handover.amount == 0 {
            self.places.take_back(tid, place);
            return;
        }
        let gift = if self.places.passes_on(tid, place) {
            Gift::Nobody
        } else {
            self.stir(tid, out);
            self.returns(tid, place, out);
            self.gift(tid, out)
        };
        let early = self.places.give(tid, place, handover, gift);
        if let (Some(early), Gift::Request(request)) = (early, gift) {
            let strand = self.strands.current(early);
            let is_open = self
                .strands
                .doing(strand)
                .is_some_and(|doing| doing.claimed().is_none());
            if is_open {
                let how = How::HandedOver;
                let proven = Some(Owner::Request(Claim { request, how }));
                self.go_on(early, Doing::request(request, how), proven, out);
            }
        }
        // One that gets its work nowhere yet may hold a lock in the middle of it.
        let is_told = match self.places.is_home(tid, place) {
            Some(is_home) => !is_home,
            None => place.is_file(),
        };
        if is_told {
            self.tells(tid);
        }
    }

    /// A thread of which it is not known whose work it has taken wakes one that
    /// waits for a result in the middle of a request: it was that request's.
    fn returns(&mut self, tid: u32, place: Place, out: &mut Vec<Attributed>) {
        let strand = self.strands.current(tid);
        let Some(doing) = self.strands.doing(strand).copied() else {
            return;
        };
        let Some(request) = self.places.awaited(tid, place) else {
            return;
        };
        if !self.strands.in_progress(request) {
            return;
        }
        let how = How::HandedOver;
        match doing.presumed_request() {
            Some(other) if other != request && self.strands.is_given(strand) => {
                self.strands.dispute(strand, [other, request], out);
            }
            None if doing.presumes(Reason::Ambiguous) => {
                let proven = Some(Owner::Request(Claim { request, how }));
                self.go_on(tid, Doing::request(request, how), proven, out);
            }
            Some(_) | None => {}
        }
    }

    /// The thread tells others, in one way or another, of what it does.
    pub(super) fn tells(&mut self, tid: u32) {
        self.places.tells(tid);
        let strand = self.strands.current(tid);
        if self.strands.is_given(strand)
            && let Some(request) = self.strands.doing(strand).and_then(Doing::claimed)
        {
            self.places.reported(tid, request);
        }
    }

    /// The thread was woken.
    pub(super) fn woken(
        &mut self,
        pid: u32,
        tid: u32,
        handover: &Handover,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let place = Place::of(process, handover);
        if place.is_file() && self.places.has_polled(tid) {
            let candidates = self.places.polled(tid, place, handover);
            let next = if candidates.is_empty() {
                BETWEEN
            } else {
                Doing::one_of(&candidates)
            };
            self.strands
                .turn(self.strands.current(tid), next, None, out);
            return;
        }
        match self.idle(tid, place) {
            Idle::Yes => self.places.woken(tid, place, handover, true),
            Idle::Maybe => self.places.woken(tid, place, handover, false),
            Idle::No => self.places.woken_within(tid, place, handover),
        }
    }

    /// The thread does something: if it was woken, it does what for.
    pub(super) fn stir(&mut self, tid: u32, out: &mut Vec<Attributed>) {
        let Some(taken) = self.places.take(tid) else {
            return;
        };
        // In a context that is known to work for someone it is that one's work.
        if let StrandId::Context(process, context) = self.strands.current(tid)
            && self
                .strands
                .context(process, context)
                .is_some_and(|context| context.origin != Origin::Unknown)
        {
            return;
        }
        let now = self
            .strands
            .doing(self.strands.current(tid))
            .and_then(Doing::presumed_request);
        let next = match (taken.given, now) {
            (Given::Nothing | Given::Just(Gift::Nobody), _) => return,
            (Given::Just(Gift::Request(request)), Some(now)) if !taken.was_idle => {
                if now == request {
                    return;
                }
                Doing::one_of(&[now, request])
            }
            (Given::Just(Gift::Request(request)), _) => Doing::request(request, How::HandedOver),
            (Given::Just(Gift::Work(work)), _) => match self.strands.works.owner(work) {
                Some(Owner::Request(claim)) => Doing::request(claim.request, How::HandedOver),
                Some(Owner::Reason(_)) => return,
                None => Doing::following(work, How::HandedOver),
            },
            (
                Given::After {
                    request,
                    mut gifts,
                    is_all,
                },
                _,
            ) => {
                let is_over = !self.strands.in_progress(request);
                if let ([only], true, true) = (&gifts[..], is_all, is_over) {
                    Doing::request(*only, How::HandedOver)
                } else {
                    if !is_over {
                        gifts.insert(0, request);
                    }
                    Doing::one_of(&gifts)
                }
            }
            (Given::OneOf(mut requests), now) => {
                if let Some(now) = now.filter(|_| !taken.was_idle) {
                    requests.insert(0, now);
                }
                Doing::one_of(&requests)
            }
        };
        self.go_on(tid, next, None, out);
    }

    /// The thread goes on with what it was given.
    fn go_on(&mut self, tid: u32, next: Doing, proven: Option<Owner>, out: &mut Vec<Attributed>) {
        if let Some(thread) = self.strands.thread_mut(tid) {
            thread.served = true;
        }
        self.strands
            .turn(self.strands.current(tid), next, proven, out);
    }

    /// Whether the thread works for a request because it received bytes of it, on a
    /// connection that carries several.
    fn reads_for_several(&self, tid: u32, request: RequestId) -> bool {
        let reading = self.strands.thread(tid).and_then(|thread| thread.reading);
        reading.is_some_and(|reading| {
            reading.request == request && self.connections.has_others(reading.conn, request)
        })
    }

    /// On whose behalf the thread wakes others.
    fn gift(&mut self, tid: u32, out: &mut Vec<Attributed>) -> Gift {
        let strand = self.strands.current(tid);
        match self.strands.doing(strand).and_then(Doing::claimed) {
            _ if self.is_untold(tid) => Gift::Nobody,
            // What came last is not what is handed out first.
            Some(request) if self.reads_for_several(tid, request) => Gift::Nobody,
            Some(request) => Gift::Request(request),
            None => match strand {
                StrandId::Context(..) => self
                    .strands
                    .refer(strand, out)
                    .map_or(Gift::Nobody, Gift::Work),
                StrandId::Thread(_) => Gift::Nobody,
            },
        }
    }

    /// The request that a strand works for, unless its thread was woken for it:
    /// then it might be another thread that has it.
    pub(super) fn sure_claim(&self, strand: StrandId) -> Option<RequestId> {
        let doing = self.strands.doing(strand)?;
        let request = doing.claimed()?;
        (!self.strands.is_given(strand)).then_some(request)
    }

    /// Whether the thread has something to do besides what it is woken for at
    /// this place.
    fn idle(&self, tid: u32, place: Place) -> Idle {
        let Some(doing) = self.strands.doing(self.strands.current(tid)) else {
            return Idle::Yes;
        };
        let at_home = match self.places.is_home(tid, place) {
            Some(true) => Idle::Yes,
            Some(false) if doing.is_handed_over() => Idle::No,
            Some(false) | None => Idle::Maybe,
        };
        match doing.presumed_request() {
            Some(request) if doing.is_handed_over() || doing.is_afterwards() => {
                if doing.is_handed_over() && !self.strands.in_progress(request) {
                    Idle::Yes
                } else {
                    at_home
                }
            }
            Some(request) if self.strands.in_progress(request) => Idle::No,
            None if doing.is_asked() => Idle::No,
            None if doing.presumes(Reason::Ambiguous) || doing.is_following() => at_home,
            Some(_) | None => Idle::Yes,
        }
    }

    /// A thread works for whom the one that made it worked for.
    pub(super) fn inherit(&mut self, parent_tid: u32, tid: u32, out: &mut Vec<Attributed>) {
        let Some(parent) = self.strands.thread(parent_tid).copied() else {
            return;
        };
        let strand = self.strands.current(parent_tid);
        let claimed = self.strands.doing(strand).and_then(Doing::claimed);
        let own = match claimed {
            _ if self.is_untold(parent_tid) => return,
            Some(request) => Doing::request(request, How::HandedOver),
            // Whose it is may be proven later, unless it is an event loop's.
            None if parent.served && !self.places.has_polled(parent_tid) => {
                match self.strands.refer(strand, out) {
                    Some(work) => Doing::following(work, How::HandedOver),
                    None => return,
                }
            }
            None => return,
        };
        let thread = Thread {
            own,
            context: None,
            greenlet: None,
            reading: None,
            accepted: None,
            waits_in: None,
            moved: None,
            latest: None,
            buffers: Buffers::default(),
            ..parent
        };
        self.strands.inherit(tid, thread, out);
    }

    /// The thread is about to be told to work for a request, or to have done so:
    /// what it has done since it was woken is part of that, but not what it had
    /// finished for another one.
    pub(super) fn proves(&mut self, tid: u32, request: RequestId, out: &mut Vec<Attributed>) {
        if !self.places.is_done(tid) {
            self.stir(tid, out);
            return;
        }
        let strand = self.strands.current(tid);
        if let Some(doing) = self.strands.doing(strand)
            && doing.is_handed_over()
            && let Some(other) = doing.presumed_request()
            && other != request
        {
            self.strands.dispute(strand, [other, request], out);
        }
    }

    /// Bytes of a request were moved by the thread.
    pub(super) fn worked_for(&mut self, tid: u32, request: RequestId) {
        self.places.goes_on(tid, request);
        self.places.busy(tid);
    }
}
