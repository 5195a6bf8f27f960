//! Who does work: strands.
//!
//! A strand is work that happens in sequence: a thread, or, in a language
//! runtime whose contexts are read, whatever runs in one context (an asyncio
//! task, a callback, a greenlet, a goroutine), on whichever thread and after
//! whatever wait. Each does one stretch of work after the other ([`Doing`]).

use std::collections::{HashMap, VecDeque};

use memtrace_common::event::ContextKind;

use crate::{
    attribute::{
        Attributed, Claim, Credit, How, Owner, ProcessIndex, Reason,
        buffer::Buffers,
        connection::ConnRef,
        tls::Moved,
        work::{Doing, Works},
    },
    id::{RequestId, WorkId},
};

/// Contexts remembered over all processes; the one that was idle for longest is
/// forgotten first. About 200 bytes each.
const CONTEXTS_MAX: usize = 65_536;

/// Strands that are told of a request's end; a request that more have worked for
/// keeps the others' claims until they turn to something else.
const CLAIMS_MAX: usize = 1024;

/// What the thread does while nothing is known of it but that it serves.
pub const BETWEEN: Doing = Doing::unknown(Reason::BetweenRequests);

/// A strand's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StrandId {
    /// A thread, where it works in no context that is read.
    Thread(u32),
    /// A context of a process's language runtime.
    Context(ProcessIndex, u64),
}

/// One thread.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// Its process.
    pub process: ProcessIndex,
    /// What it does outside of contexts.
    pub own: Doing,
    /// The context in which it works.
    pub context: Option<u64>,
    /// The greenlet in which it works, where it is in no other context.
    pub greenlet: Option<u64>,
    /// It has taken part in a connection.
    pub served: bool,
    /// The request of which it received bytes, as long as it has not waited.
    pub reading: Option<Reading>,
    /// TLS records that it received last in no callback's context, as long as it
    /// has not waited.
    pub records: Option<Records>,
    /// The connection that it accepted last, as long as it has done nothing
    /// else since.
    pub accepted: Option<Accepted>,
    /// What the runtime counted when it entered its context; see
    /// [`EventBody::Context`](crate::event::EventBody::Context).
    pub entered: u32,
    /// The context in which it last waited for new events.
    pub waits_in: Option<u64>,
    /// What it moved last on a socket, as long as it has not waited.
    pub moved: Option<Moved>,
    /// The request that it turned to last.
    pub latest: Option<RequestId>,
    /// Its latest blocks that may be there to receive into.
    pub buffers: Buffers,
}

/// A connection that a thread has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which, if it is the only one of which nothing has been made yet.
    pub conn: Option<ConnRef>,
    /// A context has been made since.
    pub taken_up: bool,
}

/// A request of which a thread received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which request.
    pub request: RequestId,
    /// On which connection.
    pub conn: ConnRef,
    /// On which strand the call was made.
    pub strand: StrandId,
    /// The context in which the thread went on; `None` until it is stated.
    pub context: Option<u64>,
    /// What the runtime may count there, first and last: whoever reads is called
    /// before the thread goes on to anything else.
    pub stay: (u32, u32),
}

/// TLS records of which nobody knows yet what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// On which connection.
    pub conn: ConnRef,
    /// What they are for if no plaintext tells.
    pub reason: Reason,
    /// On which strand the call was made.
    pub strand: StrandId,
    /// What the runtime counts where they are taken in: whoever does is called
    /// before the thread goes on to anything else.
    pub taken_in: u32,
    /// That has begun.
    pub begun: bool,
}

impl Reading {
    /// Whether what goes on in this context is the reading, or part of it.
    pub fn covers(&self, entered: u32) -> bool {
        let (first, last) = self.stay;
        entered.wrapping_sub(first) <= last.wrapping_sub(first)
    }
}

