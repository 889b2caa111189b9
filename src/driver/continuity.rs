//! Checks that a reader receives exactly the log: each record once, in order, with no gap unnoticed.
//!
//! Intuition: a consumer is a cursor that the broker keeps for the reader. The consumer may be lost, move back, or
//! lose messages in transit. The log itself may be truncated, recreated or restored from an older copy. So each
//! message's consumer sequence and stream sequence are checked. The consumer sequence counts the messages that the
//! consumer delivers; the stream sequence is the record's number in the log. A new consumer begins one record early,
//! at a record that was read before, to check that this record is unchanged.
//! Invariant: records are taken in ascending stream sequence, and a gap between them is a gap of the log itself.
//! Rejected: relying on the start sequence of a consumer (the broker silently moves it into the range that it has).

use super::mutant::{self, Mutant};
use super::port_error::PortError;
use super::record::{Extent, Logged};

/// The read position, over all consumers of one session.
#[derive(Debug, Clone)]
pub struct Continuity {
    place: String, // the name of the log in error messages
    /// Creation time of the log, which identifies it; empty until it is known.
    stream: String,
    /// Stream sequence of the next record to be taken.
    next: u64,
    /// Stream sequence and fingerprint of a record that was read before.
    known: Option<(u64, u64)>,
    /// Consumer sequence of the newest message of the current consumer; 0 before the first.
    delivered: u64,
}

/// Reasons why a message cannot be taken.
#[derive(Debug)]
pub enum Broken {
    /// The consumer is broken; reading must start again with a new one.
    Consumer(String),
    /// The log is not the one that was read before; an operator must look at it.
    Log(PortError),
}

impl Continuity {
    /// Starts at stream sequence `from`. `stream` and `known` identify the expected log; fingerprint 0 means unknown.
    pub fn new(place: &str, stream: &str, from: u64, known: Option<(u64, u64)>) -> Continuity {
        let known = known.filter(|(_, fingerprint)| *fingerprint != 0);
        Continuity { place: place.into(), stream: stream.into(), next: from, known, delivered: 0 }
    }

    /// Returns the stream sequence of the next record to be taken.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Begins a new consumer. Returns the stream sequence at which it starts, or an error if the log is not the
    /// expected one.
    pub fn begin(&mut self, extent: &Extent) -> Result<u64, PortError> {
        self.delivered = 0;
        if !self.stream.is_empty() && self.stream != extent.stream && !mutant::is(Mutant::TakeAnyLog) {
            return Err(self.changed(format!("it was recreated at {}", extent.stream)));
        }
        self.stream.clone_from(&extent.stream);
        let seen = self.known.map_or(0, |(seq, _)| seq).max(self.next - 1);
        if extent.last < seen && !mutant::is(Mutant::TakeAnyLog) {
            return Err(self.changed(format!("it ends at record {}, but {seen} has been read", extent.last)));
        }
        let one_early = self.known.is_some_and(|(seq, _)| seq + 1 == self.next && seq >= extent.first);
        let from = self.next - u64::from(one_early);
        Ok((from + u64::from(mutant::is(Mutant::BeginOneLate))).max(extent.first))
    }

    /// Checks a message; `place` is its consumer sequence. Returns whether the record is to be taken: false if it was
    /// taken before.
    pub fn take(&mut self, place: u64, record: &Logged) -> Result<bool, Broken> {
        if place != self.delivered + 1 && !mutant::is(Mutant::TrustConsumer) {
            return Err(Broken::Consumer(format!("message {place} came after {}", self.delivered)));
        }
        self.delivered = place;
        if let Some((_, fingerprint)) = self.known.filter(|(seq, _)| *seq == record.seq)
            && fingerprint != record.fingerprint()
            && !(mutant::is(Mutant::TakeRefilledLog) || mutant::is(Mutant::TakeAnyLog))
        {
            let found = format!("record {} differs from the one read before under this number", record.seq);
            return Err(Broken::Log(self.changed(found)));
        }
        if record.seq < self.next && !mutant::is(Mutant::TakeTwice) {
            return Ok(false);
        }
        self.next = record.seq + 1;
        Ok(true)
    }

    /// Remembers the newest record taken. The next consumer begins there, to check that the record is unchanged.
    pub fn remember(&mut self, record: &Logged) {
        if self.known.is_none_or(|(seq, _)| seq <= record.seq) {
            self.known = Some((record.seq, record.fingerprint()));
        }
    }

    fn changed(&self, found: String) -> PortError {
        PortError::Changed {
            place: self.place.clone(),
            found,
            hint: "the log does not match the checkpoint; restore the stream, or remove the partition's keys \
                   from Redis to start over",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::driver::ports::Entry;

    fn record(seq: u64, payload: &str) -> Logged {
        let entry = Entry::Control(payload.as_bytes().to_vec());
        Logged { seq, stamp: Timestamp::clamped(seq as i64), entry }
    }

    fn extent(first: u64, last: u64) -> Extent {
        Extent { stream: "a".into(), first, last }
    }

    #[test]
    fn a_new_consumer_begins_at_a_record_that_is_known() {
        let mut reading = Continuity::new("log", "", 1, None);
        assert_eq!(reading.begin(&extent(1, 9)).expect("a log"), 1);
        assert!(reading.take(1, &record(1, "x")).expect("in order"));
        reading.remember(&record(1, "x"));
        assert_eq!(reading.begin(&extent(1, 9)).expect("the same"), 1);
        assert!(!reading.take(1, &record(1, "x")).expect("seen before"));
        assert!(reading.take(2, &record(2, "y")).expect("in order"));
        assert!(matches!(reading.take(4, &record(4, "z")), Err(Broken::Consumer(_))));
        assert_eq!(reading.begin(&extent(5, 9)).expect("the start is gone"), 5);
    }

    #[test]
    fn a_log_that_is_another_one_is_refused() {
        let mut reading = Continuity::new("log", "a", 5, Some((4, record(4, "x").fingerprint())));
        assert!(reading.begin(&Extent { stream: "b".into(), ..extent(1, 9) }).is_err());
        assert!(reading.begin(&extent(1, 3)).is_err());
        assert_eq!(reading.begin(&extent(1, 9)).expect("long enough"), 4);
        assert!(matches!(reading.take(1, &record(4, "other")), Err(Broken::Log(_))));
    }
}
