//! Histograms whose memory follows their content.
//!
//! Intuition: most series have few events. A dense HdrHistogram of two digits takes 26 KiB whether it holds
//! six values or six million. This histogram starts as a sorted list of (bucket, count) pairs of four bytes
//! each. It becomes an array of counters as soon as the array takes no more memory.
//! Invariant: the buckets are exactly those of HdrHistogram ([`layout`]). So a merge adds counts bucket by
//! bucket, whatever forms the two histograms have, and HdrHistogram's libraries can read exported histograms.
//! Rejected: DDSketch and t-digest (no exact merge, no libraries in every language), dense counters of u32
//! (every quiet series would still hold a page of zeroes).

pub mod layout;
pub(crate) mod rank;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Counts per bucket, without the scale that maps buckets to values.
#[derive(Debug, Clone)]
pub struct Histogram {
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// Pairs packed as `bucket << 16 | count`, ascending, every count in [1, 65535].
    Sparse(Vec<u32>),
    /// Every count in [0, 65535]. The counters take a quarter of the cache lines that those of `Wide` take.
    Dense(Box<Dense<u16>>),
    Wide(Box<Dense<u64>>),
}

#[derive(Debug, Clone)]
struct Dense<C> {
    first: u16,       // bucket of counts[0], a multiple of BLOCK_BUCKETS
    counts: Vec<C>,   // non-empty, whole blocks
    blocks: Vec<u64>, // sum of each block of counts
}

/// log2 of the number of buckets per block. A dense histogram also keeps the sum of each block, so that the
/// search for a rank skips whole blocks.
const BLOCK_BITS: u32 = 6;
const BLOCK_BUCKETS: usize = 1 << BLOCK_BITS;

const COUNT_BITS: u32 = 16;
const SPARSE_COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { form: Form::Sparse(Vec::new()) }
    }
}

impl Histogram {
    /// Creates an empty histogram with capacity for `buckets` filled buckets.
    pub fn with_room(buckets: usize) -> Histogram {
        Histogram { form: Form::Sparse(Vec::with_capacity(buckets)) }
    }

    /// Creates an empty histogram for content similar to that of `other`: with the same range of buckets if
    /// `other` is dense, else sparse.
    pub fn ready_for(other: &Histogram) -> Histogram {
        let form = match &other.form {
            Form::Dense(dense) => Form::Dense(Box::new(Dense::over(dense.first, (dense.end() - 1) as u16))),
            Form::Sparse(_) | Form::Wide(_) => Form::Sparse(Vec::new()),
        };
        Histogram { form }
    }

