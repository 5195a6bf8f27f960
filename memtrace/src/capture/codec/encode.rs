//! Events in, the columns of a chunk out.

use std::collections::HashMap;

use memtrace_common::event::{Addresses, HandoverKind};

use super::super::column::{Column, ColumnsOut, zigzag};
use super::{History, TAG_EARLIER, TAG_THREAD, Tag};
use crate::event::{Data, Event, EventBody, Handover, Origin, ProcessFact, SocketFact};
use crate::id::{SocketId, StreamId};
use crate::message::Message;

/// Turns events into the columns of one chunk after another.
#[derive(Debug, Default)]
pub(in crate::capture) struct Encoder {
    out: ColumnsOut,
    history: History,
    threads: HashMap<(u32, u32), usize>,
    thread: Option<(u32, u32)>,
    events: u32,
    scratch: Vec<u8>,
}

impl Encoder {
    /// Starts the next chunk.
    pub(in crate::capture) fn clear(&mut self) {
        self.out.clear();
        self.history.clear();
        self.threads.clear();
        self.thread = None;
        self.events = 0;
    }

    /// Events in the chunk.
    pub(in crate::capture) fn events(&self) -> u32 {
        self.events
    }

    /// The chunk's columns.
    pub(in crate::capture) fn columns(&self) -> &ColumnsOut {
        &self.out
    }

    /// The most bytes that `event` can add to the columns.
    pub(in crate::capture) fn size_max(event: &Event) -> usize {
        // Tag, thread (3 numbers), time and up to six other numbers of at most
        // ten bytes, and two addresses of sixteen.
        const FIXED: usize = 160;
        let text = |text: &String| text.len() + 10;
        let texts = |texts: &[String]| texts.iter().map(text).sum::<usize>() + 10;
        FIXED
            + match &event.body {
                EventBody::Messages { messages, .. } => {
                    messages.iter().map(message_size_max).sum::<usize>()
                }
                EventBody::TypeName { name, .. } => text(name),
                EventBody::Process(fact) => {
                    text(&fact.exe)
                        + text(&fact.comm)
                        + text(&fact.runtime)
                        + texts(&fact.allocators)
                        + texts(&fact.tls)
                        + texts(&fact.trouble)
                }
                EventBody::Loss { cause, total: _ } => text(cause),
                EventBody::TraceEnd { why } => text(why),
                EventBody::Data(_)
                | EventBody::Wake(_)
                | EventBody::Sleep(_)
                | EventBody::Woken(_)
                | EventBody::Counter { .. }
                | EventBody::ManagedAlloc { .. }
                | EventBody::TlsEnd { .. }
                | EventBody::TlsCall { .. }
                | EventBody::Alloc { .. }
                | EventBody::Free { .. }
                | EventBody::Realloc { .. }
                | EventBody::Accept(_)
                | EventBody::Connect(_)
                | EventBody::Shutdown { .. }
                | EventBody::Close { .. }
                | EventBody::SocketError { .. }
                | EventBody::Wait { .. }
                | EventBody::Fork { .. }
                | EventBody::Exec { .. }
                | EventBody::Exit { .. }
                | EventBody::Mapped
                | EventBody::CgroupMove
                | EventBody::Context { .. }
                | EventBody::ContextMade { .. }
                | EventBody::ContextEnd { .. }
                | EventBody::Clock
                | EventBody::OpenSocket { .. }
                | EventBody::TraceBegin => 0,
            }
    }

    /// Adds `event` to the chunk.
    pub(in crate::capture) fn push(&mut self, event: &Event) {
        let Event {
            ts_ns,
            pid,
            tid,
            body,
        } = event;
        let mut tag = Tag::of(body) as u8;
        if self.thread != Some((*pid, *tid)) {
            tag |= TAG_THREAD;
            self.thread(*pid, *tid);
        }
        let step = if *ts_ns >= self.history.ts_ns {
            ts_ns - self.history.ts_ns
        } else {
            tag |= TAG_EARLIER;
            self.history.ts_ns - ts_ns
        };
        self.history.ts_ns = *ts_ns;
        self.out.byte(Column::Tags, tag);
        self.out.byte(Column::TimeLow, step as u8);
        self.out.number(Column::TimeHigh, step >> 8);
        self.events += 1;
        self.body(body);
    }

