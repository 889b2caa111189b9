//! The log of a data dir, as its owner reads and appends it, and its transition log.
//!
//! Intuition: only this process appends, so an append is followed by a read of the same records, and the clock that
//! stamps them is the one that says when a tick is due. Transitions are written with the commit that they belong
//! to, so publishing them later changes nothing. Invariant: a record is returned only after it is durable.

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
    /// Where alerts are published that do not follow from the log.
    alerts: Box<dyn OutOfBandAlerts + Send>,
    /// The number of the next record to be read.
    next: u64,
    /// Whether the log was read to its end once. Before that, a record that cannot be read is an error; after it,
    /// an outage.
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

    /// Returns at once, because nothing arrives while nobody appends.
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
                let (place, text) = ("the data dir", chain(&error));
                let again = || PortError::Write { place: place.into(), source: text.clone().into() };
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

/// The commit has written the transitions. Other partitions, which would get partials, do not exist, and shadows
/// are shown by the engine alone.
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

/// The commit holds the dead letters, and nobody subscribes to windows.
impl<C> Outlet for EmbeddedFeed<C> {
    fn dead(&mut self, _letters: &[DeadLetter]) -> Result<(), PortError> {
        Ok(())
    }

    fn rollups(&mut self, _rollups: &[Rollup]) -> Result<(), PortError> {
        Ok(())
    }
}
