//! The log: records by sequence number, each with a checksum.
//!
//! Invariant: a read returns what was appended, or an error that names the record, so a bad disk page never
//! becomes another event. The checksum covers number, stamp and entry.

use super::{CHECKED_FROM, Embedded, LOG, META, damaged, requests};
use crate::core::Timestamp;
use crate::driver::ports::{Entry, Logged, PortError, RequestId};
use redb::{ReadableTable, ReadableTableMetadata};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Size in bytes of the checksum, which follows the entry in each row.
const CHECKSUM_BYTES: usize = 8;

/// Computes a record's checksum. It covers the number and the stamp, so a row under a wrong number is detected.
fn checksum(seq: u64, stamp: i64, entry: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let place = xxh3_64_with_seed(&stamp.to_le_bytes(), seq);
    xxh3_64_with_seed(entry, place).to_le_bytes()
}

/// Decodes a row of the table to the record that was appended.
pub(super) fn record(
    seq: u64,
    (stamp, bytes): (i64, &[u8]),
    checked_from: u64,
) -> Result<Logged, redb::Error> {
    let wrong = || damaged(format!("record {seq} of the log is damaged"));
    let entry = match bytes.split_last_chunk::<CHECKSUM_BYTES>() {
        _ if seq < checked_from => bytes,
        Some((entry, sum)) if *sum == checksum(seq, stamp, entry) => entry,
        _ => return Err(wrong()),
    };
    let entry = rmp_serde::from_slice(entry).map_err(|_| wrong())?;
    Ok(Logged { seq, stamp: Timestamp::clamped(stamp), entry })
}

/// Returns the number of the first record with a checksum; all later records have one, too. An earlier version wrote
/// records without checksums.
pub(super) fn checked_from(transaction: &redb::ReadTransaction) -> Result<u64, redb::Error> {
    let meta = transaction.open_table(META)?;
    Ok(meta.get(CHECKED_FROM)?.map_or(u64::MAX, |from| from.value()))
}

impl Embedded {
    /// Durably appends all entries with this stamp, and stores the ids of the requests that sent them. Returns the
    /// number of the first record.
    pub(super) fn append(
        &self,
        stamp: Timestamp,
        entries: &[(Entry, Option<RequestId>)],
    ) -> Result<u64, PortError> {
        self.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            let first = log.last()?.map_or(0, |(seq, _)| seq.value()) + 1;
            for (place, (entry, _)) in entries.iter().enumerate() {
                let seq = first + place as u64;
                let mut bytes = rmp_serde::to_vec(entry).map_err(damaged)?;
                bytes.extend(checksum(seq, stamp.ms(), &bytes));
                log.insert(seq, (stamp.ms(), bytes.as_slice()))?;
            }
            requests::remember(transaction, (stamp, first), entries)?;
            Ok(first)
        })
    }

    /// Returns up to `max` records from number `from` on, in order.
    pub fn records(&self, from: u64, max: usize) -> Result<Vec<Logged>, PortError> {
        self.read(|transaction| {
            let (log, checked_from) = (transaction.open_table(LOG)?, checked_from(transaction)?);
            let mut records: Vec<Logged> = Vec::new();
            for row in log.range(from..)?.take(max) {
                let (seq, row) = row?;
                let next = records.last().map_or(seq.value().max(from), |before| before.seq + 1);
                if seq.value() != next {
                    return Err(damaged(format!("record {next} of the log is missing")));
                }
                records.push(record(seq.value(), row.value(), checked_from)?);
            }
            Ok(records)
        })
    }

    /// Returns the numbers of the first and the last record; (1, 0) if the log is empty.
    pub(super) fn extent(&self) -> Result<(u64, u64), PortError> {
        self.read(|transaction| {
            let log = transaction.open_table(LOG)?;
            let first = log.first()?.map_or(1, |(seq, _)| seq.value());
            Ok((first, log.last()?.map_or(0, |(seq, _)| seq.value())))
        })
    }

    /// Removes the oldest records: those with a number below `seq` and a stamp before `before`.
    pub(super) fn trim(&self, seq: u64, before: Timestamp) -> Result<(), PortError> {
        self.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            let mut last = None;
            // The newest record is kept, because its number determines the number of the next one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_another_one_is_an_error() {
        let entry = rmp_serde::to_vec(&Entry::Tick).expect("memory");
        let with_sum = |seq, stamp| [&entry[..], &checksum(seq, stamp, &entry)].concat();
        assert!(record(7, (5, &with_sum(7, 5)), 1).is_ok());
        assert!(record(7, (5, &with_sum(8, 5)), 1).is_err(), "another place");
        assert!(record(7, (6, &with_sum(7, 5)), 1).is_err(), "another stamp");
        assert!(record(7, (5, &entry), 1).is_err() && record(7, (5, &entry), 8).is_ok(), "an older version");
        for bit in 0..with_sum(7, 5).len() * 8 {
            let mut bytes = with_sum(7, 5);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(record(7, (5, &bytes), 1).is_err(), "bit {bit}");
        }
    }
}
