//! Servers as sequences of events, and whose their allocations turn out to be.

use std::collections::HashMap;

use memtrace_common::event::{Addresses, HandoverKind, WaitKind};

use crate::{
    attribute::{Attributed, Attributor, Credit, How, Owner, Reason},
    event::{Data, Direction, Event, EventBody, Handover, SocketFact},
    id::{RequestId, SocketId, StreamId, WorkId},
    message::{ExchangeId, Message},
};

const PID: u32 = 100;
/// A queue's condition variable, the second of its two futexes, and a lock.
const QUEUE: u64 = 0x5000;
const QUEUE_TURNED: u64 = 0x5004;
const LOCK: u64 = 0x6000;
const PIPE: u64 = 77;

/// Whose an allocation turned out to be.
#[derive(Clone, Debug, PartialEq)]
enum Whose {
    Request(u32, How),
    Reason(Reason),
    OneOf([u32; 2]),
}

/// A server whose events are made up one after the other.
#[derive(Default)]
struct Server {
    attributor: Attributor,
    out: Vec<Attributed>,
    ts_ns: u64,
    allocations: u64,
    /// Of each connection the number of requests.
    exchanges: HashMap<u64, u32>,
}

fn futex(key: u64, amount: u32) -> Handover {
    handover(HandoverKind::Futex, key, amount)
}

fn handover(kind: HandoverKind, key: u64, amount: u32) -> Handover {
    Handover {
        key,
        kind,
        amount,
        alone: false,
    }
}

impl Server {
    fn event(&mut self, tid: u32, body: EventBody) {
        self.ts_ns += 1000;
        let event = Event {
            ts_ns: self.ts_ns,
            pid: PID,
            tid,
            body,
        };
        self.attributor.step(&event, &mut self.out);
    }

    fn accept(&mut self, tid: u32, socket: u64) {
        self.event(
            tid,
            EventBody::Accept(SocketFact {
                socket: SocketId(socket),
                fd: 9,
                addresses: Addresses::default(),
            }),
        );
    }

    fn moved(&mut self, tid: u32, socket: u64, direction: Direction, messages: Vec<Message>) {
        let stream = StreamId::Socket(SocketId(socket));
        self.event(tid, EventBody::Messages { stream, messages });
        self.event(
            tid,
            EventBody::Data(Data {
                direction,
                stream,
                fd: 9,
                len: 80,
                more: false,
                unreadable: false,
                buffer: 0,
            }),
        );
    }

    /// The next request of a connection is received.
    fn receives(&mut self, tid: u32, socket: u64) {
        let exchange = ExchangeId(*self.exchanges.entry(socket).or_default());
        let messages = vec![
            Message::RequestBegin { exchange },
            Message::RequestEnd {
                exchange,
                request_bytes: 80,
            },
        ];
        self.moved(tid, socket, Direction::Recv, messages);
    }

    /// The current request of a connection is answered.
    fn answers(&mut self, tid: u32, socket: u64) {
        let number = self.exchanges.entry(socket).or_default();
        let exchange = ExchangeId(*number);
        *number += 1;
        let messages = vec![
            Message::ResponseBegin { exchange },
            Message::ResponseEnd {
                exchange,
                response_bytes: 80,
                request_bytes: 80,
            },
        ];
        self.moved(tid, socket, Direction::Send, messages);
    }

    /// Another server is asked on a connection of its own, and answers.
    fn asks(&mut self, tid: u32, socket: u64) {
        let (socket_id, fd) = (SocketId(socket), 9);
        let addresses = Addresses::default();
        let fact = SocketFact {
            socket: socket_id,
            fd,
            addresses,
        };
        self.event(tid, EventBody::Connect(fact));
        for direction in [Direction::Send, Direction::Recv] {
            self.moved(tid, socket, direction, Vec::new());
        }
        self.event(
            tid,
            EventBody::Close {
                socket: socket_id,
                fd,
                last: true,
            },
        );
    }

    fn polls(&mut self, tid: u32) {
        let kind = WaitKind::Epoll;
        let descriptors = 0;
        self.event(tid, EventBody::Wait { kind, descriptors });
    }

    fn sleeps(&mut self, tid: u32, key: u64) {
        self.event(tid, EventBody::Sleep(futex(key, 0)));
    }

