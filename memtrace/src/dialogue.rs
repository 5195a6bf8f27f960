//! Bytes in, messages out: the one place where payloads are read.
//!
//! In: events as they were first stated, with the bytes that moved. Out: the
//! same events without bytes, each preceded by what its bytes, or the end that
//! it states, amount to ([`EventBody::Messages`]). It runs before the capture is
//! written and before anything is attributed: nothing private goes further, and
//! a live report and one made from the capture rest on the same messages.
//!
//! It follows streams as far as their protocols need, and knows no memory and
//! no requests' owners.

use std::collections::HashMap;

use memtrace_common::loss::Loss;

use crate::{
    event::{Captured, Data, Direction, Event, EventBody, RawEvent},
    id::{SocketId, StreamId},
    message::Message,
    protocol::{
        http1::Bytes,
        session::{SESSIONS_MAX, Session},
    },
};

/// Follows the streams of a live trace.
#[derive(Debug, Default)]
pub struct Dialogue {
    streams: HashMap<Key, Followed>,
    /// Records of streams that were lost so far.
    lost: u64,
}

/// What a stream is known by: TLS sessions are told apart by their addresses,
/// which mean something only in their process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Socket(SocketId),
    Tls(u32, u64),
}

impl Key {
    fn of(pid: u32, stream: StreamId) -> Key {
        match stream {
            StreamId::Socket(socket) => Key::Socket(socket),
            StreamId::Tls(session) => Key::Tls(pid, session),
        }
    }

    fn stream(self) -> StreamId {
        match self {
            Key::Socket(socket) => StreamId::Socket(socket),
            Key::Tls(_, session) => StreamId::Tls(session),
        }
    }
}

/// A stream that is followed.
#[derive(Debug)]
struct Followed {
    /// The process that last used it.
    pid: u32,
    session: Session,
}

impl Dialogue {
    /// No stream is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one event and hands on what has become of it, in order.
    pub fn step(&mut self, raw: RawEvent, out: &mut impl FnMut(Event)) {
        let RawEvent { event, captured } = raw;
        let pid = event.pid;
        match &event.body {
            EventBody::Accept(fact) => {
                let key = Key::Socket(fact.socket);
                self.begin(key, &event, Session::accepted(), out);
            }
            EventBody::Connect(fact) => {
                let key = Key::Socket(fact.socket);
                self.begin(key, &event, Session::connected(), out);
            }
            EventBody::OpenSocket { fact, accepted } => {
                let key = Key::Socket(fact.socket);
                if !self.streams.contains_key(&key) {
                    self.begin(key, &event, Session::found(*accepted), out);
                }
            }
            EventBody::Close {
                socket, last: true, ..
            } => self.end(Key::Socket(*socket), &event, out),
            EventBody::Shutdown { socket, how } => {
                const SHUT_RD: u32 = 0;
                if *how != SHUT_RD
                    && let Some(followed) = self.streams.get_mut(&Key::Socket(*socket))
                {
                    let mut messages = Vec::new();
                    let session = &mut followed.session;
                    session.close_direction(Direction::Send, &mut messages);
                    say(&event, StreamId::Socket(*socket), messages, out);
                }
            }
            EventBody::TlsEnd { session } => self.end(Key::Tls(pid, *session), &event, out),
            // Its connections are gone with it, closed or not.
            EventBody::Exit { process: true } => self.end_all(&event, |_| true, out),
            // Its connections may stay, its memory does not.
            EventBody::Exec { .. } => {
                self.end_all(&event, |key| matches!(key, Key::Tls(..)), out);
            }
            EventBody::Loss { cause, total } => self.lose(cause, *total),
            EventBody::Data(data) => self.data(&event, data, &captured, out),
            EventBody::Alloc { .. }
            | EventBody::Free { .. }
            | EventBody::Realloc { .. }
            | EventBody::Messages { .. }
            | EventBody::Close { last: false, .. }
            | EventBody::SocketError { .. }
            | EventBody::Wait { .. }
            | EventBody::Fork { .. }
            | EventBody::Exit { process: false }
            | EventBody::Mapped
            | EventBody::CgroupMove
            | EventBody::Context { .. }
            | EventBody::ContextMade { .. }
            | EventBody::ContextEnd { .. }
            | EventBody::Wake(_)
            | EventBody::Sleep(_)
            | EventBody::Woken(_)
            | EventBody::Counter { .. }
            | EventBody::ManagedAlloc { .. }
            | EventBody::TypeName { .. }
            | EventBody::TlsCall { .. }
            | EventBody::Process(_)
            | EventBody::Clock
            | EventBody::TraceBegin
            | EventBody::TraceEnd { .. } => {}
        }
        out(event);
    }

