//! Replays a log in files through the engine at full speed.
//!
//! Invariant: the effects are those of the same log read live. The number of threads affects decoding only,
//! never the effects.

use super::file::input::{Finding, Input};
use super::file::sort::Origins;
use super::file::stamp::{Stamped, Stamper};
use super::file::{Chunk, merge, reader};
pub use super::replay_output::ReplayError;
use super::replay_output::write_json;
use super::window_sink::WindowSink;
use crate::core::alert::self_alerts::is_own;
use crate::core::effect::RejectReason;
use crate::core::engine::Handled;
use crate::core::event::Event;
use crate::core::record::{Body, Control, Record};
use crate::core::vocab::counters::Refusal;
use crate::core::vocab::identity::IdentityTable;
use crate::core::vocab::limits::Limits;
use crate::core::vocab::severity::Severity;
use crate::core::{Effects, Engine, Timestamp};
use crate::wire::alert::{self, RecordLine};
use crate::wire::event::BadEvent;
use crate::wire::ndjson::{Content, Line};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Approximate number of windows that the engine emits before they are written: 4,096 × about 1 KiB = 4 MiB.
const WINDOWS_AT_ONCE: usize = 4_096;

/// Inputs and settings of a replay.
#[derive(Debug, Default)]
pub struct Options {
    pub files: Vec<PathBuf>,
    pub threads: usize,
    pub sort: bool,
    /// Time to which the clock advances after the last line.
    pub until: Option<Timestamp>,
    /// Lines with a later stamp are left out.
    pub stop_at: Option<Timestamp>,
    /// Whether rule sets in the log itself are put in force.
    pub log_rules: bool,
}

/// Destinations of the outputs; an absent output is not produced.
#[derive(Default)]
pub struct Outputs<'a> {
    pub windows: Option<Box<dyn Write + Send + 'a>>,
    pub alerts: Option<Box<dyn Write + 'a>>,
    pub records: Option<Box<dyn Write + 'a>>,
    /// Transitions of `shadow: true` rules.
    pub shadows: Option<Box<dyn Write + 'a>>,
    /// Called for each refused event with its place and the error.
    pub refused: Option<Box<dyn FnMut(LinePlace<'_>, &BadEvent) + 'a>>,
    /// Called with the progress after each chunk of lines.
    pub progress: Option<Box<dyn FnMut(&Progress) + 'a>>,
}

impl std::fmt::Debug for Outputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").field("windows", &self.windows.is_some()).finish_non_exhaustive()
    }
}

/// The place of a line in the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinePlace<'a> {
    /// The file, if there are several.
    pub file: Option<&'a Path>,
    /// From 1; blank lines count.
    pub line: u64,
}

impl<'a> LinePlace<'a> {
    /// Returns the original place of a line, given its number in the combined input.
    fn of(line: u64, origins: Option<&'a Origins>) -> LinePlace<'a> {
        let origin = origins.and_then(|origins| Some((origins, origins.of(line)?)));
        match origin {
            Some((origins, (file, line))) => LinePlace { file: origins.file(file), line },
            None => LinePlace { file: None, line },
        }
    }
}

/// Progress of a replay.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub events: u64,
    /// Fraction of the input read so far, in [0, 1]; `None` for a pipe.
    pub share: Option<f64>,
    pub reached: Timestamp,
}

/// Result of a replay.
#[derive(Debug)]
pub struct Summary {
    pub lines: u64,
    pub windows: u64,
    pub alerts: u64,
    pub records: u64,
    /// Stamp of the first record.
    pub begun: Option<Timestamp>,
    /// The highest severity at which an alert was active. Self-alerts do not count.
    pub worst: Option<Severity>,
    /// Errors of the inputs; their intact parts were read.
    pub input_errors: Vec<Finding>,
    pub engine: Engine,
}

/// Replays files through an engine that has its rules already.
pub fn run(engine: Engine, options: &Options, outputs: Outputs<'_>) -> Result<Summary, ReplayError> {
    run_over(engine, merge::open(&options.files, options.sort)?, options, outputs)
}

