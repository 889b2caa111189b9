//! Writes a commit with one call of the script `commit.lua`, so it takes effect completely or not at all.

use super::keys::WindowPlace;
use super::{RedisStore, damaged};
use crate::core::measure::histogram::layout::Digits;
use crate::core::measure::pane::Shape;
use crate::driver::ports::{Answer, Commit, Fence, Numbers, PortError, Shown, WindowAt, WindowRow};
use crate::wire::hdr::HdrError;
use crate::wire::row::{self, Row};
use ::redis::Script;
use serde_json::json;
use std::collections::BTreeMap;

const COMMIT: &str = include_str!("commit.lua");

/// Maximum number of arguments of one operation. The script unpacks them on Lua's stack, which holds 8,000 values.
const ARGUMENTS_MAX: usize = 2_000;

/// Size of one part of a snapshot in bytes.
const PART_BYTES: usize = 4 << 20;

/// Maximum number of keys whose expiry is remembered: about four keys for each of a million series. 16 B each, 64 MiB
/// in all.
const EXPIRING_MAX: usize = 4 << 20;

/// Seconds after which the parts of a snapshot expire. A commit that refers to them removes the expiry.
const STAGED_S: u32 = 3_600;

/// Approximate number of newest entries that are kept in each stream: transitions and refused events.
const STREAM_KEPT: &str = "100000";

/// The operations of a commit, with the keys they use.
#[derive(Debug, Default)]
struct Operations {
    keys: Vec<String>,
    places: BTreeMap<String, usize>,
    arguments: Vec<Vec<u8>>,
    bytes: usize,
}

impl Operations {
    /// Creates an empty list of operations. The checkpoint is always the first key, because the script compares the
    /// fencing token (epoch, nonce, version) with it.
    fn of(checkpoint: &str) -> Operations {
        let mut operations = Operations::default();
        operations.place(checkpoint);
        operations
    }

    fn place(&mut self, key: &str) -> usize {
        if let Some(place) = self.places.get(key) {
            return *place;
        }
        self.keys.push(key.into());
        self.places.insert(key.into(), self.keys.len());
        self.keys.len()
    }

    fn push<A: AsRef<[u8]>>(&mut self, command: &str, key: &str, arguments: &[A]) {
        let place = self.place(key);
        self.arguments.push(command.into());
        self.arguments.push(place.to_string().into());
        self.arguments.push(arguments.len().to_string().into());
        self.arguments.extend(arguments.iter().map(|argument| argument.as_ref().to_vec()));
        self.bytes += arguments.iter().map(|argument| argument.as_ref().len()).sum::<usize>();
    }

    fn hset(&mut self, key: &str, fields: &[Vec<u8>]) {
        fields.chunks(ARGUMENTS_MAX).for_each(|part| self.push("HSET", key, part));
    }
}

/// A commit that is ready to be sent: its operations, and the values that the store remembers once it is committed.
#[derive(Debug)]
pub struct Prepared {
    operations: Operations,
    fence: Fence,
    published: Numbers,
    snapshot: Option<(u64, u32)>,
}

impl RedisStore {
    pub(super) fn prepare_commit(&mut self, fence: &Fence, commit: &Commit) -> Result<Prepared, PortError> {
        let parts = match &commit.snapshot {
            Some(snapshot) => Some((commit.applied, self.write_snapshot(commit.applied, snapshot)?)),
            None => None,
        };
        let mut operations = Operations::of(&self.keys.of("ckpt"));
        self.add_catalog(commit, &mut operations);
        let mut corrected = commit.windows.iter().filter(|(_, row)| row.revision > 0);
        let added = corrected.try_for_each(|(at, row)| self.add_window(*at, row, &mut operations));
        added.map_err(|error| damaged(&self.keys.of("h"), error))?;
        self.add_alerts(commit, &mut operations);
        self.add_position(commit, parts, &mut operations);
        Ok(Prepared { operations, fence: fence.clone(), published: commit.published, snapshot: parts })
    }

    /// Sends the commit, and remembers what it published once it is done.
    pub(super) fn send_commit(&mut self, prepared: &Prepared) -> Result<Answer, PortError> {
        let answer = self.run(&prepared.fence, &prepared.operations, "commit")?;
        if answer == Answer::Done {
            self.published = prepared.published.max(self.published);
            self.snapshot = prepared.snapshot.or(self.snapshot);
        }
        Ok(answer)
    }

