//! Reads of the store: checkpoint, windows, catalog, alert log.

use super::keys::WindowPlace;
use super::{RedisStore, damaged};
use crate::core::measure::histogram::layout::Digits;
use crate::core::measure::pane::Shape;
use crate::core::measure::window::WindowSize;
use crate::core::vocab::identity::Labels;
use crate::core::vocab::series_info::{SeriesInfo, series_id};
use crate::core::vocab::unit::{Resolution, Unit};
use crate::core::{Span, Timestamp};
use crate::driver::ports::{
    Anchor, Answer, Asked, CatalogRow, Checkpoint, Commit, DeadEvent, Fence, Numbers, OutboxEntry,
    OwnerStore, PartialsMessage, PortError, Shown, Store, Views, WindowAt, WindowRow,
};
use crate::wire::row::Row;
use crate::wire::signature::Secret;
use crate::wire::snapshot;
use ::redis::cmd;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// KEYS: the view. ARGV: all names and values of its new content.
const SHOW_ASKED: &str = "redis.call('DEL', KEYS[1])
for at = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end";

/// A store that several threads share. A mutex admits one of them at a time.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<RedisStore>>);

impl Shared {
    pub fn new(store: RedisStore) -> Shared {
        Shared(Arc::new(Mutex::new(store)))
    }

    /// Writes the settings of the deployment and checks those of the Redis server. Waits for Redis. Fails if the
    /// deployment has another number of partitions, or if the server is a replica.
    pub fn claim(&self) -> Result<(), PortError> {
        self.with(|store| {
            store.claim_deployment()?;
            store.check_settings()
        })
    }

    /// Returns the key with which the deployment signs its alerts, and the time at which it was made. If there is
    /// none, restores the `known` one or creates one. Waits for Redis.
    pub fn alert_key(&self, known: Option<Secret>) -> Result<Secret, PortError> {
        self.with(|store| store.read_alert_key(known))
    }

