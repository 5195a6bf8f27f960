//! Ring records in, events out.
//!
//! A record is the bytes that a kernel program wrote (`memtrace_common::event`
//! states their shape); a [`RawEvent`] is what they say. [`record`] is total: any
//! bytes give an event or a [`DecodeError`] for the caller to count. It keeps
//! no state, judges nothing and reads nothing but its argument.

use std::mem::offset_of;

use memtrace_common::event::{
    Addresses, AllocRecord, ContextKind, ContextRecord, CounterKind, CounterRecord, DataHead,
    DataTiny, FLAG_EMPTY, FLAG_FOLLOWED, FLAG_IN_TLS_CALL, FLAG_LAST, FLAG_MORE, FLAG_PROCESS,
    FLAG_TLS, FLAG_UNREADABLE, FreeRecord, HandoverKind, HandoverRecord, Header, Kind,
    ManagedAllocRecord, ReallocRecord, SocketRecord, TaskRecord, TlsCall, TlsRecord, WaitKind,
    WaitRecord,
};
use memtrace_common::limits::TAIL;
use thiserror::Error;

use crate::event::{Captured, Data, Direction, Event, EventBody, Handover, RawEvent, SocketFact};
use crate::id::{SocketId, StreamId};

/// Why bytes from the ring are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than the record's kind takes.
    #[error("a ring record of {have} bytes where its kind takes {need}")]
    Short {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// A record of a kind that this version does not know.
    #[error("a ring record of unknown kind {0}")]
    UnknownKind(u16),
    /// A wait, context, counter or hand-over of a kind that this version does
    /// not know.
    #[error("a ring record of kind {kind} with unknown detail {detail}")]
    UnknownDetail {
        /// [`Kind`], by wire id.
        kind: u16,
        /// The detail's wire id.
        detail: u32,
    },
    /// A data record that claims more payload than it has room for, or than
    /// the call moved.
    #[error("a data record of {payload_len} payload bytes, with room for {room}, of {len} moved")]
    PayloadLength {
        /// Payload bytes claimed.
        payload_len: u32,
        /// Bytes of the record behind its head.
        room: usize,
        /// Bytes moved.
        len: u64,
    },
    /// A data record whose tail is neither absent nor whole.
    #[error("a data record with a tail of {0} bytes")]
    TailLength(u32),
}

impl DecodeError {
    /// The cause under which such records are counted as lost.
    pub fn cause(self) -> &'static str {
        match self {
            DecodeError::Short { .. }
            | DecodeError::PayloadLength { .. }
            | DecodeError::TailLength(_) => "record_malformed",
            DecodeError::UnknownKind(_) | DecodeError::UnknownDetail { .. } => "record_unknown",
        }
    }
}

