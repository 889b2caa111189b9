//! Change points: the windows at which the level changed for good.
//!
//! Intuition: the split that explains most of the variance is a change point if it explains more than the
//! best split of noise would. Both sides are then searched in the same way.
//! Formula: a split into n₁ and n₂ windows with means m₁ and m₂ has gain = n₁ n₂ / n (m₁ − m₂)² / (s² f). It
//! is accepted above 3 log n, with at least six windows on each side and medians that differ by at least 3 %.
//! Single windows are clipped at four spreads. The long-run variance s² f is the smaller of two estimates.
//! The first is the variance of the residuals from both means; it is too large if there are more steps. The
//! second uses the mean squared differences of neighbours (v₁) and of windows two apart (v₂): r = v₂ / v₁ −
//! 1, s² f = v₁ (1 + r) / (2 (1 − r)²). It leaves out the largest twentieth of the differences, where the few
//! steps are.
//! Rejected: E-divisive with permutations (seconds for what takes microseconds here, and 18 false points in
//! 1,000 correlated windows), a global standard deviation (a large step inflates it and so hides itself).
//! Cost: O(n) per split with prefix sums, plus a sort of the differences.

use super::regression::EFFECT_MIN;
use super::{long_run_factor, mean_and_deviation, median, robust_spread};

/// Minimum number of windows on each side of a change point.
pub(crate) const SEGMENT_MIN: usize = 6;

/// Maximum number of windows that are analysed.
pub(crate) const WINDOWS_MAX: usize = 200;

/// Single windows are clipped at this many robust spreads from the median.
const CLIP: f64 = 4.0;

const PENALTY: f64 = 3.0;

/// Correction for trimming: without its largest twentieth, the mean square of normally distributed values is
/// too small by this factor.
const TRIMMED: f64 = 1.318;

/// Returns the first window of each new level, ascending.
pub(crate) fn change_points(values: &[f64]) -> Vec<usize> {
    let mut found = Vec::new();
    split(values, 0, &mut found);
    found.sort_unstable();
    found
}

fn split(values: &[f64], begin: usize, found: &mut Vec<usize>) {
    let Some(at) = best_split(values) else { return };
    if is_change(values, at) {
        found.push(begin + at);
        split(&values[..at], begin, found);
        split(&values[at..], begin + at, found);
    }
}

/// Returns the split that reduces the sum of squares most; `None` if one side would be shorter than
/// [`SEGMENT_MIN`].
fn best_split(values: &[f64]) -> Option<usize> {
    let values = clipped(values);
    let (total, n) = (values.iter().sum::<f64>(), values.len() as f64);
    let (mut left, mut best) = (0.0, None);
    for at in 1..values.len() {
        left += values[at - 1];
        if at < SEGMENT_MIN || values.len() - at < SEGMENT_MIN {
            continue;
        }
        let k = at as f64;
        let difference = left / k - (total - left) / (n - k);
        let gain = k * (n - k) / n * difference * difference;
        if best.is_none_or(|(_, known)| gain > known) {
            best = Some((at, gain));
        }
    }
    best.map(|(at, _)| at)
}

fn is_change(values: &[f64], at: usize) -> bool {
    let clipped = clipped(values);
    let ((m1, _), (m2, _)) = (mean_and_deviation(&clipped[..at]), mean_and_deviation(&clipped[at..]));
    let (n1, n2) = (at as f64, (values.len() - at) as f64);
    let gain = n1 * n2 / (n1 + n2) * (m1 - m2) * (m1 - m2);
    let (before, after) = (median(&mut values[..at].to_vec()), median(&mut values[at..].to_vec()));
    let difference = (after - before).abs();
    let is_large = difference > 0.0 && difference >= EFFECT_MIN * before.abs();
    let rest = clipped[..at].iter().map(|value| value - m1);
    let rest: Vec<f64> = rest.chain(clipped[at..].iter().map(|value| value - m2)).collect();
    let spread = robust_spread(&rest, 0.0).max(mean_and_deviation(&rest).1);
    let noise = (spread * spread * long_run_factor(&rest)).min(noise(&clipped));
    is_large && gain > PENALTY * libm::log(n1 + n2) * noise
}

/// Estimates the long-run variance (the variance of a mean, times the number of windows) from differences of
/// neighbours.
fn noise(values: &[f64]) -> f64 {
    let (near, far) = (squares(values, 1), squares(values, 2));
    if near <= 0.0 {
        return 0.0;
    }
    let r = (far / near - 1.0).clamp(0.0, 0.9);
    near * (1.0 + r) / (2.0 * (1.0 - r) * (1.0 - r))
}

/// Returns the mean square of the differences of windows `apart` positions apart, without the largest
/// twentieth.
fn squares(values: &[f64], apart: usize) -> f64 {
    let differences = values.iter().zip(&values[apart..]);
    let mut squares: Vec<f64> = differences.map(|(a, b)| (b - a) * (b - a)).collect();
    squares.sort_unstable_by(f64::total_cmp);
    let kept = squares.len() - squares.len().div_ceil(20);
    TRIMMED * squares[..kept].iter().sum::<f64>() / kept.max(1) as f64
}

/// Clips the values to [`CLIP`] robust spreads around the median. Steps survive, because the spread of two
/// levels is as large as their distance.
fn clipped(values: &[f64]) -> Vec<f64> {
    let middle = median(&mut values.to_vec());
    let reach = CLIP * robust_spread(values, middle);
    match reach > 0.0 {
        true => values.iter().map(|value| value.clamp(middle - reach, middle + reach)).collect(),
        false => values.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    #[test]
    fn steps_are_found_where_they_are() {
        let mut values = vec![10.0; 60];
        values[20..].iter_mut().for_each(|value| *value = 15.0);
        values[40..].iter_mut().for_each(|value| *value = 12.0);
        assert_eq!(change_points(&values), [20, 40]);
        assert!(change_points(&[10.0; 60]).is_empty());
        assert!(change_points(&[1.0, 9.0, 9.0]).is_empty());
    }

    /// Goal: in 1,000 windows of noise, at most 0.1 false change points for white and log-normal noise, and
    /// 0.2 for correlated noise.
    #[test]
    fn noise_has_no_change_points() {
        let (mut dice, rounds) = (Dice(77), 1_000);
        let mut points = |make: &dyn Fn(&mut Dice) -> Vec<f64>| {
            let found: usize = (0..rounds).map(|_| change_points(&make(&mut dice)).len()).sum();
            found as f64 / (rounds as f64 * 0.2)
        };
        let white = points(&|dice| dice.correlated(200, 0.0));
        let skewed = points(&|dice| dice.correlated(200, 0.0).iter().map(|x| libm::exp(*x)).collect());
        let red = points(&|dice| dice.correlated(200, 0.5));
        assert!(white <= 0.1 && skewed <= 0.1 && red <= 0.2, "{white} {skewed} {red}");
    }

    /// Goal: at least 95 % of steps of three spreads are found at most six windows from the step, with twelve
    /// windows after it.
    #[test]
    fn a_step_is_found_within_twelve_windows() {
        for r in [0.0, 0.5] {
            let (mut dice, rounds) = (Dice(78), 400);
            let found = (0..rounds).filter(|_| {
                let mut values = dice.correlated(112, r);
                values[100..].iter_mut().for_each(|value| *value += 3.0);
                change_points(&values).iter().any(|at| at.abs_diff(100) <= SEGMENT_MIN)
            });
            let share = found.count() as f64 / rounds as f64;
            assert!(share >= 0.95, "correlation {r}: {share}");
        }
    }
}
