//! Taking private content out of events before anything else sees them.
//!
//! In: events as the kernel stated them. Out: the same events, with bodies,
//! query values and header values gone from socket payloads. It runs before
//! the capture is written and before anything is attributed, so a live report
//! and one made from the capture see the same bytes.
//!
//! It follows connections only as far as it must to tell heads from bodies.

use std::collections::HashMap;

use crate::{
    event::{Data, Direction, Event, EventBody},
    id::SocketId,
    protocol::{
        http1::Message,
        session::{SESSIONS_MAX, Session},
    },
};

/// Masks the payloads of a live event stream.
#[derive(Debug, Default)]
pub struct Redactor {
    sessions: HashMap<SocketId, Followed>,
    unread: Vec<Message>,
}

/// A connection that is followed.
#[derive(Debug)]
struct Followed {
    /// The process that last used it.
    pid: u32,
    session: Session,
}

impl Redactor {
    /// No connection is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Masks one event in place.
    pub fn event(&mut self, event: &mut Event) {
        let pid = event.pid;
        match &mut event.body {
            EventBody::Accept(fact) => self.begin(fact.socket, pid, Session::accepted()),
            EventBody::Connect(fact) => self.begin(fact.socket, pid, Session::connected()),
            EventBody::OpenSocket { fact, accepted }
                if !self.sessions.contains_key(&fact.socket) =>
            {
                self.begin(fact.socket, pid, Session::found(*accepted));
            }
            EventBody::Close {
                socket, last: true, ..
            } => {
                self.sessions.remove(socket);
            }
            EventBody::Shutdown { socket, how } => {
                if *how != 0
                    && let Some(followed) = self.sessions.get_mut(socket)
                {
                    let session = &mut followed.session;
                    session.close_direction(Direction::Send, &mut self.unread);
                    self.unread.clear();
                }
            }
            // Its connections are gone with it, closed or not.
            EventBody::Exit { process: true } => {
                self.sessions.retain(|_, followed| followed.pid != pid);
            }
            EventBody::Data(data) => self.data(pid, data),
            _ => {}
        }
    }

    fn begin(&mut self, socket: SocketId, pid: u32, session: Session) {
        if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&socket) {
            return;
        }
        self.sessions.insert(socket, Followed { pid, session });
    }

    fn data(&mut self, pid: u32, data: &mut Data) {
        if !self.sessions.contains_key(&data.socket) {
            self.begin(data.socket, pid, Session::found(false));
        }
        let Some(followed) = self.sessions.get_mut(&data.socket) else {
            // Too many connections to follow: nothing of it is kept.
            data.payload.clear();
            data.tail.clear();
            return;
        };
        followed.pid = pid;
        let session = &mut followed.session;
        if data.direction == Direction::Recv && data.len == 0 {
            session.close_direction(Direction::Recv, &mut self.unread);
        } else {
            let kept = session.feed_masking(
                data.direction,
                data.len,
                &mut data.payload,
                &mut data.tail,
                &mut self.unread,
            );
            data.payload.truncate(kept);
            if data.tail.iter().all(|byte| *byte == 0) {
                data.tail.clear();
            }
        }
        self.unread.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recv(payload: &[u8]) -> Event {
        Event {
            ts_ns: 1,
            pid: 2,
            tid: 2,
            body: EventBody::Data(Data {
                direction: Direction::Recv,
                socket: SocketId(9),
                fd: 4,
                len: payload.len() as u64,
                more: false,
                unreadable: false,
                payload: payload.to_vec(),
                tail: Vec::new(),
            }),
        }
    }

    #[test]
    fn values_and_bodies_are_gone_and_framing_stays() {
        let mut redactor = Redactor::new();
        let mut event = recv(
            b"POST /login?user=ann HTTP/1.1\r\nCookie: sid=77\r\nContent-Length: 6\r\n\r\nsecret",
        );
        redactor.event(&mut event);
        let EventBody::Data(data) = event.body else {
            panic!("still data");
        };
        let text = String::from_utf8(data.payload).expect("text");
        for private in ["ann", "sid", "77", "secret"] {
            assert!(!text.contains(private), "{private} in {text}");
        }
        for kept in ["POST /login?user=", "Content-Length: 6\r\n"] {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
    }

    #[test]
    fn what_is_no_http_is_not_kept() {
        let mut redactor = Redactor::new();
        let mut event = recv(b"AUTH hunter2\r\n");
        redactor.event(&mut event);
        let EventBody::Data(data) = event.body else {
            panic!("still data");
        };
        assert_eq!(data.payload, b"");
    }
}
