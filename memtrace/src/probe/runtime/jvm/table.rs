//! The table in which HotSpot describes its own structures.
//!
//! In: memory, and where the library's variables are. Out: offsets of members,
//! and addresses of static ones, by the names of their types and their own. The
//! table's form is `VMStructEntry` of src/hotspot/share/runtime/vmStructs.hpp,
//! whose own offsets the library publishes too.

use std::collections::HashMap;

use super::JvmError;
use crate::probe::runtime::memory::Memory;

/// Entries looked at; JDK 17 has 788.
const ENTRIES_MAX: u64 = 8192;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of an entry: six words, in every version.
const ENTRY_BYTES_MAX: u64 = 256;
/// No structure that is read is as large, bytes.
const OFFSET_MAX: u64 = 1 << 20;

const TABLE: &str = "gHotSpotVMStructs";
const STRIDE: &str = "gHotSpotVMStructEntryArrayStride";
const TYPE_NAME: &str = "gHotSpotVMStructEntryTypeNameOffset";
const FIELD_NAME: &str = "gHotSpotVMStructEntryFieldNameOffset";
const IS_STATIC: &str = "gHotSpotVMStructEntryIsStaticOffset";
const OFFSET: &str = "gHotSpotVMStructEntryOffsetOffset";
const ADDRESS: &str = "gHotSpotVMStructEntryAddressOffset";

/// The variables that tell where the table is, and what an entry looks like.
pub const VARIABLES: [&str; 7] = [
    TABLE, STRIDE, TYPE_NAME, FIELD_NAME, IS_STATIC, OFFSET, ADDRESS,
];

/// The types of which anything is read.
const TYPES: [&str; 6] = [
    "ThreadsSMRSupport",
    "ThreadsList",
    "Thread",
    "JavaThread",
    "ThreadLocalAllocBuffer",
    "OSThread",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Bytes into its structure.
    Member(u64),
    /// Address in the process.
    Static(u64),
}

/// What the table says of the types that are read.
#[derive(Debug)]
pub struct Entries {
    places: HashMap<(&'static str, String), Place>,
}

impl Entries {
    /// Reads the table; `None` if it has not been filled in yet.
    ///
    /// # Errors
    /// There is none, or it is not what it should be.
    pub fn read(
        memory: &impl Memory,
        variables: &HashMap<String, u64>,
    ) -> Result<Option<Entries>, JvmError> {
        let value = |name: &str| -> Result<u64, JvmError> {
            let at = variables.get(name).ok_or(JvmError::NoTable)?;
            memory.u64(*at).ok_or(JvmError::NoTable)
        };
        let table = value(TABLE)?;
        let stride = value(STRIDE)?;
        if table == 0 || stride == 0 {
            return Ok(None);
        }
        let within = |name: &str| -> Result<u64, JvmError> {
            let offset = value(name)?;
            if offset.saturating_add(8) > stride {
                return Err(JvmError::NoTable);
            }
            Ok(offset)
        };
        if stride > ENTRY_BYTES_MAX {
            return Err(JvmError::NoTable);
        }
        let (type_name, field_name) = (within(TYPE_NAME)?, within(FIELD_NAME)?);
        let (is_static, offset, address) = (within(IS_STATIC)?, within(OFFSET)?, within(ADDRESS)?);
        let mut places = HashMap::new();
        for index in 0..ENTRIES_MAX {
            let entry = table
                .checked_add(index * stride)
                .filter(|entry| *entry < 1 << 63)
                .ok_or(JvmError::NoTable)?;
            let word = |at: u64| memory.u64(entry + at).ok_or(JvmError::NoTable);
            let name_at = word(type_name)?;
            // The last entry names nothing.
            if name_at == 0 {
                // Before it is relocated the table consists of zeros.
                return Ok((index != 0).then_some(Entries { places }));
            }
            let Some(name) = memory.text(name_at, NAME_BYTES_MAX) else {
                return Err(JvmError::NoTable);
            };
            let Some(known) = TYPES.iter().find(|known| **known == name) else {
                continue;
            };
            let Some(field) = memory.text(word(field_name)?, NAME_BYTES_MAX) else {
                return Err(JvmError::NoTable);
            };
            let place = if word(is_static)? as u32 == 0 {
                Place::Member(word(offset)?)
            } else {
                Place::Static(word(address)?)
            };
            places.insert((*known, field), place);
        }
        Err(JvmError::NoTable)
    }

