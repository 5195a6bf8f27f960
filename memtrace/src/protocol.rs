//! Protocols: the bytes of one connection come in, messages go out.
//!
//! [`http1`] follows both directions of a connection and says where requests
//! and responses begin and end; [`mask`] takes private content out of the same
//! bytes before anything is stored; [`route`] folds request targets into a
//! bounded set of route templates.
//!
//! Nothing here knows memory, processes, sockets or time.

pub mod http1;
pub mod mask;
pub mod route;
pub mod session;
