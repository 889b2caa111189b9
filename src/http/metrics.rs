//! `/metrics` in the Prometheus text format, and the probes `/healthz` and `/readyz`.

use super::params::{Empty, Params};
use super::{Failure, RefusedAtDoor, Shared, failed};
use crate::core::vocab::counters::Counters;
use crate::core::{Engine, Inspect};
use crate::driver::metrics::{Durations, LINES_DROPPED, OwnerMetrics};
use crate::driver::ports::Views;
use crate::driver::receivers::ReceiverRegistry;
use crate::driver::receivers::metrics::ReceiverMetrics;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Reports that the process is alive.
pub(crate) async fn alive(Params(Empty {}): Params<Empty>) -> &'static str {
    "ok\n"
}

pub(crate) async fn ready<S: Views + Send + Sync + 'static>(
    State(shared): State<Arc<Shared<S>>>,
    Params(Empty {}): Params<Empty>,
) -> Result<String, Failure> {
    if !shared.is_ready.load(Ordering::Relaxed) {
        return Err(Failure::unavailable("the process is stopping"));
    }
    if shared.is_something_away() {
        return Err(shared.unavailable(""));
    }
    check_clock(&shared)?;
    let has_rules = |engine: &mut Inspect<'_>| !engine.rules().files.is_empty();
    let stores = shared.clone();
    // This read does not queue with the other reads: a supervisor's probe must not wait for users' requests.
    let read = tokio::task::spawn_blocking(move || {
        let applied = stores.partitions.iter().map(|partition| partition.store.applied().map_err(failed));
        applied.collect::<Result<Vec<u64>, Failure>>()
    });
    let both = futures_util::future::join(shared.ask_each(has_rules), read);
    let found = tokio::time::timeout(READY_WITHIN, both).await;
    // This check is repeated, because an outage may have begun during the wait.
    if shared.is_something_away() {
        return Err(shared.unavailable(""));
    }
    let busy = "the worker does not answer: it is busy, or waits for a server";
    let (owned, applied) = found.map_err(|_| Failure::unavailable(busy))?;
    let applied = applied.map_err(|_| Failure::unavailable("the process is stopping"))??;
    let is_nothing_wanted = shared.rules_api.book().documents.is_empty();
    let mut is_judged = shared.rules_api.is_read();
    for (applied, owned) in applied.into_iter().zip(&owned) {
        // If another process owns a partition, a checkpoint in its store shows that the rules are in force: an owner
        // appends the rules to the log before it writes the first checkpoint.
        is_judged &= is_nothing_wanted || owned.unwrap_or(applied > 0);
    }
    let standing_by = shared.owner_metrics.standing_by.get() as usize;
    if owned.iter().all(Option::is_none) && standing_by < shared.partitions.len() {
        return Err(Failure::unavailable("the broker is not reached yet, or the worker has stopped"));
    }
    // Until the rules are in the log, a new record would be judged by no rule.
    if !is_judged {
        return Err(Failure::unavailable("the rules are not in force yet"));
    }
    let remarks = shared.rules_api.remarks().into_iter().chain(shared.owner_metrics.remarks());
    let remarks = remarks.map(|remark| format!("{remark}\n"));
    Ok(format!("ready\n{}", remarks.collect::<String>()))
}

/// Timeout for the answer of a worker; probes usually give up after one second.
const READY_WITHIN: Duration = Duration::from_millis(800);

/// Fails if the log's clock has jumped or is ahead of the local clock, because events are then judged by a
/// wrong time.
fn check_clock<S: Views + Send + Sync + 'static>(shared: &Shared<S>) -> Result<(), Failure> {
    let now = (shared.now)();
    if let Some(to) = shared.owner_metrics.jumped_to() {
        let message = format!(
            "the log's clock has jumped to {to}; new records wait for up to {} until the jump is confirmed",
            crate::core::log_clock::LASTS
        );
        return Err(Failure::unavailable(message));
    }
    let reached = shared.owner_metrics.log_time();
    if reached > now + shared.limits.max_skew {
        let message = format!(
            "the log's clock is at {reached}, which is {} ahead of this machine's: current events are too \
             late until then; set the clocks right, or, if this machine's clock is right, begin a new log, \
             because a wrong clock stamped this one",
            reached - now
        );
        return Err(Failure::unavailable(message));
    }
    Ok(())
}