/// The event that one ring record states.
///
/// `bytes` may be longer than the record: what follows it is ignored.
pub fn record(bytes: &[u8]) -> Result<RawEvent, DecodeError> {
    let header = Fields::new(bytes, size_of::<Header>())?;
    let flags = header.u16(offset_of!(Header, flags));
    let id = header.u16(offset_of!(Header, kind));
    let kind = Kind::from_wire(id).ok_or(DecodeError::UnknownKind(id))?;
    let unknown = |detail| DecodeError::UnknownDetail { kind: id, detail };
    let mut captured = Captured::default();
    let body = match kind {
        Kind::Alloc => {
            let fields = Fields::new(bytes, size_of::<AllocRecord>())?;
            EventBody::Alloc {
                addr: fields.u64(offset_of!(AllocRecord, addr)),
                size: fields.u64(offset_of!(AllocRecord, size)),
            }
        }
        Kind::Free => {
            let fields = Fields::new(bytes, size_of::<FreeRecord>())?;
            EventBody::Free {
                addr: fields.u64(offset_of!(FreeRecord, addr)),
            }
        }
        Kind::Realloc => {
            let fields = Fields::new(bytes, size_of::<ReallocRecord>())?;
            EventBody::Realloc {
                old: fields.u64(offset_of!(ReallocRecord, old)),
                addr: fields.u64(offset_of!(ReallocRecord, addr)),
                size: fields.u64(offset_of!(ReallocRecord, size)),
                elapsed_ns: fields.u64(offset_of!(ReallocRecord, elapsed_ns)),
            }
        }
        Kind::Accept => EventBody::Accept(socket_fact(bytes)?),
        Kind::Connect => EventBody::Connect(socket_fact(bytes)?),
        Kind::Recv => EventBody::Data(data(bytes, flags, Direction::Recv, &mut captured)?),
        Kind::Send => EventBody::Data(data(bytes, flags, Direction::Send, &mut captured)?),
        Kind::Shutdown => {
            let fields = Fields::new(bytes, size_of::<SocketRecord>())?;
            EventBody::Shutdown {
                socket: SocketId(fields.u64(offset_of!(SocketRecord, inode))),
                how: fields.u32(offset_of!(SocketRecord, how)),
            }
        }
        Kind::Close => {
            let fields = Fields::new(bytes, size_of::<SocketRecord>())?;
            EventBody::Close {
                socket: SocketId(fields.u64(offset_of!(SocketRecord, inode))),
                fd: fields.i32(offset_of!(SocketRecord, fd)),
                last: flags & FLAG_LAST != 0,
            }
        }
        Kind::SocketError => {
            let fields = Fields::new(bytes, size_of::<SocketRecord>())?;
            EventBody::SocketError {
                socket: SocketId(fields.u64(offset_of!(SocketRecord, inode))),
                errno: fields.u32(offset_of!(SocketRecord, how)),
            }
        }
        Kind::Wait => {
            let fields = Fields::new(bytes, size_of::<WaitRecord>())?;
            let wait = fields.u32(offset_of!(WaitRecord, wait));
            EventBody::Wait {
                kind: WaitKind::from_wire(wait).ok_or_else(|| unknown(wait))?,
                descriptors: fields.u32(offset_of!(WaitRecord, descriptors)),
            }
        }
        Kind::Fork => {
            let fields = Fields::new(bytes, size_of::<TaskRecord>())?;
            EventBody::Fork {
                child_pid: fields.u32(offset_of!(TaskRecord, child_pid)),
                child_tid: fields.u32(offset_of!(TaskRecord, child_tid)),
                start_ns: fields.u64(offset_of!(TaskRecord, start_boottime_ns)),
                process: flags & FLAG_PROCESS != 0,
                followed: flags & FLAG_FOLLOWED != 0,
            }
        }
        Kind::Exec => {
            let fields = Fields::new(bytes, size_of::<TaskRecord>())?;
            EventBody::Exec {
                start_ns: fields.u64(offset_of!(TaskRecord, start_boottime_ns)),
            }
        }
        Kind::Exit => EventBody::Exit {
            process: flags & FLAG_PROCESS != 0,
        },
        Kind::Mapped => EventBody::Mapped,
        Kind::CgroupMove => EventBody::CgroupMove,
        Kind::Context | Kind::ContextMade | Kind::ContextEnd => {
            let fields = Fields::new(bytes, size_of::<ContextRecord>())?;
            let runtime = fields.u32(offset_of!(ContextRecord, runtime));
            let context = fields.u64(offset_of!(ContextRecord, context));
            let parent = fields.u64(offset_of!(ContextRecord, parent));
            let of = ContextKind::from_wire(runtime).ok_or_else(|| unknown(runtime))?;
            match kind {
                Kind::Context => EventBody::Context {
                    context,
                    kind: of,
                    entered: fields.u32(offset_of!(ContextRecord, entered)),
                },
                Kind::ContextMade => EventBody::ContextMade {
                    context,
                    parent,
                    kind: of,
                },
                _ => EventBody::ContextEnd { context, kind: of },
            }
        }
        Kind::Wake | Kind::Sleep | Kind::Woken => {
            let fields = Fields::new(bytes, size_of::<HandoverRecord>())?;
            let through = fields.u32(offset_of!(HandoverRecord, through));
            let handover = Handover {
                key: fields.u64(offset_of!(HandoverRecord, key)),
                kind: HandoverKind::from_wire(through).ok_or_else(|| unknown(through))?,
                amount: fields.u32(offset_of!(HandoverRecord, amount)),
                alone: flags & FLAG_EMPTY != 0,
            };
            match kind {
                Kind::Wake => EventBody::Wake(handover),
                Kind::Sleep => EventBody::Sleep(handover),
                _ => EventBody::Woken(handover),
            }
        }
        Kind::Counter => {
            let fields = Fields::new(bytes, size_of::<CounterRecord>())?;
            let counter = fields.u32(offset_of!(CounterRecord, counter));
            EventBody::Counter {
                kind: CounterKind::from_wire(counter).ok_or_else(|| unknown(counter))?,
                value: fields.u64(offset_of!(CounterRecord, value)),
                peak: fields.u64(offset_of!(CounterRecord, peak)),
            }
        }
        Kind::ManagedAlloc => {
            let fields = Fields::new(bytes, size_of::<ManagedAllocRecord>())?;
            EventBody::ManagedAlloc {
                size: fields.u64(offset_of!(ManagedAllocRecord, size)),
                type_address: fields.u64(offset_of!(ManagedAllocRecord, type_address)),
            }
        }
        Kind::TlsEnd => {
            let fields = Fields::new(bytes, size_of::<TlsRecord>())?;
            EventBody::TlsEnd {
                session: fields.u64(offset_of!(TlsRecord, session)),
            }
        }
        Kind::TlsCall => {
            let fields = Fields::new(bytes, size_of::<TlsRecord>())?;
            let call = fields.u32(offset_of!(TlsRecord, call));
            let shape = TlsCall::from_wire(u64::from(call)).ok_or_else(|| unknown(call))?;
            EventBody::TlsCall {
                session: fields.u64(offset_of!(TlsRecord, session)),
                fd: fields.i32(offset_of!(TlsRecord, fd)),
                handshake: shape == TlsCall::Handshake,
            }
        }
    };
    let event = Event {
        ts_ns: header.u64(offset_of!(Header, ts_ns)),
        pid: header.u32(offset_of!(Header, pid)),
        tid: header.u32(offset_of!(Header, tid)),
        body,
    };
    Ok(RawEvent { event, captured })
}

