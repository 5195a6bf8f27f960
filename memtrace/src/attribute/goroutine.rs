//! Goroutines: for whom each works, and work that passes between them.
//!
//! In: which goroutine a thread runs, which it makes, and values that one gives
//! and another takes through a channel, at least one of which had to wait for the
//! other. Out: for whom a goroutine works.
//!
//! A goroutine is stated before whatever it does, so that it is to its program
//! what a thread is to others: it receives a request, waits in the middle of it
//! and goes on, on whichever thread. It begins with what the one that made it
//! does.
//!
//! A goroutine that serves a connection, or that was made by a request that is
//! under way, is that request's own: nothing that it takes changes that. Any other
//! is free (one of a pool, the writer of a connection to another server): it works
//! for whoever handed it a value last. When it gives a value to a request's own
//! goroutine that waits for it, what it did until then was for that request: so
//! work is known even if it lay in the channel's buffer and nobody saw it being
//! taken.

use memtrace_common::event::ContextKind;

use super::{
    Attributed, Attributor, Claim, How, Owner, Reason,
    strand::{Origin, StrandId},
    work::Doing,
};

const IDLE: Doing = Doing::unknown(Reason::BackgroundThread);

impl Attributor {
    /// A thread runs this goroutine from now on; 0: none.
    pub(super) fn goroutine(
        &mut self,
        pid: u32,
        tid: u32,
        goroutine: u64,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let known = (goroutine != 0).then_some(goroutine);
        if known.is_some() {
            let kind = ContextKind::Goroutine;
            self.strands.meet_context(process, goroutine, kind, out);
        }
        if let Some(thread) = self.strands.thread_mut(tid) {
            thread.context = known;
            // Another accepted, or received.
            thread.accepted = None;
            thread.reading = None;
        }
    }

    /// What a goroutine that was made begins with.
    pub(super) fn goroutine_made(
        &mut self,
        pid: u32,
        goroutine: u64,
        parent: u64,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.processes.of_pid(pid, out);
        // It may be the one that reads what has been received.
        let moved = self.strands.context(process, parent);
        let moved = moved.and_then(|parent| parent.moved);
        if let Some(context) = self.strands.context_mut(process, goroutine) {
            context.moved = moved;
        }
        let Some(context) = self.strands.context(process, goroutine) else {
            return;
        };
        let next = match context.origin {
            Origin::Request(request) => Doing::request(request, How::Context),
            Origin::Connection(conn) if self.connections.is_unused(conn) => {
                Doing::unknown(Reason::ConnectionSetup)
            }
            Origin::Work(work) => Doing::following(work, How::Context),
            Origin::Connection(_)
            | Origin::OneOf(_)
            | Origin::OneOfSeveral
            | Origin::Unknown
            | Origin::Shared => return,
        };
        let strand = StrandId::Context(process, goroutine);
        self.strands.turn(strand, next, None, out);
    }

    /// Whether a thread's goroutine takes part in a connection for the first time
    /// that could be seen, though it may have before; `None` if it runs none.
    pub(super) fn is_first_of_goroutine(&self, tid: u32) -> Option<bool> {
        let StrandId::Context(process, context) = self.strands.current(tid) else {
            return None;
        };
        let context = self.strands.context(process, context)?;
        let is_goroutine = context.kind == ContextKind::Goroutine;
        is_goroutine.then(|| !context.made && context.origin == Origin::Unknown && !context.handed)
    }

    /// The goroutine on a thread gives a value to one that waits for it.
    pub(super) fn given(&mut self, pid: u32, tid: u32, taker: u64, out: &mut Vec<Attributed>) {
        let process = self.begin_thread(pid, tid, out);
        let giver = self.strands.current(tid);
        let taker = StrandId::Context(process, taker);
        self.hand(giver, taker, out);
    }

    /// The goroutine on a thread takes a value from one that waits to be rid of
    /// it.
    pub(super) fn taken(&mut self, pid: u32, tid: u32, giver: u64, out: &mut Vec<Attributed>) {
        let process = self.begin_thread(pid, tid, out);
        let giver = StrandId::Context(process, giver);
        let taker = self.strands.current(tid);
        self.hand(giver, taker, out);
    }

    fn hand(&mut self, giver: StrandId, taker: StrandId, out: &mut Vec<Attributed>) {
        let (StrandId::Context(process, from), StrandId::Context(_, to)) = (giver, taker) else {
            // The scheduler's own doings.
            return;
        };
        for goroutine in [from, to] {
            let kind = ContextKind::Goroutine;
            self.strands.meet_context(process, goroutine, kind, out);
        }
        let claimed = |doing: Option<&Doing>| doing.and_then(Doing::claimed);
        if self.is_free(taker) {
            let (origin, next) = match claimed(self.strands.doing(giver)) {
                Some(request) => (
                    Origin::Request(request),
                    Doing::request(request, How::HandedOver),
                ),
                None => match self.strands.refer(giver, out) {
                    Some(work) => (Origin::Work(work), Doing::following(work, How::Context)),
                    None => (Origin::Unknown, IDLE),
                },
            };
            self.strands.turn(taker, next, None, out);
            if let Some(context) = self.strands.context_mut(process, to) {
                context.origin = origin;
                context.handed = true;
            }
        } else if self.is_free(giver)
            && let Some(request) = claimed(self.strands.doing(taker))
            && let Some(context) = self.strands.context_mut(process, from)
            && context.handed
        {
            context.origin = Origin::Unknown;
            let how = How::HandedOver;
            let proven = Owner::Request(Claim { request, how });
            self.strands.turn(giver, IDLE, Some(proven), out);
        }
    }

    /// The goroutine on a thread begins to answer the request on a stream of the
    /// connection for which it was made.
    pub(super) fn takes_stream(
        &mut self,
        pid: u32,
        tid: u32,
        number: u64,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let strand = self.strands.current(tid);
        let StrandId::Context(_, goroutine) = strand else {
            return;
        };
        let Some(context) = self.strands.context_mut(process, goroutine) else {
            return;
        };
        let (Origin::Connection(conn) | Origin::OneOf(conn)) = context.origin else {
            return;
        };
        let number = u32::try_from(number).ok();
        let request = number.and_then(|number| self.connections.numbered(conn, number));
        if let Some(request) = request {
            context.origin = Origin::Request(request);
            context.handed = false;
            self.strands
                .turn(strand, Doing::request(request, How::Context), None, out);
        }
    }

    /// Whether a goroutine is no request's own.
    fn is_free(&self, strand: StrandId) -> bool {
        let StrandId::Context(process, context) = strand else {
            return false;
        };
        let Some(context) = self.strands.context(process, context) else {
            return false;
        };
        match context.origin {
            Origin::Connection(conn) => !self.connections.serves(conn),
            Origin::Request(request) => context.handed || !self.strands.in_progress(request),
            Origin::Unknown
            | Origin::OneOf(_)
            | Origin::OneOfSeveral
            | Origin::Work(_)
            | Origin::Shared => true,
        }
    }
}
