//! Which TLS session speaks on which socket.
//!
//! In: calls for sessions, and what their threads moved last on a socket. Out:
//! the socket whose connection the session's messages belong to.
//!
//! A library that reads and writes the socket itself names it: bytes moved on
//! that descriptor within the very call. One that is handed the bytes (asyncio,
//! uvloop, Node) is known by what its thread did: it received on a socket and,
//! before it waited or received elsewhere, first called to read or to go on with
//! the handshake for a session that had no socket yet. (Only the first call
//! after bytes were received tells: uvloop reads the first plaintext later, when
//! it has received on other sockets.) A tie holds until the session or the
//! socket ends. A session that no evidence ties, or whose evidence is
//! contradictory, is a connection of its own from its first message on: nothing
//! is guessed.

use std::collections::HashMap;

use crate::{
    attribute::ProcessIndex,
    event::{Data, Direction},
    id::SocketId,
    protocol::session::SESSIONS_MAX,
};

/// A TLS session: its address means something only in its process.
pub type Session = (ProcessIndex, u64);

/// What a thread moved last on a socket, since it last waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// On which socket.
    pub socket: SocketId,
    /// Through which descriptor.
    pub fd: i32,
    /// Bytes received there since it turned to this socket.
    pub received: u64,
    /// It has called no TLS library to take them in yet.
    pub unread: bool,
    /// No plaintext of them has come out yet: a handshake may have left some.
    pub sealed: bool,
}

/// A call for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It moved plaintext.
    Moved(Direction, u64),
    /// It read, and nothing came of it.
    Read,
    /// It went on with the handshake.
    Handshake,
}

impl Moved {
    /// What the thread moved last once it has moved this too.
    pub fn after(before: Option<Moved>, socket: SocketId, data: &Data) -> Moved {
        let (received, unread, sealed) = match before {
            Some(before) if before.socket == socket => {
                (before.received, before.unread, before.sealed)
            }
            Some(_) | None => (0, false, false),
        };
        let (more, fresh) = match data.direction {
            Direction::Recv => (data.len, true),
            Direction::Send => (0, false),
        };
        Moved {
            socket,
            fd: data.fd,
            received: received.saturating_add(more),
            unread: unread || fresh,
            sealed: sealed || fresh,
        }
    }
}

/// What is known of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tie {
    /// That it is.
    None,
    /// It speaks on this socket.
    To(SocketId),
    /// It is a connection of its own.
    Alone,
}

/// How sure a piece of evidence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// The session's own call moved bytes on the socket.
    Named(SocketId),
    /// The bytes can only have come from the socket.
    Received(SocketId),
}

/// All ties.
#[derive(Debug, Default)]
pub struct Ties {
    sessions: HashMap<Session, Tie>,
    sockets: HashMap<SocketId, Session>,
}

impl Ties {
    /// The socket on which the session speaks, if that is known.
    pub fn socket_of(&self, session: Session) -> Option<SocketId> {
        match self.sessions.get(&session)? {
            Tie::To(socket) => Some(*socket),
            Tie::None | Tie::Alone => None,
        }
    }

    /// The session that speaks on the socket, if that is known.
    pub fn session_on(&self, socket: SocketId) -> Option<Session> {
        self.sockets.get(&socket).copied()
    }

    /// A call was made that used the descriptor `fd`; -1: none. `last`: what its
    /// thread moved last on a socket. `carries_tls`: whether that socket may be
    /// one that carries sessions. Returns the socket if the session is tied to it
    /// by this.
    pub fn called(
        &mut self,
        session: Session,
        call: Call,
        fd: i32,
        last: Option<Moved>,
        carries_tls: impl FnOnce(SocketId) -> bool,
    ) -> Option<SocketId> {
        let known = self.sessions.get(&session).copied();
        if known.is_none() && self.sessions.len() < SESSIONS_MAX {
            self.sessions.insert(session, Tie::None);
        }
        let evidence = evidence(call, fd, last?, known.is_some())?;
        let (Evidence::Named(socket) | Evidence::Received(socket)) = evidence;
        match known {
            Some(Tie::Alone) => return None,
            Some(Tie::To(tied)) => {
                // Bytes received elsewhere need not be what was read now.
                if tied != socket && evidence == Evidence::Named(socket) {
                    self.leave_alone(session);
                }
                return None;
            }
            Some(Tie::None) | None => {}
        }
        if !carries_tls(socket) {
            return None;
        }
        if let Some(other) = self.sockets.get(&socket).copied() {
            match evidence {
                Evidence::Received(_) => return None,
                // One of the two is wrong about the socket, and it is not this.
                Evidence::Named(_) => self.leave_alone(other),
            }
        }
        self.sessions.insert(session, Tie::To(socket));
        self.sockets.insert(socket, session);
        Some(socket)
    }

    /// The session is a connection of its own until it ends.
    pub fn leave_alone(&mut self, session: Session) {
        if let Some(Tie::To(socket)) = self.sessions.insert(session, Tie::Alone) {
            self.sockets.remove(&socket);
        }
    }

    /// A session is over: its address may be used again.
    pub fn end_session(&mut self, session: Session) {
        if let Some(Tie::To(socket)) = self.sessions.remove(&session) {
            self.sockets.remove(&socket);
        }
    }

    /// A socket is gone: its session, if that goes on, may speak on another.
    pub fn end_socket(&mut self, socket: SocketId) {
        if let Some(session) = self.sockets.remove(&socket) {
            self.sessions.remove(&session);
        }
    }

    /// The memory of a process is gone, and with it its sessions.
    pub fn end_process(&mut self, process: ProcessIndex) {
        self.sessions.retain(|(of, _), _| *of != process);
        self.sockets.retain(|_, (of, _)| *of != process);
    }
}

/// What a call says of its session's socket. `known`: the session is not met for
/// the first time.
fn evidence(call: Call, fd: i32, last: Moved, known: bool) -> Option<Evidence> {
    if fd >= 0 {
        return (fd == last.fd).then_some(Evidence::Named(last.socket));
    }
    let takes_in = match call {
        Call::Moved(Direction::Send, _) => false,
        // Every record is longer than the plaintext in it (RFC 8446, 5.2: by
        // header, content type and authentication tag).
        Call::Moved(Direction::Recv, len) => len < last.received,
        Call::Read => true,
        // A server begins the handshake before it has received anything.
        Call::Handshake => known,
    };
    (takes_in && last.unread).then_some(Evidence::Received(last.socket))
}

#[cfg(test)]
mod tests;
