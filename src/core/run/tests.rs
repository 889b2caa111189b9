use super::*;
use crate::core::event::{RunStatus, StageStatus, Times};
use crate::core::vocab::counters::Refusal;

const DAY: Span = Span::from_hours(24);

pub(super) fn at(secs: i64) -> Timestamp {
    Timestamp::clamped(secs * 1_000)
}

pub(super) fn stage(run: &str, stage: &str, status: StageStatus, secs: i64) -> StageEvent {
    StageEvent {
        time: at(secs),
        times: Times::default(),
        pipeline: "p".into(),
        run: run.into(),
        stage: stage.into(),
        status,
        attempt: 1,
        labels: Labels::default(),
    }
}

pub(super) fn run(run: &str, status: RunStatus, secs: i64) -> RunEvent {
    RunEvent {
        time: at(secs),
        times: Times::default(),
        pipeline: "p".into(),
        run: run.into(),
        status,
        id: None,
    }
}

pub(super) fn moment(now: Timestamp) -> Moment<'static> {
    static NONE: std::sync::LazyLock<Interruptions> = std::sync::LazyLock::new(Interruptions::default);
    Moment { now, interruptions: &NONE }
}

#[derive(Debug, Clone)]
enum Sent {
    Stage(StageEvent),
    Run(RunEvent),
}

/// A tracker with the log's clock, driven as the engine drives it.
#[derive(Default)]
struct Told {
    tracker: Tracker,
    now: i64,
    derived: Vec<Derived>,
}

impl Told {
    /// Advances the time to `secs`, minute by minute.
    fn pass(&mut self, secs: i64) {
        self.tracker.settle(at(self.now), &mut self.derived);
        while self.now < secs {
            self.now = (self.now + 60).min(secs);
            self.tracker.forget(at(self.now), DAY);
        }
    }

    fn send(&mut self, event: &Sent) -> Outcome {
        let moment = moment(at(self.now));
        match event {
            Sent::Stage(event) => self.tracker.stage(event, moment, DAY, &mut self.derived),
            Sent::Run(event) => self.tracker.run(event, moment, DAY, &mut self.derived),
        }
    }

    /// Sends events at their own times.
    fn all(events: &[Sent]) -> Told {
        let mut told = Told::default();
        for event in events {
            let (Sent::Stage(StageEvent { time, .. }) | Sent::Run(RunEvent { time, .. })) = event;
            told.pass(time.ms() / 1_000);
            told.send(event);
        }
        told.pass(told.now);
        told
    }

    /// Returns the values derived so far under a name.
    fn values(&self, name: &str) -> Vec<f64> {
        self.derived.iter().filter(|one| one.name == name).map(|one| one.value).collect()
    }

    fn sight(&self) -> Option<Sight> {
        self.tracker.get("p").and_then(|pipeline| pipeline.sight(None))
    }
}

fn feed(events: &[StageEvent]) -> (Tracker, Vec<(String, f64, i64)>) {
    let (mut tracker, mut derived) = (Tracker::default(), Vec::new());
    for event in events {
        tracker.stage(event, moment(event.time), DAY, &mut derived);
        tracker.settle(event.time, &mut derived);
    }
    let mut values: Vec<_> = derived
        .iter()
        .map(|d| {
            let labels: Vec<_> = d.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            (format!("{}{{{}}}", d.name, labels.join(",")), d.value, d.time.ms() / 1_000)
        })
        .collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    (tracker, values)
}

/// Goal: derived values do not depend on the order in which facts arrive.
/// Method: every order of five facts of two stages.
#[test]
fn any_order_of_the_same_facts_gives_the_same_values() {
    use StageStatus::*;
    let facts = [
        stage("r", "build", Queued, 0),
        stage("r", "build", Started, 5),
        stage("r", "build", Succeeded, 65),
        stage("r", "test", Started, 70),
        stage("r", "test", Failed, 100),
    ];
    let (_, expected) = feed(&facts);
    assert_eq!(expected.len(), 4);
    assert_eq!(expected[3], ("stage_transition_seconds{from=build,to=test}".into(), 5.0, 70));
    let mut order: Vec<usize> = (0..facts.len()).collect();
    permute(&mut order, 0, &mut |order| {
        let shuffled: Vec<_> = order.iter().map(|at| facts[*at].clone()).collect();
        assert_eq!(feed(&shuffled).1, expected, "{order:?}");
    });
}

