//! Events to columns and back, one chunk at a time.
//!
//! Every chunk starts from the same state, so each can be decoded alone, and
//! the same events give the same bytes. The layout is stated in
//! [`capture`](super); here is what both directions share: the tags and what is
//! remembered from one event to the next. Nothing here compresses or touches
//! files.

mod decode;
mod encode;

use super::blocks::Blocks;
use crate::event::{Direction, EventBody};

pub(super) use decode::Decoder;
pub(super) use encode::Encoder;

/// Threads that have block lists of their own; further ones share them. Bounds
/// the memory at 256 × 2.5 KiB.
const BLOCKS_MAX: usize = 256;

/// What an event is, in the low six bits of its tag byte. A retired tag leaves
/// a hole.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Alloc = 1,
    Free = 2,
    Realloc = 3,
    Accept = 4,
    Connect = 5,
    Recv = 6,
    Send = 7,
    Shutdown = 8,
    Close = 9,
    Wait = 10,
    Fork = 11,
    Exec = 12,
    Exit = 13,
    Mapped = 14,
    CgroupMove = 15,
    SocketError = 16,
    Process = 17,
    OpenSocket = 18,
    Loss = 19,
    TraceBegin = 20,
    TraceEnd = 21,
    Context = 22,
    ContextMade = 23,
    Clock = 24,
    Messages = 25,
    Wake = 26,
    Sleep = 27,
    Woken = 28,
    Counter = 29,
    ManagedAlloc = 30,
    TypeName = 31,
    TlsEnd = 32,
    ContextEnd = 33,
    TlsCall = 34,
}

impl Tag {
    fn from_wire(id: u8) -> Option<Tag> {
        Some(match id {
            1 => Tag::Alloc,
            2 => Tag::Free,
            3 => Tag::Realloc,
            4 => Tag::Accept,
            5 => Tag::Connect,
            6 => Tag::Recv,
            7 => Tag::Send,
            8 => Tag::Shutdown,
            9 => Tag::Close,
            10 => Tag::Wait,
            11 => Tag::Fork,
            12 => Tag::Exec,
            13 => Tag::Exit,
            14 => Tag::Mapped,
            15 => Tag::CgroupMove,
            16 => Tag::SocketError,
            17 => Tag::Process,
            18 => Tag::OpenSocket,
            19 => Tag::Loss,
            20 => Tag::TraceBegin,
            21 => Tag::TraceEnd,
            22 => Tag::Context,
            23 => Tag::ContextMade,
            24 => Tag::Clock,
            25 => Tag::Messages,
            26 => Tag::Wake,
            27 => Tag::Sleep,
            28 => Tag::Woken,
            29 => Tag::Counter,
            30 => Tag::ManagedAlloc,
            31 => Tag::TypeName,
            32 => Tag::TlsEnd,
            33 => Tag::ContextEnd,
            34 => Tag::TlsCall,
            _ => return None,
        })
    }

    fn of(body: &EventBody) -> Tag {
        match body {
            EventBody::Alloc { .. } => Tag::Alloc,
            EventBody::Free { .. } => Tag::Free,
            EventBody::Realloc { .. } => Tag::Realloc,
            EventBody::Accept(_) => Tag::Accept,
            EventBody::Connect(_) => Tag::Connect,
            EventBody::Data(data) => match data.direction {
                Direction::Recv => Tag::Recv,
                Direction::Send => Tag::Send,
            },
            EventBody::Shutdown { .. } => Tag::Shutdown,
            EventBody::Close { .. } => Tag::Close,
            EventBody::SocketError { .. } => Tag::SocketError,
            EventBody::Wait { .. } => Tag::Wait,
            EventBody::Fork { .. } => Tag::Fork,
            EventBody::Exec { .. } => Tag::Exec,
            EventBody::Exit { .. } => Tag::Exit,
            EventBody::Mapped => Tag::Mapped,
            EventBody::CgroupMove => Tag::CgroupMove,
            EventBody::Context { .. } => Tag::Context,
            EventBody::ContextMade { .. } => Tag::ContextMade,
            EventBody::ContextEnd { .. } => Tag::ContextEnd,
            EventBody::Clock => Tag::Clock,
            EventBody::Messages { .. } => Tag::Messages,
            EventBody::Wake(_) => Tag::Wake,
            EventBody::Sleep(_) => Tag::Sleep,
            EventBody::Woken(_) => Tag::Woken,
            EventBody::Counter { .. } => Tag::Counter,
            EventBody::ManagedAlloc { .. } => Tag::ManagedAlloc,
            EventBody::TypeName { .. } => Tag::TypeName,
            EventBody::TlsEnd { .. } => Tag::TlsEnd,
            EventBody::TlsCall { .. } => Tag::TlsCall,
            EventBody::Process(_) => Tag::Process,
            EventBody::OpenSocket { .. } => Tag::OpenSocket,
            EventBody::Loss { .. } => Tag::Loss,
            EventBody::TraceBegin => Tag::TraceBegin,
            EventBody::TraceEnd { .. } => Tag::TraceEnd,
        }
    }
}

/// Tag bits that hold the [`Tag`].
const TAG_MASK: u8 = 0x3f;
/// Tag bit: the time is before the previous event's.
const TAG_EARLIER: u8 = 0x40;
/// Tag bit: the thread is another than the previous event's.
const TAG_THREAD: u8 = 0x80;

/// What both directions remember from one event to the next.
#[derive(Debug, Default)]
struct History {
    ts_ns: u64,
    /// Index of the previous event's thread; the first event always states its
    /// thread.
    thread: usize,
    /// The socket of the previous event that had one.
    socket: u64,
    /// The context, key, type or TLS session of the previous event that had one.
    address: u64,
    blocks: Vec<Blocks>,
}

impl History {
    fn clear(&mut self) {
        self.ts_ns = 0;
        self.thread = 0;
        self.socket = 0;
        self.address = 0;
        self.blocks.iter_mut().for_each(Blocks::clear);
    }

    /// The block lists of the current thread.
    fn blocks(&mut self) -> &mut Blocks {
        let index = self.thread % BLOCKS_MAX;
        if index >= self.blocks.len() {
            self.blocks.resize_with(index + 1, Blocks::default);
        }
        &mut self.blocks[index]
    }
}
