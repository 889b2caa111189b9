//! `streamgauge export`: prints the log as NDJSON, with every event, tick and control.

use super::cli::{ExportArgs, instant, of_env};
use super::stderr::note;
use super::stdout::{self, Stdout};
use super::waiting::Waiting;
use super::{BadConfig, FINE, damage};
use crate::adapters::embedded::Embedded;
use crate::adapters::embedded::salvage::salvage;
use crate::adapters::embedded::verify::Page;
use crate::adapters::nats;
use crate::core::Timestamp;
use crate::core::record::Control;
use crate::core::vocab::partition::Partition;
use crate::driver::continuity::Continuity;
use crate::driver::outage::Outages;
use crate::driver::ports::{EVENT_STREAM, Entry, Feed, Logged, PortError};
use crate::wire::control::{self, ControlError};
use crate::wire::ndjson::{Exported, OfPartition};
use crate::wire::partial;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// First tokens of all subjects.
const ROOT: &str = "sg.v1";

/// Seconds without a record, although the log has more, after which the export fails.
const EMPTY_MAX: u32 = 30;

/// Number of records per read.
const RECORDS: usize = 4_096;

pub fn run(args: &ExportArgs) -> Result<u8> {
    let mut out = Stdout::default();
    write(args, &mut out)?;
    out.flush()?;
    Ok(FINE)
}

/// Writes the log to `out`.
pub fn write(args: &ExportArgs, out: &mut impl Write) -> Result<()> {
    let time = |text: &Option<String>| text.as_deref().map(instant).transpose();
    let (from, to) = (time(&args.from)?, time(&args.to)?);
    // A gap line stands for records that are missing or not requested, because windows over them are
    // incomplete.
    let mut written: BTreeMap<Option<u32>, u64> = BTreeMap::new();
    let mut write = |partition: Option<OfPartition>, record: &Logged, is_poison: bool| -> Result<()> {
        if from.is_some_and(|from| record.stamp < from) || to.is_some_and(|to| record.stamp >= to) {
            return Ok(());
        }
        let known = written.entry(partition.map(|of| of.partition)).or_insert(0);
        if record.seq > *known + 1 {
            let gap = Exported::gap(*known + 1, record.seq - 1, record.stamp);
            writeln!(out, "{}", Exported { partition, ..gap }.text())?;
        }
        *known = record.seq;
        if is_poison {
            let poison = Exported::poison(record.seq, record.stamp);
            writeln!(out, "{}", Exported { partition, ..poison }.text())?;
            return Ok(());
        }
        refuse_newer(record)?;
        writeln!(out, "{}", line(partition, record))?;
        Ok(())
    };
    match Origin::of(args) {
        Origin::Nats(url) => from_nats(&url, &mut write),
        Origin::DataDir(dir) => from_data_dir(&dir, args.skip_damaged, &mut write),
    }
}

/// The location of the log.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Nats(String),
    DataDir(PathBuf),
}

impl Origin {
    /// A flag takes precedence over any environment variable. Among the variables, NATS_URL takes precedence
    /// over STREAMGAUGE_DATA_DIR, as for `run`.
    fn of(args: &ExportArgs) -> Origin {
        Origin::choose(args, of_env("NATS_URL"), of_env("STREAMGAUGE_DATA_DIR"))
    }

    fn choose(args: &ExportArgs, nats_url: Option<String>, data_dir: Option<String>) -> Origin {
        match (&args.nats, &args.data_dir, nats_url) {
            (Some(url), _, _) => Origin::Nats(url.clone()),
            (None, Some(dir), _) => Origin::DataDir(dir.clone()),
            (None, None, Some(url)) => Origin::Nats(url),
            (None, None, None) => {
                Origin::DataDir(data_dir.map_or_else(super::config::default_data_dir, PathBuf::from))
            }
        }
    }
}

/// Callback for an exported record, with its partition if there are several, and whether it is a poison
/// record.
type Put<'a> = &'a mut dyn FnMut(Option<OfPartition>, &Logged, bool) -> Result<()>;

