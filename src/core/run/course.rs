//! The course of a pipeline: the stages in which its runs spend their time, and its health relative to its own
//! history.
//!
//! Intuition: a stage is a bottleneck when runs spend most of their time there. A pipeline is healthy when
//! its newest runs take as long, fail as seldom and finish as often as the earlier ones. Each of the three
//! gets a mark from 0 (bad) to 1 (good). Invariant: this module only reads; the mark of an unknown figure is
//! `None`, never 1. Rejected: marks against fixed targets (a rule with levels expresses those better), and the
//! queue length alone (a short queue before a stage that takes hours is worse than a long one before a quick
//! stage).

use super::super::event::RunStatus;
use super::{Pipeline, Place};
use crate::core::vocab::pipeline::Weights;
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Number of newest runs that represent the current state.
const NEWEST: usize = 20;

/// The period that a rate refers to.
const HOUR: Span = Span::from_hours(1);

/// The span over which the usual throughput is measured. Runs are selected by the event time of their end, so
/// a run that is reported more than a day after its end does not count.
const DAY: Span = Span::from_hours(24);

/// A stage with at least this share of the run time is a bottleneck.
const BOTTLENECK_SHARE: f64 = 0.5;

/// One part of a pipeline's health: its mark from 0 to 1, and the two figures behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    pub mark: f64,
    pub now: f64,
    pub usual: f64,
}

/// The health of a pipeline relative to its own history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Health {
    /// Median seconds from first event to end. The mark is 1 up to the usual value and 0 from twice that on.
    pub latency: Option<Part>,
    /// Share of failed runs. The mark is 1 without failures and 0 if all fail; the usual share does not
    /// affect it.
    pub errors: Option<Part>,
    /// Runs finished per hour. The mark is 1 from the usual rate up and 0 for none; unknown while no run is
    /// in flight.
    pub throughput: Option<Part>,
}

impl Health {
    /// Returns the weighted mean of the known marks, from 0 to 100; `None` if no mark is known.
    pub fn score(&self, weights: Weights) -> Option<f64> {
        let weighed = [
            (self.latency, weights.latency),
            (self.errors, weights.errors),
            (self.throughput, weights.throughput),
        ];
        let known = weighed.iter().filter_map(|(part, weight)| Some((part.as_ref()?.mark, *weight)));
        let (sum, all) =
            known.fold((0.0, 0.0), |(sum, all), (mark, weight)| (sum + mark * weight, all + weight));
        (all > 0.0).then(|| 100.0 * sum / all)
    }
}

/// The current figures of one stage. Times are seconds of event time from a run's first event there to its
/// last end.
#[derive(Debug, Clone, PartialEq)]
pub struct StageCourse {
    pub stage: Arc<str>,
    pub in_flight: usize,
    pub active: u32,
    pub waiting: u32,
    /// Age of the oldest run in the stage.
    pub oldest_secs: Option<f64>,
    pub median_secs: Option<f64>,
    pub p95_secs: Option<f64>,
    /// Share of the run time that is spent here, 0 to 1, over the newest runs that left and the runs that
    /// have been here longer than usual.
    pub share: Option<f64>,
}

impl StageCourse {
    /// Returns whether runs spend most of their time here.
    pub fn is_bottleneck(&self) -> bool {
        self.share.is_some_and(|share| share >= BOTTLENECK_SHARE)
    }
}

impl Pipeline {
    /// Returns the stages: the declared ones in their declared order, then the others by name.
    pub fn course(&self, now: Timestamp) -> Vec<StageCourse> {
        let declared = self.declared.iter().filter(|stage| self.stages.contains_key(*stage));
        let is_declared: BTreeSet<&Arc<str>> = self.declared.iter().collect();
        let others = self.stages.keys().filter(|stage| !is_declared.contains(stage));
        let course: Vec<(StageCourse, Option<f64>)> =
            declared.chain(others).map(|stage| self.stages[stage].course(stage, now)).collect();
        let all: f64 = course.iter().filter_map(|(_, spent)| *spent).sum();
        let share = |spent: Option<f64>| spent.filter(|_| all > 0.0).map(|secs| secs / all);
        course.into_iter().map(|(stage, spent)| StageCourse { share: share(spent), ..stage }).collect()
    }

    /// Returns how many stages and runs [`Self::course`] and [`Self::health`] read.
    pub fn looks(&self) -> usize {
        let here = |place: &Place| 1 + place.in_flight.len().min(READ_MAX);
        self.stages.values().map(|place| here(place)).sum::<usize>() + self.finished.len().min(READ_MAX)
    }

