//! `regression`: is this window worse than its own past, by enough, and more than by chance?
//!
//! Intuition: no single statistic finds everything. A shift of all requests shows in the median, a slow
//! minority in the tail, most things in the mean of logarithms. So a window is asked four questions, each
//! against the same question to the windows before it, and the limit is that of four questions.
//! Formula: the asked aggregate, p50 and the mean logarithm by [`Level::distance`]; the share above the
//! past's p95 by z = (r − p₀) / √(φ p₀ (1 − p₀) (1/n + 1/N)) with φ = max(1, Var(rᵢ) n / (p₀ (1 − p₀))).
//! Each is divided by t(α/k, B − 1) for k questions; the score is the largest. Deployments are few, and
//! lie apart with heavy tails: their spread has half the degrees of freedom. How far windows of one deployment
//! lie apart is known from all of theirs, so the limit of both together is (b t_b + w t_w) / (b + w) with the
//! variances b and w (Cochran and Cox).
//! A quantile q of n values is no farther from the past than its own value at the rank q ∓ t √(q (1 − q)/n)
//! allows: where values are whole milliseconds, thirty windows may say 4 and the next one 5, though hardly more
//! of its values are above 4.
//! An aggregate that is no quantile is asked about alone; small counts and shares are judged exactly, with −ln
//! of the chance as score.
//! Rejected: tests on the requests themselves (Kolmogorov–Smirnov, Mann–Whitney), which call a fifth of all
//! unchanged windows changed; p95 beside the tail share (its own spread is too wide with a hundred
//! requests); one freedom for the sum of both variances (Satterthwaite: where versions lie apart with heavy
//! tails, four in a thousand pass instead of one); waiting for three windows inside the function (that is what
//! `for` is for).
//! Cost: a few passes over B sorted numbers once a closed window, O(1) an evaluation beside reading the window.

use super::baseline::Level;
use super::counts::Counts;
use super::shares::Shares;
use super::sorted::Sorted;
use super::tails::{share_error, student_above, student_limit, student_limit_again};
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

/// Past windows: what is asked of each, in order of size. The profiles' numbers are kept short: seven digits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    pub values: Sorted<f64>,
    p50: Sorted<f32>,
    log: Sorted<f32>,
    /// The middle one of the sampling errors of the two; 0 without any.
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

/// What is normal, learned once a closed window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub asked: Level,
    median: Option<Level>,
    log: Option<Level>,
    tail: Option<Tail>,
    exact: Option<Exact>,
    within: Spreads,
    /// Of the asked aggregate, the median, the mean logarithm.
    bars: [Bar; 3],
    questions: f64,
}

/// What a statistic has to pass, and the degrees of freedom that its spread is known with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Bar {
    limit: f64,
    freedom: f64,
}

/// What has no spread worth a t.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Exact {
    Counts(Counts),
    Shares(Shares),
}

/// Quantiles are read within 1 % (two digits), so equal ones may differ by as much.
const READ_WITHIN: f64 = 0.01;

/// Counts below this mean are judged exactly.
const COUNTS_BELOW: f64 = 20.0;

/// Makes the angle of a small share as even to both sides as it gets.
const ANSCOMBE: f64 = 0.375;

/// The share above the past's p95.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    share: f64,
    /// How much wider than by chance the shares lie apart.
    width: f64,
    values: f64,
}

/// How far quantiles of the judged window lie, at the limit, from where they could as well be
/// ([`Reference::errors`]); 0 where that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Errors {
    pub asked: f64,
    pub median: f64,
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
    /// How often an unchanged window gives as much; 1 where that is more often than [`ALPHA`].
    pub chance: f64,
}

/// One deployment: what its windows were like, and how far they lay apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deploy {
    summary: Window,
    /// Of the summary's value: a version is known no better than its windows tell.
    error: f64,
    within: Spreads,
    windows: usize,
}

/// The error of a median by that of a mean: √(π/2).
const MEDIAN_ERROR: f64 = 1.253_314_137_315_5;

/// How far single windows of one deployment lie apart: the aggregate, the median, the mean logarithm.
type Spreads = [f64; 3];

impl Deploy {
    /// Of the windows of one version; `None` without any.
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
        // Errors are those of a summary; that of one window more is `within`.
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
    /// Of some earlier deployments. The window that is judged is one window, not a deployment's middle: it
    /// lies as far from that as windows of one deployment usually do. Where the tail of each begins differs,
    /// so the tail is not asked about.
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

    /// Of past windows; `None` with too few of them.
    pub fn learn(windows: &[Window]) -> Option<Reference> {
        Reference::of(&Past::of(windows), tails(windows), None)
    }

