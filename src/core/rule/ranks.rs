//! The windows of a period in order of size, kept from window to window.
//!
//! Intuition: when a window is sealed, one comes and one goes; all others stand where they stood. So what is
//! normal is learned from lists that are already in order, which rules over the same windows share.
//! Invariant: they are for speed alone: what is learned of them is what is learned of the same windows from
//! scratch; whenever an older window changed they are made anew. Rejected: keeping them with the alerts' own
//! exceptions in them (each rule would need its own; the few keys that have exceptions are learned from scratch).

use super::super::detect::anomaly::{self, SLOW_WINDOWS};
use super::super::detect::regression;
use super::super::detect::sorted::Sorted;
use super::super::detect::zscore;
use super::super::view::SealedWindows;

/// Which windows, of those that are sealed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extent {
    pub first: i64,
    pub last: i64,
    /// Those with fewer values do not count.
    pub least: u64,
    pub has_means: bool,
}

/// Windows in order of size.
#[derive(Debug, PartialEq)]
pub(super) struct Ordered {
    pub past: regression::Past,
    /// Means of each [`SLOW_WINDOWS`], where anybody asks for them.
    pub means: Sorted<f64>,
}

/// The same, kept from window to window.
#[derive(Debug)]
pub(super) struct Ranks {
    extent: Extent,
    state: (u32, i64, i64),
    pub ordered: Ordered,
    /// Centre and spread of all, once anybody asked.
    spread: Option<zscore::Reference>,
}

impl Ordered {
    /// Of windows in the order of time.
    pub(super) fn of(windows: &[regression::Window], has_means: bool) -> Ordered {
        let means = match has_means {
            true => {
                anomaly::means(&windows.iter().map(|window| window.value).collect::<Vec<f64>>()).collect()
            }
            false => Vec::new(),
        };
        Ordered { past: regression::Past::of(windows), means: Sorted::of(means) }
    }
}

impl Extent {
    /// Whether the way to a later extent is shorter than beginning anew, from what was the state of all windows
    /// ([`SealedWindows::state`]) before to what it is now.
    pub(super) fn is_near(self, wanted: Extent, before: (u32, i64, i64), now: (u32, i64, i64)) -> bool {
        let (rewrites, first, end) = before;
        // A window that was taken for none is there now.
        let has_filled = now.2 > end && end <= self.last;
        // One that is to go is not known any more.
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

impl Ranks {
    pub(super) fn new(windows: &SealedWindows<'_>, extent: Extent) -> Ranks {
        let all = windows.within(extent.first, extent.last).map(|(_, window)| window);
        let whole: Vec<regression::Window> = all.filter(|window| window.count >= extent.least).collect();
        Ranks { extent, state: windows.state(), ordered: Ordered::of(&whole, extent.has_means), spread: None }
    }

    /// Makes them those of another extent.
    pub(super) fn move_to(&mut self, windows: &SealedWindows<'_>, extent: Extent) {
        let wanted = Extent { has_means: extent.has_means || self.extent.has_means, ..extent };
        if self.extent == wanted && self.state == windows.state() {
            return;
        }
        self.spread = None;
        if !self.extent.is_near(wanted, self.state, windows.state()) || !self.step(windows, wanted) {
            *self = Ranks::new(windows, wanted);
        }
        self.state = windows.state();
    }

    /// One goes for each that comes; `false` if one was not as it is known.
    fn step(&mut self, windows: &SealedWindows<'_>, wanted: Extent) -> bool {
        let mut is_true = true;
        while self.extent.first < wanted.first {
            is_true &= self.drop_oldest(windows);
            self.extent.first += 1;
        }
        while self.extent.last < wanted.last {
            self.extent.last += 1;
            self.add_newest(windows);
        }
        is_true
    }

    fn drop_oldest(&mut self, windows: &SealedWindows<'_>) -> bool {
        let Some(window) = self.window(windows, self.extent.first) else { return true };
        let mean = self.has_mean().then(|| anomaly::mean(self.values(windows).take(SLOW_WINDOWS)));
        let is_known = mean.is_none_or(|mean| self.ordered.means.remove(mean));
        self.ordered.past.remove(&window) && is_known
    }

    fn add_newest(&mut self, windows: &SealedWindows<'_>) {
        let Some(window) = self.window(windows, self.extent.last) else { return };
        self.ordered.past.add(&window);
        if self.has_mean() {
            self.ordered.means.insert(self.sum_of_newest(windows, SLOW_WINDOWS) / SLOW_WINDOWS as f64);
        }
    }

    /// Centre and spread of all; rules over the same windows share it.
    pub(super) fn spread(&mut self) -> Option<zscore::Reference> {
        self.spread = self.spread.or_else(|| zscore::Reference::learn(&self.ordered.past.values));
        self.spread
    }

    fn has_mean(&self) -> bool {
        self.extent.has_means && self.ordered.past.values.len() >= SLOW_WINDOWS
    }

    fn window(&self, windows: &SealedWindows<'_>, index: i64) -> Option<regression::Window> {
        windows.window(index).filter(|window| window.count >= self.extent.least)
    }

    /// The values, oldest first.
    pub(super) fn values<'a>(
        &self,
        windows: &'a SealedWindows<'_>,
    ) -> impl DoubleEndedIterator<Item = f64> + 'a {
        self.whole(windows).map(|(_, value, _)| value)
    }

