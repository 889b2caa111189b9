//! `streamgauge publish`: sends the events of files to JetStream, and retries each until it is acknowledged.
//!
//! Intuition: files are read on a separate thread, so that a signal ends the command at once, even while it
//! waits for a line.
//! Invariant: the position is the first line that the broker may not have, however the command ends.

mod lines;

use super::cli::PublishArgs;
use super::positions::Positions;
use super::reporting::tell;
use super::stderr::{end_progress, note, progress};
use super::waiting::{FIRST_SAID_AFTER, SAID_EVERY};
use super::{BadConfig, FAILED, FINE};
use crate::adapters::nats;
use crate::adapters::nats::publisher::{Outgoing, Patience, PublishFailure, Publisher, refused};
use crate::core::Span;
use crate::core::vocab::counters::Refusal;
use crate::core::vocab::limits::PAYLOAD_BYTES_MAX;
use crate::core::vocab::partition::Partition;
use crate::driver::file::input::Finding;
use crate::wire::address::without_password;
use crate::wire::event::Codec;
use crate::wire::subject::Subjects;
use anyhow::{Context, Result};
use lines::{Coming, read_ahead};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

/// Events between two checks of the time, for progress and position.
const LOOK_EVERY_EVENTS: u64 = 16;

/// Number of messages that may still be unacknowledged when progress is reported.
const NEWEST_FEW: usize = 64;

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Time between two checks for a stop signal while no line arrives.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Maximum time that an incomplete batch waits for another line. Reading a file never pauses for this long,
/// so its messages, and with them their ids, are the same in each run.
const BATCH_HELD_MAX: Duration = Duration::from_secs(1);

/// Maximum size in bytes of the lines of one message: half of the broker's default maximum payload, so that
/// the headers fit.
const BATCH_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;

/// Number of refused lines that are reported individually.
const REFUSED_SHOWN: u64 = 10;

pub(crate) fn run(args: &PublishArgs) -> Result<u8> {
    nats::check(&args.nats).map_err(BadConfig)?;
    let positions = args.position.as_deref().map(Positions::read).transpose()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let stop = CancellationToken::new();
    end_on_signals(&runtime, stop.clone()).context("cannot wait for signals")?;
    let publisher = Publisher::open(runtime.handle().clone(), &args.nats, patience(args, &stop))?;
    let mut run = Run {
        publisher,
        stop,
        subjects: Subjects::new("sg.v1", Partition { index: 0, count: args.partitions }),
        pace: Pace { rate: args.rate, begun: Instant::now(), events: 0 },
        batch: args.batch as usize,
        told: Instant::now(),
        positions,
        refused: 0,
    };
    let mut is_whole = true;
    for path in &args.files {
        let known = run.positions.as_ref().and_then(|positions| positions.of(path));
        let findings = run.file(path, args.from_line.or(known).unwrap_or(1));
        let messages = run.publisher.acknowledged();
        let findings = findings.with_context(|| format!("{messages} messages are acknowledged"))?;
        is_whole &= findings.is_empty();
        tell(&findings);
    }
    Ok(run.summary(is_whole))
}