    /// The same of windows that are in order already, and how many values of each were in the tail.
    pub fn learn_sorted(past: &Past, tails: impl Iterator<Item = (f64, f64)>) -> Option<Reference> {
        Reference::of(past, tails, None)
    }

    /// `of_deploys`: each window is one deployment, which is known with such an error.
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

    /// The same where the values are counts, `scale` times as many as the values say.
    pub fn counting(self, values: &Sorted<f64>, scale: f64) -> Reference {
        if self.asked.center * scale > 2.0 * COUNTS_BELOW {
            return self;
        }
        let counts = Counts::learn(values, scale).filter(|counts| counts.mean() < COUNTS_BELOW);
        Reference { exact: counts.map(Exact::Counts), ..self }
    }

    /// The same where the values are averages of zeros and ones; of (values, average) of each window.
    pub fn sharing(self, windows: impl Iterator<Item = (f64, f64)> + Clone) -> Reference {
        Reference { exact: Shares::learn(windows).map(Exact::Shares), ..self }
    }

    /// How far the quantiles of a window that are compared lie from where they could as well be; `asked`: the
    /// quantile that the aggregate is, if it is one; `read`: any quantile of the window.
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
        // A single value could be nowhere else.
        let asked = asked.filter(|_| window.count > 1);
        Errors {
            median: window.profile.map_or(0.0, |profile| error(self.bars[1], 0.5, profile.p50)),
            asked: asked.map_or(0.0, |q| error(self.bars[0], q, window.value)),
        }
    }

    /// Compares one window, to one side; `believed`: a smaller chance than [`ALPHA`] that is demanded.
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
        // The aggregate is always asked about.
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
        // The asked aggregate's change; where it did not move enough, that of the median.
        let change = changes.into_iter().flatten().find(|change| sign * change >= EFFECT_MIN);
        let change = change.filter(|_| score > limit).unwrap_or(0.0);
        let is_rare = score > bar.limit;
        let chance = if is_rare { self.questions * student_above(score, bar.freedom) } else { 1.0 };
        Verdict { change, score, limit, by, chance }
    }

    /// `None` where the spread between windows tells as well.
    fn judge_exactly(&self, window: &Window, side: Side, alpha: f64) -> Option<Verdict> {
        // The middle of small counts may be zero: what is relative to it is relative to their mean.
        let (chance, usual, by) = match self.exact? {
            Exact::Counts(counts) => (counts.chance(window.value, side), counts.usual(), "the exact count"),
            Exact::Shares(shares) => {
                (shares.chance(window.count as f64, window.value, side)?, shares.usual(), "the exact share")
            }
        };
        let (score, limit) = (0.0 - libm::log(chance.max(f64::MIN_POSITIVE)), -libm::log(alpha));
        // Something where nothing was is more than any share of it.
        let change = relative(window.value, usual).unwrap_or(window.value.signum());
        let sign = if side == Side::Above { 1.0 } else { -1.0 };
        let change = if score > limit && sign * change >= EFFECT_MIN { change } else { 0.0 };
        let chance = if chance <= ALPHA { chance } else { 1.0 };
        Some(Verdict { change, score, limit, by, chance })
    }
}

impl Bar {
    /// That of the sum of its variance and one `within`, each known with a freedom of its own.
    fn with(self, (within, freedom): (f64, f64), between: f64, questions: f64) -> Bar {
        let all = between + within;
        if all <= 0.0 || freedom < 1.0 {
            return self;
        }
        let limit = |freedom: f64| student_limit_again(ALPHA / questions, freedom);
        let both = between * self.limit + within * limit(freedom);
        // What a chance is told by: Satterthwaite's.
        let doubt = between * between / self.freedom + within * within / freedom;
        Bar { limit: both / all, freedom: all * all / doubt }
    }

    /// Where a window's quantile `q` of `count` values could as well lie, seen from `side`: as far back as the
    /// limit allows.
    fn as_well(self, q: f64, count: u64, side: Side) -> f64 {
        let reach = self.limit * share_error(q, count as f64);
        (if side == Side::Above { q - reach } else { q + reach }).clamp(0.0, 1.0)
    }

    /// The sampling error of a quantile that could as well be `other`, both read from a histogram.
    fn error(self, value: f64, other: f64) -> f64 {
        ((value - other).abs() + READ_WITHIN * value.abs()) / self.limit
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

/// Values of each window, and the share of them in the tail.
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

    /// Of how many windows there are, their values, the values in the tail, and the sum of each value's window's
    /// share squared.
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
