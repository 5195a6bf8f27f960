//! The table in which HotSpot says how large its own structures are.
//!
//! In: memory, and where the library's variables are. Out: a structure's size.
//! The table's form is `VMTypeEntry` of src/hotspot/share/runtime/vmStructs.hpp,
//! whose own offsets the library publishes too.

use std::collections::HashMap;

use crate::probe::runtime::memory::Memory;

/// Entries looked at; JDK 17 has 741.
const ENTRIES_MAX: u64 = 8192;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of an entry: six words, in every version.
const ENTRY_BYTES_MAX: u64 = 256;
/// No structure that is asked for is as large, bytes.
const SIZE_MAX: u64 = 1 << 16;

const TABLE: &str = "gHotSpotVMTypes";
const STRIDE: &str = "gHotSpotVMTypeEntryArrayStride";
const TYPE_NAME: &str = "gHotSpotVMTypeEntryTypeNameOffset";
const SIZE: &str = "gHotSpotVMTypeEntrySizeOffset";

/// The variables that tell where the table is, and what an entry looks like.
pub const VARIABLES: [&str; 4] = [TABLE, STRIDE, TYPE_NAME, SIZE];

/// Bytes of the structure with this name; `None` if the table does not tell, or
/// tells what cannot be.
pub fn size(memory: &impl Memory, variables: &HashMap<String, u64>, of: &str) -> Option<u32> {
    let value = |name: &str| memory.u64(*variables.get(name)?);
    let (table, stride) = (value(TABLE)?, value(STRIDE)?);
    if table == 0 || stride == 0 || stride > ENTRY_BYTES_MAX {
        return None;
    }
    let (type_name, size) = (value(TYPE_NAME)?, value(SIZE)?);
    if type_name.max(size).saturating_add(8) > stride {
        return None;
    }
    for index in 0..ENTRIES_MAX {
        let entry = table.checked_add(index * stride)?;
        let name_at = memory.u64(entry.checked_add(type_name)?)?;
        // The last entry names nothing.
        if name_at == 0 {
            return None;
        }
        if memory.text(name_at, NAME_BYTES_MAX)? == of {
            let size = memory.u64(entry.checked_add(size)?)?;
            return (1..SIZE_MAX).contains(&size).then_some(size as u32);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::runtime::memory::tests::Pieces;

    const AT: u64 = 0x7000_0000;
    const ENTRIES: u64 = AT + 0x1000;
    const NAMES: u64 = AT + 0x10_0000;

    /// A library's table of these types and sizes.
    fn library(types: &[(&str, u64)]) -> (Pieces, HashMap<String, u64>) {
        let mut memory = Pieces::default();
        let mut table = Vec::new();
        for (index, (name, size)) in types.iter().enumerate() {
            let at = NAMES + index as u64 * 4096;
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(NAME_BYTES_MAX, 0);
            memory.put(at, &bytes);
            for word in [at, 0, *size] {
                table.extend(word.to_ne_bytes());
            }
        }
        table.extend([0; 24]);
        memory.put(ENTRIES, &table);
        let mut variables = HashMap::new();
        for (index, (name, value)) in VARIABLES.iter().zip([ENTRIES, 24, 0, 16]).enumerate() {
            let at = AT + index as u64 * 8;
            memory.put(at, &u64::to_ne_bytes(value));
            variables.insert((*name).to_owned(), at);
        }
        (memory, variables)
    }

    #[test]
    fn the_size_of_a_type_that_is_named() {
        let (memory, variables) =
            library(&[("Klass", 200), ("JavaThread", 1472), ("Big", 1 << 40)]);
        assert_eq!(size(&memory, &variables, "JavaThread"), Some(1472));
        assert_eq!(size(&memory, &variables, "Big"), None);
        assert_eq!(size(&memory, &variables, "Thread"), None);
        assert_eq!(size(&memory, &HashMap::new(), "JavaThread"), None);
    }

    proptest! {
        #[test]
        fn any_table_is_survived(
            words in proptest::collection::vec(
                prop_oneof![Just(ENTRIES), 0..300_u64, any::<u64>()], 4..60,
            ),
        ) {
            let (_, variables) = library(&[]);
            let mut memory = Pieces::default();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            memory.put(AT, &bytes[..32]);
            memory.put(ENTRIES, &bytes[32..]);
            prop_assert_eq!(size(&memory, &variables, "JavaThread"), None);
        }
    }
}
