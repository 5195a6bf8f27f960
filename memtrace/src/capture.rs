//! Captures: events in a file, and back.
//!
//! What comes in is the events of a trace in the order in which the collector
//! met them; what comes out is the same events, exactly. Live tracing and replay
//! therefore see the same input. A capture is self-contained, bounded in size,
//! and readable up to its last whole chunk after a crash, a full disk or damage
//! ([`Status`] says which). The same events, metadata and flushes give the same
//! bytes. Nothing here knows what a request is.
//!
//! # Format, version 2
//!
//! Fixed-width integers are little-endian. A *varint* is an unsigned number of
//! at most 64 bits in groups of seven bits, lowest first, in at most ten bytes;
//! the top bit of a byte says that another follows. *zigzag(n)* is
//! `(n << 1) ^ (n >> 63)`. A CRC is CRC-32 as in gzip. A capture is a header,
//! any number of chunks, and an end marker; without the marker it is truncated.
//!
//! ## Header
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `\x89mtrace\n` |
//! | 8 | 4 | format version, 2 |
//! | 12 | 4 | *n*, bytes of metadata, at most 1 MiB |
//! | 16 | 4 | CRC of the metadata |
//! | 20 | 4 | CRC of bytes 0..20 |
//! | 24 | *n* | metadata: [`CaptureMeta`] as JSON; fields may be added |
//!
//! ## Chunk and end marker
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `CHNK`, or `ENDS` for the end marker |
//! | 4 | 4 | bytes of all columns before compression, at most 512 KiB; marker: 0 |
//! | 8 | 4 | *n*, bytes of content |
//! | 12 | 4 | events in the chunk; marker: 0 |
//! | 16 | 4 | CRC of the content |
//! | 20 | 4 | CRC of bytes 0..20 |
//! | 24 | *n* | content |
//!
//! The end marker's content is two 8-byte integers: events and chunks in the
//! capture. Nothing follows it.
//!
//! A chunk's content is a directory and nine columns. The directory is two
//! varints for each column: its bytes before compression and as stored. The
//! columns follow in the same order. Where the two lengths are equal the bytes
//! are stored as they are, else they are one zstd frame that states its content
//! size.
//!
//! ## Columns
//! | place | column | content |
//! |---|---|---|
//! | 0 | tags | one byte per event: bits 0-5 its kind, bit 6 *earlier*, bit 7 *thread* |
//! | 1 | threads | varints, for each event with the bit *thread* |
//! | 2 | time low | one byte per event |
//! | 3 | time high | one varint per event |
//! | 4 | sizes | varints |
//! | 5 | blocks | varints |
//! | 6 | addresses | varints |
//! | 7 | facts | varints |
//! | 8 | bytes | bytes |
//!
//! All state is forgotten between chunks. Events are decoded one after the
//! other, each taking its values from the columns in the order given here.
//!
//! *Thread*: without the bit, that of the previous event. With it, a varint
//! *i* from threads: the *i*-th pair of pid and tid that the chunk introduced
//! (from 0); if there are exactly *i* so far, a new pair follows: pid, then
//! zigzag(tid − pid).
//!
//! *Time* is the previous event's (at first 0) plus `time high × 256 + time low`
//! nanoseconds, or minus that with the bit *earlier*. Times are kept to the
//! nanosecond: rounding them to 100 ns was measured to save 0.25 to 0.42 bytes of
//! the 2.0 to 3.6 that an event of a Python server takes, and durations are
//! reported from them.
//!
//! *Kinds*, with their values; a value is a varint from facts where nothing else
//! is said. `block`, `socket`, `fact`, `text` and `texts` are explained below,
//! `flags` is a varint whose bit 0 is the first flag named.
//! | kind | event | values |
//! |---|---|---|
//! | 1 | Alloc | size (sizes), address (block) |
//! | 2 | Free | address (block) |
//! | 3 | Realloc | size (sizes), elapsed ns, old address (block), new address (block) |
//! | 4, 5 | Accept, Connect | fact |
//! | 6, 7 | Data received, sent | stream, zigzag(fd), length, flags (more, unreadable) |
//! | 8 | Shutdown | socket, how |
//! | 9 | Close | socket, zigzag(fd), flags (last) |
//! | 10 | Wait | kind (`WaitKind`'s wire id), descriptors |
//! | 11 | Fork | child pid, child tid, start ns, flags (process, followed) |
//! | 12 | Exec | start ns |
//! | 13 | Exit | flags (process) |
//! | 14, 15 | Mapped, CgroupMove | |
//! | 16 | SocketError | socket, errno |
//! | 17 | Process | pid, start ns, parent pid, exe, comm, runtime (text each), allocators (texts), TLS libraries (texts), origin (0 attached, 1 joined, 2 started), trouble (texts), probed after ns |
//! | 18 | OpenSocket | fact, flags (accepted) |
//! | 19 | Loss | cause (text), total |
//! | 20 | TraceBegin | |
//! | 21 | TraceEnd | why (text) |
//! | 22 | Context | context (address), kind (`ContextKind`'s wire id) |
//! | 23 | ContextMade | context (address), parent, kind (`ContextKind`'s wire id) |
//! | 24 | Clock | nothing |
//! | 25 | Messages | stream, count, that many messages |
//! | 26, 27, 28 | Wake, Sleep, Woken | key (address), kind (`HandoverKind`'s wire id); unless it is a channel: amount, flags (alone) |
//! | 29 | Counter | kind (`CounterKind`'s wire id), value, peak |
//! | 30 | ManagedAlloc | size (sizes), type (address) |
//! | 31 | TypeName | type (address), name (text) |
//! | 32 | TlsEnd | session (address) |
//! | 33 | TlsCall | session (address), zigzag(fd), flags (handshake) |
//!
//! *text*: a length, and that many bytes of UTF-8 from bytes. *texts*: a count
//! and that many texts. *message*: a length, and that many bytes from bytes: a
//! [`Message`](crate::message::Message) in the postcard format, version 1.
//! *socket*: zigzag of the inode number minus that of the previous socket (at
//! first 0), modulo 2⁶⁴. *address*: the same with the previous number of this
//! kind. *stream*: 0 and a socket, or 1 and a TLS session (address).
//! *fact*: socket, zigzag(fd), family, local port, peer port, local address,
//! peer address; an address as a text of its bytes without the zeros at its
//! end.
//!
//! *block*: thread number *i* of the chunk uses the *i* mod 256-th pair of
//! lists, *live* and *freed*, and last address (at first 0). A list holds pairs
//! of address and size class, the newest last; when one is added to a list of
//! 128, the oldest 64 are dropped first. The class of a size is
//! `(size + 23) / 16` (saturating), at least 2, and 65535 above that. A varint
//! *c* from blocks says where the address is:
//! - *Taken back* (Free, and Realloc's old address): *c* = 0: in full. *c* > 0:
//!   of the live list, the entry before which (counted from the newest) are
//!   *c* − 1 others; it moves to the freed list.
//! - *Handed out* (Alloc, and Realloc's new address): *c* = 0: in full, and if
//!   the newest entry of the freed list with that address has the size's class,
//!   it is removed. Otherwise, with *r* = *c* − 1 for Alloc and *c* − 2 for
//!   Realloc, the entry of the freed list that has the class of the size and
//!   *r* newer entries of the same class; it is removed. Either way the address
//!   is added to the live list with that class. *c* = 1 in a Realloc: the old
//!   address; if the newest entry of the freed list has it, that is removed;
//!   it is added to the live list.
//! - *In full*: a varint from addresses, rotated left by five bits as a 64-bit
//!   number: zigzag of the address minus the last address, modulo 2⁶⁴. It is the
//!   last address from then on.