/// A context of a language runtime.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// What is done in it.
    pub doing: Doing,
    /// On whose behalf it works.
    pub origin: Origin,
    /// What it is in its runtime.
    pub kind: ContextKind,
    /// It was seen to be made: all that was ever done in it is known.
    pub made: bool,
    /// Number of the loop's turn in which it was entered last.
    pub turn: u64,
    /// Bytes of the block that may be the cell of a task; 0 of anything else.
    pub cell: u64,
    /// It has been handed work: it works for whom that was, whoever made it.
    pub handed: bool,
    /// What it moved last on a socket, if it is a goroutine: it goes on from
    /// thread to thread.
    pub moved: Option<Moved>,
    /// It was met since it was last looked at as one to be forgotten.
    met: bool,
    /// The job that made it, if it is a job.
    pub maker: Option<u64>,
    /// How many jobs it has made, if it is a job.
    pub makes: u32,
    /// In the order in which contexts were met: an address that was used again
    /// has a later number.
    pub number: u64,
}

/// On whose behalf a context works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody knows.
    Unknown,
    /// It was made for this request.
    Request(RequestId),
    /// It serves this connection, one request after the other.
    Connection(ConnRef),
    /// It was made for one of the requests that were under way on this connection
    /// at once: the one of which it sends bytes.
    OneOf(ConnRef),
    /// It was made for one of several requests: the one of which it, or what alone it
    /// makes, sends bytes.
    OneOfSeveral,
    /// It was made by work of which nobody knew whose it was.
    Work(WorkId),
    /// It serves several connections at once: the loop's own.
    Shared,
}

/// Who has worked for a request that has not ended.
#[derive(Debug)]
struct Claims {
    /// The process that answers it.
    process: ProcessIndex,
    strands: Vec<StrandId>,
}

/// All strands of the traced processes.
#[derive(Debug, Default)]
pub struct Strands {
    threads: HashMap<u32, Thread>,
    contexts: HashMap<(ProcessIndex, u64), Context>,
    order: VecDeque<(ProcessIndex, u64, u64)>,
    next: u64,
    /// Which strands have worked for a request that has not ended, and may still
    /// do so.
    claims: HashMap<RequestId, Claims>,
    /// Requests that have not ended, by the process that answers them.
    under_way: HashMap<ProcessIndex, usize>,
    /// How many of these a thread has worked for.
    begun: HashMap<u32, u32>,
    /// Number of waits for new events until now: what runs after one is a new
    /// turn of its loop.
    pub turns: u64,
    /// What is known of stretches of work.
    pub works: Works,
}

impl Strands {
    /// The thread; met for the first time with this reason if need be.
    pub fn get_or_begin(
        &mut self,
        tid: u32,
        process: ProcessIndex,
        reason: impl FnOnce() -> Reason,
    ) -> &mut Thread {
        let thread = self.threads.entry(tid).or_insert_with(|| Thread {
            process,
            own: Doing::unknown(reason()),
            context: None,
            greenlet: None,
            served: false,
            reading: None,
            records: None,
            accepted: None,
            entered: 0,
            waits_in: None,
            moved: None,
            latest: None,
            buffers: Buffers::default(),
        });
        thread.process = process;
        thread
    }

    /// The thread, if it is known.
    pub fn thread(&self, tid: u32) -> Option<&Thread> {
        self.threads.get(&tid)
    }

    /// The thread, if it is known.
    pub fn thread_mut(&mut self, tid: u32) -> Option<&mut Thread> {
        self.threads.get_mut(&tid)
    }

    /// A context, if it is known.
    pub fn context(&self, process: ProcessIndex, context: u64) -> Option<&Context> {
        self.contexts.get(&(process, context))
    }

    /// A context, if it is known.
    pub fn context_mut(&mut self, process: ProcessIndex, context: u64) -> Option<&mut Context> {
        self.contexts.get_mut(&(process, context))
    }

    /// Makes sure that a context is known.
    pub fn meet_context(
        &mut self,
        process: ProcessIndex,
        context: u64,
        kind: ContextKind,
        out: &mut Vec<Attributed>,
    ) {
        match self.contexts.get_mut(&(process, context)) {
            Some(known) => known.met = true,
            None => self.insert_context(process, context, kind, Origin::Unknown, false, out),
        }
    }

    /// How many contexts have been met or made.
    pub fn contexts_met(&self) -> u64 {
        self.next
    }

    /// A context was made. One that had this name before is gone.
    pub fn make_context(
        &mut self,
        process: ProcessIndex,
        context: u64,
        kind: ContextKind,
        origin: Origin,
        out: &mut Vec<Attributed>,
    ) {
        self.end_context(process, context, out);
        self.insert_context(process, context, kind, origin, true, out);
    }

