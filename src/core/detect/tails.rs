//! Tail probabilities of the distributions that limits are derived from.
//!
//! Formula: Student's t by the regularised incomplete beta function, the Poisson distribution by the
//! incomplete gamma function (continued fractions and series, Press et al. §6), the normal distribution by
//! erfc; each to about 1e-12.
//! Cost: tens of terms of a series; limits are computed once per closed window, not once per evaluation.
//! Rejected: series expansions of the quantiles alone (1 % off below ten degrees of freedom), a table.

use libm::{erfc, exp, fabs, lgamma, log, sqrt};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Number of terms after which a series or fraction is cut off; for the gamma function, 20 times as many.
/// They converge within tens of terms.
const STEPS_MAX: usize = 500;

/// Replacement for a denominator near zero, and the relative change below which a fraction has converged.
const NOTHING: f64 = 1e-300;
const EXACT: f64 = 1e-15;

/// Maximum number of memoised limits, 40 B each. There is one for each number of degrees of freedom and each
/// number of tests.
const LIMITS_MAX: usize = 4_096;

/// Relative tolerance of a limit. The tail probabilities are no more accurate.
const CLOSE: f64 = 1e-12;

/// P(Z > z) of the standard normal distribution.
pub(crate) fn normal_above(z: f64) -> f64 {
    0.5 * erfc(z / std::f64::consts::SQRT_2)
}

/// P(T > t) of Student's t with `freedom` > 0 degrees of freedom.
pub(crate) fn student_above(t: f64, freedom: f64) -> f64 {
    let half = 0.5 * beta(freedom / (freedom + t * t), freedom / 2.0, 0.5);
    if t >= 0.0 { half } else { 1.0 - half }
}

/// Returns the t that is exceeded with this probability, which must be above 0 and at most a half. Newton's
/// method runs on the logarithm of the tail, which is nearly linear; a bracket contains the result. About
/// eight evaluations of the tail suffice.
pub(crate) fn student_limit(probability: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    while student_above(high, freedom) > probability && high < 1e12 {
        (low, high) = (high, high * 2.0);
    }
    let mut t = (low + high) / 2.0;
    for _ in 0..STEPS_MAX {
        let tail = student_above(t, freedom);
        match tail > probability {
            true => low = t,
            false => high = t,
        }
        let step = log(tail / probability) * tail / student_density(t, freedom);
        if fabs(step) <= t * CLOSE || high - low <= high * CLOSE {
            break;
        }
        let next = t + step;
        t = if next > low && next < high { next } else { (low + high) / 2.0 };
    }
    t
}

/// Memoised [`student_limit`]: a rule needs the same few limits at each closed window of each key.
pub(crate) fn student_limit_again(probability: f64, freedom: f64) -> f64 {
    thread_local! {
        static KNOWN: RefCell<BTreeMap<(u64, u64), f64>> = const { RefCell::new(BTreeMap::new()) };
    }
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= LIMITS_MAX {
            known.clear();
        }
        let limit = || student_limit(probability, freedom);
        *known.entry((probability.to_bits(), freedom.to_bits())).or_insert_with(limit)
    })
}

fn student_density(t: f64, freedom: f64) -> f64 {
    let front = lgamma((freedom + 1.0) / 2.0) - lgamma(freedom / 2.0);
    exp(front - (freedom + 1.0) / 2.0 * log(1.0 + t * t / freedom)) / sqrt(freedom * std::f64::consts::PI)
}

/// P(X ≥ k) of a Poisson distribution with this mean.
pub(crate) fn poisson_at_least(k: u64, mean: f64) -> f64 {
    if k == 0 { 1.0 } else { gamma_below(k as f64, mean) }
}

/// The regularised incomplete beta function I_x(a, b).
fn beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1.0 - x));
    match x < (a + 1.0) / (a + b + 2.0) {
        true => front * beta_fraction(x, a, b) / a,
        false => 1.0 - front * beta_fraction(1.0 - x, b, a) / b,
    }
}

/// Evaluates the continued fraction of the incomplete beta function by Lentz's method.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let some = |value: f64| if fabs(value) < NOTHING { NOTHING } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / some(1.0 - (a + b) * x / (a + 1.0));
    let mut product = d;
    for step in 1..STEPS_MAX {
        let m = step as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / some(1.0 + term * d);
            c = some(1.0 + term / c);
            change = c * d;
            product *= change;
        }
        if fabs(change - 1.0) < EXACT {
            break;
        }
    }
    product
}

/// The regularised incomplete gamma function P(a, x).
fn gamma_below(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let front = exp(a * log(x) - x - lgamma(a));
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for step in 1..STEPS_MAX * 20 {
            term *= x / (a + step as f64);
            sum += term;
            if term < sum * EXACT {
                break;
            }
        }
        return front * sum;
    }
    let some = |value: f64| if fabs(value) < NOTHING { NOTHING } else { value };
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / NOTHING;
    let mut d = 1.0 / some(b);
    let mut product = d;
    for step in 1..STEPS_MAX * 20 {
        let n = step as f64;
        let term = -n * (n - a);
        b += 2.0;
        d = 1.0 / some(term * d + b);
        c = some(b + term / c);
        product *= c * d;
        if fabs(c * d - 1.0) < EXACT {
            break;
        }
    }
    1.0 - front * product
}

/// The standard error of a share of `n` values, each of which is a hit with probability `chance`.
pub(crate) fn share_error(chance: f64, n: f64) -> f64 {
    sqrt(chance * (1.0 - chance) / n.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are those of mpmath at 30 digits.
    #[test]
    fn tails_are_those_of_the_tables() {
        let near = |got: f64, table: f64| assert!((got / table - 1.0).abs() < 1e-10, "{got} for {table}");
        near(normal_above(3.0), 1.349_898_031_630_094_6e-3);
        near(normal_above(6.0), 9.865_876_450_377e-10);
        near(student_above(3.0, 5.0), 0.015049623948731286);
        near(student_above(5.0, 7.0), 0.0007826389765864123);
        near(student_above(2.5, 100.0), 0.007022894562038588);
        near(student_above(-1.0, 3.5), 0.8093313732182772);
        near(poisson_at_least(10, 3.0), 0.0011024881301154798);
        near(poisson_at_least(3, 10.0), 0.9972306042844884);
    }

    #[test]
    fn limits_are_where_the_tail_is() {
        for (freedom, table) in [
            (7.0, 4.785289628638334),
            (11.0, 4.024701037630738),
            (23.0, 3.4849643749398136),
            (287.0, 3.1188705817303117),
        ] {
            let limit = student_limit(1e-3, freedom);
            assert!((limit / table - 1.0).abs() < 1e-10, "{freedom}: {limit}");
            assert!((student_above(limit, freedom) / 1e-3 - 1.0).abs() < 1e-9);
        }
        assert!((student_limit(1e-2, 47.0) / 2.408_345 - 1.0).abs() < 1e-6);
        assert!(student_limit(0.5, 9.0).abs() < 1e-9);
    }
}