    /// Returns the number of filled buckets of a sparse histogram; 0 for the other forms, which need no
    /// capacity reserved in advance.
    pub fn sparse_len(&self) -> usize {
        match &self.form {
            Form::Sparse(pairs) => pairs.len(),
            Form::Dense(_) | Form::Wide(_) => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        match &self.form {
            Form::Sparse(pairs) => pairs.is_empty(),
            Form::Dense(dense) => dense.blocks.iter().all(|block| *block == 0),
            Form::Wide(_) => false, // the wide form is only created for a large count
        }
    }

    /// Counts one value in its bucket.
    #[inline]
    pub fn record(&mut self, bucket: u16) {
        self.add(bucket, 1);
    }

    /// Adds `count` values to a bucket.
    #[inline]
    pub fn add(&mut self, bucket: u16, count: u64) {
        match &mut self.form {
            Form::Sparse(pairs) => {
                if count > SPARSE_COUNT_MAX || !add_sparse(pairs, bucket, count as u32) {
                    self.make_wide();
                    self.add(bucket, count);
                }
            }
            Form::Dense(dense) => {
                if !dense.add(bucket, count) {
                    self.make_wide();
                    self.add(bucket, count);
                }
            }
            Form::Wide(wide) => {
                // The counter saturates at u64::MAX. Only centuries of events, or a few pre-aggregated
                // histograms with huge counts, reach this limit.
                wide.add(bucket, count);
            }
        }
    }

    /// Adds all of `other`, bucket by bucket.
    pub fn merge(&mut self, other: &Histogram) {
        if self.is_empty() {
            *self = other.clone();
            return;
        }
        if let (Form::Sparse(ours), Form::Sparse(theirs)) = (&mut self.form, &other.form)
            && theirs.len() * FEW_OF >= ours.len()
            && let Some(merged) = merge_sparse(ours, theirs)
        {
            *ours = merged;
            self.shrink();
            return;
        }
        if let (Form::Dense(ours), Form::Dense(theirs)) = (&mut self.form, &other.form)
            && ours.add_all(theirs)
        {
            return;
        }
        for (bucket, count) in other.iter() {
            self.add(bucket, count);
        }
        self.shrink();
    }

    /// Returns the filled buckets with their counts, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u16, u64)> + '_ {
        let (pairs, dense, wide) = match &self.form {
            Form::Sparse(pairs) => (pairs.as_slice(), None, None),
            Form::Dense(dense) => (&[][..], Some(dense), None),
            Form::Wide(wide) => (&[][..], None, Some(wide)),
        };
        let sparse = pairs.iter().map(|pair| unpack(*pair));
        let dense = dense.into_iter().flat_map(|dense| dense.filled());
        let wide = wide.into_iter().flat_map(|wide| wide.filled());
        sparse.chain(dense).chain(wide)
    }

    /// Encodes each filled bucket as LEB128: the distance from the previous filled bucket, then the count.
    pub fn cells(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 * self.sparse_len() + 16);
        self.write_cells(&mut bytes);
        bytes
    }

    /// Appends the bytes of [`Self::cells`] to `bytes`.
    pub fn write_cells(&self, bytes: &mut Vec<u8>) {
        let mut before = 0;
        for (bucket, count) in self.iter() {
            write_varint(bytes, u64::from(bucket - before));
            write_varint(bytes, count);
            before = bucket;
        }
    }

    /// Decodes the bytes of [`Self::cells`]; `None` if they are damaged.
    pub fn from_cells(bytes: &[u8]) -> Option<Histogram> {
        read_cells(bytes)
    }

    /// Returns the sum of all counts.
    pub fn count(&self) -> u64 {
        self.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Returns the number of bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Sparse(pairs) => pairs.capacity() * size_of::<u32>(),
            Form::Dense(dense) => dense.bytes(),
            Form::Wide(wide) => wide.bytes(),
        }
    }

    /// Whether so many buckets are filled that an array is faster than the list of pairs, even if it takes
    /// more memory.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        matches!(&self.form, Form::Sparse(pairs) if pairs.len() > CROWDED_PAIRS)
    }

    /// Switches to the dense form if an array over the filled range takes no more memory than the pairs.
    fn shrink(&mut self) {
        let Form::Sparse(pairs) = &self.form else { return };
        let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else { return };
        let range = usize::from(unpack(*last).0 - unpack(*first).0) + 1;
        if pairs.len() >= DENSE_PAIRS_MIN && range * size_of::<u16>() <= size_of_val(&pairs[..]) {
            self.make_dense();
        }
    }

    /// Switches from the sparse form to the dense form.
    pub fn make_dense(&mut self) {
        if let Form::Sparse(_) = &self.form {
            self.form = Form::Dense(Box::new(self.rebuilt()));
        }
    }

    /// Switches to the wide form, whose counters hold any count.
    fn make_wide(&mut self) {
        self.form = Form::Wide(Box::new(self.rebuilt()));
    }

    fn rebuilt<C: Counter>(&self) -> Dense<C> {
        let first = self.iter().next().map_or(0, |(bucket, _)| bucket);
        let last = self.iter().next_back().map_or(first, |(bucket, _)| bucket);
        let mut dense = Dense::over(first, last);
        for (bucket, count) in self.iter() {
            dense.add(bucket, count);
        }
        dense
    }
}

