//! `streamgauge demo`: a release pipeline and a shop that degrade, stall and recover within a minute.
//!
//! The demo uses the real log, the shipped rules, real alerts and the web page. Only log time runs faster, so
//! that two hours pass in one minute.

use super::cli::DemoArgs;
use super::config::File;
use super::embedded::{self, EmbeddedParts};
use super::receivers::Receivers;
use super::service::{Files, HttpSettings};
use super::stdout::{say, say_coloured};
use super::{BadConfig, FINE};
use crate::adapters::clock::FastClock;
use crate::core::alert::Transition;
use crate::core::alert::transition::ChangeName;
use crate::core::vocab::limits::Limits;
use crate::core::{Span, Timestamp};
use crate::driver::command::{Command, Sender};
use crate::driver::ports::{Clock, Entry};
use crate::driver::receivers::ReceiverRegistry;
use crate::pipeline::document::Documents;
use crate::pipeline::yaml;
use crate::wire::event::Codec;
use crate::wire::printable::printable;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

/// Seconds of log time per second of wall-clock time.
const SPEED: u32 = 120;

/// The log time at which the demo begins.
const START: Timestamp = Timestamp::clamped(1_793_491_200_000); // 2026-11-01T00:00:00Z

/// The acts (phases) of the demo's story, in minutes of log time.
const SLOW_REQUESTS: std::ops::Range<i64> = 12..24;
const SLOW_TESTS: std::ops::Range<i64> = 66..84;
const STALL: std::ops::Range<i64> = 88..102;
const LENGTH_MINS: i64 = 120;

/// Time between two batches of events.
const STEP: Duration = Duration::from_millis(25);

pub(crate) fn run(args: &DemoArgs) -> Result<u8> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(play(args))
}

async fn play(args: &DemoArgs) -> Result<u8> {
    let data = tempfile::tempdir().context("cannot make a temporary data dir")?;
    let files = [
        ("release.yaml", include_str!("../../pipelines/release.yaml")),
        ("service.yaml", include_str!("../../pipelines/service.yaml")),
    ];
    let files = files.map(|(name, text)| (name.to_string(), text.to_string()));
    let clock = FastClock::new(START, SPEED);
    let is_colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let parts = EmbeddedParts {
        data_dir: data.path(),
        door: HttpSettings { listen: args.listen, access: Arc::default() },
        limits: Limits::default(),
        rules: Files { documents: Some(Documents::from(files)), ..Files::default() },
        clock,
        // A print error is ignored here: the demo ends when `feed` cannot print the next act.
        publish: Box::new(move |transition| say_coloured(told(transition, is_colour)).unwrap_or_default()),
        receivers: Some(receivers()?),
    };
    let service = embedded::start(parts).await?;
    say("streamgauge demo: two hours of a release pipeline and a shop in one minute")?;
    say(format_args!("page  http://{}/    (Ctrl-C ends it)\n", service.address))?;
    let feeder = feed(clock, service.workers[0].clone(), args.seconds);
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        result = feeder => result?,
    }
    say(
        "\nThat was the story: latency rose and fell, tests slowed down, the pipeline stalled and recovered.",
    )?;
    told_in_all(&service.registry())?;
    say("Next: `streamgauge run`, and the rules in pipelines/ as a start for your own.")?;
    service.drain(Duration::from_secs(5)).await?;
    Ok(FINE)
}

/// Returns the receivers: this terminal, with a separate message for each rule.
fn receivers() -> Result<Receivers, BadConfig> {
    let text = "
receivers: [{ name: terminal, log: { format: text }, title: '{{ title }}' }]
route: { receiver: terminal, group_by: [rule], group_wait: 30s, group_interval: 1m }
";
    let file: File = yaml::typed(text).map_err(|error| BadConfig(error.message))?;
    Receivers::read(file.receivers, file.route, &[], "http://127.0.0.1:8080")
}

/// Prints how many messages were delivered.
fn told_in_all(registry: &ReceiverRegistry) -> Result<()> {
    let arrived =
        registry.receivers().find(|post| &*post.name == "terminal").map_or(0, |post| post.delivered.get());
    say(format_args!(
        "{arrived} messages were delivered to the receiver `terminal`; yours may be a chat, a pager, a mail (README, Getting told)."
    ))
}

/// Sends each event of the story when the clock reaches its time.
async fn feed(clock: FastClock, worker: Sender, seconds: Option<u64>) -> Result<()> {
    let end = seconds.map(|seconds| START + Span::from_secs(seconds as i64 * i64::from(SPEED)));
    let mut story = Story::default();
    let mut act = "";
    let mut interval = tokio::time::interval(STEP);
    loop {
        interval.tick().await;
        let now = clock.now();
        if end.is_some_and(|end| now >= end) {
            return Ok(());
        }
        let next = act_at(now);
        if next != act {
            act = next;
            say(format_args!("{}  ── {act}", clock_text(now)))?;
        }
        let events = story.until(now);
        if events.is_empty() {
            continue;
        }
        let payload = Value::Array(events).to_string().into_bytes();
        let sender = worker.clone();
        let command = Command::Append(Entry::Events(Codec::Json, payload), None, Box::new(|_| {}));
        let sent = tokio::task::spawn_blocking(move || sender.send(command).is_ok()).await;
        if !matches!(sent, Ok(true)) {
            return Ok(());
        }
    }
}

fn minute(at: Timestamp) -> i64 {
    ((at - START).ms() / 60_000).rem_euclid(LENGTH_MINS)
}

