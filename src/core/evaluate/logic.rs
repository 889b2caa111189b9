//! `and`, `or` and `unless`: the answer to a condition from the answers to its two sides.
//!
//! Intuition: this is Kleene's logic: an unknown side matters only where it could have changed the answer.
//! A side that reads a series which the key never had (or no longer has) differs from a side whose data has
//! a gap. A gap may hide anything; a missing series hides nothing. So, as with Prometheus' sets, a side
//! without a series counts as not met beside another side.
//! Invariant: unknown never becomes not met, nor the other way round.
//!
//! | a       | b        | a and b | a or b  | a unless b |
//! |---------|----------|---------|---------|------------|
//! | met     | met      | met     | met     | not met    |
//! | met     | not met  | not met | met     | met        |
//! | met     | unknown  | unknown | met     | unknown    |
//! | met     | no series| not met | met     | met        |
//! | not met | any      | not met | b       | not met    |
//! | unknown | met      | unknown | met     | not met    |
//! | unknown | not met  | not met | unknown | unknown    |
//! | unknown | unknown  | unknown | unknown | unknown    |
//! | unknown | no series| not met | unknown | unknown    |
//! | no series | any    | not met | b       | not met    |
//!
//! On its own, a comparison with a value that has no series is unknown, because it has no other side that
//! it could qualify. `count`, `sum` and `rate` over a missing series are 0, as over an empty window.
//! Rejected: treating a missing series as unknown (`a unless b` would never fire where no producer ever
//! sent b), and treating a gap as not met (an outage would then decide the answer of `unless`).

use crate::core::alert::Unknown;

/// Whether a condition holds; [`Unknown::Unseen`] if it reads a missing series.
pub(super) type Answer = Result<bool, Unknown>;

pub(super) fn and(a: Answer, b: Answer) -> Answer {
    match (beside(a), beside(b)) {
        // False is stronger than unknown, and unknown is stronger than true.
        (Ok(false), _) | (_, Ok(false)) => Ok(false),
        (Ok(true), Ok(true)) => Ok(true),
        (Err(reason), _) | (_, Err(reason)) => Err(reason),
    }
}

pub(super) fn or(a: Answer, b: Answer) -> Answer {
    not(and(not(beside(a)), not(beside(b))))
}

pub(super) fn unless(a: Answer, b: Answer) -> Answer {
    and(a, not(beside(b)))
}

/// Returns an answer as it counts in combination with another side: a missing series counts as not met.
fn beside(answer: Answer) -> Answer {
    match answer {
        Err(Unknown::Unseen) => Ok(false),
        other => other,
    }
}

fn not(answer: Answer) -> Answer {
    answer.map(|holds| !holds)
}

/// Returns both values. If one of them has no series, the pair has none, whatever the other one is.
pub(super) fn both(a: Result<f64, Unknown>, b: Result<f64, Unknown>) -> Result<(f64, f64), Unknown> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(Unknown::Unseen), _) | (_, Err(Unknown::Unseen)) => Err(Unknown::Unseen),
        (Err(reason), _) | (_, Err(reason)) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: Answer = Ok(true);
    const NO: Answer = Ok(false);
    const GAP: Answer = Err(Unknown::NoData);
    const NONE: Answer = Err(Unknown::Unseen);

    #[test]
    fn the_table_is_that_of_the_page() {
        let table = [
            // Columns: a, b, and, or, unless.
            (YES, YES, YES, YES, NO),
            (YES, NO, NO, YES, YES),
            (YES, GAP, GAP, YES, GAP),
            (YES, NONE, NO, YES, YES),
            (NO, YES, NO, YES, NO),
            (NO, NO, NO, NO, NO),
            (NO, GAP, NO, GAP, NO),
            (NO, NONE, NO, NO, NO),
            (GAP, YES, GAP, YES, NO),
            (GAP, NO, NO, GAP, GAP),
            (GAP, GAP, GAP, GAP, GAP),
            (GAP, NONE, NO, GAP, GAP),
            (NONE, YES, NO, YES, NO),
            (NONE, NO, NO, NO, NO),
            (NONE, GAP, NO, GAP, NO),
            (NONE, NONE, NO, NO, NO),
        ];
        for (a, b, is_both, is_any, is_only) in table {
            assert_eq!((and(a, b), or(a, b), unless(a, b)), (is_both, is_any, is_only), "{a:?} {b:?}");
        }
    }

    #[test]
    fn nothing_becomes_of_a_value_beside_one_that_has_no_series() {
        let (gap, none) = (Err(Unknown::NoData), Err(Unknown::Unseen));
        assert_eq!(both(Ok(1.0), Ok(2.0)), Ok((1.0, 2.0)));
        assert_eq!((both(gap, none), both(none, Ok(1.0))), (Err(Unknown::Unseen), Err(Unknown::Unseen)));
        assert_eq!(both(Ok(1.0), gap), Err(Unknown::NoData));
    }
}
