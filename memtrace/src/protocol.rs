//! Protocols: the bytes of one connection come in, messages go out.
//!
//! [`http1`] and [`http2`] follow both directions of a connection and say where
//! requests and responses begin and end; [`websocket`] and [`sse`] the messages within an
//! exchange; [`target`] leaves of a request's target what is not private;
//! [`route`] folds targets into a bounded set of route templates.
//!
//! Nothing here knows memory, processes, sockets or time.

pub mod ajp;
mod cgi;
#[cfg(test)]
mod check;
pub mod fastcgi;
pub mod http1;
pub mod http2;
mod lines;
pub mod route;
pub mod session;
pub mod sse;
pub mod target;
pub mod uwsgi;
pub mod websocket;