fn permute(order: &mut Vec<usize>, from: usize, visit: &mut impl FnMut(&[usize])) {
    if from == order.len() {
        return visit(order);
    }
    for at in from..order.len() {
        order.swap(from, at);
        permute(order, from + 1, visit);
        order.swap(from, at);
    }
}

/// The events of a nightly run of 90 minutes, in the order of their times.
fn nightly(id: &str) -> Vec<Sent> {
    vec![
        Sent::Run(run(id, RunStatus::Started, 0)),
        Sent::Stage(stage(id, "build", StageStatus::Started, 1)),
        Sent::Stage(stage(id, "build", StageStatus::Succeeded, 1_801)),
        Sent::Stage(stage(id, "test", StageStatus::Started, 1_811)),
        Sent::Stage(stage(id, "test", StageStatus::Progress, 3_000)),
        Sent::Stage(stage(id, "test", StageStatus::Succeeded, 5_399)),
        Sent::Run(run(id, RunStatus::Succeeded, 5_400)),
    ]
}

/// Goal: a derived duration is correct or absent. Method: every order of every subset of the events of a run,
/// sent after its end, all at one instant or a second apart.
#[test]
fn any_part_of_a_run_in_any_order_gives_the_true_durations_or_none() {
    for step in [0, 1] {
        for kept in 0..1u32 << 7 {
            let some = nightly("r").into_iter().enumerate().filter(|(at, _)| kept >> at & 1 == 1);
            let some: Vec<Sent> = some.map(|(_, event)| event).collect();
            let mut order: Vec<usize> = (0..some.len()).collect();
            permute(&mut order, 0, &mut |order| {
                let mut told = Told::all(&nightly("usual"));
                told.derived.clear();
                for at in order {
                    told.pass(told.now + step);
                    assert_eq!(told.send(&some[*at]), Outcome::Recorded);
                }
                told.pass(told.now + 1);
                let is_there = |at: u32| kept >> at & 1 == 1;
                let whole = if is_there(0) && is_there(6) { vec![5_400.0] } else { vec![] };
                assert_eq!(told.values("run_duration_seconds"), whole, "{order:?} of {some:?}");
                let mut stages = told.values("stage_duration_seconds");
                stages.sort_by(f64::total_cmp);
                let build = (is_there(1) && is_there(2)).then_some(1_800.0);
                let test = (is_there(3) && is_there(5)).then_some(3_588.0);
                assert_eq!(stages, [build, test].into_iter().flatten().collect::<Vec<_>>());
                let cards = usize::from(is_there(6));
                assert_eq!(told.values("cards_processed").len(), cards, "{order:?} of {some:?}");
            });
        }
    }
}

#[test]
fn one_event_after_the_end_says_it_all() {
    let mut told = Told::default();
    told.pass(6_000);
    let times = Times { queued_at: Some(at(0)), started_at: Some(at(30)), finished_at: Some(at(5_400)) };
    let job = StageEvent { times, ..stage("r", "build", StageStatus::Failed, 6_000) };
    assert_eq!(told.send(&Sent::Stage(job.clone())), Outcome::Recorded);
    assert_eq!(told.send(&Sent::Stage(job)), Outcome::Duplicate);
    let whole = RunEvent { times, ..run("r", RunStatus::Failed, 6_000) };
    told.send(&Sent::Run(whole));
    told.pass(6_001);
    assert_eq!(told.values("stage_queue_seconds"), [30.0]);
    assert_eq!(told.values("stage_duration_seconds"), [5_370.0]);
    assert_eq!(told.values("run_duration_seconds"), [5_400.0]);
    assert!(told.derived.iter().all(|one| one.time <= at(5_400)), "{:?}", told.derived);
    assert_eq!(told.sight(), Some(Sight::Idle));
}

#[test]
fn a_run_of_which_only_the_end_is_known_is_counted_and_has_no_duration() {
    let mut told = Told::all(&[Sent::Run(run("r", RunStatus::Succeeded, 9))]);
    assert_eq!((told.values("cards_processed").len(), told.values("run_duration_seconds").len()), (1, 0));
    // Stage events after the end do not put the run in flight again. Only a run event that states the start
    // supplies the beginning.
    told.send(&Sent::Stage(stage("r", "test", StageStatus::Started, 6)));
    told.send(&Sent::Stage(stage("r", "build", StageStatus::Succeeded, 8)));
    told.pass(10);
    assert_eq!((told.sight(), told.values("run_duration_seconds").len()), (Some(Sight::Idle), 0));
    told.send(&Sent::Run(run("r", RunStatus::Started, 2)));
    told.pass(11);
    assert_eq!((told.sight(), told.values("run_duration_seconds")), (Some(Sight::Idle), vec![7.0]));
}