fn socket_fact(bytes: &[u8]) -> Result<SocketFact, DecodeError> {
    let fields = Fields::new(bytes, size_of::<SocketRecord>())?;
    let addresses = offset_of!(SocketRecord, addresses);
    Ok(SocketFact {
        socket: SocketId(fields.u64(offset_of!(SocketRecord, inode))),
        fd: fields.i32(offset_of!(SocketRecord, fd)),
        addresses: Addresses {
            family: fields.u16(addresses + offset_of!(Addresses, family)),
            local_port: fields.u16(addresses + offset_of!(Addresses, local_port)),
            peer_port: fields.u16(addresses + offset_of!(Addresses, peer_port)),
            // Padding says nothing, and captures do not keep it.
            reserved: 0,
            local: fields.array(addresses + offset_of!(Addresses, local)),
            peer: fields.array(addresses + offset_of!(Addresses, peer)),
        },
    })
}

fn data(
    bytes: &[u8],
    flags: u16,
    direction: Direction,
    captured: &mut Captured,
) -> Result<Data, DecodeError> {
    // The head is the same whatever the payload's room.
    let fields = Fields::new(bytes, size_of::<DataHead>())?;
    let len = fields.u64(offset_of!(DataHead, len));
    let payload_len = fields.u32(offset_of!(DataHead, payload_len));
    let tail_len = fields.u32(offset_of!(DataHead, tail_len));
    let behind = bytes
        .get(offset_of!(DataTiny, payload)..)
        .unwrap_or_default();
    let payload = usize::try_from(payload_len)
        .ok()
        .and_then(|wanted| behind.get(..wanted))
        .filter(|_| u64::from(payload_len) <= len)
        .ok_or(DecodeError::PayloadLength {
            payload_len,
            room: behind.len(),
            len,
        })?;
    let whole_tail = match tail_len {
        0 => false,
        // Both constants are 8: the record's own type says so.
        n if n as usize == TAIL => true,
        n => return Err(DecodeError::TailLength(n)),
    };
    let unreadable = flags & FLAG_UNREADABLE != 0;
    let cut = u64::from(payload_len) < len && len >= TAIL as u64;
    // After a failed read the buffer holds whatever was in the ring.
    if !unreadable {
        captured.payload = payload.to_vec();
        if whole_tail && cut {
            let tail: [u8; TAIL] = fields.array(offset_of!(DataHead, tail));
            captured.tail = tail.to_vec();
        }
    }
    captured.in_tls_call = flags & FLAG_IN_TLS_CALL != 0;
    let stream = fields.u64(offset_of!(DataHead, inode));
    Ok(Data {
        direction,
        stream: if flags & FLAG_TLS != 0 {
            StreamId::Tls(stream)
        } else {
            StreamId::Socket(SocketId(stream))
        },
        fd: fields.i32(offset_of!(DataHead, fd)),
        len,
        buffer: match direction {
            Direction::Recv => fields.u64(offset_of!(DataHead, buffer)),
            Direction::Send => 0,
        },
        more: flags & FLAG_MORE != 0,
        unreadable,
    })
}

/// The bytes of one record, known to be long enough for its fields.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8], need: usize) -> Result<Self, DecodeError> {
        match bytes.get(..need) {
            Some(bytes) => Ok(Fields { bytes }),
            None => Err(DecodeError::Short {
                need,
                have: bytes.len(),
            }),
        }
    }

    /// The `N` bytes at `offset`. Offsets come from `offset_of!` on the record
    /// whose size `new` was given, so they are always there; were one not, the
    /// field would read as zero.
    fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.bytes
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_ne_bytes(self.array(offset))
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.array(offset))
    }

    fn i32(&self, offset: usize) -> i32 {
        i32::from_ne_bytes(self.array(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.array(offset))
    }
}

#[cfg(test)]
mod tests;
