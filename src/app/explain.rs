//! `alerts explain`: asks a running service, or runs the engine over a log up to the requested time.

use super::cli::{ExplainArgs, Format, Usage, instant};
use super::client::{escaped, get};
use super::reporting::tell;
use super::stderr::note;
use super::stdout::{put, say};
use super::{FAILED, FINE, check};
use crate::core::vocab::key::Key;
use crate::core::vocab::limits::Limits;
use crate::core::{Effects, Engine, Inspect};
use crate::driver::replay::{self, Options, Outputs};
use crate::wire::printable::printable;
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write;

pub(crate) fn run(args: &ExplainArgs) -> Result<u8> {
    let key = key(&args.key)?;
    let explained = match args.log.is_empty() {
        true => of_service(args, &key)?,
        false => match of_log(args, &key)? {
            Ok(explained) => explained,
            Err(message) => {
                note(message);
                return Ok(FAILED);
            }
        },
    };
    match args.output {
        Format::Json => say(explained)?,
        Format::Table => put(text(&explained))?,
    }
    Ok(FINE)
}

fn of_service(args: &ExplainArgs, key: &Key) -> Result<Value> {
    let labels: String =
        key.0.iter().map(|(name, value)| format!("&{}={}", escaped(name), escaped(value))).collect();
    let at = args.at.as_ref().map_or(String::new(), |at| format!("&at={}", escaped(at)));
    get(&args.service.url, &format!("/api/v1/explain?rule={}{labels}{at}", escaped(&args.rule)))
}

/// Runs the engine over the log up to the requested time, and explains the rule there.
fn of_log(args: &ExplainArgs, key: &Key) -> Result<Result<Value, String>> {
    let mut engine = Engine::new(Limits::default());
    if let Some(dir) = &args.pipelines {
        engine.load(check::load(dir)?, &mut Effects::default());
    }
    let at = args.at.as_deref().map(instant).transpose()?;
    let log_rules = args.pipelines.is_none();
    let options =
        Options { files: args.log.clone(), threads: 1, sort: false, until: at, stop_at: at, log_rules };
    let mut summary = replay::run(engine, &options, Outputs::default())?;
    tell(&summary.input_errors);
    let explained = Inspect::new(&mut summary.engine).explain(&args.rule, key);
    Ok(explained.map(|explained| serde_json::json!(explained)).map_err(|error| error.to_string()))
}

/// Parses a key: `source=checkout,host=h1`, or JSON. An empty text is the key of `by ()`.
fn key(text: &str) -> Result<Key> {
    if text.starts_with('{') {
        let parsed = serde_json::from_str(text);
        return parsed.map_err(|error| Usage(format!("the key is no JSON object: {error}")).into());
    }
    let pair = |part: &str| match part.split_once('=') {
        Some((name, value)) => Ok((name.trim().into(), value.trim().trim_matches('"').into())),
        None => Err(Usage(format!("`{part}` is no label; a key is written as source=checkout,host=h1"))),
    };
    let pairs: Result<Vec<_>, Usage> = text.split(',').filter(|part| !part.is_empty()).map(pair).collect();
    Ok(Key::new(pairs?))
}

/// Formats an explanation for people. Labels and texts are untrusted, so control characters are escaped.
fn text(explained: &Value) -> String {
    let mut told = String::new();
    for line in lines(explained) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(told, "{}", printable(&line));
    }
    told
}

fn lines(explained: &Value) -> Vec<String> {
    let text = |name: &str| explained[name].as_str().unwrap_or("");
    let verdict = text("verdict").replace('_', " ");
    let mut lines = vec![format!("{} {} at {}: {verdict}", text("rule"), explained["key"], text("at"))];
    let because = explained["because"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.extend(because.map(|line| format!("  {line}")));
    if !text("expr").is_empty() {
        lines.push(format!("expression  {}", text("expr")));
    }
    lines.extend(explained["levels"].as_array().into_iter().flatten().map(level));
    lines.extend(explained["inputs"].as_array().into_iter().flatten().map(input));
    for name in ["baseline", "window"] {
        let fields = explained[name].as_object().filter(|fields| !fields.is_empty());
        let parts = fields.map(|fields| fields.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>());
        lines.extend(parts.map(|parts| format!("{name:<11} {}", parts.join(", "))));
    }
    if !text("hint").is_empty() {
        lines.push(format!("hint        {}", text("hint")));
    }
    lines
}

fn level(level: &Value) -> String {
    let is = if level["is_met"] == true { "met" } else { "not met" };
    let (severity, condition) = (level["severity"].as_str(), level["condition"].as_str());
    let (held, needs) = (level["met_for"].as_str(), level["needs"].as_str());
    let words = [severity, condition, Some(is), Some("for"), held, Some("of"), needs];
    format!("level       {}", words.map(Option::unwrap_or_default).join(" "))
}

fn input(input: &Value) -> String {
    let value = match &input["unknown"] {
        Value::String(reason) => format!("unknown: {reason}"),
        _ => input["value"].to_string(),
    };
    let count = input["count"].as_u64().map_or(String::new(), |count| format!("  ({count} observations)"));
    format!("input       {} = {value}{count}", input["input"].as_str().unwrap_or(""))
}
