//! `streamgauge support-bundle`: collects the data for a problem report, without secrets, in one JSON document.
//!
//! Invariant: a value of the configuration whose key may hold a secret is replaced, unless it only names where the
//! secret is (`env:`, `file:`). A part that cannot be read is replaced by its error, because a bundle is made when
//! something is wrong.

use super::cli::SupportArgs;
use super::stdout::say;
use super::{FINE, VERSION, client, text};
use crate::pipeline::load;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Maximum number of log lines that are included, counted from the end of the log.
const LOG_LINES: usize = 1_000;

/// Maximum bytes that are read from the end of the log: 1,000 lines of 1 KiB. The log of a service may have
/// gigabytes.
const LOG_BYTES: u64 = 1 << 20;

/// Parts of keys whose values may be secrets. Addresses count, because those of webhooks contain a secret.
const SECRET: [&str; 8] = ["token", "password", "secret", "key", "bearer", "credential", "url", "nats"];

/// Environment variables whose names are included if they are set. Their values are not included.
const VARIABLES: [&str; 11] = [
    "NATS_URL",
    "REDIS_URL",
    "REDIS_CA",
    "NATS_CA",
    "RUST_LOG",
    "NO_COLOR",
    "STREAMGAUGE_CONFIG",
    "STREAMGAUGE_DATA_DIR",
    "STREAMGAUGE_LISTEN",
    "STREAMGAUGE_TOKEN",
    "STREAMGAUGE_URL",
];

pub(super) fn run(args: &SupportArgs) -> Result<u8> {
    let bundle = json!({
        "version": VERSION,
        "system": system(),
        "variables": VARIABLES.iter().filter(|name| std::env::var_os(name).is_some()).collect::<Vec<_>>(),
        "configuration": args.config.as_deref().map(configuration),
        "rules": args.pipelines.as_deref().map(rules),
        "service": service(&args.service.url),
        "log": args.log.as_deref().map(log),
    });
    let bundle = serde_json::to_string_pretty(&bundle)?;
    match &args.output {
        None => say(bundle)?,
        Some(path) => write(path, &bundle).with_context(|| format!("cannot write {}", path.display()))?,
    }
    Ok(FINE)
}

/// Writes a new file that only its owner can read.
fn write(path: &Path, bundle: &str) -> Result<()> {
    let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("there is such a file already; delete it, or name another one with -o")
        }
        opened => opened?,
    };
    Ok(writeln!(file, "{bundle}")?)
}

fn system() -> Value {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({"os": std::env::consts::OS, "arch": std::env::consts::ARCH, "kernel": release.trim(), "cpus": cpus})
}

fn failed(error: &anyhow::Error) -> Value {
    json!({"error": format!("{error:#}")})
}

fn configuration(path: &Path) -> Value {
    let read = text::read(path).and_then(|text| Ok(serde_saphyr::from_str::<Value>(&text)?));
    match read {
        Ok(value) => without_secrets(value),
        // The reader's error may quote a line with a secret.
        Err(_) => json!({"error": format!("{} cannot be read as YAML", path.display())}),
    }
}

/// Replaces the values of keys that may hold secrets.
fn without_secrets(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(fields.into_iter().map(field).collect::<Map<_, _>>()),
        Value::Array(items) => Value::Array(items.into_iter().map(without_secrets).collect()),
        other => other,
    }
}

fn field((key, value): (String, Value)) -> (String, Value) {
    let is_place = |text: &str| text.starts_with("env:") || text.starts_with("file:");
    let hidden = |value: Value| match value {
        Value::String(text) if is_place(&text) => Value::String(text),
        Value::Object(_) => without_secrets(value),
        Value::Array(items) if items.iter().all(Value::is_object) => without_secrets(Value::Array(items)),
        Value::Null => Value::Null,
        _ => Value::String("(left out)".into()),
    };
    let lower = key.to_ascii_lowercase();
    let is_secret = SECRET.iter().any(|part| lower.contains(part));
    let value = if is_secret { hidden(value) } else { without_secrets(value) };
    (key, value)
}

fn rules(path: &Path) -> Value {
    let loaded = load::examine(path);
    let rules = loaded.rules.as_ref().map(|set| set.rules.len());
    json!({"rules": rules, "diagnostics": loaded.diagnostics})
}

fn service(url: &str) -> Value {
    let ask = |path: &str| match client::text(url, path) {
        Ok((status, body)) => json!({"status": status, "body": body}),
        Err(error) => failed(&error),
    };
    json!({"readyz": ask("/readyz"), "metrics": ask("/metrics"), "receivers": ask("/api/v1/receivers")})
}

fn log(path: &Path) -> Value {
    match end_of(path).with_context(|| format!("cannot read {}", path.display())) {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            json!(lines[lines.len().saturating_sub(LOG_LINES)..])
        }
        Err(error) => failed(&error),
    }
}

/// Returns the last [`LOG_BYTES`] of a file, from the first line that begins there.
fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    Ok(match text.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.into(),
        _ => text.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_large_log_is_included() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let lines: String = (0..200_000).map(|n| format!("line {n} of the log\n")).collect();
        std::fs::write(file.path(), lines).expect("writable");
        let found = log(file.path());
        let found = found.as_array().expect("lines");
        assert_eq!((found.len(), &found[999]), (LOG_LINES, &json!("line 199999 of the log")));
        std::fs::write(file.path(), "one\ntwo\n").expect("writable");
        assert_eq!(log(file.path()), json!(["one", "two"]));
        assert!(log(Path::new("/nowhere"))["error"].is_string());
    }

    #[test]
    fn no_secret_is_in_a_bundle() {
        let config = json!({
            "listen": "127.0.0.1:8080", "nats": "nats://u:hidden1@broker",
            "tokens": [{"name": "wall", "role": "view", "token": "hidden2"}, {"name": "x", "token": "env:TOKEN"}],
            "receivers": [{"name": "ops", "slack": {"url": "https://hooks/hidden3"}},
                {"name": "hook", "webhook": {"secrets": ["hidden4"], "bearer": "file:/run/secret"}}],
        });
        let text = without_secrets(config).to_string();
        assert!(!text.contains("hidden"), "{text}");
        for kept in ["127.0.0.1:8080", "env:TOKEN", "file:/run/secret", "wall", "ops", "\"role\":\"view\""] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
    }
}
