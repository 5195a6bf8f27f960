//! The kernel side, from user space: find targets and allocators, choose where
//! to probe, load, attach, read the ring.
//!
//! Out of this room come [`Event`](crate::event::Event)s, through
//! [`tracer::Tracer`].

pub mod attach;
pub mod btf;
pub mod discover;
pub mod greenlet;
pub mod image;
pub mod launch;
pub mod load;
pub mod lock;
pub mod maps;
pub mod members;
pub mod node;
pub mod object;
pub mod place;
pub mod python;
pub mod runtime;
pub mod runtimes;
pub mod symbols;
pub mod sys;
pub mod target;
pub mod tasks;
pub mod tls;
pub mod tracer;
pub mod turns;
