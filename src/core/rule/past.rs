//! Functions over past windows: which windows count, what is learned of them, what this one is against it.
//!
//! Intuition: what is normal changes when a window is sealed, what is now changes all the time. So what was
//! learned is kept until the windows change, and an evaluation only compares. Invariant: what is kept for
//! speed ([`Memos`]) follows from the windows; what a firing alert is compared with ([`super::frozen::Frozen`]) is state,
//! because an alert must not teach the baseline that it is normal.
//! Rejected: learning at each evaluation (a sort a second and key).

use super::super::alert::Unknown;
use super::super::alert::transition::Baseline;
use super::super::detect::anomaly::SLOW_WINDOWS;
use super::super::detect::shares::may_be_shares;
use super::super::detect::sorted::Sorted;
use super::super::detect::{anomaly, changepoint, correlation, cusum, regression, trend, zscore};
use super::super::key::table::KeyTable;
use super::super::key::{KeyId, VERSION_LABEL};
use super::super::time::{Span, Timestamp};
use super::super::view::{self, COUNT_MAX, SealedWindows, StateBefore};
use super::ast::{Aggregate, Correlation, Function, Past, Period, Side};
use super::evaluate::Scope;
use super::line::{SharedLine, points};
use super::logic;
use super::normal::{Extent, Normal, Place, whole};
use regression::Window;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Windows for which an alert is compared with what was learned before it, where what it sees teaches: as long as
/// a peak is remembered.
const HELD_WINDOWS: i64 = anomaly::PEAK_WINDOWS as i64;

/// What was learned of some windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Learned {
    /// With where the past's tail begins. It is larger than all others together.
    Regression(Arc<regression::Reference>, Option<f64>),
    Anomaly {
        reference: anomaly::Reference,
        peak: f64,
    },
    Spread(zscore::Reference),
    Trend(trend::Trend),
    Correlation(correlation::Correlation),
}

/// With where the windows end that it was learned of, and how many there were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) learned: Learned,
    pub(super) end: Timestamp,
    pub(super) windows: usize,
    /// How often late events had changed the key's sealed windows.
    revision: u32,
}

impl Version {
    /// What is told of any function.
    pub(super) fn evidence(&self) -> Baseline {
        Baseline {
            version: Some(format!("{}@{}", self.windows, self.end)),
            windows: Some(self.windows),
            revision: Some(self.revision),
            ..Baseline::default()
        }
    }
}

/// What the function at one place looks back on: from where to where, and which windows these are; `None` where
/// something was lost. Only a shortcut: it is so for all keys that are evaluated at one grid point.
#[derive(Debug, Default)]
pub struct Reach(Option<(u32, Option<(Timestamp, Timestamp, Extent)>)>);

/// Whose function it is: a rule or a record, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reader {
    Rule(u32),
    Record(u32),
}

/// What is kept for speed.
#[derive(Debug, Default)]
pub struct Memos {
    /// Of windows of which some are left out, or which are not those of a plain period; by reader and place
    /// within it.
    learned: Table<(Reader, u32), KeyTable<Memo>>,
    pub(super) normal: Table<Place, KeyTable<Normal>>,
    pub(super) lines: Table<Place, KeyTable<SharedLine>>,
}

type Table<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// `None`: too few windows.
#[derive(Debug)]
struct Memo {
    of: MemoOf,
    version: Option<Version>,
}

/// What it was learned of; another one is out of date.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MemoOf {
    /// Where the newest window ends.
    end: Timestamp,
    state: StateBefore,
    /// The version that is compared with those before it.
    deployed: Option<KeyId>,
    /// With `season`: the hour that most of the trailing window lies in.
    slot: Timestamp,
    min_count: u64,
    /// Changes of what teaches nothing: alerts of the key, and maintenance.
    lessons: (u32, u32),
}

impl Memos {
    pub fn clear(&mut self) {
        *self = Memos::default();
    }

