//! Goroutines, and whose their blocks are in the end.

use memtrace::{
    attribute::Reason,
    event::{Direction, EventBody},
    message::{ExchangeId, Message, Protocol},
};

use crate::scene::{Scene, expect, reason};

/// A server whose goroutine 1 accepts, and goroutines 10 and 11 each serve a
/// connection.
fn serving() -> Scene {
    let mut scene = Scene::default();
    scene.say(0, EventBody::TraceBegin);
    for (goroutine, socket) in [(10, 50), (11, 51)] {
        scene.runs(7, 1);
        scene.accepts(7, socket);
        scene.made(7, goroutine, 1);
    }
    scene
}

#[test]
fn a_goroutine_is_followed_from_thread_to_thread() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.runs(8, 11);
    scene.receives(8, 51, 0, "/b");
    scene.allocates(7, 1);
    scene.allocates(8, 10);
    // They change threads, one after a wait of the scheduler.
    scene.runs(7, 11);
    scene.runs(8, 0);
    scene.runs(8, 10);
    scene.allocates(7, 100);
    scene.allocates(8, 1_000);
    scene.responds(7, 51, 0);
    scene.responds(8, 50, 0);
    expect(scene, [("/a", 1_001), ("/b", 110)]);
}

#[test]
fn goroutines_work_for_the_request_that_made_them() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.made(7, 20, 10);
    scene.made(7, 21, 10);
    scene.runs(8, 20);
    scene.allocates(8, 1);
    scene.made(8, 22, 20);
    scene.runs(9, 22);
    scene.allocates(9, 10);
    scene.responds(7, 50, 0);
    // Late, while the next request is served by the same goroutine.
    scene.receives(7, 50, 1, "/b");
    scene.allocates(7, 100);
    scene.runs(9, 21);
    scene.allocates(9, 1_000);
    scene.responds(7, 50, 1);
    expect(scene, [("/a", 1_011), ("/b", 100)]);
}

/// net/http reads ahead on a goroutine of its own: the first byte of the next
/// request may be received there.
#[test]
fn the_next_request_is_its_servers_whoever_received_its_first_byte() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.made(7, 20, 10);
    scene.allocates(7, 1);
    scene.responds(7, 50, 0);
    scene.runs(8, 20);
    let exchange = ExchangeId(1);
    let begin = Message::RequestBegin { exchange };
    scene.moves(8, 50, Direction::Recv, vec![begin]);
    let head = Message::RequestHead {
        exchange,
        method: "GET".into(),
        target: "/b".into(),
        protocol: Protocol::Http11,
        keep_alive: true,
        expect_continue: false,
        head_bytes: 80,
        complete: true,
    };
    scene.moves(7, 50, Direction::Recv, vec![head]);
    scene.allocates(7, 10);
    scene.responds(7, 50, 1);
    expect(scene, [("/a", 1), ("/b", 10)]);
}

#[test]
fn one_of_a_pool_works_for_whoever_handed_it_work() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.gives(7, 30);
    scene.runs(9, 30);
    scene.allocates(9, 1);
    // The result, and the next job before the first response is sent.
    scene.gives(9, 10);
    scene.runs(8, 11);
    scene.receives(8, 51, 0, "/b");
    scene.gives(8, 30);
    scene.allocates(9, 10);
    scene.gives(9, 11);
    scene.responds(7, 50, 0);
    scene.responds(8, 51, 0);
    expect(scene, [("/a", 1), ("/b", 10)]);
}

/// A job that lay in the channel's buffer: only its result shows whose it was.
#[test]
fn a_result_shows_whose_the_work_was() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.gives(7, 30);
    scene.runs(8, 11);
    scene.receives(8, 51, 0, "/b");
    scene.runs(9, 30);
    scene.allocates(9, 1);
    scene.gives(9, 10);
    scene.allocates(9, 10);
    scene.gives(9, 11);
    scene.responds(7, 50, 0);
    scene.responds(8, 51, 0);
    expect(scene, [("/a", 1), ("/b", 10)]);
}

