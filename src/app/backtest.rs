//! `streamgauge backtest`: evaluates rules over past data, and compares two rule sets.

use super::cli::{BacktestArgs, ExportArgs, Usage, instant, of_env};
use super::reporting::tell;
use super::stderr::{end_progress, progress};
use super::stdout::{put, say};
use super::{FAILED, FINE, check, export};
use crate::core::alert::Transition;
use crate::core::{Effects, Engine, Span, Timestamp};
use crate::driver::backtest::{self, AlertTotals, Comparison, Episode, KeptEpisode};
use crate::driver::file::input::Input;
use crate::driver::file::merge;
use crate::driver::replay::{self, Options, Outputs};
use crate::wire::printable::printable;
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Seek, Write};
use std::path::{Path, PathBuf};

/// Default length of the data before `--from` from which baselines learn.
const WARM: Span = Span::from_hours(24);

/// Number of alerts that are listed individually.
const LISTED: usize = 30;

/// The log, which each rule set reads from its beginning.
enum Data {
    Files(Vec<PathBuf>),
    Fetched(File),
}

impl Data {
    fn open(&self, sort: bool) -> Result<Input> {
        match self {
            Data::Files(files) => Ok(merge::open(files, sort)?),
            Data::Fetched(file) => {
                let mut file = file.try_clone().context(NO_ROOM)?;
                file.rewind().context(NO_ROOM)?;
                let size = file.metadata().context(NO_ROOM)?.len();
                Ok(merge::gather(Input::of_file(file, size), &[], sort)?)
            }
        }
    }
}

const NO_ROOM: &str = "cannot keep the log in a temporary file; is there room in the temp dir?";

/// The result of one rule set over the log.
struct Run {
    name: String,
    episodes: Vec<Episode>,
    told: AlertTotals,
    /// Whether the log was read to its end, without input errors.
    is_whole: bool,
}

pub(crate) fn run(args: &BacktestArgs) -> Result<u8> {
    let time = |text: &Option<String>| text.as_deref().map(instant).transpose();
    let (from, to) = (time(&args.from)?, time(&args.to)?);
    let data = match args.files.is_empty() {
        false => Data::Files(args.files.clone()),
        true => Data::Fetched(fetch(args, from)?),
    };
    if !args.compare.is_empty() && args.files.iter().any(|file| file == Path::new("-")) {
        let message = "standard input can be read once, and --compare reads the data twice; name a file";
        return Err(Usage(message.into()).into());
    }
    let runs: Result<Vec<Run>> = sets(args).iter().map(|set| one(set, &data, (from, to), args)).collect();
    let runs = runs?;
    let comparison = match runs.as_slice() {
        [old, new] => Some(backtest::compare(&old.episodes, &new.episodes)),
        _ => None,
    };
    if args.json {
        let told: BTreeMap<&str, &AlertTotals> =
            runs.iter().map(|run| (run.name.as_str(), &run.told)).collect();
        let newest = runs.last().map(|run| &run.episodes);
        let rest = json!({"sets": told, "comparison": comparison, "alerts": newest});
        say(rest)?;
    } else {
        let lines = lines(&runs, comparison.as_ref());
        put(lines.iter().map(|line| format!("{}\n", printable(line))).collect::<String>())?;
    }
    Ok(if runs.iter().all(|run| run.is_whole) { FINE } else { FAILED })
}

/// Returns the directories of the rule sets: one, or two that are compared.
fn sets(args: &BacktestArgs) -> Vec<PathBuf> {
    if !args.compare.is_empty() {
        return args.compare.clone();
    }
    let stated = args.pipelines.clone().or_else(|| of_env("STREAMGAUGE_PIPELINES").map(PathBuf::from));
    vec![stated.unwrap_or_else(|| "pipelines".into())]
}

/// Fetches the log of a service into a temporary file: the requested time range, and the data before it from
/// which baselines learn.
fn fetch(args: &BacktestArgs, from: Option<Timestamp>) -> Result<File> {
    let from_env = || of_env("NATS_URL").filter(|_| args.data_dir.is_none());
    let nats = args.nats.clone().or_else(from_env);
    if nats.is_none() && args.data_dir.is_none() {
        let message = "say over which data: files, --data-dir, or --nats";
        return Err(Usage(message.into()).into());
    }
    let file = tempfile::tempfile().context(NO_ROOM)?;
    let warm = args.warm.unwrap_or(WARM);
    let wanted = ExportArgs {
        skip_damaged: false,
        nats,
        data_dir: args.data_dir.clone(),
        from: from.map(|from| (from - warm).to_string()),
        to: args.to.clone(),
    };
    let mut out = BufWriter::new(&file);
    export::write(&wanted, &mut out)?;
    out.flush().context(NO_ROOM)?;
    drop(out);
    Ok(file)
}

