//! Header blocks (RFC 7541): the bytes of a block come in, the fields that are
//! reported go out, one by one.
//!
//! The header table may have grown before it was seen, or by bytes that were not
//! captured. That does no harm to what was seen: an index counts from the entry
//! that was added last, and only the oldest are ever evicted, so the n-th newest
//! entry that was seen is the n-th newest of the encoder, whatever came before.
//! An index beyond those is unknown, and so is the field it stands for. For the
//! same reason the size of the table need not be followed exactly: keeping an
//! entry longer than the encoder does no harm, as it will not refer to it. Where
//! the table's size is changed, a block says so itself (4.2), so the settings of
//! the connection need not be read.
//!
//! The values of fields that are not reported are never kept, nor decoded.

use std::collections::VecDeque;

use httlib_huffman::DecoderSpeed;

use super::TABLE_MAX;
use super::head::{Field, Name};

/// What an entry counts at least (RFC 7541, 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Entries of the static table (RFC 7541, appendix A).
const STATIC_LEN: u32 = 61;

/// The longest name that is told apart: `content-type`. The Huffman code makes
/// none of them longer.
const NAME_MAX: usize = 12;

/// The block cannot be decoded any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A field is not whole.
    Cut,
    /// It is no header block.
    Broken,
}

/// One direction's header table, as far as it was seen.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Field>,
    /// Of the entries, as [`TABLE_MAX`] counts.
    size: usize,
    limit: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Table {
            entries: VecDeque::new(),
            size: 0,
            limit: TABLE_MAX,
        }
    }

    /// Entries may have been added out of sight: no index is known any more.
    pub(super) fn forget(&mut self) {
        self.entries = VecDeque::new();
        self.size = 0;
    }

    /// Decodes a block and hands on its fields.
    ///
    /// # Errors
    /// The block goes on beyond `block`, or is none. Entries that its rest would
    /// have added are missing then; see [`Table::forget`].
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&Field),
    ) -> Result<(), Stop> {
        let mut rest = block;
        while let Some(&first) = rest.first() {
            match first {
                0x80.. => field(&self.field(integer(&mut rest, 7)?)?),
                0x40..0x80 => {
                    let added = self.literal(&mut rest, 6)?;
                    field(&added);
                    self.add(added);
                }
                0x20..0x40 => {
                    let limit = integer(&mut rest, 5)?;
                    self.limit = usize::try_from(limit).map_or(TABLE_MAX, |n| n.min(TABLE_MAX));
                    self.evict();
                }
                0..0x20 => field(&self.literal(&mut rest, 4)?),
            }
        }
        Ok(())
    }

    fn field(&self, index: u32) -> Result<Field, Stop> {
        match index.checked_sub(STATIC_LEN + 1) {
            None => static_field(index).ok_or(Stop::Broken),
            Some(at) => {
                let entry = usize::try_from(at).ok().and_then(|at| self.entries.get(at));
                Ok(entry.cloned().unwrap_or(Field::Unknown))
            }
        }
    }

    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Result<Field, Stop> {
        let name = match integer(rest, prefix)? {
            0 => string(rest)?.name(),
            index => self.field(index)?.name(),
        };
        let value = string(rest)?;
        Ok(match name {
            Name::Unknown => Field::Unknown,
            Name::Other => Field::Other,
            Name::Pseudo => Field::Pseudo,
            Name::Method
            | Name::Path
            | Name::Status
            | Name::ContentType
            | Name::GrpcStatus
            | Name::Expect => Field::read(name, value.decode().as_deref()),
        })
    }

    fn add(&mut self, field: Field) {
        self.size += ENTRY_OVERHEAD + field.kept_len();
        self.entries.push_front(field);
        self.evict();
    }

    /// Drops the oldest entries that are too many.
    fn evict(&mut self) {
        while self.size > self.limit
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= ENTRY_OVERHEAD + oldest.kept_len();
        }
    }
}

/// Takes an integer off `rest`, which opens with a byte that holds its first
/// `prefix` bits (RFC 7541, 5.1).
fn integer(rest: &mut &[u8], prefix: u32) -> Result<u32, Stop> {
    let (&first, mut bytes) = rest.split_first().ok_or(Stop::Cut)?;
    let mask = (1_u32 << prefix) - 1;
    let mut value = u32::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, more) = bytes.split_first().ok_or(Stop::Cut)?;
            bytes = more;
            // Four bytes give up to 2^28, more than any length or index here.
            if shift > 21 {
                return Err(Stop::Broken);
            }
            value += u32::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = bytes;
    Ok(value)
}

/// A string as it stands in a block.
#[derive(Clone, Copy, Debug)]
struct Encoded<'a> {
    bytes: &'a [u8],
    huffman: bool,
}

/// Takes a string off `rest` (RFC 7541, 5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Result<Encoded<'a>, Stop> {
    let huffman = rest.first().ok_or(Stop::Cut)? & 0x80 != 0;
    let len = integer(rest, 7)?;
    if len as usize > super::BLOCK_MAX {
        return Err(Stop::Broken);
    }
    let (bytes, after) = rest.split_at_checked(len as usize).ok_or(Stop::Cut)?;
    *rest = after;
    Ok(Encoded { bytes, huffman })
}

impl Encoded<'_> {
    /// `None` if it is not valid.
    fn decode(self) -> Option<Vec<u8>> {
        if !self.huffman {
            return Some(self.bytes.to_vec());
        }
        let mut decoded = Vec::with_capacity(self.bytes.len() * 2);
        httlib_huffman::decode(self.bytes, &mut decoded, DecoderSpeed::FourBits).ok()?;
        Some(decoded)
    }

    fn name(self) -> Name {
        if self.bytes.len() > NAME_MAX {
            return Name::Other;
        }
        self.decode().map_or(Name::Unknown, |name| Name::of(&name))
    }
}

/// The reported fields of the static table (RFC 7541, appendix A).
fn static_field(index: u32) -> Option<Field> {
    Some(match index {
        1 | 6 | 7 => Field::Pseudo,
        2 => Field::Method(Some("GET".into())),
        3 => Field::Method(Some("POST".into())),
        4 => Field::Path(Some("/".into())),
        5 => Field::Path(Some("/index.html".into())),
        8 => Field::Status(Some(200)),
        9 => Field::Status(Some(204)),
        10 => Field::Status(Some(206)),
        11 => Field::Status(Some(304)),
        12 => Field::Status(Some(400)),
        13 => Field::Status(Some(404)),
        14 => Field::Status(Some(500)),
        31 => Field::ContentType(Some(false)),
        35 => Field::Expect(false),
        15..=STATIC_LEN => Field::Other,
        _ => return None,
    })
}
