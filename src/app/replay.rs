//! `streamgauge replay`: files through the engine, with progress and a summary.

use super::cli::{ReplayArgs, Usage};
use super::{FINE, check};
use crate::core::{Effects, Engine, Timestamp};
use crate::driver::replay::{self, Options, Outputs, Progress, Summary};
use crate::wire::event::BadEvent;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Refused events reported one by one before only their number is told.
const REFUSED_SHOWN: u64 = 10;

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Share of `too_late` events from which on a hint is printed.
const TOO_LATE_SHARE: f64 = 0.01;

pub fn run(args: &ReplayArgs) -> Result<u8> {
    let mut engine = Engine::new(args.limits.limits()?);
    let given = args.pipelines.as_deref();
    let default = Path::new("pipelines");
    if let Some(dir) = given.or_else(|| default.is_dir().then_some(default)) {
        engine.load(check::load(dir)?, &mut Effects::default());
    }
    let until = args.until.as_deref().map(parse_time).transpose()?;
    let options = Options {
        files: args.files.clone(),
        threads: args.threads.map_or_else(processors, usize::from),
        sort: args.sort,
        until,
        log_rules: given.is_none(),
    };
    let begun = Instant::now();
    let outputs = Outputs {
        windows: args.windows_out.as_deref().map(output).transpose()?,
        alerts: args.alerts_out.as_deref().map(output).transpose()?.map(|out| out as Box<dyn Write>),
        records: args.records_out.as_deref().map(output).transpose()?.map(|out| out as Box<dyn Write>),
        refused: Some(Box::new(reporter(args.verbose))),
        progress: (std::io::stderr().is_terminal() && !args.json).then(|| progress(begun)),
    };
    let summary = replay::run(engine, &options, outputs)?;
    print(args, &summary, begun.elapsed());
    Ok(FINE)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn parse_time(text: &str) -> Result<Timestamp> {
    let time = crate::wire::time::parse(text.as_bytes());
    time.ok_or_else(|| Usage(format!("`{text}` is no RFC 3339 time, such as 2026-11-01T00:00:00Z")).into())
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

fn print(args: &ReplayArgs, summary: &Summary, took: Duration) {
    let counters = summary.engine.counters();
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
                "duplicate": counters.duplicate,
                "dropped": counters.dropped,
                "refused": refused,
            },
            "lines": summary.lines,
            "series": summary.engine.series().len(),
            "windows": summary.windows,
            "alerts": summary.alerts,
            "records": summary.records,
            "evaluations": counters.evaluations,
            "overflow": counters.overflow,
            "reached": summary.engine.now().to_string(),
            "seconds": took.as_secs_f64(),
        });
        println!("{summary}");
    } else {
        eprintln!(
            "{} events ({} recorded, {} late, {} duplicate, {} dropped, {} refused) of {} series\n{} windows, {} alert transitions, {} recorded values; reached {} in {:.2} s, {:.2} M events/s",
            counters.received,
            counters.recorded,
            counters.late,
            counters.duplicate,
            counters.dropped,
            counters.refused_total(),
            summary.engine.series().len(),
            summary.windows,
            summary.alerts,
            summary.records,
            summary.engine.now(),
            took.as_secs_f64(),
            counters.received as f64 / took.as_secs_f64().max(1e-9) / 1e6,
        );
    }
    let too_late = refused.get("too_late").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if too_late as f64 > TOO_LATE_SHARE * counters.received as f64 {
        eprintln!("{too_late} events came too late for their windows; --sort puts the lines in order first");
    }
}
