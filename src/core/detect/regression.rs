//! `regression`: tests whether a window is worse than its own past, by enough, and by more than chance.
//!
//! Intuition: no single statistic finds every change. A shift of all requests shows in the median, a slow
//! minority shows in the tail, and most changes show in the mean of the logarithms. So up to four statistics
//! of a window are tested, each against the same statistic of the windows before it. The limit is corrected
//! for the number of tests.
//! Formula: [`Level::distance`] compares the queried aggregate, p50 and the mean logarithm. The share r of a
//! window's n values above the past's p95 is compared with the share p₀ of the past's N values by z = (r −
//! p₀) / √(φ p₀ (1 − p₀) (1/n + 1/N)). The overdispersion is φ = max(1, Var(rᵢ) n / (p₀ (1 − p₀))) over the
//! shares rᵢ of past windows. The code uses the arcsine form of z, which suits small shares better. Each
//! statistic is divided by its limit t(α/k, B − 1) for k tests and B past windows, and the largest quotient
//! decides.
//! Deployments are few and their levels have heavy tails, so their spread counts with half the degrees of
//! freedom. The spread between windows of one deployment is known better, from the windows of all
//! deployments. So the limit for both variances together is (b t_b + w t_w) / (b + w), with the variance b
//! between deployments, the variance w within them, and the t limits t_b and t_w for their degrees of freedom
//! (Cochran and Cox).
//! A quantile q of n values counts as changed only if its confidence bound, the window's value at the rank q
//! ∓ t √(q (1 − q)/n), is beyond the past's centre as well. Otherwise values in whole milliseconds would
//! cause false alarms: thirty windows may have a quantile of 4 and the next one 5, although hardly more of
//! its values are above 4.
//! An aggregate that is not a quantile is tested alone. Small counts and shares are tested exactly, with −ln
//! of the p-value as score.
//! Rejected: tests on the requests themselves (Kolmogorov–Smirnov, Mann–Whitney), which report a fifth of all
//! unchanged windows as changed; p95 beside the tail share (the spread of p95 is too wide with a hundred
//! requests); one number of degrees of freedom for the sum of both variances (Satterthwaite: if the levels of
//! versions have heavy tails, four in a thousand unchanged windows are reported instead of one); waiting for
//! three windows inside the function (a rule's `for` does that).
//! Cost: a few passes over B sorted numbers per closed window; O(1) per evaluation, besides reading the
//! window.

use super::baseline::Level;
use super::counts::Counts;
use super::shares::Shares;
use super::sorted::Sorted;
use super::tails::{share_error, student_above, student_limit, student_limit_again};
use crate::core::vocab::comparison::Side;
use serde::{Deserialize, Serialize};

/// Minimum number of past windows for a baseline.
pub const WINDOWS_MIN: usize = 12;

/// Minimum number of deployments for a baseline.
pub const DEPLOYS_MIN: usize = 4;

/// Minimum relative change that is reported; a smaller change is irrelevant, however significant it is.
pub const EFFECT_MIN: f64 = 0.03;

/// One-sided significance level of all tests together: one in a thousand unchanged windows exceeds the limit
/// by chance.
pub const ALPHA: f64 = 1e-3;

/// Minimum number of values for a window's tail share, sampling error and mean logarithm.
pub const VALUES_MIN: u64 = 30;

/// The statistics of one window; only windows with enough values have a profile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    pub count: u64,
    /// The value of the queried aggregate.
    pub value: f64,
    pub profile: Option<Profile>,
}

/// The distribution of a window's values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    pub p50: f64,
    /// Sampling error of the median (Woodruff's method).
    pub p50_error: f64,
    /// Share of values above the past's p95.
    pub tail: f64,
    /// Mean and sampling error of the logarithms; present only if all values are above zero.
    pub log: Option<(f64, f64)>,
}

/// The statistics of the past windows, each in ascending order. Those of the profiles are stored as f32, with
/// seven digits, to save memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    pub values: Sorted<f64>,
    p50: Sorted<f32>,
    log: Sorted<f32>,
    /// The medians of the sampling errors of `p50` and `log`; 0 if there are none.
    p50_error: f64,
    log_error: f64,
}

