//! Callbacks of Node's resources, and whose the blocks are in the end.

use memtrace::{attribute::Reason, event::EventBody};
use memtrace_common::event::ContextKind;

use crate::scene::{Scene, expect, reason};

const LOOP: u32 = 7;
/// Resources of two connections, and what they make.
const FIRST: u64 = 20;
const SECOND: u64 = 21;
const BACKEND: u64 = 22;

fn calls_back(scene: &mut Scene, context: u64) {
    let kind = ContextKind::Node;
    scene.say(
        LOOP,
        EventBody::Context {
            context,
            kind,
            entered: 0,
        },
    );
}

fn makes(scene: &mut Scene, first: u64, last: u64) {
    made(scene, first, last, ContextKind::Node);
}

fn made(scene: &mut Scene, first: u64, last: u64, kind: ContextKind) {
    scene.say(
        LOOP,
        EventBody::ContextMade {
            context: last,
            parent: first,
            kind,
        },
    );
}

/// A continuation runs.
fn goes_on(scene: &mut Scene, context: u64) {
    let kind = ContextKind::Job;
    scene.say(
        LOOP,
        EventBody::Context {
            context,
            kind,
            entered: 0,
        },
    );
}

/// A server with two connections, each with its resource, and one to a backend.
fn serving() -> Scene {
    let mut scene = Scene::default();
    scene.say(0, EventBody::TraceBegin);
    scene.described("node");
    scene.connects(LOOP, 60);
    makes(&mut scene, BACKEND, BACKEND);
    for (socket, resource) in [(50, FIRST), (51, SECOND)] {
        scene.accepts(LOOP, socket);
        calls_back(&mut scene, 10);
        makes(&mut scene, resource, resource);
        calls_back(&mut scene, 0);
    }
    scene.waits(LOOP);
    scene
}

/// A request comes, and its connection's resource is called back.
fn asks(scene: &mut Scene, socket: u64, resource: u64, target: &str) {
    calls_back(scene, 0);
    scene.receives(LOOP, socket, 0, target);
    calls_back(scene, resource);
}

#[test]
fn what_a_resource_does_is_for_the_request_that_made_it() {
    let mut scene = serving();
    asks(&mut scene, 50, FIRST, "/a");
    scene.blocks(LOOP, 1);
    makes(&mut scene, 30, 33);
    asks(&mut scene, 51, SECOND, "/b");
    scene.blocks(LOOP, 2);
    makes(&mut scene, 34, 34);
    calls_back(&mut scene, 0);
    scene.waits(LOOP);
    // Timers of both, one after the other, and one that the first of them makes.
    calls_back(&mut scene, 34);
    scene.blocks(LOOP, 4);
    calls_back(&mut scene, 32);
    scene.blocks(LOOP, 8);
    makes(&mut scene, 35, 35);
    calls_back(&mut scene, 35);
    scene.blocks(LOOP, 16);
    scene.responds(LOOP, 50, 0);
    calls_back(&mut scene, 34);
    scene.responds(LOOP, 51, 0);
    expect(scene, [("/a", 25), ("/b", 6)]);
}

#[test]
fn a_callback_that_nothing_is_known_of_is_untold() {
    let mut scene = serving();
    asks(&mut scene, 50, FIRST, "/a");
    asks(&mut scene, 51, SECOND, "/b");
    calls_back(&mut scene, 0);
    scene.waits(LOOP);
    calls_back(&mut scene, 5);
    scene.blocks(LOOP, 4);
    scene.responds(LOOP, 50, 0);
    calls_back(&mut scene, 0);
    scene.blocks(LOOP, 8);
    scene.waits(LOOP);
    expect(scene, [(reason(Reason::TasksUntold).as_str(), 12)]);
}

#[test]
fn what_comes_from_a_backend_is_for_whoever_asked() {
    let mut scene = serving();
    for (socket, resource, target) in [(50, FIRST, "/a"), (51, SECOND, "/b")] {
        asks(&mut scene, socket, resource, target);
        scene.sends(LOOP, 60);
        calls_back(&mut scene, 0);
        scene.waits(LOOP);
        scene.answered(LOOP, 60);
        calls_back(&mut scene, BACKEND);
        scene.blocks(LOOP, socket);
        scene.responds(LOOP, socket, 0);
        calls_back(&mut scene, 0);
        scene.waits(LOOP);
    }
    expect(scene, [("/a", 50), ("/b", 51)]);
}

