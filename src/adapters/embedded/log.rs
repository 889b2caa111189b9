//! The log: records by sequence number.

use super::{Embedded, LOG, damaged};
use crate::core::Timestamp;
use crate::driver::ports::{Entry, Log, Logged, PortError};
use redb::{ReadableTable, ReadableTableMetadata};

impl Log for Embedded {
    fn append(&mut self, entries: &[(Timestamp, Entry)]) -> Result<u64, PortError> {
        self.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            let first = log.last()?.map_or(0, |(seq, _)| seq.value()) + 1;
            for (place, (stamp, entry)) in entries.iter().enumerate() {
                let bytes = rmp_serde::to_vec(entry).map_err(damaged)?;
                log.insert(first + place as u64, (stamp.ms(), bytes.as_slice()))?;
            }
            Ok(first)
        })
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<Logged>, PortError> {
        Embedded::read(self, |transaction| {
            let log = transaction.open_table(LOG)?;
            let mut records = Vec::new();
            for row in log.range(from..)?.take(max) {
                let (seq, row) = row?;
                let (stamp, bytes) = row.value();
                let entry = rmp_serde::from_slice(bytes).map_err(damaged)?;
                records.push(Logged { seq: seq.value(), stamp: Timestamp::clamped(stamp), entry });
            }
            Ok(records)
        })
    }

    fn newest(&self) -> Result<Option<(u64, Timestamp)>, PortError> {
        Embedded::read(self, |transaction| {
            let log = transaction.open_table(LOG)?;
            let newest = log.last()?;
            Ok(newest.map(|(seq, row)| (seq.value(), Timestamp::clamped(row.value().0))))
        })
    }

    fn trim(&mut self, seq: u64, before: Timestamp) -> Result<(), PortError> {
        self.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            let mut last = None;
            // The newest record stays: it says where the log ends.
            if log.len()? > 1 {
                for row in log.range(..seq)? {
                    let (seq, row) = row?;
                    if row.value().0 >= before.ms() {
                        break;
                    }
                    last = Some(seq.value());
                }
            }
            if let Some(last) = last {
                log.retain_in(..=last, |_, _| false)?;
            }
            Ok(())
        })
    }
}
