//! The blocks that are live, by process and address: bounded.
//!
//! In: blocks as they come and go. Out: the size and credit of a block that
//! goes. A process's table goes with the process.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use crate::attribute::{Credit, Reason};
use crate::id::WorkId;

/// Live blocks held over all processes; one more is counted as lost.
///
/// A hash table entry takes 24 bytes and one control byte; tables are at most
/// 7/8 full and double when they grow, so 900,000 blocks fit in 2^20 entries:
/// 25 MiB.
pub const LIVE_BLOCKS_MAX: usize = 900_000;

/// Displaced blocks remembered for the reallocation that explains them.
const DISPLACED_MAX: usize = 1024;

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Requested bytes.
    pub size: u64,
    /// To whom it is credited.
    pub credit: Credit,
}

/// A block's credit in four bytes: two tag bits and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedCredit(u32);

const TAG_REASON: u32 = 1;
const TAG_WORK: u32 = 2;
const NUMBER_BITS: u32 = 30;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;

/// The largest number by which a block remembers its stretch of work.
pub const WORK_NUMBER_MAX: u32 = NUMBER_MASK;

impl PackedCredit {
    fn pack(credit: Credit) -> Self {
        // Numbers wrap after 2^30 stretches of work: by then the
        // earlier bearer of a number has long been settled.
        let (tag, number) = match credit {
            Credit::Reason(reason) => (TAG_REASON, reason.index() as u32),
            Credit::Work(WorkId(number)) => (TAG_WORK, number),
        };
        PackedCredit(tag << NUMBER_BITS | number & NUMBER_MASK)
    }

    fn unpack(self) -> Credit {
        let number = self.0 & NUMBER_MASK;
        match self.0 >> NUMBER_BITS {
            TAG_WORK => Credit::Work(WorkId(number)),
            _ => {
                let reason = Reason::ALL.get(number as usize).copied();
                Credit::Reason(reason.unwrap_or(Reason::BetweenRequests))
            }
        }
    }
}

/// Size and credit in twelve bytes and alignment four: sizes up to 2^64.
#[derive(Clone, Copy, Debug)]
struct PackedBlock {
    size_low: u32,
    size_high: u32,
    credit: PackedCredit,
}

impl PackedBlock {
    fn pack(block: Block) -> Self {
        PackedBlock {
            size_low: block.size as u32,
            size_high: (block.size >> 32) as u32,
            credit: PackedCredit::pack(block.credit),
        }
    }

    fn unpack(self) -> Block {
        Block {
            size: u64::from(self.size_high) << 32 | u64::from(self.size_low),
            credit: self.credit.unpack(),
        }
    }
}

/// What became of a block that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is held.
    New,
    /// It is held; its address was still taken by this block, whose release was
    /// not seen (or is part of a reallocation that has not returned).
    Displaced(Block),
    /// The table is full: its release will not be recognised.
    Full,
}

/// The live blocks of one process.
#[derive(Debug, Default)]
pub struct ProcessBlocks {
    blocks: HashMap<u64, PackedBlock, AddressHash>,
    displaced: VecDeque<Displaced>,
}

#[derive(Debug)]
struct Displaced {
    addr: u64,
    at_ns: u64,
    block: Block,
}

impl ProcessBlocks {
    /// Number of live blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Puts a block in; `room` is false when the limit over all processes is
    /// reached.
    pub fn insert(&mut self, addr: u64, block: Block, ts_ns: u64, room: bool) -> Inserted {
        match self.blocks.entry(addr) {
            Entry::Occupied(mut entry) => {
                let old = entry.insert(PackedBlock::pack(block)).unpack();
                if self.displaced.len() == DISPLACED_MAX {
                    self.displaced.pop_front();
                }
                self.displaced.push_back(Displaced {
                    addr,
                    at_ns: ts_ns,
                    block: old,
                });
                Inserted::Displaced(old)
            }
            Entry::Vacant(entry) => {
                if !room {
                    return Inserted::Full;
                }
                entry.insert(PackedBlock::pack(block));
                Inserted::New
            }
        }
    }

