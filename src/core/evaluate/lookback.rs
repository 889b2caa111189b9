//! Functions over past windows: which windows count, what is learned from them, and how the current window
//! compares.
//!
//! Intuition: the baseline changes only when a window is sealed, but the current value changes all the
//! time. So the learned baseline is cached until the windows change, and an evaluation only compares.
//! Invariant: the caches ([`super::memos::Memos`]) can be rebuilt from the windows. The frozen baseline of a firing
//! alert ([`super::baseline_freeze::BaselineFreeze`]) is state, because an alert must not teach the baseline that
//! the alert is normal.
//! Rejected: learning at each evaluation, because the windows of every key would be sorted every second.

use super::baseline_cache::{Extent, Normal, whole};
use super::memos::{Memo, MemoOf};
use super::trend_line::{SharedLine, points};
use super::{Evaluation, logic};
use crate::core::alert::Unknown;
use crate::core::alert::transition::Baseline;
use crate::core::detect::anomaly::SLOW_WINDOWS;
use crate::core::detect::shares::may_be_shares;
use crate::core::detect::sorted::Sorted;
use crate::core::detect::{anomaly, changepoint, correlation, cusum, regression, trend, zscore};
use crate::core::rule::ast::{Correlation, Function, Past, Period};
use crate::core::view::{self, COUNT_MAX, SealedWindows, StateBefore};
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::comparison::Side;
use crate::core::vocab::key::{KeyId, VERSION_LABEL};
use crate::core::vocab::time::{Span, Timestamp};
use regression::Window;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of windows for which an active alert keeps its frozen baseline, if the function does not exclude alert
/// windows from its baseline. It equals the number of windows for which a peak is remembered.
const HELD_WINDOWS: i64 = anomaly::PEAK_WINDOWS as i64;

/// A baseline learned from some windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Learned {
    /// The reference, and the value at which the tail of the past values begins. The reference is shared,
    /// because it is larger than all other variants together.
    Regression(Arc<regression::Reference>, Option<f64>),
    Anomaly {
        reference: anomaly::Reference,
        peak: f64,
    },
    Spread(zscore::Reference),
    Trend(trend::Trend),
    Correlation(correlation::Correlation),
}

/// A learned baseline, with the end of its windows and their number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) learned: Learned,
    pub(super) end: Timestamp,
    pub(super) windows: usize,
    /// How often late events had changed the key's sealed windows.
    revision: u32,
}

impl Version {
    /// Returns the evidence that every function reports.
    pub(super) fn evidence(&self) -> Baseline {
        Baseline {
            version: Some(format!("{}@{}", self.windows, self.end)),
            windows: Some(self.windows),
            revision: Some(self.revision),
            ..Baseline::default()
        }
    }
}

/// The cached extent of the function at one place: begin, end and windows of its period; the inner `None`
/// means that the period overlaps a gap. The extent is the same for all keys that are evaluated at one grid
/// point.
#[derive(Debug, Default)]
pub(crate) struct CachedExtent(Option<(u32, Option<(Timestamp, Timestamp, Extent)>)>);