    /// A stream begins. One that was known by the same key has ended unseen.
    fn begin(&mut self, key: Key, event: &Event, session: Session, out: &mut impl FnMut(Event)) {
        self.end(key, event, out);
        if self.streams.len() < SESSIONS_MAX {
            let pid = event.pid;
            self.streams.insert(key, Followed { pid, session });
        }
    }

    fn end(&mut self, key: Key, event: &Event, out: &mut impl FnMut(Event)) {
        if let Some(mut followed) = self.streams.remove(&key) {
            let mut messages = Vec::new();
            followed.session.close(&mut messages);
            say(event, key.stream(), messages, out);
        }
    }

    fn end_all(&mut self, event: &Event, which: fn(&Key) -> bool, out: &mut impl FnMut(Event)) {
        let mut keys: Vec<Key> = self
            .streams
            .iter()
            .filter(|(key, followed)| followed.pid == event.pid && which(key))
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        for key in keys {
            self.end(key, event, out);
        }
    }

    /// Records of streams were lost, nobody knows of which.
    fn lose(&mut self, cause: &str, total: u64) {
        if cause == Loss::RingFullSocket.name() && total > self.lost {
            self.lost = total;
            for followed in self.streams.values_mut() {
                followed.session.lose();
            }
        }
    }

    fn data(
        &mut self,
        event: &Event,
        data: &Data,
        captured: &Captured,
        out: &mut impl FnMut(Event),
    ) {
        let key = Key::of(event.pid, data.stream);
        if !self.streams.contains_key(&key) {
            self.begin(key, event, Session::found(false), out);
        }
        let Some(followed) = self.streams.get_mut(&key) else {
            return;
        };
        followed.pid = event.pid;
        let session = &mut followed.session;
        let mut messages = Vec::new();
        if captured.in_tls_call {
            session.carries_tls(&mut messages);
        } else if data.direction == Direction::Recv && data.len == 0 {
            session.close_direction(Direction::Recv, &mut messages);
        } else {
            let bytes = Bytes {
                len: data.len,
                payload: &captured.payload,
                tail: &captured.tail,
            };
            session.feed(data.direction, bytes, &mut messages);
        }
        say(event, data.stream, messages, out);
    }
}

/// States messages at the time and by the thread of the event that they come
/// from.
fn say(event: &Event, stream: StreamId, messages: Vec<Message>, out: &mut impl FnMut(Event)) {
    if !messages.is_empty() {
        out(Event {
            ts_ns: event.ts_ns,
            pid: event.pid,
            tid: event.tid,
            body: EventBody::Messages { stream, messages },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recv(payload: &[u8]) -> RawEvent {
        RawEvent {
            event: Event {
                ts_ns: 1,
                pid: 2,
                tid: 2,
                body: EventBody::Data(Data {
                    direction: Direction::Recv,
                    stream: StreamId::Socket(SocketId(9)),
                    fd: 4,
                    len: payload.len() as u64,
                    buffer: 0,
                    more: false,
                    unreadable: false,
                }),
            },
            captured: Captured {
                payload: payload.to_vec(),
                ..Captured::default()
            },
        }
    }

    fn said(raw: RawEvent) -> String {
        let mut events = Vec::new();
        Dialogue::new().step(raw, &mut |event| events.push(event));
        format!("{events:?}")
    }

    #[test]
    fn values_and_bodies_go_no_further() {
        let text = said(recv(
            b"POST /login?user=ann HTTP/1.1\r\nCookie: sid=77\r\nContent-Length: 6\r\n\r\nsecret",
        ));
        for private in ["ann", "sid", "77", "secret"] {
            assert!(!text.contains(private), "{private} in {text}");
        }
        assert!(text.contains("/login?user"), "{text}");
    }

    #[test]
    fn what_is_no_http_goes_no_further() {
        let text = said(recv(b"AUTH hunter2\r\n"));
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn an_exit_ends_what_the_process_had_under_way() {
        let mut dialogue = Dialogue::new();
        let mut events = Vec::new();
        let mut out = |event| events.push(event);
        dialogue.step(recv(b"GET / HTTP/1.1\r\n\r\n"), &mut out);
        let exit = Event {
            ts_ns: 2,
            pid: 2,
            tid: 2,
            body: EventBody::Exit { process: true },
        };
        dialogue.step(exit.into(), &mut out);
        let abandoned = events.iter().any(|event| {
            matches!(&event.body, EventBody::Messages { messages, .. }
                if matches!(messages[..], [Message::RequestAbandoned { .. }]))
        });
        assert!(abandoned, "{events:?}");
    }
}