/// Replays an open input through an engine that has its rules already.
pub fn run_over(
    engine: Engine,
    mut input: Input,
    options: &Options,
    outputs: Outputs<'_>,
) -> Result<Summary, ReplayError> {
    let (size, consumed) = (input.size, input.consumed.clone());
    // The engine emits a correction at the grid point after the late event, and the event may be up to `max_lateness`
    // late. Sealed windows are kept for that long.
    let limits = engine.limits();
    let kept = limits.max_lateness + limits.evaluation_interval * 2;
    let mut outputs = outputs;
    let sink = WindowSink::new(kept, outputs.windows.take());
    let mut replay = Replay::new(engine, options, outputs, &sink);
    replay.outlets.origins = input.origins.take();
    let mut failed = None;
    let input_errors = reader::read(input, options.threads, 0, &|| sink.help(), &mut |chunk| {
        if let Err(error) = replay.chunk(chunk) {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        let read = consumed.load(std::sync::atomic::Ordering::Relaxed);
        replay.tell(size.map(|size| read as f64 / size.max(1) as f64));
        ControlFlow::Continue(())
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(Summary { input_errors, ..replay.finish()? }),
    }
}

/// A replay in progress.
#[derive(Debug)]
struct Replay<'s, 'a> {
    engine: Engine,
    directory: IdentityTable,
    stamper: Stamper,
    effects: Effects,
    outlets: Outlets<'s, 'a>,
    until: Option<Timestamp>,
    stop_at: Timestamp,
    log_rules: bool,
    begun: Option<Timestamp>,
    lines: u64,
    bad: Vec<Refusal>,
    stamped: Vec<Stamped>,
}

/// Destinations of the effects.
#[derive(Debug)]
struct Outlets<'s, 'a> {
    outputs: Outputs<'a>,
    sink: &'s WindowSink<'a>,
    origins: Option<Origins>,
    is_alone: bool,   // no other thread helps with the windows
    counts: [u64; 3], // windows, alerts, records
    worst: Option<Severity>,
}

impl Outlets<'_, '_> {
    /// Writes the effects of a line to the outputs and clears them.
    fn drain(&mut self, effects: &mut Effects, now: Timestamp, line: u64) -> Result<(), ReplayError> {
        self.counts[0] += effects.windows.len() as u64;
        if self.sink.is_wanted && !effects.windows.is_empty() {
            self.sink.push(std::mem::take(&mut effects.windows), self.is_alone)?;
        }
        if let Some(alerts) = &mut self.outputs.alerts {
            for transition in &effects.transitions {
                writeln!(alerts, "{}", alert::line(transition)).map_err(ReplayError::Output)?;
            }
        }
        if let Some(shadows) = &mut self.outputs.shadows {
            for transition in &effects.shadows {
                writeln!(shadows, "{}", alert::line(transition)).map_err(ReplayError::Output)?;
            }
        }
        if let Some(records) = &mut self.outputs.records {
            for recorded in &effects.recorded {
                write_json(records, &RecordLine::new(recorded))?;
            }
        }
        if let Some(refused) = &mut self.outputs.refused {
            for one in &effects.refused {
                let RejectReason::Refused(reason) = one.reason else { continue };
                let place = LinePlace::of(line, self.origins.as_ref());
                refused(place, &BadEvent::new(one.index as usize, reason, one.message(now)));
            }
        }
        let of_rules = effects.transitions.iter().filter(|one| !is_own(&one.rule));
        let worst = of_rules.filter(|one| one.is_active()).map(|one| one.severity).max();
        self.worst = self.worst.max(worst);
        self.counts[1] += effects.transitions.len() as u64;
        self.counts[2] += effects.recorded.len() as u64;
        effects.clear();
        Ok(())
    }
}

impl<'s, 'a> Replay<'s, 'a> {
    fn new(
        engine: Engine,
        options: &Options,
        outputs: Outputs<'a>,
        sink: &'s WindowSink<'a>,
    ) -> Replay<'s, 'a> {
        let limits: Limits = engine.limits().clone();
        Replay {
            engine,
            directory: IdentityTable::default(),
            stamper: Stamper::new(&limits),
            effects: Effects::default(),
            outlets: Outlets {
                outputs,
                sink,
                origins: None,
                is_alone: options.threads <= 1,
                counts: [0; 3],
                worst: None,
            },
            until: options.until,
            stop_at: options.stop_at.unwrap_or(Timestamp::MAX),
            log_rules: options.log_rules,
            begun: None,
            lines: 0,
            bad: Vec::new(),
            stamped: Vec::new(),
        }
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ReplayError> {
        if chunk.is_anew {
            self.settle()?;
            self.directory.forget(chunk.decoder);
            self.engine.forget_decoder(chunk.decoder);
        }
        self.directory.learn(chunk.decoder, chunk.found);
        for line in chunk.lines {
            self.line(line)?;
        }
        Ok(())
    }

    /// Applies all lines that the stamper holds back. The lines refer to identities by the numbers of a decoder, so
    /// they must be applied before the decoder restarts its numbering.
    fn settle(&mut self) -> Result<(), ReplayError> {
        let mut stamped = std::mem::take(&mut self.stamped);
        self.stamper.finish(&mut |line| stamped.push(line));
        self.apply_all(stamped)
    }

    #[inline]
    fn line(&mut self, line: Line) -> Result<(), ReplayError> {
        self.lines += 1;
        if let Some(stamp) = self.stamper.plain(&line) {
            return self.apply(&line, stamp, None);
        }
        self.uncommon_line(line)
    }

    fn uncommon_line(&mut self, line: Line) -> Result<(), ReplayError> {
        if let Content::Many(decoded) = &line.content
            && let Some(refused) = &mut self.outlets.outputs.refused
        {
            let place = LinePlace::of(line.number, self.outlets.origins.as_ref());
            decoded.bad.iter().for_each(|bad| refused(place, bad));
        }
        let mut stamped = std::mem::take(&mut self.stamped);
        self.stamper.push(line, &mut |line| stamped.push(line));
        self.apply_all(stamped)
    }

    fn apply_all(&mut self, mut stamped: Vec<Stamped>) -> Result<(), ReplayError> {
        for line in stamped.drain(..) {
            self.apply(&line.line, line.stamp, line.limit)?;
        }
        self.stamped = stamped;
        Ok(())
    }

    #[inline]
    fn apply(&mut self, line: &Line, stamp: Timestamp, limit: Option<Timestamp>) -> Result<(), ReplayError> {
        if stamp > self.stop_at {
            return Ok(());
        }
        self.begun.get_or_insert(stamp);
        self.bad.clear();
        let body = match &line.content {
            Content::One(event) => Body::Events(std::slice::from_ref(event)),
            Content::Many(decoded) => {
                self.bad.extend(decoded.bad.iter().map(|bad| bad.reason));
                Body::Events(&decoded.events)
            }
            Content::Tick => Body::Tick,
            Content::Gap(from, to) => Body::Gap(*from, *to),
            Content::Poison => Body::Poison,
            Content::Partials { from, number, partials } => {
                Body::Partials { from: *from, number: *number, partials }
            }
            Content::Control(control) if matches!(**control, Control::Rules(_)) && !self.log_rules => {
                Body::Events(&[] as &[Event])
            }
            Content::Control(control) => Body::Control(control),
        };
        let record = Record { seq: self.lines, stamp, limit, bad: &self.bad, body };
        let mut handled = Handled::Partly;
        while handled == Handled::Partly {
            handled = self.engine.handle_some(&record, &self.directory, &mut self.effects, WINDOWS_AT_ONCE);
            if !self.effects.is_empty() {
                self.outlets.drain(&mut self.effects, self.engine.now(), line.number)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, share: Option<f64>) {
        if let Some(progress) = &mut self.outlets.outputs.progress {
            let events = self.engine.counters().received;
            progress(&Progress { events, share, reached: self.engine.now() });
        }
    }

    /// Ends the input. If `until` is set, a tick advances the clock to it; otherwise the clock stays at the last
    /// stamp. Open windows are written in their current state.
    fn finish(mut self) -> Result<Summary, ReplayError> {
        self.settle()?;
        if let Some(until) = self.until {
            let tick = Record { seq: self.lines, stamp: until, limit: None, bad: &[], body: Body::Tick };
            self.engine.handle(&tick, &self.directory, &mut self.effects);
        }
        self.engine.finish(&mut self.effects);
        self.outlets.drain(&mut self.effects, self.engine.now(), 0)?;
        if self.outlets.sink.is_wanted {
            self.outlets.counts[0] += self.outlets.sink.open(self.engine.open_windows())?;
        }
        for output in [&mut self.outlets.outputs.alerts, &mut self.outlets.outputs.records] {
            output.iter_mut().try_for_each(|output| output.flush()).map_err(ReplayError::Output)?;
        }
        self.tell(Some(1.0));
        let [windows, alerts, records] = self.outlets.counts;
        Ok(Summary {
            lines: self.lines,
            windows,
            alerts,
            records,
            begun: self.begun,
            worst: self.outlets.worst,
            input_errors: Vec::new(),
            engine: self.engine,
        })
    }
}