impl Past {
    pub fn of(windows: &[Window]) -> Past {
        let values = windows.iter().map(|window| window.value).collect();
        let numbers = |read: fn(&Profile) -> Option<f64>| {
            let profiles = windows.iter().filter_map(|window| window.profile.as_ref());
            profiles.filter_map(|profile| Some(read(profile)? as f32)).collect::<Vec<f32>>()
        };
        let error = |read| super::median(&mut numbers(read).into_iter().map(f64::from).collect::<Vec<f64>>());
        Past {
            values: Sorted::of(values),
            p50: Sorted::of(numbers(|profile| Some(profile.p50))),
            log: Sorted::of(numbers(|profile| profile.log.map(|(mean, _)| mean))),
            p50_error: error(|profile| Some(profile.p50_error)),
            log_error: error(|profile| profile.log.map(|(_, error)| error)),
        }
    }
}

/// The learned baseline; it is learned again for each closed window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub asked: Level,
    median: Option<Level>,
    log: Option<Level>,
    tail: Option<Tail>,
    exact: Option<Exact>,
    within: Spreads,
    /// Limits for the queried aggregate, the median and the mean logarithm, in this order. The tail share
    /// uses the first.
    bars: [Bar; 3],
    questions: f64,
}

/// The limit of a statistic, and the degrees of freedom of its spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Bar {
    limit: f64,
    freedom: f64,
}

/// The exact test for values whose spread is no basis for a t-test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Exact {
    Counts(Counts),
    Shares(Shares),
}

/// Relative error of a quantile read from a histogram of two digits (1 %): two readings of equal quantiles
/// may differ by as much.
const READ_WITHIN: f64 = 0.01;

/// Counts with a mean below this are tested exactly.
const COUNTS_BELOW: f64 = 20.0;

/// Anscombe's correction: it makes the arcsine of a small share as symmetric as possible.
const ANSCOMBE: f64 = 0.375;

/// The baseline for the share of values above the past's p95.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    share: f64,
    /// Overdispersion: the variance of the shares between windows divided by the variance by chance, at
    /// least 1.
    width: f64,
    values: f64,
}

/// The sampling errors of the judged window's quantiles: the distances to their confidence bounds, divided by
/// the limit ([`Reference::errors`]). 0 if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Errors {
    pub asked: f64,
    pub median: f64,
}

/// The result of judging one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Signed relative change of the queried aggregate, or of the median if only the median changed enough; 0
    /// if nothing is significant.
    pub change: f64,
    /// The statistic that exceeds its limit by the largest factor, and that limit.
    pub score: f64,
    pub limit: f64,
    /// The name of that statistic.
    pub by: &'static str,
    /// The p-value over all tests: the probability that an unchanged window has at least this score. 1 if it
    /// is above [`ALPHA`].
    pub chance: f64,
}

/// One deployment: the medians of its windows, and the spread between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deploy {
    summary: Window,
    /// Sampling error of the summary's value. The fewer windows a version has, the larger it is.
    error: f64,
    within: Spreads,
    windows: usize,
}

/// Ratio of the sampling error of a median to that of a mean, for normally distributed values: √(π/2).
const MEDIAN_ERROR: f64 = 1.253_314_137_315_5;

/// The spread between single windows of one deployment: of the aggregate, the median and the mean logarithm.
type Spreads = [f64; 3];

impl Deploy {
    /// Summarises the windows of one version; `None` without any.
    pub fn of(windows: &[Window]) -> Option<Deploy> {
        let middle = |read: &dyn Fn(&Window) -> Option<f64>| {
            let mut values: Vec<f64> = windows.iter().filter_map(read).collect();
            let spread = super::mean_and_deviation(&values).1;
            let error = MEDIAN_ERROR * spread / (values.len() as f64).sqrt();
            (!values.is_empty()).then(|| (super::median(&mut values), spread, error))
        };
        let (value, spread, error) = middle(&|window| Some(window.value))?;
        let of_profile = |read: fn(&Profile) -> Option<f64>| middle(&|window| read(window.profile.as_ref()?));
        let (p50, log) = (of_profile(|it| Some(it.p50)), of_profile(|it| Some(it.log?.0)));
        // `error` is the sampling error of the summary's value; `within` is the spread of a single window.
        let profile = p50.map(|(p50, _, p50_error)| Profile {
            p50,
            p50_error,
            tail: 0.0,
            log: log.map(|(log, _, error)| (log, error)),
        });
        let count = windows.iter().map(|window| window.count).fold(0, u64::saturating_add);
        let within = [spread, p50.map_or(0.0, |(_, s, _)| s), log.map_or(0.0, |(_, s, _)| s)];
        Some(Deploy { summary: Window { count, value, profile }, error, within, windows: windows.len() })
    }
}