mod blocks;
mod codec;
mod column;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use reader::{CaptureReader, Status};
pub use writer::{CaptureWriter, Durable, Pushed, Summary};

/// The format version that is written, and the newest that can be read.
pub const FORMAT_VERSION: u32 = 2;

/// The smallest size limit a capture can be given, bytes: room for the metadata,
/// a few small chunks and the end.
pub const MAX_SIZE_MIN: u64 = 64 << 10;

/// Opens every capture. The first byte is no text in any encoding, the last is
/// changed by a transfer that takes the file for text.
const MAGIC: [u8; 8] = *b"\x89mtrace\n";
/// Bytes of the header before the metadata.
const HEADER_LEN: usize = 24;
/// Most bytes of metadata.
const META_MAX: usize = 1 << 20;

const CHUNK_KIND: [u8; 4] = *b"CHNK";
const END_KIND: [u8; 4] = *b"ENDS";
/// Bytes of a chunk before its content.
const CHUNK_HEADER_LEN: usize = 24;
/// Bytes of the end marker's content.
const END_LEN: usize = 16;
/// Most bytes of a chunk's directory: two lengths per column, of at most
/// 2¹⁹ and so three bytes each.
const DIRECTORY_MAX: usize = column::Column::COUNT * 2 * 3;
/// Column bytes at which a chunk is sealed: enough for zstd to find what
/// repeats, little enough to lose.
const CHUNK_TARGET: usize = 256 << 10;
/// Most bytes that one event can take.
const EVENT_MAX: usize = 256 << 10;
/// Most column bytes of a chunk. A reader's memory is bounded by it.
const CHUNK_MAX: usize = 512 << 10;

