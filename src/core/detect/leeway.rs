//! What stays true of past windows while a few of them come and go.
//!
//! Intuition: nearly every window is far from every limit, and one window more or less moves what is normal by
//! little. A rank of the windows of now lies no more than so many places from where it lay as have come or gone
//! since, and sums differ by no more than these can add. So for some windows it is told from a few numbers that
//! a rule cannot be met; only where these leave a doubt is it learned what is normal.
//! Invariant: what is learned of the windows as they are lies within these bounds, rounding included.
//! Formula: with at most K of n values gone and K new, the value of rank r is one of the ranks r − K to r + K of
//! before; half of the values of now are within a MAD of their median, so n/2 − K of those before are within
//! two MADs of each other; mean and deviation by the most that values between the extremes add.
//! Rejected: learning only at each eighth window (what a rule is compared with would not be the windows before
//! this one), and bounds from the quantiles of a normal distribution (metrics are not).
//! Cost: a few passes over B sorted values once in [`CHANGES_MAX`] windows, O(1) an evaluation.

use super::anomaly::{self, SLOW_WINDOWS};
use super::regression::{self, Past, Tail, Window};
use super::sorted::{Number, Sorted};
use super::{MAD_TO_SIGMA, zscore};
use crate::core::rule::ast::Side;

/// Windows that may come, and that may go, until it is told anew.
pub const CHANGES_MAX: usize = 8;

/// One of so many: with more of them the bounds tell little.
const CHANGED_SHARE: usize = 32;

/// No limit of `regression` is lower: one in a thousand of a normal distribution lies above it.
const LIMIT_MIN: f64 = 3.09;

/// What sums may differ by for the order they were added in, by what is added: thousands of roundings of 1e-16.
const ROUNDING: f64 = 1e-11;

/// What is surely true of the windows of a period.
#[derive(Debug, Clone, Copy)]
pub struct Leeway {
    values: Middle,
    moments: Moments,
    /// `anomaly`: of single windows, and of means.
    ends: Part<Ends>,
    slow: Part<Ends>,
    /// `regression`: the median, the mean logarithm, the share in the tail.
    p50: Part<Middle>,
    log: Part<Middle>,
    tail: Part<Sums>,
    may_be_shares: bool,
}

/// A question that may be one among others.
#[derive(Debug, Clone, Copy)]
enum Part<T> {
    /// It surely is none.
    Absent,
    Known(T),
    Unsure,
}

/// The middle of some values, and how far they lie apart at least.
#[derive(Debug, Clone, Copy)]
struct Middle {
    median: (f64, f64),
    /// Median of the distances, times [`MAD_TO_SIGMA`].
    spread: f64,
}

#[derive(Debug, Clone, Copy)]
struct Moments {
    /// Nothing that came may be outside.
    extremes: (f64, f64),
    mean: (f64, f64),
    deviation: (f64, f64),
}

/// What lies between these is within the outer quantiles.
#[derive(Debug, Clone, Copy)]
struct Ends {
    low: f64,
    high: f64,
}

/// Of the values in the tail.
#[derive(Debug, Clone, Copy)]
struct Sums {
    values: f64,
    over: f64,
    /// The most of one window.
    values_most: f64,
    over_most: f64,
    windows: f64,
}

/// How many windows may come and go.
pub fn changes(windows: usize) -> usize {
    (windows / CHANGED_SHARE).min(CHANGES_MAX)
}

impl Leeway {
    /// Of windows in order, of the means of some of them, and of the values of each and the share of these in
    /// the tail. `None` with too few windows.
    pub fn of(past: &Past, means: &Sorted<f64>, tails: impl Iterator<Item = (f64, f64)>) -> Option<Leeway> {
        let changes = changes(past.values.len());
        let values = Middle::of(&past.values, changes)?;
        let question = |list: &Sorted<f32>| match Middle::of(list, changes) {
            _ if list.len() + changes < regression::WINDOWS_MIN => Part::Absent,
            Some(middle) => Part::Known(middle),
            None => Part::Unsure,
        };
        let p50 = question(&past.p50);
        let tail = match p50 {
            Part::Absent => Part::Absent,
            _ => Part::Known(Sums::of(tails, changes)),
        };
        Some(Leeway {
            values,
            moments: Moments::of(&past.values, changes)?,
            ends: Ends::of(&past.values, changes),
            slow: Ends::of(means, changes),
            p50,
            log: question(&past.log),
            tail,
            may_be_shares: may_be_shares(&past.values, changes),
        })
    }

    /// Whether it still holds with a window of this value among those that came.
    pub fn holds_with(&self, value: f64) -> bool {
        (self.moments.extremes.0..=self.moments.extremes.1).contains(&value)
    }