    fn run(&mut self, fence: &Fence, operations: &Operations, mode: &str) -> Result<Answer, PortError> {
        let Fence { epoch, nonce, version } = fence;
        let id = format!("{epoch}:{nonce}:{}", version + 1);
        let script = Script::new(COMMIT);
        let mut invocation = script.prepare_invoke();
        for key in &operations.keys {
            invocation.key(key);
        }
        invocation.arg(epoch).arg(nonce).arg(version).arg(&id).arg(mode);
        for argument in &operations.arguments {
            invocation.arg(argument);
        }
        // Redis may report a script's error without the key, so errors are reported for all keys of the partition.
        let all = self.keys.of("*");
        let answer: Result<String, PortError> =
            self.ask_once(&all, |connection| invocation.invoke(connection));
        match answer.as_deref() {
            Ok("ok") => {
                self.has_written();
                Ok(Answer::Done)
            }
            Ok("done") => Ok(Answer::Done),
            Ok(_) => Ok(Answer::Fenced),
            Err(PortError::Away { source, .. }) => {
                // `ask_once` has noted and logged the outage, so this is only a debug message.
                tracing::debug!(place = %self.place, error = %source, "no answer to a commit; sending it again");
                Ok(Answer::Unknown)
            }
            Err(_) => answer.map(|_| Answer::Unknown),
        }
    }

    /// Writes the parts of a snapshot, and returns their number. The parts expire after `STAGED_S` seconds unless a
    /// commit refers to them.
    fn write_snapshot(&mut self, at: u64, snapshot: &[u8]) -> Result<u32, PortError> {
        for (part, bytes) in snapshot.chunks(PART_BYTES).enumerate() {
            let key = self.keys.snapshot_part(at, part as u32);
            self.ask(&key, |connection| {
                let mut set = ::redis::cmd("SET");
                set.arg(&key).arg(bytes).arg("EX").arg(STAGED_S).query::<()>(connection)
            })?;
        }
        Ok(snapshot.len().div_ceil(PART_BYTES) as u32)
    }

    fn add_catalog(&mut self, commit: &Commit, operations: &mut Operations) {
        let key = self.keys.of("catalog");
        let mut fields = Vec::new();
        for row in &commit.catalog {
            let labels: BTreeMap<_, _> = row.series.labels.iter().map(|(k, v)| (k, v)).collect();
            let json = json!({"source": row.series.source, "name": row.series.name, "unit": row.unit,
                "labels": labels, "scale": row.shape.resolution.step(), "digits": row.shape.digits.count()});
            fields.push(format!("{:016x}", row.series.id).into_bytes());
            fields.push(json.to_string().into_bytes());
            self.catalog.insert(row.series.id, row.clone());
        }
        operations.hset(&key, &fields);
    }

    /// Writes windows ahead of their commit. Corrected windows are left out: if the commit failed, the next owner
    /// would read the corrected window and apply the correction a second time.
    pub(super) fn show_windows(&mut self, fence: &Fence, shown: &Shown<'_>) -> Result<Answer, PortError> {
        let mut operations = Operations::of(&self.keys.of("ckpt"));
        for row in shown.catalog {
            self.catalog.insert(row.series.id, row.clone());
        }
        for (at, window) in shown.windows {
            if shown.is_open {
                self.add_row(*at, window, true, &mut operations);
            } else if window.revision == 0 {
                let added = self.add_window(*at, window, &mut operations);
                added.map_err(|error| damaged(&self.keys.of("h"), error))?;
            }
        }
        if operations.arguments.is_empty() {
            return Ok(Answer::Done);
        }
        self.run(fence, &operations, "show")
    }

    /// Adds the operations that write a window's row. Returns the keys of the window and the shape of its series;
    /// `None` if the catalog does not have the series.
    fn add_row(
        &mut self,
        at: WindowAt,
        window: &WindowRow,
        is_open: bool,
        operations: &mut Operations,
    ) -> Option<(WindowPlace, Shape)> {
        // This commit or an earlier one has added the window's series to the catalog, so it is found.
        let shape = self.catalog.get(&at.2)?.shape;
        let place = self.keys.window(at.0, at.1, at.2);
        let row = Row::new(&window.pane, shape, window.revision, is_open, window.is_incomplete).bytes();
        operations.push("HSET", &place.rows, &[place.field.as_bytes(), &row]);
        self.expire(&place.rows, place.rows_expire_s, operations);
        Some((place, shape))
    }

    fn add_window(
        &mut self,
        at: WindowAt,
        window: &WindowRow,
        operations: &mut Operations,
    ) -> Result<(), HdrError> {
        let Some((place, shape)) = self.add_row(at, window, false, operations) else { return Ok(()) };
        let writer = match shape.digits {
            Digits::Two => &mut self.writers[0],
            Digits::Three => &mut self.writers[1],
        };
        let (positive, negative) = row::histograms(&window.pane, writer)?;
        operations.push("HSET", &place.histograms, &[place.field.as_bytes(), &positive]);
        if let Some(negative) = negative {
            let field = format!("{}:neg", place.field);
            operations.push("HSET", &place.histograms, &[field.as_bytes(), &negative]);
        }
        self.expire(&place.histograms, place.histograms_expire_s, operations);
        Ok(())
    }

