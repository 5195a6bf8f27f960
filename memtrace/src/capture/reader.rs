//! A capture in, events out.
//!
//! The reader holds one chunk at a time and checks it before it believes a word
//! of it. Whatever the bytes, it neither panics nor asks for more memory than
//! one chunk can justify. It returns errors only where nothing can be read;
//! everything else is a [`Status`] after the events that could be.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use zstd::bulk::Decompressor;

use super::codec::Decoder;
use super::column::{Column, Malformed, take_varint};
use super::{
    CHUNK_HEADER_LEN, CHUNK_KIND, CHUNK_MAX, CaptureError, CaptureMeta, ChunkHeader, DIRECTORY_MAX,
    END_KIND, END_LEN, FORMAT_VERSION, HEADER_LEN, MAGIC, META_MAX,
};
use crate::event::Event;

/// Most events returned at once: about 0.7 MB of them.
const BATCH_EVENTS: usize = 4096;

/// How far a capture could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not to its end yet.
    Reading,
    /// Whole: its end marker was there.
    Complete,
    /// It stops before its end marker. Why, in words.
    Truncated(String),
    /// Bytes are not what was written; the rest was not read. Why, in words.
    Damaged(String),
}

impl Status {
    /// What is wrong, in words; `None` if nothing is.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Status::Reading | Status::Complete => None,
            Status::Truncated(words) | Status::Damaged(words) => Some(words),
        }
    }
}

/// Reads one capture from its beginning to its end.
pub struct CaptureReader<R> {
    input: R,
    name: String,
    meta: CaptureMeta,
    status: Status,
    /// Bytes read so far.
    offset: u64,
    /// Where the chunk being decoded begins.
    chunk: u64,
    /// Events returned so far.
    events: u64,
    /// Chunks read so far.
    chunks: u64,
    content: Vec<u8>,
    decoder: Decoder,
    decompressor: Decompressor<'static>,
}

impl CaptureReader<BufReader<File>> {
    /// Opens a capture and reads its metadata.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => CaptureReader::new(BufReader::new(file), name),
            Err(source) => Err(CaptureError::Read { name, source }),
        }
    }
}

impl<R: Read> CaptureReader<R> {
    /// Reads a capture from `input`, which errors call `name`.
    pub fn new(input: R, name: String) -> Result<Self, CaptureError> {
        let decompressor = Decompressor::new().map_err(|source| CaptureError::Read {
            name: name.clone(),
            source,
        })?;
        let mut reader = CaptureReader {
            input,
            name,
            meta: CaptureMeta::default(),
            status: Status::Reading,
            offset: 0,
            chunk: 0,
            events: 0,
            chunks: 0,
            content: Vec::new(),
            decoder: Decoder::default(),
            decompressor,
        };
        reader.header()?;
        Ok(reader)
    }

    /// The capture's metadata; defaults if its header is truncated or damaged.
    pub fn meta(&self) -> &CaptureMeta {
        &self.meta
    }

    /// How far it could be read; final once [`next_batch`] has returned false.
    ///
    /// [`next_batch`]: CaptureReader::next_batch
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Replaces the content of `events` by the next few thousand events of the
    /// capture. Returns false, and no events, at its end.
    pub fn next_batch(&mut self, events: &mut Vec<Event>) -> Result<bool, CaptureError> {
        events.clear();
        while events.is_empty() {
            if self.status != Status::Reading {
                return Ok(false);
            }
            if self.decoder.left() == 0 {
                self.next_chunk()?;
            } else {
                self.decode(events);
            }
        }
        Ok(true)
    }

    /// Hands every remaining event to `each`, and returns how it ended.
    pub fn for_each(&mut self, mut each: impl FnMut(Event)) -> Result<&Status, CaptureError> {
        let mut events = Vec::new();
        while self.next_batch(&mut events)? {
            events.drain(..).for_each(&mut each);
        }
        Ok(&self.status)
    }

