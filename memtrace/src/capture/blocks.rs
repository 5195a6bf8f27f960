//! Guesses block addresses, so that most need not be written down.
//!
//! Programs free what they allocated last, and allocators hand out again what
//! was freed last in the same size class. So each thread keeps a short list of
//! blocks in use and one of freed blocks; an address on the list is written as
//! its place there, which is mostly the first. Both ends of a capture keep the
//! same lists, so a wrong guess costs bytes, never truth: a block that was
//! never seen before or that another thread frees is written in full.

use super::column::{unzigzag, zigzag};

/// Blocks a list holds before its older half is forgotten.
const LIST_MAX: usize = 128;

/// The recent blocks of one thread.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    live: List,
    freed: List,
    last: u64,
}

impl Blocks {
    /// Forgets every block and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.freed.clear();
        self.last = 0;
    }

    /// Notes that `addr` was handed out for `size` bytes. Returns how many
    /// blocks of its size class were freed after it was; `None` if it is not
    /// among the freed ones.
    pub(super) fn handed_out(&mut self, addr: u64, size: u64) -> Option<usize> {
        let class = size_class(size);
        let rank = self.freed.rank_of(addr, class);
        if let Some(rank) = rank {
            self.freed.take_rank(class, rank);
        }
        self.live.push(addr, class);
        rank
    }

    /// Undoes [`handed_out`](Blocks::handed_out): the address at `rank`.
    pub(super) fn handed_out_at(&mut self, rank: usize, size: u64) -> Option<u64> {
        let class = size_class(size);
        let addr = self.freed.take_rank(class, rank)?;
        self.live.push(addr, class);
        Some(addr)
    }

    /// Notes that `addr` was taken back. Returns how many blocks were handed
    /// out after it and are still in use; `None` if it is not on the list.
    pub(super) fn taken_back(&mut self, addr: u64) -> Option<usize> {
        let depth = self.live.depth_of(addr)?;
        self.taken_back_at(depth);
        Some(depth)
    }

    /// Undoes [`taken_back`](Blocks::taken_back): the address at `depth`.
    pub(super) fn taken_back_at(&mut self, depth: usize) -> Option<u64> {
        let (addr, class) = self.live.take(depth)?;
        self.freed.push(addr, class);
        Some(addr)
    }

    /// Notes that the block just taken back stays where it is, resized.
    pub(super) fn kept(&mut self, addr: u64, size: u64) {
        if self.freed.depth_of(addr) == Some(0) {
            self.freed.take(0);
        }
        self.live.push(addr, size_class(size));
    }

    /// An address in full, as a number that is small if `addr` is near the
    /// previous such address and a multiple of 16 bytes away.
    pub(super) fn in_full(&mut self, addr: u64) -> u64 {
        let step = addr.wrapping_sub(self.last) as i64;
        self.last = addr;
        // The low four bits and the sign go to the top.
        zigzag(step).rotate_right(5)
    }

    /// Undoes [`in_full`](Blocks::in_full).
    pub(super) fn resolve_full(&mut self, number: u64) -> u64 {
        let step = unzigzag(number.rotate_left(5));
        self.last = self.last.wrapping_add(step as u64);
        self.last
    }
}

/// The class of blocks that a request for `size` bytes can be served from:
/// glibc's, which other allocators' are near enough to. Sizes beyond the caches
/// share one class.
fn size_class(size: u64) -> u16 {
    u16::try_from(size.saturating_add(23) / 16).map_or(u16::MAX, |class| class.max(2))
}

/// Blocks in the order in which they came, the newest last.
#[derive(Debug, Default)]
struct List {
    addrs: Vec<u64>,
    classes: Vec<u16>,
}

impl List {
    fn clear(&mut self) {
        self.addrs.clear();
        self.classes.clear();
    }

    fn push(&mut self, addr: u64, class: u16) {
        if self.addrs.len() == LIST_MAX {
            // Half at once: moving the rest down is then rare.
            self.addrs.drain(..LIST_MAX / 2);
            self.classes.drain(..LIST_MAX / 2);
        }
        self.addrs.push(addr);
        self.classes.push(class);
    }

    fn depth_of(&self, addr: u64) -> Option<usize> {
        self.addrs.iter().rev().position(|&other| other == addr)
    }

    fn take(&mut self, depth: usize) -> Option<(u64, u16)> {
        let index = self.addrs.len().checked_sub(depth.checked_add(1)?)?;
        Some((self.addrs.remove(index), self.classes.remove(index)))
    }

    fn rank_of(&self, addr: u64, class: u16) -> Option<usize> {
        let depth = self.depth_of(addr)?;
        let (&own, newer) = self
            .classes
            .get(self.classes.len() - depth - 1..)?
            .split_first()?;
        (own == class).then(|| newer.iter().filter(|&&other| other == class).count())
    }

    fn take_rank(&mut self, class: u16, rank: usize) -> Option<u64> {
        let depth = self
            .classes
            .iter()
            .rev()
            .enumerate()
            .filter(|(_, other)| **other == class)
            .nth(rank)?
            .0;
        self.take(depth).map(|(addr, _)| addr)
    }
}
