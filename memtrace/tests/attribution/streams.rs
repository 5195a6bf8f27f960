//! Several requests at once on one connection: whose the blocks are of tasks
//! that serve one each, and of a thread that serves them all.

use memtrace_common::event::{ContextKind, HandoverKind};

use memtrace::{
    attribute::Reason,
    event::{Direction, EventBody, Handover},
    message::Message,
};

use crate::scene::{Scene, expect, reason, stream_requests, stream_responses};

const LOOP: u32 = 7;
const SOCKET: u64 = 50;
const PYTHON: ContextKind = ContextKind::Python;

/// The context in which the loop was started, and that of the task that reads.
const OWN: u64 = 0x10;
const READER: u64 = 0x20;

/// A loop of CPython's contexts that has just accepted a connection.
#[derive(Default)]
struct Tasks {
    scene: Scene,
    entered: u32,
}

impl Tasks {
    fn serving() -> Self {
        let mut tasks = Self::default();
        tasks.scene.say(0, EventBody::TraceBegin);
        tasks.runs(OWN);
        tasks.waits();
        tasks.runs(OWN);
        tasks.scene.accepts(LOOP, SOCKET);
        tasks
    }

    fn waits(&mut self) {
        self.scene.waits(LOOP);
    }

    /// 0: no context.
    fn runs(&mut self, context: u64) {
        self.entered += 1;
        let body = EventBody::Context {
            context,
            kind: PYTHON,
            entered: self.entered,
        };
        self.scene.say(LOOP, body);
    }

    fn makes(&mut self, context: u64) {
        let body = EventBody::ContextMade {
            context,
            parent: 0,
            kind: PYTHON,
        };
        self.scene.say(LOOP, body);
    }

    fn allocates(&mut self, size: u64) {
        self.scene.blocks(LOOP, size);
    }

    /// Whole requests in one call.
    fn receives(&mut self, requests: &[(u32, &str)]) {
        let messages = stream_requests(requests);
        self.scene.moves(LOOP, SOCKET, Direction::Recv, messages);
    }

    /// Bytes of responses in one call, to their ends if `whole`.
    fn sends(&mut self, exchanges: &[u32], whole: bool) {
        let messages = stream_responses(exchanges, whole);
        self.scene.moves(LOOP, SOCKET, Direction::Send, messages);
    }
}

/// The task that reads the connection makes one for each request: what they send
/// tells which is whose, before and after they waited.
#[test]
fn a_task_is_told_by_what_it_sends() {
    let mut tasks = Tasks::serving();
    tasks.makes(READER);
    tasks.waits();
    tasks.runs(OWN);
    tasks.receives(&[(1, "/a"), (3, "/b")]);
    tasks.waits();
    tasks.runs(READER);
    for task in [0x31, 0x33] {
        tasks.makes(task);
    }
    tasks.runs(0x33);
    tasks.allocates(30_000);
    tasks.runs(0x31);
    tasks.allocates(100);
    tasks.waits();
    for (task, size) in [(0x31, 11), (0x33, 5000)] {
        tasks.runs(task);
        tasks.allocates(size);
    }
    // A child of one of them, before that one is known.
    tasks.makes(0x43);
    tasks.runs(0x43);
    tasks.allocates(700_000);
    tasks.waits();
    tasks.runs(0x31);
    tasks.sends(&[1], false);
    tasks.runs(0x33);
    tasks.sends(&[3], false);
    for (task, size) in [(0x31, 1000), (0x33, 2)] {
        tasks.runs(task);
        tasks.allocates(size);
    }
    // Another task sends what is left of both.
    tasks.runs(READER);
    tasks.sends(&[1, 3], true);
    expect(tasks.scene, [("/a", 1111), ("/b", 735_002)]);
}

/// With one request under way all that is done is for that one.
#[test]
fn one_request_alone_is_as_on_any_connection() {
    let mut tasks = Tasks::serving();
    tasks.makes(READER);
    for (exchange, route) in [(1, "/a"), (3, "/b")] {
        tasks.waits();
        tasks.runs(OWN);
        tasks.receives(&[(exchange, route)]);
        tasks.waits();
        tasks.runs(READER);
        let task = 0x30 + u64::from(exchange);
        tasks.makes(task);
        tasks.runs(task);
        tasks.allocates(100 * u64::from(exchange));
        tasks.waits();
        tasks.runs(READER);
        tasks.sends(&[exchange], true);
    }
    expect(tasks.scene, [("/a", 100), ("/b", 300)]);
}

/// A thread that answers one after the other what came at once: what it did
/// before the first answer was for all, what it did before each later one for
/// that one, and what it did before several were answered in one call for
/// nobody in particular.
#[test]
fn a_thread_that_serves_all_is_told_from_answer_to_answer() {
    let mut tasks = Tasks::serving();
    tasks.runs(0);
    tasks.receives(&[(1, "/a"), (3, "/b"), (5, "/c"), (7, "/d")]);
    tasks.allocates(1);
    tasks.sends(&[1], true);
    tasks.allocates(20);
    tasks.sends(&[3], true);
    tasks.allocates(300);
    tasks.sends(&[5, 7], true);
    let several = reason(Reason::SeveralRequests);
    expect(tasks.scene, [("/b", 20), (&*several, 301)]);
}

/// gRPC's reader hands out what came first when it has received what came last.
#[test]
fn a_reader_of_several_requests_hands_none_of_them_over() {
    const WORKER: u32 = 9;
    let at_queue = |amount| Handover {
        key: 0x7000,
        kind: HandoverKind::Futex,
        amount,
        alone: false,
    };
    let mut tasks = Tasks::serving();
    tasks.runs(0);
    tasks.scene.say(WORKER, EventBody::Sleep(at_queue(0)));
    tasks.receives(&[(1, "/a")]);
    tasks.allocates(1);
    tasks.receives(&[(3, "/b")]);
    tasks.scene.say(LOOP, EventBody::Wake(at_queue(1)));
    tasks.scene.say(WORKER, EventBody::Woken(at_queue(1)));
    tasks.scene.blocks(WORKER, 20);
    tasks.sends(&[1], true);
    tasks.sends(&[3], true);
    let ends = tasks.scene.ends();
    assert_eq!(ends.get("/b"), None, "{ends:?}");
}

/// Read record by record, as from TLS: the same, but for what is done between.
#[test]
fn bytes_of_several_that_are_read_one_after_the_other_are_for_all() {
    let mut tasks = Tasks::serving();
    tasks.runs(0);
    tasks.receives(&[(1, "/a")]);
    tasks.receives(&[(3, "/b")]);
    tasks.receives(&[(5, "/c")]);
    tasks.allocates(1);
    tasks.receives(&[(7, "/d")]);
    tasks.allocates(20);
    tasks.sends(&[7], true);
    let several = reason(Reason::SeveralRequests);
    expect(tasks.scene, [("/d", 20), (&*several, 1)]);
}

/// Of what comes back from a server that is asked for several at once nobody
/// knows here for which of them it is.
#[test]
fn answers_of_another_server_are_for_nobody_in_particular() {
    let mut tasks = Tasks::serving();
    tasks.runs(0);
    tasks.receives(&[(1, "/a")]);
    let backend = 60;
    tasks.scene.connects(LOOP, backend);
    let preface = vec![Message::Multiplexed];
    tasks.scene.moves(LOOP, backend, Direction::Send, preface);
    tasks.waits();
    tasks.scene.answered(LOOP, backend);
    tasks.allocates(40_000);
    tasks.waits();
    let nobodys = reason(Reason::BetweenRequests);
    expect(tasks.scene, [(&*nobodys, 40_000)]);
}