    pub fn health(&self, now: Timestamp) -> Health {
        Health { latency: self.latency(), errors: self.errors(), throughput: self.throughput(now) }
    }

    fn latency(&self) -> Option<Part> {
        let (now, usual) = self.whole.times.newest_and_usual_secs(NEWEST)?;
        let mark = if usual > 0.0 { (2.0 - now / usual).clamp(0.0, 1.0) } else { 1.0 };
        Some(Part { mark, now, usual })
    }

    fn errors(&self) -> Option<Part> {
        let failed = |(_, run): &(Timestamp, Arc<str>)| {
            let ended = self.runs.get(run).and_then(|run| run.ended);
            ended.is_some_and(|(_, status)| status == RunStatus::Failed)
        };
        let share = |count: usize, of: usize| count as f64 / of as f64;
        let newest = self.finished.len().min(NEWEST);
        let failed_now = self.finished.iter().rev().take(NEWEST).filter(|run| failed(run)).count();
        let failed_all = self.finished.iter().rev().take(READ_MAX).filter(|run| failed(run)).count();
        let now = (newest > 0).then(|| share(failed_now, newest))?;
        Some(Part { mark: 1.0 - now, now, usual: share(failed_all, self.finished.len().min(READ_MAX)) })
    }

    fn throughput(&self, now: Timestamp) -> Option<Part> {
        let since: (Timestamp, Arc<str>) = (now - DAY, "".into());
        let (oldest, _) = self.finished.range(since..).next()?;
        let begun = now - HOUR;
        let before = begun - *oldest;
        if self.whole.in_flight.is_empty() || before < HOUR {
            return None;
        }
        let rate = self.finished_since(begun);
        let of_the_day = self.finished_since(now - DAY);
        let usual = (of_the_day - rate) as f64 / (before.secs_f64() / HOUR.secs_f64());
        let rate = rate as f64;
        Some(Part { mark: if usual > 0.0 { (rate / usual).min(1.0) } else { 1.0 }, now: rate, usual })
    }
}

/// Runs read at most for one figure, so that a read takes some milliseconds at most.
const READ_MAX: usize = 10_000;

impl Place {
    /// Returns the figures of this stage without its share, and the mean seconds that a run spends here.
    fn course(&self, stage: &Arc<str>, now: Timestamp) -> (StageCourse, Option<f64>) {
        let oldest_secs = self.in_flight.first().map(|(first, _)| (now - *first).secs_f64().max(0.0));
        let usual = self.times.quantiles_secs([0.5, 0.95]);
        let median_secs = usual.map(|[median, _]| median);
        let course = StageCourse {
            stage: stage.clone(),
            in_flight: self.in_flight.len(),
            active: self.active,
            waiting: self.waiting,
            oldest_secs,
            median_secs,
            p95_secs: usual.map(|[_, p95]| p95),
            share: None,
        };
        (course, self.secs_spent(median_secs.unwrap_or(0.0), now))
    }

    /// Returns the mean seconds in this stage, over the newest runs that left and the runs that have been here
    /// longer than `usual`. Runs still here are included, because otherwise a stage in which all runs are
    /// stuck would keep its old mean.
    fn secs_spent(&self, usual: f64, now: Timestamp) -> Option<f64> {
        let newest = self.times.newest_secs(NEWEST);
        let here = self.in_flight.iter().map(|(first, _)| (now - *first).secs_f64());
        let here = here.take_while(|age| *age > usual).take(READ_MAX);
        let (sum, count) = newest.chain(here).fold((0.0, 0u32), |(sum, n), secs| (sum + secs, n + 1));
        (count > 0).then(|| sum / f64::from(count))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tracker;
    use super::super::tests::{at, moment, stage};
    use super::*;
    use crate::core::event::{StageEvent, StageStatus, Times};

    #[derive(Default)]
    struct Told(Tracker);

    impl Told {
        fn stage(&mut self, run: &str, name: &str, status: StageStatus, secs: i64) {
            let event = stage(run, name, status, secs);
            self.0.stage(&event, moment(at(secs)), Span::from_hours(24), &mut Vec::new());
            self.0.settle(at(secs), &mut Vec::new());
        }

        fn end(&mut self, run: &str, status: RunStatus, secs: i64) {
            let event = super::super::tests::run(run, status, secs);
            self.0.run(&event, moment(at(secs)), Span::from_hours(24), &mut Vec::new());
            self.0.settle(at(secs), &mut Vec::new());
        }

        /// Sends a run of two stages that begins at `secs`.
        fn whole(&mut self, n: i64, secs: i64, build: i64, test: i64, status: RunStatus) {
            let run = format!("r-{n}");
            self.stage(&run, "build", StageStatus::Started, secs);
            self.stage(&run, "build", StageStatus::Succeeded, secs + build);
            self.stage(&run, "test", StageStatus::Started, secs + build);
            self.stage(&run, "test", StageStatus::Succeeded, secs + build + test);
            self.end(&run, status, secs + build + test);
        }

        fn pipeline(&self) -> &Pipeline {
            self.0.get("p").expect("seen")
        }
    }

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        let mut told = Told::default();
        told.stage("r", "build", StageStatus::Started, 0);
        let health = told.pipeline().health(at(1));
        assert_eq!(health, Health { latency: None, errors: None, throughput: None });
        assert_eq!(health.score(Weights::default()), None);
    }

