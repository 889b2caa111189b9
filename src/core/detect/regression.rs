//! `regression`: is this window worse than its own past, by enough, and more than by chance?
//!
//! Intuition: no single statistic finds everything. A shift of all requests shows in the median, a slow
//! minority in the tail, most things in the mean of logarithms. So a window is asked four questions, each
//! against the same question to the windows before it, and the limit is that of four questions.
//! Formula: the asked aggregate, p50 and the mean logarithm by [`Level::distance`]; the share above the
//! past's p95 by z = (r − p₀) / √(φ p₀ (1 − p₀) (1/n + 1/N)) with φ = max(1, Var(rᵢ) n / (p₀ (1 − p₀))).
//! Each is divided by t(α/k, B − 1) for k questions; the score is the largest. Deployments are few, and
//! lie apart with heavy tails: their limit has half the degrees of freedom.
//! An aggregate that is no quantile is asked about alone.
//! Rejected: tests on the requests themselves (Kolmogorov–Smirnov, Mann–Whitney), which call a fifth of all
//! unchanged windows changed; p95 beside the tail share (its own spread is too wide with a hundred
//! requests); waiting for three windows inside the function (that is what `for` is for).
//! Cost: O(B) once a closed window, O(1) an evaluation beside reading the window.

use super::baseline::Level;
use super::tails::student_limit;
use crate::core::rule::ast::Side;
use serde::{Deserialize, Serialize};

/// Fewer past windows than this are no baseline.
pub const WINDOWS_MIN: usize = 12;

/// Fewer deployments than this are no baseline.
pub const DEPLOYS_MIN: usize = 4;

/// A change smaller than this is nobody's business, however significant.
pub const EFFECT_MIN: f64 = 0.03;

/// One-sided: a quiet window passes by chance once in a thousand, all questions together.
pub const ALPHA: f64 = 1e-3;

/// Fewer values than this have no tail, no error and no logarithm worth a question.
pub const VALUES_MIN: u64 = 30;

/// What is known of one window; shares and logarithms only of windows with enough values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    pub count: u64,
    /// The asked aggregate.
    pub value: f64,
    pub profile: Option<Profile>,
}

/// How a window's values are distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    pub p50: f64,
    /// Sampling error of the median (Woodruff).
    pub p50_error: f64,
    /// Share of values above the past's p95.
    pub tail: f64,
    /// Mean and sampling error of the logarithms; only where all values are above zero.
    pub log: Option<(f64, f64)>,
}

/// What is normal, learned once a closed window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub asked: Level,
    median: Option<Level>,
    log: Option<Level>,
    tail: Option<Tail>,
    limit: f64,
}

/// The share above the past's p95.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Tail {
    share: f64,
    /// How much wider than by chance the shares lie apart.
    width: f64,
    values: f64,
}

/// One question and its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Signed relative change of the asked aggregate; 0 where nothing is significant.
    pub change: f64,
    /// The largest statistic, and the limit it had to pass.
    pub score: f64,
    pub limit: f64,
    /// What spoke loudest.
    pub by: &'static str,
}

impl Reference {
    /// `is_of_deploys`: each window is one deployment. `None` with too few of them.
    pub fn learn(past: &[Window], is_of_deploys: bool) -> Option<Reference> {
        let least = if is_of_deploys { DEPLOYS_MIN } else { WINDOWS_MIN };
        if past.len() < least {
            return None;
        }
        let values: Vec<f64> = past.iter().map(|window| window.value).collect();
        let asked = Level::learn(&values, 0.0)?;
        let profiles: Vec<(f64, Profile)> =
            past.iter().filter_map(|window| Some((window.count as f64, window.profile?))).collect();
        let has_profiles = profiles.len() >= least;
        let logs: Vec<(f64, f64)> = profiles.iter().filter_map(|(_, profile)| profile.log).collect();
        let median = has_profiles.then(|| of(profiles.iter().map(|(_, s)| (s.p50, s.p50_error)))).flatten();
        let log = (logs.len() >= least).then(|| of(logs.into_iter())).flatten();
        let tail = if has_profiles { Tail::learn(&profiles) } else { None };
        let questions =
            1 + [median.is_some(), log.is_some(), tail.is_some()].map(usize::from).iter().sum::<usize>();
        let freedom = (past.len() - 1) as f64 / if is_of_deploys { 2.0 } else { 1.0 };
        let limit = student_limit(ALPHA / questions as f64, freedom);
        Some(Reference { asked, median, log, tail, limit })
    }

