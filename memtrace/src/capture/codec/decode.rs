//! The columns of a chunk in, events out. Total: columns that no encoder wrote
//! give a [`Malformed`].

use memtrace_common::event::{Addresses, ContextKind, CounterKind, HandoverKind, WaitKind};

use super::super::column::{Column, ColumnsIn, Malformed, unzigzag};
use super::{History, TAG_EARLIER, TAG_MASK, TAG_THREAD, Tag};
use crate::event::{Data, Direction, Event, EventBody, Handover, Origin, ProcessFact, SocketFact};
use crate::id::{ProcessId, SocketId, StreamId};
use crate::message::Message;

/// Turns the columns of one chunk after another into events.
#[derive(Debug, Default)]
pub(in crate::capture) struct Decoder {
    columns: ColumnsIn,
    history: History,
    threads: Vec<(u32, u32)>,
}

impl Decoder {
    /// Starts a chunk with columns of `lengths` bytes; returns the room for
    /// them.
    pub(in crate::capture) fn start(&mut self, lengths: &[usize; Column::COUNT]) -> &mut [u8] {
        self.history.clear();
        self.threads.clear();
        self.columns.start(lengths)
    }

    /// Events of the chunk that were not decoded yet.
    pub(in crate::capture) fn left(&self) -> usize {
        self.columns.left(Column::Tags)
    }

    /// Whether nothing is left over after the last event.
    pub(in crate::capture) fn exhausted(&self) -> bool {
        self.columns.exhausted()
    }

    /// The chunk's next event.
    pub(in crate::capture) fn next(&mut self) -> Result<Event, Malformed> {
        let tag = self.columns.byte(Column::Tags)?;
        if tag & TAG_THREAD != 0 {
            self.thread()?;
        }
        let &(pid, tid) = self
            .threads
            .get(self.history.thread)
            .ok_or(Malformed("an event names no thread"))?;
        let low = u64::from(self.columns.byte(Column::TimeLow)?);
        let high = self.columns.number(Column::TimeHigh)?;
        let step = high
            .checked_mul(256)
            .ok_or(Malformed("a time is out of range"))?
            | low;
        let ts_ns = if tag & TAG_EARLIER == 0 {
            self.history.ts_ns.checked_add(step)
        } else {
            self.history.ts_ns.checked_sub(step)
        }
        .ok_or(Malformed("a time is out of range"))?;
        self.history.ts_ns = ts_ns;
        let tag =
            Tag::from_wire(tag & TAG_MASK).ok_or(Malformed("an event is of no known kind"))?;
        Ok(Event {
            ts_ns,
            pid,
            tid,
            body: self.body(tag)?,
        })
    }

    fn thread(&mut self) -> Result<(), Malformed> {
        let index = usize::try_from(self.columns.number(Column::Threads)?)
            .ok()
            .filter(|index| *index <= self.threads.len())
            .ok_or(Malformed("an event names a thread not yet introduced"))?;
        if index == self.threads.len() {
            let pid = small(self.columns.number(Column::Threads)?)?;
            let beyond = unzigzag(self.columns.number(Column::Threads)?);
            let tid = i64::from(pid)
                .checked_add(beyond)
                .and_then(|tid| u32::try_from(tid).ok())
                .ok_or(Malformed("a thread id is out of range"))?;
            self.threads.push((pid, tid));
        }
        self.history.thread = index;
        Ok(())
    }

