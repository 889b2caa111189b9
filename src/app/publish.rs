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
use std::path::Path;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

pub fn run(args: &PublishArgs) -> Result<u8> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let publisher = Publisher::open(runtime.handle().clone(), &args.nats)?;
    let mut run = Run {
        publisher,
        subjects: Subjects::new("sg.v1", Partition { index: 0, count: args.partitions }),
        pace: Pace { rate: args.rate, begun: Instant::now(), events: 0 },
        batch: args.batch.max(1),
        told: Instant::now(),
    };
    for path in &args.files {
        run.file(path, args.from_line)?;
    }
    let messages = run.publisher.finish()?;
    let seconds = run.pace.begun.elapsed().as_secs_f64();
    let events = run.pace.events;
    eprintln!("{events} events in {messages} messages, {:.0} events/s", events as f64 / seconds.max(1e-9));
    Ok(FINE)
}

struct Run {
    publisher: Publisher,
    subjects: Subjects,
    pace: Pace,
    batch: usize,
    told: Instant,
}

impl Run {
    fn file(&mut self, path: &Path, from_line: u64) -> Result<()> {
        let mut lines = reader::open(path)?.into_lines();
        let mut number = 0u64;
        // By partition: the line that the batch begins with, and the lines.
        let mut batches: BTreeMap<u32, (u64, Vec<String>)> = BTreeMap::new();
        let mut line = String::new();
        loop {
            line.clear();
            let read =
                lines.read_line(&mut line).with_context(|| format!("cannot read {}", path.display()))?;
            if read == 0 {
                break;
            }
            number += 1;
            let text = line.trim();
            if text.is_empty() || number < from_line {
                continue;
            }
            let partition = self.subjects.partition_of_event(text);
            let (_, batch) = batches.entry(partition).or_insert_with(|| (number, Vec::new()));
            batch.push(text.to_string());
            if batch.len() >= self.batch {
                self.send_all(path, batches.remove(&partition).into_iter())?;
            }
        }
        self.send_all(path, batches.into_values())
    }

    fn send_all(&mut self, path: &Path, mut batches: impl Iterator<Item = (u64, Vec<String>)>) -> Result<()> {
        batches.try_for_each(|(first, lines)| {
            self.send(path, first, &lines).with_context(|| format!("stopped; go on with --from-line {first}"))
        })
    }

    /// The id is the place in the file and what stands there: who starts again within two minutes
    /// publishes nothing twice, and who changed the file or the batch publishes all of it.
    fn send(&mut self, path: &Path, first: u64, lines: &[String]) -> Result<()> {
        let Some(line) = lines.first() else { return Ok(()) };
        let codec = if lines.len() == 1 { Codec::Json } else { Codec::Ndjson };
        self.pace.wait(lines.len() as u64);
        let payload = lines.join("\n");
        let id = format!("{}:{first}:{:016x}", path.display(), xxh3_64(payload.as_bytes()));
        self.publisher.push(Outgoing { subject: self.subjects.of_event(line), codec, payload, id })?;
        if std::io::stderr().is_terminal() && self.told.elapsed() > PROGRESS_EVERY {
            self.told = Instant::now();
            eprint!(
                "\r{} events sent, {} messages acknowledged  ",
                self.pace.events,
                self.publisher.acknowledged()
            );
        }
        Ok(())
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
