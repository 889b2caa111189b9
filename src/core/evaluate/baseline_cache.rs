//! Cache of a key's baseline: bounds that are updated with each sealed window, and the exact reference, which
//! is learned only if the bounds cannot decide.
//!
//! Intuition: when a window is sealed, one window enters the period and one leaves it. So the counts behind the
//! bounds are updated step by step, and rules over the same windows share them.
//! Invariant: the cache gives the same result as learning from the same windows from scratch. When an older
//! window changes, everything is computed from scratch.
//! Rejected: counts that exclude the windows of alerts (each rule would need its own counts; the few keys with
//! such windows are learned from scratch).

use super::lookback::Learned;
use crate::core::detect::anomaly::{self, SLOW_WINDOWS};
use crate::core::detect::bounds::{Bounds, Turn};
use crate::core::detect::{regression, zscore};
use crate::core::rule::ast::Function;
use crate::core::view::SealedWindows;
use regression::Window;
use std::sync::Arc;

/// The range of sealed windows that a function looks back on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extent {
    pub first: i64,
    pub last: i64,
    /// Windows with fewer observations do not count.
    pub least: u64,
    pub has_means: bool,
}

/// The state of a period's windows, updated from window to window.
#[derive(Debug)]
pub(super) struct Normal {
    extent: Extent,
    state: (u32, i64, i64),
    bounds: Bounds,
    /// Whether the bounds hold for these windows; computed on first use.
    holds: Option<bool>,
    /// The sum of the newest `SLOW_WINDOWS - 1` (23) windows: the slow mean of `anomaly` adds the current window.
    /// 0 if no function needs means.
    newest_sum: f64,
    known: Option<Box<Known>>,
}

/// References learned from all of the windows, each on first use; rules over the same windows share them.
#[derive(Debug, Default)]
struct Known {
    regression: Option<(Arc<regression::Reference>, Option<f64>)>,
    anomaly: Option<(anomaly::Reference, f64)>,
    spread: Option<zscore::Reference>,
}

/// View, number of windows less one, and minimum count of each window; these stay the same as the period
/// slides.
pub(super) type CacheKey = (u32, i64, u64);

impl Extent {
    /// Returns the key under which the cache for these windows of a view is found.
    pub(super) fn place(self, view: u32) -> CacheKey {
        (view, self.last - self.first, self.least)
    }

    /// Whether sliding to a later extent is possible, given the state of all windows
    /// ([`SealedWindows::state`]) before and now; otherwise the windows are counted from scratch.
    pub(super) fn is_near(self, wanted: Extent, before: (u32, i64, i64), now: (u32, i64, i64)) -> bool {
        let (rewrites, first, end) = before;
        // A window of the extent that was missing before has been sealed since.
        let has_filled = now.2 > end && end <= self.last;
        // A window that must be subtracted has already been dropped.
        let has_lost = now.1 != first && now.1 > self.first;
        self.has_means == wanted.has_means
            && self.least == wanted.least
            && rewrites == now.0
            && !has_filled
            && (self.first..=self.last).contains(&wanted.first)
            && self.last <= wanted.last
            && !has_lost
    }
}

impl Normal {
    pub(super) fn new(windows: &SealedWindows<'_>, extent: Extent) -> Normal {
        let (bounds, newest_sum) = (bounds(windows, extent), newest_sum(windows, extent));
        Normal { extent, state: windows.state(), bounds, holds: None, newest_sum, known: None }
    }

    /// Updates the state to another extent.
    pub(super) fn move_to(&mut self, windows: &SealedWindows<'_>, extent: Extent) {
        let wanted = Extent { has_means: extent.has_means || self.extent.has_means, ..extent };
        let state = windows.state();
        if self.extent == wanted && self.state == state {
            return;
        }
        match self.extent.is_near(wanted, self.state, state) {
            true => self.step(windows, wanted),
            false => *self = Normal::new(windows, wanted),
        }
        self.state = state;
    }

    /// Subtracts the windows that leave the extent and adds those that enter it.
    fn step(&mut self, windows: &SealedWindows<'_>, wanted: Extent) {
        let before = self.extent;
        if before == wanted {
            return;
        }
        for (first, window) in whole(windows, Extent { last: wanted.first - 1, ..before }) {
            self.bounds.count(&window, Turn::Goes);
            let mean = mean_of_first(windows, Extent { first, ..before });
            mean.into_iter().for_each(|mean| self.bounds.count_mean(mean, Turn::Goes));
        }
        for (last, window) in whole(windows, Extent { first: before.last + 1, ..wanted }) {
            self.bounds.count(&window, Turn::Comes);
            let mean = mean_of_last(windows, Extent { last, ..wanted });
            mean.into_iter().for_each(|mean| self.bounds.count_mean(mean, Turn::Comes));
        }
        (self.extent, self.newest_sum) = (wanted, newest_sum(windows, wanted));
        (self.holds, self.known) = (None, None);
    }