impl Reference {
    /// Learns from earlier deployments. The judged window is a single window, not the median of a
    /// deployment, so its distance from that median includes the usual spread within a deployment. The tail
    /// is not tested, because it begins at a different value in each deployment.
    pub fn learn_deploys(deploys: &[Deploy]) -> Option<Reference> {
        let summaries: Vec<Window> = deploys.iter().map(|deploy| deploy.summary).collect();
        let usual = |read: &dyn Fn(&Deploy) -> f64| {
            super::median(&mut deploys.iter().map(read).collect::<Vec<f64>>())
        };
        let within = [0, 1, 2].map(|at| usual(&|deploy| deploy.within[at]));
        let error = usual(&|deploy| deploy.error);
        let freedom: usize = deploys.iter().map(|deploy| deploy.windows - 1).sum();
        let reference = Reference::of(&Past::of(&summaries), tails(&[]), Some(error))?;
        let levels = [Some(reference.asked), reference.median, reference.log];
        let bars = [0, 1, 2].map(|at| {
            let (bar, level) = (reference.bars[at], levels[at]);
            level.map_or(bar, |level| {
                let within = (within[at] * within[at] - level.error * level.error).max(0.0);
                bar.with((within, freedom as f64), level.variance(), reference.questions)
            })
        });
        Some(Reference { within, bars, ..reference })
    }

    /// Learns from past windows; `None` with too few of them.
    pub fn learn(windows: &[Window]) -> Option<Reference> {
        Reference::of(&Past::of(windows), tails(windows), None)
    }

    /// Like [`Self::learn`], for statistics that are already sorted. `tails`: for each window, the number of
    /// values and the tail share; see [`tails`].
    pub fn learn_sorted(past: &Past, tails: impl Iterator<Item = (f64, f64)>) -> Option<Reference> {
        Reference::of(past, tails, None)
    }

    /// `of_deploys`: the sampling error of a deployment's value, if each window is the summary of a
    /// deployment.
    fn of(
        past: &Past,
        tails: impl Iterator<Item = (f64, f64)>,
        of_deploys: Option<f64>,
    ) -> Option<Reference> {
        let (windows, is_of_deploys) = (past.values.len(), of_deploys.is_some());
        let least = if is_of_deploys { DEPLOYS_MIN } else { WINDOWS_MIN };
        if windows < least {
            return None;
        }
        let asked = Level::learn(&past.values, of_deploys.unwrap_or(0.0))?;
        let level = |values: &Sorted<f32>, error: f64| match values.len() >= least {
            true => Level::learn(values, error),
            false => None,
        };
        let (median, log) = (level(&past.p50, past.p50_error), level(&past.log, past.log_error));
        let has_tail = past.p50.len() >= least && !is_of_deploys;
        let tail = if has_tail { Tail::learn(tails) } else { None };
        let questions =
            1 + [median.is_some(), log.is_some(), tail.is_some()].map(usize::from).iter().sum::<usize>();
        let freedom = (windows - 1) as f64 / if is_of_deploys { 2.0 } else { 1.0 };
        let questions = questions as f64;
        let bars = [Bar { limit: student_limit_again(ALPHA / questions, freedom), freedom }; 3];
        Some(Reference { asked, median, log, tail, exact: None, within: Spreads::default(), bars, questions })
    }

    /// Switches to the exact test for counts if the mean count is small. A count is a value times `scale`.
    pub fn counting(self, values: &Sorted<f64>, scale: f64) -> Reference {
        if self.asked.center * scale > 2.0 * COUNTS_BELOW {
            return self;
        }
        let counts = Counts::learn(values, scale).filter(|counts| counts.mean() < COUNTS_BELOW);
        Reference { exact: counts.map(Exact::Counts), ..self }
    }