    /// Asks for what an evaluation of these keys reads; see [`view::ahead`].
    pub fn ask_ahead(&self, keys: &[KeyId]) -> view::ahead::Token {
        let ask = |token, one: Option<u64>| token ^ one.unwrap_or(0);
        let normal = self.normal.values().flat_map(|known| keys.iter().map(|key| known.get(*key)));
        let lines = self.lines.values().flat_map(|known| keys.iter().map(|key| known.get(*key)));
        let normal = normal.map(|known| known.map(Normal::ask_ahead)).fold(0, ask);
        lines.map(|known| known.map(SharedLine::ask_ahead)).fold(normal, ask)
    }

    pub fn forget(&mut self, key: KeyId) {
        for keys in self.learned.values_mut() {
            keys.remove(key);
        }
        for keys in self.normal.values_mut() {
            keys.remove(key);
        }
        for keys in self.lines.values_mut() {
            keys.remove(key);
        }
    }
}

impl Scope<'_> {
    pub(super) fn past(&mut self, asked: &Past) -> Result<f64, Unknown> {
        let looked = self.looked_at(asked).ok_or_else(|| self.nothing_of(asked.current, self.key))?;
        self.expect_series(looked.0, looked.1)?;
        let now = self.aggregate_of(looked, asked.aggregate, self.at);
        // A bound speaks of the past alone. So does a line, but nobody is told where it leads once nothing comes.
        let is_bound = matches!(asked.function, Function::Upper { .. } | Function::Lower { .. });
        let now = if is_bound { now.unwrap_or(0.0) } else { now? };
        let deployed = asked.per_version.map(|_| looked.1);
        let version = self.version(asked, deployed)?;
        match &version.learned {
            Learned::Regression(reference, above) => {
                Ok(self.judge(asked, looked, now, (reference, *above), &version))
            }
            Learned::Anomaly { reference, peak } => {
                self.note_chance(reference.chance(now));
                self.note_baseline(|| version.evidence());
                // One that is told already lasts as long as it does.
                Ok(match self.is_active {
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
        // For the number of observations and the newest of them.
        let [a, b] = [&asked.a, &asked.b].map(|side| {
            self.expect_series(side.current, self.key)?;
            self.aggregate(side.current, side.aggregate, self.at)
        });
        logic::both(a, b)?;
        let of = self.memo_of(&asked.a, None);
        let other = self.memo_of(&asked.b, None).state;
        // Both only grow, so their sums tell.
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

    /// What this window is compared with: while the key is pending or fires, what it was when it began to.
    fn version(&mut self, asked: &Past, deployed: Option<KeyId>) -> Result<Version, Unknown> {
        // The same hour of other days is no hour in which this alert could teach, and the next hour is another.
        // A line is no baseline: it is followed as long as its alert lasts.
        let is_moving = matches!(asked.period, Period::Season { .. }) || asked.function.is_line();
        let (_, end) = self.reach_of(asked);
        if self.is_active && !is_moving {
            // What is not left out becomes the past while its alert lasts: not at once, but it does.
            let oldest =
                if asked.leaves_alerts_out() { Timestamp::MIN } else { end - asked.window * HELD_WINDOWS };
            let frozen = self.frozen.version(asked.place, self.key).filter(|frozen| frozen.end >= oldest);
            if let Some(frozen) = frozen {
                return Ok(frozen);
            }
        }
        let version = match self.plain_extent(asked) {
            Some((end, extent)) => self.learn_plain(asked, end, extent),
            None => self.learn_others(asked, deployed),
        };
        let version = version.ok_or(Unknown::NoBaseline)?;
        if self.is_active && !self.notes.is_look && !is_moving {
            self.frozen.keep(asked.place, self.key, version.clone());
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
        let only = |windows: Vec<(i64, Window)>| windows.into_iter().map(|(_, window)| window).collect();
        let (taught, known): (Vec<Window>, Vec<Window>) =
            (only(self.taught(asked, known.clone())), only(known));
        let above = self.views[asked.baseline as usize].sealed(self.key).and_then(|it| it.tail_begin());
        Some((learn(asked, &taught, Some(&known), above)?, taught.len()))
    }

    /// The windows that a function looks back on and where they end, if all of them are whole and teach: nothing
    /// is to be left out.
    pub(super) fn plain_extent(&mut self, asked: &Past) -> Option<(Timestamp, Extent)> {
        let (from, end, extent) = self.whole_extent(asked)?;
        let teaches = asked.function.is_line()
            || self.frozen.teaches_all(self.key, from, asked.window, asked.leaves_alerts_out());
        let is_plain = teaches && self.planned(asked).iter().all(|(_, planned_end)| *planned_end <= from);
        is_plain.then_some((end, extent))
    }

    /// From where to where they are, if nothing was lost in between: the same for all keys.
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
        let found = (!self.gaps.touch(from, end)).then_some((from, end, extent));
        self.reach = Reach(Some((asked.place, found)));
        found
    }

    /// The same as [`Self::learn_windows`] learns, of plain windows: rules over the same ones share it.
    fn learn_plain(&mut self, asked: &Past, end: Timestamp, extent: Extent) -> Option<Version> {
        let windows = self.views[asked.baseline as usize].sealed(self.key)?;
        let place = extent.place(asked.baseline);
        let (learned, count) = match asked.function.is_line() {
            true => {
                let lines = self.memos.lines.entry(place).or_default();
                lines.get_or_insert_with(self.key, SharedLine::default).line(&windows, extent)?
            }
            false => {
                let keys = self.memos.normal.entry(place).or_default();
                let normal = keys.get_or_insert_with(self.key, || Normal::new(&windows, extent));
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
        let known = self.memos.learned.get(&(self.reader, place)).and_then(|keys| keys.get(self.key));
        if let Some(memo) = known.filter(|memo| memo.of == of) {
            return memo.version.clone();
        }
        let (end, revision) = (of.end, of.state.changes);
        let version = learn(self).map(|(learned, windows)| Version { learned, end, windows, revision });
        let memo = Memo { of, version: version.clone() };
        self.memos.learned.entry((self.reader, place)).or_default().insert(self.key, memo);
        version
    }

    /// Where the window begins that is looked at, and where those end that it looks back on.
    pub(super) fn reach_of(&self, asked: &Past) -> (Timestamp, Timestamp) {
        let start = self.views[asked.current as usize].oldest_start(self.at);
        let end = start.min(self.at - self.allowed_lateness - Span::MILLISECOND);
        (start, end.floor(asked.window))
    }

    /// The windows that a function looks back on.
    pub(super) fn memo_of(&self, asked: &Past, deployed: Option<KeyId>) -> MemoOf {
        let (start, end) = self.reach_of(asked);
        let baseline = &self.views[asked.baseline as usize];
        let state = match asked.period {
            Period::Deploys(_) => {
                let versions = self.keys.versions_of(self.key).iter();
                let changes = versions.fold(0, |sum, version| sum + baseline.changes(*version) + 1);
                StateBefore { changes, ..StateBefore::default() }
            }
            _ => baseline
                .sealed(self.key)
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
            lessons: (self.frozen.changes(self.key), self.mutes.lessons),
        }
    }

    /// The windows of the period that are whole and hold enough, oldest first.
    pub(super) fn known(&self, asked: &Past, MemoOf { end, slot, .. }: MemoOf) -> Vec<(i64, Window)> {
        let last = end.index(asked.window) - 1;
        let view = &self.views[asked.baseline as usize];
        let mut windows = Vec::new();
        for (from, to) in spans(asked.period, end, (slot, slot_of(asked.window))) {
            let (first, to) = (from.ceil(asked.window).index(asked.window), to.index(asked.window) - 1);
            windows.extend(view.past(self.key, first, to.min(last)));
        }
        self.whole(asked, windows)
    }

    /// Those that hold enough, and of which nothing was lost.
    pub(super) fn whole(&self, asked: &Past, mut windows: Vec<(i64, Window)>) -> Vec<(i64, Window)> {
        let is_counted = asked.aggregate.is_zero_of_nothing();
        windows.retain(|(index, window)| {
            let start = Timestamp::clamped(index * asked.window.ms());
            (is_counted || window.count >= self.notes.min_count.clamp(1, COUNT_MAX))
                && !self.gaps.touch(start, start + asked.window)
        });
        windows
    }

    /// Those of them that teach what is normal.
    pub(super) fn taught(&self, asked: &Past, windows: Vec<(i64, Window)>) -> Vec<(i64, Window)> {
        let mut windows = self.outside_maintenance(asked, windows);
        windows.retain(|(index, _)| {
            let start = Timestamp::clamped(index * asked.window.ms());
            self.frozen.teaches(self.key, start, asked.window, asked.leaves_alerts_out())
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
        // What is told already is measured by its own limit alone.
        let believed = self.notes.believed.filter(|_| !self.is_active);
        let window = view::trailing(self.views, (view, key), self.at, now, above);
        let quantile = match asked.aggregate {
            Aggregate::Quantile(q) => Some(q),
            _ => None,
        };
        let read = |q: f64| view::rank(self.views, view, key, self.at, q);
        let errors = reference.errors(quantile, &window, asked.side, read);
        let verdict = reference.judge(&window, errors, asked.side, believed);
        self.note_chance(verdict.chance);
        if self.notes.why.is_none() {
            return verdict_value(asked, &verdict);
        }
        let has_onset = asked.per_version.is_none();
        let onset = has_onset.then(|| self.onset(asked, now)).flatten();
        let deployed = asked.per_version.and_then(|_| self.keys.get(key).get(VERSION_LABEL));
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

    /// What it is compared with, where somebody asks why.
    pub(super) fn note_baseline(&mut self, baseline: impl FnOnce() -> Baseline) {
        if let Some(why) = &mut self.notes.why {
            why.baseline = baseline();
        }
    }

    /// Several functions in one rule are several tests: the smallest chance counts as often as there are.
    fn note_chance(&mut self, chance: f64) {
        let (smallest, tests) = self.notes.chance.unwrap_or((1.0, 0));
        self.notes.chance = Some((smallest.min(chance), tests + 1));
    }

    /// When what is seen now began: the newest change of level among the last windows, else where the sum of
    /// distances last left zero.
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
        let taught = self.taught(asked, windows.to_vec());
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

/// What a function needs of plain windows, if that is not known already.
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

/// Learns what a function needs of the windows that teach; `None` with too few. `known`: with those that do not,
/// where there are any; `above`: where the tail begins.
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
        // A peak was one, whether or not it teaches what is normal.
        Some(known) => reference.peak(&known),
        None if reference.has_peak(&ordered, &means) => reference.peak(taught),
        None => 0.0,
    };
    Some(Learned::Anomaly { reference, peak })
}

fn values(windows: &[Window]) -> Vec<f64> {
    windows.iter().map(|window| window.value).collect()
}

/// The length of what is compared with what it was: an hour; a longer window is one of its own.
fn slot_of(window: Span) -> Span {
    Span::from_hours(1).max(window)
}

/// The spans of time that a period means, oldest first, for windows that end by `end`.
fn spans(period: Period, end: Timestamp, (slot, hour): (Timestamp, Span)) -> Vec<(Timestamp, Timestamp)> {
    match period {
        Period::Span(span) => vec![(end - span, end)],
        Period::Season { every, times } => {
            // The same hour, some times before.
            (1..=i64::from(times))
                .rev()
                .map(|back| (slot - every * back, slot - every * back + hour))
                .collect()
        }
        // They are looked for by version, not by time.
        Period::Deploys(_) => Vec::new(),
    }
}