    /// Returns the bounds of these windows and `newest_sum`; `None` if the bounds do not hold.
    pub(super) fn bounds(&mut self, windows: &SealedWindows<'_>, extent: Extent) -> Option<(&Bounds, f64)> {
        self.move_to(windows, extent);
        if self.holds.is_none() {
            if !self.bounds.holds() {
                self.bounds = bounds(windows, self.extent);
            }
            self.holds = Some(self.bounds.holds());
        }
        (self.holds == Some(true)).then_some((&self.bounds, self.newest_sum))
    }

    /// Reads the parts to prefetch; see [`crate::core::view::prefetch`].
    pub(super) fn prefetch(&self) -> u64 {
        self.extent.first as u64 ^ self.newest_sum.to_bits() ^ self.bounds.prefetch()
    }

    /// Returns the number of windows.
    pub(super) fn windows(&self) -> usize {
        self.bounds.windows()
    }

    /// Returns the reference that a function needs, if it was learned before; `above`: the value at which the
    /// tail of the past values begins.
    pub(super) fn known(&self, function: Function, above: Option<f64>) -> Option<Learned> {
        let Known { regression, anomaly, spread } = self.known.as_deref()?;
        match function {
            Function::Regression | Function::RegressionScore => {
                let known = regression.as_ref().filter(|(_, begin)| *begin == above);
                known.map(|(reference, above)| Learned::Regression(reference.clone(), *above))
            }
            Function::Anomaly => anomaly.map(|(reference, peak)| Learned::Anomaly { reference, peak }),
            _ => spread.map(Learned::Spread),
        }
    }

    pub(super) fn remember(&mut self, learned: &Learned) {
        let known = self.known.get_or_insert_default();
        match learned {
            Learned::Regression(reference, above) => known.regression = Some((reference.clone(), *above)),
            Learned::Anomaly { reference, peak } => known.anomaly = Some((*reference, *peak)),
            Learned::Spread(spread) => known.spread = Some(*spread),
            Learned::Trend(_) | Learned::Correlation(_) => {}
        }
    }
}

fn bounds(windows: &SealedWindows<'_>, extent: Extent) -> Bounds {
    Bounds::of(whole(windows, extent).map(|(_, window)| window), extent.has_means)
}

/// Returns the windows of an extent that hold enough observations, oldest first.
pub(super) fn whole<'a>(
    windows: &'a SealedWindows<'_>,
    extent: Extent,
) -> impl Iterator<Item = (i64, Window)> + 'a {
    let all = windows.within(extent.first, extent.last);
    all.filter(move |(_, window)| window.count >= extent.least)
}

/// Returns the values of these windows, oldest first.
fn values<'a>(windows: &'a SealedWindows<'_>, extent: Extent) -> impl DoubleEndedIterator<Item = f64> + 'a {
    let all = windows.values(extent.first, extent.last).filter(move |(.., count)| *count >= extent.least);
    all.map(|(_, value, _)| value)
}

/// Returns the sum of the newest `SLOW_WINDOWS - 1` windows, added oldest first; 0 if no function needs means.
fn newest_sum(windows: &SealedWindows<'_>, extent: Extent) -> f64 {
    if extent.has_means { sum_of_newest(windows, extent, SLOW_WINDOWS - 1).0 } else { 0.0 }
}

/// Returns the sum of the newest `wanted` windows (at most [`SLOW_WINDOWS`]), and how many there are.
fn sum_of_newest(windows: &SealedWindows<'_>, extent: Extent, wanted: usize) -> (f64, usize) {
    let first = extent.first.max(extent.last + 1 - wanted as i64);
    let (sum, count) = sum_of(values(windows, Extent { first, ..extent }));
    // The sum is complete if no window in this range was skipped, or if the extent has no older windows.
    if count == wanted || first == extent.first {
        return (sum, count);
    }
    let (mut newest, mut at) = ([0.0; SLOW_WINDOWS], SLOW_WINDOWS);
    for value in values(windows, extent).rev().take(wanted.min(SLOW_WINDOWS)) {
        at -= 1;
        newest[at] = value;
    }
    sum_of(newest[at..].iter().copied())
}

fn sum_of(values: impl Iterator<Item = f64>) -> (f64, usize) {
    values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1))
}

/// Returns the mean of the last [`SLOW_WINDOWS`] windows, if there are that many.
fn mean_of_last(windows: &SealedWindows<'_>, extent: Extent) -> Option<f64> {
    let (sum, count) = if extent.has_means { sum_of_newest(windows, extent, SLOW_WINDOWS) } else { (0.0, 0) };
    (count == SLOW_WINDOWS).then(|| sum / SLOW_WINDOWS as f64)
}

/// Returns the mean of the first [`SLOW_WINDOWS`] windows, if there are that many.
fn mean_of_first(windows: &SealedWindows<'_>, extent: Extent) -> Option<f64> {
    let first = extent.has_means.then(|| values(windows, extent).take(SLOW_WINDOWS));
    let (sum, count) = sum_of(first?);
    (count == SLOW_WINDOWS).then(|| sum / SLOW_WINDOWS as f64)
}