/// Goal: a forgotten run is recognised when another event of it arrives. Method: a run starts and sends
/// nothing for at least 30 hours. Its end arrives after 48 hours, alone or after another stage event.
#[test]
fn a_run_longer_than_it_is_remembered_has_its_true_duration() {
    let hours = |hours: i64| hours * 3_600;
    let started = Sent::Run(run("r", RunStatus::Started, 0));
    let stage = Sent::Stage(stage("r", "test", StageStatus::Started, hours(30)));
    let ended = Sent::Run(run("r", RunStatus::Succeeded, hours(48)));
    for between in [vec![], vec![stage.clone()]] {
        let events = [vec![started.clone()], between, vec![ended.clone()]].concat();
        let mut told = Told::all(&events);
        assert_eq!(told.values("run_duration_seconds"), [172_800.0], "{events:?}");
        // Long afterwards its end arrives once more, and so does a start that was delayed for days.
        told.pass(hours(80));
        assert_eq!(told.send(&ended), Outcome::Recorded);
        told.send(&stage);
        let conflict = Sent::Run(run("r", RunStatus::Failed, hours(80)));
        assert_eq!(told.send(&conflict), Outcome::Refused(Refusal::Conflict));
        told.pass(hours(81));
        assert_eq!((told.values("cards_processed").len(), told.sight()), (1, Some(Sight::Idle)));
        assert_eq!(told.values("run_duration_seconds").len(), 1);
    }
}

#[test]
fn an_event_that_was_refused_makes_no_run_shorter() {
    // The first event states a time in the future and is refused. The run later continues beyond that time.
    for is_known in [false, true] {
        let mut told = Told::default();
        if is_known {
            told.send(&Sent::Stage(stage("r", "build", StageStatus::Queued, 700)));
        }
        told.tracker.refuse_stage(&stage("r", "build", StageStatus::Started, 600), at(0));
        told.pass(710);
        told.send(&Sent::Stage(stage("r", "test", StageStatus::Started, 700)));
        told.send(&Sent::Run(run("r", RunStatus::Succeeded, 900)));
        told.pass(901);
        assert_eq!(told.values("cards_processed"), [1.0]);
        assert_eq!(told.values("run_duration_seconds").len(), 0);
    }
}

#[test]
fn records_that_were_lost_may_hold_the_beginning_of_a_run() {
    let mut told = Told::all(&[Sent::Stage(stage("old", "build", StageStatus::Started, 0))]);
    told.send(&Sent::Stage(stage("old", "build", StageStatus::Succeeded, 5)));
    told.pass(10);
    told.tracker.lose(at(20));
    told.pass(20);
    for id in ["old", "new"] {
        told.send(&Sent::Stage(stage(id, "deploy", StageStatus::Started, 30)));
        told.send(&Sent::Run(run(id, RunStatus::Succeeded, 40)));
    }
    told.pass(50);
    assert_eq!(told.values("run_duration_seconds"), [40.0], "that of the old one");
    assert_eq!(told.values("stage_transition_seconds").len(), 0, "another stage may have been between");
    told.pass(100_000);
    told.send(&Sent::Stage(stage("later", "deploy", StageStatus::Started, 100_000)));
    told.send(&Sent::Run(run("later", RunStatus::Succeeded, 100_007)));
    told.pass(100_010);
    assert_eq!(told.values("run_duration_seconds"), [40.0, 7.0]);
}

#[test]
fn a_late_start_puts_a_run_in_flight_with_its_true_age() {
    let mut told = Told::all(&nightly("r"));
    told.pass(9_000);
    told.send(&Sent::Stage(stage("r", "deploy", StageStatus::Started, 100)));
    assert_eq!(told.sight(), Some(Sight::Idle), "the run has ended");
    told.send(&Sent::Run(run("other", RunStatus::Started, 100)));
    let busy = Sight::Busy { newest: at(9_000), oldest: at(100), in_flight: 1 };
    assert_eq!(told.sight(), Some(busy));
}

