//! `streamgauge export`: the log as NDJSON, every record, tick and control.

use super::FINE;
use super::cli::{ExportArgs, Usage};
use crate::adapters::embedded::Embedded;
use crate::adapters::nats;
use crate::core::Timestamp;
use crate::core::event::Control;
use crate::driver::continuity::Continuity;
use crate::driver::ports::{Entry, Feed, Log, Logged};
use crate::wire::line::Exported;
use anyhow::{Context, Result};
use std::io::{BufWriter, Write};
use std::time::Duration;

/// Records read at once.
const RECORDS: usize = 4_096;

pub fn run(args: &ExportArgs) -> Result<u8> {
    let (from, to) = (instant(args.from.as_deref())?, instant(args.to.as_deref())?);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut write_all = |records: &[Logged]| -> Result<()> {
        let is_wanted = |record: &&Logged| {
            from.is_none_or(|from| record.stamp >= from) && to.is_none_or(|to| record.stamp < to)
        };
        records.iter().filter(is_wanted).try_for_each(|record| write(&mut out, record))
    };
    match &args.nats {
        Some(url) => from_nats(url, &mut write_all)?,
        None => from_data_dir(args, &mut write_all)?,
    }
    out.flush()?;
    Ok(FINE)
}

fn from_data_dir(args: &ExportArgs, write: &mut impl FnMut(&[Logged]) -> Result<()>) -> Result<()> {
    let data_dir = args.data_dir.clone().unwrap_or_else(super::run::default_data_dir);
    if !data_dir.join("streamgauge.redb").exists() {
        anyhow::bail!("{} holds no log; is it the --data-dir that `run` used?", data_dir.display());
    }
    let log = Embedded::open(&data_dir)?;
    let mut seq = 1;
    loop {
        let records = Log::read(&log, seq, RECORDS)?;
        let Some(last) = records.last() else { return Ok(()) };
        seq = last.seq + 1;
        write(&records)?;
    }
}

/// What the stream holds now; what comes while it is read is left out.
fn from_nats(url: &str, write: &mut impl FnMut(&[Logged]) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let settings = nats::Settings { url: url.into(), root: "sg.v1".into(), partition: 0 };
    let mut bus = nats::Bus::open(runtime.handle().clone(), &settings)?;
    let extent = bus.extent()?;
    bus.seek(Continuity::new("the event stream", &extent.stream, extent.first, None))?;
    let mut next = extent.first;
    while next <= extent.last {
        let mut records = bus.next(Duration::from_secs(1))?;
        records.retain(|record| record.seq <= extent.last);
        next = records.last().map_or(next, |record| record.seq + 1);
        write(&records)?;
    }
    Ok(())
}

fn instant(text: Option<&str>) -> Result<Option<Timestamp>> {
    let parse = |text: &str| {
        let time = crate::wire::time::parse(text.as_bytes());
        time.ok_or_else(|| Usage(format!("`{text}` is no RFC 3339 time")).into())
    };
    text.map(parse).transpose()
}

fn write(out: &mut impl Write, record: &Logged) -> Result<()> {
    writeln!(out, "{}", line(record).context("a control record cannot be read")?)?;
    Ok(())
}

/// A record of the log as a line that `replay` reads.
pub fn line(record: &Logged) -> Result<String, serde_json::Error> {
    let (seq, stamp) = (record.seq, record.stamp);
    let control: Control;
    let line = match &record.entry {
        Entry::Events(codec, payload) => Exported::events(seq, stamp, *codec, payload),
        Entry::Tick => Exported::tick(seq, stamp),
        Entry::Control(json) => {
            control = serde_json::from_slice(json)?;
            Exported::control(seq, stamp, &control)
        }
    };
    Ok(line.text())
}