fn act_at(now: Timestamp) -> &'static str {
    let minute = minute(now);
    if SLOW_REQUESTS.contains(&minute) {
        "requests to checkout become slow"
    } else if SLOW_TESTS.contains(&minute) {
        "tests take three times as long"
    } else if STALL.contains(&minute) {
        "the pipeline stalls: nothing happens, work is in flight"
    } else {
        "all is well"
    }
}

/// The generator of the demo's events: its position in seconds of log time, and the events of active runs.
#[derive(Debug, Default)]
struct Story {
    second: i64,
    runs: u64,
    /// Future events of active runs. The key is their time in ms since `START` and a sequence number.
    planned: std::collections::BTreeMap<(i64, u64), Value>,
    seed: u64,
    count: u64,
}

/// Seconds between the beginnings of two runs.
const RUN_EVERY_SECS: i64 = 40;

impl Story {
    /// Returns all events up to `now` that were not returned before.
    fn until(&mut self, now: Timestamp) -> Vec<Value> {
        let mut events = Vec::new();
        while START + Span::from_secs(self.second) < now {
            let at = START + Span::from_secs(self.second);
            let is_stalled = STALL.contains(&minute(at));
            self.requests(at, &mut events);
            if self.second % RUN_EVERY_SECS == 0 && !is_stalled {
                self.plan_run(self.second * 1_000);
            }
            while let Some(first) = self.planned.first_entry()
                && first.key().0 <= self.second * 1_000
            {
                let ((when, number), event) = first.remove_entry();
                // An event that is due during the stall is moved to the end of the stall.
                let resume = (self.second / 60 / LENGTH_MINS * LENGTH_MINS + STALL.end) * 60_000;
                if is_stalled {
                    self.planned.insert((when.max(resume), number), event);
                } else {
                    events.push(dated(event, START + Span::from_ms(when)));
                }
            }
            self.second += 1;
        }
        events
    }

    /// Adds two requests a second to each of two services.
    fn requests(&mut self, at: Timestamp, events: &mut Vec<Value>) {
        for source in ["checkout", "search"] {
            let is_slow = source == "checkout" && SLOW_REQUESTS.contains(&minute(at));
            for half in 0..2 {
                let base = if is_slow { 1_150.0 } else { 90.0 };
                let value = (base * (0.7 + 0.9 * self.random())).round();
                let time = (at + Span::from_ms(500 * half)).ms();
                events.push(json!({"type": "metric", "time": time, "source": source, "name": "latency_ms",
                    "unit": "ms", "value": value, "labels": {"host": "demo"}}));
                events.push(
                    json!({"type": "metric", "time": time, "source": source, "name": "requests", "value": 1}),
                );
            }
        }
    }

    /// Plans all events of one run that begins at `start` ms.
    fn plan_run(&mut self, start: i64) {
        self.runs += 1;
        let run = format!("r-{}", self.runs);
        let is_slow = SLOW_TESTS.contains(&minute(START + Span::from_ms(start)));
        let mut at = start;
        self.plan(at, json!({"type": "run", "run": run, "status": "started"}));
        for (stage, seconds) in
            [("code_analysis", 15.0), ("test_execution", 45.0), ("quality_gates", 5.0), ("deploy", 12.0)]
        {
            let factor = if is_slow && stage == "test_execution" { 3.0 } else { 1.0 };
            self.plan(at, json!({"type": "stage", "run": run, "stage": stage, "status": "queued"}));
            at += 1_000 + (2_000.0 * self.random()) as i64;
            self.plan(at, json!({"type": "stage", "run": run, "stage": stage, "status": "started"}));
            at += (1_000.0 * seconds * factor * (0.9 + 0.2 * self.random())) as i64;
            self.plan(at, json!({"type": "stage", "run": run, "stage": stage, "status": "succeeded"}));
            if stage == "quality_gates" {
                let status = if self.random() < 0.05 { "failed" } else { "passed" };
                self.plan(at, json!({"type": "gate", "run": run, "gate": "coverage", "status": status}));
            }
        }
        self.plan(at, json!({"type": "run", "run": run, "status": "succeeded"}));
    }

    fn plan(&mut self, at: i64, mut event: Value) {
        event["pipeline"] = json!("release");
        self.count += 1;
        self.planned.insert((at, self.count), event);
    }

    /// Returns a pseudo-random number in [0, 1) from a linear congruential generator with Knuth's constants,
    /// so the story is the same each time.
    fn random(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn dated(mut event: Value, at: Timestamp) -> Value {
    event["time"] = json!(at.ms());
    event
}

fn clock_text(at: Timestamp) -> String {
    at.to_string().get(11..19).unwrap_or("").to_string()
}

/// Formats a transition as one line for the terminal.
fn told(transition: &Transition, is_colour: bool) -> String {
    let (mark, colour) = match transition.change {
        ChangeName::Resolved => ("resolved", "32"),
        ChangeName::Stale => ("stale", "35"),
        _ => match transition.severity.name() {
            "critical" => ("CRITICAL", "31;1"),
            "warning" => ("WARNING", "33"),
            _ => ("info", "36"),
        },
    };
    // The summary describes an active alert. Once it has ended, the reason describes how it ended.
    let said = if transition.is_active() { &transition.summary } else { &transition.reason };
    let line = format!("{}  {mark:<9} {:<16} {said}", clock_text(transition.at), transition.rule);
    let line = printable(&line);
    if is_colour { format!("\x1b[{colour}m{line}\x1b[0m") } else { line.into_owned() }
}
