//! Whose is it: the only judge of which request an allocation belongs to.
//!
//! In: [`Event`]s in the order of the ring. Out: [`Attributed`] facts for
//! `store`. Pure: no clock, no I/O, no memory of sizes; the same events give
//! the same answers.
//!
//! Work is done by strands (`strand`): threads, or contexts of a language
//! runtime. The rules:
//! - a strand works for a request from the moment it receives bytes of it, until
//!   it receives on another connection, accepts, waits for new events, or
//!   closes;
//! - a block into which bytes are received was allocated for what they are part
//!   of (`buffer`);
//! - sending bytes of a response proves whose work the strand did since it last
//!   turned: that stretch is settled then; if another rule had claimed it for
//!   another request, it is ambiguous;
//! - once a response has ended, what follows falls to the same request unless
//!   something else is proven (clean-up after the response);
//! - what a strand receives on a connection that its process opened is for
//!   whoever sent there last;
//! - a context works for the request for which it was made; one that serves a
//!   connection works for the connection's current request; one that was made
//!   by work of which nobody knows yet whose it is follows that work;
//! - a goroutine that is no request's own works for whoever handed it a value
//!   last, and, once it has been handed some, for whoever waits for what it gives
//!   in return (`goroutine`);
//! - on a connection that carries several exchanges at once, the bytes of a call
//!   say for which they are: of one, it is as above; what follows bytes of several,
//!   received at once or one after the other with nothing done between, is for all
//!   of them until bytes of one are sent;
//! - each message of a WebSocket, and each event of a stream of them, is a
//!   request of its own; see `series`;
//! - a thread whose tasks cannot be told apart works for none of several requests
//!   that it is in the middle of;
//! - a wait for a single descriptor in the middle of a request (a database's
//!   answer, say) is part of the request.

mod attributed;
mod buffer;
mod carried;
mod connection;
mod counter;
mod goroutine;
mod handover;
mod process;
mod reason;
mod resource;
mod series;
mod strand;
mod tls;
mod work;

pub use attributed::{
    Attributed, Claim, ConnCount, ConnKind, Credit, EndedBy, How, Outcome, Owner, ProcessIndex,
};
pub use reason::Reason;

use memtrace_common::event::{ContextKind, CounterKind, HandoverKind, WaitKind};

use crate::{
    event::{Data, Direction, Event, EventBody, Handover},
    id::{ProcessId, RequestId, SocketId, StreamId},
    message::Message,
};
use buffer::{Buffers, Filled};
use connection::{AfterWrite, Caller, ConnRef, Connections, Moment, Turn};
use counter::Counters;
use handover::Places;
use process::Processes;
use strand::{Accepted, BETWEEN, Origin, Reading, Records, StrandId, Strands, Thread};
use tls::{Call, Moved};
use work::Doing;

/// The name under which connections that could not be followed are counted.
pub const LOSS_CONNECTIONS_FULL: &str = "connections_full";
/// The name under which readings of counters are counted that cannot be right.
pub const LOSS_COUNTER_IMPLAUSIBLE: &str = "counter_implausible";

/// The name under which reads and writes are counted that held messages of a
/// WebSocket, or server-sent events, that could not be told apart.
pub const LOSS_MESSAGES_UNTOLD: &str = "messages_untold";

/// The state from which the next event is judged.
#[derive(Debug, Default)]
pub struct Attributor {
    processes: Processes,
    strands: Strands,
    connections: Connections,
    counters: Counters,
    /// Where threads wait for each other.
    places: Places,
    overflow_told: u64,
    implausible_told: u64,
    untold_told: u64,
    /// Messages whose cause, the next event, is not known yet.
    messages: Vec<Said>,
}

/// What was said on a stream.
#[derive(Debug)]
struct Said {
    ts_ns: u64,
    pid: u32,
    stream: StreamId,
    messages: Vec<Message>,
}