#[test]
fn a_request_takes_what_it_likes() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.runs(8, 11);
    scene.receives(8, 51, 0, "/b");
    scene.made(8, 21, 11);
    // From another request's goroutine, and from one of nobody's.
    scene.gives(7, 11);
    scene.gives(7, 21);
    scene.allocates(8, 1);
    scene.runs(9, 40);
    scene.allocates(9, 10);
    scene.gives(9, 11);
    scene.runs(6, 21);
    scene.allocates(6, 100);
    scene.responds(7, 50, 0);
    scene.responds(8, 51, 0);
    expect(
        scene,
        [("/b", 101), (&reason(Reason::BackgroundThread), 10)],
    );
}

/// The connection to another server has a goroutine that writes and one that
/// reads, made by the first request that needed it.
#[test]
fn another_servers_connection_is_used_by_one_request_after_the_other() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    scene.connects(7, 90);
    scene.made(7, 60, 10);
    scene.made(7, 61, 10);
    for (goroutine, tid, socket, target, bytes) in [
        (10, 7, 50, "/a", 1),
        (11, 8, 51, "/b", 10),
        (10, 7, 50, "/c", 100),
    ] {
        scene.runs(tid, goroutine);
        if target != "/a" {
            scene.receives(tid, socket, u32::from(target == "/c"), target);
        }
        scene.gives(tid, 60);
        scene.runs(9, 60);
        scene.moves(9, 90, Direction::Send, Vec::new());
        scene.runs(9, 61);
        scene.moves(9, 90, Direction::Recv, Vec::new());
        scene.allocates(9, bytes);
        scene.gives(9, goroutine);
        scene.responds(tid, socket, u32::from(target == "/c"));
    }
    expect(scene, [("/a", 1), ("/b", 10), ("/c", 100)]);
}

#[test]
fn what_is_taken_from_one_that_waits_counts_too() {
    let mut scene = serving();
    scene.runs(7, 10);
    scene.receives(7, 50, 0, "/a");
    // The goroutine of the pool comes after the request's, which waits.
    scene.runs(9, 30);
    scene.takes(9, 10);
    scene.allocates(9, 1);
    scene.runs(7, 10);
    scene.takes(7, 30);
    scene.runs(9, 30);
    scene.allocates(9, 10);
    scene.responds(7, 50, 0);
    expect(scene, [("/a", 1), (&reason(Reason::BackgroundThread), 10)]);
}

/// net/http's HTTP/2: one goroutine receives frames of several requests, another
/// makes those that answer them, and each says which it answers.
#[test]
fn each_answers_the_stream_that_it_takes() {
    let mut scene = serving();
    let mut messages = vec![Message::Multiplexed];
    for (exchange, number, target) in [(0, 1, "/a"), (1, 3, "/b")] {
        let exchange = ExchangeId(exchange);
        messages.extend([
            Message::RequestBegin { exchange },
            Message::Numbered { exchange, number },
            Message::Carries { exchange },
            Message::RequestHead {
                exchange,
                method: "GET".into(),
                target: target.into(),
                protocol: Protocol::Http2,
                keep_alive: true,
                expect_continue: false,
                head_bytes: 80,
                complete: true,
            },
        ]);
    }
    scene.runs(7, 10);
    scene.moves(7, 50, Direction::Recv, messages);
    scene.made(7, 20, 10);
    scene.made(7, 21, 10);
    for (goroutine, stream, size) in [(21, 3, 30), (20, 1, 4)] {
        scene.runs(8, goroutine);
        scene.takes_stream(8, stream);
        scene.allocates(8, size);
    }
    // One that the connection does not have.
    scene.runs(8, 20);
    scene.takes_stream(8, 5);
    scene.allocates(8, 1);
    expect(scene, [("/a", 5), ("/b", 30)]);
}