const _: () = assert!(CHUNK_TARGET + EVENT_MAX <= CHUNK_MAX);

/// What is known about a capture besides its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureMeta {
    /// Version of the memtrace that wrote it.
    pub tool_version: String,
    /// When the trace was started, ns since 1970 (UTC).
    pub created_unix_ns: u64,
    /// Release of the kernel traced (`uname -r`).
    pub kernel_release: String,
    /// Architecture traced (`uname -m`).
    pub arch: String,
    /// How events were selected: `exact`.
    pub mode: String,
    /// The targets as the user named them, such as `--pid 4711`.
    pub targets: Vec<String>,
    /// Settings that differ from their defaults, by name.
    pub options: BTreeMap<String, String>,
    /// What to add to an event's time to get ns since 1970 (UTC), as measured
    /// when the trace was started.
    pub realtime_offset_ns: i64,
    /// How long after its request's end a block has to live to count as
    /// retained, ns.
    pub retain_ns: u64,
}

impl Default for CaptureMeta {
    fn default() -> Self {
        CaptureMeta {
            tool_version: String::new(),
            created_unix_ns: 0,
            kernel_release: String::new(),
            arch: String::new(),
            mode: "exact".to_owned(),
            targets: Vec::new(),
            options: BTreeMap::new(),
            realtime_offset_ns: 0,
            retain_ns: 1_000_000_000,
        }
    }
}

/// Why a capture cannot be written or opened.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file could not be created.
    #[error("cannot create the capture {name}: {source}; choose another place with -o")]
    Create {
        /// The path.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Writing failed; what was written before can be read.
    #[error(
        "cannot write the capture {name}: {source}; \
         its first {written} bytes hold whole chunks and can be reported"
    )]
    Write {
        /// The path.
        name: String,
        /// Bytes of whole chunks written.
        written: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A push or flush after writing failed.
    #[error("the capture {name} cannot be continued after a failed write")]
    Failed {
        /// The path.
        name: String,
    },
    /// The size limit leaves no room for events.
    #[error("a capture limited to {max_size} bytes is too small: allow at least {at_least}")]
    TooSmall {
        /// The limit asked for, bytes.
        max_size: u64,
        /// The smallest possible, bytes.
        at_least: u64,
    },
    /// An event or the metadata is larger than the format allows.
    #[error("{what} of {bytes} bytes does not fit into a capture, which takes at most {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, bytes.
        bytes: usize,
        /// The most possible, bytes.
        max: usize,
    },
    /// The metadata could not be written as JSON, or the compressor failed.
    #[error("cannot encode the capture {name}: {source}")]
    Encode {
        /// The path.
        name: String,
        /// The reason.
        source: io::Error,
    },
    /// The file could not be opened or read.
    #[error("cannot read the capture {name}: {source}")]
    Read {
        /// The path.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{name} is not a memtrace capture; captures are written by `memtrace record`")]
    NotACapture {
        /// The path.
        name: String,
    },
    /// The file's format is another than this program's.
    #[error(
        "the capture {name} has format version {version}, this memtrace reads version \
         {FORMAT_VERSION}: open it with the memtrace that wrote it, or one as old"
    )]
    OtherVersion {
        /// The path.
        name: String,
        /// Its format version.
        version: u32,
    },
}

/// What stands before a chunk's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChunkHeader {
    kind: [u8; 4],
    raw_len: u32,
    content_len: u32,
    events: u32,
    content_crc: u32,
}

impl ChunkHeader {
    fn to_bytes(self) -> [u8; CHUNK_HEADER_LEN] {
        let mut bytes = [0; CHUNK_HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.kind);
        bytes[4..8].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.content_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.events.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.content_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..20]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if the header's checksum is wrong.
    fn from_bytes(bytes: &[u8; CHUNK_HEADER_LEN]) -> Option<ChunkHeader> {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let number = |at: usize| u32::from_le_bytes(word(at));
        (number(20) == crc32fast::hash(&bytes[..20])).then(|| ChunkHeader {
            kind: word(0),
            raw_len: number(4),
            content_len: number(8),
            events: number(12),
            content_crc: number(16),
        })
    }
}