    /// What `zscore` is of a value; `None` where that is not sure.
    pub fn z(&self, value: f64) -> Option<(f64, f64)> {
        quotient(value, self.moments.mean, self.moments.deviation.0)
    }

    /// What `robust_z` is of a value; `None` where that is not sure.
    pub fn robust_z(&self, value: f64) -> Option<(f64, f64)> {
        let Middle { median, spread } = self.values;
        let least = if median.0 * median.1 > 0.0 { median.0.abs().min(median.1.abs()) } else { 0.0 };
        let scale = spread.max(self.moments.deviation.0 / 2.0).max(zscore::SCALE_MIN * least);
        quotient(value, median, scale)
    }

    /// What mean plus `k` standard deviations is.
    pub fn bound(&self, k: f64) -> (f64, f64) {
        let Moments { mean, deviation, .. } = self.moments;
        let (a, b) = (k * deviation.0, k * deviation.1);
        (mean.0 + a.min(b), mean.1 + a.max(b))
    }

    /// Whether a window is surely within what the past did. `newest_sum`: see [`anomaly::Reference::learn`].
    pub fn is_usual(&self, value: f64, newest_sum: f64) -> bool {
        let mean = (newest_sum + value) / SLOW_WINDOWS as f64;
        self.ends.is_sure(|ends| ends.has(value))
            && self.slow.is_sure(|ends| ends.has(mean))
            && !matches!(self.ends, Part::Absent)
    }

    /// Whether a window surely is no regression, with no chance worth a name. `came`: the values of all windows
    /// that came.
    pub fn is_unchanged(&self, window: &Window, side: Side, came: f64) -> bool {
        let is_asked = self.values.is_near(window.value, side);
        let Some(profile) = window.profile else { return is_asked };
        is_asked
            && self.p50.is_sure(|middle| middle.is_near(profile.p50, side))
            && profile.log.is_none_or(|(mean, _)| self.log.is_sure(|middle| middle.is_near(mean, side)))
            && self.tail.is_sure(|sums| sums.is_near(profile.tail, window.count as f64, side, came))
    }

    /// The same for averages, which may be shares of hits: those are judged exactly.
    pub fn is_unchanged_average(&self, window: &Window, side: Side, came: f64) -> bool {
        !self.may_be_shares && self.is_unchanged(window, side, came)
    }

    /// The same for counts: small ones are judged exactly, and no count as good as the mean is one in a
    /// thousand.
    pub fn is_unchanged_count(&self, value: f64, side: Side) -> bool {
        let (median, mean) = (self.values.median, self.moments.mean);
        match side {
            Side::Above => value <= median.0 && value <= mean.0 * (1.0 + 1e-9),
            Side::Below => value >= median.1 && value >= mean.1 * (1.0 - 1e-9),
        }
    }
}

impl<T> Part<T> {
    fn is_sure(&self, is: impl FnOnce(&T) -> bool) -> bool {
        match self {
            Part::Absent => true,
            Part::Known(part) => is(part),
            Part::Unsure => false,
        }
    }
}

impl Middle {
    /// `None` where the bounds would tell little.
    fn of<T: Number>(values: &Sorted<T>, changes: usize) -> Option<Middle> {
        let len = values.len();
        if changes == 0 || len < 4 * changes {
            return None;
        }
        // Ranks that there are, as there are more than four times as many values as changes.
        let median = (values.rank((len - 1) / 2 - changes)?, values.rank(len / 2 + changes)?);
        let (least, most) = values.extremes()?;
        let half = values.shortest((len - 2 * changes).div_ceil(2)) / 2.0;
        let doubt = f64::EPSILON * 4.0 * least.abs().max(most.abs());
        Some(Middle { median, spread: (half - doubt).max(0.0) * MAD_TO_SIGMA * (1.0 - ROUNDING) })
    }

    /// Whether a value surely is within the limit of `regression`.
    fn is_near(&self, value: f64, side: Side) -> bool {
        match side {
            Side::Above => value - self.median.0 <= LIMIT_MIN * self.spread,
            Side::Below => self.median.1 - value <= LIMIT_MIN * self.spread,
        }
    }
}

impl Moments {
    fn of(values: &Sorted<f64>, changes: usize) -> Option<Moments> {
        let (n, k) = (values.len() as f64, changes as f64);
        let (least, most) = values.extremes()?;
        let (mean, deviation) = values.mean_and_deviation(values.median(), f64::INFINITY);
        let reach = (most - mean).max(mean - least);
        let (squares, moved) = (deviation * deviation * (n - 1.0), 2.0 * k * reach);
        let shift = moved / (n - k) + ROUNDING * (mean.abs() + reach);
        let fewest = (squares - k * reach * reach - moved * moved / (n - k)) / (n + k - 1.0);
        let largest = (squares + k * reach * reach) / (n - k - 1.0);
        Some(Moments {
            extremes: (least, most),
            mean: (mean - shift, mean + shift),
            deviation: ((fewest * (1.0 - ROUNDING)).max(0.0).sqrt(), (largest * (1.0 + ROUNDING)).sqrt()),
        })
        .filter(|moments| moments.deviation.1.is_finite() && moments.mean.1.is_finite())
    }
}