    fn wakes(&mut self, tid: u32, key: u64) {
        self.event(tid, EventBody::Wake(futex(key, 1)));
    }

    fn woken(&mut self, tid: u32, key: u64) {
        self.event(tid, EventBody::Woken(futex(key, 1)));
    }

    /// A block is allocated; its number.
    fn allocates(&mut self, tid: u32) -> usize {
        let number = self.allocations;
        self.allocations += 1;
        let (addr, size) = (0x10_0000 + number * 64, 10 + number);
        self.event(tid, EventBody::Alloc { addr, size });
        number as usize
    }

    /// Whose each allocation was, in the order of the allocations.
    fn ends(mut self) -> Vec<Whose> {
        self.attributor.finish(&mut self.out);
        let mut works: HashMap<WorkId, Whose> = HashMap::new();
        for said in &self.out {
            match *said {
                Attributed::WorkSettled { work, owner } => {
                    let whose = match owner {
                        Owner::Request(claim) => Whose::Request(claim.request.0, claim.how),
                        Owner::Reason(reason) => Whose::Reason(reason),
                    };
                    assert_eq!(works.insert(work, whose), None, "{work:?} settled twice");
                }
                Attributed::WorkDisputed {
                    work,
                    candidates: [RequestId(a), RequestId(b)],
                } => {
                    let whose = Whose::OneOf([a, b]);
                    assert_eq!(works.insert(work, whose), None, "{work:?} settled twice");
                }
                _ => {}
            }
        }
        let of = |credit: &Credit| match credit {
            Credit::Reason(reason) => Whose::Reason(*reason),
            Credit::Work(work) => works.get(work).cloned().expect("work that is settled"),
        };
        self.out
            .iter()
            .filter_map(|said| match said {
                Attributed::Alloc { credit, .. } => Some(of(credit)),
                _ => None,
            })
            .collect()
    }
}

const ACCEPTOR: u32 = 1;
const POLLER: u32 = 2;
const WORKER: u32 = 11;
const WORKER_2: u32 = 12;
const WORKER_3: u32 = 13;
const WORKER_4: u32 = 14;

/// Workers that wait at the queue, and a poller that waits for events.
fn pool(workers: &[u32]) -> Server {
    let mut server = Server::default();
    for worker in workers {
        server.sleeps(*worker, QUEUE);
    }
    server.polls(POLLER);
    server
}

fn handed_over(request: u32) -> Whose {
    Whose::Request(request, How::HandedOver)
}

#[test]
fn a_worker_works_for_whom_it_was_woken_until_it_sleeps_again() {
    let mut server = pool(&[WORKER, WORKER_2]);
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.polls(POLLER);
    server.woken(WORKER, QUEUE);
    let during = server.allocates(WORKER);
    server.sleeps(WORKER, QUEUE_TURNED);
    let after = server.allocates(WORKER);
    let whose = server.ends();
    assert_eq!(whose[during], handed_over(0));
    assert_eq!(whose[after], Whose::Reason(Reason::BetweenRequests));
}

/// Tomcat: the poller only sees that there is something to read.
#[test]
fn a_worker_that_receives_works_for_what_it_received() {
    let mut server = pool(&[WORKER, WORKER_2]);
    server.accept(ACCEPTOR, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    let buffer = server.allocates(WORKER);
    server.receives(WORKER, 1);
    let during = server.allocates(WORKER);
    server.answers(WORKER, 1);
    let after = server.allocates(WORKER);
    server.sleeps(WORKER, QUEUE);
    let whose = server.ends();
    assert_eq!(whose[buffer], Whose::Reason(Reason::ReceiveBuffer));
    assert_eq!(whose[during], Whose::Request(0, How::Received));
    assert_eq!(whose[after], Whose::Request(0, How::Afterwards));
}

/// puma: the reactor reads, a thread of the pool handles and answers.
#[test]
fn a_worker_that_answers_proves_whose_work_it_did() {
    let mut server = pool(&[WORKER, WORKER_2]);
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    let first = server.allocates(WORKER);
    server.answers(WORKER, 1);
    // It finds the next one without having to sleep.
    server.receives(POLLER, 1);
    let second = server.allocates(WORKER);
    server.answers(WORKER, 1);
    let whose = server.ends();
    assert_eq!(whose[first], handed_over(0));
    assert_eq!(whose[second], Whose::Request(1, How::Answered));
}

/// Two are woken at once and each takes what the other was woken for.
#[test]
fn an_answer_says_more_than_a_hand_over() {
    let mut server = pool(&[WORKER, WORKER_2, WORKER_3]);
    server.accept(ACCEPTOR, 1);
    server.accept(ACCEPTOR, 2);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    let swapped = server.allocates(WORKER);
    server.receives(POLLER, 2);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER_2, QUEUE);
    let swapped_2 = server.allocates(WORKER_2);
    server.answers(WORKER, 2);
    server.answers(WORKER_2, 1);
    let whose = server.ends();
    assert_eq!(whose[swapped], Whose::Request(1, How::Answered));
    assert_eq!(whose[swapped_2], Whose::Request(0, How::Answered));
}