#[cfg(test)]
mod tests {
    use super::super::trend_line::SharedLine;
    use super::*;
    use crate::core::detect::bounds::tests::is_counted;
    use crate::core::detect::dice::Dice;
    use crate::core::measure::histogram::layout::Digits;
    use crate::core::measure::pane::{Sample, Shape};
    use crate::core::measure::series::Subscription;
    use crate::core::view::feed::{self, When};
    use crate::core::view::{Reading, View, ViewKind, ViewSpec};
    use crate::core::vocab::aggregate::Aggregate;
    use crate::core::vocab::key::{Key, KeyId, Keys};
    use crate::core::vocab::limits::Lateness;
    use crate::core::vocab::selector::{By, Selector};
    use crate::core::vocab::time::{Span, Timestamp};
    use crate::core::vocab::unit::Unit;

    const MINUTE: Span = Span::from_mins(1);

    fn view(aggregate: Aggregate) -> (View, KeyId, Subscription) {
        let kind = ViewKind::Baseline { window: MINUTE, period: MINUTE * 40, aggregate, is_profiled: true };
        let selector = Selector { name: Some("load".into()), matchers: Vec::new() };
        let spec = ViewSpec {
            selector,
            by: By::Series,
            kind,
            has_quantiles: true,
            has_spread: false,
            per_version: false,
        };
        let lateness = Lateness { allowed: Span::from_secs(5), max: MINUTE * 10 };
        let mut view = View::new(spec, shape(), lateness);
        let key = Keys::default().intern(Key::new(Vec::new()));
        let group = view.join(key, Timestamp::clamped(0), shape());
        (view, key, Subscription { view: 0, group })
    }

    fn shape() -> Shape {
        Shape { digits: Digits::Two, resolution: Unit::resolution(None) }
    }

    /// Goal: the state updated step by step equals the state computed from scratch. Method: busy and silent
    /// minutes, late values, and a period that moves by one window or by many.
    #[test]
    fn what_is_kept_is_what_is_made_anew() {
        for (seed, aggregate) in [(1, Aggregate::Avg), (2, Aggregate::Count), (3, Aggregate::Quantile(0.95))]
        {
            let (mut dice, (view, key, to)) = (Dice(seed), view(aggregate));
            let (mut views, mut normal, mut steps): (Vec<View>, Option<Normal>, u32) = (vec![view], None, 0);
            let (mut is_silent, mut line) = (false, SharedLine::default());
            for minute in 1..600i64 {
                let now = Timestamp::clamped(minute * 60_000 + 6_000);
                let when = When { now, interval: Span::from_secs(1) };
                is_silent ^= dice.uniform() < 0.05;
                let many = if is_silent { 0 } else { (dice.uniform() * 60.0) as usize };
                for _ in 0..many {
                    let late = if dice.uniform() < 0.002 { dice.uniform() * 9.0 * 60_000.0 } else { 0.0 };
                    let time = now - Span::from_ms(6_000 + (dice.uniform() * 50_000.0 + late) as i64);
                    let sample = Sample::new(shape(), 100.0 + 9.0 * dice.normal(), time);
                    feed::record(&mut views, to, &Reading::One(sample), when);
                }
                feed::roll(&mut views, When { now: now + Span::from_secs(1), ..when });
                let Some(windows) = views[0].sealed(key).filter(|_| dice.uniform() < 0.9) else { continue };
                let least = if aggregate == Aggregate::Count { 0 } else { 1 };
                let extent = Extent { first: minute - 40, last: minute - 1, least, has_means: true };
                let kept = normal.get_or_insert_with(|| Normal::new(&windows, extent));
                steps += u32::from(kept.extent.is_near(extent, kept.state, windows.state()));
                kept.move_to(&windows, extent);
                let anew: Vec<Window> = whole(&windows, extent).map(|(_, window)| window).collect();
                let all: Vec<f64> = anew.iter().map(|window| window.value).collect();
                let sum: f64 = all[all.len().saturating_sub(SLOW_WINDOWS - 1)..].iter().sum();
                let means: Vec<f64> = anomaly::means(&all).collect();
                assert!(is_counted(&kept.bounds, &anew, &means), "{aggregate:?} {minute}");
                assert_eq!((kept.windows(), kept.newest_sum), (anew.len(), sum), "{aggregate:?} {minute}");
                if dice.uniform() < 0.05 {
                    kept.bounds(&windows, extent);
                }
                let few = Extent { first: extent.last - 1 - (dice.uniform() * 40.0) as i64, ..extent };
                for extent in [extent, few] {
                    let anew = SharedLine::default().line(&windows, extent);
                    if let (Some((Learned::Trend(anew), _)), true) = (&anew, minute % 2 == 0) {
                        let between = line.between(&windows, extent).expect("enough windows");
                        let (low, high) = between.at(2.0 * minute as f64);
                        let value = anew.at(2.0 * minute as f64);
                        assert!(low <= value && value <= high, "{minute} {extent:?}");
                    }
                    assert_eq!(line.line(&windows, extent), anew, "{aggregate:?} {minute} {extent:?}");
                }
            }
            assert!(steps > 250, "only {steps} steps were short");
        }
    }
}
