//! `log`: one JSON line for each transition, to standard output or a file.

use crate::core::notify::{Message, Why};
use crate::driver::notify::ports::{Channel, Failure};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Where lines go; no path: standard output.
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
}

impl Log {
    pub fn new(path: Option<PathBuf>) -> Log {
        Log { path }
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        match &self.path {
            Some(path) => OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes()),
            None => std::io::stdout().write_all(text.as_bytes()),
        }
    }
}

/// The alert as it stands in the stream; many in one as their number and names.
pub fn line(message: &Message) -> String {
    match (&message.alerts[..], message.why) {
        ([alert], why) if why != Why::Digest => {
            // Plain data always serialises.
            serde_json::to_string(alert).unwrap_or_default()
        }
        _ => digest(message).to_string(),
    }
}

/// Names of alerts in a digest.
const NAMED_MAX: usize = 100;

/// What a digest says to programs.
pub fn digest(message: &Message) -> serde_json::Value {
    let (firing, resolved) = message.counts();
    let ids: Vec<&str> = message.alerts.iter().take(NAMED_MAX).map(|alert| &*alert.id).collect();
    json!({"digest": {"id": message.id, "receiver": message.receiver, "firing": firing, "resolved": resolved,
        "title": message.title(), "alerts": ids}})
}

impl Channel for Log {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let written = self.write(&(line(message) + "\n"));
        written.map_err(|error| Failure::again(format!("cannot write: {error}")))
    }
}
