//! Recovers records of a log whose database cannot be opened or read completely.
//!
//! Intuition: the database does not open if one of the pages that it needs is damaged. But each record of the log has
//! a checksum over its number, stamp and entry, so a record is recognised wherever it lies in the file. Invariant:
//! only records with the right checksum are returned. An append that was never acknowledged may leave a second,
//! different record with the same number in the file; then neither record is returned. Rejected: following the
//! database's pages to the records (these pages may be the damaged ones). Cost: one pass over the file, and 40 B of
//! memory for each record.

use super::log::record;
use super::verify::Page;
use crate::driver::ports::{Logged, PortError};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Page size of the database. A leaf (a B-tree node that contains rows) begins at a page boundary.
const PAGE_BYTES: u64 = 4_096;

/// First byte of a leaf. An unused byte and the number of rows (two bytes) follow, so the head has four bytes.
const LEAF: u8 = 1;
const HEAD_BYTES: usize = 4;

/// Sizes in bytes of the parts of a leaf's row: the offset in the leaf at which the value ends, the key (the record's
/// number), and the stamp, with which the value begins.
const END_BYTES: usize = 4;
const KEY_BYTES: usize = 8;
const STAMP_BYTES: usize = 8;

/// Upper bound for a leaf in bytes. A record has a payload of at most 1 MiB, and a leaf is at most twice as large as
/// its largest record; the rest is a margin.
const LEAF_BYTES_MAX: u64 = 4 << 20;

/// Offset and length of a record in the file; `None` if two different records have its number.
type RecordOffset = Option<(u64, usize)>;

/// Finds the records with a number of at least `from` and passes them to `take`, in order, one [`Page`] at a time.
/// Returns how many records were intact.
pub(crate) fn salvage<E: From<PortError>>(
    data_dir: &Path,
    from: u64,
    take: &mut dyn FnMut(Page) -> Result<(), E>,
) -> Result<u64, E> {
    let path = data_dir.join("streamgauge.redb");
    let failed =
        |source: io::Error| PortError::Read { place: path.display().to_string(), source: source.into() };
    let file = File::open(&path).map_err(failed)?;
    let places = find(&file, from).map_err(failed)?;
    let (mut page, mut next, mut count) = (Page::default(), None, 0);
    for (seq, place) in places {
        let found = place.map(|place| read(&file, seq, place)).transpose().map_err(failed)?.flatten();
        count += u64::from(found.is_some());
        page.push(next.unwrap_or(seq), seq, found);
        next = Some(seq.saturating_add(1));
        if page.is_full() {
            take(std::mem::take(&mut page))?;
        }
    }
    take(page)?;
    Ok(count)
}

/// Finds the position of every intact record with a number of at least `from`.
fn find(file: &File, from: u64) -> io::Result<BTreeMap<u64, RecordOffset>> {
    let bytes = file.metadata()?.len();
    let mut places: BTreeMap<u64, RecordOffset> = BTreeMap::new();
    let mut at = 0;
    while at < bytes {
        for (seq, place) in rows(file, at, bytes - at)? {
            let Some(found) = read(file, seq, place)?.filter(|_| seq >= from) else { continue };
            match places.entry(seq) {
                Entry::Vacant(free) => drop(free.insert(Some(place))),
                Entry::Occupied(mut known) => {
                    let other = known.get().map(|place| read(file, seq, place)).transpose()?.flatten();
                    if other != Some(found) {
                        known.insert(None);
                    }
                }
            }
        }
        at += PAGE_BYTES;
    }
    Ok(places)
}

/// Reads a page as if it were a leaf of the log. Returns the key, offset and length of each row; nothing if the page
/// is no leaf. The caller checks the records, because the page may belong to another table.
fn rows(file: &File, at: u64, left: u64) -> io::Result<Vec<(u64, (u64, usize))>> {
    let mut head = vec![0; PAGE_BYTES.min(left) as usize];
    file.read_exact_at(&mut head, at)?;
    let count = match head.get(..HEAD_BYTES) {
        Some([LEAF, _, low, high]) => usize::from(u16::from_le_bytes([*low, *high])),
        _ => return Ok(Vec::new()),
    };
    let keys = HEAD_BYTES + count * END_BYTES;
    let values = keys + count * KEY_BYTES;
    if values as u64 > left.min(LEAF_BYTES_MAX) {
        return Ok(Vec::new());
    }
    if values > head.len() {
        head.resize(values, 0);
        file.read_exact_at(&mut head, at)?;
    }
    let mut rows = Vec::with_capacity(count);
    let mut begin = values;
    for n in 0..count {
        let end = number(&head[HEAD_BYTES + n * END_BYTES..][..END_BYTES]) as usize;
        let seq = number(&head[keys + n * KEY_BYTES..][..KEY_BYTES]);
        if end < begin || end as u64 > left.min(LEAF_BYTES_MAX) {
            break;
        }
        rows.push((seq, (at + begin as u64, end - begin)));
        begin = end;
    }
    Ok(rows)
}

fn number(low_first: &[u8]) -> u64 {
    low_first.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Reads the record at this offset and length; `None` if the bytes are no intact record with this number.
fn read(file: &File, seq: u64, (at, len): (u64, usize)) -> io::Result<Option<Logged>> {
    let mut value = vec![0; len];
    file.read_exact_at(&mut value, at)?;
    let Some((stamp, entry)) = value.split_first_chunk::<STAMP_BYTES>() else { return Ok(None) };
    // Only the checksum identifies a record, so it is required of every record (`checked_from` is 0).
    Ok(record(seq, (i64::from_le_bytes(*stamp), entry), 0).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::embedded::Embedded;
    use crate::core::Timestamp;
    use crate::driver::ports::Entry as Record;
    use crate::wire::event::Codec;

    fn saved(dir: &Path) -> Vec<Logged> {
        let mut all = Vec::new();
        let count = salvage::<PortError>(dir, 1, &mut |page| {
            all.extend(page.whole().cloned());
            Ok(())
        });
        assert_eq!(count.expect("readable"), all.len() as u64);
        all
    }

    #[test]
    fn records_are_found_in_a_file_that_no_database_opens() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Embedded::open(dir.path()).expect("a database");
        for n in 0..300usize {
            let size = if n % 97 == 0 { 200_000 } else { n };
            let entry = Record::Events(Codec::Json, vec![b'x'; size]);
            log.append(Timestamp::clamped(n as i64), &[(entry, None)]).expect("room");
        }
        let written = log.records(1, 1_000).expect("whole");
        drop(log);
        assert_eq!(saved(dir.path()), written);
        let path = dir.path().join("streamgauge.redb");
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[..4_096].fill(0);
        let needle = vec![b'x'; 150];
        let at = bytes.windows(150).position(|window| window == needle).expect("a record");
        bytes[at] = b'y';
        std::fs::write(&path, &bytes).expect("writable");
        assert!(Embedded::open_damaged(dir.path()).is_err(), "no database");
        let left = saved(dir.path());
        assert!(left.len() < written.len() && left.len() > written.len() - 3, "{} are left", left.len());
        assert!(left.iter().all(|record| written.contains(record)));
    }
}