/// Minimum number of pairs for the dense form: with fewer, the array's header costs more than the array
/// saves.
const DENSE_PAIRS_MIN: usize = 32;

/// Maximum ratio of our list's length to the other list's length for a merge in one pass. Above it, the pairs
/// of the other list are added one by one.
const FEW_OF: usize = 16;

/// Number of pairs above which an insertion into the list costs more time than an array of a few KiB.
const CROWDED_PAIRS: usize = 48;

/// The counter of one bucket.
trait Counter: Copy + Default + Into<u64> + TryFrom<u64> {}

impl Counter for u16 {}
impl Counter for u64 {}

impl<C: Counter> Dense<C> {
    /// Creates zero counters for all blocks from bucket `first` to bucket `last`.
    fn over(first: u16, last: u16) -> Dense<C> {
        let (first, last) = (usize::from(first) >> BLOCK_BITS, usize::from(last) >> BLOCK_BITS);
        let blocks = last - first + 1;
        Dense {
            first: (first << BLOCK_BITS) as u16,
            counts: vec![C::default(); blocks << BLOCK_BITS],
            blocks: vec![0; blocks],
        }
    }

    /// Adds to a bucket; returns false if the count does not fit.
    #[inline]
    fn add(&mut self, bucket: u16, count: u64) -> bool {
        if bucket < self.first {
            let missing = usize::from(self.first - bucket).div_ceil(BLOCK_BUCKETS);
            self.counts.splice(0..0, std::iter::repeat_n(C::default(), missing << BLOCK_BITS));
            self.blocks.splice(0..0, std::iter::repeat_n(0, missing));
            self.first -= (missing << BLOCK_BITS) as u16;
        }
        let at = usize::from(bucket - self.first);
        if at >= self.counts.len() {
            let blocks = (at >> BLOCK_BITS) + 1;
            self.counts.resize(blocks << BLOCK_BITS, C::default());
            self.blocks.resize(blocks, 0);
        }
        let Ok(sum) = C::try_from(self.counts[at].into().saturating_add(count)) else { return false };
        self.counts[at] = sum;
        self.blocks[at >> BLOCK_BITS] = self.blocks[at >> BLOCK_BITS].saturating_add(count);
        true
    }

    fn end(&self) -> usize {
        usize::from(self.first) + self.counts.len()
    }

    fn bytes(&self) -> usize {
        size_of::<Dense<C>>()
            + self.counts.capacity() * size_of::<C>()
            + self.blocks.capacity() * size_of::<u64>()
    }

    fn filled(&self) -> impl DoubleEndedIterator<Item = (u16, u64)> + '_ {
        let (all, first) = (self.counts.iter().enumerate(), self.first);
        // `at` is below the number of buckets of a layout, so it fits in a u16.
        let cells = all.map(move |(at, count)| (first + at as u16, (*count).into()));
        cells.filter(|(_, count): &(u16, u64)| *count > 0)
    }
}

impl Dense<u16> {
    /// Adds all of `other` at once. Returns false, and changes no count, if a sum does not fit.
    fn add_all(&mut self, other: &Dense<u16>) -> bool {
        if other.first < self.first || other.end() > self.end() {
            let first = self.first.min(other.first);
            let mut wider = Dense::over(first, (self.end().max(other.end()) - 1) as u16);
            wider.put(self);
            *self = wider;
        }
        let at = usize::from(other.first - self.first);
        let ours = &mut self.counts[at..at + other.counts.len()];
        // The loop has no branch per bucket, so the compiler vectorises it.
        let overflows =
            ours.iter().zip(&other.counts).fold(false, |any, (a, b)| any | (a.checked_add(*b).is_none()));
        if overflows {
            return false;
        }
        ours.iter_mut().zip(&other.counts).for_each(|(a, b)| *a = a.wrapping_add(*b));
        let blocks = &mut self.blocks[at >> BLOCK_BITS..];
        blocks.iter_mut().zip(&other.blocks).for_each(|(a, b)| *a = a.saturating_add(*b));
        true
    }

