//! The store: windows, catalog, alert log, snapshot, applied position.

use super::owner::TRIES;
use super::{ALERTS, CATALOG, DEAD, Embedded, META, POISON, SNAPSHOT, WINDOWS, damaged};
use crate::core::measure::pane::Shape;
use crate::core::measure::window::WindowSize;
use crate::core::{Span, Timestamp};
use crate::driver::ports::{
    Asked, CatalogRow, Checkpoint, Commit, DeadEvent, Numbers, PortError, Store, Views, WindowAt, WindowRow,
};
use crate::wire::row::Row;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use std::collections::BTreeSet;

/// Size of one part of a snapshot in bytes; redb keeps a value in one contiguous run of pages.
const PART_BYTES: usize = 1 << 20;

/// Transitions kept; 100,000 × about 1.5 KiB = 150 MiB.
const ALERTS_KEPT: u64 = 100_000;

/// Refused events kept for inspection.
const DEAD_KEPT: u64 = 10_000;

/// How long windows are kept, by size.
pub(super) const fn retention(size: WindowSize) -> Span {
    match size {
        WindowSize::Minute => Span::from_hours(48),
        WindowSize::FiveMinutes => Span::from_hours(24 * 14),
        WindowSize::Hour => Span::from_hours(24 * 90),
    }
}

impl Store for Embedded {
    fn checkpoint(&self) -> Result<Checkpoint, PortError> {
        self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            let number = |name: &str| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value()));
            let parts = transaction.open_table(SNAPSHOT)?;
            let snapshot = match number("snapshot_at")? {
                Some(at) => {
                    let mut bytes = Vec::new();
                    for part in parts.iter()? {
                        bytes.extend_from_slice(part?.1.value());
                    }
                    Some((at, bytes))
                }
                None => None,
            };
            let alerts = transaction.open_table(ALERTS)?;
            let numbered = Numbers {
                alerts: alerts.last()?.map_or(0, |(number, _)| number.value()),
                ..Numbers::default()
            };
            let applied = number("applied")?.unwrap_or(0);
            let tries = number(TRIES)?.map_or(0, |tries| u32::try_from(tries).unwrap_or(u32::MAX));
            Ok(Checkpoint { applied, snapshot, numbered, tries, ..Checkpoint::default() })
        })
        .and_then(|checkpoint| {
            let poison = self.poison()?.into_iter().collect();
            Ok(Checkpoint { poison, ..checkpoint })
        })
    }

    fn windows(&self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError> {
        self.read(|transaction| {
            let windows = transaction.open_table(WINDOWS)?;
            let read = |(at, _): &(WindowAt, Shape)| {
                let row = windows.get(place(*at))?;
                row.map(|row| rmp_serde::from_slice(row.value()).map_err(damaged)).transpose()
            };
            wanted.iter().map(read).collect()
        })
    }
}