    /// Compares one window, to one side.
    pub fn judge(&self, window: &Window, side: Side) -> Verdict {
        let sign = if side == Side::Above { 1.0 } else { -1.0 };
        let profile = window.profile;
        let questions = [
            Some(("the aggregate", self.asked.distance(window.value, 0.0))),
            profile
                .zip(self.median)
                .map(|(profile, level)| ("p50", level.distance(profile.p50, profile.p50_error))),
            profile
                .and_then(|profile| profile.log)
                .zip(self.log)
                .map(|((mean, error), level)| ("the mean logarithm", level.distance(mean, error))),
            profile.zip(self.tail).map(|(profile, tail)| {
                ("the share above the past's p95", tail.distance(profile.tail, window.count as f64))
            }),
        ];
        let loudest = questions.into_iter().flatten().map(|(by, distance)| (by, sign * distance));
        let (by, score) =
            loudest.fold(("the aggregate", f64::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a });
        let changes = [
            relative(window.value, self.asked.center),
            profile.zip(self.median).and_then(|(profile, level)| relative(profile.p50, level.center)),
        ];
        // The asked aggregate's change; where it did not move enough, that of the median.
        let change = changes.into_iter().flatten().find(|change| sign * change >= EFFECT_MIN);
        let change = change.filter(|_| score > self.limit).unwrap_or(0.0);
        Verdict { change, score, limit: self.limit, by }
    }
}

impl Verdict {
    /// 1 = just significant.
    pub fn ratio(&self) -> f64 {
        self.score / self.limit
    }
}

fn relative(value: f64, center: f64) -> Option<f64> {
    (center != 0.0).then(|| (value - center) / center.abs())
}

/// A level of values that each have a sampling error.
fn of(values: impl Iterator<Item = (f64, f64)>) -> Option<Level> {
    let (values, mut errors): (Vec<f64>, Vec<f64>) = values.unzip();
    Level::learn(&values, super::median(&mut errors))
}

impl Tail {
    fn learn(profiles: &[(f64, Profile)]) -> Option<Tail> {
        let values: f64 = profiles.iter().map(|(count, _)| count).sum();
        let share = profiles.iter().map(|(count, profile)| count * profile.tail).sum::<f64>() / values;
        let expected = share * (1.0 - share);
        if expected <= 0.0 {
            return None;
        }
        let squares =
            profiles.iter().map(|(count, profile)| count * (profile.tail - share) * (profile.tail - share));
        let width = squares.sum::<f64>() / (profiles.len() as f64 - 1.0) / expected;
        Some(Tail { share, width: width.max(1.0), values })
    }