    fn insert_context(
        &mut self,
        process: ProcessIndex,
        context: u64,
        kind: ContextKind,
        origin: Origin,
        made: bool,
        out: &mut Vec<Attributed>,
    ) {
        if self.order.len() >= CONTEXTS_MAX {
            self.forget_one(out);
        }
        let number = self.next;
        self.next += 1;
        self.order.push_back((process, context, number));
        self.contexts.insert(
            (process, context),
            Context {
                doing: match kind {
                    ContextKind::Python
                    | ContextKind::Greenlet
                    | ContextKind::Node
                    | ContextKind::Job
                    | ContextKind::Task => BETWEEN,
                    // Most of a program's goroutines never serve.
                    ContextKind::Goroutine => Doing::unknown(Reason::BackgroundThread),
                },
                origin,
                kind,
                made,
                turn: 0,
                cell: 0,
                handed: false,
                moved: None,
                met: false,
                maker: None,
                makes: 0,
                number,
            },
        );
    }

    /// Forgets the oldest that was not met since its last turn.
    fn forget_one(&mut self, out: &mut Vec<Attributed>) {
        while let Some((process, context, number)) = self.order.pop_front() {
            match self.contexts.get_mut(&(process, context)) {
                // Its name was used again.
                Some(later) if later.number != number => return,
                None => return,
                Some(oldest) if oldest.met => {
                    oldest.met = false;
                    self.order.push_back((process, context, number));
                }
                Some(_) => return self.end_context(process, context, out),
            }
        }
    }

    /// A context is gone; its name may be used again.
    pub fn end_context(&mut self, process: ProcessIndex, context: u64, out: &mut Vec<Attributed>) {
        if let Some(mut gone) = self.contexts.remove(&(process, context)) {
            self.works.turn(&mut gone.doing, BETWEEN, None, out);
        }
    }

    /// The strand on which a thread works now.
    pub fn current(&self, tid: u32) -> StrandId {
        let Some(thread) = self.threads.get(&tid) else {
            return StrandId::Thread(tid);
        };
        let known = |context: &u64| self.contexts.contains_key(&(thread.process, *context));
        let context = thread.context.filter(known);
        match context.or_else(|| thread.greenlet.filter(known)) {
            Some(context) => StrandId::Context(thread.process, context),
            None => StrandId::Thread(tid),
        }
    }

    /// What the thread, or the goroutine on it, moved last on a socket.
    pub fn moved_mut(&mut self, tid: u32) -> Option<&mut Option<Moved>> {
        if let StrandId::Context(process, context) = self.current(tid)
            && let Some(context) = self.contexts.get_mut(&(process, context))
            && context.kind == ContextKind::Goroutine
        {
            return Some(&mut context.moved);
        }
        self.threads.get_mut(&tid).map(|thread| &mut thread.moved)
    }

    /// What is done on a strand.
    pub fn doing(&self, strand: StrandId) -> Option<&Doing> {
        match strand {
            StrandId::Thread(tid) => self.threads.get(&tid).map(|thread| &thread.own),
            StrandId::Context(process, context) => self
                .contexts
                .get(&(process, context))
                .map(|context| &context.doing),
        }
    }

    /// The request for which the thread works by some rule, and by which.
    pub fn claimed(&self, tid: u32) -> Option<Claim> {
        match self.doing(self.current(tid)) {
            Some(Doing::Open {
                presumed: Owner::Request(claim),
                ..
            }) if claim.how.is_claim() => Some(*claim),
            _ => None,
        }
    }

    fn split(&mut self, strand: StrandId) -> Option<(&mut Doing, &mut Works)> {
        let doing = match strand {
            StrandId::Thread(tid) => self.threads.get_mut(&tid).map(|thread| &mut thread.own),
            StrandId::Context(process, context) => self
                .contexts
                .get_mut(&(process, context))
                .map(|context| &mut context.doing),
        };
        doing.map(|doing| (doing, &mut self.works))
    }

    /// To whom an allocation of the thread belongs.
    pub fn credit(&mut self, tid: u32, out: &mut Vec<Attributed>) -> Option<Credit> {
        let (doing, works) = self.split(self.current(tid))?;
        Some(works.credit(doing, out))
    }