/// Makes a signal end all waiting. The position acknowledged until then is kept.
fn end_on_signals(runtime: &tokio::runtime::Runtime, stop: CancellationToken) -> std::io::Result<()> {
    let _within = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    runtime.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

fn patience(args: &PublishArgs, stop: &CancellationToken) -> Patience {
    let address = without_password(&args.nats);
    let timeout = args.timeout.map(|timeout: Span| Duration::from_millis(timeout.ms().max(0) as u64));
    let say = move |is_connected: bool, time: Duration, words: Option<String>| {
        let what = if is_connected { "an acknowledgement of" } else { "a connection to" };
        let (secs, words) = (time.as_secs(), refused(&words));
        note(format_args!("waiting for {what} {address}, {secs} s so far{words}; Ctrl-C ends"));
    };
    let say_after = (FIRST_SAID_AFTER, SAID_EVERY);
    Patience { timeout, stop: stop.clone(), say_after, say: Box::new(say) }
}

struct Run {
    publisher: Publisher,
    stop: CancellationToken,
    subjects: Subjects,
    pace: Pace,
    batch: usize,
    told: Instant,
    positions: Option<Positions>,
    /// Number of lines that were not sent because the service or the broker would refuse them.
    refused: u64,
}

/// The incomplete batch of each partition.
type Batches = BTreeMap<u32, Batch>;

#[derive(Debug, Default)]
struct Batch {
    place: u64, // number of its first line
    bytes: usize,
    lines: Vec<String>,
}

impl Run {
    /// Publishes one file to its end, until all of it is acknowledged. Returns the errors of the file.
    fn file(&mut self, path: &Path, from_line: u64) -> Result<Vec<Finding>> {
        let (mut batches, mut next) = (Batches::new(), from_line);
        let result = self.lines(path, from_line, &mut batches, &mut next);
        if result.is_err() {
            next = self.lowest_waiting(&batches).unwrap_or(next);
        }
        self.note_position(path, next)?;
        result.with_context(|| format!("{}: stopped; go on with --from-line {next}", path.display()))
    }

    /// Publishes the lines of a file. `next` becomes the number of the line after the last one that was
    /// taken.
    fn lines(
        &mut self,
        path: &Path,
        from_line: u64,
        batches: &mut Batches,
        next: &mut u64,
    ) -> Result<Vec<Finding>> {
        let coming = read_ahead(path.into());
        let (mut idle_since, mut last) = (None, 0);
        let findings = loop {
            let come = coming.recv_timeout(LOOK_EVERY);
            if come.is_ok() {
                idle_since = None;
            }
            match come {
                _ if self.stop.is_cancelled() => return Err(PublishFailure::Stopped.into()),
                Ok(Coming::Line(number, line)) => {
                    last = number;
                    if number >= from_line {
                        self.line(path, number, line, batches)?;
                        *next = number + 1;
                    }
                    self.tell(path, batches)?;
                }
                Ok(Coming::Opened(remarks)) => tell(&remarks?),
                Ok(Coming::End(_)) if from_line > last + 1 => {
                    anyhow::bail!(
                        "the file ends at line {last}; is it the same file? --from-line 1 begins anew"
                    )
                }
                Ok(Coming::End(findings)) => break findings,
                Err(RecvTimeoutError::Timeout) => {
                    let idle = idle_since.get_or_insert_with(Instant::now).elapsed();
                    self.settle_idle(path, *next, idle, batches)?;
                }
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the file cannot be read to its end"),
            }
        };
        self.send_all(path, batches)?;
        self.publisher.settle_to(0)?;
        Ok(findings)
    }

    /// Waits for acknowledgements while no line arrives. After a while it also sends the incomplete batches.
    fn settle_idle(&mut self, path: &Path, next: u64, idle: Duration, batches: &mut Batches) -> Result<()> {
        if idle >= BATCH_HELD_MAX {
            self.send_all(path, batches)?;
        }
        if self.publisher.lowest_waiting().is_none() {
            return Ok(());
        }
        self.publisher.settle_to(0)?;
        self.note_position(path, self.lowest_waiting(batches).unwrap_or(next))
    }

    fn send_all(&mut self, path: &Path, batches: &mut Batches) -> Result<()> {
        while let Some(partition) = batches.keys().next().copied() {
            self.send(path, partition, batches)?;
        }
        Ok(())
    }

    /// Adds a line to the batch of its partition, and sends the batch when it is full.
    fn line(
        &mut self,
        path: &Path,
        number: u64,
        line: Result<String, (Refusal, String)>,
        batches: &mut Batches,
    ) -> Result<()> {
        let text = match line {
            Ok(text) => text,
            Err((reason, message)) => {
                self.refuse(path, number, reason, &message);
                return Ok(());
            }
        };
        let partition = self.subjects.partition_of_event(&text);
        if batches.get(&partition).is_some_and(|batch| batch.bytes + text.len() > BATCH_BYTES_MAX) {
            self.send(path, partition, batches)?;
        }
        let batch = batches.entry(partition).or_insert_with(|| Batch { place: number, ..Batch::default() });
        batch.bytes += text.len() + 1;
        batch.lines.push(text);
        if batch.lines.len() >= self.batch { self.send(path, partition, batches) } else { Ok(()) }
    }

    /// Sends the batch of one partition. The message id consists of the path, the line number and a hash of
    /// the content. A run that is repeated within the broker's deduplication window of two minutes publishes
    /// nothing twice, and batches whose content or place has changed are published again.
    fn send(&mut self, path: &Path, partition: u32, batches: &mut Batches) -> Result<()> {
        let Some(batch) = batches.get(&partition) else { return Ok(()) };
        let Some(line) = batch.lines.first() else { return Ok(()) };
        let (place, count) = (batch.place, batch.lines.len());
        let codec = if count == 1 { Codec::Json } else { Codec::Ndjson };
        self.pace.wait(count as u64, &self.publisher)?;
        let payload = batch.lines.join("\n");
        let id = format!("{}:{place}:{:016x}", path.display(), xxh3_64(payload.as_bytes()));
        let subject = self.subjects.of_event(line);
        batches.remove(&partition);
        match self.publisher.push(Outgoing { subject, codec, payload, id, place }) {
            Err(PublishFailure::TooLarge(bytes)) if count == 1 => {
                let message = format!("the broker takes no message of {bytes} bytes");
                self.refuse(path, place, Refusal::TooLarge, &message);
                Ok(())
            }
            Err(PublishFailure::TooLarge(bytes)) => {
                batches.insert(partition, Batch { place, ..Batch::default() });
                anyhow::bail!("the broker takes no message of {bytes} bytes; take a smaller --batch")
            }
            other => Ok(other?),
        }
    }

    /// Reports and counts a line that would be refused, without holding up the others.
    fn refuse(&mut self, path: &Path, number: u64, reason: Refusal, message: &str) {
        self.refused += 1;
        if self.refused <= REFUSED_SHOWN {
            note(format_args!("{} line {number}: not sent, {}: {message}", path.display(), reason.name()));
        } else if self.refused == REFUSED_SHOWN + 1 {
            note("further lines that are not sent are only counted");
        }
    }

    /// Prints progress for people, and saves the position for a later run.
    fn tell(&mut self, path: &Path, batches: &Batches) -> Result<()> {
        if !self.pace.events.is_multiple_of(LOOK_EVERY_EVENTS) || self.told.elapsed() < PROGRESS_EVERY {
            return Ok(());
        }
        self.told = Instant::now();
        if std::io::stderr().is_terminal() {
            let (sent, acknowledged) = (self.pace.events, self.publisher.acknowledged());
            progress(format_args!("{sent} events sent, {acknowledged} messages acknowledged"));
        }
        // Waits until at most `NEWEST_FEW` messages are unacknowledged. The wait is short, because older messages
        // are usually acknowledged already.
        self.publisher.settle_to(NEWEST_FEW)?;
        match self.lowest_waiting(batches) {
            Some(line) => self.note_position(path, line),
            None => Ok(()),
        }
    }

    /// Returns the first line that the broker may not have.
    fn lowest_waiting(&self, batches: &Batches) -> Option<u64> {
        batches.values().map(|batch| batch.place).chain(self.publisher.lowest_waiting()).min()
    }

    fn note_position(&mut self, path: &Path, line: u64) -> Result<()> {
        self.positions.as_mut().map_or(Ok(()), |positions| positions.note(path, line))
    }

    /// Prints the totals of all files. Returns the exit code.
    fn summary(&self, is_whole: bool) -> u8 {
        if std::io::stderr().is_terminal() {
            end_progress();
        }
        let seconds = self.pace.begun.elapsed().as_secs_f64();
        let (events, messages, refused) = (self.pace.events, self.publisher.acknowledged(), self.refused);
        let rate = events as f64 / seconds.max(1e-9);
        note(format_args!("{events} events in {messages} messages, {rate:.0} events/s"));
        if refused > 0 {
            note(format_args!("{refused} lines were not sent"));
        }
        let is_nothing_sent = refused > 0 && messages == 0;
        if is_whole && !is_nothing_sent { FINE } else { FAILED }
    }
}

/// Limits the average rate of events, in events per second since the start of the command.
struct Pace {
    rate: Option<u32>,
    begun: Instant,
    events: u64,
}

impl Pace {
    fn wait(&mut self, events: u64, publisher: &Publisher) -> Result<(), PublishFailure> {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.events as f64 / f64::from(rate.max(1)));
            if let Some(early) = due.checked_sub(self.begun.elapsed()) {
                publisher.pause(early)?;
            }
        }
        self.events += events;
        Ok(())
    }
}
