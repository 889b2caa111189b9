use super::*;
use crate::core::event::StageStatus;

pub(super) fn at(secs: i64) -> Timestamp {
    Timestamp::clamped(secs * 1_000)
}

pub(super) fn stage(run: &str, stage: &str, status: StageStatus, secs: i64) -> StageEvent {
    StageEvent {
        time: at(secs),
        pipeline: "p".into(),
        run: run.into(),
        stage: stage.into(),
        status,
        attempt: 1,
    }
}

fn feed(events: &[StageEvent]) -> (Tracker, Vec<(String, f64, i64)>) {
    let (mut tracker, mut derived) = (Tracker::default(), Vec::new());
    for event in events {
        tracker.stage(event, moment(event.time), Span::from_hours(24), &mut derived);
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

#[test]
fn repeats_change_nothing_and_a_second_outcome_is_a_conflict() {
    use StageStatus::*;
    let (mut tracker, mut derived) = (Tracker::default(), Vec::new());
    let mut send = |status, secs| {
        tracker.stage(
            &stage("r", "build", status, secs),
            moment(at(secs)),
            Span::from_hours(24),
            &mut derived,
        )
    };
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
    assert_eq!(tracker.forget(at(86_500), Span::from_hours(24)), 1);
    assert_eq!(sight(&tracker, None), Some(Sight::Lost));
    assert_eq!(sight(&tracker, Some("build")), Some(Sight::Lost));
}

#[test]
fn the_last_declared_stage_ends_a_run_without_run_events() {
    let (mut tracker, mut derived) = (Tracker::default(), Vec::new());
    let spec = PipelineSpec { stages: vec!["build".into(), "deploy".into()] };
    tracker.declare(&[("p".into(), spec)].into());
    for (name, status, secs) in [("build", StageStatus::Started, 0), ("deploy", StageStatus::Succeeded, 9)] {
        tracker.stage(&stage("r", name, status, secs), moment(at(secs)), Span::from_hours(24), &mut derived);
    }
    let names: Vec<_> = derived.iter().map(|d| (d.name, d.value)).collect();
    assert_eq!(names, [("run_duration_seconds", 9.0), ("cards_processed", 1.0)]);
    assert_eq!(tracker.get("p").and_then(|p| p.sight(None)), Some(Sight::Idle));
}

pub(super) fn moment(now: Timestamp) -> Moment<'static> {
    static NONE: std::sync::LazyLock<Interruptions> = std::sync::LazyLock::new(Interruptions::default);
    Moment { now, interruptions: &NONE }
}
