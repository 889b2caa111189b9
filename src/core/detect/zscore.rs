//! `zscore`, `robust_z`, `upper`, `lower`: distances from the past in units of its spread.
//!
//! Formula: z = (x − mean) / sd with denominator n − 1; robust: (x − median) / max(1.4826 MAD, sd / 2, 1 % of
//! the median); bounds: mean ± k sd. Rejected: a bare MAD, which is zero for metrics that are mostly
//! constant. With few windows, |z| > 3 is more frequent than a table of the normal distribution says (1.5 %
//! with twelve). So rules that page an operator should use `regression` or `anomaly`. Cost: one pass over
//! sorted values per closed window.

use super::MAD_TO_SIGMA;
use super::sorted::Sorted;
use serde::{Deserialize, Serialize};

/// Minimum number of windows for a spread.
pub(crate) const WINDOWS_MIN: usize = 5;

/// Lower bound of the robust scale, as a share of the median.
pub(super) const SCALE_MIN: f64 = 0.01;

/// Centre and spread of the past.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub mean: f64,
    pub deviation: f64,
    pub median: f64,
    pub scale: f64,
    pub windows: usize,
}

impl Reference {
    pub(crate) fn learn(past: &Sorted<f64>) -> Option<Reference> {
        if past.len() < WINDOWS_MIN {
            return None;
        }
        let median = past.median();
        let (mean, deviation) = past.mean_and_deviation(median, f64::INFINITY);
        let robust = past.median_distance(median) * MAD_TO_SIGMA;
        let scale = robust.max(deviation / 2.0).max(SCALE_MIN * median.abs());
        Some(Reference { mean, deviation, median, scale, windows: past.len() })
    }

    /// Returns the z-score; `None` if the past has no spread and the value differs from its mean.
    pub(crate) fn z(&self, value: f64) -> Option<f64> {
        ratio(value - self.mean, self.deviation)
    }

    /// Returns the robust z-score; `None` if the past holds only zeros and the value is not zero.
    pub(crate) fn robust_z(&self, value: f64) -> Option<f64> {
        ratio(value - self.median, self.scale)
    }

    /// Returns the mean plus `k` standard deviations; a negative `k` gives a bound below the mean.
    pub(crate) fn bound(&self, k: f64) -> f64 {
        self.mean + k * self.deviation
    }
}

fn ratio(distance: f64, scale: f64) -> Option<f64> {
    if distance == 0.0 {
        return Some(0.0);
    }
    (scale > 0.0).then(|| distance / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(past: &[f64]) -> Option<Reference> {
        Reference::learn(&Sorted::of(past.to_vec()))
    }

    #[test]
    fn distances_are_in_units_of_the_spread() {
        let past = [8.0, 9.0, 10.0, 11.0, 12.0];
        let reference = learn(&past).expect("enough windows");
        let deviation = 2.5f64.sqrt();
        assert!((reference.z(13.0).expect("a spread") - 3.0 / deviation).abs() < 1e-12);
        assert!((reference.bound(-2.0) - (10.0 - 2.0 * deviation)).abs() < 1e-12);
        assert!(
            (reference.robust_z(13.0).expect("a scale") - 3.0 / deviation.max(super::super::MAD_TO_SIGMA))
                .abs()
                < 0.2
        );
        assert_eq!(learn(&past[..4]), None);
    }

    #[test]
    fn a_constant_past_has_no_z_but_a_robust_one() {
        let reference = learn(&[100.0; 20]).expect("enough windows");
        assert_eq!((reference.z(100.0), reference.z(101.0)), (Some(0.0), None));
        assert_eq!(reference.robust_z(103.0), Some(3.0));
        assert_eq!(learn(&[0.0; 20]).and_then(|zeros| zeros.robust_z(1.0)), None);
    }
}