    fn distance(&self, share: f64, count: f64) -> f64 {
        let variance = self.width * self.share * (1.0 - self.share) * (1.0 / count + 1.0 / self.values);
        (share - self.share) / variance.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    fn plain(values: &[f64]) -> Vec<Window> {
        values.iter().map(|value| Window { count: 100, value: *value, profile: None }).collect()
    }

    #[test]
    fn a_change_must_be_large_and_significant_and_to_the_side_asked_for() {
        let past: Vec<f64> = (0..24).map(|n| 100.0 + f64::from(n % 5)).collect();
        let reference = Reference::learn(&plain(&past), false).expect("enough windows");
        let change = |now: f64, side| reference.judge(&plain(&[now])[0], side).change;
        assert_eq!(change(103.0, Side::Above), 0.0);
        assert!((change(150.0, Side::Above) - 0.47).abs() < 0.02);
        assert_eq!(change(150.0, Side::Below), 0.0);
        assert!(change(60.0, Side::Below) < -0.4);
        assert_eq!(Reference::learn(&plain(&past[..11]), false), None);
    }

    #[test]
    fn a_steady_metric_has_a_spread_all_the_same() {
        let reference = Reference::learn(&plain(&[50.0; 30]), false).expect("enough windows");
        let change = |now: f64| reference.judge(&plain(&[now])[0], Side::Above).change;
        assert_eq!(change(50.5), 0.0);
        assert!(change(60.0) > 0.19);
    }

    #[test]
    fn a_score_rises_with_the_window_and_one_is_the_limit() {
        let past: Vec<f64> = (0..30).map(|n| 100.0 + f64::from(n * 7 % 11)).collect();
        let reference = Reference::learn(&plain(&past), false).expect("enough windows");
        let score = |now: f64| reference.judge(&plain(&[now])[0], Side::Above).ratio();
        assert!((100..200).all(|now| score(f64::from(now)) < score(f64::from(now + 1))));
        let verdict = reference.judge(&plain(&[300.0])[0], Side::Above);
        assert!(verdict.ratio() > 1.0 && verdict.change > 0.0);
    }

    /// A hundred values of a log-normal, a share of them three times as slow.
    fn requests(dice: &mut Dice, slow: f64, shift: f64) -> Vec<f64> {
        let value = |dice: &mut Dice| {
            let factor = if dice.uniform() < slow { 3.0 } else { 1.0 };
            factor * shift * libm::exp(4.0 + 0.3 * dice.normal())
        };
        (0..100).map(|_| value(dice)).collect()
    }

    fn window(values: &[f64], x0: f64) -> Window {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let q = |q: f64| super::super::quantile_of_sorted(&sorted, q);
        let logs: Vec<f64> = values.iter().map(|value| libm::log(*value)).collect();
        let (mean, deviation) = super::super::mean_and_deviation(&logs);
        let tail = values.iter().filter(|value| **value > x0).count() as f64 / values.len() as f64;
        let profile = Profile {
            p50: q(0.5),
            p50_error: (q(0.55) - q(0.45)) / 2.0,
            tail,
            log: Some((mean, deviation / 10.0)),
        };
        Window { count: 100, value: q(0.95), profile: Some(profile) }
    }

    /// Goal: unchanged windows pass about once in a thousand; a slow fifth and a shift of a quarter are found.
    #[test]
    fn the_level_is_what_it_says_and_slow_minorities_and_shifts_are_found() {
        let mut dice = Dice(11);
        let x0 = libm::exp(4.0 + 0.3 * 1.645);
        let (mut passed, mut found, mut shifted, rounds) = (0, 0, 0, 4_000);
        for _ in 0..rounds {
            let past: Vec<Window> = (0..24).map(|_| window(&requests(&mut dice, 0.0, 1.0), x0)).collect();
            let reference = Reference::learn(&past, false).expect("enough windows");
            let score = |dice: &mut Dice, slow, shift| {
                reference.judge(&window(&requests(dice, slow, shift), x0), Side::Above).ratio() > 1.0
            };
            passed += u32::from(score(&mut dice, 0.0, 1.0));
            found += u32::from(score(&mut dice, 0.2, 1.0));
            shifted += u32::from(score(&mut dice, 0.0, 1.25));
        }
        let share = |n: u32| f64::from(n) / f64::from(rounds);
        assert!(share(passed) <= 0.002, "{} of unchanged windows", share(passed));
        assert!(share(found) > 0.98 && share(shifted) > 0.98, "{} {}", share(found), share(shifted));
    }
}