    /// The number of what is being done on a strand; `None` if its owner will
    /// not change.
    pub fn refer(&mut self, strand: StrandId, out: &mut Vec<Attributed>) -> Option<WorkId> {
        let (doing, works) = self.split(strand)?;
        works.refer(doing, out)
    }

    /// Something was asked of another server on this strand.
    pub fn set_asked(&mut self, strand: StrandId) {
        if let Some((Doing::Open { asked, .. }, _)) = self.split(strand) {
            *asked = true;
        }
    }

    /// Changes what is done on a strand; see [`Works::turn`].
    pub fn turn(
        &mut self,
        strand: StrandId,
        next: Doing,
        proven: Option<Owner>,
        out: &mut Vec<Attributed>,
    ) {
        if let Some(request) = next.claimed()
            && let Some(Claims { strands, .. }) = self.claims.get_mut(&request)
            && strands.last() != Some(&strand)
            && strands.len() < CLAIMS_MAX
            && !strands.contains(&strand)
        {
            strands.push(strand);
            if let StrandId::Thread(tid) = strand {
                *self.begun.entry(tid).or_default() += 1;
            }
        }
        if let Some((doing, works)) = self.split(strand) {
            works.turn(doing, next, proven, out);
        }
        if let (StrandId::Thread(tid), Some(request)) = (strand, next.claimed())
            && let Some(thread) = self.threads.get_mut(&tid)
        {
            thread.latest = Some(request);
        }
    }

    /// The request that the thread turned to last, once.
    pub fn take_latest(&mut self, tid: u32) -> Option<RequestId> {
        self.threads.get_mut(&tid)?.latest.take()
    }

    /// A request has begun.
    pub fn admit(&mut self, request: RequestId, process: ProcessIndex) {
        let strands = Vec::new();
        self.claims.insert(request, Claims { process, strands });
        *self.under_way.entry(process).or_default() += 1;
    }

    /// Whether a request has not ended.
    pub fn in_progress(&self, request: RequestId) -> bool {
        self.claims.contains_key(&request)
    }

    /// Number of a process's requests that have not ended.
    pub fn under_way(&self, process: ProcessIndex) -> usize {
        self.under_way.get(&process).copied().unwrap_or(0)
    }

    /// Whether a thread is in the middle of several requests.
    pub fn interleaves(&self, tid: u32) -> bool {
        self.begun.get(&tid).is_some_and(|begun| *begun > 1)
    }

    /// Whether a strand works for what its thread was woken for, which another
    /// thread may have taken.
    pub fn is_given(&self, strand: StrandId) -> bool {
        let may_be = match strand {
            StrandId::Thread(_) => true,
            StrandId::Context(process, context) => self
                .context(process, context)
                .is_some_and(|context| context.kind == ContextKind::Python),
        };
        may_be && self.doing(strand).is_some_and(Doing::is_handed_over)
    }

