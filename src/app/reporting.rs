//! Reports of a replay: refused events, progress, and at the end the reason why most events were refused.

use super::stderr::{end_progress, note, progress};
use crate::core::vocab::counters::{Counters, Refusal};
use crate::driver::file::input::Finding;
use crate::driver::replay::{LinePlace, Progress};
use crate::wire::event::BadEvent;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Number of refused events that are reported individually; further ones are only counted.
const REFUSED_SHOWN: u64 = 10;

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Share of `too_late` events, from 0 to 1, above which a hint is printed.
const TOO_LATE_SHARE: f64 = 0.01;

/// Reports refused events, and remembers the first one for each reason.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    /// Whether every refused event is reported, not only the first ones.
    pub is_verbose: bool,
    told: u64,
    first: BTreeMap<Refusal, String>,
}

impl Reporter {
    pub(crate) fn new(is_verbose: bool) -> Reporter {
        Reporter { is_verbose, ..Reporter::default() }
    }

    pub(crate) fn refused(&mut self, place: LinePlace<'_>, bad: &BadEvent) {
        self.told += 1;
        let is_shown = self.is_verbose || self.told <= REFUSED_SHOWN;
        if is_shown || !self.first.contains_key(&bad.reason) {
            let at = at(place, bad.index);
            if is_shown {
                note(format_args!("{at}: refused, {}: {}", bad.reason.name(), bad.message));
            }
            self.first.entry(bad.reason).or_insert_with(|| format!("{at}: {}", bad.message));
        }
        if !self.is_verbose && self.told == REFUSED_SHOWN + 1 {
            note("further refused events are only counted; --verbose shows all");
        }
    }

    /// Reports once which problem affects much of the input.
    pub(crate) fn sum_up(&self, counters: &Counters) {
        let too_late = counters.refused_for(Refusal::TooLate);
        if too_late as f64 > TOO_LATE_SHARE * counters.received as f64 {
            note(format_args!(
                "{too_late} events came too late for their windows; --sort puts the lines in order first"
            ));
        }
        if let Some(text) = self.most(counters) {
            note(text);
        }
    }

    /// Returns the reason for which more than half of the events, and at least two, were refused, with a
    /// remedy.
    fn most(&self, counters: &Counters) -> Option<String> {
        let (reason, count) = counters.refused().max_by_key(|(_, count)| *count)?;
        // `sum_up` has already printed a hint about `too_late`.
        if count < 2 || count * 2 <= counters.received || reason == Refusal::TooLate {
            return None;
        }
        let share = match count == counters.received {
            true => format!("all {count} events"),
            false => format!("{count} of {} events", counters.received),
        };
        let first = self.first.get(&reason).map_or(String::new(), |first| format!("; the first: {first}"));
        Some(format!("{share} were refused, {}{first}{}", reason.name(), remedy(reason)))
    }
}

/// Returns the remedy for a reason if the message about the event itself does not state it.
fn remedy(reason: Refusal) -> &'static str {
    match reason {
        Refusal::BadPayload => " (an input has one JSON object a line, in UTF-8)",
        Refusal::Future => " (they are far ahead of the lines before them: is `time` in milliseconds?)",
        Refusal::WrongPartition => " (is the input the whole export of one deployment?)",
        _ => "",
    }
}

/// Formats a place: `line 7` or `events.ndjson line 7`, and the index of an event that is not the first in its line.
fn at(place: LinePlace<'_>, index: usize) -> String {
    let file = place.file.map_or(String::new(), |file| format!("{} ", file.display()));
    let index = if index > 0 { format!("[{index}]") } else { String::new() };
    format!("{file}line {}{index}", place.line)
}

/// Prints findings about inputs.
pub(crate) fn tell(findings: &[Finding]) {
    for Finding { file, message } in findings {
        note(format_args!("{}: {message}", file.display()));
    }
}

/// Returns a callback that prints progress on a terminal.
pub(crate) fn progress_since<'a>(begun: Instant) -> Box<dyn FnMut(&Progress) + 'a> {
    let mut told = begun;
    Box::new(move |now| {
        let is_over = now.share == Some(1.0);
        if told.elapsed() < PROGRESS_EVERY && !is_over {
            return;
        }
        told = Instant::now();
        let rate = now.events as f64 / begun.elapsed().as_secs_f64().max(1e-3);
        let share = now.share.map_or(String::new(), |share| format!("{:3.0} %, ", share * 100.0));
        let (events, reached) = (now.events, now.reached);
        progress(format_args!("{share}{events} events, {:.2} M/s, reached {reached}", rate / 1e6));
        if is_over {
            end_progress();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::counters::Outcome;
    use std::path::Path;

    #[test]
    fn what_most_events_suffer_from_is_said_once() {
        let mut reporter = Reporter::default();
        let mut counters = Counters::default();
        let place = |line| LinePlace { file: Some(Path::new("b.ndjson")), line };
        for line in 1..=3 {
            counters.count(Outcome::Refused(Refusal::BadEvent), 1);
            reporter.refused(place(line), &BadEvent::new(0, Refusal::BadEvent, "time is in seconds"));
        }
        let all = reporter.most(&counters).expect("all of them");
        assert_eq!(
            all,
            "all 3 events were refused, bad_event; the first: b.ndjson line 1: time is in seconds"
        );
        counters.count(Outcome::Recorded, 2);
        assert!(reporter.most(&counters).expect("most").starts_with("3 of 5 events were refused"));
        counters.count(Outcome::Recorded, 1);
        assert_eq!(reporter.most(&counters), None);
    }
}