impl Attributor {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges one event and adds the consequences to `out`.
    pub fn step(&mut self, event: &Event, out: &mut Vec<Attributed>) {
        let Event {
            ts_ns,
            pid,
            tid,
            ref body,
        } = *event;
        if let EventBody::Messages { stream, messages } = body {
            self.messages.push(Said {
                ts_ns,
                pid,
                stream: *stream,
                messages: messages.clone(),
            });
            return;
        }
        match body {
            EventBody::Data(data) => self.tls_data(pid, tid, data, out),
            EventBody::TlsCall {
                session,
                fd,
                handshake,
            } => {
                let call = if *handshake {
                    Call::Handshake
                } else {
                    Call::Read
                };
                self.tls_call(pid, tid, *session, call, *fd, out);
            }
            _ => {}
        }
        self.take_messages(Some(body), out);
        let first = out.len();
        match body {
            EventBody::Alloc { addr, size } => {
                let (process, credit) = self.credit(pid, tid, out);
                let doing = self.strands.doing(self.strands.current(tid));
                let sets_up = doing.is_some_and(|doing| doing.presumes(Reason::ConnectionSetup));
                if let Some(thread) = self.strands.thread_mut(tid) {
                    thread.buffers.given(*addr, *size, sets_up);
                }
                out.push(Attributed::Alloc {
                    process,
                    addr: *addr,
                    size: *size,
                    credit,
                });
            }
            EventBody::Free { addr } => {
                let process = self.processes.of_pid(pid, out);
                if let Some(thread) = self.strands.thread_mut(tid) {
                    thread.buffers.freed(*addr);
                }
                self.places.forget(process, *addr);
                out.push(Attributed::Free {
                    process,
                    addr: *addr,
                });
            }
            EventBody::Realloc {
                old,
                addr,
                size,
                elapsed_ns,
            } => {
                let (process, credit) = self.credit(pid, tid, out);
                out.push(Attributed::Realloc {
                    process,
                    old: *old,
                    addr: *addr,
                    size: *size,
                    entry_ns: ts_ns.saturating_sub(*elapsed_ns),
                    credit,
                });
            }
            EventBody::Accept(fact) => {
                let process = self.processes.of_pid(pid, out);
                self.processes.set_served(process);
                self.connections
                    .open(fact.socket, process, ConnKind::Accepted, true, ts_ns, out);
                let earlier = self.strands.thread(tid).and_then(|thread| thread.accepted);
                self.turn(pid, tid, Doing::unknown(Reason::ConnectionSetup), None, out);
                let conn = self.connections.of_socket(fact.socket);
                if let Some(thread) = self.strands.thread_mut(tid) {
                    // Of two at once it is not known what is made for which.
                    let alone = earlier.is_none_or(|accepted| accepted.taken_up);
                    thread.accepted = Some(Accepted {
                        conn: conn.filter(|_| alone),
                        taken_up: false,
                    });
                }
            }
            EventBody::Connect(fact) => {
                let process = self.processes.of_pid(pid, out);
                self.connections
                    .open(fact.socket, process, ConnKind::Connected, false, ts_ns, out);
                self.begin_thread(pid, tid, out);
                if let Some(conn) = self.connections.of_socket(fact.socket) {
                    self.asked(self.strands.current(tid), conn, true, out);
                }
            }
            EventBody::OpenSocket { fact, accepted } => {
                let process = self.processes.of_pid(pid, out);
                self.connections
                    .open(fact.socket, process, ConnKind::Found, *accepted, ts_ns, out);
            }
            // Taken in with the event that follows.
            EventBody::Messages { .. } => {}
            EventBody::Data(data) => self.data(pid, tid, data, out),
            // Taken in above.
            EventBody::TlsCall { .. } => {}
            EventBody::TlsEnd { session } => {
                let process = self.processes.of_pid(pid, out);
                self.connections.end_tls(*session, process, ts_ns, out);
            }
            EventBody::Shutdown { .. } => {}
            EventBody::Close {
                socket,
                fd: _,
                last,
            } => self.close(ts_ns, pid, tid, *socket, *last, out),
            EventBody::SocketError { socket, errno: _ } => self.connections.failed(*socket),
            EventBody::Wait { kind, descriptors } => {
                self.wait(tid, *kind, *descriptors, out);
            }
            EventBody::Fork {
                child_pid,
                child_tid,
                start_ns,
                process,
                followed,
            } => {
                if *process {
                    if *followed {
                        let child = ProcessId::new(*child_pid, *start_ns);
                        self.end_predecessor(child, ts_ns, out);
                        self.processes.forked(pid, child, out);
                    }
                } else {
                    self.counters.begin(*child_tid, ts_ns);
                    self.thread_begins(tid, *child_tid, out);
                }
            }
            EventBody::Exec { start_ns: _ } => {
                let index = self.processes.of_pid(pid, out);
                self.strands.end_process(index, out);
                self.places.end_process(index);
                self.connections.exec(index, ts_ns, out);
                out.push(Attributed::ProcessExec { index });
            }
            EventBody::Exit { process } => {
                self.strands.end_thread(tid, out);
                self.places.end_thread(tid);
                self.counters.end(tid);
                if *process {
                    self.end_process(pid, ts_ns, out);
                }
            }
            EventBody::Mapped | EventBody::CgroupMove | EventBody::Clock => {}
            EventBody::Counter {
                kind: CounterKind::ThreadAllocated,
                value,
                peak: _,
            } => {
                let bytes = self.counters.advance(tid, *value, ts_ns);
                if bytes != 0 {
                    self.managed(pid, tid, (bytes, None), 0, out);
                }
            }
            EventBody::Counter {
                kind: CounterKind::RequestHeap,
                value: _,
                peak,
            } => self.request_heap(pid, tid, *peak, out),
            EventBody::ManagedAlloc { size, type_address } => {
                self.managed(pid, tid, (*size, Some(1)), *type_address, out);
            }
            EventBody::TypeName { type_address, name } => {
                let process = self.processes.of_pid(pid, out);
                out.push(Attributed::TypeName {
                    process,
                    type_address: *type_address,
                    name: name.clone(),
                });
            }
            EventBody::Wake(Handover {
                key,
                kind: HandoverKind::Channel,
                ..
            }) => self.given(pid, tid, *key, out),
            EventBody::Woken(Handover {
                key,
                kind: HandoverKind::Channel,
                ..
            }) => self.taken(pid, tid, *key, out),
            EventBody::Woken(Handover {
                key,
                kind: HandoverKind::Stream,
                ..
            }) => self.takes_stream(pid, tid, *key, out),
            EventBody::Wake(handover) => self.wakes(pid, tid, handover, out),
            EventBody::Sleep(handover) => self.sleeps(pid, tid, handover, out),
            EventBody::Woken(handover) => self.woken(pid, tid, handover, out),
            EventBody::Context {
                context,
                kind: ContextKind::Goroutine,
                entered: _,
            } => self.goroutine(pid, tid, *context, out),
            EventBody::Context {
                context,
                kind,
                entered,
            } => self.context(pid, tid, *context, *kind, *entered, out),
            EventBody::ContextEnd { context, kind: _ } => {
                let process = self.processes.of_pid(pid, out);
                self.strands.end_context(process, *context, out);
            }
            EventBody::ContextMade {
                context,
                parent,
                kind: ContextKind::Node,
            } => self.resources_made(pid, tid, (*parent, *context), out),
            EventBody::ContextMade {
                context,
                parent,
                kind,
            } => {
                self.context_made(pid, tid, *context, *parent, *kind, out);
                if *kind == ContextKind::Goroutine {
                    self.goroutine_made(pid, *context, *parent, out);
                }
            }
            EventBody::Process(fact) => {
                self.end_predecessor(fact.process, ts_ns, out);
                self.processes.described(fact, out);
            }
            EventBody::Loss { cause, total } => out.push(Attributed::Loss {
                cause: cause.clone(),
                total: *total,
            }),
            EventBody::TraceBegin => out.push(Attributed::TraceBegin { ts_ns }),
            EventBody::TraceEnd { why } => out.push(Attributed::TraceEnd {
                ts_ns,
                why: why.clone(),
            }),
        }
        self.follow_requests(first, out);
        if self.connections.overflow != self.overflow_told {
            self.overflow_told = self.connections.overflow;
            out.push(Attributed::Loss {
                cause: LOSS_CONNECTIONS_FULL.to_owned(),
                total: self.overflow_told,
            });
        }
        if self.counters.implausible != self.implausible_told {
            self.implausible_told = self.counters.implausible;
            out.push(Attributed::Loss {
                cause: LOSS_COUNTER_IMPLAUSIBLE.to_owned(),
                total: self.implausible_told,
            });
        }
        if self.connections.untold != self.untold_told {
            self.untold_told = self.connections.untold;
            out.push(Attributed::Loss {
                cause: LOSS_MESSAGES_UNTOLD.to_owned(),
                total: self.untold_told,
            });
        }
    }

