//! The assignment of values to buckets: HdrHistogram's layout with a lowest discernible value of 1.
//!
//! Intuition: the width of a bucket doubles with every power of two. Within a power of two, 2^`half_bits`
//! buckets have equal width, enough to distinguish values with the wanted number of digits.
//! Source: the counts-array arithmetic of HdrHistogram. The tests below compare bucket boundaries (lowest and
//! highest equivalent value) with those of the `hdrhistogram` crate.

use crate::core::vocab::limits::STEPS_MAX;
use serde::{Deserialize, Serialize};

/// Significant decimal digits that a histogram keeps: two digits are exact within 1 %, three within 0.1 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Digits {
    #[default]
    Two,
    Three,
}

impl Digits {
    pub fn from_count(digits: u8) -> Option<Digits> {
        match digits {
            2 => Some(Digits::Two),
            3 => Some(Digits::Three),
            _ => None,
        }
    }

    pub fn count(self) -> u8 {
        match self {
            Digits::Two => 2,
            Digits::Three => 3,
        }
    }

    /// Returns the number of buckets.
    pub fn buckets(self) -> u16 {
        self.bucket(STEPS_MAX) + 1
    }

    /// Returns log2 of the number of buckets per power of two. That number is the first power of two above
    /// 10^digits.
    #[inline]
    const fn half_bits(self) -> u32 {
        match self {
            Digits::Two => 7,
            Digits::Three => 10,
        }
    }

    /// Returns the bucket of a magnitude in steps, which must not exceed [`STEPS_MAX`].
    #[inline]
    pub fn bucket(self, steps: u64) -> u16 {
        debug_assert!(steps <= STEPS_MAX);
        let bits = self.half_bits();
        let doubling = 63 - bits - (steps | ((2 << bits) - 1)).leading_zeros();
        // The index is at most (36 + 1) << 7 or (33 + 1) << 10 for STEPS_MAX, so it fits in a u16.
        (((doubling + 1) << bits) + (steps >> doubling) as u32 - (1 << bits)) as u16
    }

    /// Returns the lowest magnitude, in steps, that maps to this bucket.
    #[inline]
    pub fn lowest(self, bucket: u16) -> u64 {
        let (sub, doubling) = self.split(bucket);
        sub << doubling
    }

    /// Returns the highest magnitude, in steps, that maps to this bucket.
    #[inline]
    pub fn highest(self, bucket: u16) -> u64 {
        let (sub, doubling) = self.split(bucket);
        (sub << doubling) + (1 << doubling) - 1
    }

    #[inline]
    fn split(self, bucket: u16) -> (u64, u32) {
        let bits = self.half_bits();
        let (row, sub) = (u32::from(bucket) >> bits, u64::from(bucket) & ((1 << bits) - 1));
        // Row 0 is the lower half of the first doubling, whose buckets are one step wide.
        if row == 0 { (sub, 0) } else { (sub + (1 << bits), row - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram as Reference;

    /// Goal: the bucket boundaries equal those of `hdrhistogram` over the whole range.
    /// Method: all small values, then values around every power of two and pseudo-random ones.
    #[test]
    fn buckets_are_those_of_hdrhistogram() {
        for digits in [Digits::Two, Digits::Three] {
            let reference = Reference::<u8>::new_with_bounds(1, STEPS_MAX, digits.count()).expect("bounds");
            let edges = (3..42).flat_map(|bit| (0..9).map(move |d| (1u64 << bit) + d - 4));
            let mixed = (0..20_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (22 + n % 40));
            for steps in (0..70_000).chain(edges).chain(mixed).chain([STEPS_MAX]) {
                let bucket = digits.bucket(steps);
                assert_eq!(digits.lowest(bucket), reference.lowest_equivalent(steps), "{steps}");
                assert_eq!(digits.highest(bucket), reference.highest_equivalent(steps), "{steps}");
            }
        }
    }

    #[test]
    fn buckets_ascend_without_holes() {
        for digits in [Digits::Two, Digits::Three] {
            let last = digits.bucket(STEPS_MAX);
            for bucket in 0..last {
                assert_eq!(digits.highest(bucket) + 1, digits.lowest(bucket + 1));
                assert_eq!(digits.bucket(digits.lowest(bucket)), bucket);
            }
        }
    }
}
