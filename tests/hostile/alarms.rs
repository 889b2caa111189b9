//! Alerts of the honest client: one a second is raised, and each is followed until it is resolved.

use crate::bodies::now_ms;
use crate::honest::Shared;
use crate::limits::{ALERT_WITHIN, HONEST_WITHIN, RESOLVED_WITHIN};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two raised alerts, and between two events that let them end.
const EVERY: Duration = Duration::from_secs(1);
const COOLED_EVERY: Duration = Duration::from_millis(500);

/// The part of a pane of ten seconds in which a high value is sent. It must be evaluated before the pane
/// ends, which may take [`HONEST_WITHIN`] and a grid point.
const EARLY_MS: std::ops::Range<u64> = 200..6_500;

struct Alarm {
    source: String,
    posted: Instant,
    told: Option<Instant>,
}

pub struct Alarms {
    /// Alerts that are not resolved yet.
    open: Vec<Alarm>,
    number: u64,
    raised: Instant,
    cooled: Instant,
    /// Bytes of the alert file that were read.
    read: u64,
}

impl Alarms {
    pub fn new() -> Alarms {
        let now = Instant::now();
        Alarms { open: Vec::new(), number: 0, raised: now, cooled: now, read: 0 }
    }

    /// Performs the actions that are due.
    pub fn turn(&mut self, honest: &Shared) {
        if self.raised.elapsed() >= EVERY && EARLY_MS.contains(&(now_ms() % 10_000)) {
            self.raise(honest);
        }
        if self.cooled.elapsed() >= COOLED_EVERY {
            self.cool(honest);
        }
        for line in self.news(&honest.alerts) {
            self.hear(&line, honest);
        }
        self.give_up(honest);
    }

    fn raise(&mut self, honest: &Shared) {
        self.raised = Instant::now();
        self.number += 1;
        let source = format!("hot-{}", self.number);
        // An event that was acknowledged too late may belong to an ended pane; its delay is already
        // recorded.
        if honest.post(&event(&source, 90)).is_some_and(|took| took < HONEST_WITHIN) {
            self.open.push(Alarm { source, posted: Instant::now(), told: None });
        }
    }

    fn cool(&mut self, honest: &Shared) {
        self.cooled = Instant::now();
        let told = self.open.iter().filter(|alarm| alarm.told.is_some());
        let events: Vec<String> = told.map(|alarm| event(&alarm.source, 1)).collect();
        if !events.is_empty() {
            honest.post(&format!("[{}]", events.join(",")));
        }
    }

    /// Returns the new complete lines of the file.
    fn news(&mut self, alerts: &Path) -> Vec<String> {
        let mut text = Vec::new();
        let read = File::open(alerts).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut text)
        });
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if read.is_err() || whole == 0 {
            return Vec::new();
        }
        self.read += whole as u64;
        String::from_utf8_lossy(&text[..whole]).lines().map(str::to_string).collect()
    }

    fn hear(&mut self, line: &str, honest: &Shared) {
        let alert: Value = serde_json::from_str(line).unwrap_or_default();
        let source = alert["key"]["source"].as_str().unwrap_or("");
        let Some(at) = self.open.iter().position(|alarm| alarm.source == source) else { return };
        let alarm = &mut self.open[at];
        match alert["state"].as_str() {
            Some("firing") if alarm.told.is_none() => {
                alarm.told = Some(Instant::now());
                honest.note_told(alarm.posted.elapsed());
            }
            Some("resolved") => {
                self.open.swap_remove(at);
                honest.note_resolved();
            }
            _ => {}
        }
    }

    /// Reports each overdue alert once.
    fn give_up(&mut self, honest: &Shared) {
        self.open.retain(|alarm| {
            let (since, within, what) = match alarm.told {
                None => (alarm.posted, ALERT_WITHIN, "told"),
                Some(told) => (told, RESOLVED_WITHIN, "resolved"),
            };
            let is_overdue = since.elapsed() > within;
            if is_overdue {
                honest.note_wrong(format!("the alert of {} is not {what} within {within:?}", alarm.source));
            }
            !is_overdue
        });
    }
}

fn event(source: &str, value: u32) -> String {
    let time = now_ms();
    format!(r#"{{"type":"metric","time":{time},"source":"{source}","name":"temp","value":{value}}}"#)
}
