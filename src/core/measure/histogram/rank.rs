//! The search for the bucket of a rank in one or two histograms, without merging them.
//!
//! Intuition: users mostly query high quantiles, so the search begins at the top. It moves from block to
//! block of 64 buckets and examines the buckets of only one block, the one that contains the rank. A median
//! over a thousand filled buckets takes a hundred steps instead of five hundred.

use super::{BLOCK_BITS, BLOCK_BUCKETS, Form, Histogram, unpack};

/// Returns the bucket of the value that is `rank`-th from the top, counted from 1; `None` if there are fewer
/// values.
pub(crate) fn from_top(histograms: [&Histogram; 2], rank: u64) -> Option<u16> {
    match histograms.map(|histogram| &histogram.form) {
        [Form::Sparse(a), Form::Sparse(b)] if a.len() + b.len() <= FEW => step_by_step(a, b, rank),
        _ => by_blocks(histograms, rank),
    }
}

/// Maximum number of filled buckets for a walk over single buckets; with more, the search by blocks is
/// faster.
const FEW: usize = BLOCK_BUCKETS;

/// Walks down both lists from the top, each time taking the greater bucket.
fn step_by_step<'a>(mut a: &'a [u32], mut b: &'a [u32], rank: u64) -> Option<u16> {
    let mut seen = 0;
    loop {
        let list = match (a.last(), b.last()) {
            (None, None) => return None,
            (Some(x), Some(y)) if unpack(*x).0 < unpack(*y).0 => &mut b,
            (None, _) => &mut b,
            _ => &mut a,
        };
        let (last, rest) = list.split_last()?;
        let (bucket, count) = unpack(*last);
        *list = rest;
        seen = u64::saturating_add(seen, count);
        if seen >= rank {
            return Some(bucket);
        }
    }
}

fn by_blocks(histograms: [&Histogram; 2], rank: u64) -> Option<u16> {
    let mut cursors = histograms.map(Cursor::new);
    let mut seen = 0;
    let top = cursors.iter().filter_map(Cursor::top_block).max()?;
    for block in (0..=top).rev() {
        let [a, b] = &mut cursors;
        let count = a.enter(block).saturating_add(b.enter(block));
        if u64::saturating_add(seen, count) >= rank {
            return inside(&cursors, block, rank - seen);
        }
        seen = u64::saturating_add(seen, count);
    }
    None
}

/// Counts of one block, summed over both histograms.
type Block = [u64; BLOCK_BUCKETS];

fn inside(cursors: &[Cursor<'_>; 2], block: usize, rank: u64) -> Option<u16> {
    let mut counts: Block = [0; BLOCK_BUCKETS];
    cursors.iter().for_each(|cursor| cursor.add_block(block, &mut counts));
    let mut seen = 0;
    for (at, count) in counts.iter().enumerate().rev() {
        seen = u64::saturating_add(seen, *count);
        if seen >= rank {
            // The result is at most the last bucket of a layout, which fits in a u16.
            return Some((block * BLOCK_BUCKETS + at) as u16);
        }
    }
    None
}

enum Counts<'a> {
    Narrow(&'a [u16]),
    Wide(&'a [u64]),
}

/// The position in one histogram while the search descends from the highest block.
enum Cursor<'a> {
    Sparse { below: &'a [u32], block: &'a [u32] },
    Dense { first: u16, counts: Counts<'a>, blocks: &'a [u64] },
}

impl<'a> Cursor<'a> {
    fn new(histogram: &'a Histogram) -> Cursor<'a> {
        match &histogram.form {
            Form::Sparse(pairs) => Cursor::Sparse { below: pairs, block: &[] },
            Form::Dense(dense) => Cursor::Dense {
                first: dense.first,
                counts: Counts::Narrow(&dense.counts),
                blocks: &dense.blocks,
            },
            Form::Wide(wide) => {
                Cursor::Dense { first: wide.first, counts: Counts::Wide(&wide.counts), blocks: &wide.blocks }
            }
        }
    }

    fn top_block(&self) -> Option<usize> {
        match self {
            Cursor::Sparse { below, .. } => {
                below.last().map(|pair| usize::from(unpack(*pair).0) >> BLOCK_BITS)
            }
            Cursor::Dense { first, blocks, .. } => {
                Some((usize::from(*first) >> BLOCK_BITS) + blocks.len() - 1)
            }
        }
    }

    /// Descends to a block and returns the number of values in it.
    fn enter(&mut self, wanted: usize) -> u64 {
        match self {
            Cursor::Sparse { below, block } => {
                let (mut at, mut count) = (below.len(), 0);
                while at > 0 && usize::from(unpack(below[at - 1]).0) >> BLOCK_BITS == wanted {
                    at -= 1;
                    count = u64::saturating_add(count, unpack(below[at]).1);
                }
                (*below, *block) = below.split_at(at);
                count
            }
            Cursor::Dense { first, blocks, .. } => {
                let place = wanted.checked_sub(usize::from(*first) >> BLOCK_BITS);
                place.and_then(|place| blocks.get(place)).copied().unwrap_or(0)
            }
        }
    }

    /// Adds the counts of the entered block to `sums`.
    fn add_block(&self, wanted: usize, sums: &mut Block) {
        match self {
            Cursor::Sparse { block, .. } => {
                for (bucket, count) in block.iter().map(|pair| unpack(*pair)) {
                    let sum = &mut sums[usize::from(bucket) % BLOCK_BUCKETS];
                    *sum = sum.saturating_add(count);
                }
            }
            Cursor::Dense { first, counts, .. } => {
                let Some(place) = wanted.checked_sub(usize::from(*first) >> BLOCK_BITS) else { return };
                let cells = place * BLOCK_BUCKETS..(place + 1) * BLOCK_BUCKETS;
                match counts {
                    Counts::Narrow(counts) => add_cells(sums, counts.get(cells)),
                    Counts::Wide(counts) => add_cells(sums, counts.get(cells)),
                }
            }
        }
    }
}

fn add_cells<C: Copy + Into<u64>>(sums: &mut Block, cells: Option<&[C]>) {
    let cells = cells.unwrap_or_default();
    sums.iter_mut().zip(cells).for_each(|(sum, cell)| *sum = sum.saturating_add((*cell).into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every rank gives the same bucket as a sort of all values. Method: pairs of sparse and dense
    /// histograms, all ranks.
    #[test]
    fn ranks_are_those_of_the_sorted_values() {
        let values =
            |seed: u64, many: u64| (0..many).map(move |n| ((n * seed + 7) * 2_654_435_761 % 4_700) as u16);
        for (left, right) in [(40, 0), (0, 40), (40, 20), (60, 60), (900, 30), (30, 900), (900, 900), (1, 1)]
        {
            let (mut a, mut b) = (Histogram::default(), Histogram::default());
            values(3, left).for_each(|bucket| a.record(bucket));
            values(11, right).for_each(|bucket| b.record(bucket));
            if left > 100 {
                a.make_dense();
            }
            let mut sorted: Vec<u16> = values(3, left).chain(values(11, right)).collect();
            sorted.sort_unstable_by(|x, y| y.cmp(x));
            for (at, bucket) in sorted.iter().enumerate() {
                assert_eq!(from_top([&a, &b], at as u64 + 1), Some(*bucket));
            }
            assert_eq!(from_top([&a, &b], left + right + 1), None);
        }
    }
}
