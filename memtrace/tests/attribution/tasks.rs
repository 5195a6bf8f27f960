//! asyncio's tasks, one for each connection, and whose the blocks are in the end.

use memtrace::{
    event::{EventBody, Handover},
    id::SocketId,
};
use memtrace_common::event::{ContextKind, HandoverKind};

use crate::scene::{Scene, expect};

const LOOP: u32 = 7;
/// Of another runtime: it receives and answers, and wakes the loop.
const OTHERS: u32 = 8;
/// The context in which the loop runs, and the one in which the server was made,
/// in which uvloop calls back for every connection.
const OWN: u64 = 0x10;
const SERVERS: u64 = 0x20;

/// Which contexts were entered how often.
#[derive(Default)]
struct Server {
    scene: Scene,
    entered: u32,
}

impl Server {
    fn runs(&mut self, context: u64) {
        self.entered += 2;
        let entered = self.entered;
        let kind = ContextKind::Python;
        self.scene.say(
            LOOP,
            EventBody::Context {
                context,
                kind,
                entered,
            },
        );
    }

    fn makes(&mut self, context: u64) {
        let kind = ContextKind::Python;
        let parent = 0;
        self.scene.say(
            LOOP,
            EventBody::ContextMade {
                context,
                parent,
                kind,
            },
        );
    }

    fn closes(&mut self, socket: u64) {
        self.scene.say(
            LOOP,
            EventBody::Close {
                socket: SocketId(socket),
                fd: 5,
                last: true,
            },
        );
    }
}

/// uvloop accepts several connections before their tasks are made, all by the
/// same callback: for which connection each is shows when it writes, and then all
/// that it has done was for that one, whatever was closed meanwhile.
#[test]
fn a_task_of_nobody_knows_which_connection_is_told_by_what_it_sends() {
    let mut server = Server::default();
    server.scene.say(0, EventBody::TraceBegin);
    server.scene.described("python");
    server.runs(OWN);
    for socket in [50, 51, 52] {
        server.scene.accepts(LOOP, socket);
    }
    server.runs(SERVERS);
    for task in [0x50, 0x51] {
        server.makes(task);
    }
    server.runs(OWN);
    server.scene.waits(LOOP);
    for (socket, target) in [(50, "/a"), (51, "/b")] {
        server.scene.receives(LOOP, socket, 0, target);
    }
    for task in [0x50, 0x51] {
        server.runs(task);
        server.scene.blocks(LOOP, task);
    }
    // In the loop's context, which was not entered anew.
    server.closes(52);
    server.runs(OWN);
    server.scene.waits(LOOP);
    for (task, socket) in [(0x51, 51), (0x50, 50)] {
        server.runs(task);
        server.scene.blocks(LOOP, task * 0x100);
        server.scene.responds(LOOP, socket, 0);
    }
    expect(server.scene, [("/a", 0x5050), ("/b", 0x5151)]);
}

/// What is older than a connection is not the connection's alone.
#[test]
fn a_context_in_which_all_connections_receive_serves_none_of_them() {
    let mut server = Server::default();
    server.scene.say(0, EventBody::TraceBegin);
    server.scene.described("python");
    server.runs(OWN);
    server.scene.waits(LOOP);
    server.scene.accepts(LOOP, 50);
    server.runs(SERVERS);
    server.runs(OWN);
    server.scene.waits(LOOP);
    server.scene.receives(LOOP, 50, 0, "/a");
    // Seen the first time, and only now and then.
    server.entered -= 1;
    server.runs(SERVERS);
    server.scene.blocks(LOOP, 1);
    server.runs(OWN);
    server.scene.waits(LOOP);
    server.scene.accepts(LOOP, 51);
    server.runs(SERVERS);
    server.scene.blocks(LOOP, 2);
    server.runs(OWN);
    server.scene.responds(LOOP, 50, 0);
    let ends = server.scene.ends();
    assert_eq!(ends.get("/a"), Some(&1), "{ends:?}");
}

/// The loop waited for events when the trace began, which nobody saw: the first to
/// wake it seems to give it work. What it does in the same context later is for
/// others.
#[test]
fn who_woke_a_loop_first_is_not_whom_it_works_for_ever_after() {
    let through = |amount| Handover {
        key: 1,
        kind: HandoverKind::EventFd,
        amount,
        alone: true,
    };
    let mut server = Server::default();
    server.scene.say(0, EventBody::TraceBegin);
    server.scene.described("python");
    for socket in [50, 51] {
        server.scene.accepts(OTHERS, socket);
        server.scene.receives(OTHERS, socket, 0, "/a");
        server.scene.say(OTHERS, EventBody::Wake(through(1)));
        server.scene.waits(OTHERS);
        server.scene.say(LOOP, EventBody::Woken(through(1)));
        server.runs(SERVERS);
        server.makes(socket);
        server.runs(OWN);
        server.scene.waits(LOOP);
        server.runs(socket);
        server.scene.blocks(LOOP, socket);
        server.runs(OWN);
        server.scene.waits(LOOP);
        server.scene.responds(OTHERS, socket, 0);
    }
    let ends = server.scene.ends();
    assert_eq!(ends.get("/a"), Some(&50), "{ends:?}");
}
