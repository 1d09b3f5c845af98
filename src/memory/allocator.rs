//! PyTorch's caching allocator, played through two steps of the run: what it reserves is what its
//! rules make of the order in which tensors of the ledger's sizes come and go.
//!
//! The rules (`c10/cuda/CUDACachingAllocator`): sizes are rounded to 512 bytes; blocks of more than
//! 1 MiB come from segments of their own, rounded to 2 MiB, or from shared ones of 20 MiB below
//! 10 MiB; the smallest free block that is large enough is taken, and split when more than 1 MiB
//! would be left; freed neighbours merge; segments are never given back.

use std::collections::BTreeSet;

use crate::run::TrainingRun;

pub(crate) const MIB: u64 = 1 << 20;
/// Blocks up to this size live in the small pool, which this model leaves out.
pub(crate) const SMALL: u64 = MIB;
const SHARED_SEGMENT: u64 = 20 * MIB;
const OWN_SEGMENT_FROM: u64 = 10 * MIB;
const SEGMENT_ROUNDING: u64 = 2 * MIB;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Block {
    size: u64,
    asked: u64,
    previous: u32,
    next: u32,
    free: bool,
}

/// An allocated block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) u32);

impl Handle {
    /// What the small pool serves, or nothing.
    pub(crate) const NOTHING: Handle = Handle(NONE);
}

/// The large pool.
#[derive(Clone, Default)]
pub(crate) struct Allocator {
    blocks: Vec<Block>,
    unused: Vec<u32>,
    free: BTreeSet<(u64, u32)>,
    /// Bytes of all segments.
    pub(crate) reserved: u64,
    /// Bytes handed out now.
    pub(crate) allocated: u64,
    /// The most ever handed out.
    pub(crate) peak: u64,
    /// The most handed out since this was last asked for.
    high: u64,
    /// Bytes asked for now, rounded to 512.
    requested: u64,
    /// `expandable_segments`: one segment that grows at its end, 20 MiB at a time.
    expandable: bool,
    /// The last block of that segment.
    tail: Option<u32>,
    /// What handed-out blocks held beyond what was asked for, at the peak.
    pub(crate) slack: u64,
}

impl Allocator {
    /// As the run's environment sets it.
    pub(crate) fn of(run: &TrainingRun) -> Allocator {
        Allocator { expandable: run.expandable_segments.value, ..Allocator::default() }
    }

    /// Hands out a block of at least `bytes`; nothing for what the small pool serves.
    pub(crate) fn take(&mut self, bytes: u64) -> Handle {
        if bytes <= SMALL {
            return Handle(NONE);
        }
        let size = bytes.next_multiple_of(512);
        let found = self.free.range((size, 0)..).next().copied();
        let block = match found {
            Some((of, block)) => {
                self.free.remove(&(of, block));
                block
            }
            None if self.expandable => self.grow(size),
            None => {
                let segment = if size < OWN_SEGMENT_FROM {
                    SHARED_SEGMENT
                } else {
                    size.next_multiple_of(SEGMENT_ROUNDING)
                };
                self.reserved += segment;
                self.add(Block { size: segment, asked: 0, previous: NONE, next: NONE, free: false })
            }
        };
        self.split(block, size);
        let given = self.blocks[block as usize].size;
        self.blocks[block as usize].free = false;
        self.blocks[block as usize].asked = size;
        self.allocated += given;
        self.high = self.high.max(self.allocated);
        self.requested += size;
        if self.allocated > self.peak {
            self.peak = self.allocated;
            self.slack = self.allocated - self.requested;
        }
        Handle(block)
    }

    /// The most handed out since the last call.
    pub(crate) fn highest(&mut self) -> u64 {
        std::mem::replace(&mut self.high, self.allocated)
    }

    /// Takes a block back.
    pub(crate) fn give(&mut self, handle: Handle) {
        self.count_out(handle);
        self.reuse(handle);
    }

    /// Counts a block as given back that cannot be handed out yet: another stream still works on it
    /// (`record_stream`).
    pub(crate) fn count_out(&mut self, Handle(block): Handle) {
        if block != NONE {
            self.allocated -= self.blocks[block as usize].size;
            self.requested -= self.blocks[block as usize].asked;
        }
    }

