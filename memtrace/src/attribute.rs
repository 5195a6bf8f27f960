//! Whose is it: the only judge of which request an allocation belongs to.
//!
//! In: [`Event`]s in the order of the ring. Out: [`Attributed`] facts for
//! `store`. Pure: no clock, no I/O, no memory of sizes; the same events give
//! the same answers.
//!
//! The rules for a thread:
//! - it works for a request from the moment it receives bytes of it, until it
//!   receives on another connection, accepts, waits for new events, or closes;
//! - what it receives on a connection that its process opened is for the
//!   request on whose behalf it sent there last;
//! - sending bytes of a response proves whose work it did since it last
//!   waited or turned: that stretch is settled then;
//! - once a response has ended, what follows falls to the same request unless
//!   something else is proven (clean-up after the response);
//! - in a runtime whose contexts are read (asyncio), a context works for the
//!   request for which it was made, on whichever thread and after whatever
//!   wait it runs;
//! - a wait for a single descriptor in the middle of a request (a database's
//!   answer, say) is part of the request.

mod attributed;
mod connection;
mod context;
mod process;
mod reason;
mod thread;

pub use attributed::{
    Attributed, Claim, ConnCount, ConnKind, Credit, EndedBy, How, Outcome, Owner, ProcessIndex,
};
pub use reason::Reason;

use memtrace_common::event::WaitKind;

use crate::{
    event::{Data, Direction, Event, EventBody},
    id::{ProcessId, SocketId, StreamId},
    message::Message,
};
use connection::{AfterWrite, Connections, Moment, Turn};
use context::Contexts;
use process::Processes;
use thread::{Context, Reading, Thread, Threads};

/// The name under which connections that could not be followed are counted.
pub const LOSS_CONNECTIONS_FULL: &str = "connections_full";

