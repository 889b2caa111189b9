//! `alerts explain`: asks a running service, or runs the engine over a log up to the time in question.

use super::cli::{ExplainArgs, Format, Usage, instant};
use super::remote::{escaped, get};
use super::{FAILED, FINE, check};
use crate::core::key::Key;
use crate::core::limits::Limits;
use crate::core::{Effects, Engine};
use crate::driver::replay::{self, Options, Outputs};
use anyhow::Result;
use serde_json::Value;

pub fn run(args: &ExplainArgs) -> Result<u8> {
    let key = key(&args.key)?;
    let explained = match args.log.is_empty() {
        true => of_service(args, &key)?,
        false => match of_log(args, &key)? {
            Ok(explained) => explained,
            Err(message) => {
                eprintln!("{message}");
                return Ok(FAILED);
            }
        },
    };
    match args.output {
        Format::Json => println!("{explained}"),
        Format::Table => print(&explained),
    }
    Ok(FINE)
}

fn of_service(args: &ExplainArgs, key: &Key) -> Result<Value> {
    let labels: String =
        key.0.iter().map(|(name, value)| format!("&{}={}", escaped(name), escaped(value))).collect();
    let at = args.at.as_ref().map_or(String::new(), |at| format!("&at={}", escaped(at)));
    get(&args.service.url, &format!("/api/v1/explain?rule={}{labels}{at}", escaped(&args.rule)))
}

/// Runs the log up to the time, and explains there.
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
    let explained = summary.engine.explain(&args.rule, key);
    Ok(explained.map(|explained| serde_json::json!(explained)).map_err(|error| error.to_string()))
}

/// `source=checkout,host=h1`, or JSON; nothing for `by ()`.
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

fn print(explained: &Value) {
    let text = |name: &str| explained[name].as_str().unwrap_or("");
    println!(
        "{} {} at {}: {}",
        text("rule"),
        explained["key"],
        text("at"),
        text("verdict").replace('_', " ")
    );
    for line in explained["because"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        println!("  {line}");
    }
    if !text("expr").is_empty() {
        println!("expression  {}", text("expr"));
    }
    for level in explained["levels"].as_array().into_iter().flatten() {
        let is = if level["is_met"] == true { "met" } else { "not met" };
        let (severity, condition) = (level["severity"].as_str(), level["condition"].as_str());
        let (held, needs) = (level["met_for"].as_str(), level["needs"].as_str());
        let words = [severity, condition, Some(is), Some("for"), held, Some("of"), needs];
        println!("level       {}", words.map(Option::unwrap_or_default).join(" "));
    }
    for input in explained["inputs"].as_array().into_iter().flatten() {
        let value = match &input["unknown"] {
            Value::String(reason) => format!("unknown: {reason}"),
            _ => input["value"].to_string(),
        };
        let count =
            input["count"].as_u64().map_or(String::new(), |count| format!("  ({count} observations)"));
        println!("input       {} = {value}{count}", input["input"].as_str().unwrap_or(""));
    }
    for name in ["baseline", "window"] {
        let fields = explained[name].as_object().filter(|fields| !fields.is_empty());
        let parts = fields.map(|fields| fields.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>());
        if let Some(parts) = parts {
            println!("{name:<11} {}", parts.join(", "));
        }
    }
    if !text("hint").is_empty() {
        println!("hint        {}", text("hint"));
    }
}