/// One connection for all, on which nobody waits for the other's answer.
#[test]
fn answers_to_several_may_be_for_either() {
    let mut scene = serving();
    for (socket, resource, target) in [(50, FIRST, "/a"), (51, SECOND, "/b")] {
        asks(&mut scene, socket, resource, target);
        scene.blocks(LOOP, socket);
        scene.sends(LOOP, 60);
    }
    calls_back(&mut scene, 0);
    scene.waits(LOOP);
    scene.answered(LOOP, 60);
    calls_back(&mut scene, BACKEND);
    scene.blocks(LOOP, 4);
    scene.blocks(LOOP, 8);
    scene.responds(LOOP, 51, 0);
    scene.responds(LOOP, 50, 0);
    let several = reason(Reason::SeveralRequests);
    expect(scene, [("/a", 50), ("/b", 51), (several.as_str(), 12)]);
}

/// Both requests have asked, and both answers come at once: what the callback does
/// is for both, each of the two continuations that it makes for one.
fn both_answered() -> Scene {
    let mut scene = serving();
    for (socket, resource, target) in [(50, FIRST, "/a"), (51, SECOND, "/b")] {
        asks(&mut scene, socket, resource, target);
        scene.blocks(LOOP, socket);
        scene.sends(LOOP, 60);
    }
    calls_back(&mut scene, 0);
    scene.waits(LOOP);
    scene.answered(LOOP, 60);
    calls_back(&mut scene, BACKEND);
    scene.blocks(LOOP, 1000);
    made(&mut scene, 100, 101, ContextKind::Job);
    scene
}

#[test]
fn a_continuation_is_for_the_request_that_what_it_makes_answers() {
    let mut scene = both_answered();
    for (job, blocks) in [(100, 4), (101, 8)] {
        goes_on(&mut scene, job);
        scene.blocks(LOOP, blocks);
        made(&mut scene, job + 2, job + 2, ContextKind::Job);
    }
    for (job, socket, blocks) in [(102, 50, 16), (103, 51, 32)] {
        goes_on(&mut scene, job);
        scene.blocks(LOOP, blocks);
        scene.responds(LOOP, socket, 0);
    }
    calls_back(&mut scene, 0);
    scene.waits(LOOP);
    let several = reason(Reason::SeveralRequests);
    expect(scene, [("/a", 70), ("/b", 91), (several.as_str(), 1000)]);
}

#[test]
fn a_continuation_that_makes_two_is_for_neither() {
    let mut scene = both_answered();
    goes_on(&mut scene, 100);
    scene.blocks(LOOP, 4);
    made(&mut scene, 102, 103, ContextKind::Job);
    for (job, socket, blocks) in [(102, 50, 16), (103, 51, 32)] {
        goes_on(&mut scene, job);
        scene.blocks(LOOP, blocks);
        scene.responds(LOOP, socket, 0);
    }
    calls_back(&mut scene, 0);
    scene.waits(LOOP);
    let several = reason(Reason::SeveralRequests);
    expect(scene, [("/a", 66), ("/b", 83), (several.as_str(), 1004)]);
}

#[test]
fn a_continuation_is_for_the_request_whose_callback_made_it() {
    let mut scene = serving();
    for (socket, resource, target) in [(50, FIRST, "/a"), (51, SECOND, "/b")] {
        asks(&mut scene, socket, resource, target);
        made(&mut scene, 100 + socket, 100 + socket, ContextKind::Job);
        calls_back(&mut scene, 0);
    }
    goes_on(&mut scene, 150);
    scene.blocks(LOOP, 4);
    goes_on(&mut scene, 151);
    scene.blocks(LOOP, 8);
    calls_back(&mut scene, 0);
    scene.responds(LOOP, 51, 0);
    scene.responds(LOOP, 50, 0);
    expect(scene, [("/a", 4), ("/b", 8)]);
}

/// The callback of one answer asks for the next in line, whose request it is not.
#[test]
fn what_a_pool_asks_for_the_next_in_line_is_not_for_the_last() {
    let mut scene = serving();
    asks(&mut scene, 50, FIRST, "/a");
    scene.sends(LOOP, 60);
    asks(&mut scene, 51, SECOND, "/b");
    calls_back(&mut scene, 0);
    scene.waits(LOOP);
    for (job, socket, blocks) in [(100, 50, 4), (110, 51, 8)] {
        scene.answered(LOOP, 60);
        calls_back(&mut scene, BACKEND);
        if socket == 50 {
            scene.sends(LOOP, 60);
        }
        made(&mut scene, job, job, ContextKind::Job);
        goes_on(&mut scene, job);
        scene.blocks(LOOP, blocks);
        made(&mut scene, job + 1, job + 1, ContextKind::Job);
        goes_on(&mut scene, job + 1);
        scene.responds(LOOP, socket, 0);
        calls_back(&mut scene, 0);
        scene.waits(LOOP);
    }
    expect(scene, [("/a", 4), ("/b", 8)]);
}