    #[test]
    fn a_pipeline_is_marked_beside_itself() {
        let mut told = Told::default();
        // Sixty runs an hour for four hours, one minute each.
        (0..240).for_each(|n| told.whole(n, n * 60, 20, 40, RunStatus::Succeeded));
        told.stage("r-now", "build", StageStatus::Started, 240 * 60);
        let health = told.pipeline().health(at(240 * 60));
        assert_eq!(health.score(Weights::default()).map(f64::round), Some(100.0), "{health:?}");
        // Half the rate, one and a half times the duration, and every fourth run fails.
        for n in 0..60 {
            let status = if n % 4 == 0 { RunStatus::Failed } else { RunStatus::Succeeded };
            told.whole(1_000 + n, (240 + 2 * n) * 60, 20, 70, status);
        }
        let health = told.pipeline().health(at(360 * 60));
        let mark = |part: Option<Part>| part.map(|part| (part.mark * 100.0).round());
        assert_eq!((mark(health.latency), mark(health.errors)), (Some(50.0), Some(75.0)), "{health:?}");
        assert!(mark(health.throughput).is_some_and(|mark| (50.0..62.0).contains(&mark)), "{health:?}");
        let weights = Weights { latency: 1.0, errors: 3.0, throughput: 0.0 };
        assert_eq!(health.score(weights).map(f64::round), Some(69.0));
    }

    /// Goal: nothing is learned from runs of which only a part is known. Method: ends alone, and stages of
    /// which only the end arrived; then one run reported by a single event.
    #[test]
    fn parts_of_runs_teach_nothing() {
        let mut told = Told::default();
        for n in 0..60 {
            told.stage(&format!("r-{n}"), "build", StageStatus::Progress, n * 60);
            told.stage(&format!("r-{n}"), "build", StageStatus::Succeeded, n * 60 + 5);
            told.end(&format!("r-{n}"), RunStatus::Succeeded, n * 60 + 9);
        }
        assert_eq!(told.pipeline().health(at(3_600)).latency, None);
        assert_eq!(told.pipeline().course(at(3_600))[0].median_secs, None);
        let times = Times { started_at: Some(at(3_600)), ..Times::default() };
        let event = StageEvent { times, ..stage("whole", "build", StageStatus::Succeeded, 3_690) };
        told.0.stage(&event, moment(at(3_700)), Span::from_hours(24), &mut Vec::new());
        let course = told.pipeline().course(at(3_700));
        assert_eq!((course[0].median_secs, course[0].active), (Some(90.0), 0));
    }

    #[test]
    fn the_bottleneck_is_where_the_time_goes() {
        let mut told = Told::default();
        (0..40).for_each(|n| told.whole(n, n * 60, 10, 30, RunStatus::Succeeded));
        let course = told.pipeline().course(at(2_400));
        let shares: Vec<_> = course.iter().map(|stage| (&*stage.stage, stage.share)).collect();
        assert_eq!(shares, [("build", Some(0.25)), ("test", Some(0.75))]);
        assert_eq!((course[1].median_secs, course[1].is_bottleneck()), (Some(30.0), true));
        // Runs are stuck in the quick stage.
        (0..20).for_each(|n| told.stage(&format!("s-{n}"), "build", StageStatus::Queued, 2_400));
        let course = told.pipeline().course(at(2_700));
        assert_eq!((course[0].waiting, course[0].oldest_secs), (20, Some(300.0)));
        assert!(course[0].is_bottleneck() && !course[1].is_bottleneck(), "{course:?}");
    }
}
