//! The windows of a period in order of size, kept from window to window.
//!
//! Intuition: when a window is sealed, one comes and one goes; all others stand where they stood. So what is
//! normal is learned from lists that are already in order, which rules over the same windows share.
//! Invariant: they are for speed alone: what is learned of them is what is learned of the same windows from
//! scratch; whenever an older window changed they are made anew. Rejected: keeping them with the alerts' own
//! exceptions in them (each rule would need its own; the few keys that have exceptions are learned from scratch).

use super::super::detect::anomaly::{self, SLOW_WINDOWS};
use super::super::detect::leeway::{self, Leeway};
use super::super::detect::regression;
use super::super::detect::sorted::Sorted;
use super::super::detect::zscore;
use super::super::view::SealedWindows;
use super::ast::Function;
use super::past::Learned;
use regression::Window;
use std::sync::Arc;

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
    known: Known,
    /// What stays true of them for some windows more, once anybody asked.
    leeway: Option<Leeway>,
}

/// What was learned of all of them, once anybody asked: rules over the same windows share it.
#[derive(Debug, Default)]
struct Known {
    regression: Option<(Arc<regression::Reference>, Option<f64>)>,
    anomaly: Option<(anomaly::Reference, f64)>,
    spread: Option<zscore::Reference>,
}

impl Ordered {
    /// Of windows in the order of time.
    pub(super) fn of(windows: &[Window], has_means: bool) -> Ordered {
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
        let ordered = Ordered::of(&whole(windows, extent), extent.has_means);
        Ranks { extent, state: windows.state(), ordered, known: Known::default(), leeway: None }
    }

    /// Makes them those of another extent.
    pub(super) fn move_to(&mut self, windows: &SealedWindows<'_>, extent: Extent) {
        let wanted = Extent { has_means: extent.has_means || self.extent.has_means, ..extent };
        if self.extent == wanted && self.state == windows.state() {
            return;
        }
        let is_near = self.extent.is_near(wanted, self.state, windows.state());
        if !is_near || !self.step(windows, wanted) {
            *self = Ranks::new(windows, wanted);
        }
        self.state = windows.state();
    }

    /// Some go and others come; `false` if one was not as it is known.
    fn step(&mut self, windows: &SealedWindows<'_>, wanted: Extent) -> bool {
        let (gone, new) = (wanted.first - self.extent.first, wanted.last - self.extent.last);
        if gone == 0 && new == 0 {
            return true;
        }
        (self.known, self.leeway) = (Known::default(), None);
        let before = self.extent;
        let gone = whole(windows, Extent { last: wanted.first - 1, ..before });
        let new = whole(windows, Extent { first: before.last + 1, ..wanted });
        let means = (means_of_first(windows, before, gone.len()), means_of_last(windows, wanted, new.len()));
        self.extent = wanted;
        self.ordered.means.change(means.0, means.1) & self.ordered.past.change(&gone, &new)
    }

    /// What is surely true of windows a little later than these, and the number of values that came since;
    /// `None` where nothing is.
    pub(super) fn leeway(&mut self, windows: &SealedWindows<'_>, extent: Extent) -> Option<(&Leeway, f64)> {
        let wanted = Extent { has_means: extent.has_means || self.extent.has_means, ..extent };
        let changes = leeway::changes(self.ordered.past.values.len()) as i64;
        let steps = (wanted.first - self.extent.first).max(wanted.last - self.extent.last);
        if steps > changes || !self.extent.is_near(wanted, self.state, windows.state()) {
            self.move_to(windows, wanted);
        }
        let Extent { first, last, least, .. } = self.extent;
        if self.leeway.is_none() {
            let tails = windows.tails(first, last).filter(|(count, _)| *count >= least as f64);
            self.leeway = Leeway::of(&self.ordered.past, &self.ordered.means, tails);
        }
        let (leeway, mut came) = (self.leeway.as_ref()?, 0);
        for (_, value, count) in values(windows, Extent { first: last + 1, ..wanted }) {
            if !leeway.holds_with(value) {
                return None;
            }
            came += count;
        }
        Some((leeway, came as f64))
    }

    /// What was learned of them before, of the kind that a function needs; `above`: where the tail begins.
    pub(super) fn known(&self, function: Function, above: Option<f64>) -> Option<Learned> {
        let Known { regression, anomaly, spread } = &self.known;
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
        match learned {
            Learned::Regression(reference, above) => {
                self.known.regression = Some((reference.clone(), *above));
            }
            Learned::Anomaly { reference, peak } => self.known.anomaly = Some((*reference, *peak)),
            Learned::Spread(spread) => self.known.spread = Some(*spread),
            Learned::Trend(_) | Learned::Correlation(_) => {}
        }
    }
}

/// The windows of an extent that hold enough, oldest first.
fn whole(windows: &SealedWindows<'_>, extent: Extent) -> Vec<Window> {
    let all = windows.within(extent.first, extent.last).map(|(_, window)| window);
    all.filter(|window| window.count >= extent.least).collect()
}

/// Index, value and count of each of them.
fn values<'a>(
    windows: &'a SealedWindows<'_>,
    extent: Extent,
) -> impl DoubleEndedIterator<Item = (i64, f64, u64)> + 'a {
    windows.values(extent.first, extent.last).filter(move |(.., count)| *count >= extent.least)
}

/// The values of the newest, oldest first.
pub(super) fn newest(windows: &SealedWindows<'_>, extent: Extent, count: usize) -> Vec<f64> {
    let mut newest: Vec<f64> = values(windows, extent).rev().take(count).map(|(_, value, _)| value).collect();
    newest.reverse();
    newest
}

/// The sum of the values of the newest, added oldest first; at most [`SLOW_WINDOWS`].
pub(super) fn sum_of_newest(windows: &SealedWindows<'_>, extent: Extent, count: usize) -> f64 {
    let (mut newest, mut at) = ([0.0; SLOW_WINDOWS], SLOW_WINDOWS);
    for (_, value, _) in values(windows, extent).rev().take(count.min(SLOW_WINDOWS)) {
        at -= 1;
        newest[at] = value;
    }
    newest[at..].iter().sum()
}

/// The means that begin with the first of them.
fn means_of_first(windows: &SealedWindows<'_>, extent: Extent, count: usize) -> Vec<f64> {
    if !extent.has_means || count == 0 {
        return Vec::new();
    }
    let first = values(windows, extent).take(count + SLOW_WINDOWS - 1);
    anomaly::means(&first.map(|(_, value, _)| value).collect::<Vec<f64>>()).collect()
}

/// The means that end with the last of them.
fn means_of_last(windows: &SealedWindows<'_>, extent: Extent, count: usize) -> Vec<f64> {
    if !extent.has_means || count == 0 {
        return Vec::new();
    }
    anomaly::means(&newest(windows, extent, count + SLOW_WINDOWS - 1)).collect()
}

/// How many values each window holds, and what was asked of it.
pub(super) fn counted(windows: &SealedWindows<'_>, extent: Extent) -> Vec<(f64, f64)> {
    values(windows, extent).map(|(_, value, count)| (count as f64, value)).collect()
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