    /// Copies the counts of `other` into the zeroes of a wider array.
    fn put(&mut self, other: &Dense<u16>) {
        let at = usize::from(other.first - self.first);
        self.counts[at..at + other.counts.len()].copy_from_slice(&other.counts);
        self.blocks[at >> BLOCK_BITS..][..other.blocks.len()].copy_from_slice(&other.blocks);
    }
}

#[inline]
fn unpack(pair: u32) -> (u16, u64) {
    ((pair >> COUNT_BITS) as u16, u64::from(pair & SPARSE_COUNT_MAX as u32))
}

#[inline]
fn pack(bucket: u16, count: u32) -> u32 {
    u32::from(bucket) << COUNT_BITS | count
}

/// Adds to the pair of `bucket`, or inserts a pair if the bucket is new; returns false if the count does not
/// fit.
#[inline]
fn add_sparse(pairs: &mut Vec<u32>, bucket: u16, count: u32) -> bool {
    // When another histogram is added, its buckets arrive in ascending order, so appending is the common
    // case.
    let is_last = pairs.last().is_none_or(|pair| (pair >> COUNT_BITS) < u32::from(bucket));
    let at = match is_last {
        true => pairs.len(),
        false => pairs.partition_point(|pair| (pair >> COUNT_BITS) < u32::from(bucket)),
    };
    match pairs.get_mut(at) {
        Some(pair) if *pair >> COUNT_BITS == u32::from(bucket) => {
            let sum = (*pair & SPARSE_COUNT_MAX as u32) + count;
            if u64::from(sum) > SPARSE_COUNT_MAX {
                return false;
            }
            *pair = pack(bucket, sum);
        }
        _ => {
            grow_gently(pairs, 1);
            pairs.insert(at, pack(bucket, count));
        }
    }
    true
}

/// Grows the capacity by a quarter instead of doubling it. With 100,000 series, half-empty lists would take
/// most of the memory.
#[inline]
fn grow_gently(pairs: &mut Vec<u32>, extra: usize) {
    if pairs.len() + extra > pairs.capacity() {
        pairs.reserve_exact(extra.max(4 + pairs.len() / 4));
    }
}

/// Merges two ascending lists; `None` if a count no longer fits in a pair.
fn merge_sparse(ours: &[u32], theirs: &[u32]) -> Option<Vec<u32>> {
    let mut merged = Vec::with_capacity(ours.len() + theirs.len());
    let mut rest = ours;
    for pair in theirs {
        // Our pairs before the bucket of the other list's next pair are copied unchanged.
        let is_before = |our: &u32| our >> COUNT_BITS < pair >> COUNT_BITS;
        let before = rest.iter().position(|our| !is_before(our)).unwrap_or(rest.len());
        merged.extend_from_slice(&rest[..before]);
        rest = &rest[before..];
        match rest.first() {
            Some(our) if our >> COUNT_BITS == pair >> COUNT_BITS => {
                let count = unpack(*our).1 + unpack(*pair).1;
                if count > SPARSE_COUNT_MAX {
                    return None;
                }
                merged.push(pack(unpack(*our).0, count as u32));
                rest = &rest[1..];
            }
            _ => merged.push(*pair),
        }
    }
    merged.extend_from_slice(rest);
    // Coarse windows are merged once a minute and kept for an hour, so unused capacity is released.
    merged.shrink_to_fit();
    Some(merged)
}

/// Histograms are equal if the same buckets hold the same counts, whatever their form.
impl PartialEq for Histogram {
    fn eq(&self, other: &Histogram) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Serialises the histogram as the bytes of [`Histogram::cells`].
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.cells())
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Histogram, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