    /// Bytes from a structure's beginning to a member.
    ///
    /// # Errors
    /// The table does not tell, or tells what cannot be.
    pub fn offset(&self, of: &'static str, member: &str) -> Result<u32, JvmError> {
        match self.places.get(&(of, member.to_owned())) {
            Some(Place::Member(offset)) if *offset < OFFSET_MAX => Ok(*offset as u32),
            Some(Place::Member(_) | Place::Static(_)) | None => {
                Err(JvmError::NoField(format!("{of}::{member}")))
            }
        }
    }

    /// The address of a static member.
    ///
    /// # Errors
    /// The table does not tell, or tells what cannot be.
    pub fn address(&self, of: &'static str, member: &str) -> Result<u64, JvmError> {
        match self.places.get(&(of, member.to_owned())) {
            Some(Place::Static(address)) if (1..1 << 63).contains(address) => Ok(*address),
            Some(Place::Member(_) | Place::Static(_)) | None => {
                Err(JvmError::NoField(format!("{of}::{member}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::runtime::memory::tests::Pieces;

    const AT: u64 = 0x7000_0000;

    /// A library's table with these entries: type, field, offset or address.
    fn library(entries: &[(&str, &str, Place)]) -> (Pieces, HashMap<String, u64>) {
        let mut memory = Pieces::default();
        let mut texts = AT + 0x10_0000;
        let mut text = |memory: &mut Pieces, text: &str| {
            let at = texts;
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(NAME_BYTES_MAX, 0);
            memory.put(at, &bytes);
            texts += 4096;
            at
        };
        let mut table = Vec::new();
        for (of, member, place) in entries {
            let (is_static, offset, address) = match place {
                Place::Member(offset) => (0, *offset, 0),
                Place::Static(address) => (1, 0, *address),
            };
            let names = [text(&mut memory, of), text(&mut memory, member), 0];
            for word in names.into_iter().chain([is_static, offset, address]) {
                table.extend(u64::to_ne_bytes(word));
            }
        }
        table.extend([0; 48]);
        memory.put(AT + 0x1000, &table);
        let values = [AT + 0x1000, 48, 0, 8, 24, 32, 40];
        let mut variables = HashMap::new();
        for (index, (name, value)) in VARIABLES.iter().zip(values).enumerate() {
            let at = AT + index as u64 * 8;
            memory.put(at, &value.to_ne_bytes());
            variables.insert((*name).to_owned(), at);
        }
        (memory, variables)
    }

    #[test]
    fn members_and_static_members() {
        let (memory, variables) = library(&[
            ("Thread", "_tlab", Place::Member(448)),
            ("Klass", "_name", Place::Member(16)),
            (
                "ThreadsSMRSupport",
                "_java_thread_list",
                Place::Static(0x7f00_1234),
            ),
            ("OSThread", "_thread_id", Place::Member(OFFSET_MAX)),
        ]);
        let entries = Entries::read(&memory, &variables)
            .expect("a table")
            .expect("filled in");
        assert_eq!(entries.offset("Thread", "_tlab").ok(), Some(448));
        let list = entries.address("ThreadsSMRSupport", "_java_thread_list");
        assert_eq!(list.ok(), Some(0x7f00_1234));
        for (of, member) in [
            ("Thread", "_allocated_bytes"),
            ("ThreadsSMRSupport", "_java_thread_list"),
            ("OSThread", "_thread_id"),
        ] {
            let error = entries.offset(of, member).expect_err("it does not tell");
            assert!(error.to_string().contains(member), "{error}");
        }
    }

    #[test]
    fn a_table_that_is_not_there_yet_and_one_that_never_is() {
        let (mut memory, variables) = library(&[("Thread", "_tlab", Place::Member(8))]);
        assert!(matches!(
            Entries::read(&memory, &HashMap::new()),
            Err(JvmError::NoTable)
        ));
        // Not relocated yet: the names' addresses are zero.
        memory.put(AT + 0x1000, &[0; 96]);
        assert!(matches!(Entries::read(&memory, &variables), Ok(None)));
        memory.put(AT, &[0; 8]);
        assert!(matches!(Entries::read(&memory, &variables), Ok(None)));
    }

    proptest! {
        #[test]
        fn any_table_is_survived(
            words in proptest::collection::vec(
                prop_oneof![Just(AT + 0x1000), 0..300_u64, any::<u64>()], 7..60,
            ),
        ) {
            let (_, variables) = library(&[]);
            let mut memory = Pieces::default();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            memory.put(AT, &bytes[..56]);
            memory.put(AT + 0x1000, &bytes[56..]);
            if let Ok(Some(entries)) = Entries::read(&memory, &variables) {
                prop_assert!(entries.offset("Thread", "_tlab").is_err());
            }
        }
    }
}