    fn header(&mut self) -> Result<(), CaptureError> {
        let mut fixed = [0; HEADER_LEN];
        let length = self.fill(&mut fixed)?;
        let magic = length.min(MAGIC.len());
        if fixed[..magic] != MAGIC[..magic] {
            return Err(CaptureError::NotACapture {
                name: self.name.clone(),
            });
        }
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| fixed[at + i]));
        let version = word(8);
        // The version decides what stands behind it, checksum included.
        if length >= 12 && version != 0 && version != FORMAT_VERSION {
            return Err(CaptureError::OtherVersion {
                name: self.name.clone(),
                version,
            });
        }
        if length == 0 {
            self.status = Status::Truncated("it is empty".to_owned());
            return Ok(());
        }
        if length < HEADER_LEN {
            self.status = Status::Truncated("it ends within its header".to_owned());
            return Ok(());
        }
        let meta_len = word(12) as usize;
        if crc32fast::hash(&fixed[..20]) != word(20) || version == 0 || meta_len > META_MAX {
            self.status = Status::Damaged("its header is damaged".to_owned());
            return Ok(());
        }
        if self.content(meta_len)? < meta_len {
            self.status = Status::Truncated("it ends within its header".to_owned());
            return Ok(());
        }
        if crc32fast::hash(&self.content) != word(16) {
            self.status = Status::Damaged("its header is damaged".to_owned());
            return Ok(());
        }
        match serde_json::from_slice(&self.content) {
            Ok(meta) => self.meta = meta,
            Err(error) => {
                self.status = Status::Damaged(format!("its metadata cannot be read: {error}"));
            }
        }
        Ok(())
    }

    /// Reads the next chunk into the decoder, or settles the status.
    fn next_chunk(&mut self) -> Result<(), CaptureError> {
        let start = self.offset;
        let mut bytes = [0; CHUNK_HEADER_LEN];
        let length = self.fill(&mut bytes)?;
        if length < CHUNK_HEADER_LEN {
            self.truncated(start, length == 0);
            return Ok(());
        }
        let Some(header) = ChunkHeader::from_bytes(&bytes) else {
            self.damaged(start, "its checksum is wrong");
            return Ok(());
        };
        let end = header.kind == END_KIND;
        let (raw_len, content_len) = (header.raw_len as usize, header.content_len as usize);
        let plausible = if end {
            content_len == END_LEN
        } else {
            header.kind == CHUNK_KIND
                && raw_len <= CHUNK_MAX
                && content_len <= raw_len + DIRECTORY_MAX
        };
        if !plausible {
            self.damaged(start, "its header makes no sense");
            return Ok(());
        }
        if self.content(content_len)? < content_len {
            self.truncated(start, false);
            return Ok(());
        }
        if crc32fast::hash(&self.content) != header.content_crc {
            self.damaged(start, "its checksum is wrong");
            return Ok(());
        }
        if end {
            return self.end(start);
        }
        self.chunks += 1;
        self.chunk = start;
        if let Err(what) = self.unpack(&header) {
            self.damaged(start, what.0);
        }
        Ok(())
    }

    /// Brings the chunk's columns into the decoder.
    fn unpack(&mut self, header: &ChunkHeader) -> Result<(), Malformed> {
        const LENGTHS: Malformed = Malformed("its lengths contradict each other");
        let mut content = self.content.as_slice();
        let mut raw = [0; Column::COUNT];
        let mut stored = [0; Column::COUNT];
        for (raw, stored) in raw.iter_mut().zip(&mut stored) {
            // Neither is larger than a chunk, so the sums below cannot overflow.
            for length in [raw, stored] {
                *length = usize::try_from(take_varint(&mut content)?)
                    .ok()
                    .filter(|length| *length <= CHUNK_MAX)
                    .ok_or(LENGTHS)?;
            }
        }
        if raw.iter().sum::<usize>() != header.raw_len as usize
            || stored.iter().sum::<usize>() != content.len()
            || raw[Column::Tags as usize] != header.events as usize
            || header.events == 0
        {
            return Err(LENGTHS);
        }
        let mut room = self.decoder.start(&raw);
        for (raw, stored) in raw.into_iter().zip(stored) {
            let (from, rest) = content.split_at_checked(stored).ok_or(LENGTHS)?;
            let (into, room_left) = room.split_at_mut_checked(raw).ok_or(LENGTHS)?;
            if raw == stored {
                into.copy_from_slice(from);
            } else {
                let written = self
                    .decompressor
                    .decompress_to_buffer(from, into)
                    .map_err(|_| Malformed("a column cannot be decompressed"))?;
                if written != raw {
                    return Err(LENGTHS);
                }
            }
            content = rest;
            room = room_left;
        }
        Ok(())
    }

    fn decode(&mut self, events: &mut Vec<Event>) {
        for _ in 0..BATCH_EVENTS.min(self.decoder.left()) {
            match self.decoder.next() {
                Ok(event) => events.push(event),
                Err(what) => {
                    self.events += events.len() as u64;
                    self.damaged(self.chunk, what.0);
                    return;
                }
            }
        }
        self.events += events.len() as u64;
        if self.decoder.left() == 0 && !self.decoder.exhausted() {
            self.damaged(self.chunk, "it holds more than its events");
        }
    }

    fn end(&mut self, start: u64) -> Result<(), CaptureError> {
        let mut totals = [0; END_LEN];
        totals.copy_from_slice(&self.content);
        let mut expected = [0; END_LEN];
        expected[..8].copy_from_slice(&self.events.to_le_bytes());
        expected[8..].copy_from_slice(&self.chunks.to_le_bytes());
        let mut beyond = [0; 1];
        if totals != expected {
            self.damaged(start, "the end marker counts other events");
        } else if self.fill(&mut beyond)? != 0 {
            self.damaged(start, "bytes follow the end marker");
        } else {
            self.status = Status::Complete;
        }
        Ok(())
    }

    fn truncated(&mut self, offset: u64, between: bool) {
        let Self { events, .. } = self;
        self.status = Status::Truncated(if between {
            format!("it ends at byte {offset} without an end marker, after {events} events")
        } else {
            format!("it ends within the chunk at byte {offset}, after {events} whole events")
        });
    }

    fn damaged(&mut self, offset: u64, what: &str) {
        let Self { events, .. } = self;
        self.status = Status::Damaged(format!(
            "the chunk at byte {offset} is damaged ({what}); {events} events before it were read"
        ));
    }

    /// Reads the next `length` bytes into `self.content`; returns how many
    /// there were.
    fn content(&mut self, length: usize) -> Result<usize, CaptureError> {
        let mut content = std::mem::take(&mut self.content);
        content.clear();
        content.resize(length, 0);
        let filled = self.fill(&mut content);
        self.content = content;
        filled
    }

    /// Reads until `buffer` is full or the input ends; returns how much it got.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, CaptureError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(CaptureError::Read {
                        name: self.name.clone(),
                        source,
                    });
                }
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }
}