    fn with<T>(&self, work: impl FnOnce(&mut RedisStore) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A series, as the catalog stores it.
#[derive(Debug, Deserialize)]
struct Catalogued {
    source: Arc<str>,
    name: Arc<str>,
    unit: Option<Unit>,
    labels: BTreeMap<Arc<str>, Arc<str>>,
    scale: f64,
    digits: u8,
}

impl Catalogued {
    fn row(self) -> CatalogRow {
        let labels = Labels::from_pairs(self.labels.into_iter().collect());
        let id = series_id(&self.source, &self.name, &labels);
        let series = Arc::new(SeriesInfo { id, source: self.source, name: self.name, labels });
        let digits = Digits::from_count(self.digits).unwrap_or_default();
        let shape = Shape { digits, resolution: Resolution::of_scale(self.scale) };
        CatalogRow { series, unit: self.unit, shape }
    }
}

impl RedisStore {
    fn read_checkpoint(&mut self) -> Result<Checkpoint, PortError> {
        self.expiring.clear();
        let key = self.keys.of("ckpt");
        let fields: HashMap<String, String> = self.ask(&key, |c| cmd("HGETALL").arg(&key).query(c))?;
        let number = |name: &str| {
            let parsed = fields.get(name).map(|text| text.parse::<u64>()).transpose();
            parsed.map_err(|error| damaged(&format!("{key} {name}"), error))
        };
        let parts = number("snapshot_at")?.zip(number("snapshot_parts")?);
        self.snapshot = parts.map(|(at, parts)| (at, u32::try_from(parts).unwrap_or(u32::MAX)));
        let snapshot = match self.snapshot {
            Some((at, parts)) => Some((at, self.read_snapshot(at, parts)?)),
            None => None,
        };
        let outbox = self.read_waiting("outbox")?;
        let count = |name| Ok::<_, PortError>(number(name)?.unwrap_or(0));
        let numbered = Numbers {
            alerts: count("transitions")?,
            actions: count("actions")?,
            partials: count("parcels")?,
            shadows: count("shadows")?,
        };
        let partials = self.read_partials()?;
        let shadows = self.read_waiting("shadows")?;
        self.published = Numbers {
            alerts: outbox.first().map_or(numbered.alerts, |oldest| oldest.number - 1),
            partials: partials.first().map_or(numbered.partials, |oldest| oldest.number - 1),
            shadows: shadows.first().map_or(numbered.shadows, |oldest| oldest.number - 1),
            ..numbered
        };
        self.read_catalog()?;
        Ok(Checkpoint {
            applied: count("applied")?,
            snapshot,
            numbered,
            outbox,
            partials,
            shadows,
            is_losing: count("losing")? == 1,
            poison: self.read_poison()?,
            tries: u32::try_from(count("tries")?).unwrap_or(u32::MAX),
            anchor: Anchor {
                stream: fields.get("anchor").cloned().unwrap_or_default(),
                fingerprint: count("fingerprint")?,
            },
        })
    }

    fn read_snapshot(&mut self, at: u64, parts: u32) -> Result<Vec<u8>, PortError> {
        let mut bytes = Vec::new();
        for part in 0..parts {
            let key = self.keys.snapshot_part(at, part);
            let found: Option<Vec<u8>> = self.ask(&key, |c| cmd("GET").arg(&key).query(c))?;
            bytes.extend(found.ok_or_else(|| PortError::Changed {
                place: self.place.clone(),
                found: format!("the snapshot at {at} has lost its part {part}"),
                hint: "set maxmemory-policy noeviction, because Redis may have evicted it, and remove the \
                       partition's keys to rebuild the state from the stream",
            })?);
        }
        let key = self.keys.of(&format!("snap:{at}:*"));
        snapshot::check(&bytes).map_err(|error| damaged(&key, error))?;
        Ok(bytes)
    }

    /// Reads transitions or shadows that may not be published yet.
    fn read_waiting(&mut self, name: &str) -> Result<Vec<OutboxEntry>, PortError> {
        let key = self.keys.of(name);
        let waiting: Vec<String> = self.ask(&key, |c| cmd("HVALS").arg(&key).query(c))?;
        let parsed: Result<Vec<OutboxEntry>, _> =
            waiting.iter().map(|json| serde_json::from_str(json)).collect();
        let mut outbox = parsed.map_err(|error| damaged(&key, error))?;
        outbox.sort_by_key(|transition| transition.number);
        Ok(outbox)
    }

    fn read_poison(&mut self) -> Result<Vec<u64>, PortError> {
        let key = self.keys.of("poison");
        self.ask(&key, |c| cmd("HKEYS").arg(&key).query(c))
    }

    fn read_partials(&mut self) -> Result<Vec<PartialsMessage>, PortError> {
        let key = self.keys.of("parcels");
        let waiting: BTreeMap<u64, Vec<u8>> = self.ask(&key, |c| cmd("HGETALL").arg(&key).query(c))?;
        Ok(waiting.into_iter().map(|(number, bytes)| PartialsMessage { number, bytes }).collect())
    }

    fn read_catalog(&mut self) -> Result<(), PortError> {
        let key = self.keys.of("catalog");
        let rows: Vec<String> = self.ask(&key, |c| cmd("HVALS").arg(&key).query(c))?;
        for json in rows {
            let found: Catalogued = serde_json::from_str(&json).map_err(|error| damaged(&key, error))?;
            let row = found.row();
            self.catalog.insert(row.series.id, row);
        }
        Ok(())
    }

    /// Reads all windows in one round trip.
    fn read_windows(&mut self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError> {
        let places: Vec<WindowPlace> = wanted
            .iter()
            .map(|((size, start, series), _)| self.keys.window(*size, *start, *series))
            .collect();
        let Some(first) = places.first() else { return Ok(Vec::new()) };
        let mut pipe = redis::pipe();
        for place in &places {
            pipe.cmd("HGET").arg(&place.rows).arg(&place.field);
            pipe.cmd("HMGET").arg(&place.histograms).arg(&place.field).arg(format!("{}:neg", place.field));
        }
        let answers: Vec<redis::Value> = self.ask(&first.rows, |c| pipe.query(c))?;
        let of_each = answers.chunks_exact(2).zip(&places).zip(wanted);
        of_each.map(|((found, place), (_, shape))| sealed(found, place, *shape)).collect()
    }

    /// Reads the rows of a series' windows, including open windows, with one request for each hash. Skips the times
    /// whose windows have expired.
    fn read_rows(
        &mut self,
        row: &CatalogRow,
        size: WindowSize,
        (from, to): (Timestamp, Timestamp),
        max: usize,
    ) -> Result<Vec<(Timestamp, Row)>, PortError> {
        let (oldest, newest) = self.kept(size)?;
        let (mut found, mut start) = (Vec::new(), from.max(oldest).ceil(size.span()));
        let to = to.min(newest);
        while start < to && found.len() < max {
            let key = self.keys.window(size, start, row.series.id).rows;
            let (mut starts, mut fields) = (Vec::new(), Vec::new());
            while start < to {
                let place = self.keys.window(size, start, row.series.id);
                if place.rows != key {
                    break;
                }
                starts.push(start);
                fields.push(place.field);
                start = start + size.span();
            }
            let rows: Vec<Option<Vec<u8>>> =
                self.ask(&key, |c| cmd("HMGET").arg(&key).arg(&fields).query(c))?;
            for (start, bytes) in starts.into_iter().zip(rows) {
                let Some(bytes) = bytes else { continue };
                found.push((start, Row::read(&bytes).map_err(|error| damaged(&key, error))?));
            }
        }
        found.truncate(max);
        Ok(found)
    }

    /// Returns the range of start times of windows that Redis may have. Older windows have expired by the clock of
    /// Redis, and no window starts more than [`AHEAD_MAX`] after it.
    fn kept(&mut self, size: WindowSize) -> Result<(Timestamp, Timestamp), PortError> {
        let (secs, _): (i64, i64) = self.ask("TIME", |c| cmd("TIME").query(c))?;
        let now = Timestamp::clamped(secs.saturating_mul(1_000));
        Ok((now - super::keys::rows_kept(size), now + AHEAD_MAX))
    }

    fn read_active(&mut self) -> Result<Vec<String>, PortError> {
        let key = self.keys.of("alerts");
        let mut alerts: Vec<String> = self.ask(&key, |c| cmd("HVALS").arg(&key).query(c))?;
        alerts.sort();
        Ok(alerts)
    }

    /// Reads the entries of a Redis stream. Returns for each its number (the first part of its id) and the text of
    /// its only field.
    fn read_stream(
        &mut self,
        name: &str,
        command: &str,
        from: &str,
        to: &str,
        max: usize,
    ) -> Result<Vec<(u64, String)>, PortError> {
        type Entries = Vec<(String, HashMap<String, String>)>;
        let key = self.keys.of(name);
        let entries: Entries =
            self.ask(&key, |c| cmd(command).arg(&key).arg(from).arg(to).arg("COUNT").arg(max).query(c))?;
        let number = |id: &str| id.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let texts = |(id, fields): (String, HashMap<String, String>)| {
            let number = number(&id);
            fields.into_values().map(move |text| (number, text))
        };
        Ok(entries.into_iter().flat_map(texts).collect())
    }

    /// Reads a page of the catalog with HSCAN, so a series may occur twice.
    fn read_catalog_page(
        &mut self,
        after: u64,
        max: usize,
    ) -> Result<(Vec<CatalogRow>, Option<u64>), PortError> {
        let key = self.keys.of("catalog");
        let (next, rows): (u64, Vec<(String, String)>) =
            self.ask(&key, |c| cmd("HSCAN").arg(&key).arg(after).arg("COUNT").arg(max).query(c))?;
        let row =
            |(_, json): (String, String)| serde_json::from_str::<Catalogued>(&json).map(Catalogued::row);
        let rows: Result<Vec<CatalogRow>, _> = rows.into_iter().map(row).collect();
        Ok((rows.map_err(|error| damaged(&key, error))?, (next > 0).then_some(next)))
    }
}

/// Decodes a sealed window from its row and histograms; `None` if it is missing or open.
fn sealed(found: &[redis::Value], place: &WindowPlace, shape: Shape) -> Result<Option<WindowRow>, PortError> {
    let row: Option<Vec<u8>> =
        redis::from_redis_value_ref(&found[0]).map_err(|error| damaged(&place.rows, error))?;
    let (positive, negative): (Option<Vec<u8>>, Option<Vec<u8>>) =
        redis::from_redis_value_ref(&found[1]).map_err(|error| damaged(&place.histograms, error))?;
    let Some(row) = row else { return Ok(None) };
    let row = Row::read(&row).map_err(|error| damaged(&place.rows, error))?;
    // A row of an open window was written only for readers; the window is not sealed.
    let Some(positive) = positive.filter(|_| !row.open) else { return Ok(None) };
    let pane =
        row.pane(shape, &positive, negative.as_deref()).map_err(|error| damaged(&place.histograms, error))?;
    Ok(Some(WindowRow { pane, revision: row.revision, is_incomplete: row.incomplete }))
}

/// Maximum time by which a window's start may be ahead of the clock of Redis: the permitted clock skew of events,
/// plus a margin of one hour.
const AHEAD_MAX: Span = Span::from_hours(2);

impl Store for Shared {
    fn checkpoint(&self) -> Result<Checkpoint, PortError> {
        self.with(RedisStore::read_checkpoint)
    }

    fn windows(&self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError> {
        self.with(|store| store.read_windows(wanted))
    }
}

impl Views for Shared {
    fn applied(&self) -> Result<u64, PortError> {
        self.with(|store| {
            let key = store.keys.of("ckpt");
            let applied: Option<u64> = store.ask(&key, |c| cmd("HGET").arg(&key).arg("applied").query(c))?;
            Ok(applied.unwrap_or(0))
        })
    }

    fn catalog_page(&self, after: u64, max: usize) -> Result<(Vec<CatalogRow>, Option<u64>), PortError> {
        self.with(|store| store.read_catalog_page(after, max))
    }

    fn transitions(&self, from: u64, max: usize) -> Result<Vec<(u64, String)>, PortError> {
        self.with(|store| store.read_stream("alerts:log", "XRANGE", &format!("{from}-0"), "+", max))
    }

    fn transitions_before(&self, before: u64, max: usize) -> Result<Vec<(u64, String)>, PortError> {
        let end = if before == u64::MAX { "+".into() } else { format!("{}-0", before.saturating_sub(1)) };
        self.with(|store| store.read_stream("alerts:log", "XREVRANGE", &end, "-", max))
    }

    fn shown(
        &self,
        series: &CatalogRow,
        size: WindowSize,
        range: (Timestamp, Timestamp),
        max: usize,
    ) -> Result<Vec<(Timestamp, Row)>, PortError> {
        self.with(|store| store.read_rows(series, size, range, max))
    }

    fn asked(&self, kind: Asked) -> Result<Vec<(String, String)>, PortError> {
        self.with(|store| {
            let key = store.keys.asked(kind);
            let all: BTreeMap<String, String> = store.ask(&key, |c| cmd("HGETALL").arg(&key).query(c))?;
            Ok(all.into_iter().collect())
        })
    }

    fn active(&self) -> Result<Vec<String>, PortError> {
        self.with(RedisStore::read_active)
    }

    fn dead(&self, max: usize) -> Result<Vec<DeadEvent>, PortError> {
        self.with(|store| {
            let found = store.read_stream("dead", "XREVRANGE", "+", "-", max)?;
            found
                .iter()
                .map(|(_, json)| {
                    serde_json::from_str(json).map_err(|error| damaged(&store.keys.of("dead"), error))
                })
                .collect()
        })
    }
}

impl OwnerStore for Shared {
    type Prepared<'c> = super::commit::Prepared;

    fn show(&mut self, fence: &Fence, shown: &Shown<'_>) -> Result<Answer, PortError> {
        self.with(|store| store.show_windows(fence, shown))
    }

    fn prepare<'c>(&mut self, fence: &Fence, commit: &'c Commit) -> Result<Self::Prepared<'c>, PortError> {
        self.with(|store| store.prepare_commit(fence, commit))
    }

    fn send(&mut self, prepared: &Self::Prepared<'_>) -> Result<Answer, PortError> {
        self.with(|store| store.send_commit(prepared))
    }

    fn acquire(&mut self) -> Result<Option<Fence>, PortError> {
        self.with(RedisStore::take_lease)
    }

    fn renew(&mut self, fence: &Fence) -> Result<bool, PortError> {
        self.with(|store| store.renew_lease(fence))
    }

    fn attempt(&mut self, fence: &Fence, seq: u64) -> Result<u32, PortError> {
        self.with(|store| store.note_attempt(fence, seq))
    }

    fn calm(&mut self, fence: &Fence) {
        self.with(|store| store.be_calm(fence));
    }

    fn show_asked(&mut self, kind: Asked, all: &[(String, String)]) -> Result<(), PortError> {
        self.with(|store| {
            let key = store.keys.asked(kind);
            let script = ::redis::Script::new(SHOW_ASKED);
            let mut call = script.key(&key);
            for (id, json) in all {
                call.arg(id).arg(json);
            }
            store.ask_once(&key, |connection| call.invoke(connection))
        })
    }

    fn release(&mut self, fence: &Fence) -> Result<(), PortError> {
        self.with(|store| store.release_lease(fence))
    }
}