/// waitress: the main thread may send what the worker has made.
#[test]
fn a_worker_that_tells_the_loop_may_be_done() {
    let mut server = pool(&[WORKER]);
    server.accept(ACCEPTOR, 1);
    server.accept(ACCEPTOR, 2);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.receives(POLLER, 2);
    // Nobody is asleep: this one is not seen to be given.
    server.polls(POLLER);
    server.woken(WORKER, QUEUE);
    let first = server.allocates(WORKER);
    let trigger = handover(HandoverKind::Pipe, PIPE, 1);
    server.event(WORKER, EventBody::Wake(trigger));
    let second = server.allocates(WORKER);
    server.event(POLLER, EventBody::Woken(trigger));
    let on_the_loop = server.allocates(POLLER);
    server.answers(POLLER, 1);
    let whose = server.ends();
    assert_eq!(whose[first], handed_over(0));
    assert_eq!(whose[second], Whose::OneOf([0, 0]));
    assert_eq!(whose[on_the_loop], Whose::Request(0, How::Answered));
}

/// The same with somebody asleep: what is given would be seen.
#[test]
fn a_worker_that_tells_the_loop_goes_on_if_there_is_nothing_else_to_do() {
    let mut server = pool(&[WORKER, WORKER_2]);
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    server.allocates(WORKER);
    let trigger = handover(HandoverKind::EventFd, PIPE, 1);
    server.event(WORKER, EventBody::Wake(trigger));
    let cleaning_up = server.allocates(WORKER);
    let whose = server.ends();
    assert_eq!(whose[cleaning_up], handed_over(0));
}

#[test]
fn who_wakes_an_event_loop_is_a_candidate() {
    let mut server = pool(&[WORKER, WORKER_2]);
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.polls(POLLER);
    server.woken(WORKER, QUEUE);
    server.allocates(WORKER);
    let event = handover(HandoverKind::EventFd, 5, 1);
    server.event(WORKER, EventBody::Wake(event));
    server.event(POLLER, EventBody::Woken(event));
    let unclear = server.allocates(POLLER);
    server.polls(POLLER);
    let whose = server.ends();
    assert_eq!(whose[unclear], Whose::OneOf([0, 0]));
}

