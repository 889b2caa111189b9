//! Bounds on the mean, the deviation and the share in the tail. They follow from sums over the added windows
//! less the removed ones.
//!
//! Invariant: the number of changes and the largest distance ever added bound the rounding error of the sums.
//! A value a million times as large as the others leaves a rounding error in the sums, so they are computed
//! anew once that value is removed.

use super::super::baseline::REACH;
use super::super::regression::Tail;
use super::middle::Middle;
use super::{LIMIT_MIN, ROUNDING, Side, Turn};

/// Sums of distances from a number near the mean, and of their squares.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    center: f64,
    sum: f64,
    squares: f64,
    /// The largest distance from `center` ever added.
    reach: f64,
    turns: u32,
}

/// Maximum rounding error of the sum of squares, as a share of the sum.
const DOUBT_MAX: f64 = 1e-6;

/// Number of added and removed values after which the sums are computed anew: as many roundings of 1e-16 are
/// less than [`ROUNDING`].
const TURNS_MAX: u32 = 16_384;

impl Moments {
    /// Sums the distances of `values` from their mean.
    pub(super) fn around(values: &[f64]) -> Moments {
        let center = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let mut moments = Moments { center, sum: 0.0, squares: 0.0, reach: 0.0, turns: 0 };
        values.iter().for_each(|value| moments.count(*value, Turn::Comes));
        moments
    }

    pub(super) fn count(&mut self, value: f64, turn: Turn) {
        let (distance, sign) = (value - self.center, f64::from(turn.by()));
        self.sum += sign * distance;
        self.squares += sign * distance * distance;
        self.reach = self.reach.max(distance.abs());
        self.turns += 1;
    }

    pub(super) fn prefetch(&self) -> u64 {
        self.squares.to_bits()
    }

    /// Returns a bound on the rounding error of the sum of squares. It holds both for this running sum and
    /// for a sum computed in one pass.
    fn rounding_error(&self, windows: f64) -> f64 {
        let roundings = f64::from(self.turns) + windows + 64.0;
        4.0 * f64::EPSILON * roundings * windows * self.reach * self.reach
    }

    pub(super) fn holds(&self, windows: usize) -> bool {
        windows > 2
            && self.turns < TURNS_MAX
            && self.rounding_error(windows as f64) <= DOUBT_MAX * self.squares
    }

    /// Returns a lower bound on the spread that `regression` uses. It is 0 if a value may be so far from the
    /// median that `regression` clamps it.
    pub(super) fn spread_within(&self, middle: &Middle) -> f64 {
        let (low, high) = middle.median();
        let farthest = self.reach + (self.center - low).abs().max((high - self.center).abs());
        match farthest <= REACH * middle.spread() {
            true => self.bounds(middle.len()).1.0,
            false => 0.0,
        }
    }

    /// Returns bounds on the mean and on the standard deviation.
    pub(super) fn bounds(&self, windows: usize) -> ((f64, f64), (f64, f64)) {
        let n = windows as f64;
        let (mean, rounding_error) = (self.center + self.sum / n, self.rounding_error(n));
        let shift = ROUNDING * (mean.abs() + self.reach);
        let squares = self.squares - self.sum * self.sum / n;
        let deviation = |squares: f64| (squares.max(0.0) / (n - 1.0)).sqrt();
        let (low, high) = (deviation(squares - rounding_error), deviation(squares + rounding_error));
        ((mean - shift, mean + shift), (low * (1.0 - ROUNDING), high * (1.0 + ROUNDING)))
    }
}

/// Sums over the windows with a profile: Σ 1, Σ nᵢ, Σ nᵢ rᵢ and Σ nᵢ rᵢ². Window i has nᵢ values, of which
/// the share rᵢ is in the tail.
#[derive(Debug, Clone, Default)]
pub(super) struct Tails {
    windows: f64,
    values: f64,
    over: f64,
    squares: f64,
}

impl Tails {
    pub(super) fn count(&mut self, values: f64, share: f64, turn: Turn) {
        let sign = f64::from(turn.by());
        self.windows += sign;
        self.values += sign * values;
        self.over += sign * values * share;
        self.squares += sign * values * share * share;
    }

    /// Whether the tail share of a window with this many values certainly is within the limit of
    /// `regression`.
    pub(super) fn is_near(&self, share: f64, values: f64, side: Side) -> bool {
        let sums = (self.windows, self.values, self.over, self.squares);
        let Some(tail) = Tail::of_sums(sums) else { return false };
        let distance = tail.distance(share, values);
        let distance = if side == Side::Above { distance } else { -distance };
        distance <= LIMIT_MIN * (1.0 - 1e-6)
    }
}