    fn body(&mut self, tag: Tag) -> Result<EventBody, Malformed> {
        Ok(match tag {
            Tag::Alloc => {
                let size = self.columns.number(Column::Sizes)?;
                let code = self.columns.number(Column::Blocks)?;
                EventBody::Alloc {
                    addr: self.handed_out(code, size, 1)?,
                    size,
                }
            }
            Tag::Free => EventBody::Free {
                addr: self.taken_back()?,
            },
            Tag::Realloc => {
                let size = self.columns.number(Column::Sizes)?;
                let elapsed_ns = self.columns.number(Column::Facts)?;
                let old = self.taken_back()?;
                let code = self.columns.number(Column::Blocks)?;
                let addr = if code == 1 {
                    self.history.blocks().kept(old, size);
                    old
                } else {
                    self.handed_out(code, size, 2)?
                };
                EventBody::Realloc {
                    old,
                    addr,
                    size,
                    elapsed_ns,
                }
            }
            Tag::Accept => EventBody::Accept(self.socket_fact()?),
            Tag::Connect => EventBody::Connect(self.socket_fact()?),
            Tag::Recv => EventBody::Data(self.data(Direction::Recv)?),
            Tag::Send => EventBody::Data(self.data(Direction::Send)?),
            Tag::Shutdown => EventBody::Shutdown {
                socket: self.socket()?,
                how: small(self.fact()?)?,
            },
            Tag::Close => EventBody::Close {
                socket: self.socket()?,
                fd: self.descriptor()?,
                last: self.flags(1)? != 0,
            },
            Tag::SocketError => EventBody::SocketError {
                socket: self.socket()?,
                errno: small(self.fact()?)?,
            },
            Tag::Wait => EventBody::Wait {
                kind: WaitKind::from_wire(small(self.fact()?)?)
                    .ok_or(Malformed("a wait is of no known kind"))?,
                descriptors: small(self.fact()?)?,
            },
            Tag::Fork => {
                let child_pid = small(self.fact()?)?;
                let child_tid = small(self.fact()?)?;
                let start_ns = self.fact()?;
                let flags = self.flags(2)?;
                EventBody::Fork {
                    child_pid,
                    child_tid,
                    start_ns,
                    process: flags & 1 != 0,
                    followed: flags & 2 != 0,
                }
            }
            Tag::Exec => EventBody::Exec {
                start_ns: self.fact()?,
            },
            Tag::Exit => EventBody::Exit {
                process: self.flags(1)? != 0,
            },
            Tag::Mapped => EventBody::Mapped,
            Tag::CgroupMove => EventBody::CgroupMove,
            Tag::Messages => EventBody::Messages {
                stream: self.stream()?,
                messages: self.messages()?,
            },
            Tag::Context => EventBody::Context {
                context: self.address_number()?,
                kind: self.context_kind()?,
                entered: small(self.fact()?)?,
            },
            Tag::ContextEnd => EventBody::ContextEnd {
                context: self.address_number()?,
                kind: self.context_kind()?,
            },
            Tag::ContextMade => EventBody::ContextMade {
                context: self.address_number()?,
                parent: self.fact()?,
                kind: self.context_kind()?,
            },
            Tag::Wake => EventBody::Wake(self.handover()?),
            Tag::Sleep => EventBody::Sleep(self.handover()?),
            Tag::Woken => EventBody::Woken(self.handover()?),
            Tag::Counter => EventBody::Counter {
                kind: CounterKind::from_wire(small(self.fact()?)?)
                    .ok_or(Malformed("a counter is of no known kind"))?,
                value: self.fact()?,
                peak: self.fact()?,
            },
            Tag::ManagedAlloc => EventBody::ManagedAlloc {
                size: self.columns.number(Column::Sizes)?,
                type_address: self.address_number()?,
            },
            Tag::TypeName => EventBody::TypeName {
                type_address: self.address_number()?,
                name: self.text()?,
            },
            Tag::TlsEnd => EventBody::TlsEnd {
                session: self.address_number()?,
            },
            Tag::TlsCall => EventBody::TlsCall {
                session: self.address_number()?,
                fd: self.descriptor()?,
                handshake: self.flags(1)? != 0,
            },
            Tag::Clock => EventBody::Clock,
            Tag::Process => EventBody::Process(self.process()?),
            Tag::OpenSocket => EventBody::OpenSocket {
                fact: self.socket_fact()?,
                accepted: self.flags(1)? != 0,
            },
            Tag::Loss => EventBody::Loss {
                cause: self.text()?,
                total: self.fact()?,
            },
            Tag::TraceBegin => EventBody::TraceBegin,
            Tag::TraceEnd => EventBody::TraceEnd { why: self.text()? },
        })
    }

    fn handed_out(&mut self, code: u64, size: u64, first: u64) -> Result<u64, Malformed> {
        if code == 0 {
            let number = self.columns.number(Column::Addresses)?;
            let blocks = self.history.blocks();
            let addr = blocks.resolve_full(number);
            blocks.handed_out(addr, size);
            return Ok(addr);
        }
        code.checked_sub(first)
            .and_then(|rank| usize::try_from(rank).ok())
            .and_then(|rank| self.history.blocks().handed_out_at(rank, size))
            .ok_or(NO_BLOCK)
    }

    fn taken_back(&mut self) -> Result<u64, Malformed> {
        let code = self.columns.number(Column::Blocks)?;
        if code == 0 {
            let number = self.columns.number(Column::Addresses)?;
            return Ok(self.history.blocks().resolve_full(number));
        }
        usize::try_from(code - 1)
            .ok()
            .and_then(|depth| self.history.blocks().taken_back_at(depth))
            .ok_or(NO_BLOCK)
    }

    fn fact(&mut self) -> Result<u64, Malformed> {
        self.columns.number(Column::Facts)
    }

    /// A set of `count` flags.
    fn flags(&mut self, count: u32) -> Result<u64, Malformed> {
        let flags = self.fact()?;
        if flags >> count != 0 {
            return Err(Malformed("an event has flags of no known meaning"));
        }
        Ok(flags)
    }

    fn descriptor(&mut self) -> Result<i32, Malformed> {
        i32::try_from(unzigzag(self.fact()?)).map_err(|_| OUT_OF_RANGE)
    }

