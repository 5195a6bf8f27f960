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
//! - a task of tokio's works for whoever has allocated its cell;
//! - on a connection that carries several exchanges at once, the bytes of a call
//!   say for which they are: of one, it is as above; what follows bytes of several,
//!   received at once or one after the other with nothing done between, is for all
//!   of them until bytes of one are sent; where several threads are seen to take
//!   turns at such connections, their tasks are untold;
//! - each message of a WebSocket, and each event of a stream of them, is a
//!   request of its own; see `series`;
//! - a thread whose tasks cannot be told apart works for none of several requests
//!   that it is in the middle of;
//! - a wait for a single descriptor in the middle of a request (a database's
//!   answer, say) is part of the request.

mod attributed;
mod backend;
mod buffer;
mod carried;
mod connection;
mod context;
mod counter;
mod goroutine;
mod handover;
mod moved;
mod process;
mod reason;
mod resource;
mod sealed;
mod series;
mod strand;
mod task;
mod tls;
mod wait;
mod work;

pub use attributed::{
    Attributed, Claim, ConnCount, ConnKind, Credit, EndedBy, How, Outcome, Owner, ProcessIndex,
};
pub use reason::Reason;

use memtrace_common::event::{ContextKind, CounterKind, HandoverKind};

use crate::{
    event::{Event, EventBody, Handover},
    id::{ProcessId, StreamId},
    message::Message,
};
use buffer::Buffers;
use connection::{Connections, Moment};
use counter::Counters;
use handover::Places;
use process::Processes;
use strand::{Accepted, Strands, Thread};
use tls::Call;
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
                if self.processes.has_tasks(process) {
                    self.may_be_task(pid, tid, *addr, *size, out);
                }
            }
            EventBody::Free { addr } => {
                let process = self.processes.of_pid(pid, out);
                if let Some(thread) = self.strands.thread_mut(tid) {
                    thread.buffers.freed(*addr);
                }
                self.places.forget(process, *addr);
                if self.processes.has_tasks(process) {
                    self.strands.end_context(process, *addr, out);
                }
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
                let contexts = self.strands.contexts_met();
                self.connections.set_accepted(fact.socket, contexts);
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
                kind: kind @ (ContextKind::Node | ContextKind::Job),
            } => self.resources_made(pid, tid, (*parent, *context), *kind, out),
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
}