fn from_data_dir(data_dir: &Path, is_skipping: bool, write: Put<'_>) -> Result<()> {
    let log = damage::log_of(data_dir)?;
    // An empty file means that the log was lost or never started. Opening it for writing would create a new log.
    let is_empty = std::fs::metadata(log).is_ok_and(|file| file.len() == 0);
    if is_skipping || is_empty {
        return from_damaged(data_dir, write);
    }
    let take = |Portion { records, poison }: Portion| {
        records.iter().try_for_each(|record| write(None, record, poison.contains(&record.seq)))
    };
    damage::portions_in_time(data_dir, read_whole, take)
}

/// A batch of records of a data dir, and the sequence numbers of all poison records.
struct Portion {
    records: Vec<Logged>,
    poison: Arc<BTreeSet<u64>>,
}

/// Reads all records, or fails at the first damaged one.
fn read_whole(data_dir: &Path, put: damage::Put<'_, Portion>) -> Result<()> {
    let log = Embedded::open(data_dir)?;
    let poison = Arc::new(log.poison()?);
    let mut seq = 1;
    loop {
        let records = log.records(seq, RECORDS)?;
        let Some(last) = records.last() else { return Ok(()) };
        seq = last.seq + 1;
        put(Portion { records, poison: poison.clone() })?;
    }
}

/// Exports the intact records of a damaged log. A gap line stands for the records between them.
fn from_damaged(data_dir: &Path, write: Put<'_>) -> Result<()> {
    let mut damaged = 0u64;
    damage::portions_in_time(data_dir, read_damaged, |page| {
        damaged = damaged.saturating_add(page.damaged_count());
        page.whole().try_for_each(|record| write(None, record, false))
    })?;
    note(format_args!("{damaged} damaged records were left out"));
    Ok(())
}

/// Reads the records that the database can read, then the later ones that [`salvage`] finds without the database.
fn read_damaged(data_dir: &Path, put: damage::Put<'_, Page>) -> Result<()> {
    let mut next = 1;
    let read = damage::caught(data_dir, || {
        Embedded::open_damaged(data_dir)?.each_page::<anyhow::Error>(&mut |page| {
            next = page.next().unwrap_or(next);
            put(page)
        })
    });
    let Err(error) = read else { return Ok(()) };
    // The reader closed standard output, or another process has the log open; neither means damage.
    if stdout::is_closed(&error) || matches!(error.downcast_ref(), Some(PortError::Locked { .. })) {
        return Err(error);
    }
    match salvage::<anyhow::Error>(data_dir, next, put)? {
        0 if next == 1 => Err(error),
        found => {
            note(format_args!("{error:#}"));
            note(format_args!("{found} records were found without the database"));
            Ok(())
        }
    }
}

/// Exports the records that the streams hold now; records that arrive during the export are left out. The
/// logs of several partitions are merged by the effective ingest time of their records.
fn from_nats(url: &str, write: Put<'_>) -> Result<()> {
    nats::check(url).map_err(BadConfig)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let waiting = Waiting::for_server(url);
    let count = nats::count_partitions(runtime.handle(), url, ROOT)?;
    if count == 0 {
        bail!(
            "this broker has no stream of streamgauge; is the address right, and has a worker ever started?"
        );
    }
    let open = |partition| Source::open(&runtime, url, partition);
    let mut sources = Partition::logs(count).map(open).collect::<Result<Vec<_>>>()?;
    drop(waiting);
    let waiting = |source: &&mut Source| !source.waiting.is_empty();
    while let Some(source) = sources.iter_mut().filter(waiting).min_by_key(|source| source.reached) {
        if let Some(record) = source.take()? {
            write(source.partition, &record, source.left_out.contains(&record.seq))?;
        }
    }
    Ok(())
}

/// The log of one partition, read ahead by one batch.
struct Source {
    bus: nats::Bus,
    partition: Option<OfPartition>,
    left_out: BTreeSet<u64>,
    waiting: VecDeque<Logged>,
    next: u64,
    last: u64,
    /// Effective ingest time of the next record.
    reached: Timestamp,
}

