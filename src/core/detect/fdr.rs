//! False discovery rate: decides which of many unusual keys are reported.
//!
//! Intuition: among ten thousand quiet keys, ten pass a limit of one in a thousand each minute. A threshold
//! derived from the p-values of all keys together limits the false alarms to a stated share of all reports.
//! Formula: Benjamini–Hochberg with m keys and the accepted share q of false alarms: the largest k with p₍ₖ₎
//! ≤ q k / m. The keys with the k smallest p-values are reported.
//! Rejected: Bonferroni (finds half as many changed keys), a limit for each key (its false alarms grow with
//! the number of keys).
//! Cost: O(m log m) at most.

/// Returns the largest p-value that is significant; `None` if none is. `chances`: the p-values, which are
/// reordered; `all`: the number of keys, including those without a p-value; `share`: the accepted share of
/// false alarms.
pub(crate) fn believed(chances: &mut [f64], all: usize, share: f64) -> Option<f64> {
    chances.sort_unstable_by(f64::total_cmp);
    let is_small = |(at, chance): &(usize, &f64)| **chance <= share * (*at as f64 + 1.0) / all as f64;
    chances.iter().enumerate().filter(is_small).map(|(_, chance)| *chance).next_back()
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::super::tails::normal_above;
    use super::*;

    #[test]
    fn the_example_of_the_paper() {
        // Benjamini & Hochberg 1995, table 1: four of fifteen are significant at q = 0.05.
        let chances = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
            0.6528, 0.7590, 1.0,
        ];
        assert_eq!(believed(&mut chances.to_vec(), 15, 0.05), Some(0.0095));
        let more = [&chances[..], &[1.0; 100]].concat();
        let fewer = believed(&mut more.clone(), 115, 0.05);
        assert!(fewer.is_none_or(|limit| limit <= 0.0095), "what is sure of nothing adds nothing");
        assert_eq!(believed(&mut [0.2, 0.9], 2, 0.05), None);
    }

    /// Anchor: ten of a thousand keys are changed by five sigma. 5.4 % of the reported keys are false, and 96
    /// % of the changed keys are found.
    #[test]
    fn the_share_of_false_alarms_is_as_stated() {
        let (mut dice, mut told, mut wrong, mut found) = (Dice(31), 0, 0, 0);
        for _ in 0..400 {
            let z: Vec<f64> = (0..1_000).map(|at| dice.normal() + if at < 10 { 5.0 } else { 0.0 }).collect();
            let chances: Vec<f64> = z.iter().map(|z| normal_above(*z)).collect();
            let Some(limit) = believed(&mut chances.clone(), 1_000, 0.05) else { continue };
            let is_told = |at: &usize| chances[*at] <= limit;
            told += (0..1_000).filter(is_told).count();
            found += (0..10).filter(is_told).count();
            wrong += (10..1_000).filter(is_told).count();
        }
        let (share, recall) = (wrong as f64 / told as f64, found as f64 / 4_000.0);
        assert!((0.04..=0.06).contains(&share) && recall > 0.94, "{share} {recall}");
    }
}
