//! Tables of an ELF file, read in pieces.
//!
//! A range of a file comes in; single entries and names go out, for a caller that
//! walks from front to back. Memory use does not depend on what the file claims.
//! What an entry means is not known here.

use std::ffi::CStr;
use std::io::{self, Read, Seek, SeekFrom};

use super::FILE_BYTES_MAX;

/// Longest symbol name that is looked at, bytes; none of ours comes near.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes read of a table at once.
const WINDOW_BYTES: usize = 96 << 10;
/// Bytes of one symbol table entry, and of one relocation with addend.
pub const ENTRY_BYTES: usize = 24;

/// A range of the file.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Its first byte.
    pub offset: u64,
    /// Its length, bytes.
    pub len: u64,
}

/// A table read in pieces, from front to back.
pub struct Window {
    span: Span,
    /// Offset of `bytes` within the span.
    base: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The table in this range of a file.
    pub fn new(span: Span) -> Self {
        Window {
            span,
            base: 0,
            bytes: Vec::new(),
        }
    }

    /// Up to `len` bytes at `offset` of the table, fewer at its end.
    fn at<R: Read + Seek>(&mut self, reader: &mut R, offset: u64, len: usize) -> io::Result<&[u8]> {
        let len = (self.span.len.saturating_sub(offset)).min(len as u64) as usize;
        let have = offset
            .checked_sub(self.base)
            .is_some_and(|skip| skip + len as u64 <= self.bytes.len() as u64);
        if !have {
            let want = (self.span.len.saturating_sub(offset)).min(WINDOW_BYTES as u64);
            self.bytes.clear();
            self.base = offset;
            if let Some(start) = self.span.offset.checked_add(offset)
                && start <= FILE_BYTES_MAX
            {
                reader.seek(SeekFrom::Start(start))?;
                reader.take(want).read_to_end(&mut self.bytes)?;
            }
        }
        let skip = (offset - self.base) as usize;
        let end = (skip + len).min(self.bytes.len());
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }

    /// The entry with this index; `None` behind the end of the table or file.
    pub fn entry<R: Read + Seek>(
        &mut self,
        reader: &mut R,
        index: u64,
    ) -> io::Result<Option<[u8; ENTRY_BYTES]>> {
        let Some(offset) = index.checked_mul(ENTRY_BYTES as u64) else {
            return Ok(None);
        };
        Ok(self.at(reader, offset, ENTRY_BYTES)?.try_into().ok())
    }

    /// The name at this offset; `None` if it is empty, too long, or not text.
    pub fn name<R: Read + Seek>(
        &mut self,
        reader: &mut R,
        offset: u64,
    ) -> io::Result<Option<&str>> {
        Ok(name_at(self.at(reader, offset, NAME_BYTES_MAX)?))
    }
}

/// The text before the first NUL; `None` if there is no NUL or no text.
pub fn name_at(bytes: &[u8]) -> Option<&str> {
    let name = CStr::from_bytes_until_nul(bytes).ok()?;
    name.to_str().ok().filter(|name| !name.is_empty())
}

/// The 64-bit number at this byte of an entry, which must have that many.
pub fn u64_at(entry: &[u8; ENTRY_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&entry[at..at + 8]);
    u64::from_le_bytes(bytes)
}
