//! `streamgauge replay`: files through the engine, with progress and a summary.

use super::cli::{ReplayArgs, instant};
use super::partitioned::{self, Parts};
use super::{FINE, check};
use crate::core::counters::Counters;
use crate::core::limits::Limits;
use crate::core::partition::Partition;
use crate::core::{Effects, Engine, Timestamp};
use crate::driver::replay::{self, Options, Outputs, Progress};
use crate::wire::event::BadEvent;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Refused events reported one by one before only their number is told.
const REFUSED_SHOWN: u64 = 10;

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Share of `too_late` events from which on a hint is printed.
const TOO_LATE_SHARE: f64 = 0.01;

pub fn run(args: &ReplayArgs) -> Result<u8> {
    let begun = Instant::now();
    let totals = match partitioned::of_files(&args.files)? {
        None => {
            let wanted = Wanted {
                windows: args.windows_out.clone(),
                alerts: args.alerts_out.clone(),
                records: args.records_out.clone(),
            };
            replay_one(args, Partition::default(), args.files.clone(), &wanted)?
        }
        Some(count) => replay_partitions(args, count)?,
    };
    print(args, &totals, begun.elapsed());
    Ok(FINE)
}

/// Where outputs go, those that are wanted.
#[derive(Debug, Default)]
struct Wanted {
    windows: Option<PathBuf>,
    alerts: Option<PathBuf>,
    records: Option<PathBuf>,
}

/// What came of one log or several.
#[derive(Debug)]
struct Totals {
    counters: Counters,
    series: usize,
    lines: u64,
    windows: u64,
    alerts: u64,
    records: u64,
    reached: Timestamp,
}

fn replay_one(
    args: &ReplayArgs,
    partition: Partition,
    files: Vec<PathBuf>,
    wanted: &Wanted,
) -> Result<Totals> {
    let limits = Limits { partition, ..args.limits.limits()? };
    let mut engine = Engine::new(limits);
    let given = args.pipelines.as_deref();
    let default = Path::new("pipelines");
    if let Some(dir) = given.or_else(|| default.is_dir().then_some(default)) {
        engine.load(check::load(dir)?.within(partition), &mut Effects::default());
    }
    let until = args.until.as_deref().map(instant).transpose()?;
    let threads = args.threads.map_or_else(processors, usize::from);
    let options =
        Options { files, threads, sort: args.sort, until, stop_at: None, log_rules: given.is_none() };
    let outputs = Outputs {
        windows: wanted.windows.as_deref().map(output).transpose()?,
        alerts: wanted.alerts.as_deref().map(output).transpose()?.map(|out| out as Box<dyn Write>),
        records: wanted.records.as_deref().map(output).transpose()?.map(|out| out as Box<dyn Write>),
        shadows: None,
        refused: Some(Box::new(reporter(args.verbose))),
        progress: (std::io::stderr().is_terminal() && !args.json).then(|| progress(Instant::now())),
    };
    let summary = replay::run(engine, &options, outputs)?;
    Ok(Totals {
        counters: summary.engine.counters().clone(),
        series: summary.engine.series().len(),
        lines: summary.lines,
        windows: summary.windows,
        alerts: summary.alerts,
        records: summary.records,
        reached: summary.engine.now(),
    })
}

/// Each partition's log by itself; then their outputs together.
fn replay_partitions(args: &ReplayArgs, count: u32) -> Result<Totals> {
    let parts = Parts::split(&args.files, count)?;
    let mut totals: Option<Totals> = None;
    for partition in parts.partitions() {
        let path = |kind, is_wanted: bool| is_wanted.then(|| parts.path(kind, partition.index));
        let wanted = Wanted {
            windows: path("windows", args.windows_out.is_some()),
            alerts: path("alerts", args.alerts_out.is_some()),
            records: path("records", args.records_out.is_some()),
        };
        let one = replay_one(args, partition, vec![parts.path("log", partition.index)], &wanted)?;
        totals = Some(match totals {
            None => one,
            Some(sum) => sum.and(one),
        });
    }
    if let Some(path) = &args.windows_out {
        parts.join("windows", &mut output(path)?)?;
    }
    if let Some(path) = &args.alerts_out {
        parts.join_by_time("alerts", &mut output(path)?)?;
    }
    if let Some(path) = &args.records_out {
        parts.join("records", &mut output(path)?)?;
    }
    totals.context("an export of no partition")
}