/// gunicorn's gthread: the main thread accepts, a worker reads, handles and
/// answers, the main thread closes.
#[test]
fn a_connection_that_is_handed_over_brings_no_request() {
    let mut server = pool(&[WORKER, WORKER_2]);
    server.accept(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.polls(POLLER);
    server.woken(WORKER, QUEUE);
    server.receives(WORKER, 1);
    let during = server.allocates(WORKER);
    server.answers(WORKER, 1);
    server.sleeps(WORKER, QUEUE);
    let whose = server.ends();
    assert_eq!(whose[during], Whose::Request(0, How::Received));
}

/// CPython's `SimpleQueue`: who takes something lets the next one look.
#[test]
fn who_passes_a_wake_up_on_hands_nothing_over() {
    let mut server = pool(&[WORKER, WORKER_2, WORKER_3]);
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    server.wakes(WORKER, QUEUE);
    server.woken(WORKER_2, QUEUE);
    let during = server.allocates(WORKER);
    let nothing_found = server.allocates(WORKER_2);
    server.sleeps(WORKER_2, QUEUE);
    let whose = server.ends();
    assert_eq!(whose[during], handed_over(0));
    assert_eq!(
        whose[nothing_found],
        Whose::Reason(Reason::BackgroundThread)
    );
}

/// CPython's `queue.Queue`: each wait is for a lock of its own, and the condition
/// itself has one.
#[test]
fn each_wait_at_a_futex_of_its_own() {
    let mut server = pool(&[]);
    server.accept(ACCEPTOR, 1);
    server.accept(ACCEPTOR, 2);
    for (worker, key) in [(WORKER, 0x7100), (WORKER_2, 0x7200)] {
        server.sleeps(worker, key);
    }
    server.receives(POLLER, 1);
    server.wakes(POLLER, 0x7100);
    server.woken(WORKER, 0x7100);
    // The lock of the condition is held by the poller.
    server.sleeps(WORKER, LOCK);
    server.wakes(POLLER, LOCK);
    server.woken(WORKER, LOCK);
    let first = server.allocates(WORKER);
    server.answers(POLLER, 1);
    server.sleeps(WORKER, 0x7300);
    server.receives(POLLER, 2);
    server.wakes(POLLER, 0x7300);
    server.woken(WORKER, 0x7300);
    let second = server.allocates(WORKER);
    let whose = server.ends();
    assert_eq!(whose[first], handed_over(0));
    assert_eq!(whose[second], handed_over(1));
}

#[test]
fn contention_hands_nothing_over() {
    let mut server = pool(&[WORKER, WORKER_2, WORKER_3]);
    server.accept(ACCEPTOR, 1);
    server.accept(ACCEPTOR, 2);
    for (socket, worker) in [(1, WORKER), (2, WORKER_2)] {
        server.receives(POLLER, socket);
        server.wakes(POLLER, QUEUE);
        server.woken(worker, QUEUE);
        server.allocates(worker);
    }
    server.sleeps(WORKER, LOCK);
    server.wakes(WORKER_2, LOCK);
    server.woken(WORKER, LOCK);
    let own = server.allocates(WORKER);
    let whose = server.ends();
    assert_eq!(whose[own], handed_over(0));
}

/// A lock is known by those who wait for it in the middle of a request. Then it
/// hands nothing over to a background thread either.
#[test]
fn a_lock_hands_nothing_over_to_a_thread_that_has_nothing_to_do() {
    let mut server = pool(&[]);
    let background = 30;
    server.accept(ACCEPTOR, 1);
    server.receives(WORKER, 1);
    server.sleeps(WORKER, LOCK);
    server.wakes(background, LOCK);
    server.woken(WORKER, LOCK);
    server.answers(WORKER, 1);
    server.receives(WORKER, 1);
    server.sleeps(background, LOCK);
    server.wakes(WORKER, LOCK);
    server.woken(background, LOCK);
    let own = server.allocates(background);
    let whose = server.ends();
    assert_eq!(whose[own], Whose::Reason(Reason::BackgroundThread));
}

/// A C++ pool with a counting event descriptor.
#[test]
fn an_event_descriptor_hands_over_like_a_semaphore() {
    let event = |amount| handover(HandoverKind::EventFd, 5, amount);
    let mut server = Server::default();
    for worker in [WORKER, WORKER_2, WORKER_3] {
        server.event(worker, EventBody::Sleep(event(0)));
    }
    server.accept(ACCEPTOR, 1);
    server.accept(ACCEPTOR, 2);
    let mut seen = Vec::new();
    for (socket, worker) in [(1, WORKER), (2, WORKER_2)] {
        server.receives(POLLER, socket);
        server.event(POLLER, EventBody::Wake(event(1)));
        server.event(worker, EventBody::Woken(event(1)));
        seen.push(server.allocates(worker));
    }
    let whose = server.ends();
    assert_eq!(whose[seen[0]], handed_over(0));
    assert_eq!(whose[seen[1]], handed_over(1));
}

/// A pipe tells to the byte who gets what.
#[test]
fn a_message_through_a_pipe_is_its_readers() {
    let pipe = |amount| handover(HandoverKind::Pipe, PIPE, amount);
    let mut server = Server::default();
    server.event(WORKER, EventBody::Sleep(pipe(0)));
    for socket in [1, 2] {
        server.accept(ACCEPTOR, socket);
        server.receives(POLLER, socket);
        server.event(POLLER, EventBody::Wake(pipe(16)));
    }
    server.event(WORKER, EventBody::Woken(pipe(16)));
    let first = server.allocates(WORKER);
    server.event(WORKER, EventBody::Woken(pipe(16)));
    let second = server.allocates(WORKER);
    // Whoever reads what is alone in it.
    server.event(WORKER, EventBody::Sleep(pipe(0)));
    server.event(WORKER_2, EventBody::Sleep(pipe(0)));
    server.accept(ACCEPTOR, 3);
    server.receives(POLLER, 3);
    server.event(POLLER, EventBody::Wake(pipe(16)));
    server.event(WORKER_2, EventBody::Woken(pipe(16)));
    let third = server.allocates(WORKER_2);
    let whose = server.ends();
    assert_eq!(whose[first], handed_over(0));
    assert_eq!(whose[second], handed_over(1));
    assert_eq!(whose[third], handed_over(2));
}

/// Of two threads that read one after the other, the second may say so first.
#[test]
fn messages_that_two_threads_read_at_once_may_be_either_ones() {
    let pipe = |amount| handover(HandoverKind::Pipe, PIPE, amount);
    let mut server = Server::default();
    for worker in [WORKER, WORKER_2] {
        server.event(worker, EventBody::Sleep(pipe(0)));
    }
    for socket in [1, 2] {
        server.accept(ACCEPTOR, socket);
        server.receives(POLLER, socket);
        server.event(POLLER, EventBody::Wake(pipe(16)));
    }
    for worker in [WORKER_2, WORKER] {
        server.event(worker, EventBody::Woken(pipe(16)));
    }
    let unclear = server.allocates(WORKER);
    let proven = server.allocates(WORKER_2);
    server.answers(WORKER_2, 2);
    let whose = server.ends();
    assert_eq!(whose[unclear], Whose::OneOf([1, 0]));
    assert_eq!(whose[proven], Whose::Request(1, How::Answered));
}

/// Who closes what it has asked another server on goes on with its work.
#[test]
fn a_closed_backend_ends_no_work() {
    let mut server = pool(&[WORKER]);
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    server.allocates(WORKER);
    server.answers(WORKER, 1);
    // It finds the next one without having been woken.
    server.accept(ACCEPTOR, 2);
    server.receives(POLLER, 2);
    let before = server.allocates(WORKER);
    server.asks(WORKER, 50);
    let after = server.allocates(WORKER);
    server.answers(WORKER, 2);
    let whose = server.ends();
    assert_eq!(whose[before], Whose::Request(1, How::Answered));
    assert_eq!(whose[after], Whose::Request(1, How::Answered));
}

/// What was in a pipe when the trace began is nobody's that is known.
#[test]
fn a_pipe_is_believed_once_it_was_empty() {
    let pipe = |amount| handover(HandoverKind::Pipe, PIPE, amount);
    let mut server = Server::default();
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    server.event(POLLER, EventBody::Wake(pipe(16)));
    server.event(WORKER, EventBody::Woken(pipe(16)));
    let unclear = server.allocates(WORKER);
    server.event(WORKER, EventBody::Sleep(pipe(0)));
    server.accept(ACCEPTOR, 2);
    server.receives(POLLER, 2);
    server.event(POLLER, EventBody::Wake(pipe(16)));
    server.event(WORKER, EventBody::Woken(pipe(16)));
    let clear = server.allocates(WORKER);
    let whose = server.ends();
    assert_eq!(whose[unclear], Whose::OneOf([0, 0]));
    assert_eq!(whose[clear], handed_over(1));
}

/// A worker that has just finished takes what another one was woken for.
#[test]
fn work_that_may_have_been_stolen_is_ambiguous() {
    let mut server = pool(&[WORKER, WORKER_2]);
    for socket in 1..=4 {
        server.accept(ACCEPTOR, socket);
    }
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    server.allocates(WORKER);
    let told = handover(HandoverKind::EventFd, 5, 1);
    server.event(WORKER, EventBody::Wake(told));
    server.receives(POLLER, 2);
    server.wakes(POLLER, QUEUE);
    server.receives(POLLER, 3);
    server.polls(POLLER);
    let stolen = server.allocates(WORKER);
    server.woken(WORKER_2, QUEUE);
    let left_over = server.allocates(WORKER_2);
    let whose = server.ends();
    assert_eq!(whose[stolen], Whose::OneOf([0, 1]));
    assert_eq!(whose[left_over], Whose::OneOf([1, 1]));
}

/// Two are woken before either has done anything: either may have either.
#[test]
fn what_several_are_woken_for_at_once_is_ambiguous() {
    let mut server = pool(&[WORKER, WORKER_2, WORKER_3, WORKER_4]);
    for socket in 1..=3 {
        server.accept(ACCEPTOR, socket);
    }
    for socket in 1..=2 {
        server.receives(POLLER, socket);
        server.wakes(POLLER, QUEUE);
    }
    server.woken(WORKER, QUEUE);
    server.woken(WORKER_2, QUEUE);
    let either = server.allocates(WORKER);
    let other = server.allocates(WORKER_2);
    // Later ones are not concerned.
    server.receives(POLLER, 3);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER_3, QUEUE);
    let clear = server.allocates(WORKER_3);
    let whose = server.ends();
    assert_eq!(whose[either], Whose::OneOf([0, 1]));
    assert_eq!(whose[other], Whose::OneOf([1, 0]));
    assert_eq!(whose[clear], handed_over(2));
}