struct BytesVisitor;

impl serde::de::Visitor<'_> for BytesVisitor {
    type Value = Histogram;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bytes of a histogram")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Histogram, E> {
        read_cells(bytes).ok_or_else(|| E::custom("the bytes of a histogram are damaged"))
    }
}

fn read_cells(mut bytes: &[u8]) -> Option<Histogram> {
    let mut pairs = Vec::with_capacity(bytes.len() / 2);
    let (mut dense, mut bucket) = (Histogram::default(), 0u16);
    let (mut is_dense, mut is_first) = (false, true);
    let buckets = layout::Digits::Three.buckets();
    while !bytes.is_empty() {
        let distance = read_varint(&mut bytes)?;
        let count = read_varint(&mut bytes)?;
        bucket = bucket.checked_add(u16::try_from(distance).ok()?)?;
        // Buckets must ascend and lie within the largest layout.
        if count == 0 || (distance == 0 && !is_first) || bucket >= buckets {
            return None;
        }
        is_first = false;
        if !is_dense && count <= SPARSE_COUNT_MAX {
            pairs.push(pack(bucket, count as u32));
            continue;
        }
        if !is_dense {
            dense.form = Form::Sparse(std::mem::take(&mut pairs));
            is_dense = true;
        }
        dense.add(bucket, count);
    }
    if !is_dense {
        pairs.shrink_to_fit();
        dense.form = Form::Sparse(pairs);
        dense.shrink();
    }
    Some(dense)
}

pub(in crate::core) fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub(in crate::core) fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(buckets: &[u16]) -> Histogram {
        let mut histogram = Histogram::default();
        buckets.iter().for_each(|bucket| histogram.record(*bucket));
        histogram
    }

    #[test]
    fn both_forms_hold_the_same_counts() {
        let mut sparse = of(&[5, 3, 3, 900]);
        let mut dense = sparse.clone();
        dense.make_dense();
        assert_eq!(sparse, dense);
        for bucket in [0, 3, 4_700] {
            sparse.record(bucket);
            dense.record(bucket);
        }
        assert_eq!(sparse, dense);
        assert_eq!(sparse.iter().collect::<Vec<_>>(), [(0, 1), (3, 3), (5, 1), (900, 1), (4_700, 1)]);
        assert!(dense.iter().rev().eq(sparse.iter().rev()));
    }

    #[test]
    fn a_count_beyond_a_pair_is_kept() {
        let mut histogram = of(&[7]);
        histogram.add(7, 65_535);
        histogram.add(9, 1 << 40);
        assert_eq!(histogram.iter().collect::<Vec<_>>(), [(7, 65_536), (9, 1 << 40)]);
    }

    #[test]
    fn a_merge_is_an_addition_bucket_by_bucket() {
        let mut left = of(&[1, 2, 3]);
        left.merge(&of(&[0, 2, 9]));
        assert_eq!(left, of(&[0, 1, 2, 2, 3, 9]));
        let mut full = of(&[4]);
        full.add(4, 65_000);
        full.merge(&full.clone());
        assert_eq!(full.iter().collect::<Vec<_>>(), [(4, 130_002)]);
    }

    #[test]
    fn bytes_round_trip_and_damage_is_refused() {
        let mut histogram = of(&[0, 1, 77, 4_000]);
        histogram.add(5, 1 << 33);
        let bytes = rmp_serde::to_vec(&histogram).expect("memory");
        let back: Histogram = rmp_serde::from_slice(&bytes).expect("own bytes");
        assert_eq!(back, histogram);
        let (twice, beyond) = (&[1, 1, 0, 1], &[0xc0, 0xb8, 2, 1]);
        for bytes in [&[1][..], &[0xff, 0xff, 0xff, 0xff, 1], &[1, 0], &[0x80; 12], twice, beyond] {
            assert!(read_cells(bytes).is_none(), "{bytes:?}");
        }
    }
}