    /// A process has ended, and all that belonged to it.
    fn end_process(&mut self, pid: u32, ts_ns: u64, out: &mut Vec<Attributed>) {
        if let Some(index) = self.processes.ended(pid) {
            self.strands.end_process(index, out);
            self.places.end_process(index);
            self.connections.end_process(index, ts_ns, out);
            out.push(Attributed::ProcessEnd { index });
        }
    }

    /// A process whose number another one has now has ended unseen.
    fn end_predecessor(&mut self, process: ProcessId, ts_ns: u64, out: &mut Vec<Attributed>) {
        if self.processes.is_another(process) {
            self.end_process(process.pid, ts_ns, out);
        }
    }

    /// Takes in what was said right before `cause`, and because of it.
    fn take_messages(&mut self, cause: Option<&EventBody>, out: &mut Vec<Attributed>) {
        let first = out.len();
        for said in std::mem::take(&mut self.messages) {
            let process = self.processes.of_pid(said.pid, out);
            let ended_by = match cause {
                Some(EventBody::Exit { process: true }) => Some(EndedBy::ProcessEnd),
                _ => None,
            };
            self.connections.messages(
                said.stream,
                &said.messages,
                Moment {
                    process,
                    ts_ns: said.ts_ns,
                    ended_by,
                },
                &mut self.processes,
                out,
            );
        }
        self.follow_requests(first, out);
    }