    fn whole<'a>(
        &self,
        windows: &'a SealedWindows<'_>,
    ) -> impl DoubleEndedIterator<Item = (i64, f64, u64)> + 'a {
        let Extent { first, last, least, .. } = self.extent;
        windows.values(first, last).filter(move |(.., count)| *count >= least)
    }

    /// How many values each window holds, and what was asked of it.
    pub(super) fn counted(&self, windows: &SealedWindows<'_>) -> Vec<(f64, f64)> {
        self.whole(windows).map(|(_, value, count)| (count as f64, value)).collect()
    }

    /// The sum of the newest values, added oldest first; at most [`SLOW_WINDOWS`].
    pub(super) fn sum_of_newest(&self, windows: &SealedWindows<'_>, count: usize) -> f64 {
        let (mut newest, mut at) = ([0.0; SLOW_WINDOWS], SLOW_WINDOWS);
        for value in self.values(windows).rev().take(count.min(SLOW_WINDOWS)) {
            at -= 1;
            newest[at] = value;
        }
        newest[at..].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::SharedLine;
    use super::*;
    use crate::core::detect::dice::Dice;
    use crate::core::histogram::layout::Digits;
    use crate::core::key::{Key, KeyId, Keys};
    use crate::core::pane::{Sample, Shape};
    use crate::core::rule::ast::Aggregate;
    use crate::core::selector::{By, Selector};
    use crate::core::time::{Span, Timestamp};
    use crate::core::unit::Unit;
    use crate::core::view::feed::{self, When};
    use crate::core::view::{Lateness, Reading, Subscription, View, ViewKind, ViewSpec};

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

    /// Busy and silent minutes, late values, and a period that moves by one window or by many: what is kept is
    /// what is made anew.
    #[test]
    fn what_is_kept_is_what_is_made_anew() {
        for (seed, aggregate) in [(1, Aggregate::Avg), (2, Aggregate::Count), (3, Aggregate::Quantile(0.95))]
        {
            let (mut dice, (view, key, to)) = (Dice(seed), view(aggregate));
            let (mut views, mut ranks, mut steps): (Vec<View>, Option<Ranks>, u32) = (vec![view], None, 0);
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
                let anew = Ranks::new(&windows, extent);
                let kept = ranks.get_or_insert_with(|| Ranks::new(&windows, extent));
                steps += u32::from(kept.extent.is_near(extent, kept.state, windows.state()));
                kept.move_to(&windows, extent);
                assert_eq!(kept.ordered, anew.ordered, "{aggregate:?} {minute}");
                let few = Extent { first: extent.last - 1 - (dice.uniform() * 40.0) as i64, ..extent };
                for extent in [extent, few] {
                    let anew = SharedLine::default().move_to((&windows, extent));
                    assert_eq!(line.move_to((&windows, extent)), anew, "{aggregate:?} {minute} {extent:?}");
                }
                assert_eq!(kept.sum_of_newest(&windows, 23), anew.sum_of_newest(&windows, 23));
            }
            assert!(steps > 250, "only {steps} steps were short");
        }
    }
}