#[test]
fn finished_runs_make_room_and_are_still_known() {
    let mut told = Told::default();
    let runs = crate::core::vocab::limits::RUNS_PER_PIPELINE_MAX as i64;
    for n in 0..=runs {
        let times = Times { started_at: Some(at(n)), ..Times::default() };
        let event = RunEvent { times, ..run(&format!("r-{n}"), RunStatus::Succeeded, n + 2) };
        told.send(&Sent::Run(event));
    }
    assert_eq!(told.tracker.evicted(), 1);
    told.send(&Sent::Run(run("r-0", RunStatus::Started, 0)));
    assert_eq!(told.sight(), Some(Sight::Idle), "it has ended");
    told.pass(1);
    assert_eq!(told.values("run_duration_seconds").len() as i64, runs + 1);
}

/// Goal: each pipeline may have `RUNS_GRANTED` runs, even if all pipelines together are at the limit. Beyond
/// these, a new run is accepted only if it replaces a finished one.
/// Method: the total count of runs is set to its maximum.
#[test]
fn one_sender_does_not_use_up_the_room_for_runs() {
    let mut told = Told::default();
    let begin = |told: &mut Told, n: usize| {
        told.tracker.runs = Some(RUNS_MAX);
        told.send(&Sent::Run(run(&format!("r-{n}"), RunStatus::Started, 1)))
    };
    let granted = crate::core::vocab::limits::RUNS_GRANTED;
    assert!((0..granted).all(|n| begin(&mut told, n) == Outcome::Recorded));
    assert_eq!(begin(&mut told, granted), FULL);
    assert_eq!(begin(&mut told, 0), Outcome::Recorded, "it is known");
    told.send(&Sent::Run(run("r-0", RunStatus::Succeeded, 2)));
    assert_eq!(begin(&mut told, granted), Outcome::Recorded);
    assert_eq!((told.tracker.evicted(), told.tracker.runs), (1, Some(RUNS_MAX)));
    assert_eq!(begin(&mut told, granted + 1), FULL);
}

#[test]
fn repeats_change_nothing_and_a_second_outcome_is_a_conflict() {
    use StageStatus::*;
    let (mut tracker, mut derived) = (Tracker::default(), Vec::new());
    let mut send =
        |status, secs| tracker.stage(&stage("r", "build", status, secs), moment(at(secs)), DAY, &mut derived);
    assert_eq!(send(Started, 0), Outcome::Recorded);
    assert_eq!(send(Started, 3), Outcome::Duplicate);
    assert_eq!(send(Progress, 4), Outcome::Recorded);
    assert_eq!(send(Progress, 4), Outcome::Duplicate);
    assert_eq!(send(Succeeded, 9), Outcome::Recorded);
    assert_eq!(send(Succeeded, 10), Outcome::Duplicate);
    assert_eq!(send(Failed, 11), Outcome::Refused(Refusal::Conflict));
    assert_eq!(derived.len(), 1);
}

#[test]
fn an_abandoned_run_leaves_its_place_lost() {
    let (mut tracker, _) = feed(&[stage("r", "build", StageStatus::Started, 0)]);
    let sight = |tracker: &Tracker, stage| tracker.get("p").and_then(|p| p.sight(stage));
    assert!(matches!(sight(&tracker, Some("build")), Some(Sight::Busy { in_flight: 1, .. })));
    assert_eq!(tracker.forget(at(86_500), DAY), 1);
    assert_eq!(sight(&tracker, None), Some(Sight::Lost));
    assert_eq!(sight(&tracker, Some("build")), Some(Sight::Lost));
}

#[test]
fn the_last_declared_stage_ends_a_run_without_run_events() {
    let spec = || PipelineSpec { stages: vec!["build".into(), "deploy".into()] };
    let mut told = Told::default();
    told.tracker.declare(&[("p".into(), spec())].into());
    for (name, status, secs) in [("build", StageStatus::Started, 0), ("deploy", StageStatus::Succeeded, 9)] {
        told.pass(secs);
        told.send(&Sent::Stage(stage("r", name, status, secs)));
    }
    told.pass(10);
    let values: Vec<_> = told.derived.iter().map(|d| (d.name, d.value)).collect();
    assert_eq!(values, [("cards_processed", 1.0), ("run_duration_seconds", 9.0)]);
    assert_eq!(told.sight(), Some(Sight::Idle));
    // If the pipeline also sends run events, these end the run, not the last declared stage.
    let mut told = Told::default();
    told.tracker.declare(&[("p".into(), spec())].into());
    told.send(&Sent::Stage(stage("r", "deploy", StageStatus::Failed, 9)));
    told.send(&Sent::Run(run("r", RunStatus::Started, 0)));
    told.send(&Sent::Run(run("r", RunStatus::Cancelled, 12)));
    told.pass(10);
    assert_eq!(told.values("run_duration_seconds"), [12.0]);
}