fn one(
    set: &Path,
    data: &Data,
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    args: &BacktestArgs,
) -> Result<Run> {
    let mut engine = Engine::new(args.limits.limits()?);
    engine.load(check::load(set)?, &mut Effects::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = Options { threads, until: to, stop_at: to, ..Options::default() };
    let (mut alerts, mut shadows) = (Vec::new(), Vec::new());
    let is_shown = std::io::stderr().is_terminal() && !args.json;
    let name = set.display().to_string();
    let outputs = Outputs {
        alerts: Some(Box::new(&mut alerts)),
        // A backtest also reports what shadow rules would have published.
        shadows: Some(Box::new(&mut shadows)),
        progress: Some(Box::new(|now: &replay::Progress| {
            if is_shown {
                let share = now.share.map_or(0.0, |share| share * 100.0);
                progress(format_args!("{name}: {share:3.0} %, reached {}", now.reached));
            }
        })),
        ..Outputs::default()
    };
    let input = data.open(args.sort)?;
    tell(&input.remarks);
    let summary = replay::run_over(engine, input, &options, outputs)?;
    if is_shown {
        end_progress();
    }
    tell(&summary.input_errors);
    let is_whole = summary.input_errors.is_empty();
    let begun = from.or(summary.begun).unwrap_or(summary.engine.now());
    alerts.append(&mut shadows);
    let log: Result<Vec<Transition>, _> = alerts
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect();
    let episodes = backtest::episodes(&log?, begun);
    let told = backtest::told(&episodes, summary.engine.now() - begun);
    Ok(Run { name: set.display().to_string(), episodes, told, is_whole })
}

/// Formats a backtest as a table for the terminal.
fn lines(runs: &[Run], comparison: Option<&Comparison>) -> Vec<String> {
    let span = |ms: Option<i64>| ms.map_or("-".to_string(), |ms| Span::from_ms(ms).to_string());
    let mut lines = vec![format!(
        "{:<32} {:>7} {:>7} {:>9} {:>11} {:>12} {:>12}",
        "rules", "alerts", "told", "critical", "told a day", "pages a day", "detected in"
    )];
    for Run { name, told, .. } in runs {
        let median = span(told.detected_after_ms_median);
        lines.push(format!(
            "{name:<32} {:>7} {:>7} {:>9} {:>11.2} {:>12.2} {median:>12}",
            told.alerts, told.told, told.critical, told.told_a_day, told.pages_a_day
        ));
    }
    lines.push(String::new());
    match (comparison, runs) {
        (Some(comparison), _) => lines.extend(compared(comparison)),
        (None, [run]) => lines.extend(listed(' ', &run.episodes)),
        _ => {}
    }
    lines
}

fn compared(comparison: &Comparison) -> Vec<String> {
    let (gained, lost, kept) = (&comparison.gained, &comparison.lost, &comparison.kept);
    let sooner = kept.iter().filter(|kept| kept.later_ms < 0).count();
    let later = kept.iter().filter(|kept| kept.later_ms > 0).count();
    let mut lines = vec![format!(
        "{} gained, {} lost, {} in both ({sooner} sooner, {later} later)",
        gained.len(),
        lost.len(),
        kept.len()
    )];
    lines.extend(listed('+', gained));
    lines.extend(listed('-', lost));
    let differs = |kept: &&KeptEpisode| kept.later_ms != 0 || kept.severity_before != kept.episode.severity;
    for kept in kept.iter().filter(differs).take(LISTED) {
        lines.push(episode('~', &kept.episode));
        let (by, word) =
            (Span::from_ms(kept.later_ms.abs()), if kept.later_ms < 0 { "sooner" } else { "later" });
        lines.push(format!("      {by} {word}; it was {}", kept.severity_before.name()));
    }
    lines
}

/// Formats the first episodes, and the number of further ones.
fn listed(mark: char, episodes: &[Episode]) -> Vec<String> {
    let mut lines: Vec<String> = episodes.iter().take(LISTED).map(|one| episode(mark, one)).collect();
    if episodes.len() > LISTED {
        lines.push(format!("  and {} more; --json has all", episodes.len() - LISTED));
    }
    lines
}

fn episode(mark: char, episode: &Episode) -> String {
    let end =
        episode.ended_at.map_or("still firing".to_string(), |end| format!("for {}", end - episode.fired_at));
    let muted = if episode.is_told { "" } else { ", told nobody" };
    let Episode { fired_at, severity, rule, key, .. } = episode;
    format!("{mark} {fired_at} {} {rule} {key} {end}{muted}", severity.name())
}
