//! Detection of sources of which the engine refuses every event, unnoticed by their producers.
//!
//! Intuition: if a source has a wrong clock or a wrong unit, the HTTP interface answers its events with 202,
//! and the engine refuses them later. So refusals are counted by source. A source is reported if none of its
//! events was accepted since its refusals began. The report serves people only: no window or alert of a rule
//! depends on it, and a restart forgets it.

use crate::core::measure::series::SeriesTable;
use crate::core::vocab::counters::Refusal;
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Maximum number of sources whose refusals are counted; further sources are not reported.
const SOURCES_MAX: usize = 1_000;

/// Pause between two refusals after which the next one begins a new run.
const APART: Span = Span::from_mins(10);

/// A run of refusals of one source, without a pause longer than `APART` between two.
#[derive(Debug, Clone, Copy)]
struct Run {
    count: u64,
    since: Timestamp,
    newest: Timestamp,
    reason: Refusal,
}

/// A source of which no event was accepted since its refusals began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silenced {
    pub source: Arc<str>,
    pub count: u64,
    pub since: Timestamp,
    /// The reason of the newest refusal.
    pub reason: Refusal,
}

/// Refusals by source, for events whose source is known.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    sources: BTreeMap<Arc<str>, Run>,
}

impl Refusals {
    pub(crate) fn note(&mut self, source: &Arc<str>, reason: Refusal, now: Timestamp) {
        if let Some(run) = self.sources.get_mut(source).filter(|run| now <= run.newest + APART) {
            (run.count, run.newest, run.reason) = (run.count + 1, now, reason);
            return;
        }
        if self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, run| now <= run.newest + APART);
        }
        if self.sources.len() < SOURCES_MAX {
            self.sources.insert(source.clone(), Run { count: 1, since: now, newest: now, reason });
        }
    }

    /// Sources with at least `count_min` refusals over at least `lasted_min`, and no accepted event since
    /// these began.
    pub(crate) fn silenced(
        &self,
        series: &SeriesTable,
        now: Timestamp,
        (count_min, lasted_min): (u64, Span),
    ) -> Vec<Silenced> {
        let is_long = |run: &Run| {
            run.count >= count_min && run.newest >= run.since + lasted_min && now <= run.newest + APART
        };
        let mut found: BTreeMap<&Arc<str>, &Run> =
            self.sources.iter().filter(|(_, run)| is_long(run)).collect();
        if found.is_empty() {
            return Vec::new();
        }
        for (_, one) in series.iter() {
            if found.get(&one.info.source).is_some_and(|run| one.last_seen >= run.since && !one.is_declared) {
                found.remove(&one.info.source);
            }
        }
        let silenced = |(source, run): (&Arc<str>, &Run)| {
            let Run { count, since, reason, .. } = *run;
            Silenced { source: source.clone(), count, since, reason }
        };
        found.into_iter().map(silenced).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::identity::{Identity, Labels};
    use crate::core::vocab::limits::Room;

    #[test]
    fn a_source_is_told_of_while_nothing_of_it_is_taken() {
        let (mut refusals, mut series) = (Refusals::default(), SeriesTable::default());
        let at = |secs: i64| Timestamp::clamped(secs * 1_000);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for secs in 0..100 {
            refusals.note(&a, Refusal::TooLate, at(secs));
            refusals.note(&b, Refusal::Unit, at(secs));
        }
        let room = Room { series_max: 9, series_per_source_max: 9 };
        let identity = Identity::new("b".into(), "m".into(), Labels::default(), None).expect("valid");
        series.place(&identity, at(50), room).expect("room");
        let limit = (100, Span::from_secs(60));
        let found = refusals.silenced(&series, at(100), limit);
        let found: Vec<_> = found.iter().map(|one| (&*one.source, one.count, one.reason)).collect();
        assert_eq!(found, [("a", 100, Refusal::TooLate)], "something of b was taken");
        assert!(refusals.silenced(&series, at(100), (101, Span::ZERO)).is_empty());
        assert!(refusals.silenced(&series, at(100) + APART, limit).is_empty(), "it is over");
        (0..2 * SOURCES_MAX).for_each(|n| refusals.note(&n.to_string().into(), Refusal::Unit, at(100)));
        assert!(refusals.sources.len() <= SOURCES_MAX);
    }
}