    /// Makes a block that was counted out one to hand out again.
    pub(crate) fn reuse(&mut self, handle: Handle) {
        let Handle(mut block) = handle;
        if block == NONE {
            return;
        }
        let Block { previous, next, .. } = self.blocks[block as usize];
        if next != NONE && self.blocks[next as usize].free {
            self.absorb(block, next);
        }
        if previous != NONE && self.blocks[previous as usize].free {
            self.free.remove(&(self.blocks[previous as usize].size, previous));
            self.merge(previous, block);
            block = previous;
        }
        self.blocks[block as usize].free = true;
        self.free.insert((self.blocks[block as usize].size, block));
    }

    /// A free block of at least `size` at the end of the expandable segment.
    fn grow(&mut self, size: u64) -> u32 {
        let last = self.tail.filter(|tail| self.blocks[*tail as usize].free);
        let there = last.map_or(0, |block| self.blocks[block as usize].size);
        let mapped = (size - there).next_multiple_of(SHARED_SEGMENT);
        self.reserved += mapped;
        if let Some(block) = last {
            self.free.remove(&(there, block));
            self.blocks[block as usize].size += mapped;
            return block;
        }
        let previous = self.tail.unwrap_or(NONE);
        let block = self.add(Block { size: mapped, asked: 0, previous, next: NONE, free: false });
        if previous != NONE {
            self.blocks[previous as usize].next = block;
        }
        self.tail = Some(block);
        block
    }

    fn add(&mut self, block: Block) -> u32 {
        if let Some(index) = self.unused.pop() {
            self.blocks[index as usize] = block;
            return index;
        }
        self.blocks.push(block);
        (self.blocks.len() - 1) as u32
    }

    fn split(&mut self, block: u32, size: u64) {
        let Block { size: whole, next, .. } = self.blocks[block as usize];
        let least = if self.expandable { 511 } else { MIB };
        if whole - size <= least {
            return;
        }
        let rest = self.add(Block { size: whole - size, asked: 0, previous: block, next, free: true });
        self.blocks[block as usize].size = size;
        self.blocks[block as usize].next = rest;
        if next != NONE {
            self.blocks[next as usize].previous = rest;
        } else if self.tail == Some(block) {
            self.tail = Some(rest);
        }
        self.free.insert((whole - size, rest));
    }

    /// `block` takes in its free right neighbour.
    fn absorb(&mut self, block: u32, next: u32) {
        self.free.remove(&(self.blocks[next as usize].size, next));
        self.merge(block, next);
    }

    fn merge(&mut self, left: u32, right: u32) {
        let Block { size, next, .. } = self.blocks[right as usize];
        self.blocks[left as usize].size += size;
        self.blocks[left as usize].next = next;
        if next != NONE {
            self.blocks[next as usize].previous = left;
        } else if self.tail == Some(right) {
            self.tail = Some(left);
        }
        self.unused.push(right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remainder_of_up_to_a_mebibyte_is_not_split_off() {
        let mut allocator = Allocator::default();
        let block = allocator.take(39 * MIB + 512);
        assert_eq!((allocator.reserved, allocator.allocated), (40 * MIB, 40 * MIB));
        allocator.give(block);
        allocator.take(20 * MIB);
        assert_eq!((allocator.reserved, allocator.allocated), (40 * MIB, 20 * MIB), "the block is split");
    }

    #[test]
    fn an_expandable_segment_grows_by_what_its_end_lacks() {
        let mut allocator = Allocator { expandable: true, ..Allocator::default() };
        let (first, end) = (allocator.take(40 * MIB), allocator.take(40 * MIB));
        allocator.give(end);
        allocator.take(60 * MIB);
        assert_eq!(allocator.reserved, 100 * MIB, "segments of their own would be 140");
        allocator.give(first);
        allocator.take(30 * MIB);
        assert_eq!(allocator.reserved, 100 * MIB);
    }

    #[test]
    fn neighbours_merge_and_serve_larger_requests() {
        let mut allocator = Allocator::default();
        let whole = allocator.take(60 * MIB);
        allocator.give(whole);
        let (a, b) = (allocator.take(20 * MIB), allocator.take(20 * MIB));
        allocator.give(a);
        allocator.give(b);
        allocator.take(60 * MIB);
        assert_eq!(allocator.reserved, 60 * MIB);
    }
}