    fn thread(&mut self, pid: u32, tid: u32) {
        let next = self.threads.len();
        let index = *self.threads.entry((pid, tid)).or_insert(next);
        self.out.number(Column::Threads, index as u64);
        if index == next {
            self.out.number(Column::Threads, u64::from(pid));
            let beyond = i64::from(tid) - i64::from(pid);
            self.out.number(Column::Threads, zigzag(beyond));
        }
        self.thread = Some((pid, tid));
        self.history.thread = index;
    }

    fn body(&mut self, body: &EventBody) {
        match body {
            EventBody::Alloc { addr, size } => {
                self.out.number(Column::Sizes, *size);
                self.handed_out(*addr, *size, 1);
            }
            EventBody::Free { addr } => self.taken_back(*addr),
            EventBody::Realloc {
                old,
                addr,
                size,
                elapsed_ns,
            } => {
                self.out.number(Column::Sizes, *size);
                self.out.number(Column::Facts, *elapsed_ns);
                self.taken_back(*old);
                if addr == old {
                    self.out.number(Column::Blocks, 1);
                    self.history.blocks().kept(*addr, *size);
                } else {
                    self.handed_out(*addr, *size, 2);
                }
            }
            EventBody::Accept(fact) | EventBody::Connect(fact) => self.socket_fact(fact),
            EventBody::Data(data) => self.data(data),
            EventBody::Shutdown { socket, how } => {
                self.socket(*socket);
                self.fact(u64::from(*how));
            }
            EventBody::Close { socket, fd, last } => {
                self.socket(*socket);
                self.fact(zigzag(i64::from(*fd)));
                self.fact(u64::from(*last));
            }
            EventBody::SocketError { socket, errno } => {
                self.socket(*socket);
                self.fact(u64::from(*errno));
            }
            EventBody::Wait { kind, descriptors } => {
                self.fact(*kind as u64);
                self.fact(u64::from(*descriptors));
            }
            EventBody::Fork {
                child_pid,
                child_tid,
                start_ns,
                process,
                followed,
            } => {
                self.fact(u64::from(*child_pid));
                self.fact(u64::from(*child_tid));
                self.fact(*start_ns);
                self.fact(u64::from(*process) | u64::from(*followed) << 1);
            }
            EventBody::Exec { start_ns } => self.fact(*start_ns),
            EventBody::Exit { process } => self.fact(u64::from(*process)),
            EventBody::Mapped
            | EventBody::CgroupMove
            | EventBody::Clock
            | EventBody::TraceBegin => {}
            EventBody::Messages { stream, messages } => self.messages(*stream, messages),
            EventBody::Context {
                context,
                kind,
                entered,
            } => {
                self.address(*context);
                self.fact(*kind as u64);
                self.fact(u64::from(*entered));
            }
            EventBody::ContextEnd { context, kind } => {
                self.address(*context);
                self.fact(*kind as u64);
            }
            EventBody::ContextMade {
                context,
                parent,
                kind,
            } => {
                self.address(*context);
                self.fact(*parent);
                self.fact(*kind as u64);
            }
            EventBody::Wake(handover) | EventBody::Sleep(handover) | EventBody::Woken(handover) => {
                let Handover {
                    key,
                    kind,
                    amount,
                    alone,
                } = handover;
                self.address(*key);
                self.fact(*kind as u64);
                if !matches!(kind, HandoverKind::Channel | HandoverKind::Stream) {
                    self.fact(u64::from(*amount));
                    self.fact(u64::from(*alone));
                }
            }
            EventBody::Counter { kind, value, peak } => {
                self.fact(*kind as u64);
                self.fact(*value);
                self.fact(*peak);
            }
            EventBody::ManagedAlloc { size, type_address } => {
                self.out.number(Column::Sizes, *size);
                self.address(*type_address);
            }
            EventBody::TypeName { type_address, name } => {
                self.address(*type_address);
                self.text(name);
            }
            EventBody::TlsEnd { session } => self.address(*session),
            EventBody::TlsCall {
                session,
                fd,
                handshake,
            } => {
                self.address(*session);
                self.fact(zigzag(i64::from(*fd)));
                self.fact(u64::from(*handshake));
            }
            EventBody::Process(fact) => self.process(fact),
            EventBody::OpenSocket { fact, accepted } => {
                self.socket_fact(fact);
                self.fact(u64::from(*accepted));
            }
            EventBody::Loss { cause, total } => {
                self.text(cause);
                self.fact(*total);
            }
            EventBody::TraceEnd { why } => self.text(why),
        }
    }