impl Ends {
    fn of(values: &Sorted<f64>, changes: usize) -> Part<Ends> {
        let len = values.len();
        if len + changes < anomaly::WINDOWS_MIN {
            return Part::Absent;
        }
        let (fewest, most) = (len.saturating_sub(changes), len + changes);
        let is_one_kind = (fewest < anomaly::WINDOWS_MANY) == (most < anomaly::WINDOWS_MANY);
        if fewest < anomaly::WINDOWS_MIN || !is_one_kind {
            return Part::Unsure;
        }
        let outer = anomaly::outer(len);
        let rank = |q: f64| ((q * len as f64).ceil() as usize).max(1) - 1;
        let low = values.rank(rank(1.0 - outer) + changes + 1);
        let high = rank(outer).checked_sub(changes + 1).and_then(|rank| values.rank(rank));
        low.zip(high).map_or(Part::Unsure, |(low, high)| Part::Known(Ends { low, high }))
    }

    fn has(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

impl Sums {
    fn of(tails: impl Iterator<Item = (f64, f64)>, changes: usize) -> Sums {
        let none = Sums { values: 0.0, over: 0.0, values_most: 0.0, over_most: 0.0, windows: changes as f64 };
        tails.fold(none, |sums, (count, share)| Sums {
            values: sums.values + count,
            over: sums.over + count * share,
            values_most: sums.values_most.max(count),
            over_most: sums.over_most.max(count * share),
            ..sums
        })
    }

    fn is_near(&self, share: f64, count: f64, side: Side, came: f64) -> bool {
        let most = self.values + came;
        let least = self.values - self.windows * self.values_most;
        let tail = |share: f64| Tail::even(share.clamp(0.0, 1.0), most);
        match side {
            Side::Above => {
                let usual = (self.over - self.windows * self.over_most) / most * (1.0 - ROUNDING);
                tail(usual).distance(share, count) <= LIMIT_MIN
            }
            Side::Below => {
                let usual = (self.over + came) / least.max(1.0) * (1.0 + ROUNDING);
                tail(usual).distance(share, count) >= -LIMIT_MIN
            }
        }
    }
}

/// Whether averages may be those of zeros and ones: all of them lie between.
fn may_be_shares(values: &Sorted<f64>, changes: usize) -> bool {
    let (low, high) = (values.rank(changes), values.len().checked_sub(1 + changes));
    let is_below = low.is_none_or(|low| low >= 0.0);
    is_below && high.and_then(|rank| values.rank(rank)).is_none_or(|high| high <= 1.0)
}

/// What a distance from something between two bounds is, in units of at least so much.
fn quotient(value: f64, (low, high): (f64, f64), least: f64) -> Option<(f64, f64)> {
    let (below, above) = ((value - high).min(0.0), (value - low).max(0.0));
    (least > 0.0).then(|| (below / least, above / least))
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::super::regression::Profile;
    use super::*;

    /// One window of a kind: steady, heavy-tailed, small counts, shares, hardly ever anything, all the same.
    fn window(dice: &mut Dice, kind: u32) -> Window {
        let n = dice.normal();
        let value = match kind {
            0 => 100.0 + 5.0 * n,
            1 => (2.0 * n).exp(),
            2 => (3.0 + 2.0 * n).round().max(0.0),
            3 => ((0.3 + 0.1 * n) * 20.0).round().clamp(0.0, 20.0) / 20.0,
            4 => {
                if n > 1.5 {
                    n
                } else {
                    0.0
                }
            }
            5 => 1e9 + n,
            _ => 7.0,
        };
        let count = 30 + (dice.uniform() * 90.0) as u64;
        let tail = (count as f64 * 0.1 * dice.uniform()).round() / count as f64;
        let (p50, log) = (value.abs() + 1.0, (value.abs() + 1.0).ln());
        let profile = Profile { p50, p50_error: 0.1, tail, log: Some((log, 0.02)) };
        Window { count, value, profile: (dice.uniform() < 0.9).then_some(profile) }
    }

    struct Case {
        leeway: Leeway,
        came: f64,
        windows: Vec<Window>,
        side: Side,
    }

    fn means(windows: &[Window]) -> Sorted<f64> {
        Sorted::of(anomaly::means(&values(windows)).collect())
    }

    fn values(windows: &[Window]) -> Vec<f64> {
        windows.iter().map(|window| window.value).collect()
    }

    fn is_within(value: f64, bounds: (f64, f64)) -> bool {
        bounds.0 <= value && value <= bounds.1
    }

    /// What is told of these windows, and others a little later.
    fn case(dice: &mut Dice, kind: u32) -> Option<Case> {
        let n = 20 + (dice.uniform() * 400.0) as usize + if dice.uniform() < 0.05 { 900 } else { 0 };
        let mut windows: Vec<Window> = (0..n).map(|_| window(dice, kind)).collect();
        let leeway = Leeway::of(&Past::of(&windows), &means(&windows), regression::tails(&windows))?;
        let changed = |dice: &mut Dice| (dice.uniform() * (changes(n) + 1) as f64) as usize;
        windows.drain(..changed(dice));
        // Late ones are as they like, not as the others were.
        let other = if dice.uniform() < 0.5 { kind } else { kind + 1 };
        let new: Vec<Window> = (0..changed(dice)).map(|_| window(dice, other)).collect();
        let came = new.iter().map(|window| window.count as f64).sum();
        let holds = new.iter().all(|window| leeway.holds_with(window.value));
        windows.extend(new);
        let side = if dice.uniform() < 0.5 { Side::Above } else { Side::Below };
        holds.then_some(Case { leeway, came, windows, side })
    }

    /// In many thousands of cases, with windows that came of another kind: what is learned from scratch is never
    /// outside of what was told, and usual windows are mostly told to be so.
    #[test]
    fn what_is_learned_is_never_outside() {
        let (mut dice, mut calm, mut asked) = (Dice(5), [0; 3], 0);
        for round in 0..12_000 {
            let kind = round % 7;
            let Some(Case { leeway, came, windows, side }) = case(&mut dice, kind) else { continue };
            let of = if dice.uniform() < 0.8 { kind } else { kind + 1 };
            let now = window(&mut dice, of);
            let past = Past::of(&windows);
            let spread = zscore::Reference::learn(&past.values).expect("enough windows");
            for (told, value) in [
                (leeway.z(now.value), spread.z(now.value)),
                (leeway.robust_z(now.value), spread.robust_z(now.value)),
                (Some(leeway.bound(3.0)), Some(spread.bound(3.0))),
                (Some(leeway.bound(-2.0)), Some(spread.bound(-2.0))),
            ] {
                let is_true = told.is_none_or(|told| value.is_some_and(|value| is_within(value, told)));
                assert!(is_true, "{round}: {value:?} is outside of {told:?}");
            }
            let sum = values(&windows)[windows.len() + 1 - SLOW_WINDOWS..].iter().sum();
            if leeway.is_usual(now.value, sum) {
                let learned = anomaly::Reference::learn(&past.values, &means(&windows), sum).expect("enough");
                assert!(learned.score(now.value, None) <= 1.0 && learned.chance(now.value) == 1.0, "{round}");
                calm[0] += u32::from(kind == 0);
            }
            let learned = regression::Reference::learn(&windows).expect("enough windows");
            let judge = |learned: &regression::Reference| {
                let verdict = learned.judge(&now, regression::Errors::default(), side, None);
                (verdict.change, verdict.chance, verdict.ratio() <= 1.0)
            };
            if leeway.is_unchanged(&now, side, came) {
                assert_eq!(judge(&learned), (0.0, 1.0, true), "{round}: {now:?}");
                calm[1] += u32::from(kind == 0);
            }
            if leeway.is_unchanged_count(now.value, side) {
                assert_eq!(judge(&learned.counting(&past.values, 1.0)), (0.0, 1.0, true), "{round}: {now:?}");
                calm[2] += u32::from(kind == 6);
            }
            if leeway.is_unchanged_average(&now, side, came) {
                let counted = windows.iter().map(|window| (window.count as f64, window.value));
                let is_share = super::super::shares::may_be_shares(&past.values);
                let learned = if is_share { learned.sharing(counted) } else { learned };
                assert_eq!(judge(&learned), (0.0, 1.0, true), "{round}: {now:?}");
            }
            asked += u32::from(kind == 0);
        }
        assert!(calm.iter().all(|calm| calm * 3 > asked), "{calm:?} of {asked}");
    }

    #[test]
    fn few_windows_leave_no_leeway() {
        let mut dice = Dice(1);
        let windows: Vec<Window> = (0..CHANGED_SHARE - 1).map(|_| window(&mut dice, 0)).collect();
        assert!(Leeway::of(&Past::of(&windows), &means(&windows), regression::tails(&windows)).is_none());
    }
}
