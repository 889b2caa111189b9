//! Evaluation of one rule for one key at one grid point.
//!
//! Intuition: evaluation walks over the expression. A number gives a value, a condition gives true or false, and
//! both may be unknown with a reason. The module `logic` defines how `and`, `or` and `unless` combine these
//! answers.
//! Invariant: besides caches, evaluation changes only the memory of `sustained` and `occurrences` and the frozen
//! baseline of an active alert. Evaluating twice at one grid point gives the same answer twice. A query from
//! outside changes only caches, because the time of a query is not in the log.

mod baseline_cache;
pub(crate) mod baseline_freeze;
mod deploys;
mod logic;
pub(crate) mod lookback;
pub(crate) mod memos;
pub(crate) mod prefilter;
pub(crate) mod proportion;
mod trend_line;

use self::baseline_freeze::BaselineFreeze;
use self::lookback::CachedExtent;
use self::memos::{Memos, Reader};
use self::proportion::Shares;
use self::trend_line::Line;
use crate::core::alert::transition::{Baseline, Input};
use crate::core::alert::{Levels, Observation, Unknown};
use crate::core::gap::Gaps;
use crate::core::interruption::Interruptions;
use crate::core::mute::Mutes;
use crate::core::rule::ast::{Arithmetic, Cond, Elapsed, Expr, Past, RunSelector};
use crate::core::rule::describe::describe;
use crate::core::rule::{Rule, Subject};
use crate::core::run::{Sight, Tracker};
use crate::core::view::pipeline_records::PipelineRecords;
use crate::core::view::{self, View};
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::comparison::{Compare, Comparison};
use crate::core::vocab::key::{Key, KeyId, Keys};
use crate::core::vocab::pipeline::PIPELINE;
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A growing value that is past its limit is evaluated again once it has grown by one part in this many.
const GROWTH_STEPS: f64 = 16.0;

/// One evaluation: what it reads, what it may change, what it is about, and the notes it takes.
#[derive(Debug)]
pub(crate) struct Evaluation<'a> {
    pub inputs: Inputs<'a>,
    pub learned: Learned<'a>,
    pub target: Target<'a>,
    pub timing: Timing,
    pub notes: Notes,
    /// The cached extent of the function evaluated last.
    pub reach: CachedExtent,
}

/// The state that evaluations read. The views are exclusive only because a read fills their caches.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub views: &'a mut [View],
    pub runs: &'a Tracker,
    pub keys: &'a Keys,
    pub interruptions: &'a Interruptions,
    pub gaps: &'a Gaps,
    pub mutes: &'a Mutes,
    /// Records that derive from pipeline series.
    pub pipeline_records: &'a PipelineRecords,
}

/// What the rule or record has learned, which an evaluation updates.
#[derive(Debug)]
pub(crate) struct Learned<'a> {
    pub reader: Reader,
    pub memos: &'a mut Memos,
    pub shares: &'a mut Shares,
    pub baseline_freeze: &'a mut BaselineFreeze,
}

/// The key and the grid point that are evaluated.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// Labels of the rule.
    pub labels: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// Whether the key's alert is pending or firing.
    pub is_active: bool,
    pub key: KeyId,
    pub at: Timestamp,
}

/// Settings of the engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub allowed_lateness: Span,
    pub grace: Span,
    pub interval: Span,
}

/// Facts noted during an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Largest number of observations behind any aggregate; `None` without aggregates.
    pub count_max: Option<u64>,
    /// Time of the newest input.
    pub newest: Option<Timestamp>,
    /// If operands have no data: the newest input of the operand that has been without data for the longest.
    pub missing: Option<Timestamp>,
    /// The earliest time at which the passage of time alone may change the answer.
    pub look_again: Option<Timestamp>,
    /// The key can no longer be judged: its last run in flight was abandoned.
    pub is_gone: bool,
    /// Evidence; collected only on request.
    pub why: Option<Box<Why>>,
    /// The smallest p-value of the detectors, and how many detectors gave one.
    pub chance: Option<(f64, u32)>,
    /// With many keys: the largest p-value that counts as significant, from the false discovery rate.
    pub believed: Option<f64>,
    is_growing: bool,
    /// The evaluation answers a query, so it must not change any state.
    pub(super) is_look: bool,
    pub(super) min_count: u64,
}

/// The inputs that were read, and the baseline they were compared with.
#[derive(Debug, Default)]
pub(crate) struct Why {
    pub inputs: Vec<Input>,
    pub baseline: Baseline,
    /// The line of a forecast.
    pub(super) line: Option<Line>,
}

