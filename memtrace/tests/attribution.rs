//! Whose is it: events in, bytes by route and by reason out.

#[path = "attribution/callbacks.rs"]
mod callbacks;
#[path = "attribution/cells.rs"]
mod cells;
#[path = "attribution/event_loops.rs"]
mod event_loops;
#[path = "attribution/goroutines.rs"]
mod goroutines;
#[path = "attribution/scene.rs"]
mod scene;
#[path = "attribution/streams.rs"]
mod streams;
#[path = "attribution/tasks.rs"]
mod tasks;
