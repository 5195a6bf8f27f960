//! memtrace: which request, on which connection, allocated what.
//!
//! The stages, in the order in which data flows through them:
//! `probe` states facts, [`decode`] reads them, [`dialogue`] turns bytes into
//! messages, [`capture`] keeps what is left,
//! [`attribute`] judges whose they are, [`store`] adds them up, [`analyse`]
//! derives the [`report`], [`output`] prints it. No stage imports a later one.

pub mod analyse;
pub mod attribute;
pub mod capture;
pub mod cli;
pub mod collect;
pub mod decode;
pub mod dialogue;
pub mod event;
pub mod failure;
pub mod id;
pub mod message;
pub mod output;
pub mod pipeline;
pub mod probe;
pub mod protocol;
pub mod replay;
pub mod report;
pub mod store;
