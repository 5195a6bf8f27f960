//! The columns of a chunk: values in, bytes out, and back.
//!
//! A chunk keeps values of one meaning together, because like values compress
//! well beside each other. This file knows bytes and variable-length integers;
//! what is written where is [`codec`](super::codec)'s business.

use std::fmt;

/// One column of a chunk. The discriminant is its place in the chunk.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// One byte per event: its kind and two flags.
    Tags = 0,
    /// Thread indices, where the thread changes.
    Threads = 1,
    /// The low eight bits of each time difference. They are noise; apart from
    /// the rest they are stored as they are and cost nothing to decode.
    TimeLow = 2,
    /// Each time difference without its low eight bits.
    TimeHigh = 3,
    /// Requested sizes.
    Sizes = 4,
    /// How to find a block's address among the thread's recent ones.
    Blocks = 5,
    /// The addresses that could not be found so.
    Addresses = 6,
    /// Every other number.
    Facts = 7,
    /// Payloads, socket addresses, text.
    Bytes = 8,
}

impl Column {
    /// Number of columns in a chunk.
    pub(super) const COUNT: usize = 9;
}

/// What is wrong with a chunk whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Maps small magnitudes of either sign to small numbers.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends `value` in groups of seven bits, lowest first, the top bit of each
/// byte saying that more follow.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes a [`put_varint`] number off the front of `bytes`.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte has room for the 64th bit alone.
        if index == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *bytes = bytes.get(index + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(Malformed("a number is cut short or too large"))
}

/// Columns being written.
#[derive(Debug, Default)]
pub(super) struct ColumnsOut {
    columns: [Vec<u8>; Column::COUNT],
}

impl ColumnsOut {
    /// Empties every column and keeps its memory.
    pub(super) fn clear(&mut self) {
        for column in &mut self.columns {
            column.clear();
        }
    }

    /// Bytes in all columns.
    pub(super) fn len(&self) -> usize {
        self.columns.iter().map(Vec::len).sum()
    }

    /// The columns in the order of their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.columns.iter().map(Vec::as_slice)
    }

    pub(super) fn byte(&mut self, column: Column, value: u8) {
        self.columns[column as usize].push(value);
    }

    pub(super) fn number(&mut self, column: Column, value: u64) {
        put_varint(&mut self.columns[column as usize], value);
    }

    pub(super) fn bytes(&mut self, column: Column, bytes: &[u8]) {
        self.columns[column as usize].extend_from_slice(bytes);
    }
}

/// Columns being read: one buffer, and a position in each column.
#[derive(Debug, Default)]
pub(super) struct ColumnsIn {
    raw: Vec<u8>,
    position: [usize; Column::COUNT],
    end: [usize; Column::COUNT],
}

impl ColumnsIn {
    /// Starts over with columns of `lengths` bytes; returns the room for them,
    /// to be filled one behind the other.
    pub(super) fn start(&mut self, lengths: &[usize; Column::COUNT]) -> &mut [u8] {
        let mut end = 0;
        for (index, length) in lengths.iter().enumerate() {
            self.position[index] = end;
            end += length;
            self.end[index] = end;
        }
        self.raw.clear();
        self.raw.resize(end, 0);
        &mut self.raw
    }

    /// Bytes of a column that were not read yet.
    pub(super) fn left(&self, column: Column) -> usize {
        self.end[column as usize] - self.position[column as usize]
    }

    /// Whether every column was read to its end.
    pub(super) fn exhausted(&self) -> bool {
        self.position == self.end
    }

    pub(super) fn byte(&mut self, column: Column) -> Result<u8, Malformed> {
        let position = self.position[column as usize];
        if position == self.end[column as usize] {
            return Err(Malformed("a column ends too early"));
        }
        self.position[column as usize] = position + 1;
        Ok(self.raw[position])
    }

    pub(super) fn number(&mut self, column: Column) -> Result<u64, Malformed> {
        let start = self.position[column as usize];
        let end = self.end[column as usize];
        // Most numbers take one byte.
        if let Some(&byte) = self.raw[start..end].first()
            && byte < 0x80
        {
            self.position[column as usize] = start + 1;
            return Ok(u64::from(byte));
        }
        let mut rest = &self.raw[start..end];
        let value = take_varint(&mut rest)?;
        self.position[column as usize] = end - rest.len();
        Ok(value)
    }

    pub(super) fn bytes(&mut self, column: Column, length: u64) -> Result<&[u8], Malformed> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.left(column))
            .ok_or(Malformed("a column ends too early"))?;
        let start = self.position[column as usize];
        self.position[column as usize] = start + length;
        Ok(&self.raw[start..start + length])
    }
}