/// A worker makes the response, a thread of its own writes it.
#[test]
fn a_writer_that_is_handed_the_response_works_for_it_too() {
    let writer = 20;
    let writers_queue = 0x9000;
    let mut server = pool(&[WORKER, WORKER_2]);
    server.sleeps(writer, writers_queue);
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    let made = server.allocates(WORKER);
    server.wakes(WORKER, writers_queue);
    server.sleeps(WORKER, QUEUE);
    server.woken(writer, writers_queue);
    let wrote = server.allocates(writer);
    server.answers(writer, 1);
    server.sleeps(writer, writers_queue);
    let idle = server.allocates(writer);
    let whose = server.ends();
    assert_eq!(whose[made], handed_over(0));
    assert_eq!(whose[wrote], handed_over(0));
    assert_eq!(whose[idle], Whose::Reason(Reason::BetweenRequests));
}

/// The futex had changed before the worker could sleep; who changed it says only
/// then that it wakes somebody.
#[test]
fn a_worker_that_did_not_have_to_sleep_was_given_something_all_the_same() {
    let mut server = pool(&[]);
    server.accept(ACCEPTOR, 1);
    server.sleeps(WORKER, QUEUE);
    server.receives(POLLER, 1);
    server.event(WORKER, EventBody::Woken(futex(QUEUE, 0)));
    let early = server.allocates(WORKER);
    server.wakes(POLLER, QUEUE);
    let late = server.allocates(WORKER);
    let whose = server.ends();
    assert_eq!(whose[early], handed_over(0));
    assert_eq!(whose[late], handed_over(0));
}

