//! Contexts of language runtimes: for whom each works.
//!
//! In: which context a thread enters, which ones are made, and what is received in
//! them. Out: what the context's strand does. Goroutines have rules of their own
//! (`goroutine`), and so have tasks of tokio's (`task`).

use memtrace_common::event::ContextKind;

use super::{
    Attributed, Attributor, How, Owner, Reason,
    connection::ConnRef,
    strand::{BETWEEN, Origin, Reading, Records, StrandId},
    work::Doing,
};
use crate::id::RequestId;

impl Attributor {
    /// The thread goes on in another context of its runtime, or says again
    /// which one it is in.
    pub(super) fn context(
        &mut self,
        pid: u32,
        tid: u32,
        context: u64,
        kind: ContextKind,
        entered: u32,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let known = (context != 0).then_some(context);
        if kind == ContextKind::Task {
            self.polls(process, context);
        }
        if known.is_some() {
            self.strands.meet_context(process, context, kind, out);
        }
        let Some(thread) = self.strands.thread_mut(tid) else {
            return;
        };
        match kind {
            ContextKind::Greenlet => thread.greenlet = known,
            ContextKind::Python
            | ContextKind::Goroutine
            | ContextKind::Node
            | ContextKind::Job
            | ContextKind::Task => {
                thread.context = known;
            }
        }
        if kind == ContextKind::Python {
            thread.entered = entered;
            // The thread has gone on to something else.
            thread.reading = thread.reading.filter(|reading| reading.covers(entered));
        }
        let received = thread.reading.filter(|reading| reading.context.is_none());
        // The resource of a connection on which answers to several came.
        let for_several =
            kind == ContextKind::Node && known.is_some() && is_for_whoever_asked(&thread.own);
        if let Some(reading) = &mut thread.reading {
            match kind {
                ContextKind::Python => reading.context = known,
                ContextKind::Greenlet
                | ContextKind::Goroutine
                | ContextKind::Node
                | ContextKind::Job
                | ContextKind::Task => {
                    reading.context.get_or_insert(context);
                }
            }
        }
        let reading = thread.reading.filter(|reading| reading.context == known);
        let records = match &mut thread.records {
            Some(records) if kind == ContextKind::Python && records.taken_in == entered => {
                let before = *records;
                records.begun = true;
                Some(before)
            }
            _ => None,
        };
        let turn = self.strands.turns;
        let Some(of_context) = self.strands.context_mut(process, context) else {
            return;
        };
        // One that was made for a request that opened a series serves the series.
        if let Origin::Request(request) = of_context.origin
            && let Some(conn) = self.connections.series_of(request)
        {
            of_context.origin = Origin::Connection(conn);
        }
        let resumed = std::mem::replace(&mut of_context.turn, turn) != turn;
        let doing = of_context.doing;
        let strand = StrandId::Context(process, context);
        if for_several {
            of_context.origin = Origin::Shared;
            let own = self.strands.thread(tid).map(|thread| thread.own);
            let is_ended = own.is_some_and(|own| own.presumes(Reason::EndedRequest));
            let reason = if is_ended {
                Reason::EndedRequest
            } else {
                Reason::SeveralRequests
            };
            self.strands.turn(StrandId::Thread(tid), BETWEEN, None, out);
            self.strands.turn(strand, Doing::unknown(reason), None, out);
            return;
        }
        if let Some(reading) = received {
            // Not what received the bytes works for them, but what it entered.
            let receiver = self.strands.doing(reading.strand);
            if reading.strand != strand
                && receiver.and_then(Doing::claimed) == Some(reading.request)
            {
                self.strands.turn(reading.strand, BETWEEN, None, out);
            }
            self.learn(tid, strand, reading.conn, Some(reading.request));
        }
        if let Some(records) = records {
            if !records.begun {
                self.learn(tid, strand, records.conn, None);
                self.strands.turn(records.strand, BETWEEN, None, out);
                let next = Doing::unknown(records.reason);
                self.strands.turn(strand, next, None, out);
            }
            return;
        }
        let origin = self
            .strands
            .context(process, context)
            .map_or(Origin::Unknown, |known| known.origin);
        let next = match origin {
            Origin::Request(request) => Doing::request(request, How::Context),
            Origin::Connection(conn) => match (self.connections.current(conn), reading) {
                (Some(request), _) => Doing::request(request, How::Context),
                (None, Some(reading)) if reading.conn == conn => {
                    Doing::request(reading.request, How::Received)
                }
                (None, _) if self.connections.is_unused(conn) => {
                    Doing::unknown(Reason::ConnectionSetup)
                }
                // What it did for a request that has ended ended with the turn.
                (None, _) if resumed || doing.claimed().is_some() => BETWEEN,
                (None, _) => return,
            },
            // It goes on with what it began for that one.
            Origin::OneOf(_) | Origin::OneOfSeveral if doing.work().is_some() => return,
            Origin::OneOf(_) | Origin::OneOfSeveral => Doing::unknown(Reason::SeveralRequests),
            Origin::Work(work) => match self.strands.works.owner(work) {
                Some(Owner::Request(claim)) => {
                    if let Some(context) = self.strands.context_mut(process, context) {
                        context.origin = Origin::Request(claim.request);
                    }
                    Doing::request(claim.request, How::Context)
                }
                Some(Owner::Reason(_)) => return,
                None => Doing::following(work, How::Context),
            },
            Origin::Unknown | Origin::Shared => match reading {
                // The first context after bytes were received is that of
                // whoever reads them.
                Some(reading) => Doing::request(reading.request, How::Received),
                // What a thread was given it does in a context of its own; a loop
                // calls back for others in it later.
                None if doing.is_handed_over()
                    && !self.places.has_polled(tid)
                    && doing
                        .claimed()
                        .is_some_and(|request| self.strands.in_progress(request)) =>
                {
                    return;
                }
                None if doing.claimed().is_some() => BETWEEN,
                // Each callback of a resource is for itself.
                None if is_of_node(kind) && resumed => BETWEEN,
                // The records have been taken in.
                None if doing.presumes(Reason::TlsHandshake) => BETWEEN,
                None => return,
            },
        };
        let same = match (doing.claimed(), next.claimed()) {
            (Some(now), Some(next)) => now == next,
            // What was made by nobody known may yet tell whose it was all along.
            (None, None) => {
                doing == next
                    || doing.work().is_some() && (!resumed || doing.follows_the_same(&next))
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            self.strands.turn(strand, next, None, out);
        }
    }

    /// A context was made: whoever made it works on behalf of the same.
    pub(super) fn context_made(
        &mut self,
        pid: u32,
        tid: u32,
        context: u64,
        parent: u64,
        kind: ContextKind,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        self.stir(tid, out);
        let maker = match parent {
            0 => self.strands.current(tid),
            parent => StrandId::Context(process, parent),
        };
        let of_maker = match maker {
            StrandId::Context(process, context) => self
                .strands
                .context(process, context)
                .map(|context| context.origin),
            StrandId::Thread(_) => None,
        };
        let accepted = match self
            .strands
            .thread_mut(tid)
            .map(|thread| &mut thread.accepted)
        {
            Some(Some(accepted)) => {
                accepted.taken_up = true;
                accepted.conn
            }
            Some(None) | None => None,
        };
        let claimed = self.sure_claim(maker);
        let for_several = kind == ContextKind::Job
            && of_maker == Some(Origin::Shared)
            && self.strands.doing(maker).is_some_and(is_for_whoever_asked);
        let origin = match (claimed, accepted, of_maker) {
            (Some(request), _, _) => Origin::Request(request),
            _ if for_several => Origin::OneOfSeveral,
            (None, Some(conn), _) => Origin::Connection(conn),
            (None, None, Some(Origin::Connection(conn))) if self.connections.has_several(conn) => {
                Origin::OneOf(conn)
            }
            (None, None, Some(Origin::Connection(conn))) => Origin::Connection(conn),
            (None, None, _) => match self.strands.refer(maker, out) {
                Some(work) => Origin::Work(work),
                None => Origin::Unknown,
            },
        };
        self.strands
            .make_context(process, context, kind, origin, out);
        // A thread of a pool that sets up something for others to do tells them
        // of what it has done.
        if kind == ContextKind::Python {
            self.tells(tid);
        }
    }

    /// The thread has received bytes of a request.
    pub(super) fn reads(&mut self, tid: u32, strand: StrandId, request: RequestId, conn: ConnRef) {
        // A loop that receives in no callback's context calls one next.
        let in_callback = self.is_callback(strand);
        if let Some(thread) = self.strands.thread_mut(tid) {
            let first = thread.entered;
            thread.reading = Some(Reading {
                request,
                conn,
                strand,
                context: None,
                stay: (first, first.wrapping_add(u32::from(!in_callback))),
            });
        }
    }

    /// The thread has received TLS records: in no callback's context, it is in the
    /// context that it enters next that they are taken in.
    pub(super) fn received_records(
        &mut self,
        tid: u32,
        strand: StrandId,
        conn: ConnRef,
        reason: Reason,
    ) {
        let in_callback = self.is_callback(strand);
        if let (StrandId::Context(..), Some(thread)) = (strand, self.strands.thread_mut(tid)) {
            thread.records = (!in_callback).then_some(Records {
                conn,
                reason,
                strand,
                taken_in: thread.entered.wrapping_add(1),
                begun: false,
            });
        }
    }

    /// Whether a strand is a context that was seen to be made: that of a callback
    /// or a task, not a loop's own.
    pub(super) fn is_callback(&self, strand: StrandId) -> bool {
        match strand {
            StrandId::Context(process, context) => self
                .strands
                .context(process, context)
                .is_some_and(|context| context.made),
            StrandId::Thread(_) => false,
        }
    }

    /// Bytes were moved on a connection in a context: it may be the one that
    /// serves the connection. `request`: of which bytes were received.
    pub(super) fn learn(
        &mut self,
        tid: u32,
        strand: StrandId,
        conn: ConnRef,
        request: Option<RequestId>,
    ) {
        let StrandId::Context(process, context) = strand else {
            return;
        };
        let waits_in = self.strands.thread(tid).and_then(|thread| thread.waits_in);
        let strands = &mut self.strands;
        let Some(known) = strands.context_mut(process, context) else {
            return;
        };
        let origin = known.origin;
        if known.kind == ContextKind::Job {
            return;
        }
        if known.kind == ContextKind::Node {
            // What is received is called back for by the connection's resource;
            // whoever sends may be any.
            if request.is_some() {
                known.origin = Origin::Connection(conn);
            }
            return;
        }
        // A callback that was set up during one request and receives for another
        // serves the connection, not the request.
        let outlived = match (origin, request) {
            (Origin::Request(of), Some(request)) => request != of && !strands.in_progress(of),
            _ => false,
        };
        let is_series = match origin {
            Origin::Connection(known) => self.connections.is_series(known),
            _ => false,
        };
        if let Some(known) = self.strands.context_mut(process, context) {
            // A loop receives for all its connections in the context in which it
            // was started.
            let of_loop = known.kind == ContextKind::Python
                && !known.made
                && waits_in.is_none_or(|waits_in| waits_in == context);
            // One that is older than the connection serves others too.
            let accepted_after = self.connections.accepted_after(conn);
            let is_older = known.kind == ContextKind::Python
                && accepted_after.is_some_and(|after| !known.made || known.number < after);
            known.origin = match origin {
                Origin::Unknown if of_loop && request.is_some() => Origin::Unknown,
                Origin::Unknown | Origin::Work(_) if is_older => Origin::Shared,
                Origin::Work(_) if self.connections.is_multiplexed(conn) => origin,
                Origin::Unknown | Origin::Work(_) => Origin::Connection(conn),
                // A series may have others told of it.
                Origin::Connection(other) if other != conn && !is_series => Origin::Shared,
                Origin::Request(_) if outlived => Origin::Connection(conn),
                origin @ (Origin::Request(_)
                | Origin::Connection(_)
                | Origin::OneOf(_)
                | Origin::OneOfSeveral
                | Origin::Shared) => origin,
            };
        }
    }

    /// Bytes of a request's response were sent in a context. One that was made
    /// for a request, nobody knew which, was made for this one, if several are
    /// answered on the connection.
    pub(super) fn learn_which(&mut self, strand: StrandId, conn: ConnRef, wrote: RequestId) {
        if let StrandId::Context(process, context) = strand
            && self.connections.is_multiplexed(conn)
            && let Some(context) = self.strands.context_mut(process, context)
            && matches!(context.origin, Origin::OneOf(_) | Origin::Work(_))
        {
            context.origin = Origin::Request(wrote);
        }
    }

    /// A callback that was set up during one request and receives for another
    /// serves the connection, not the request.
    pub(super) fn learn_callback(&mut self, strand: StrandId, conn: ConnRef, request: RequestId) {
        if let StrandId::Context(process, context) = strand
            && let Some(context) = self.strands.context_mut(process, context)
            && matches!(context.origin, Origin::Request(of) if of != request)
        {
            context.origin = Origin::Connection(conn);
        }
    }
}

/// Whether it is what is done when answers have come of which nobody knows for whom.
fn is_for_whoever_asked(doing: &Doing) -> bool {
    doing.presumes(Reason::SeveralRequests) || doing.presumes(Reason::EndedRequest)
}

/// Whether it is one of Node's.
fn is_of_node(kind: ContextKind) -> bool {
    match kind {
        ContextKind::Node | ContextKind::Job => true,
        ContextKind::Python
        | ContextKind::Greenlet
        | ContextKind::Goroutine
        | ContextKind::Task => false,
    }
}
