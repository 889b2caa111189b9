//! `/metrics` in the Prometheus text format, `/readyz`.

use super::{Failure, Shared};
use crate::core::Engine;
use crate::core::counters::Counters;
use crate::driver::ports::Store;
use crate::driver::tally::Tally;
use crate::driver::worker::chain;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub async fn ready<S: Store + Send + Sync + 'static>(
    State(shared): State<Arc<Shared<S>>>,
) -> Result<&'static str, Failure> {
    if !shared.is_ready.load(Ordering::Relaxed) {
        return Err(Failure::unavailable("the process is stopping"));
    }
    let owned = shared.ask_each(|_| ()).await.into_iter().flatten().count();
    for partition in &shared.partitions {
        let checkpoint = partition.store.applied();
        checkpoint.map_err(|error| Failure::unavailable(chain(&error)))?;
    }
    let standing_by = shared.tally.standing_by.get() as usize;
    if owned == 0 && standing_by < shared.partitions.len() {
        return Err(Failure::unavailable("the broker is not reached yet, or the worker has stopped"));
    }
    Ok("ready\n")
}

pub async fn metrics<S: Store + Send + Sync + 'static>(
    State(shared): State<Arc<Shared<S>>>,
) -> Result<Response, Failure> {
    let door = shared.refused_at_door.load(Ordering::Relaxed);
    let mut numbers = Numbers::default();
    for of_one in shared.ask_each(|engine| Numbers::of(engine)).await.into_iter().flatten() {
        numbers.add(&of_one);
    }
    let text = render(&numbers, &shared.tally, door);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// What the engines of this process have counted.
#[derive(Debug, Default)]
struct Numbers {
    counters: Counters,
    runs_evicted: u64,
    series: u64,
    rules: u64,
    partitions: u64,
}

impl Numbers {
    fn of(engine: &Engine) -> Numbers {
        Numbers {
            counters: engine.counters().clone(),
            runs_evicted: engine.runs().evicted(),
            series: engine.series().len() as u64,
            rules: engine.rules().rules.len() as u64,
            partitions: 1,
        }
    }

    fn add(&mut self, other: &Numbers) {
        self.counters.add(&other.counters);
        self.runs_evicted += other.runs_evicted;
        self.series += other.series;
        self.rules = self.rules.max(other.rules);
        self.partitions += other.partitions;
    }
}

/// All counters and gauges.
fn render(numbers: &Numbers, tally: &Tally, door: u64) -> String {
    let counters = &numbers.counters;
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP streamgauge_{name} {help}\n# TYPE streamgauge_{name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "streamgauge_{name}{labels} {value}");
        }
    };
    let one = |value: u64| vec![(String::new(), value)];
    family("events_received_total", "counter", "Values that came in.", &one(counters.received + door));
    family("events_recorded_total", "counter", "Values recorded on time.", &one(counters.recorded));
    family("events_late_total", "counter", "Values that corrected sealed windows.", &one(counters.late));
    family("events_duplicate_total", "counter", "Values seen before.", &one(counters.duplicate));
    family("events_dropped_total", "counter", "Late values let go by policy.", &one(counters.dropped));
    let refused: Vec<_> = counters
        .refused()
        .map(|(reason, count)| {
            let is_door = reason == crate::core::counters::Refusal::BadEvent;
            (format!("{{reason=\"{}\"}}", reason.name()), count + if is_door { door } else { 0 })
        })
        .collect();
    family("events_refused_total", "counter", "Values refused, by reason.", &refused);
    family(
        "values_saturated_total",
        "counter",
        "Values beyond the histogram's range.",
        &one(counters.overflow),
    );
    family(
        "derived_dropped_total",
        "counter",
        "Derived values too late for their windows.",
        &one(counters.derived_dropped),
    );
    family(
        "runs_abandoned_total",
        "counter",
        "Runs forgotten while in flight.",
        &one(counters.runs_abandoned),
    );
    family("runs_evicted_total", "counter", "Finished runs forgotten early.", &one(numbers.runs_evicted));
    family(
        "series_forgotten_total",
        "counter",
        "Series not heard of for too long.",
        &one(counters.series_forgotten),
    );
    family(
        "log_interruptions_total",
        "counter",
        "Gaps in which nobody wrote the log.",
        &one(counters.interruptions),
    );
    family("log_gaps_total", "counter", "Holes in the log.", &one(counters.gaps));
    family("log_records_lost_total", "counter", "Records in those holes.", &one(counters.records_lost));
    family("rule_evaluations_total", "counter", "Rule and key pairs evaluated.", &one(counters.evaluations));
    family("alert_transitions_total", "counter", "Transitions of alerts.", &one(counters.transitions));
    family(
        "alerts_capped_total",
        "counter",
        "Alerts not opened because of the cap.",
        &one(counters.alerts_capped),
    );
    family("series", "gauge", "Series alive.", &one(numbers.series));
    family("rules", "gauge", "Rules in force.", &one(numbers.rules));
    family("partitions_owned", "gauge", "Partitions that this process owns.", &one(numbers.partitions));
    for (name, help, value) in tally.all() {
        family(name, "counter", help, &one(value));
    }
    out
}