impl Notes {
    /// Returns notes that collect evidence.
    pub(crate) fn with_evidence() -> Notes {
        Notes { why: Some(Box::default()), ..Notes::default() }
    }

    /// Returns notes for a key of a rule that controls the false discovery rate. `believed`: the largest
    /// significant p-value.
    pub(crate) fn of_many(believed: f64) -> Notes {
        Notes { believed: Some(believed), ..Notes::default() }
    }

    /// Returns the p-value of the rule, corrected for the number of its detectors (Bonferroni).
    pub(crate) fn chance_of_all(&self) -> Option<f64> {
        self.chance.map(|(smallest, tests)| (smallest * f64::from(tests)).min(1.0))
    }

    /// Returns notes for a query between grid points, with evidence.
    pub(crate) fn of_a_look() -> Notes {
        Notes { is_look: true, ..Notes::with_evidence() }
    }
}

impl Evaluation<'_> {
    /// Judges a rule for the scope's key.
    pub(crate) fn observe(&mut self, rule: &Rule) -> Observation {
        self.notes.min_count = rule.min_count;
        let judged = match &rule.subject {
            Subject::Value(expr) => self.judge_value(rule, expr),
            Subject::Condition(cond) => self.judge_condition(rule, cond),
        };
        if self.notes.is_gone {
            return Observation::Gone;
        }
        if self.notes.count_max.is_some_and(|count| count < rule.min_count) {
            return Observation::Unknown(Unknown::MinCount);
        }
        judged.unwrap_or_else(|reason| Observation::Unknown(reason.alone()))
    }

    fn judge_value(&mut self, rule: &Rule, expr: &Expr) -> Result<Observation, Unknown> {
        let value = self.value(expr)?;
        let is_elapsed = matches!(expr, Expr::Elapsed(_));
        let (mut met, mut reset) = (Levels::NONE, Levels::NONE);
        for (at, level) in rule.levels.iter().enumerate() {
            for compare in level.condition.iter().chain(&level.reset) {
                self.note_crossing(is_elapsed, value, *compare);
            }
            if level.condition.is_some_and(|condition| condition.holds(value)) {
                met = Levels::up_to(at);
            }
        }
        // A forecast reports when it reaches a limit: that of the highest level that is met, else the first one.
        let limits =
            rule.levels.iter().enumerate().filter_map(|(at, level)| Some((at, level.condition?.limit)));
        let limit = limits.reduce(|a, b| if met.has(b.0) { b } else { a });
        self.note_reach(expr, limit.map(|(_, limit)| limit));
        for (at, level) in rule.levels.iter().enumerate() {
            if level.reset.map_or(!met.has(at), |reset| reset.holds(value)) {
                reset = reset.with(at);
            }
        }
        Ok(Observation::Known { value, met, reset })
    }

    fn judge_condition(&mut self, rule: &Rule, cond: &Cond) -> Result<Observation, Unknown> {
        let (leading, _, right) = cond.leading();
        let (is_met, compared) = match cond {
            // Most rules are one comparison. The compared value is also the published one, so it is
            // evaluated once.
            Cond::Compare { left, op, right } => {
                let (value, is_met) = self.compared(left, *op, right)?;
                (is_met, Some(value))
            }
            _ => (self.cond(cond)?, None),
        };
        self.note_reach(leading, if let Expr::Number(limit) = right { Some(*limit) } else { None });
        let value = compared.map_or_else(|| self.quietly(|scope| scope.value(leading)), Ok);
        let met = if is_met { Levels::up_to(0) } else { Levels::NONE };
        let is_reset = match (rule.levels.first().and_then(|level| level.reset), value) {
            (Some(reset), Ok(value)) => {
                self.note_crossing(matches!(leading, Expr::Elapsed(_)), value, reset);
                reset.holds(value)
            }
            // A value without a series does not keep an alert firing.
            (None, _) | (Some(_), Err(Unknown::Unseen)) => !is_met,
            (Some(_), Err(_)) => false,
        };
        let reset = if is_reset { Levels::up_to(0) } else { Levels::NONE };
        Ok(Observation::Known { value: value.unwrap_or(f64::NAN), met, reset })
    }

    /// Returns the value of an expression; never NaN or infinite.
    pub(crate) fn value(&mut self, expr: &Expr) -> Result<f64, Unknown> {
        let value = match expr {
            Expr::Number(number) => return Ok(*number),
            Expr::Aggregate { view, aggregate } => self.aggregate(*view, *aggregate, self.target.at),
            Expr::Change { view, aggregate, period } => self.change(*view, *aggregate, *period),
            Expr::Past(past) => self.past(past),
            Expr::Correlation(both) => self.correlation(both),
            Expr::Elapsed(elapsed) => self.elapsed(elapsed),
            Expr::Learned(elapsed) => self.learned_limit(elapsed),
            Expr::InFlight(selector) => self.sight(selector).map(|sight| match sight {
                Sight::Busy { in_flight, .. } => in_flight as f64,
                Sight::Idle | Sight::Lost => 0.0,
            }),
            Expr::Sustained { cond, period, place } => {
                self.share(cond, *period, *place).map(|(held, _)| held.secs_f64() / period.secs_f64())
            }
            Expr::Occurrences { cond, period, place } => {
                self.share(cond, *period, *place).map(|(_, times)| times as f64)
            }
            Expr::Binary { op, left, right } => return self.binary(*op, left, right),
            Expr::Abs(inner) => return Ok(self.value(inner)?.abs()),
            Expr::Min(all) => return self.fold(all, f64::min),
            Expr::Max(all) => return self.fold(all, f64::max),
        };
        self.note_input(expr, value);
        value
    }

    fn binary(&mut self, op: Arithmetic, left: &Expr, right: &Expr) -> Result<f64, Unknown> {
        let (left, right) = logic::both(self.value(left), self.value(right))?;
        let value = match op {
            Arithmetic::Add => left + right,
            Arithmetic::Subtract => left - right,
            Arithmetic::Multiply => left * right,
            Arithmetic::Divide if right == 0.0 => return Err(Unknown::DivisionByZero),
            Arithmetic::Divide => left / right,
        };
        if value.is_finite() { Ok(value) } else { Err(Unknown::NoData) }
    }

    fn fold(&mut self, all: &[Expr], pick: fn(f64, f64) -> f64) -> Result<f64, Unknown> {
        let values = all.iter().map(|expr| self.value(expr));
        let picked = values.reduce(|a, b| logic::both(a, b).map(|(a, b)| pick(a, b)));
        picked.unwrap_or(Err(Unknown::NoData))
    }

    /// Returns whether a condition holds.
    pub(crate) fn cond(&mut self, cond: &Cond) -> Result<bool, Unknown> {
        match cond {
            Cond::Compare { left, op, right } => self.compare(left, *op, right),
            Cond::And(a, b) => logic::and(self.cond(a), self.cond(b)),
            Cond::Or(a, b) => logic::or(self.cond(a), self.cond(b)),
            Cond::Unless(a, b) => logic::unless(self.cond(a), self.cond(b)),
        }
    }

    fn compare(&mut self, left: &Expr, op: Comparison, right: &Expr) -> Result<bool, Unknown> {
        self.compared(left, op, right).map(|(_, holds)| holds)
    }

    /// Returns the value of the side that is not a constant (else of the left side), and whether the
    /// comparison holds.
    fn compared(&mut self, left: &Expr, op: Comparison, right: &Expr) -> Result<(f64, bool), Unknown> {
        self.notes.is_growing = false;
        let (a, b) = (self.value(left), self.value(right));
        let is_limit = matches!(right, Expr::Number(_) | Expr::Learned(_));
        if let (Expr::Elapsed(_), true, Ok(value), Ok(limit)) = (left, is_limit, a, b) {
            self.note_crossing(true, value, Compare { op, limit });
        } else if self.notes.is_growing {
            self.look_again_by(self.target.at + self.timing.interval);
        }
        let (a, b) = logic::both(a, b)?;
        let told = if matches!(left, Expr::Number(_)) { b } else { a };
        Ok((told, op.holds(a, b)))
    }

    pub(super) fn aggregate(
        &mut self,
        view: u32,
        aggregate: Aggregate,
        at: Timestamp,
    ) -> Result<f64, Unknown> {
        self.aggregate_of((view, self.target.key), aggregate, at)
    }

    pub(super) fn aggregate_of(
        &mut self,
        (view, key): (u32, KeyId),
        aggregate: Aggregate,
        at: Timestamp,
    ) -> Result<f64, Unknown> {
        let start = self.inputs.views[view as usize].oldest_start(at);
        if let Some(until) = self.inputs.gaps.covered_until(start, at) {
            // The value stays unknown until the window no longer covers the gap.
            self.look_again_by(until + (at - start) + self.timing.interval);
            return Err(Unknown::Gap);
        }
        let totals = view::totals(self.inputs.views, view, key, at);
        if at == self.target.at {
            self.notes.count_max = self.notes.count_max.max(Some(totals.count));
            let newest = totals.last.map(|(time, _)| time);
            self.notes.newest = self.notes.newest.max(newest);
        }
        let known = |value: Option<f64>| value.ok_or(Unknown::NoData);
        match aggregate {
            Aggregate::Count => Ok(totals.count as f64),
            Aggregate::Sum => Ok(totals.sum),
            Aggregate::RateOfCount | Aggregate::RateOfSum => {
                // The newest pane of a past window also holds values from after the window's end. So the rate
                // divides by the time up to the end of that pane.
                let seconds =
                    (self.inputs.views[view as usize].newest_end(at).min(self.target.at) - start).secs_f64();
                let is_sum = aggregate == Aggregate::RateOfSum;
                Ok(if is_sum { totals.sum } else { totals.count as f64 } / seconds)
            }
            _ if totals.count == 0 => {
                let newest = view::newest(self.inputs.views, view, key).filter(|_| at == self.target.at);
                self.notes.missing = self.notes.missing.into_iter().chain(newest).min();
                Err(self.nothing_of(view, key))
            }
            Aggregate::Avg => Ok(totals.sum / totals.count as f64),
            Aggregate::Min => Ok(totals.min),
            Aggregate::Max => Ok(totals.max),
            Aggregate::Last => known(totals.last.map(|(_, value)| value)),
            Aggregate::Stddev => known(totals.stddev()),
            Aggregate::Quantile(q) => known(view::quantile(self.inputs.views, view, key, at, q)),
        }
    }

    /// Returns why a view has no value for a key. A declared series exists from the start, so its silence
    /// is missing data and not a missing series.
    pub(super) fn nothing_of(&self, view: u32, key: KeyId) -> Unknown {
        match self.inputs.views[view as usize].group_of(key) {
            Some(_) => Unknown::NoData,
            None => Unknown::Unseen,
        }
    }

    /// Fails for a key without a series: such a key has no past either, even where its count is zero.
    pub(super) fn expect_series(&self, view: u32, key: KeyId) -> Result<(), Unknown> {
        match self.nothing_of(view, key) {
            Unknown::Unseen => Err(Unknown::Unseen),
            _ => Ok(()),
        }
    }

    fn change(&mut self, view: u32, aggregate: Aggregate, period: Span) -> Result<f64, Unknown> {
        self.expect_series(view, self.target.key)?;
        let now = self.aggregate(view, aggregate, self.target.at)?;
        let before = self.aggregate(view, aggregate, self.target.at - period)?;
        if before == 0.0 {
            return Err(Unknown::DivisionByZero);
        }
        Ok((now - before) / before.abs())
    }

    fn elapsed(&mut self, elapsed: &Elapsed) -> Result<f64, Unknown> {
        if let Some(until) = self.inputs.interruptions.unsettled_until(self.target.at, self.timing.grace) {
            self.look_again_by(until);
            return Err(Unknown::LogInterrupted);
        }
        let since = match elapsed {
            Elapsed::Silent { view } => {
                let view = &self.inputs.views[*view as usize];
                let group = view.group_of(self.target.key).and_then(|group| view.group(group));
                Some(group.ok_or(Unknown::Unseen)?.newest)
            }
            Elapsed::Idle(selector) => self.busy(selector)?.map(|(newest, _)| newest),
            Elapsed::Age(selector) => self.busy(selector)?.map(|(_, oldest)| oldest),
        };
        let Some(since) = since else { return Ok(0.0) };
        self.notes.is_growing = true;
        self.notes.newest = self.notes.newest.max(Some(since));
        Ok(self.inputs.interruptions.counted(since, self.target.at).max(Span::ZERO).secs_f64())
    }

    /// Returns the learned limit of a pipeline or stage; unknown until enough was observed there.
    fn learned_limit(&self, elapsed: &Elapsed) -> Result<f64, Unknown> {
        let (Elapsed::Idle(selector) | Elapsed::Age(selector)) = elapsed else {
            return Err(Unknown::NoBaseline);
        };
        let key = self.inputs.keys.get(self.target.key);
        let stage = if selector.has_stage { key.get("stage").map(|stage| &**stage) } else { None };
        let pipeline = key.get("pipeline").and_then(|pipeline| self.inputs.runs.get(pipeline));
        let place = pipeline.and_then(|pipeline| pipeline.place(stage)).ok_or(Unknown::Unseen)?;
        let limit = match elapsed {
            Elapsed::Idle(_) => place.usual_gap_secs(),
            _ => place.usual_age_secs(),
        };
        limit.ok_or(Unknown::NoBaseline)
    }

    /// Returns the newest event and the oldest run of a pipeline or stage; `None` when no run is in flight
    /// there.
    fn busy(&mut self, selector: &RunSelector) -> Result<Option<(Timestamp, Timestamp)>, Unknown> {
        Ok(match self.sight(selector)? {
            Sight::Busy { newest, oldest, .. } => Some((newest, oldest)),
            Sight::Idle | Sight::Lost => None,
        })
    }

    fn sight(&mut self, selector: &RunSelector) -> Result<Sight, Unknown> {
        let sight = run_sight(self.inputs.runs, self.inputs.keys.get(self.target.key), selector)
            .ok_or(Unknown::Unseen)?;
        if sight == Sight::Lost {
            self.notes.is_gone = true;
            return Err(Unknown::NoData);
        }
        Ok(sight)
    }

    /// Returns how long and how often a condition held within a period. The result is unknown while the
    /// condition is unknown, so an outage does not count as a recovery.
    fn share(&mut self, cond: &Cond, period: Span, place: u32) -> Result<(Span, usize), Unknown> {
        let held = self.cond(cond);
        if self.notes.is_look {
            held?;
            return Ok(self
                .learned
                .shares
                .known(place, self.target.key)
                .map_or((Span::ZERO, 0), |h| h.share(self.target.at, period)));
        }
        let history = self.learned.shares.history(place, self.target.key);
        history.observe(held == Ok(true), self.target.at, period);
        let share = history.share(self.target.at, period);
        if !history.is_quiet() {
            self.look_again_by(self.target.at + self.timing.interval);
        }
        held.map(|_| share)
    }

    /// Schedules the next evaluation of a growing value. An elapsed time grows by one a second, so it crosses its
    /// limit at a known time. Past the limit it is evaluated again each time it has grown by a sixteenth, so that
    /// the published value is at most about 6 % too low. Any other growing value is evaluated again at the next
    /// grid point.
    fn note_crossing(&mut self, is_elapsed: bool, value: f64, compare: Compare) {
        if !self.notes.is_growing {
            return;
        }
        let wait = match is_elapsed {
            true if compare.limit >= value => span(compare.limit - value).max(Span::MILLISECOND),
            true => span(value / GROWTH_STEPS).max(self.timing.interval),
            false => self.timing.interval,
        };
        self.look_again_by(self.target.at + wait);
    }

    fn look_again_by(&mut self, at: Timestamp) {
        let sooner = self.notes.look_again.map_or(at, |known| known.min(at));
        self.notes.look_again = Some(sooner);
    }

    fn note_input(&mut self, expr: &Expr, value: Result<f64, Unknown>) {
        let Some(why) = &mut self.notes.why else { return };
        let count = match expr {
            Expr::Aggregate { view, .. } => {
                Some(view::totals(self.inputs.views, *view, self.target.key, self.target.at).count)
            }
            _ => None,
        };
        why.inputs.push(Input {
            input: describe(expr, self.inputs.views),
            value: value.ok(),
            count,
            unknown: value.err().map(|reason| reason.name().to_string()),
        });
    }

    /// Evaluates without collecting evidence, because the same input was read before.
    fn quietly<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let why = self.notes.why.take();
        let result = read(self);
        self.notes.why = why;
        result
    }
}

/// Returns the state of the pipeline, or of its stage, that a run function reads. The key must have the label
/// `pipeline`, and `stage` if the function selects stages; otherwise there is none.
pub(in crate::core) fn run_sight(runs: &Tracker, key: &Key, selector: &RunSelector) -> Option<Sight> {
    let pipeline = runs.get(key.get("pipeline")?)?;
    let stage = if selector.has_stage { Some(&**key.get("stage")?) } else { None };
    pipeline.sight(stage)
}

fn span(secs: f64) -> Span {
    Span::from_ms((secs * 1_000.0).round() as i64)
}
impl Evaluation<'_> {
    /// Returns the maintenance windows of the key, past and present.
    pub(super) fn planned(&self, asked: &Past) -> Vec<(Timestamp, Timestamp)> {
        let key = self.inputs.keys.get(self.target.key);
        let label = |name: &str| key.get(name).or_else(|| self.target.labels.get(name));
        let read = || std::iter::once(&self.inputs.views[asked.current as usize].spec);
        let pipeline = |name: &str| {
            if name == PIPELINE { self.inputs.pipeline_records.source(key, read()) } else { None }
        };
        self.inputs.mutes.spans(|name| label(name).or_else(|| pipeline(name)).map(|value| &**value))
    }
}