impl Source {
    fn open(runtime: &Runtime, url: &str, partition: Partition) -> Result<Source> {
        let outages = Outages::default();
        let settings = nats::Settings {
            url: url.into(),
            root: ROOT.into(),
            partition,
            outages,
            signing: Default::default(),
        };
        let mut bus = nats::Bus::open(runtime.handle().clone(), &settings)?;
        let extent = bus.extent()?.ok_or(PortError::NO_LOG)?;
        bus.seek(Continuity::new(EVENT_STREAM, &extent.stream, extent.first, None))?;
        let of = OfPartition { partition: partition.index, partitions: partition.count };
        let partition = (of.partitions > 1).then_some(of);
        let (next, last) = (extent.first, extent.last);
        let (left_out, reached) = (bus.left_out()?, Timestamp::MIN);
        let mut source = Source { bus, partition, left_out, waiting: VecDeque::new(), next, last, reached };
        source.fill()?;
        Ok(source)
    }

    fn fill(&mut self) -> Result<()> {
        let mut empty = 0;
        while self.waiting.is_empty() && self.next <= self.last {
            let records = self.bus.next(Duration::from_secs(1))?;
            if records.is_empty() {
                empty += 1;
                // The last records may have been deleted individually, so that the stream has none from `next` on.
                if !self.bus.has_records_from(self.next)? {
                    self.next = self.last + 1;
                } else if empty >= EMPTY_MAX {
                    let next = self.next;
                    bail!("the log has records from {next} on but returns none; the export is not whole");
                }
                continue;
            }
            let within: Vec<Logged> = records.into_iter().filter(|record| record.seq <= self.last).collect();
            self.next = within.last().map_or(self.next, |record| record.seq + 1);
            self.waiting.extend(within);
        }
        if let Some(first) = self.waiting.front() {
            self.reached = self.reached.max(first.stamp);
        }
        Ok(())
    }

    /// Returns the next record, and reads ahead if none is waiting.
    fn take(&mut self) -> Result<Option<Logged>> {
        let record = self.waiting.pop_front();
        self.fill()?;
        Ok(record)
    }
}

/// Fails for a control record of a newer version, because a replay without it would give other alerts.
fn refuse_newer(record: &Logged) -> Result<(), PortError> {
    match &record.entry {
        Entry::Control(json) => match control::decode(json) {
            Err(ControlError::Newer { found }) => {
                Err(PortError::Newer { seq: record.seq, found, known: control::VERSION })
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Formats a record of the log as a line that `replay` reads. A control or partials that cannot be decoded
/// become a tick: they advance log time and have no other effect, as in the engine.
pub fn line(partition: Option<OfPartition>, record: &Logged) -> String {
    let (seq, stamp) = (record.seq, record.stamp);
    let control: Option<Control>;
    let line = match &record.entry {
        Entry::Events(codec, payload) => Exported::events(seq, stamp, *codec, payload),
        Entry::Tick => Exported::tick(seq, stamp),
        Entry::Partials { bytes, .. } if partial::decode(bytes).is_err() => Exported::tick(seq, stamp),
        Entry::Partials { from, number, bytes } => Exported::partials(seq, stamp, *from, *number, bytes),
        Entry::Control(json) => {
            control = control::decode(json).ok();
            let known = control.as_ref().map(|control| Exported::control(seq, stamp, control));
            known.unwrap_or_else(|| Exported::tick(seq, stamp))
        }
    };
    Exported { partition, ..line }.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_stands_above_the_environment() {
        let args = |nats: Option<&str>, dir: Option<&str>| ExportArgs {
            skip_damaged: false,
            nats: nats.map(Into::into),
            data_dir: dir.map(Into::into),
            from: None,
            to: None,
        };
        let chosen = |args: ExportArgs| Origin::choose(&args, Some("nats://env".into()), Some("/env".into()));
        assert_eq!(chosen(args(None, Some("/flag"))), Origin::DataDir("/flag".into()));
        assert_eq!(chosen(args(Some("nats://flag"), None)), Origin::Nats("nats://flag".into()));
        assert_eq!(chosen(args(None, None)), Origin::Nats("nats://env".into()));
        let no_server = Origin::choose(&args(None, None), None, Some("/env".into()));
        assert_eq!(no_server, Origin::DataDir("/env".into()));
    }
}
