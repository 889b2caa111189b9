//! `streamgauge publish`: events of files to JetStream, each until it is acknowledged.

use super::FINE;
use super::cli::PublishArgs;
use crate::adapters::nats::publisher::{Outgoing, Publisher};
use crate::core::partition::Partition;
use crate::driver::file::reader;
use crate::wire::event::Codec;
use crate::wire::subject::Subjects;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// Events between two looks at the time, for progress and position.
const LOOK_EVERY_EVENTS: u64 = 16;

/// Messages that may be without an acknowledgement when progress is told.
const NEWEST_FEW: usize = 64;

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

pub fn run(args: &PublishArgs) -> Result<u8> {
    let positions = args.position.as_deref().map(Positions::read).transpose()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let publisher = Publisher::open(runtime.handle().clone(), &args.nats)?;
    let mut run = Run {
        publisher,
        subjects: Subjects::new("sg.v1", Partition { index: 0, count: args.partitions }),
        pace: Pace { rate: args.rate, begun: Instant::now(), events: 0 },
        batch: args.batch.max(1),
        told: Instant::now(),
        positions,
    };
    for path in &args.files {
        let known = run.positions.as_ref().and_then(|positions| positions.of(path));
        run.file(path, known.unwrap_or(1).max(args.from_line))?;
    }
    let seconds = run.pace.begun.elapsed().as_secs_f64();
    let (events, messages) = (run.pace.events, run.publisher.acknowledged());
    eprintln!("{events} events in {messages} messages, {:.0} events/s", events as f64 / seconds.max(1e-9));
    Ok(FINE)
}

struct Run {
    publisher: Publisher,
    subjects: Subjects,
    pace: Pace,
    batch: usize,
    told: Instant,
    positions: Option<Positions>,
}

/// By partition: the line that the batch begins with, and the lines.
type Batches = BTreeMap<u32, (u64, Vec<String>)>;

impl Run {
    /// One file to its end; what is acknowledged then is all of it.
    fn file(&mut self, path: &Path, from_line: u64) -> Result<()> {
        let mut batches = Batches::new();
        let result = self.lines(path, from_line, &mut batches);
        let next = match result {
            Ok(next) => next,
            Err(_) => self.lowest_waiting(&batches).unwrap_or(from_line),
        };
        self.note_position(path, next)?;
        result.map(drop).with_context(|| format!("stopped; go on with --from-line {next}"))
    }

    /// The number of the line after the last.
    fn lines(&mut self, path: &Path, from_line: u64, batches: &mut Batches) -> Result<u64> {
        let mut lines = reader::open(path)?.into_lines();
        let mut number = 0u64;
        let mut line = String::new();
        while lines.read_line(&mut line).with_context(|| format!("cannot read {}", path.display()))? > 0 {
            number += 1;
            let text = line.trim();
            if !text.is_empty() && number >= from_line {
                let partition = self.subjects.partition_of_event(text);
                let (_, batch) = batches.entry(partition).or_insert_with(|| (number, Vec::new()));
                batch.push(text.to_string());
                if batch.len() >= self.batch {
                    self.send(path, partition, batches)?;
                }
            }
            line.clear();
            self.tell(path, batches)?;
        }
        while let Some(partition) = batches.keys().next().copied() {
            self.send(path, partition, batches)?;
        }
        self.publisher.settle_to(0)?;
        Ok(number + 1)
    }

    /// Sends the batch of one partition. The id is the place in the file and what stands there: who starts
    /// again within two minutes publishes nothing twice, and who changed the file or the batch publishes
    /// all of it.
    fn send(&mut self, path: &Path, partition: u32, batches: &mut Batches) -> Result<()> {
        let Some((place, lines)) = batches.remove(&partition) else { return Ok(()) };
        let Some(line) = lines.first() else { return Ok(()) };
        let codec = if lines.len() == 1 { Codec::Json } else { Codec::Ndjson };
        self.pace.wait(lines.len() as u64);
        let payload = lines.join("\n");
        let id = format!("{}:{place}:{:016x}", path.display(), xxh3_64(payload.as_bytes()));
        let subject = self.subjects.of_event(line);
        Ok(self.publisher.push(Outgoing { subject, codec, payload, id, place })?)
    }

    /// Progress for people, and the position for who has to go on.
    fn tell(&mut self, path: &Path, batches: &Batches) -> Result<()> {
        if !self.pace.events.is_multiple_of(LOOK_EVERY_EVENTS) || self.told.elapsed() < PROGRESS_EVERY {
            return Ok(());
        }
        self.told = Instant::now();
        if std::io::stderr().is_terminal() {
            let (sent, acknowledged) = (self.pace.events, self.publisher.acknowledged());
            eprint!("\r{sent} events sent, {acknowledged} messages acknowledged  ");
        }
        // Those sent before the newest few were acknowledged by now, or will be in a moment.
        self.publisher.settle_to(NEWEST_FEW)?;
        match self.lowest_waiting(batches) {
            Some(line) => self.note_position(path, line),
            None => Ok(()),
        }
    }

    /// The first line that the broker may not have.
    fn lowest_waiting(&self, batches: &Batches) -> Option<u64> {
        batches.values().map(|(first, _)| *first).chain(self.publisher.lowest_waiting()).min()
    }

    fn note_position(&mut self, path: &Path, line: u64) -> Result<()> {
        self.positions.as_mut().map_or(Ok(()), |positions| positions.note(path, line))
    }
}

/// The first line of each file that was not acknowledged yet, kept in a file.
struct Positions {
    kept_in: PathBuf,
    lines: BTreeMap<String, u64>,
}

impl Positions {
    fn read(kept_in: &Path) -> Result<Positions> {
        let text = match std::fs::read_to_string(kept_in) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".into(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", kept_in.display())),
        };
        let lines = serde_json::from_str(&text);
        let lines = lines.with_context(|| format!("{} holds no positions", kept_in.display()))?;
        Ok(Positions { kept_in: kept_in.into(), lines })
    }

    fn of(&self, path: &Path) -> Option<u64> {
        self.lines.get(&path.display().to_string()).copied()
    }

    /// Whole or not at all: a kill in between leaves the older one.
    fn note(&mut self, path: &Path, line: u64) -> Result<()> {
        self.lines.insert(path.display().to_string(), line);
        let new = self.kept_in.with_extension("new");
        let text = serde_json::to_string(&self.lines)?;
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &self.kept_in))
            .with_context(|| format!("cannot write {}", self.kept_in.display()))
    }
}

/// Keeps to a rate, counted from the beginning.
struct Pace {
    rate: Option<u32>,
    begun: Instant,
    events: u64,
}

impl Pace {
    fn wait(&mut self, events: u64) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.events as f64 / f64::from(rate.max(1)));
            if let Some(early) = due.checked_sub(self.begun.elapsed()) {
                std::thread::park_timeout(early);
            }
        }
        self.events += events;
    }
}
