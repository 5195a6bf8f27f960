//! Event loops whose tasks cannot be told apart, and whose the blocks are in the
//! end.

use memtrace::{attribute::Reason, event::EventBody};

use crate::scene::{Scene, expect, reason};

const LOOP: u32 = 7;

/// A server of one loop with two connections.
fn serving(runtime: &str) -> Scene {
    let mut scene = Scene::default();
    scene.say(0, EventBody::TraceBegin);
    scene.described(runtime);
    for socket in [50, 51] {
        scene.accepts(LOOP, socket);
    }
    scene.waits(LOOP);
    scene
}

#[test]
fn a_write_proves_nothing_of_the_others_under_way() {
    let untold = reason(Reason::TasksUntold);
    for (runtime, to_writer, to_loop) in [("node", 8, 16), ("native", 24, 0)] {
        let mut scene = serving(runtime);
        scene.receives(LOOP, 50, 0, "/a");
        scene.blocks(LOOP, 1);
        scene.receives(LOOP, 51, 0, "/b");
        scene.blocks(LOOP, 8);
        scene.waits(LOOP);
        // The timers of both have run out: nothing shows which goes on first.
        scene.blocks(LOOP, 16);
        scene.responds(LOOP, 51, 0);
        let mut expected = vec![("/a", 1), ("/b", to_writer)];
        if to_loop != 0 {
            expected.push((&untold, to_loop));
        }
        expect(scene, expected);
    }
}

/// nginx's upstream connections are open some time after the request that they
/// are for was read, and several are at once.
#[test]
fn what_is_sent_first_on_a_connection_is_for_whom_it_was_opened() {
    let mut scene = serving("native");
    scene.receives(LOOP, 50, 0, "/a");
    scene.connects(LOOP, 60);
    scene.receives(LOOP, 51, 0, "/b");
    scene.connects(LOOP, 61);
    scene.waits(LOOP);
    scene.sends(LOOP, 60);
    scene.blocks(LOOP, 1);
    scene.sends(LOOP, 61);
    scene.blocks(LOOP, 2);
    scene.waits(LOOP);
    scene.answered(LOOP, 60);
    scene.blocks(LOOP, 4);
    scene.answered(LOOP, 61);
    scene.blocks(LOOP, 8);
    scene.responds(LOOP, 51, 0);
    scene.responds(LOOP, 50, 0);
    expect(scene, [("/a", 5), ("/b", 10)]);
}

#[test]
fn the_only_request_under_way_is_whose_it_is() {
    let mut scene = serving("node");
    scene.receives(LOOP, 50, 0, "/a");
    scene.blocks(LOOP, 1);
    scene.waits(LOOP);
    scene.blocks(LOOP, 2);
    scene.responds(LOOP, 50, 0);
    expect(scene, [("/a", 3)]);
}

#[test]
fn what_runs_between_two_waits_is_nobodys() {
    let mut scene = serving("node");
    scene.receives(LOOP, 50, 0, "/a");
    scene.waits(LOOP);
    scene.blocks(LOOP, 2);
    scene.waits(LOOP);
    expect(scene, [(&*reason(Reason::TasksUntold), 2)]);
}
