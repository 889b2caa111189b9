//! `streamgauge replay`: runs files through the engine, with progress and a summary.

use super::cli::{ReplayArgs, instant};
use super::partitioned::{self, AlertsByTime, SplitExport};
use super::reporting::{Reporter, progress_since, tell};
use super::stderr::note;
use super::stdout::{Stdout, say};
use super::{FAILED, FINE, check, outputs};
use crate::core::rule::RuleSet;
use crate::core::vocab::counters::Counters;
use crate::core::vocab::limits::Limits;
use crate::core::vocab::partition::Partition;
use crate::core::vocab::severity::Severity;
use crate::core::{Effects, Engine, Timestamp};
use crate::driver::file::input::{self, Finding, Input};
use crate::driver::file::merge;
use crate::driver::replay::{self, LinePlace, Options, Outputs};
use crate::pipeline::load::rule_files;
use crate::wire::event::BadEvent;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) fn run(args: &ReplayArgs) -> Result<u8> {
    let begun = Instant::now();
    let outs = [
        ("--windows-out", args.windows_out.as_deref()),
        ("--alerts-out", args.alerts_out.as_deref()),
        ("--records-out", args.records_out.as_deref()),
    ];
    let settings = Settings::read(args)?;
    outputs::check(&outs, &settings.inputs)?;
    let (first, rest) = args.files.split_first().context("no file is named")?;
    let mut first = input::open(first)?;
    let mut reporter = Reporter::new(args.verbose);
    let totals = match partitioned::count(&mut first)? {
        None => {
            let input = merge::gather(first, rest, args.sort)?;
            let mut outs = Outs::open(args)?;
            replay_one(&settings, Partition::default(), input, outs.wanted(), &mut reporter)?
        }
        Some(count) => replay_partitions(&settings, SplitExport::split(first, rest, count)?, &mut reporter)?,
    };
    tell(&totals.input_errors);
    print(args, &totals, begun.elapsed())?;
    reporter.sum_up(&totals.counters);
    Ok(totals.exit_code(args))
}

/// Settings that are read before any output is opened, because opening an output that is a rule file would
/// empty it.
struct Settings<'a> {
    args: &'a ReplayArgs,
    /// All files that are read.
    inputs: Vec<PathBuf>,
    /// The rules of a directory. `None` keeps the rules that the log contains.
    rules: Option<RuleSet>,
    limits: Limits,
    until: Option<Timestamp>,
}

impl Settings<'_> {
    fn read(args: &ReplayArgs) -> Result<Settings<'_>> {
        let default = Path::new("pipelines");
        let dir = args.pipelines.as_deref().or_else(|| default.is_dir().then_some(default));
        let rules = dir.map(check::load).transpose()?;
        let mut inputs = args.files.clone();
        inputs.extend(dir.and_then(|dir| rule_files(dir).ok()).unwrap_or_default());
        let until = args.until.as_deref().map(instant).transpose()?;
        Ok(Settings { args, inputs, rules, limits: args.limits.limits()?, until })
    }
}

/// The outputs that the flags request.
struct Outs {
    windows: Option<Box<dyn Write + Send>>,
    alerts: Option<Box<dyn Write + Send>>,
    records: Option<Box<dyn Write + Send>>,
}

/// The outputs of [`Outs`], lent to one replay.
struct Wanted<'a> {
    windows: Option<Box<dyn Write + Send + 'a>>,
    alerts: Option<Box<dyn Write + 'a>>,
    records: Option<Box<dyn Write + 'a>>,
}