    /// Takes note of requests that have begun and ended in `out` from `first`
    /// on.
    fn follow_requests(&mut self, first: usize, out: &mut Vec<Attributed>) {
        for index in first..out.len() {
            match out.get(index) {
                Some(&Attributed::RequestBegin {
                    request, process, ..
                }) => self.strands.admit(request, process),
                Some(&Attributed::RequestEnd { request, .. }) => {
                    self.strands.release(request, out);
                }
                _ => {}
            }
        }
    }

    /// No event follows: work that is still open falls to its presumed owner.
    pub fn finish(&mut self, out: &mut Vec<Attributed>) {
        self.take_messages(None, out);
        self.strands.finish(out);
    }

    fn credit(&mut self, pid: u32, tid: u32, out: &mut Vec<Attributed>) -> (ProcessIndex, Credit) {
        let process = self.begin_thread(pid, tid, out);
        self.stir(tid, out);
        if self.is_untold(tid) {
            return (process, Credit::Reason(Reason::TasksUntold));
        }
        let credit = self.strands.credit(tid, out);
        (
            process,
            credit.unwrap_or(Credit::Reason(Reason::BackgroundThread)),
        )
    }

    /// Whether nothing tells which of several requests the thread works for.
    fn is_untold(&self, tid: u32) -> bool {
        let process = self.strands.thread(tid).map(|thread| thread.process);
        let is_untold = |process| self.processes.has_untold_tasks(process);
        self.strands.interleaves(tid) && process.is_some_and(is_untold)
    }

    /// A thread was given memory of a heap whose frees are not seen: in so many
    /// blocks, or in nobody knows how many since it last told.
    fn managed(
        &mut self,
        pid: u32,
        tid: u32,
        (bytes, blocks): (u64, Option<u64>),
        type_address: u64,
        out: &mut Vec<Attributed>,
    ) {
        let (process, credit) = self.credit(pid, tid, out);
        out.push(Attributed::Managed {
            process,
            bytes,
            blocks,
            type_address,
            credit,
        });
    }