    /// Switches to the exact test for shares if each window's average is one of zeros and ones. `windows`:
    /// (number of values, average) of each window.
    pub fn sharing(self, windows: impl Iterator<Item = (f64, f64)> + Clone) -> Reference {
        Reference { exact: Shares::learn(windows).map(Exact::Shares), ..self }
    }

    /// Returns the sampling errors of the compared quantiles of a window. `asked`: the level of the queried
    /// quantile; `None` if the queried aggregate is not a quantile. `read`: returns any quantile of the
    /// window.
    pub fn errors(
        &self,
        asked: Option<f64>,
        window: &Window,
        side: Side,
        mut read: impl FnMut(f64) -> Option<f64>,
    ) -> Errors {
        let mut error = |bar: Bar, q: f64, value: f64| {
            read(bar.as_well(q, window.count, side)).map_or(0.0, |other| bar.error(value, other))
        };
        // The quantiles of a single value are all equal, so they bound nothing.
        let asked = asked.filter(|_| window.count > 1);
        Errors {
            median: window.profile.map_or(0.0, |profile| error(self.bars[1], 0.5, profile.p50)),
            asked: asked.map_or(0.0, |q| error(self.bars[0], q, window.value)),
        }
    }

    /// Compares one window with the baseline, for a rise or a fall according to `side`. `believed`: the
    /// p-value threshold of the false discovery rate; it replaces [`ALPHA`] if it is smaller.
    pub fn judge(&self, window: &Window, errors: Errors, side: Side, believed: Option<f64>) -> Verdict {
        let alpha = believed.map_or(ALPHA, |believed| believed.min(ALPHA));
        if let Some(verdict) = self.judge_exactly(window, side, alpha) {
            return verdict;
        }
        let sign = if side == Side::Above { 1.0 } else { -1.0 };
        let (profile, [asked, median, log]) = (window.profile, self.bars);
        let questions = [
            Some((
                "the aggregate",
                self.asked.distance_in(window.value, self.within[0], errors.asked),
                asked,
            )),
            profile.zip(self.median).map(|(profile, level)| {
                let error = profile.p50_error.max(self.within[1]);
                ("p50", level.distance_in(profile.p50, error, errors.median), median)
            }),
            profile.and_then(|profile| profile.log).zip(self.log).map(|((mean, error), level)| {
                ("the mean logarithm", level.distance(mean, error.max(self.within[2])), log)
            }),
            profile.zip(self.tail).map(|(profile, tail)| {
                ("the share above the past's p95", tail.distance(profile.tail, window.count as f64), asked)
            }),
        ];
        let loudness = |(_, score, bar): &(&str, f64, Bar)| sign * score / bar.limit;
        let loudest = questions.into_iter().flatten().max_by(|a, b| loudness(a).total_cmp(&loudness(b)));
        // The list always contains the aggregate, so the default is never used.
        let (by, score, bar) = loudest.unwrap_or(("the aggregate", 0.0, asked));
        let score = sign * score;
        let limit = match alpha < ALPHA {
            true => student_limit(alpha / self.questions, bar.freedom).max(bar.limit),
            false => bar.limit,
        };
        let changes = [
            relative(window.value, self.asked.center),
            profile.zip(self.median).and_then(|(profile, level)| relative(profile.p50, level.center)),
        ];
        // The reported change is that of the queried aggregate, or that of the median if the aggregate
        // changed too little.
        let change = changes.into_iter().flatten().find(|change| sign * change >= EFFECT_MIN);
        let change = change.filter(|_| score > limit).unwrap_or(0.0);
        let is_rare = score > bar.limit;
        let chance = if is_rare { self.questions * student_above(score, bar.freedom) } else { 1.0 };
        Verdict { change, score, limit, by, chance }
    }

