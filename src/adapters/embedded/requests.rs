//! Stores the ids of requests with an `Idempotency-Key`, so that a repeated request changes nothing.
//!
//! Intuition: a client whose connection broke does not know whether its request was accepted, so it repeats the
//! request. Invariant: the id is stored in the transaction that appends the request's events, so after a kill -9 the
//! database has both or neither. Rejected: the id inside the record (each start would read ten minutes of the log
//! to find the ids).

use super::{Embedded, REQUESTS, damaged};
use crate::core::Timestamp;
use crate::driver::ports::{Entry, PortError, REQUESTS_KEPT, REQUESTS_MAX, RequestId};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

/// Sizes in bytes of the first two parts of a row: the hash of the body and the time of the answer. The key follows.
const DIGEST_BYTES: usize = size_of::<u128>();
const TIME_BYTES: usize = size_of::<i64>();

/// Number of newest requests that are kept whatever their age. If the clock is far ahead for a few seconds, a stamp
/// of that time would otherwise expire all requests. 4,096 × about 100 B = 400 KiB.
const KEPT_ALWAYS: u64 = 4_096;

/// Stores the request ids of appended records; `first` is the number of the first record.
pub(super) fn remember(
    transaction: &WriteTransaction,
    (stamp, first): (Timestamp, u64),
    entries: &[(Entry, Option<RequestId>)],
) -> Result<(), redb::Error> {
    let mut named =
        entries.iter().zip(first..).filter_map(|((_, id), seq)| Some((seq, id.as_ref()?))).peekable();
    if named.peek().is_none() {
        return Ok(());
    }
    let mut requests = transaction.open_table(REQUESTS)?;
    for (seq, RequestId { key, body, at }) in named {
        let row = [&body.to_le_bytes()[..], &at.ms().to_le_bytes(), key].concat();
        requests.insert((stamp.ms(), seq), row.as_slice())?;
        forget(&mut requests, stamp - REQUESTS_KEPT)?;
    }
    Ok(())
}

/// Evicts up to two requests that are expired or exceed the limit. The caller adds one request before each call, so
/// the table stays bounded.
fn forget(requests: &mut Table<'_, (i64, u64), &[u8]>, before: Timestamp) -> Result<(), redb::Error> {
    for _ in 0..2 {
        let oldest = requests.first()?.map(|(at, _)| at.value());
        let is_over = oldest.is_some_and(|(stamp, _)| stamp < before.ms());
        let most = if is_over { KEPT_ALWAYS } else { REQUESTS_MAX as u64 };
        if requests.len()? <= most {
            break;
        }
        requests.pop_first()?;
    }
    Ok(())
}

impl Embedded {
    /// Returns the stamps and request ids of records whose stamp is at or after `since`, the oldest first.
    pub fn requests(&self, since: Timestamp) -> Result<Vec<(Timestamp, RequestId)>, PortError> {
        self.read(|transaction| {
            let requests = transaction.open_table(REQUESTS)?;
            let mut found = Vec::new();
            for row in requests.range((since.ms(), 0)..)?.take(REQUESTS_MAX) {
                let (at, row) = row?;
                let parts = row.value().split_first_chunk::<DIGEST_BYTES>();
                let parts =
                    parts.and_then(|(body, rest)| Some((body, rest.split_first_chunk::<TIME_BYTES>()?)));
                let Some((body, (time, key))) = parts else {
                    return Err(damaged("a remembered request lacks its digest and time"));
                };
                let time = Timestamp::clamped(i64::from_le_bytes(*time));
                let id = RequestId { key: key.into(), body: u128::from_le_bytes(*body), at: time };
                found.push((Timestamp::clamped(at.value().0), id));
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Span;

    #[test]
    fn a_request_is_remembered_with_its_record_for_its_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Embedded::open(dir.path()).expect("a database");
        let begin = Timestamp::clamped(1_793_491_200_000);
        let id = |name: &str| RequestId::new(name.as_bytes(), b"body", begin);
        let since = |log: &Embedded, at| log.requests(at).expect("readable");
        log.append(begin, &[(Entry::Tick, None), (Entry::Tick, Some(id("a")))]).expect("room");
        drop(log);
        let log = Embedded::open(dir.path()).expect("a database");
        assert_eq!(since(&log, begin), [(begin, id("a"))]);
        let later = begin + REQUESTS_KEPT + Span::MILLISECOND;
        log.append(later, &[(Entry::Tick, Some(id("b")))]).expect("room");
        let both = [(begin, id("a")), (later, id("b"))];
        assert_eq!(since(&log, Timestamp::MIN), both, "the clock may be wrong");
        let many: Vec<_> = (0..KEPT_ALWAYS).map(|n| (Entry::Tick, Some(id(&n.to_string())))).collect();
        log.append(later, &many).expect("room");
        assert_eq!(since(&log, Timestamp::MIN).first(), Some(&both[1]), "the first one is past its time");
    }
}