    /// Adds an operation that sets a key's expiry, unless `expiring` remembers that it is set. `expiring` is cleared
    /// here when it is full, and elsewhere when Redis may have lost some of the keys.
    fn expire(&mut self, key: &str, at_s: i64, operations: &mut Operations) {
        if self.expiring.len() >= EXPIRING_MAX {
            self.expiring.clear();
        }
        if self.expiring.insert(xxhash_rust::xxh3::xxh3_64(key.as_bytes())) {
            operations.push("EXPIREAT", key, &[at_s.to_string()]);
        }
    }

    fn add_alerts(&self, commit: &Commit, operations: &mut Operations) {
        let (log, outbox) = (self.keys.of("alerts:log"), self.keys.of("outbox"));
        for transition in &commit.transitions {
            let id = format!("{}-0", transition.number);
            let fields = ["MAXLEN", "~", STREAM_KEPT, &id, "alert", &transition.json];
            operations.push("XADD", &log, &fields);
            // A transition always serialises, as it holds only numbers and texts.
            let waiting = serde_json::to_string(transition).unwrap_or_default();
            operations.push("HSET", &outbox, &[transition.number.to_string(), waiting]);
        }
        let poison = self.keys.of("poison");
        for seq in &commit.poison {
            operations.push("HSET", &poison, &[seq.to_string(), "1".into()]);
        }
        let partials = self.keys.of("parcels");
        for message in &commit.partials {
            operations.push("HSET", &partials, &[message.number.to_string().as_bytes(), &message.bytes]);
        }
        let shadows = self.keys.of("shadows");
        for shadow in &commit.shadows {
            let waiting = serde_json::to_string(shadow).unwrap_or_default();
            operations.push("HSET", &shadows, &[shadow.number.to_string(), waiting]);
        }
        let (known, published) = (self.published, commit.published);
        for (key, gone) in [
            (outbox, known.alerts + 1..=published.alerts),
            (partials, known.partials + 1..=published.partials),
            (shadows, known.shadows + 1..=published.shadows),
        ] {
            let gone: Vec<String> = gone.map(|number| number.to_string()).collect();
            gone.chunks(ARGUMENTS_MAX).for_each(|part| operations.push("HDEL", &key, part));
        }
        if let Some(active) = &commit.active {
            self.add_whole("alerts", active, operations);
        }
        if let Some(pipelines) = &commit.pipelines {
            self.add_whole("pipelines", pipelines, operations);
        }
        let dead = self.keys.of("dead");
        for event in &commit.dead {
            let id = format!("{}-{}", event.seq, event.index + 1);
            let json = serde_json::to_string(event).unwrap_or_default();
            operations.push("XADD", &dead, &["MAXLEN", "~", STREAM_KEPT, &id, "event", &json]);
        }
    }

    /// Replaces a hash by these fields.
    fn add_whole(&self, name: &str, rows: &[(String, String)], operations: &mut Operations) {
        let key = self.keys.of(name);
        operations.push::<&str>("DEL", &key, &[]);
        let fields = rows.iter().flat_map(|(id, json)| [id.clone().into_bytes(), json.clone().into_bytes()]);
        operations.hset(&key, &fields.collect::<Vec<_>>());
    }

    fn add_position(&self, commit: &Commit, snapshot: Option<(u64, u32)>, operations: &mut Operations) {
        let key = self.keys.of("ckpt");
        let mut fields = vec![
            "applied".to_string(),
            commit.applied.to_string(),
            "anchor".into(),
            commit.anchor.stream.clone(),
        ];
        fields.extend(["losing".into(), u8::from(commit.is_losing).to_string()]);
        fields.extend(["fingerprint".into(), commit.anchor.fingerprint.to_string()]);
        fields.extend(["transitions".into(), commit.numbered.alerts.to_string()]);
        fields.extend(["actions".into(), commit.numbered.actions.to_string()]);
        fields.extend(["parcels".into(), commit.numbered.partials.to_string()]);
        fields.extend(["shadows".into(), commit.numbered.shadows.to_string()]);
        if let Some((at, parts)) = snapshot {
            fields.extend(["snapshot_at".into(), at.to_string(), "snapshot_parts".into(), parts.to_string()]);
            for part in 0..parts {
                operations.push::<&str>("PERSIST", &self.keys.snapshot_part(at, part), &[]);
            }
            let (old, parts) = self.snapshot.filter(|(old, _)| *old != at).unwrap_or((0, 0));
            for part in 0..parts {
                operations.push::<&str>("UNLINK", &self.keys.snapshot_part(old, part), &[]);
            }
        }
        operations.push("HSET", &key, &fields);
    }
}