    /// `first` is the code of the newest freed block; those below mean
    /// something else.
    fn handed_out(&mut self, addr: u64, size: u64, first: u64) {
        let blocks = self.history.blocks();
        match blocks.handed_out(addr, size) {
            Some(rank) => self.out.number(Column::Blocks, rank as u64 + first),
            None => {
                let number = blocks.in_full(addr);
                self.out.number(Column::Blocks, 0);
                self.out.number(Column::Addresses, number);
            }
        }
    }

    fn taken_back(&mut self, addr: u64) {
        let blocks = self.history.blocks();
        match blocks.taken_back(addr) {
            Some(depth) => self.out.number(Column::Blocks, depth as u64 + 1),
            None => {
                let number = blocks.in_full(addr);
                self.out.number(Column::Blocks, 0);
                self.out.number(Column::Addresses, number);
            }
        }
    }

    fn fact(&mut self, value: u64) {
        self.out.number(Column::Facts, value);
    }

    fn text(&mut self, text: &str) {
        self.fact(text.len() as u64);
        self.out.bytes(Column::Bytes, text.as_bytes());
    }

    fn texts(&mut self, texts: &[String]) {
        self.fact(texts.len() as u64);
        for text in texts {
            self.text(text);
        }
    }

    fn socket(&mut self, socket: SocketId) {
        let step = socket.0.wrapping_sub(self.history.socket) as i64;
        self.history.socket = socket.0;
        self.fact(zigzag(step));
    }

    fn socket_fact(&mut self, fact: &SocketFact) {
        let SocketFact {
            socket,
            fd,
            addresses,
        } = fact;
        let Addresses {
            family,
            local_port,
            peer_port,
            reserved: _,
            local,
            peer,
        } = addresses;
        self.socket(*socket);
        self.fact(zigzag(i64::from(*fd)));
        self.fact(u64::from(*family));
        self.fact(u64::from(*local_port));
        self.fact(u64::from(*peer_port));
        for end in [local, peer] {
            let length = end.iter().rposition(|&byte| byte != 0).map_or(0, |i| i + 1);
            self.fact(length as u64);
            self.out.bytes(Column::Bytes, &end[..length]);
        }
    }

    fn stream(&mut self, stream: StreamId) {
        match stream {
            StreamId::Socket(socket) => {
                self.fact(0);
                self.socket(socket);
            }
            StreamId::Tls(session) => {
                self.fact(1);
                self.address(session);
            }
        }
    }

    fn address(&mut self, address: u64) {
        let step = address.wrapping_sub(self.history.address) as i64;
        self.history.address = address;
        self.fact(zigzag(step));
    }

    fn data(&mut self, data: &Data) {
        let Data {
            // Told by the tag.
            direction: _,
            stream,
            fd,
            len,
            buffer,
            more,
            unreadable,
        } = data;
        self.stream(*stream);
        self.fact(zigzag(i64::from(*fd)));
        self.fact(*len);
        let has_buffer = *buffer != 0;
        self.fact(u64::from(*more) | u64::from(*unreadable) << 1 | u64::from(has_buffer) << 2);
        if has_buffer {
            self.address(*buffer);
        }
    }

    fn messages(&mut self, stream: StreamId, messages: &[Message]) {
        self.stream(stream);
        self.fact(messages.len() as u64);
        for message in messages {
            self.scratch.clear();
            // Writing to memory does not fail, and a message has no type that
            // could not be written.
            if postcard::to_io(message, &mut self.scratch).is_err() {
                self.scratch.clear();
            }
            self.out.number(Column::Facts, self.scratch.len() as u64);
            self.out.bytes(Column::Bytes, &self.scratch);
        }
    }

    fn process(&mut self, fact: &ProcessFact) {
        let ProcessFact {
            process,
            parent_pid,
            exe,
            comm,
            runtime,
            allocators,
            tls,
            origin,
            trouble,
            probed_after_ns,
        } = fact;
        self.fact(u64::from(process.pid));
        self.fact(process.start_ns);
        self.fact(u64::from(*parent_pid));
        self.text(exe);
        self.text(comm);
        self.text(runtime);
        self.texts(allocators);
        self.texts(tls);
        self.fact(match origin {
            Origin::Attached => 0,
            Origin::Joined => 1,
            Origin::Started => 2,
        });
        self.texts(trouble);
        self.fact(*probed_after_ns);
    }
}

/// The most bytes that a message takes: its texts, and its variant, up to seven
/// other numbers and the texts' lengths of at most ten bytes each.
fn message_size_max(message: &Message) -> usize {
    let texts = match message {
        Message::RequestHead { method, target, .. } => method.len() + target.len(),
        _ => 0,
    };
    texts + 100
}