#[test]
fn a_wait_that_timed_out_is_forgotten() {
    let mut server = pool(&[WORKER]);
    let own = server.allocates(WORKER);
    server.accept(ACCEPTOR, 1);
    server.receives(POLLER, 1);
    // It wakes nobody.
    server.wakes(POLLER, QUEUE);
    server.event(POLLER, EventBody::Wake(futex(QUEUE, 0)));
    server.sleeps(WORKER, QUEUE);
    server.woken(WORKER, QUEUE);
    let unknown = server.allocates(WORKER);
    let whose = server.ends();
    assert_eq!(whose[own], Whose::Reason(Reason::BackgroundThread));
    assert_eq!(whose[unknown], Whose::Reason(Reason::BackgroundThread));
}

#[test]
fn a_thread_works_for_the_request_of_its_maker() {
    let mut server = Server::default();
    server.accept(ACCEPTOR, 1);
    server.receives(WORKER, 1);
    let child = 40;
    server.event(
        WORKER,
        EventBody::Fork {
            child_pid: PID,
            child_tid: child,
            start_ns: 0,
            process: false,
            followed: true,
        },
    );
    let within = server.allocates(child);
    let whose = server.ends();
    assert_eq!(whose[within], handed_over(0));
}

/// A pool makes its threads when there is work: they get the rest of it elsewhere,
/// and tell a loop of each piece.
#[test]
fn a_thread_that_has_told_of_its_makers_request_may_have_taken_another() {
    let mut server = Server::default();
    server.accept(ACCEPTOR, 1);
    server.receives(WORKER, 1);
    let child = 40;
    server.event(
        WORKER,
        EventBody::Fork {
            child_pid: PID,
            child_tid: child,
            start_ns: 0,
            process: false,
            followed: true,
        },
    );
    let first = server.allocates(child);
    server.event(
        child,
        EventBody::Wake(handover(HandoverKind::EventFd, 5, 1)),
    );
    let second = server.allocates(child);
    let whose = server.ends();
    assert_eq!(whose[first], handed_over(0));
    assert_eq!(whose[second], Whose::OneOf([0, 0]));
}

