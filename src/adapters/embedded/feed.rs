//! The log and the transition log of a data dir, as its owner uses them.
//!
//! Intuition: only this process appends to the log, so a read right after an append returns the appended records.
//! The same clock stamps the records and decides when a tick is due. A commit writes its transitions itself, so
//! publishing them afterwards does nothing. Invariant: a record is returned only after it is durable.

use super::Embedded;
use crate::core::Timestamp;
use crate::driver::continuity::Continuity;
use crate::driver::outage::{LOG, Outages};
use crate::driver::port_error::chain;
use crate::driver::ports::{
    Clock, DeadLetter, Entry, Extent, Feed, Logged, Numbers, OutOfBandAlert, OutOfBandAlerts, OutboxEntry,
    Outlet, PartialsMessage, PortError, PublishOutcome, RequestId, Rollup, TransitionLog,
};
use std::time::Duration;

/// Records read at once while catching up.
const CATCH_UP_RECORDS: usize = 4_096;

/// The log of a data dir.
pub struct EmbeddedFeed<C> {
    data: Embedded,
    clock: C,
    outages: Outages,
    /// Publishes out-of-band alerts: those that do not follow from the log.
    alerts: Box<dyn OutOfBandAlerts + Send>,
    /// The number of the next record to be read.
    next: u64,
    /// Whether reading has reached the end of the log since [`Feed::seek`]. Before that, a record that cannot be read
    /// is an error; after that, it is noted as an outage.
    has_caught_up: bool,
}

impl<C> std::fmt::Debug for EmbeddedFeed<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedFeed").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<C: Clock> EmbeddedFeed<C> {
    pub fn new(
        data: Embedded,
        clock: C,
        outages: Outages,
        alerts: Box<dyn OutOfBandAlerts + Send>,
    ) -> EmbeddedFeed<C> {
        EmbeddedFeed { data, clock, outages, alerts, next: 1, has_caught_up: false }
    }

    /// Records a failed call as an outage, which lasts until a call succeeds.
    fn note<T>(&self, result: &Result<T, PortError>) {
        match result {
            Ok(_) => self.outages.end(LOG),
            Err(error) => self.outages.begin(LOG, "the data dir", &chain(error)),
        }
    }
}

impl<C: Clock> Feed for EmbeddedFeed<C> {
    fn is_local(&self) -> bool {
        true
    }

    fn extent(&mut self) -> Result<Option<Extent>, PortError> {
        let (first, last) = self.data.extent()?;
        Ok(Some(Extent { stream: String::new(), first, last }))
    }

    fn create(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    fn seek(&mut self, continuity: Continuity) -> Result<(), PortError> {
        (self.next, self.has_caught_up) = (continuity.next(), false);
        Ok(())
    }

    /// Returns at once, because only this process appends, so no record can arrive during a wait.
    fn next(&mut self, _wait: Duration) -> Result<Vec<Logged>, PortError> {
        let read = self.data.records(self.next, CATCH_UP_RECORDS);
        match read {
            Ok(records) => {
                self.next = records.last().map_or(self.next, |newest| newest.seq + 1);
                self.has_caught_up |= records.len() < CATCH_UP_RECORDS;
                Ok(records)
            }
            Err(error) if self.has_caught_up => {
                self.note::<()>(&Err(error));
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Appends all entries in one transaction. The log takes all of them or none.
    fn append(
        &mut self,
        entries: Vec<(Entry, Option<RequestId>)>,
        confirmed: Timestamp,
    ) -> Vec<Result<u64, PortError>> {
        let appended = self.data.append(self.clock.now().max(confirmed), &entries);
        self.note(&appended);
        match appended {
            Ok(first) => (first..).take(entries.len()).map(Ok).collect(),
            Err(error) => {
                // One error for each entry. Of a failed write, the text names the place and the remedy once.
                let (place, text) = match error {
                    PortError::Write { place, source } => (place, source.to_string()),
                    other => ("the data dir".into(), chain(&other)),
                };
                let again = || PortError::Write { place: place.clone(), source: text.clone().into() };
                entries.iter().map(|_| Err(again())).collect()
            }
        }
    }
}

impl<C> OutOfBandAlerts for EmbeddedFeed<C> {
    fn newest_out_of_band(&mut self, rule: &str) -> Result<Option<(u64, String)>, PortError> {
        self.alerts.newest_out_of_band(rule)
    }

    fn put_out_of_band(&mut self, alert: &OutOfBandAlert) -> Result<(), PortError> {
        self.alerts.put_out_of_band(alert)
    }
}

/// Publishing does nothing. The commit has already written the transitions. A data dir has one partition, so there
/// are no messages to an aggregate partition. The engine itself shows the shadows.
impl<C> TransitionLog for EmbeddedFeed<C> {
    fn newest(&mut self) -> Result<Numbers, PortError> {
        Ok(Numbers { alerts: self.data.newest_alert()?, ..Numbers::default() })
    }

    fn told(&mut self) -> Result<Vec<String>, PortError> {
        self.data.all_transitions()
    }

    fn publish(&mut self, transitions: &[OutboxEntry]) -> Result<Vec<PublishOutcome>, PortError> {
        Ok(vec![PublishOutcome::New; transitions.len()])
    }

    fn post(&mut self, partials: &[PartialsMessage]) -> Result<usize, PortError> {
        Ok(partials.len())
    }

    fn shadow(&mut self, shadows: &[OutboxEntry]) -> Result<usize, PortError> {
        Ok(shadows.len())
    }
}

/// Publishes nothing: the commit contains the dead letters, and a data dir has no subscribers to windows.
impl<C> Outlet for EmbeddedFeed<C> {
    fn dead(&mut self, _letters: &[DeadLetter]) -> Result<(), PortError> {
        Ok(())
    }

    fn rollups(&mut self, _rollups: &[Rollup]) -> Result<(), PortError> {
        Ok(())
    }
}