impl Views for Embedded {
    fn applied(&self) -> Result<u64, PortError> {
        self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get("applied")?.map_or(0, |value| value.value()))
        })
    }

    /// Seeks from each stored window to the next one, so a long range of time without windows costs one lookup.
    fn shown(
        &self,
        series: &CatalogRow,
        size: WindowSize,
        (from, to): (Timestamp, Timestamp),
        max: usize,
    ) -> Result<Vec<(Timestamp, Row)>, PortError> {
        let (id, span) = (series.series.id, size.span());
        self.read(|transaction| {
            let windows = transaction.open_table(WINDOWS)?;
            let (mut found, mut start) = (Vec::new(), from.ceil(span));
            while start < to && found.len() < max {
                let next = windows.range(place((size, start, id))..)?.next().transpose()?;
                let Some((key, row)) = next.filter(|(key, _)| key.value().0 == size as u8) else { break };
                let (_, at, other) = key.value();
                let at = Timestamp::clamped(at);
                if (at, other) == (start, id) {
                    let stored: WindowRow = rmp_serde::from_slice(row.value()).map_err(damaged)?;
                    let is_incomplete = stored.is_incomplete;
                    found.push((
                        start,
                        Row::new(&stored.pane, series.shape, stored.revision, false, is_incomplete),
                    ));
                }
                // Rows are sorted by start and then by series. If the row found has a later start and a series id
                // up to `id`, this series' window with that start may still follow. Otherwise its next window has
                // a later start.
                start = if at > start && other <= id { at } else { at.max(start) + span };
            }
            Ok(found)
        })
    }

    /// Fails always. The engine in this process knows the active alerts, so the store is asked only if the engine did
    /// not answer in time.
    fn active(&self) -> Result<Vec<String>, PortError> {
        Err(unanswered())
    }

    /// Fails like [`Self::active`].
    fn asked(&self, _: Asked) -> Result<Vec<(String, String)>, PortError> {
        Err(unanswered())
    }

    fn catalog_page(&self, after: u64, max: usize) -> Result<(Vec<CatalogRow>, Option<u64>), PortError> {
        self.read(|transaction| {
            let catalog = transaction.open_table(CATALOG)?;
            let mut rows = Vec::new();
            let mut last = None;
            // Series ids are hashes and practically never 0, so cursor 0 means the beginning.
            for row in catalog.range(after + u64::from(after > 0)..)?.take(max) {
                let (id, row) = row?;
                last = Some(id.value());
                rows.push(rmp_serde::from_slice(row.value()).map_err(damaged)?);
            }
            let is_more = rows.len() == max;
            Ok((rows, last.filter(|last| is_more && *last < u64::MAX)))
        })
    }

    fn transitions(&self, from: u64, max: usize) -> Result<Vec<(u64, String)>, PortError> {
        self.read(|transaction| {
            let alerts = transaction.open_table(ALERTS)?;
            alerts.range(from..)?.take(max).map(numbered).collect()
        })
    }

    fn transitions_before(&self, before: u64, max: usize) -> Result<Vec<(u64, String)>, PortError> {
        self.read(|transaction| {
            let alerts = transaction.open_table(ALERTS)?;
            alerts.range(..before)?.rev().take(max).map(numbered).collect()
        })
    }

    fn dead(&self, max: usize) -> Result<Vec<DeadEvent>, PortError> {
        self.read(|transaction| {
            let dead = transaction.open_table(DEAD)?;
            let newest = dead.iter()?.rev().take(max);
            newest.map(|row| rmp_serde::from_slice(row?.1.value()).map_err(damaged)).collect()
        })
    }
}

impl Embedded {
    /// Writes all effects of a commit in one transaction.
    pub(super) fn commit(&self, commit: &Commit) -> Result<(), PortError> {
        self.write(|transaction| {
            write_windows(transaction, commit)?;
            write_catalog(transaction, commit)?;
            write_alerts(transaction, commit)?;
            write_dead(transaction, commit)?;
            let mut poison = transaction.open_table(POISON)?;
            for seq in &commit.poison {
                poison.insert(seq, ())?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert("applied", commit.applied)?;
            if let Some(snapshot) = &commit.snapshot {
                write_snapshot(transaction, snapshot)?;
                meta.insert("snapshot_at", commit.applied)?;
            }
            Ok(())
        })
    }

    /// Returns the poison records, which are skipped.
    pub fn poison(&self) -> Result<BTreeSet<u64>, PortError> {
        self.read(|transaction| {
            let poison = transaction.open_table(POISON)?;
            poison.iter()?.map(|row| Ok(row?.0.value())).collect()
        })
    }

    /// Returns the texts of all transitions, in the order of their numbers.
    pub(super) fn all_transitions(&self) -> Result<Vec<String>, PortError> {
        Ok(self.transitions(0, ALERTS_KEPT as usize)?.into_iter().map(|(_, text)| text).collect())
    }

    /// Returns the number of the record after which the newest snapshot was taken; 0 without a snapshot.
    pub(super) fn snapshot_at(&self) -> Result<u64, PortError> {
        self.read(|transaction| {
            Ok(transaction.open_table(META)?.get("snapshot_at")?.map_or(0, |value| value.value()))
        })
    }

    /// Removes windows that are past their retention.
    pub(super) fn expire(&self, now: Timestamp) -> Result<(), PortError> {
        self.write(|transaction| {
            let mut windows = transaction.open_table(WINDOWS)?;
            for size in WindowSize::ALL {
                let oldest = (now - retention(size)).ms();
                windows.retain_in((size as u8, i64::MIN, 0)..(size as u8, oldest, 0), |_, _| false)?;
            }
            Ok(())
        })
    }
}

type AlertRow<'a> = (redb::AccessGuard<'a, u64>, redb::AccessGuard<'a, &'static str>);

fn numbered(row: Result<AlertRow<'_>, redb::StorageError>) -> Result<(u64, String), redb::Error> {
    let (number, json) = row?;
    Ok((number.value(), json.value().to_string()))
}