/// The state from which the next event is judged.
#[derive(Debug, Default)]
pub struct Attributor {
    processes: Processes,
    threads: Threads,
    connections: Connections,
    contexts: Contexts,
    overflow_told: u64,
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

const BETWEEN: Context = Context::unknown(Reason::BetweenRequests);

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
        self.take_messages(Some(body), out);
        match body {
            EventBody::Alloc { addr, size } => {
                let (process, credit) = self.credit(pid, tid, out);
                out.push(Attributed::Alloc {
                    process,
                    addr: *addr,
                    size: *size,
                    credit,
                });
            }
            EventBody::Free { addr } => {
                let process = self.processes.of_pid(pid, out);
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
                let setup = Context::Reason(Reason::ConnectionSetup);
                self.turn(pid, tid, setup, None, out);
            }
            EventBody::Connect(fact) => {
                let process = self.processes.of_pid(pid, out);
                self.connections
                    .open(fact.socket, process, ConnKind::Connected, false, ts_ns, out);
            }
            EventBody::OpenSocket { fact, accepted } => {
                let process = self.processes.of_pid(pid, out);
                self.connections
                    .open(fact.socket, process, ConnKind::Found, *accepted, ts_ns, out);
            }
            // Taken in with the event that follows.
            EventBody::Messages { .. } => {}
            EventBody::Data(data) => self.data(pid, tid, data, out),
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
                    self.thread_begins(tid, *child_tid, out);
                }
            }
            EventBody::Exec { start_ns: _ } => {
                let index = self.processes.of_pid(pid, out);
                self.threads.end_process(index, None, out);
                self.contexts.end_process(index);
                out.push(Attributed::ProcessExec { index });
            }
            EventBody::Exit { process } => {
                self.threads.end(tid, out);
                if *process {
                    self.end_process(pid, ts_ns, out);
                }
            }
            EventBody::Mapped | EventBody::CgroupMove | EventBody::Clock => {}
            EventBody::Wake(_)
            | EventBody::Sleep(_)
            | EventBody::Woken(_)
            | EventBody::Counter { .. }
            | EventBody::ManagedAlloc { .. }
            | EventBody::TypeName { .. } => {}
            EventBody::Context { context, kind: _ } => self.context(pid, tid, *context, out),
            EventBody::ContextMade {
                context,
                parent,
                kind: _,
            } => {
                let process = self.begin_thread(pid, tid, out);
                let request = match parent {
                    0 => self.threads.request_of(tid),
                    parent => self.contexts.request(process, *parent),
                };
                self.contexts.made(process, *context, request);
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
        if self.connections.overflow != self.overflow_told {
            self.overflow_told = self.connections.overflow;
            out.push(Attributed::Loss {
                cause: LOSS_CONNECTIONS_FULL.to_owned(),
                total: self.overflow_told,
            });
        }
    }

    /// A process has ended, and all that belonged to it.
    fn end_process(&mut self, pid: u32, ts_ns: u64, out: &mut Vec<Attributed>) {
        if let Some(index) = self.processes.ended(pid) {
            self.threads.end_process(index, None, out);
            self.contexts.end_process(index);
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
    }

    /// No event follows: work that is still open falls to its presumed owner.
    pub fn finish(&mut self, out: &mut Vec<Attributed>) {
        self.take_messages(None, out);
        self.threads.finish(out);
    }

    fn credit(&mut self, pid: u32, tid: u32, out: &mut Vec<Attributed>) -> (ProcessIndex, Credit) {
        let process = self.begin_thread(pid, tid, out);
        let credit = self.threads.credit(tid, out);
        (
            process,
            credit.unwrap_or(Credit::Reason(Reason::BackgroundThread)),
        )
    }

    /// Makes sure that the thread is known.
    fn begin_thread(&mut self, pid: u32, tid: u32, out: &mut Vec<Attributed>) -> ProcessIndex {
        let process = self.processes.of_pid(pid, out);
        let processes = &self.processes;
        self.threads.get_or_begin(tid, process, || {
            let starting = !processes.was_attached(process) && !processes.has_served(process);
            if starting {
                Reason::Startup
            } else {
                Reason::BackgroundThread
            }
        });
        process
    }

    /// A thread made while a connection is set up is made to serve it.
    fn thread_begins(&mut self, parent_tid: u32, tid: u32, out: &mut Vec<Attributed>) {
        if let Some(parent) = self.threads.get(parent_tid) {
            let setup = Context::Reason(Reason::ConnectionSetup);
            if parent.context == setup {
                let thread = Thread {
                    served: false,
                    ..*parent
                };
                self.threads.inherit(tid, thread, out);
            }
        }
    }

    fn turn(
        &mut self,
        pid: u32,
        tid: u32,
        context: Context,
        proven: Option<Owner>,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        // The first connection of a thread that ran before the trace tells what
        // it was: no background thread, but one whose message had been missed.
        let first = self.threads.get(tid).is_some_and(|thread| !thread.served);
        let proven = if first && self.processes.was_attached(process) && proven.is_none() {
            Some(Owner::Reason(Reason::BeforeFirstHead))
        } else {
            proven
        };
        self.threads.turn(tid, context, proven, out);
        let fallback = || Reason::BackgroundThread;
        self.threads.get_or_begin(tid, process, fallback).served = true;
    }

    fn data(&mut self, pid: u32, tid: u32, data: &Data, out: &mut Vec<Attributed>) {
        let process = self.begin_thread(pid, tid, out);
        let working_for = self.threads.request_of(tid);
        let turn = self.connections.data(data, process, working_for, out);
        match turn {
            Turn::Stay => {}
            Turn::To(owner) => {
                self.processes.set_served(process);
                let idle = self
                    .threads
                    .get(tid)
                    .is_some_and(|thread| thread.context.presumes(Reason::BetweenRequests));
                let proven = idle.then_some(Owner::Reason(Reason::ReceiveBuffer));
                let context = match owner {
                    Owner::Request(claim) => Context::request(claim.request, claim.how),
                    Owner::Reason(reason) => Context::Reason(reason),
                };
                self.turn(pid, tid, context, proven, out);
                if let (Owner::Request(claim), Direction::Recv) = (owner, data.direction) {
                    self.threads.set_reading(
                        tid,
                        Some(Reading {
                            request: claim.request,
                            context: None,
                        }),
                    );
                }
            }
            Turn::Wrote(wrote, after) => {
                let context = match after {
                    AfterWrite::Same => Context::request(wrote, How::Answered),
                    AfterWrite::Next(next) => Context::request(next, How::Received),
                    AfterWrite::Ended => Context::request(wrote, How::Afterwards),
                };
                let proven = Some(Owner::Request(Claim {
                    request: wrote,
                    how: How::Answered,
                }));
                self.turn(pid, tid, context, proven, out);
            }
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
        let worked_here = match self.threads.get(tid).map(|thread| thread.context) {
            Some(context) => match context.claimed() {
                Some(request) => self.connections.owes(socket, request),
                // After a response, or with nothing to do: whatever the
                // connection, the thread is done with it.
                None => true,
            },
            None => false,
        };
        let gone = self.connections.close(socket, last, ts_ns, out);
        if worked_here && gone {
            self.turn(pid, tid, BETWEEN, None, out);
        }
    }

    fn wait(&mut self, tid: u32, kind: WaitKind, descriptors: u32, out: &mut Vec<Attributed>) {
        let Some(thread) = self.threads.get(tid) else {
            return;
        };
        let for_new_events = match kind {
            WaitKind::Epoll | WaitKind::Accept => true,
            WaitKind::Poll => descriptors > 1,
            // The highest descriptor says nothing of how many there are.
            WaitKind::Select => false,
        };
        let in_request = thread.context.claimed().is_some();
        if for_new_events || !in_request {
            self.threads.turn(tid, BETWEEN, None, out);
            self.threads.set_reading(tid, None);
        }
    }

    /// The thread goes on in another context of its runtime, or says again
    /// which one it is in.
    fn context(&mut self, pid: u32, tid: u32, context: u64, out: &mut Vec<Attributed>) {
        let process = self.begin_thread(pid, tid, out);
        let Some(thread) = self.threads.get(tid).copied() else {
            return;
        };
        if let Some(request) = self.contexts.request(process, context) {
            if thread.context.claimed() != Some(request) {
                let context = Context::request(request, How::Context);
                self.threads.turn(tid, context, None, out);
            }
            return;
        }
        match thread.reading {
            // The first context after bytes were received is that of whoever
            // reads them.
            Some(Reading {
                request,
                context: None,
            }) => self.threads.set_reading(
                tid,
                Some(Reading {
                    request,
                    context: Some(context),
                }),
            ),
            Some(Reading {
                request,
                context: Some(reader),
            }) if reader == context => {
                let busy_otherwise = thread
                    .context
                    .claimed()
                    .is_some_and(|other| other != request);
                if busy_otherwise {
                    let context = Context::request(request, How::Received);
                    self.threads.turn(tid, context, None, out);
                }
            }
            // Another reader's, or one of nobody known: what follows is open.
            Some(Reading { .. }) | None => {
                let in_request = thread.context.claimed().is_some();
                if in_request {
                    self.threads.turn(tid, BETWEEN, None, out);
                    self.threads.set_reading(tid, None);
                }
            }
        }
    }
}