    /// Returns the verdict of the exact test; `None` if the t-test applies, because the spread between
    /// windows is a sufficient basis.
    fn judge_exactly(&self, window: &Window, side: Side, alpha: f64) -> Option<Verdict> {
        // The median of small counts may be zero, so a change is relative to their mean.
        let (chance, usual, by) = match self.exact? {
            Exact::Counts(counts) => (counts.p_value(window.value, side), counts.usual(), "the exact count"),
            Exact::Shares(shares) => {
                (shares.p_value(window.count as f64, window.value, side)?, shares.usual(), "the exact share")
            }
        };
        let (score, limit) = (0.0 - libm::log(chance.max(f64::MIN_POSITIVE)), -libm::log(alpha));
        // If the usual value is zero, the relative change is undefined; ±100 % is used, with the value's
        // sign.
        let change = relative(window.value, usual).unwrap_or(window.value.signum());
        let sign = if side == Side::Above { 1.0 } else { -1.0 };
        let change = if score > limit && sign * change >= EFFECT_MIN { change } else { 0.0 };
        let chance = if chance <= ALPHA { chance } else { 1.0 };
        Some(Verdict { change, score, limit, by, chance })
    }
}

impl Bar {
    /// Returns the limit for the sum of the variances `between` and `within`, each with its own degrees of
    /// freedom.
    fn with(self, (within, freedom): (f64, f64), between: f64, questions: f64) -> Bar {
        let all = between + within;
        if all <= 0.0 || freedom < 1.0 {
            return self;
        }
        let limit = |freedom: f64| student_limit_again(ALPHA / questions, freedom);
        let both = between * self.limit + within * limit(freedom);
        // The effective degrees of freedom for the p-value, by Satterthwaite.
        let doubt = between * between / self.freedom + within * within / freedom;
        Bar { limit: both / all, freedom: all * all / doubt }
    }

    /// Returns the confidence bound of the quantile `q` of `count` values, as a quantile level. The level
    /// lies below `q` for a rise and above it for a fall, by `limit` standard errors.
    fn as_well(self, q: f64, count: u64, side: Side) -> f64 {
        let reach = self.limit * share_error(q, count as f64);
        (if side == Side::Above { q - reach } else { q + reach }).clamp(0.0, 1.0)
    }

    /// Returns the sampling error of a quantile with value `value`, whose confidence bound has the value
    /// `other`. Both are read from a histogram.
    fn error(self, value: f64, other: f64) -> f64 {
        ((value - other).abs() + READ_WITHIN * value.abs()) / self.limit
    }
}

impl Verdict {
    /// The ratio of the score to the limit: 1 is just significant.
    pub fn ratio(&self) -> f64 {
        self.score / self.limit
    }
}

fn relative(value: f64, center: f64) -> Option<f64> {
    (center != 0.0).then(|| (value - center) / center.abs())
}

/// Returns the number of values and the tail share of each window with a profile.
pub fn tails(windows: &[Window]) -> impl Iterator<Item = (f64, f64)> + '_ {
    windows.iter().filter_map(|window| Some((window.count as f64, window.profile?.tail)))
}

impl Tail {
    fn learn(windows: impl Iterator<Item = (f64, f64)>) -> Option<Tail> {
        let add = |(n, values, over, squares): (f64, f64, f64, f64), (count, tail): (f64, f64)| {
            (n + 1.0, values + count, over + count * tail, squares + count * tail * tail)
        };
        Tail::of_sums(windows.fold((0.0, 0.0, 0.0, 0.0), add))
    }

    /// Learns from sums over the past windows: their number, Σ nᵢ, Σ nᵢ rᵢ and Σ nᵢ rᵢ². Window i has nᵢ
    /// values, of which the share rᵢ is in the tail. `None` if the tail has no values or all.
    pub(super) fn of_sums((n, values, over, squares): (f64, f64, f64, f64)) -> Option<Tail> {
        let share = over / values;
        let expected = share * (1.0 - share);
        if expected.is_nan() || expected <= 0.0 {
            return None;
        }
        let width = (squares - share * over) / (n - 1.0) / expected;
        Some(Tail { share, width: width.max(1.0), values })
    }

    pub(super) fn distance(&self, share: f64, count: f64) -> f64 {
        let seen = (share * count + ANSCOMBE) / (count + 2.0 * ANSCOMBE);
        let rise = libm::asin(seen.sqrt()) - libm::asin(self.share.sqrt());
        2.0 * rise / (self.width * (1.0 / count + 1.0 / self.values)).sqrt()
    }
}

#[cfg(test)]
mod tests;