impl Evaluation<'_> {
    pub(super) fn past(&mut self, asked: &Past) -> Result<f64, Unknown> {
        let looked = self.looked_at(asked).ok_or_else(|| self.nothing_of(asked.current, self.target.key))?;
        self.expect_series(looked.0, looked.1)?;
        let now = self.aggregate_of(looked, asked.aggregate, self.target.at);
        // `upper` and `lower` are computed from past windows alone, so they need no current value. `trend` and
        // `forecast` also use past windows alone, but they return nothing once no more data arrives.
        let is_bound = matches!(asked.function, Function::Upper { .. } | Function::Lower { .. });
        let now = if is_bound { now.unwrap_or(0.0) } else { now? };
        let deployed = asked.per_version.map(|_| looked.1);
        let version = self.version(asked, deployed)?;
        match &version.learned {
            Learned::Regression(reference, above) => {
                Ok(self.judge(asked, looked, now, (reference, *above), &version))
            }
            Learned::Anomaly { reference, peak } => {
                self.note_p_value(reference.p_value(now));
                self.note_baseline(|| version.evidence());
                // An active alert is judged by its plain score. Neither an earlier peak nor the
                // false-discovery-rate threshold may end it.
                Ok(match self.target.is_active {
                    true => reference.score(now, None),
                    false => anomaly::after_peak(reference.score(now, self.notes.believed), *peak),
                })
            }
            Learned::Spread(reference) => {
                self.note_baseline(|| spread_evidence(reference, &version));
                let distance = match asked.function {
                    Function::ZScore => reference.z(now),
                    Function::RobustZ => reference.robust_z(now),
                    Function::Upper { k } => Some(reference.bound(k)),
                    Function::Lower { k } => Some(reference.bound(-k)),
                    _ => None,
                };
                distance.ok_or(Unknown::DivisionByZero)
            }
            Learned::Trend(trend) => Ok(self.follow(asked, trend, &version)),
            Learned::Correlation(_) => Err(Unknown::NoBaseline),
        }
    }

    pub(super) fn correlation(&mut self, asked: &Correlation) -> Result<f64, Unknown> {
        // Only the errors and the noted counts and times matter; the values are not used.
        let [a, b] = [&asked.a, &asked.b].map(|side| {
            self.expect_series(side.current, self.target.key)?;
            self.aggregate(side.current, side.aggregate, self.target.at)
        });
        logic::both(a, b)?;
        let of = self.memo_of(&asked.a, None);
        let other = self.memo_of(&asked.b, None).state;
        // Both counters only grow, so their sum changes if either of them does.
        let changes = of.state.changes + other.changes;
        let of = MemoOf { state: StateBefore { changes, end: of.state.end + other.end, ..of.state }, ..of };
        let version = self.remembered(asked.a.place, of, |scope| {
            let windows = |side: &Past| scope.outside_maintenance(side, scope.known(side, of));
            let (a, b) = (windows(&asked.a), windows(&asked.b));
            let b: BTreeMap<i64, f64> = b.into_iter().map(|(index, window)| (index, window.value)).collect();
            let pair = |(index, window): &(i64, Window)| Some((window.value, *b.get(index)?));
            let pairs: Vec<(f64, f64)> = a.iter().filter_map(pair).collect();
            let learned = correlation::Correlation::learn(&pairs)?;
            Some((Learned::Correlation(learned), learned.windows))
        });
        let version = version.ok_or(Unknown::NoBaseline)?;
        let Learned::Correlation(found) = &version.learned else { return Err(Unknown::NoBaseline) };
        self.note_baseline(|| Baseline { p: Some(found.p), ..version.evidence() });
        Ok(found.rho)
    }

    /// Returns the baseline of the current window. While the key is pending or firing, that is the baseline
    /// from when it became active.
    fn version(&mut self, asked: &Past, deployed: Option<KeyId>) -> Result<Version, Unknown> {
        // A season is not frozen: the alert's windows are not among the same hour of other days, and the
        // next hour has another baseline. A line is not frozen: it is followed as long as its alert lasts.
        let is_moving = matches!(asked.period, Period::Season { .. }) || asked.function.is_line();
        let (_, end) = self.reach_of(asked);
        if self.target.is_active && !is_moving {
            // If alert windows are not excluded, the baseline adapts to a long alert, but not at once: the frozen
            // baseline is replaced after `HELD_WINDOWS` windows.
            let oldest =
                if asked.leaves_alerts_out() { Timestamp::MIN } else { end - asked.window * HELD_WINDOWS };
            let baseline_freeze = self
                .learned
                .baseline_freeze
                .version(asked.place, self.target.key)
                .filter(|baseline_freeze| baseline_freeze.end >= oldest);
            if let Some(baseline_freeze) = baseline_freeze {
                return Ok(baseline_freeze);
            }
        }
        let version = match self.plain_extent(asked) {
            Some((end, extent)) => self.learn_plain(asked, end, extent),
            None => self.learn_others(asked, deployed),
        };
        let version = version.ok_or(Unknown::NoBaseline)?;
        if self.target.is_active && !self.notes.is_look && !is_moving {
            self.learned.baseline_freeze.keep(asked.place, self.target.key, version.clone());
        }
        Ok(version)
    }

    fn learn_others(&mut self, asked: &Past, deployed: Option<KeyId>) -> Option<Version> {
        let of = self.memo_of(asked, deployed);
        self.remembered(asked.place, of, |scope| match asked.period {
            Period::Deploys(count) => scope.learn_deploys(asked, of.deployed, of.end, count),
            _ => scope.learn_windows(asked, of),
        })
    }

    fn learn_windows(&self, asked: &Past, of: MemoOf) -> Option<(Learned, usize)> {
        let known = self.known(asked, of);
        if asked.function.is_line() {
            let known = self.outside_maintenance(asked, known);
            let points = points(known.iter().map(|(index, window)| (*index, window.value)));
            let line = trend::Trend::learn(&points)?;
            return Some((Learned::Trend(line), line.windows));
        }
        let only =
            |windows: &[(i64, Window)]| -> Vec<Window> { windows.iter().map(|(_, one)| *one).collect() };
        let above =
            self.inputs.views[asked.baseline as usize].sealed(self.target.key).and_then(|it| it.tail_begin());
        let learned = |taught: &[(i64, Window)]| {
            Some((learn(asked, &only(taught), Some(&only(&known)), above)?, taught.len()))
        };
        let taught = learned(&self.taught(asked, known.clone(), asked.window));
        // The last window before an alert may already show the change, so it is excluded. An active alert that
        // would have too few windows without it uses it, because an alert must not lose its baseline as it begins.
        let taught_with_it = || learned(&self.taught(asked, known.clone(), Span::ZERO));
        taught.or_else(|| self.target.is_active.then(taught_with_it).flatten())
    }

    /// Returns the end and the extent of the windows that a function looks back on, if all of them are
    /// complete and none is left out.
    pub(super) fn plain_extent(&mut self, asked: &Past) -> Option<(Timestamp, Extent)> {
        let (from, end, extent) = self.whole_extent(asked)?;
        let teaches = asked.function.is_line()
            || self.learned.baseline_freeze.teaches_all(
                self.target.key,
                from,
                asked.window,
                asked.leaves_alerts_out(),
            );
        let is_plain = teaches && self.planned(asked).iter().all(|(_, planned_end)| *planned_end <= from);
        is_plain.then_some((end, extent))
    }

    /// Returns begin, end and extent of a plain period that overlaps no gap; these are the same for all
    /// keys.
    fn whole_extent(&mut self, asked: &Past) -> Option<(Timestamp, Timestamp, Extent)> {
        if let Some((_, known)) = self.reach.0.filter(|(place, _)| *place == asked.place) {
            return known;
        }
        let Period::Span(span) = asked.period else { return None };
        let (_, end) = self.reach_of(asked);
        let from = end - span;
        let is_counted = asked.aggregate.is_zero_of_nothing();
        let extent = Extent {
            first: from.ceil(asked.window).index(asked.window),
            last: end.index(asked.window) - 1,
            least: if is_counted { 0 } else { self.notes.min_count.clamp(1, COUNT_MAX) },
            has_means: asked.function == Function::Anomaly,
        };
        let found = (!self.inputs.gaps.touch(from, end)).then_some((from, end, extent));
        self.reach = CachedExtent(Some((asked.place, found)));
        found
    }

    /// Learns the same as [`Self::learn_windows`] for plain periods; rules over the same windows share the
    /// result.
    fn learn_plain(&mut self, asked: &Past, end: Timestamp, extent: Extent) -> Option<Version> {
        let windows = self.inputs.views[asked.baseline as usize].sealed(self.target.key)?;
        let place = extent.place(asked.baseline);
        let (learned, count) = match asked.function.is_line() {
            true => {
                let lines = self.learned.memos.lines.entry(place).or_default();
                lines.get_or_insert_with(self.target.key, SharedLine::default).line(&windows, extent)?
            }
            false => {
                let keys = self.learned.memos.normal.entry(place).or_default();
                let normal = keys.get_or_insert_with(self.target.key, || Normal::new(&windows, extent));
                normal.move_to(&windows, extent);
                (learn_once(asked, normal, &windows, extent)?, normal.windows())
            }
        };
        let (revision, ..) = windows.state();
        Some(Version { learned, end, windows: count, revision })
    }

    fn remembered(
        &mut self,
        place: u32,
        of: MemoOf,
        learn: impl FnOnce(&mut Self) -> Option<(Learned, usize)>,
    ) -> Option<Version> {
        let known = self
            .learned
            .memos
            .learned
            .get(&(self.learned.reader, place))
            .and_then(|keys| keys.get(self.target.key));
        if let Some(memo) = known.filter(|memo| memo.of == of) {
            return memo.version.clone();
        }
        let (end, revision) = (of.end, of.state.changes);
        let version = learn(self).map(|(learned, windows)| Version { learned, end, windows, revision });
        let memo = Memo { of, version: version.clone() };
        self.learned
            .memos
            .learned
            .entry((self.learned.reader, place))
            .or_default()
            .insert(self.target.key, memo);
        version
    }

    /// Returns where the current window begins, and where the windows that it is compared with end.
    pub(super) fn reach_of(&self, asked: &Past) -> (Timestamp, Timestamp) {
        let start = self.inputs.views[asked.current as usize].oldest_start(self.target.at);
        let end = start.min(self.target.at - self.timing.allowed_lateness - Span::MILLISECOND);
        (start, end.floor(asked.window))
    }

    /// Returns the inputs of the baseline that would be learned now.
    pub(super) fn memo_of(&self, asked: &Past, deployed: Option<KeyId>) -> MemoOf {
        let (start, end) = self.reach_of(asked);
        let baseline = &self.inputs.views[asked.baseline as usize];
        let state = match asked.period {
            Period::Deploys(_) => {
                let versions = self.inputs.keys.versions_of(self.target.key).iter();
                let changes = versions.fold(0, |sum, version| sum + baseline.changes(*version) + 1);
                StateBefore { changes, ..StateBefore::default() }
            }
            _ => baseline
                .sealed(self.target.key)
                .map_or_else(StateBefore::default, |windows| windows.state_before(end.index(asked.window))),
        };
        MemoOf {
            end,
            state,
            deployed,
            slot: match asked.period {
                Period::Season { .. } => {
                    (start + Span::from_ms(asked.window.ms() / 2)).floor(slot_of(asked.window))
                }
                _ => end,
            },
            min_count: self.notes.min_count,
            lessons: (self.learned.baseline_freeze.changes(self.target.key), self.inputs.mutes.lessons),
        }
    }

    /// Returns the windows of the period that are complete and hold enough observations, oldest first.
    pub(super) fn known(&self, asked: &Past, MemoOf { end, slot, .. }: MemoOf) -> Vec<(i64, Window)> {
        let last = end.index(asked.window) - 1;
        let view = &self.inputs.views[asked.baseline as usize];
        let mut windows = Vec::new();
        for (from, to) in spans(asked.period, end, (slot, slot_of(asked.window))) {
            let (first, to) = (from.ceil(asked.window).index(asked.window), to.index(asked.window) - 1);
            windows.extend(view.past(self.target.key, first, to.min(last)));
        }
        self.whole(asked, windows)
    }

    /// Keeps the windows that hold enough observations and overlap no gap.
    pub(super) fn whole(&self, asked: &Past, mut windows: Vec<(i64, Window)>) -> Vec<(i64, Window)> {
        let is_counted = asked.aggregate.is_zero_of_nothing();
        windows.retain(|(index, window)| {
            let start = Timestamp::clamped(index * asked.window.ms());
            (is_counted || window.count >= self.notes.min_count.clamp(1, COUNT_MAX))
                && !self.inputs.gaps.touch(start, start + asked.window)
        });
        windows
    }

    /// Keeps the windows from which the baseline is learned. If alert windows are excluded, so are the windows
    /// that end within `margin` before an alert.
    pub(super) fn taught(
        &self,
        asked: &Past,
        windows: Vec<(i64, Window)>,
        margin: Span,
    ) -> Vec<(i64, Window)> {
        let mut windows = self.outside_maintenance(asked, windows);
        windows.retain(|(index, _)| {
            let start = Timestamp::clamped(index * asked.window.ms());
            let window = (start, start + asked.window);
            self.learned.baseline_freeze.teaches(self.target.key, window, margin, asked.leaves_alerts_out())
        });
        windows
    }

    pub(super) fn outside_maintenance(
        &self,
        asked: &Past,
        mut windows: Vec<(i64, Window)>,
    ) -> Vec<(i64, Window)> {
        let planned = self.planned(asked);
        windows.retain(|(index, _)| {
            let start = Timestamp::clamped(index * asked.window.ms());
            !planned.iter().any(|(from, to)| start < *to && start + asked.window > *from)
        });
        windows
    }

    fn judge(
        &mut self,
        asked: &Past,
        (view, key): (u32, KeyId),
        now: f64,
        (reference, above): (&regression::Reference, Option<f64>),
        version: &Version,
    ) -> f64 {
        // The false-discovery-rate threshold applies only to keys without an active alert; an active alert is
        // judged by its own limit.
        let believed = self.notes.believed.filter(|_| !self.target.is_active);
        let window = view::trailing(self.inputs.views, (view, key), self.target.at, now, above);
        let quantile = match asked.aggregate {
            Aggregate::Quantile(q) => Some(q),
            _ => None,
        };
        let read = |q: f64| view::rank(self.inputs.views, view, key, self.target.at, q);
        let errors = reference.errors(quantile, &window, asked.side, read);
        let verdict = reference.judge(&window, errors, asked.side, believed);
        self.note_p_value(verdict.chance);
        if self.notes.why.is_none() {
            return verdict_value(asked, &verdict);
        }
        let has_onset = asked.per_version.is_none();
        let onset = has_onset.then(|| self.onset(asked, now)).flatten();
        let deployed = asked.per_version.and_then(|_| self.inputs.keys.get(key).get(VERSION_LABEL));
        let deployed = deployed.map(ToString::to_string);
        self.note_baseline(|| Baseline {
            median: Some(reference.asked.center),
            spread: Some(reference.asked.spread),
            score: Some(verdict.score),
            limit: Some(verdict.limit),
            by: Some(verdict.by.into()),
            p: (verdict.chance < 1.0).then_some(verdict.chance),
            onset,
            deployed,
            ..version.evidence()
        });
        verdict_value(asked, &verdict)
    }

    /// Notes the baseline if evidence is collected.
    pub(super) fn note_baseline(&mut self, baseline: impl FnOnce() -> Baseline) {
        if let Some(why) = &mut self.notes.why {
            why.baseline = baseline();
        }
    }

    /// Notes the p-value of one test. Several functions in one rule are several tests, so the smallest
    /// p-value is multiplied by their number.
    fn note_p_value(&mut self, chance: f64) {
        let (smallest, tests) = self.notes.chance.unwrap_or((1.0, 0));
        self.notes.chance = Some((smallest.min(chance), tests + 1));
    }

    /// Returns when the current change began: at the newest change point among the last windows, else where
    /// the CUSUM last left zero.
    fn onset(&self, asked: &Past, now: f64) -> Option<Timestamp> {
        let of = self.memo_of(asked, None);
        let mut windows = self.known(asked, of);
        windows.drain(..windows.len().saturating_sub(changepoint::WINDOWS_MAX));
        let values: Vec<f64> = windows.iter().map(|(_, window)| window.value).chain([now]).collect();
        let start = |at: usize| {
            let index = windows.get(at).map_or(of.end.index(asked.window), |(index, _)| *index);
            Timestamp::clamped(index * asked.window.ms())
        };
        let newest = changepoint::change_points(&values).pop();
        newest.or_else(|| self.cusum_onset(asked, &windows, &values)).map(start)
    }

    fn cusum_onset(&self, asked: &Past, windows: &[(i64, Window)], values: &[f64]) -> Option<usize> {
        let taught = self.taught(asked, windows.to_vec(), asked.window);
        let baseline: Vec<f64> = taught.iter().map(|(_, window)| window.value).collect();
        let mut cusum = cusum::Cusum::new(&baseline)?;
        let sign = if asked.side == Side::Above { 1.0 } else { -1.0 };
        let alarms = values.iter().enumerate().map(|(at, value)| (at, cusum.add(*value, sign)));
        let (at, since) = alarms.filter_map(|(at, since)| Some((at, since?))).last()?;
        Some((at + 1).saturating_sub(since))
    }
}