    /// The heap that a process keeps for one request at a time is given up: it
    /// was that of the request which its thread turned to last.
    fn request_heap(&mut self, pid: u32, tid: u32, peak: u64, out: &mut Vec<Attributed>) {
        let process = self.processes.of_pid(pid, out);
        if let Some(request) = self.strands.take_latest(tid) {
            out.push(Attributed::RequestHeap {
                process,
                request,
                peak_bytes: peak,
            });
        }
    }

    /// Makes sure that the thread is known.
    fn begin_thread(&mut self, pid: u32, tid: u32, out: &mut Vec<Attributed>) -> ProcessIndex {
        let process = self.processes.of_pid(pid, out);
        let processes = &self.processes;
        self.strands.get_or_begin(tid, process, || {
            let starting = !processes.was_attached(process) && !processes.has_served(process);
            if starting {
                Reason::Startup
            } else {
                Reason::BackgroundThread
            }
        });
        process
    }

    /// A thread made while a connection is set up is made to serve it; another
    /// one works for whom its maker works.
    fn thread_begins(&mut self, parent_tid: u32, tid: u32, out: &mut Vec<Attributed>) {
        self.places.end_thread(tid);
        self.stir(parent_tid, out);
        if let Some(parent) = self.strands.thread(parent_tid)
            && parent.own.presumes(Reason::ConnectionSetup)
        {
            let thread = Thread {
                own: Doing::unknown(Reason::ConnectionSetup),
                context: None,
                greenlet: None,
                served: false,
                reading: None,
                records: None,
                moved: None,
                buffers: Buffers::default(),
                ..*parent
            };
            self.strands.inherit(tid, thread, out);
        } else {
            self.inherit(parent_tid, tid, out);
        }
    }

    /// The thread turns to something else on the strand on which it works.
    fn turn(
        &mut self,
        pid: u32,
        tid: u32,
        next: Doing,
        proven: Option<Owner>,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let attached = self.processes.was_attached(process);
        let Some(thread) = self.strands.thread_mut(tid) else {
            return;
        };
        thread.accepted = None;
        // The first connection of a thread that ran before the trace tells what
        // it was: no background thread, but one whose message had been missed.
        let first = !std::mem::replace(&mut thread.served, true);
        let first = self.is_first_of_goroutine(tid).unwrap_or(first);
        let proven = match proven {
            None if first && self.places.has_waited(tid) => {
                Some(Owner::Reason(Reason::ReceiveBuffer))
            }
            None if first && attached => Some(Owner::Reason(Reason::BeforeFirstHead)),
            proven => proven,
        };
        let strand = self.strands.current(tid);
        self.strands.turn(strand, next, proven, out);
    }