impl Totals {
    fn and(mut self, other: Totals) -> Totals {
        self.counters.add(&other.counters);
        Totals {
            series: self.series + other.series,
            lines: self.lines + other.lines,
            windows: self.windows + other.windows,
            alerts: self.alerts + other.alerts,
            records: self.records + other.records,
            reached: self.reached.max(other.reached),
            counters: self.counters,
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn output(path: &Path) -> Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(std::io::stdout())));
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::with_capacity(1 << 18, file)))
}

fn reporter(is_verbose: bool) -> impl FnMut(u64, &BadEvent) {
    let mut shown = 0;
    move |line, bad| {
        shown += 1;
        if is_verbose || shown <= REFUSED_SHOWN {
            let at = if bad.index > 0 { format!("{line}[{}]", bad.index) } else { line.to_string() };
            eprintln!("line {at}: refused, {}: {}", bad.reason.name(), bad.message);
        } else if shown == REFUSED_SHOWN + 1 {
            eprintln!("further refused events are only counted; --verbose shows all");
        }
    }
}

fn progress<'a>(begun: Instant) -> Box<dyn FnMut(&Progress) + 'a> {
    let mut told = begun;
    Box::new(move |progress| {
        if told.elapsed() < PROGRESS_EVERY && progress.share != Some(1.0) {
            return;
        }
        told = Instant::now();
        let rate = progress.events as f64 / begun.elapsed().as_secs_f64().max(1e-3);
        let share = progress.share.map_or(String::new(), |share| format!("{:3.0} %, ", share * 100.0));
        eprint!(
            "\r{share}{} events, {:.2} M/s, reached {}   ",
            progress.events,
            rate / 1e6,
            progress.reached
        );
        if progress.share == Some(1.0) {
            eprintln!();
        }
    })
}

fn print(args: &ReplayArgs, summary: &Totals, took: Duration) {
    let counters = &summary.counters;
    let refused: serde_json::Map<String, serde_json::Value> = counters
        .refused()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.name().to_string(), json!(count)))
        .collect();
    if args.json {
        let summary = json!({
            "events": {
                "received": counters.received,
                "recorded": counters.recorded,
                "late": counters.late,
                "late_state": counters.late_state,
                "duplicate": counters.duplicate,
                "dropped": counters.dropped,
                "refused": refused,
            },
            "lines": summary.lines,
            "series": summary.series,
            "windows": summary.windows,
            "alerts": summary.alerts,
            "records": summary.records,
            "evaluations": counters.evaluations,
            "overflow": counters.overflow,
            "reached": summary.reached.to_string(),
            "seconds": took.as_secs_f64(),
        });
        println!("{summary}");
    } else {
        eprintln!(
            "{} events ({} recorded, {} late, {} late_state, {} duplicate, {} dropped, {} refused) of {} series\n{} windows, {} alert transitions, {} recorded values; reached {} in {:.2} s, {:.2} M events/s",
            counters.received,
            counters.recorded,
            counters.late,
            counters.late_state,
            counters.duplicate,
            counters.dropped,
            counters.refused_total(),
            summary.series,
            summary.windows,
            summary.alerts,
            summary.records,
            summary.reached,
            took.as_secs_f64(),
            counters.received as f64 / took.as_secs_f64().max(1e-9) / 1e6,
        );
    }
    let too_late = refused.get("too_late").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if too_late as f64 > TOO_LATE_SHARE * counters.received as f64 {
        eprintln!("{too_late} events came too late for their windows; --sort puts the lines in order first");
    }
}