    /// The request has ended: who still works for it only cleans up. (Who was
    /// woken for it may work for another one; that is told later.)
    pub fn release(&mut self, request: RequestId, out: &mut Vec<Attributed>) {
        let Some(Claims { process, strands }) = self.claims.remove(&request) else {
            return;
        };
        if let Some(count) = self.under_way.get_mut(&process) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&process);
            }
        }
        for strand in strands {
            if let StrandId::Thread(tid) = strand
                && let Some(begun) = self.begun.get_mut(&tid)
            {
                *begun = begun.saturating_sub(1);
                if *begun == 0 {
                    self.begun.remove(&tid);
                }
            }
            let claimed = self.doing(strand).and_then(Doing::claimed);
            if claimed == Some(request) && !self.is_given(strand) {
                let next = Doing::request(request, How::Afterwards);
                self.turn(strand, next, None, out);
            }
        }
    }

    /// Nothing will tell whose work was done on a strand; see [`Works::give_up`].
    pub fn dispute(
        &mut self,
        strand: StrandId,
        candidates: [RequestId; 2],
        out: &mut Vec<Attributed>,
    ) {
        if let Some((doing, works)) = self.split(strand) {
            works.give_up(doing, candidates, out);
        }
    }

    /// Starts a thread with what another one did.
    pub fn inherit(&mut self, tid: u32, thread: Thread, out: &mut Vec<Attributed>) {
        // A thread that had this id before has ended, seen or not.
        self.end_thread(tid, out);
        self.threads.insert(tid, thread);
    }

    /// The thread has ended.
    pub fn end_thread(&mut self, tid: u32, out: &mut Vec<Attributed>) {
        if let Some(mut thread) = self.threads.remove(&tid) {
            self.works.turn(&mut thread.own, BETWEEN, None, out);
        }
    }

    /// No event follows: all open work is settled.
    pub fn finish(&mut self, out: &mut Vec<Attributed>) {
        let mut tids: Vec<u32> = self.threads.keys().copied().collect();
        tids.sort_unstable();
        for tid in tids {
            self.end_thread(tid, out);
        }
        let mut contexts: Vec<(ProcessIndex, u64)> = self.contexts.keys().copied().collect();
        contexts.sort_unstable();
        for (process, context) in contexts {
            self.end_context(process, context, out);
        }
        self.works.finish(out);
    }

    /// Every strand of a process has ended.
    pub fn end_process(&mut self, process: ProcessIndex, out: &mut Vec<Attributed>) {
        let mut tids: Vec<u32> = self
            .threads
            .iter()
            .filter(|(_, thread)| thread.process == process)
            .map(|(tid, _)| *tid)
            .collect();
        tids.sort_unstable();
        for tid in tids {
            self.end_thread(tid, out);
        }
        let mut contexts: Vec<u64> = self
            .contexts
            .keys()
            .filter(|(other, _)| *other == process)
            .map(|(_, context)| *context)
            .collect();
        contexts.sort_unstable();
        for context in contexts {
            self.end_context(process, context, out);
        }
        self.order.retain(|(other, _, _)| *other != process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: ProcessIndex = ProcessIndex(0);

    fn make(strands: &mut Strands, context: u64, request: u32) {
        let origin = Origin::Request(RequestId(request));
        let mut out = Vec::new();
        strands.make_context(PROCESS, context, ContextKind::Python, origin, &mut out);
    }

    fn origin(strands: &Strands, context: u64) -> Option<Origin> {
        strands
            .context(PROCESS, context)
            .map(|context| context.origin)
    }

    #[test]
    fn an_address_that_is_used_again_belongs_to_its_latest_maker() {
        let mut strands = Strands::default();
        make(&mut strands, 16, 1);
        make(&mut strands, 16, 2);
        assert_eq!(origin(&strands, 16), Some(Origin::Request(RequestId(2))));
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_only_if_it_is_the_same() {
        let mut strands = Strands::default();
        make(&mut strands, 1, 1);
        make(&mut strands, 2, 2);
        make(&mut strands, 1, 3);
        for context in 3..CONTEXTS_MAX as u64 + 2 {
            make(&mut strands, context, 4);
        }
        assert_eq!(origin(&strands, 1), Some(Origin::Request(RequestId(3))));
        assert_eq!(origin(&strands, 2), None);
    }

    #[test]
    fn work_that_follows_other_work_has_its_owner() {
        let mut strands = Strands::default();
        let mut out = Vec::new();
        strands.get_or_begin(1, PROCESS, || Reason::BackgroundThread);
        strands.get_or_begin(2, PROCESS, || Reason::BackgroundThread);
        let first = strands
            .refer(StrandId::Thread(1), &mut out)
            .expect("open work");
        strands.turn(
            StrandId::Thread(2),
            Doing::following(first, How::Context),
            None,
            &mut out,
        );
        let credit = strands.credit(2, &mut out);
        strands.turn(StrandId::Thread(2), BETWEEN, None, &mut out);
        out.clear();
        let request = RequestId(7);
        let how = How::Answered;
        let proof = Owner::Request(Claim { request, how });
        strands.turn(StrandId::Thread(1), BETWEEN, Some(proof), &mut out);
        let [first_settled, second_settled] = &out[..] else {
            panic!("{out:?}");
        };
        assert_eq!(
            *first_settled,
            Attributed::WorkSettled {
                work: first,
                owner: proof
            }
        );
        assert!(
            matches!(second_settled, Attributed::WorkSettled { work, owner: Owner::Request(claim) }
                if Some(Credit::Work(*work)) == credit && claim.request == request),
            "{second_settled:?}"
        );
    }
}