pub(crate) async fn metrics<S: Views + Send + Sync + 'static>(
    State(shared): State<Arc<Shared<S>>>,
    Params(Empty {}): Params<Empty>,
) -> Result<Response, Failure> {
    let door = &shared.refused_at_door;
    let mut numbers = Numbers::default();
    let asked = shared.ask_each(|engine| Numbers::of(engine));
    // If the engines do not answer in time, the metrics that need no engine are still reported.
    let answered = tokio::time::timeout(READY_WITHIN, asked).await.unwrap_or_default();
    answered.into_iter().flatten().for_each(|of_one| numbers.add(&of_one));
    let mut text = render(&numbers, &shared.owner_metrics, door);
    connections(&mut text, &shared);
    receivers(&mut text, &shared.registry);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Counters and gauges of the engines in this process.
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
            partitions: u64::from(!engine.limits().partition.is_aggregate()),
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

/// Renders all counters and gauges of the engines and the worker.
fn render(numbers: &Numbers, owner_metrics: &OwnerMetrics, door: &RefusedAtDoor) -> String {
    let counters = &numbers.counters;
    let mut out = String::new();
    for (name, help, value) in counted(numbers, door.total()) {
        family(&mut out, name, "counter", help, &[(String::new(), value)]);
    }
    let refused: Vec<_> = counters
        .refused()
        .map(|(reason, count)| (format!("{{reason=\"{}\"}}", reason.name()), count + door.of(reason)))
        .collect();
    family(&mut out, "events_refused_total", "counter", "Values refused, by reason.", &refused);
    let gauges = [
        ("series", "Series alive.", numbers.series),
        ("rules", "Rules in force.", numbers.rules),
        ("partitions_owned", "Partitions that this process owns.", numbers.partitions),
        ("log_lag_ms", "Age of the newest applied record while others wait.", owner_metrics.lag_ms.get()),
    ];
    for (name, help, value) in gauges {
        family(&mut out, name, "gauge", help, &[(String::new(), value)]);
    }
    for (name, help, value) in owner_metrics.all() {
        family(&mut out, name, "counter", help, &[(String::new(), value)]);
    }
    histogram(
        &mut out,
        "commit_seconds",
        "Time that commits to the store took.",
        &[("", &owner_metrics.commit_times)],
    );
    out
}

/// Adds the metrics of connections, idempotency keys and dropped log lines.
fn connections<S>(out: &mut String, shared: &Shared<S>) {
    let counts = &shared.connections.counts;
    let gauge = shared.connections.open_count() as u64;
    family(out, "http_connections", "gauge", "Connections open.", &[(String::new(), gauge)]);
    let rows = [
        ("http_connections_total", "Connections accepted.", counts.accepted.get()),
        (
            "http_connections_evicted_total",
            "Connections closed for others, as they stood still.",
            counts.evicted.get(),
        ),
        (
            "http_connections_refused_total",
            "Connections closed as all others were at work.",
            counts.refused.get(),
        ),
        ("idempotency_keys_evicted_total", "Idempotency keys forgotten early.", shared.keys.evicted()),
        (
            "log_lines_dropped_total",
            "Lines of the log that nobody read in time.",
            LINES_DROPPED.get().map_or(0, |dropped| dropped()),
        ),
    ];
    for (name, help, value) in rows {
        family(out, name, "counter", help, &[(String::new(), value)]);
    }
}

/// Adds the metrics of each receiver.
fn receivers(out: &mut String, registry: &ReceiverRegistry) {
    let all: Vec<_> =
        registry.receivers().map(|post| (format!("receiver=\"{}\"", post.name), post.all(), post)).collect();
    let Some((_, first, _)) = all.first() else { return };
    for (at, (name, kind, help, _)) in first.iter().enumerate() {
        let rows: Vec<_> =
            all.iter().map(|(label, counted, _)| (format!("{{{label}}}"), counted[at].3)).collect();
        family(out, name, kind, help, &rows);
    }
    let times = |of: fn(&ReceiverMetrics) -> &Durations| -> Vec<(&str, &Durations)> {
        all.iter().map(|(label, _, post)| (&**label, of(post))).collect()
    };
    let help = "Time from an alert's grid point to its delivery.";
    histogram(out, "notify_seconds", help, &times(|post| &post.times));
    let help = "Time from an alert's newest event to the delivery of its beginning.";
    histogram(out, "notify_event_seconds", help, &times(|post| &post.chain_times));
}

/// Adds durations, grouped by labels, as a Prometheus histogram.
fn histogram(out: &mut String, name: &str, help: &str, all: &[(&str, &Durations)]) {
    let (mut rows, mut sums) = (Vec::new(), String::new());
    for (label, durations) in all {
        let (below, sum, count) = durations.histogram();
        let comma = if label.is_empty() { "" } else { "," };
        let own = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        let row = |(bound, below): (f64, u64)| (format!("_bucket{{{label}{comma}le=\"{bound}\"}}"), below);
        rows.extend(below.into_iter().map(row));
        rows.push((format!("_bucket{{{label}{comma}le=\"+Inf\"}}"), count));
        rows.push((format!("_count{own}"), count));
        // Writing to a String cannot fail.
        let _ = writeln!(sums, "streamgauge_{name}_sum{own} {sum}");
    }
    family(out, name, "histogram", help, &rows);
    out.push_str(&sums);
}

/// Adds one metric family: its help text, its type and its values by labels.
fn family(out: &mut String, name: &str, kind: &str, help: &str, rows: &[(String, u64)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP streamgauge_{name} {help}\n# TYPE streamgauge_{name} {kind}");
    for (labels, value) in rows {
        let _ = writeln!(out, "streamgauge_{name}{labels} {value}");
    }
}

/// Lists the counters of the engines: name, help text, value.
fn counted(numbers: &Numbers, door: u64) -> [(&'static str, &'static str, u64); 21] {
    let counters = &numbers.counters;
    [
        ("events_received_total", "Values that came in.", counters.received + door),
        ("events_recorded_total", "Values recorded on time.", counters.recorded),
        ("events_late_total", "Values that corrected sealed windows.", counters.late),
        ("events_late_state_total", "Events too late for windows, not for their runs.", counters.late_state),
        ("events_duplicate_total", "Values seen before.", counters.duplicate),
        ("events_dropped_total", "Late values dropped by policy.", counters.dropped),
        ("values_saturated_total", "Values beyond the histogram's range.", counters.overflow),
        ("derived_dropped_total", "Derived values too late for their windows.", counters.derived_dropped),
        ("runs_abandoned_total", "Runs forgotten while in flight.", counters.runs_abandoned),
        ("runs_evicted_total", "Finished runs forgotten early.", numbers.runs_evicted),
        ("series_forgotten_total", "Series forgotten for want of events.", counters.series_forgotten),
        ("log_interruptions_total", "Gaps in which nobody wrote the log.", counters.interruptions),
        ("log_gaps_total", "Gaps in the log.", counters.gaps),
        ("log_records_lost_total", "Records lost in those gaps.", counters.records_lost),
        ("partials_repeated_total", "Messages to the aggregate seen before.", counters.partials_repeated),
        ("partials_unread_total", "Partials that no rule reads there.", counters.partials_unread),
        ("partials_missing_total", "Messages to the aggregate that are gone.", counters.partials_missing),
        ("partials_overdue_total", "Times that a partition was not waited for.", counters.partials_overdue),
        ("rule_evaluations_total", "Rule and key pairs evaluated.", counters.evaluations),
        ("alert_transitions_total", "Transitions of alerts.", counters.transitions),
        ("alerts_capped_total", "Alerts not opened because of the cap.", counters.alerts_capped),
    ]
}
