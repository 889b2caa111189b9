//! The times that stage and run events may state in addition to `time`.
//!
//! Invariant: an event states only times that its status has reached, and they are in order, so an interval
//! between two of them is never negative.

use super::build::{FieldResult, instant};
use super::fields::{Fields, Value};
use crate::core::Timestamp;
use crate::core::event::Times;

/// How far the stage or run of an event has progressed, which determines the times that it may state.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Queued,
    Started,
    Ended,
}

impl Phase {
    pub(super) fn new(is_queued: bool, is_ended: bool) -> Phase {
        match (is_queued, is_ended) {
            (true, _) => Phase::Queued,
            (_, true) => Phase::Ended,
            _ => Phase::Started,
        }
    }
}

/// Reads and validates the times in addition to `time`: the event may state only those that its status has
/// reached, and they must be in order.
pub(super) fn times(fields: &Fields<'_>, time: Timestamp, phase: Phase) -> FieldResult<Times> {
    let times = Times {
        queued_at: optional_instant("queued_at", &fields.queued_at)?,
        started_at: optional_instant("started_at", &fields.started_at)?,
        finished_at: optional_instant("finished_at", &fields.finished_at)?,
    };
    match phase {
        Phase::Queued if times.started_at.is_some() => {
            return Err("`started_at` is stated, but status `queued` has not started; leave it out".into());
        }
        Phase::Queued | Phase::Started if times.finished_at.is_some() => {
            return Err("`finished_at` is stated, but the status is not one of an end; leave it out".into());
        }
        _ => {}
    }
    let order = [
        ("queued_at", times.queued_at),
        ("started_at", times.started_at),
        ("finished_at", times.finished_at),
    ];
    let stated = order.into_iter().filter_map(|(name, time)| Some((name, time?)));
    let stated: Vec<(&str, Timestamp)> = stated.collect();
    let before_own = stated.iter().filter(|(name, _)| *name != "finished_at");
    let pairs = stated.windows(2).map(|pair| (pair[0], pair[1]));
    let mut pairs = pairs.chain(before_own.map(|one| (*one, ("time", time))));
    match pairs.find(|((_, earlier), (_, later))| earlier > later) {
        None => Ok(times),
        Some(((first, earlier), (then, later))) => {
            Err(format!("`{first}` {earlier} is later than `{then}` {later}; give them in order"))
        }
    }
}

fn optional_instant(name: &str, value: &Option<Value<'_>>) -> FieldResult<Option<Timestamp>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        _ => instant(name, value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;

    const START_MS: i64 = 1_793_491_200_000;

    /// Reads times, written as `+` and milliseconds after the start, for an event whose `time` is 9,000 ms after it.
    fn read(json: &str, phase: Phase) -> FieldResult<Times> {
        let json = json.replace(":+", &format!(":{}", START_MS / 10_000));
        let fields = fields::from_json(json.as_bytes()).expect("JSON");
        times(&fields, Timestamp::clamped(START_MS + 9_000), phase)
    }

    #[test]
    fn times_come_in_the_order_of_events() {
        let all = r#"{"queued_at":+1000,"started_at":"2026-11-01T00:00:01Z","finished_at":+9500}"#;
        let at = |ms| Some(Timestamp::clamped(START_MS + ms));
        let found = Times { queued_at: at(1_000), started_at: at(1_000), finished_at: at(9_500) };
        assert_eq!(read(all, Phase::Ended), Ok(found));
        assert_eq!(read(r#"{"started_at":null}"#, Phase::Queued), Ok(Times::default()));
        let wrong = [
            (r#"{"queued_at":+3000,"started_at":+2000}"#, "`queued_at`"),
            (r#"{"started_at":+9001}"#, "`time`"),
            (r#"{"started_at":+3000,"finished_at":+2000}"#, "`finished_at`"),
            (r#"{"queued_at":+3000,"finished_at":+2000}"#, "`finished_at`"),
            (r#"{"queued_at":1.5}"#, "queued_at 1.5"),
            (r#"{"finished_at":"soon"}"#, "finished_at"),
        ];
        for (json, named) in wrong {
            assert!(read(json, Phase::Ended).is_err_and(|error| error.contains(named)), "{json}");
        }
    }

    #[test]
    fn nothing_has_ended_that_has_only_started() {
        let started = r#"{"started_at":+1000}"#;
        assert!(read(started, Phase::new(true, false)).is_err());
        assert!(read(started, Phase::new(false, false)).is_ok());
        let finished = r#"{"finished_at":+1000}"#;
        assert!(read(finished, Phase::new(false, false)).is_err());
        assert!(read(finished, Phase::new(false, true)).is_ok());
    }
}