fn verdict_value(asked: &Past, verdict: &regression::Verdict) -> f64 {
    match asked.function {
        Function::RegressionScore => verdict.ratio(),
        _ => verdict.change,
    }
}

fn spread_evidence(reference: &zscore::Reference, version: &Version) -> Baseline {
    Baseline {
        median: Some(reference.median),
        mean: Some(reference.mean),
        spread: Some(reference.deviation),
        ..version.evidence()
    }
}

/// Returns the reference that a function needs. It is learned from the windows on first use, then cached.
fn learn_once(
    asked: &Past,
    normal: &mut Normal,
    windows: &SealedWindows<'_>,
    extent: Extent,
) -> Option<Learned> {
    let above = windows.tail_begin();
    if let Some(known) = normal.known(asked.function, above) {
        return Some(known);
    }
    let taught: Vec<Window> = whole(windows, extent).map(|(_, window)| window).collect();
    let learned = learn(asked, &taught, None, above)?;
    normal.remember(&learned);
    Some(learned)
}

/// Learns the reference that a function needs from the windows `taught`; `None` if there are too few. `known`:
/// all windows of the period, if some of them may be excluded from `taught`. `above`: the value at which the tail
/// begins.
fn learn(asked: &Past, taught: &[Window], known: Option<&[Window]>, above: Option<f64>) -> Option<Learned> {
    Some(match asked.function {
        Function::Regression | Function::RegressionScore => {
            Learned::Regression(Arc::new(learn_regression(asked, taught)?), above)
        }
        Function::Anomaly => learn_anomaly(&values(taught), known.map(values))?,
        _ => Learned::Spread(zscore::Reference::learn(&Sorted::of(values(taught)))?),
    })
}

