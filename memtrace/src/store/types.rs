//! The types of managed blocks: what was allocated of each.
//!
//! In: sizes with the address that identifies the type in its process, and names
//! as they become known. Out: sums by type, for endpoints. Types of the same name
//! in several processes are told apart here.

use std::collections::HashMap;

use super::Sum;
use crate::attribute::ProcessIndex;

/// Types told apart over all processes: about 100 bytes each. The largest
/// programs have some tens of thousands; what finds no room is one type, without
/// a name.
const TYPES_MAX: usize = 65_536;

/// Types told apart in one sum; what comes after them is one type, without a
/// name. An endpoint's 512 take 12 KiB.
const SUMMED_MAX: usize = 512;

/// A type, numbered in the order in which the trace met them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u32);

impl TypeId {
    /// Blocks whose type is not known.
    const UNKNOWN: TypeId = TypeId(0);
}

/// All types of a trace.
#[derive(Debug, Default)]
pub struct Types {
    ids: HashMap<(ProcessIndex, u64), TypeId>,
    names: HashMap<TypeId, String>,
}

impl Types {
    /// The type that is described at this address; 0: it is not known.
    pub(super) fn id(&mut self, process: ProcessIndex, address: u64) -> TypeId {
        if address == 0 {
            return TypeId::UNKNOWN;
        }
        let next = TypeId(self.ids.len() as u32 + 1);
        match self.ids.get(&(process, address)) {
            Some(known) => *known,
            None if self.ids.len() >= TYPES_MAX => TypeId::UNKNOWN,
            None => {
                self.ids.insert((process, address), next);
                next
            }
        }
    }

    /// A type's name is known.
    pub(super) fn name(&mut self, process: ProcessIndex, address: u64, name: String) {
        let id = self.id(process, address);
        if id != TypeId::UNKNOWN {
            self.names.insert(id, name);
        }
    }

    /// A type's name, if it is known.
    pub fn name_of(&self, id: TypeId) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }
}

/// What was allocated, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeSums {
    /// Sorted by type.
    sums: Vec<(TypeId, Sum)>,
}

impl TypeSums {
    /// Every type with what was allocated of it.
    pub fn iter(&self) -> impl Iterator<Item = (TypeId, Sum)> {
        self.sums.iter().copied()
    }

    /// Whether the type of any block is known.
    pub fn has_known(&self) -> bool {
        self.sums.iter().any(|(id, _)| *id != TypeId::UNKNOWN)
    }

    pub(super) fn add(&mut self, id: TypeId, sum: Sum) {
        let at = match self.sums.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => at,
            // The unknown one is the first, and always has room.
            Err(_) if id != TypeId::UNKNOWN && self.sums.len() >= SUMMED_MAX => {
                return self.add(TypeId::UNKNOWN, sum);
            }
            Err(at) => {
                self.sums.insert(at, (id, Sum::default()));
                at
            }
        };
        if let Some((_, known)) = self.sums.get_mut(at) {
            known.merge(sum);
        }
    }

    pub(super) fn merge(&mut self, other: &TypeSums) {
        for (id, sum) in other.iter() {
            self.add(id, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Sum = Sum { bytes: 8, count: 1 };

    #[test]
    fn types_are_told_apart_by_process_and_address() {
        let mut types = Types::default();
        let (one, two) = (ProcessIndex(0), ProcessIndex(1));
        let first = types.id(one, 64);
        assert_eq!(types.id(one, 64), first);
        assert_ne!(types.id(two, 64), first);
        assert_eq!(types.id(one, 0), TypeId::UNKNOWN);
        types.name(one, 64, "main.record".into());
        types.name(one, 0, "nothing".into());
        assert_eq!(types.name_of(first), Some("main.record"));
        assert_eq!(types.name_of(TypeId::UNKNOWN), None);
    }

    #[test]
    fn what_finds_no_room_is_summed_without_a_name() {
        let mut types = Types::default();
        let mut sums = TypeSums::default();
        for address in 1..=SUMMED_MAX as u64 + 10 {
            sums.add(types.id(ProcessIndex(0), address), ONE);
        }
        let mut twice = sums.clone();
        twice.merge(&sums);
        for (sums, times) in [(sums, 1), (twice, 2)] {
            assert_eq!(sums.sums.len(), SUMMED_MAX + 1);
            assert_eq!(
                sums.sums[0],
                (
                    TypeId::UNKNOWN,
                    Sum {
                        bytes: 80 * times,
                        count: 10 * times
                    }
                )
            );
            let all: u64 = sums.iter().map(|(_, sum)| sum.count).sum();
            assert_eq!(all, (SUMMED_MAX as u64 + 10) * times);
        }
    }
}