    fn data(&mut self, pid: u32, tid: u32, data: &Data, out: &mut Vec<Attributed>) {
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

    fn data_moved(&mut self, pid: u32, tid: u32, data: &Data, out: &mut Vec<Attributed>) {
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
                    && (claimed.is_none() || matches!(strand, StrandId::Thread(_)));
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
                self.worked_for(tid, wrote);
                if after == AfterWrite::Ended {
                    self.places.done(tid);
                }
                self.learn(tid, strand, conn, None);
                self.learn_which(strand, conn, wrote);
            }
        }
    }

    /// Whether bytes of other requests have come on the connection, for which
    /// nothing was done before these came.
    fn receives_another(&self, strand: StrandId, conn: ConnRef, request: RequestId) -> bool {
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
    fn is_for_others(&self, strand: StrandId, conn: ConnRef, wrote: RequestId) -> bool {
        !self.is_for_one(strand) && self.connections.has_others(conn, wrote)
    }

    /// Whether what is done on a strand is for several requests, whichever is
    /// answered first, or last: for all whose bytes it has received.
    fn is_for_several(&self, strand: StrandId) -> bool {
        let doing = self.strands.doing(strand);
        !self.is_for_one(strand)
            && doing.is_some_and(|doing| doing.presumes(Reason::SeveralRequests))
    }

    /// Whether a strand works for one request alone, known or not.
    fn is_for_one(&self, strand: StrandId) -> bool {
        let StrandId::Context(process, context) = strand else {
            return false;
        };
        let origin = self
            .strands
            .context(process, context)
            .map(|context| context.origin);
        matches!(
            origin,
            Some(Origin::Request(_) | Origin::OneOf(_) | Origin::Work(_))
        )
    }

    /// Whether a strand has done nothing since it last waited but what it takes
    /// to receive.
    fn is_idle(&self, strand: StrandId) -> bool {
        // A context that reads has done nothing else since it was entered.
        let in_context = matches!(strand, StrandId::Context(..));
        self.strands.doing(strand).is_some_and(|doing| {
            doing.presumes(Reason::BetweenRequests)
                || in_context && doing.presumes(Reason::ConnectionSetup)
        })
    }

    /// Ties the session of plaintext that has moved, before anything is said of
    /// what it amounts to.
    fn tls_data(&mut self, pid: u32, tid: u32, data: &Data, out: &mut Vec<Attributed>) {
        if let StreamId::Tls(session) = data.stream {
            let call = Call::Moved(data.direction, data.len);
            self.tls_call(pid, tid, session, call, data.fd, out);
        }
    }

    fn tls_call(
        &mut self,
        pid: u32,
        tid: u32,
        session: u64,
        call: Call,
        fd: i32,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let last = self.strands.moved_mut(tid).and_then(|moved| *moved);
        self.connections
            .tls_call(session, call, fd, process, last, out);
        let strand = self.strands.current(tid);
        let handshaking = self
            .strands
            .doing(strand)
            .is_some_and(|doing| doing.presumes(Reason::TlsHandshake));
        match call {
            // Plaintext is taken in once it is clear what its records had begun.
            Call::Moved(..) => {}
            Call::Read => {
                self.taken_in(tid);
                self.came_out(tid);
            }
            Call::Handshake => {
                self.taken_in(tid);
                // What follows may be for a request that came with its end.
                if handshaking {
                    let next = Doing::unknown(Reason::TlsHandshake);
                    self.strands.turn(strand, next, None, out);
                }
            }
        }
    }

    /// What the thread has received was handed to a TLS library.
    fn taken_in(&mut self, tid: u32) {
        if let Some(Some(moved)) = self.strands.moved_mut(tid) {
            moved.unread = false;
        }
    }

    /// All plaintext of what the thread has received has come out. Returns on
    /// which socket it had come, if none came out before.
    fn came_out(&mut self, tid: u32) -> Option<SocketId> {
        let moved = self.strands.moved_mut(tid)?.as_mut()?;
        std::mem::replace(&mut moved.sealed, false).then_some(moved.socket)
    }

    /// Notes what the thread has moved. Returns whether it is the plaintext of
    /// records that it has just received.
    fn moved(&mut self, tid: u32, process: ProcessIndex, data: &Data) -> bool {
        match (data.stream, data.direction) {
            (StreamId::Socket(socket), _) => {
                if let Some(moved) = self.strands.moved_mut(tid) {
                    *moved = Some(Moved::after(*moved, socket, data));
                }
                false
            }
            (StreamId::Tls(session), Direction::Recv) => {
                self.taken_in(tid);
                let came_on = self.came_out(tid);
                came_on.is_some() && came_on == self.connections.socket_of(process, session)
            }
            (StreamId::Tls(_), Direction::Send) => false,
        }
    }

    /// Whether it is clear that a strand works for another request.
    fn works_for_another(&self, strand: StrandId, request: RequestId) -> bool {
        let claimed = self.sure_claim(strand);
        claimed.is_some_and(|claimed| claimed != request)
    }

    /// Something was asked of another server: the answer is for the same.
    fn asked(&mut self, strand: StrandId, conn: ConnRef, opened: bool, out: &mut Vec<Attributed>) {
        let claimed = self.sure_claim(strand);
        let caller = match claimed {
            Some(request) => Some(Caller::Request(request)),
            None => {
                self.strands.set_asked(strand);
                self.strands.refer(strand, out).map(Caller::Work)
            }
        };
        self.connections.set_caller(conn, caller, opened);
    }

    /// More was sent before anything came back: still on behalf of the same, if
    /// it is not clear that the strand works for another.
    fn continued(
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
    fn began(
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
    fn answered(
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

    /// The thread has received bytes of a request.
    fn reads(&mut self, tid: u32, strand: StrandId, request: RequestId, conn: ConnRef) {
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
    fn received_records(&mut self, tid: u32, strand: StrandId, conn: ConnRef, reason: Reason) {
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
    fn is_callback(&self, strand: StrandId) -> bool {
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
    fn learn(&mut self, tid: u32, strand: StrandId, conn: ConnRef, request: Option<RequestId>) {
        let StrandId::Context(process, context) = strand else {
            return;
        };
        let waits_in = self.strands.thread(tid).and_then(|thread| thread.waits_in);
        let strands = &mut self.strands;
        let Some(known) = strands.context_mut(process, context) else {
            return;
        };
        let origin = known.origin;
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
            known.origin = match origin {
                Origin::Unknown if of_loop && request.is_some() => Origin::Unknown,
                Origin::Work(_) if self.connections.is_multiplexed(conn) => origin,
                Origin::Unknown | Origin::Work(_) => Origin::Connection(conn),
                // A series may have others told of it.
                Origin::Connection(other) if other != conn && !is_series => Origin::Shared,
                Origin::Request(_) if outlived => Origin::Connection(conn),
                origin @ (Origin::Request(_)
                | Origin::Connection(_)
                | Origin::OneOf(_)
                | Origin::Shared) => origin,
            };
        }
    }

    /// Bytes of a request's response were sent in a context. One that was made
    /// for a request, nobody knew which, was made for this one, if several are
    /// answered on the connection.
    fn learn_which(&mut self, strand: StrandId, conn: ConnRef, wrote: RequestId) {
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
    fn learn_callback(&mut self, strand: StrandId, conn: ConnRef, request: RequestId) {
        if let StrandId::Context(process, context) = strand
            && let Some(context) = self.strands.context_mut(process, context)
            && matches!(context.origin, Origin::Request(of) if of != request)
        {
            context.origin = Origin::Connection(conn);
        }
    }

    fn close(
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

    fn wait(&mut self, tid: u32, kind: WaitKind, descriptors: u32, out: &mut Vec<Attributed>) {
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
            Origin::Request(_) | Origin::OneOf(_) | Origin::Work(_) => false,
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

    /// The thread goes on in another context of its runtime, or says again
    /// which one it is in.
    fn context(
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
        if known.is_some() {
            self.strands.meet_context(process, context, kind, out);
        }
        let Some(thread) = self.strands.thread_mut(tid) else {
            return;
        };
        match kind {
            ContextKind::Greenlet => thread.greenlet = known,
            ContextKind::Python | ContextKind::Goroutine | ContextKind::Node => {
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
        let for_several = kind == ContextKind::Node
            && known.is_some()
            && thread.own.presumes(Reason::SeveralRequests);
        if let Some(reading) = &mut thread.reading {
            match kind {
                ContextKind::Python => reading.context = known,
                ContextKind::Greenlet | ContextKind::Goroutine | ContextKind::Node => {
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
            let several = Doing::unknown(Reason::SeveralRequests);
            self.strands.turn(StrandId::Thread(tid), BETWEEN, None, out);
            self.strands.turn(strand, several, None, out);
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
            Origin::OneOf(_) if doing.work().is_some() => return,
            Origin::OneOf(_) => Doing::unknown(Reason::SeveralRequests),
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
                // What a thread was given it does in a context of its own.
                None if doing.is_handed_over() => return,
                None if doing.claimed().is_some() => BETWEEN,
                // Each callback of a resource is for itself.
                None if kind == ContextKind::Node && resumed => BETWEEN,
                // The records have been taken in.
                None if doing.presumes(Reason::TlsHandshake) => BETWEEN,
                None => return,
            },
        };
        let same = match (doing.claimed(), next.claimed()) {
            (Some(now), Some(next)) => now == next,
            (None, None) => doing == next || doing.work().is_some() && !resumed,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            self.strands.turn(strand, next, None, out);
        }
    }

    /// A context was made: whoever made it works on behalf of the same.
    fn context_made(
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
        let origin = match (claimed, accepted, of_maker) {
            (Some(request), _, _) => Origin::Request(request),
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
}
