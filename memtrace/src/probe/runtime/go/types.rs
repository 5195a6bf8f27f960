//! The names of a Go program's types.
//!
//! Addresses of type descriptors come in, names go out, read from the program's
//! file. Layouts are those of internal/abi/type.go (`type Type`, `type Name`),
//! the same from 1.18 to 1.27. Nothing in them is believed.

use super::binary::Binary;

/// Longest name that is kept, bytes: names of generated types may be longer.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of a descriptor's common part.
const DESCRIPTOR_BYTES: usize = 48;
/// `Type.TFlag` and `Type.Str`.
const FLAGS_AT: usize = 20;
const NAME_AT: usize = 40;
/// `TFlagExtraStar`: the name is that of a pointer to the type.
const EXTRA_STAR: u8 = 2;

/// Reads names of types.
#[derive(Debug)]
pub struct TypeNames {
    binary: Binary,
    /// Where the types begin in the process: names are told from there.
    types: u64,
    /// How far the file was moved when it was loaded.
    moved: u64,
}

impl TypeNames {
    pub(super) fn new(binary: Binary, types: u64, moved: u64) -> TypeNames {
        TypeNames {
            binary,
            types,
            moved,
        }
    }

    /// The name of the type that is described at this address of the process;
    /// `None` if there is no such description.
    pub fn name(&self, address: u64) -> Option<String> {
        let at = address.wrapping_sub(self.moved);
        let descriptor = self.binary.data(at, DESCRIPTOR_BYTES)?;
        let flags = *descriptor.get(FLAGS_AT)?;
        let offset = i32::from_le_bytes(*descriptor.get(NAME_AT..)?.first_chunk()?);
        let name = self
            .types
            .wrapping_sub(self.moved)
            .checked_add_signed(i64::from(offset))?;
        // A byte of flags, at most three bytes of length, the name.
        let bytes = self.binary.data(name, 4 + NAME_BYTES_MAX)?;
        decode(&bytes, flags & EXTRA_STAR != 0)
    }
}

/// The name that these bytes tell.
fn decode(bytes: &[u8], extra_star: bool) -> Option<String> {
    let mut rest = bytes.get(1..)?;
    let mut len = 0_usize;
    for shift in [0, 7, 14] {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let cut = len > NAME_BYTES_MAX;
    let name = rest.get(..len.min(NAME_BYTES_MAX))?;
    // A cut may go through a character.
    let name = String::from_utf8_lossy(name);
    let name = if extra_star {
        name.strip_prefix('*')?
    } else {
        &name
    };
    let printable = !name.is_empty() && !name.chars().any(char::is_control);
    printable.then(|| format!("{name}{}", if cut { "…" } else { "" }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_told_with_their_length() {
        assert_eq!(decode(b"\0\x03int!!", false).as_deref(), Some("int"));
        assert_eq!(
            decode(b"\x01\x0d*http.Request", true).as_deref(),
            Some("http.Request")
        );
        let long = [&[0, 0xac, 0x02][..], &[b'x'; 400]].concat();
        assert_eq!(
            decode(&long, false).map(|name| name.chars().count()),
            Some(NAME_BYTES_MAX + 1)
        );
        assert_eq!(decode(b"\0\x00", false), None);
        assert_eq!(decode(b"\0\x05int", false), None);
        assert_eq!(decode(b"\0\x03int", true), None);
        assert_eq!(decode(b"", false), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), star: bool) {
            if let Some(name) = decode(&bytes, star) {
                prop_assert!(!name.is_empty());
                prop_assert!(name.chars().count() <= NAME_BYTES_MAX + 1);
            }
        }
    }
}