fn place((size, start, id): WindowAt) -> (u8, i64, u64) {
    (size as u8, start.ms(), id)
}

fn write_windows(transaction: &WriteTransaction, commit: &Commit) -> Result<(), redb::Error> {
    let mut windows = transaction.open_table(WINDOWS)?;
    for (at, row) in &commit.windows {
        let bytes = rmp_serde::to_vec(row).map_err(damaged)?;
        windows.insert(place(*at), bytes.as_slice())?;
    }
    Ok(())
}

fn write_catalog(transaction: &WriteTransaction, commit: &Commit) -> Result<(), redb::Error> {
    let mut catalog = transaction.open_table(CATALOG)?;
    for row in &commit.catalog {
        let bytes = rmp_serde::to_vec(row).map_err(damaged)?;
        catalog.insert(row.series.id, bytes.as_slice())?;
    }
    Ok(())
}

fn write_alerts(transaction: &WriteTransaction, commit: &Commit) -> Result<(), redb::Error> {
    let Some(newest) = commit.transitions.last() else { return Ok(()) };
    let mut alerts = transaction.open_table(ALERTS)?;
    for transition in &commit.transitions {
        alerts.insert(transition.number, transition.json.as_str())?;
    }
    if let Some(oldest) = newest.number.checked_sub(ALERTS_KEPT) {
        alerts.retain_in(..oldest, |_, _| false)?;
    }
    Ok(())
}

fn write_dead(transaction: &WriteTransaction, commit: &Commit) -> Result<(), redb::Error> {
    let mut dead = transaction.open_table(DEAD)?;
    for event in &commit.dead {
        let bytes = rmp_serde::to_vec(event).map_err(damaged)?;
        dead.insert((event.seq, event.index), bytes.as_slice())?;
    }
    while dead.len()? > DEAD_KEPT {
        dead.pop_first()?;
    }
    Ok(())
}

fn write_snapshot(transaction: &WriteTransaction, snapshot: &[u8]) -> Result<(), redb::Error> {
    let mut parts = transaction.open_table(SNAPSHOT)?;
    let count = snapshot.len().div_ceil(PART_BYTES) as u32;
    for (number, part) in snapshot.chunks(PART_BYTES).enumerate() {
        parts.insert(number as u32, part)?;
    }
    parts.retain_in(count.., |_, _| false)?;
    Ok(())
}

fn unanswered() -> PortError {
    PortError::Away {
        place: "the engine".into(),
        source: "it is busy, or waits for its log; ask again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::measure::histogram::layout::Digits;
    use crate::core::vocab::unit::Unit;
    use crate::driver::ports::{Entry, WindowRow};

    /// Goal: windows and records past their retention are removed, younger ones stay, and a log never loses
    /// its end.
    #[test]
    fn windows_and_records_go_when_their_time_is_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(dir.path()).expect("a database");
        let at = |hours: i64| Timestamp::clamped(hours * 3_600_000);
        let row = || WindowRow::default();
        let place = |size, hours| ((size, at(hours), 7), row());
        let windows = vec![
            place(WindowSize::Minute, 1),
            place(WindowSize::Minute, 60),
            place(WindowSize::FiveMinutes, 1),
        ];
        store.commit(&Commit { applied: 1, windows, ..Commit::default() }).expect("room");
        store.expire(at(1) + retention(WindowSize::Minute) + Span::MILLISECOND).expect("room");
        let shape = Shape { digits: Digits::Two, resolution: Unit::resolution(None) };
        let is_there =
            |size, hours| store.windows(&[((size, at(hours), 7), shape)]).expect("readable")[0].is_some();
        assert!(!is_there(WindowSize::Minute, 1));
        assert!(is_there(WindowSize::Minute, 60) && is_there(WindowSize::FiveMinutes, 1));

        let log = store.clone();
        for hours in 0..5 {
            log.append(at(hours), &[(Entry::Tick, None)]).expect("room");
        }
        log.trim(3, at(10)).expect("room");
        let left: Vec<u64> = log.records(1, 10).expect("readable").iter().map(|record| record.seq).collect();
        assert_eq!(left, [3, 4, 5], "records the snapshot still needs stay");
        log.trim(5, at(4)).expect("room");
        assert_eq!(log.extent().expect("readable"), (5, 5));
        assert_eq!(log.append(at(5), &[(Entry::Tick, None)]).expect("room"), 6);
    }
}
