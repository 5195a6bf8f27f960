//! Plaintext and the records that it came in.
//!
//! In: calls into a TLS library, and what a thread moves on sockets. Out: which
//! session is which connection's (`tls`), and what the thread turns to while a
//! session is set up.

use super::{
    Attributed, Attributor, ProcessIndex, Reason,
    tls::{Call, Moved},
    work::Doing,
};
use crate::{
    event::{Data, Direction},
    id::{SocketId, StreamId},
};

impl Attributor {
    /// Ties the session of plaintext that has moved, before anything is said of
    /// what it amounts to.
    pub(super) fn tls_data(&mut self, pid: u32, tid: u32, data: &Data, out: &mut Vec<Attributed>) {
        if let StreamId::Tls(session) = data.stream {
            let call = Call::Moved(data.direction, data.len);
            self.tls_call(pid, tid, session, call, data.fd, out);
        }
    }

    pub(super) fn tls_call(
        &mut self,
        pid: u32,
        tid: u32,
        session: u64,
        call: Call,
        fd: i32,
        out: &mut Vec<Attributed>,
    ) {
        let process = self.begin_thread(pid, tid, out);
        let last = self.strands.moved_mut(tid).and_then(|moved| *moved);
        self.connections
            .tls_call(session, call, fd, process, last, out);
        let strand = self.strands.current(tid);
        let handshaking = self
            .strands
            .doing(strand)
            .is_some_and(|doing| doing.presumes(Reason::TlsHandshake));
        match call {
            // Plaintext is taken in once it is clear what its records had begun.
            Call::Moved(..) => {}
            Call::Read => {
                self.taken_in(tid);
                self.came_out(tid);
            }
            Call::Handshake => {
                self.taken_in(tid);
                // What follows may be for a request that came with its end.
                if handshaking {
                    let next = Doing::unknown(Reason::TlsHandshake);
                    self.strands.turn(strand, next, None, out);
                }
            }
        }
    }

    /// What the thread has received was handed to a TLS library.
    pub(super) fn taken_in(&mut self, tid: u32) {
        if let Some(Some(moved)) = self.strands.moved_mut(tid) {
            moved.unread = false;
        }
    }

    /// All plaintext of what the thread has received has come out. Returns on
    /// which socket it had come, if none came out before.
    pub(super) fn came_out(&mut self, tid: u32) -> Option<SocketId> {
        let moved = self.strands.moved_mut(tid)?.as_mut()?;
        std::mem::replace(&mut moved.sealed, false).then_some(moved.socket)
    }

    /// Notes what the thread has moved. Returns whether it is the plaintext of
    /// records that it has just received.
    pub(super) fn moved(&mut self, tid: u32, process: ProcessIndex, data: &Data) -> bool {
        match (data.stream, data.direction) {
            (StreamId::Socket(socket), _) => {
                if let Some(moved) = self.strands.moved_mut(tid) {
                    *moved = Some(Moved::after(*moved, socket, data));
                }
                false
            }
            (StreamId::Tls(session), Direction::Recv) => {
                self.taken_in(tid);
                let came_on = self.came_out(tid);
                came_on.is_some() && came_on == self.connections.socket_of(process, session)
            }
            (StreamId::Tls(_), Direction::Send) => false,
        }
    }
}
