//! tokio's tasks, known by the blocks that are their cells, and threads that take
//! turns at a connection without a task that is known.

use memtrace::event::{Direction, EventBody};
use memtrace_common::event::ContextKind;

use crate::scene::{Scene, expect, stream_requests, stream_responses};

const SOCKET: u64 = 50;
/// Of the task that serves the connection.
const SERVING: u64 = 0x8_0000;
const SERVING_BYTES: u64 = 1024;
/// Of tasks that answer one exchange each.
const CELL_BYTES: u64 = 256;

fn block(scene: &mut Scene, tid: u32, addr: u64, size: u64) {
    scene.say(tid, EventBody::Alloc { addr, size });
}

/// A thread polls a task; 0: none any more.
fn polls(scene: &mut Scene, tid: u32, cell: u64) {
    let body = EventBody::Context {
        context: cell,
        kind: ContextKind::Task,
        entered: 0,
    };
    scene.say(tid, body);
}

/// A server whose task that accepts has spawned one for a connection.
fn serving() -> Scene {
    let mut scene = Scene::default();
    scene.say(0, EventBody::TraceBegin);
    polls(&mut scene, 1, 0x1_0000);
    scene.accepts(1, SOCKET);
    block(&mut scene, 1, SERVING, SERVING_BYTES);
    polls(&mut scene, 1, 0);
    scene
}

#[test]
fn a_task_works_for_its_connection_on_whichever_thread() {
    let mut scene = serving();
    polls(&mut scene, 2, SERVING);
    scene.receives(2, SOCKET, 1, "/a");
    block(&mut scene, 2, 0x10, 500);
    polls(&mut scene, 2, 0);
    polls(&mut scene, 3, SERVING);
    block(&mut scene, 3, 0x20, 300);
    scene.responds(3, SOCKET, 1);
    polls(&mut scene, 3, 0);
    let setup = SERVING_BYTES;
    expect(scene, [("/a", 800), ("[connection_setup]", setup)]);
}

/// What is read at once is spawned for in its order, and any thread may poll the last
/// first.
#[test]
fn the_order_of_cells_tells_whose_they_are() {
    let mut scene = serving();
    polls(&mut scene, 2, SERVING);
    let serves = |scene: &mut Scene, direction, messages| {
        scene.moves(2, SOCKET, direction, messages);
    };
    // The first tells how large cells are.
    serves(
        &mut scene,
        Direction::Recv,
        stream_requests(&[(1, "/first")]),
    );
    block(&mut scene, 2, 0x9_0000, CELL_BYTES);
    polls(&mut scene, 3, 0x9_0000);
    polls(&mut scene, 3, 0);
    serves(&mut scene, Direction::Send, stream_responses(&[1], true));
    let both = stream_requests(&[(3, "/a"), (5, "/b")]);
    serves(&mut scene, Direction::Recv, both);
    block(&mut scene, 2, 0xa_0000, CELL_BYTES);
    block(&mut scene, 2, 0xb_0000, CELL_BYTES);
    for (tid, cell, size) in [(3, 0xb_0000, 5000), (4, 0xa_0000, 70)] {
        polls(&mut scene, tid, cell);
        block(&mut scene, tid, cell + 0x10, size);
        polls(&mut scene, tid, 0);
    }
    serves(&mut scene, Direction::Send, stream_responses(&[3, 5], true));
    expect(
        scene,
        [
            ("/first", CELL_BYTES),
            ("/a", CELL_BYTES + 70),
            ("/b", CELL_BYTES + 5000),
            ("[connection_setup]", SERVING_BYTES),
        ],
    );
}

/// A thread answers another request than it has read: tasks go from thread to thread,
/// and nothing tells which does what.
#[test]
fn threads_that_take_turns_are_untold() {
    let mut scene = Scene::default();
    scene.say(0, EventBody::TraceBegin);
    scene.accepts(1, SOCKET);
    for (tid, exchange, route) in [(1, 1, "/a"), (2, 3, "/b")] {
        let messages = stream_requests(&[(exchange, route)]);
        scene.moves(tid, SOCKET, Direction::Recv, messages);
        block(&mut scene, tid, 0x10 * u64::from(tid), 100);
    }
    scene.moves(2, SOCKET, Direction::Send, stream_responses(&[1], true));
    let messages = stream_requests(&[(5, "/c")]);
    scene.moves(1, SOCKET, Direction::Recv, messages);
    block(&mut scene, 1, 0x30, 7000);
    let bytes = scene.ends();
    assert_eq!(bytes.get("/c"), None);
    assert_eq!(bytes.get("[tasks_untold]"), Some(&7000), "{bytes:?}");
}