    /// Takes a block out.
    pub fn remove(&mut self, addr: u64) -> Option<Block> {
        self.blocks.remove(&addr).map(PackedBlock::unpack)
    }

    /// The block at an address.
    pub fn get(&self, addr: u64) -> Option<Block> {
        self.blocks.get(&addr).map(|block| block.unpack())
    }

    /// Credits the block at an address to someone else.
    pub fn set_credit(&mut self, addr: u64, credit: Credit) {
        if let Some(block) = self.blocks.get_mut(&addr) {
            block.credit = PackedCredit::pack(credit);
        }
    }

    /// The block that another one displaced at this address since `since_ns`:
    /// the one that a reallocation running since then had given up.
    pub fn take_displaced(&mut self, addr: u64, since_ns: u64) -> Option<Block> {
        let at = self
            .displaced
            .iter()
            .rposition(|displaced| displaced.addr == addr && displaced.at_ns >= since_ns)?;
        self.displaced.remove(at).map(|displaced| displaced.block)
    }

    /// Forgets every block, handing each out (in no particular order).
    pub fn drain(&mut self) -> impl Iterator<Item = Block> {
        self.displaced.clear();
        self.blocks.drain().map(|(_, block)| block.unpack())
    }
}

/// Hashes an address. Blocks are 16 bytes apart at least, so the low bits say
/// nothing; a multiplication by an odd constant spreads the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressHash;

/// State of [`AddressHash`].
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressHasher(u64);

impl std::hash::BuildHasher for AddressHash {
    type Hasher = AddressHasher;

    fn build_hasher(&self) -> AddressHasher {
        AddressHasher(0)
    }
}

impl std::hash::Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // 2^64 divided by the golden ratio, made odd (Knuth, TAOCP 6.4).
        let mixed = (self.0 ^ value >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: u64) -> Block {
        Block {
            size,
            credit: Credit::Work(WorkId(7)),
        }
    }

    #[test]
    fn a_block_comes_back_as_it_was_put_in() {
        let mut blocks = ProcessBlocks::default();
        for credit in [
            Credit::Reason(Reason::ConnectionClosed),
            Credit::Work(WorkId(99)),
        ] {
            let block = Block {
                size: u64::MAX - 3,
                credit,
            };
            assert_eq!(blocks.insert(0x5000, block, 1, true), Inserted::New);
            assert_eq!(blocks.remove(0x5000), Some(block));
            assert_eq!(blocks.remove(0x5000), None);
        }
    }

    #[test]
    fn a_reallocation_finds_what_another_thread_displaced_while_it_ran() {
        let mut blocks = ProcessBlocks::default();
        blocks.insert(0x5000, block(1), 10, true);
        assert_eq!(
            blocks.insert(0x5000, block(2), 20, true),
            Inserted::Displaced(block(1))
        );
        assert_eq!(blocks.take_displaced(0x5000, 21), None);
        assert_eq!(blocks.take_displaced(0x5000, 15), Some(block(1)));
        assert_eq!(blocks.take_displaced(0x5000, 15), None);
        assert_eq!(blocks.remove(0x5000), Some(block(2)));
    }

    #[test]
    fn a_full_table_takes_nothing_new_but_still_replaces() {
        let mut blocks = ProcessBlocks::default();
        blocks.insert(0x5000, block(1), 10, true);
        assert_eq!(blocks.insert(0x6000, block(2), 11, false), Inserted::Full);
        assert_eq!(
            blocks.insert(0x5000, block(3), 12, false),
            Inserted::Displaced(block(1))
        );
        assert_eq!(blocks.len(), 1);
    }

    #[test]
    fn an_entry_has_the_size_that_the_limit_was_computed_with() {
        assert_eq!(size_of::<(u64, PackedBlock)>(), 24);
    }
}