/// What it takes for a request thread to wait for a worker's result, in a place of
/// its own.
const RESULT: u64 = 0xa000;

#[test]
fn who_wakes_a_thread_that_waits_in_a_request_has_worked_for_it() {
    let told = handover(HandoverKind::EventFd, 5, 1);
    let mut server = pool(&[WORKER, WORKER_2]);
    for socket in 1..=2 {
        server.accept(ACCEPTOR, socket);
    }
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    server.allocates(WORKER);
    server.event(WORKER, EventBody::Wake(told));
    // Another thread gives something without anybody's being woken, and waits.
    let asker = 30;
    server.wakes(POLLER, QUEUE);
    server.receives(asker, 2);
    server.sleeps(asker, RESULT);
    let taken = server.allocates(WORKER);
    server.wakes(WORKER, RESULT);
    let whose = server.ends();
    assert_eq!(whose[taken], handed_over(1));
}

#[test]
fn who_was_woken_for_one_request_and_ends_the_wait_of_another_is_ambiguous() {
    let mut server = pool(&[WORKER]);
    for socket in 1..=2 {
        server.accept(ACCEPTOR, socket);
    }
    let asker = 30;
    server.receives(asker, 2);
    server.sleeps(asker, RESULT);
    server.receives(POLLER, 1);
    server.wakes(POLLER, QUEUE);
    server.woken(WORKER, QUEUE);
    let unclear = server.allocates(WORKER);
    server.wakes(WORKER, RESULT);
    let whose = server.ends();
    assert_eq!(whose[unclear], Whose::OneOf([1, 0]));
}

/// A lock that is made anew for each wait is a new one each time.
#[test]
fn memory_that_was_given_back_is_no_lock_any_more() {
    let mut server = pool(&[]);
    server.accept(ACCEPTOR, 1);
    server.receives(WORKER, 1);
    server.sleeps(WORKER, LOCK);
    server.wakes(WORKER_2, LOCK);
    server.woken(WORKER, LOCK);
    server.answers(WORKER, 1);
    server.event(WORKER, EventBody::Free { addr: LOCK });
    server.sleeps(WORKER_3, LOCK);
    server.receives(POLLER, 1);
    server.wakes(POLLER, LOCK);
    server.woken(WORKER_3, LOCK);
    let handed = server.allocates(WORKER_3);
    let whose = server.ends();
    assert_eq!(whose[handed], handed_over(1));
}

/// CPython's `SimpleQueue`, and whoever wakes only if the list was empty: what is
/// given is not always seen, although somebody is asleep.
#[test]
fn a_list_of_which_more_is_done_than_was_given_is_not_believed() {
    let told = handover(HandoverKind::EventFd, 5, 1);
    let mut server = pool(&[WORKER, WORKER_2, WORKER_3]);
    for socket in 1..=3 {
        server.accept(ACCEPTOR, socket);
        server.receives(POLLER, socket);
        if socket == 1 {
            server.wakes(POLLER, QUEUE);
        }
    }
    server.woken(WORKER, QUEUE);
    let given = server.allocates(WORKER);
    server.event(WORKER, EventBody::Wake(told));
    server.allocates(WORKER);
    server.event(WORKER, EventBody::Wake(told));
    let not_given = server.allocates(WORKER);
    let whose = server.ends();
    assert_eq!(whose[given], handed_over(0));
    assert_eq!(whose[not_given], Whose::OneOf([0, 0]));
}