fn learn_regression(asked: &Past, taught: &[Window]) -> Option<regression::Reference> {
    let past = regression::Past::of(taught);
    let reference = regression::Reference::learn_sorted(&past, regression::tails(taught))?;
    let counted = || taught.iter().map(|window| (window.count as f64, window.value));
    Some(match asked.aggregate {
        Aggregate::Count => reference.counting(&past.values, 1.0),
        Aggregate::RateOfCount => reference.counting(&past.values, asked.window.secs_f64()),
        Aggregate::Avg if may_be_shares(&past.values) => reference.sharing(counted()),
        _ => reference,
    })
}

fn learn_anomaly(taught: &[f64], known: Option<Vec<f64>>) -> Option<Learned> {
    let means = Sorted::of(anomaly::means(taught).collect());
    let (ordered, newest) = (Sorted::of(taught.to_vec()), taught.len().saturating_sub(SLOW_WINDOWS - 1));
    let reference = anomaly::Reference::learn(&ordered, &means, taught[newest..].iter().sum())?;
    let peak = match known {
        // A peak counts even if its window is excluded from the baseline.
        Some(known) => reference.peak(&known),
        None if reference.has_peak(&ordered, &means) => reference.peak(taught),
        None => 0.0,
    };
    Some(Learned::Anomaly { reference, peak })
}

fn values(windows: &[Window]) -> Vec<f64> {
    windows.iter().map(|window| window.value).collect()
}

/// The length of a slot of a season: an hour, or the window if that is longer.
fn slot_of(window: Span) -> Span {
    Span::from_hours(1).max(window)
}

/// Returns the spans of time that a period covers, oldest first, for windows that end by `end`.
fn spans(period: Period, end: Timestamp, (slot, hour): (Timestamp, Span)) -> Vec<(Timestamp, Timestamp)> {
    match period {
        Period::Span(span) => vec![(end - span, end)],
        Period::Season { every, times } => {
            // The same hour in each of the last `times` days or weeks.
            (1..=i64::from(times))
                .rev()
                .map(|back| (slot - every * back, slot - every * back + hour))
                .collect()
        }
        // Deploys are found by version, not by time.
        Period::Deploys(_) => Vec::new(),
    }
}
