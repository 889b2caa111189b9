//! `streamgauge backtest`: rules over past data, and two rule sets compared.

use super::cli::{BacktestArgs, ExportArgs, Usage, instant};
use super::{FINE, check, export};
use crate::core::alert::Transition;
use crate::core::limits::Limits;
use crate::core::{Effects, Engine, Span, Timestamp};
use crate::driver::backtest::{self, Comparison, Episode, Told};
use crate::driver::replay::{self, Options, Outputs};
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// What is learned of before `--from`, unless another time is stated.
const WARM: Span = Span::from_hours(24);

/// Alerts that are listed one by one.
const LISTED: usize = 30;

/// One rule set over the log.
struct Run {
    name: String,
    episodes: Vec<Episode>,
    told: Told,
}

pub fn run(args: &BacktestArgs) -> Result<u8> {
    let time = |text: &Option<String>| text.as_deref().map(instant).transpose();
    let (from, to) = (time(&args.from)?, time(&args.to)?);
    let fetched;
    let files = match args.files.is_empty() {
        false => args.files.clone(),
        true => {
            fetched = fetch(args, from)?;
            vec![fetched.path().to_path_buf()]
        }
    };
    let default = PathBuf::from("pipelines");
    let sets = match args.compare.as_slice() {
        [] => vec![args.pipelines.clone().unwrap_or(default)],
        two => two.to_vec(),
    };
    let runs: Result<Vec<Run>> = sets.iter().map(|set| one(set, &files, (from, to), args)).collect();
    let runs = runs?;
    let comparison = match runs.as_slice() {
        [old, new] => Some(backtest::compare(&old.episodes, &new.episodes)),
        _ => None,
    };
    if args.json {
        let told: BTreeMap<&str, &Told> = runs.iter().map(|run| (run.name.as_str(), &run.told)).collect();
        let newest = runs.last().map(|run| &run.episodes);
        let rest = json!({"sets": told, "comparison": comparison, "alerts": newest});
        println!("{rest}");
    } else {
        print(&runs, comparison.as_ref());
    }
    Ok(FINE)
}

/// The log of a service, of the time in question and what is learned of before, in a file.
fn fetch(args: &BacktestArgs, from: Option<Timestamp>) -> Result<tempfile::NamedTempFile> {
    if args.nats.is_none() && args.data_dir.is_none() {
        let message = "say over which data: files, --data-dir, or --nats";
        return Err(Usage(message.into()).into());
    }
    let file = tempfile::NamedTempFile::with_suffix(".ndjson").context("cannot make a temporary file")?;
    let warm = args.warm.unwrap_or(WARM);
    let wanted = ExportArgs {
        nats: args.nats.clone(),
        data_dir: args.data_dir.clone(),
        from: from.map(|from| (from - warm).to_string()),
        to: args.to.clone(),
    };
    let mut out = BufWriter::new(file.as_file());
    export::write(&wanted, &mut out)?;
    out.flush()?;
    drop(out);
    Ok(file)
}

fn one(
    set: &Path,
    files: &[PathBuf],
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    args: &BacktestArgs,
) -> Result<Run> {
    let mut engine = Engine::new(args.limits.over(Limits::default())?);
    engine.load(check::load(set)?, &mut Effects::default());
    let options = Options {
        files: files.to_vec(),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        sort: args.sort,
        until: to,
        stop_at: to,
        log_rules: false,
    };
    let (mut alerts, mut shadows) = (Vec::new(), Vec::new());
    let is_shown = std::io::stderr().is_terminal() && !args.json;
    let name = set.display().to_string();
    let outputs = Outputs {
        alerts: Some(Box::new(&mut alerts)),
        // What a shadow would have told is what one wants to know here.
        shadows: Some(Box::new(&mut shadows)),
        progress: Some(Box::new(|progress: &replay::Progress| {
            if is_shown {
                let share = progress.share.map_or(0.0, |share| share * 100.0);
                eprint!("\r{name}: {share:3.0} %, reached {}   ", progress.reached);
            }
        })),
        ..Outputs::default()
    };
    let summary = replay::run(engine, &options, outputs)?;
    if is_shown {
        eprintln!();
    }
    let begun = from.or(summary.begun).unwrap_or(summary.engine.now());
    alerts.append(&mut shadows);
    let log: Result<Vec<Transition>, _> = alerts
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect();
    let episodes = backtest::episodes(&log?, begun);
    let told = backtest::told(&episodes, summary.engine.now() - begun);
    Ok(Run { name: set.display().to_string(), episodes, told })
}

fn print(runs: &[Run], comparison: Option<&Comparison>) {
    let span = |ms: Option<i64>| ms.map_or("-".to_string(), |ms| Span::from_ms(ms).to_string());
    println!(
        "{:<32} {:>7} {:>7} {:>9} {:>11} {:>12} {:>12}",
        "rules", "alerts", "told", "critical", "told a day", "pages a day", "detected in"
    );
    for Run { name, told, .. } in runs {
        let median = span(told.detected_after_ms_median);
        println!(
            "{name:<32} {:>7} {:>7} {:>9} {:>11.2} {:>12.2} {median:>12}",
            told.alerts, told.told, told.critical, told.told_a_day, told.pages_a_day
        );
    }
    match (comparison, runs) {
        (Some(comparison), _) => print_comparison(comparison),
        (None, [run]) => {
            println!();
            run.episodes.iter().take(LISTED).for_each(|episode| print_episode(' ', episode));
            more(run.episodes.len());
        }
        _ => {}
    }
}

fn print_comparison(comparison: &Comparison) {
    let (gained, lost, kept) = (&comparison.gained, &comparison.lost, &comparison.kept);
    let sooner = kept.iter().filter(|kept| kept.later_ms < 0).count();
    let later = kept.iter().filter(|kept| kept.later_ms > 0).count();
    println!(
        "\n{} gained, {} lost, {} in both ({sooner} sooner, {later} later)",
        gained.len(),
        lost.len(),
        kept.len()
    );
    gained.iter().take(LISTED).for_each(|episode| print_episode('+', episode));
    more(gained.len());
    lost.iter().take(LISTED).for_each(|episode| print_episode('-', episode));
    more(lost.len());
    for kept in kept
        .iter()
        .filter(|kept| kept.later_ms != 0 || kept.severity_before != kept.episode.severity)
        .take(LISTED)
    {
        print_episode('~', &kept.episode);
        let (by, word) =
            (Span::from_ms(kept.later_ms.abs()), if kept.later_ms < 0 { "sooner" } else { "later" });
        println!("      {by} {word}; it was {}", kept.severity_before.name());
    }
}

fn print_episode(mark: char, episode: &Episode) {
    let end =
        episode.ended_at.map_or("still firing".to_string(), |end| format!("for {}", end - episode.fired_at));
    let muted = if episode.is_told { "" } else { ", told nobody" };
    println!(
        "{mark} {} {} {} {} {end}{muted}",
        episode.fired_at,
        episode.severity.name(),
        episode.rule,
        episode.key
    );
}

fn more(all: usize) {
    if all > LISTED {
        println!("  and {} more; --json has all", all - LISTED);
    }
}