impl Outs {
    fn open(args: &ReplayArgs) -> Result<Outs> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(output).transpose();
        Ok(Outs {
            windows: open(&args.windows_out)?,
            alerts: open(&args.alerts_out)?,
            records: open(&args.records_out)?,
        })
    }

    fn wanted(&mut self) -> Wanted<'_> {
        Wanted {
            windows: self.windows.as_mut().map(|out| Box::new(out) as Box<dyn Write + Send + '_>),
            alerts: self.alerts.as_mut().map(|out| Box::new(out) as Box<dyn Write + '_>),
            records: self.records.as_mut().map(|out| Box::new(out) as Box<dyn Write + '_>),
        }
    }
}

/// The results of one log, or the totals of several.
#[derive(Debug)]
struct Totals {
    counters: Counters,
    series: usize,
    lines: u64,
    windows: u64,
    alerts: u64,
    records: u64,
    reached: Timestamp,
    worst: Option<Severity>,
    input_errors: Vec<Finding>,
}

fn replay_one(
    settings: &Settings<'_>,
    partition: Partition,
    input: Input,
    wanted: Wanted<'_>,
    reporter: &mut Reporter,
) -> Result<Totals> {
    tell(&input.remarks);
    let mut engine = Engine::new(Limits { partition, ..settings.limits.clone() });
    if let Some(rules) = &settings.rules {
        engine.load(rules.within(partition), &mut Effects::default());
    }
    let args = settings.args;
    let threads = args.threads.map_or_else(processors, usize::from);
    let log_rules = args.pipelines.is_none();
    let options = Options { threads, until: settings.until, log_rules, ..Options::default() };
    let outputs = Outputs {
        windows: wanted.windows,
        alerts: wanted.alerts,
        records: wanted.records,
        shadows: None,
        refused: Some(Box::new(|place: LinePlace<'_>, bad: &BadEvent| reporter.refused(place, bad))),
        progress: (std::io::stderr().is_terminal() && !args.json).then(|| progress_since(Instant::now())),
    };
    let summary = replay::run_over(engine, input, &options, outputs)?;
    Ok(Totals {
        counters: summary.engine.counters().clone(),
        series: summary.engine.series().len(),
        lines: summary.lines,
        windows: summary.windows,
        alerts: summary.alerts,
        records: summary.records,
        reached: summary.engine.now(),
        worst: summary.worst,
        input_errors: summary.input_errors,
    })
}

/// Replays the log of each partition by itself, then writes the alerts of all partitions in order.
fn replay_partitions(
    settings: &Settings<'_>,
    mut parts: SplitExport,
    reporter: &mut Reporter,
) -> Result<Totals> {
    tell(&parts.remarks);
    let mut outs = Outs::open(settings.args)?;
    let mut alerts = outs.alerts.is_some().then(AlertsByTime::default);
    let mut totals: Option<Totals> = None;
    let mut input_errors = std::mem::take(&mut parts.troubles);
    for (partition, log) in parts.into_logs() {
        let by_time = alerts.as_mut().map(|alerts| Box::new(alerts.of(partition)) as Box<dyn Write + '_>);
        let wanted = Wanted { alerts: by_time, ..outs.wanted() };
        let input = merge::gather(log, &[], settings.args.sort)?;
        let one = replay_one(settings, partition, input, wanted, reporter)?;
        totals = Some(match totals {
            None => one,
            Some(sum) => sum.and(one),
        });
    }
    if let (Some(alerts), Some(out)) = (alerts, &mut outs.alerts) {
        alerts.finish(out)?;
    }
    let mut totals = totals.context("an export of no partition")?;
    input_errors.append(&mut totals.input_errors);
    Ok(Totals { input_errors, ..totals })
}

impl Totals {
    fn and(mut self, other: Totals) -> Totals {
        self.counters.add(&other.counters);
        self.input_errors.extend(other.input_errors);
        Totals {
            series: self.series + other.series,
            lines: self.lines + other.lines,
            windows: self.windows + other.windows,
            alerts: self.alerts + other.alerts,
            records: self.records + other.records,
            reached: self.reached.max(other.reached),
            worst: self.worst.max(other.worst),
            input_errors: self.input_errors,
            counters: self.counters,
        }
    }

    /// Returns the exit code, by which automation decides.
    fn exit_code(&self, args: &ReplayArgs) -> u8 {
        if self.lines == 0 && self.input_errors.is_empty() {
            note("there are no lines in the input");
        }
        let limit = args.fail_on.as_deref().and_then(Severity::from_name);
        let fired = self.worst.filter(|worst| limit.is_some_and(|limit| *worst >= limit));
        if let Some(fired) = fired {
            note(format_args!("an alert of level {} fired (--fail-on)", fired.name()));
        }
        let refused = self.counters.refused_total();
        let is_nothing_taken = refused > 0 && refused == self.counters.received;
        let is_bad = fired.is_some() || is_nothing_taken || !self.input_errors.is_empty();
        if is_bad { FAILED } else { FINE }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn output(path: &Path) -> Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(Stdout::default()));
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::with_capacity(1 << 18, file)))
}

fn print(args: &ReplayArgs, summary: &Totals, took: Duration) -> Result<()> {
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
            "reached": (summary.reached > Timestamp::MIN).then(|| summary.reached.to_string()),
            "seconds": took.as_secs_f64(),
            "input_errors": errors(&summary.input_errors),
        });
        say(summary)
    } else {
        note(format_args!(
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
        ));
        Ok(())
    }
}

/// Formats the errors of the inputs as JSON.
fn errors(found: &[Finding]) -> serde_json::Value {
    found.iter().map(|one| json!({"file": one.file.display().to_string(), "message": one.message})).collect()
}