    fn bytes(&mut self) -> Result<&[u8], Malformed> {
        let length = self.fact()?;
        self.columns.bytes(Column::Bytes, length)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        std::str::from_utf8(self.bytes()?)
            .map(str::to_owned)
            .map_err(|_| Malformed("a text is not UTF-8"))
    }

    fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let count = self.fact()?;
        // Grown as they come: each takes at least one byte, a count none.
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(self.text()?);
        }
        Ok(texts)
    }

    fn socket(&mut self) -> Result<SocketId, Malformed> {
        let step = unzigzag(self.fact()?);
        self.history.socket = self.history.socket.wrapping_add(step as u64);
        Ok(SocketId(self.history.socket))
    }

    fn socket_fact(&mut self) -> Result<SocketFact, Malformed> {
        Ok(SocketFact {
            socket: self.socket()?,
            fd: self.descriptor()?,
            addresses: Addresses {
                family: port(self.fact()?)?,
                local_port: port(self.fact()?)?,
                peer_port: port(self.fact()?)?,
                reserved: 0,
                local: self.address()?,
                peer: self.address()?,
            },
        })
    }

    fn address(&mut self) -> Result<[u8; 16], Malformed> {
        let bytes = self.bytes()?;
        let mut address = [0; 16];
        address
            .get_mut(..bytes.len())
            .ok_or(Malformed("a socket address is too long"))?
            .copy_from_slice(bytes);
        Ok(address)
    }

    fn stream(&mut self) -> Result<StreamId, Malformed> {
        Ok(match self.fact()? {
            0 => StreamId::Socket(self.socket()?),
            1 => StreamId::Tls(self.address_number()?),
            _ => return Err(Malformed("a stream is of no known kind")),
        })
    }

    fn address_number(&mut self) -> Result<u64, Malformed> {
        let step = unzigzag(self.fact()?);
        self.history.address = self.history.address.wrapping_add(step as u64);
        Ok(self.history.address)
    }

    fn context_kind(&mut self) -> Result<ContextKind, Malformed> {
        ContextKind::from_wire(small(self.fact()?)?)
            .ok_or(Malformed("a context is of no known kind"))
    }

    fn handover(&mut self) -> Result<Handover, Malformed> {
        let key = self.address_number()?;
        let kind = HandoverKind::from_wire(small(self.fact()?)?)
            .ok_or(Malformed("a hand-over is of no known kind"))?;
        let (amount, alone) = match kind {
            HandoverKind::Channel | HandoverKind::Stream => (0, false),
            HandoverKind::Futex
            | HandoverKind::Pipe
            | HandoverKind::EventFd
            | HandoverKind::SocketPair => (small(self.fact()?)?, self.flags(1)? != 0),
        };
        Ok(Handover {
            key,
            kind,
            amount,
            alone,
        })
    }

    fn data(&mut self, direction: Direction) -> Result<Data, Malformed> {
        let stream = self.stream()?;
        let fd = self.descriptor()?;
        let len = self.fact()?;
        let flags = self.flags(3)?;
        let buffer = if flags & 4 != 0 {
            self.address_number()?
        } else {
            0
        };
        Ok(Data {
            direction,
            stream,
            fd,
            len,
            buffer,
            more: flags & 1 != 0,
            unreadable: flags & 2 != 0,
        })
    }

    fn messages(&mut self) -> Result<Vec<Message>, Malformed> {
        let count = self.fact()?;
        // Grown as they come: each takes at least one byte, a count none.
        let mut messages = Vec::new();
        for _ in 0..count {
            let (message, rest) = postcard::take_from_bytes(self.bytes()?)
                .map_err(|_| Malformed("a message cannot be read"))?;
            if !rest.is_empty() {
                return Err(Malformed("a message is longer than it should be"));
            }
            messages.push(message);
        }
        Ok(messages)
    }

    fn process(&mut self) -> Result<ProcessFact, Malformed> {
        Ok(ProcessFact {
            process: ProcessId {
                pid: small(self.fact()?)?,
                start_ns: self.fact()?,
            },
            parent_pid: small(self.fact()?)?,
            exe: self.text()?,
            comm: self.text()?,
            runtime: self.text()?,
            allocators: self.texts()?,
            tls: self.texts()?,
            origin: match self.fact()? {
                0 => Origin::Attached,
                1 => Origin::Joined,
                2 => Origin::Started,
                _ => return Err(Malformed("a process is of no known origin")),
            },
            trouble: self.texts()?,
            probed_after_ns: self.fact()?,
        })
    }
}

const OUT_OF_RANGE: Malformed = Malformed("a number is out of range");
const NO_BLOCK: Malformed = Malformed("an event names a block that is not there");

fn small(value: u64) -> Result<u32, Malformed> {
    u32::try_from(value).map_err(|_| OUT_OF_RANGE)
}

fn port(value: u64) -> Result<u16, Malformed> {
    u16::try_from(value).map_err(|_| OUT_OF_RANGE)
}
