//! A live status page at `/` with active alerts, pipelines and open windows. The server renders it; it needs
//! no script.

use super::params::{Empty, Params};
use super::{Failure, Shared};
use crate::core::alert::Transition;
use crate::core::alert::self_alerts::is_own;
use crate::core::measure::window::WindowSize;
use crate::core::{Engine, Inspect};
use crate::driver::ports::Views;
use crate::wire::pipeline::{self, Portion};
use crate::wire::printable::printable;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::Arc;

/// Maximum number of table slots of each partition from which the shown series are chosen.
const SERIES_LOOKED_AT: usize = 1_000;

/// Limits on the pipelines that the page reads from one engine.
const SHOWN: Portion = Portion { pipelines: PIPELINES_SHOWN, ..Portion::OF_A_QUESTION };
const PIPELINES_SHOWN: usize = 50;

/// Alerts shown for each partition.
const ALERTS_SHOWN: usize = 100;

/// Series shown for each partition.
const SERIES_SHOWN: usize = 50;

pub(crate) async fn page<S: Views + Send + Sync + 'static>(
    State(shared): State<Arc<Shared<S>>>,
    Params(Empty {}): Params<Empty>,
) -> Result<Response, Failure> {
    let mut body = String::from(HEAD);
    for part in shared.ask_any(render).await? {
        body.push_str(&part);
    }
    body.push_str("</main></body></html>\n");
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, body).into_response())
}

fn render(engine: &mut Inspect<'_>) -> String {
    // One alert more than shown, so that the page knows whether there are more.
    let (mut alerts, _) = engine.active_page(0, false, ALERTS_SHOWN + 1);
    let counters = engine.counters();
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<p>log time <b>{}</b> · {} events · {} late · {} refused · {} series · {} rules</p>",
        engine.now(),
        counters.received,
        counters.late,
        counters.refused_total(),
        engine.series().len(),
        engine.rules().rules.len(),
    );
    // The alerts about the engine and its log come last in the engine's list. They are moved to the front, so that
    // the limit on shown alerts does not cut them off.
    alerts.sort_by_key(|alert| !is_own(&alert.rule));
    alerts_table(&mut out, &alerts);
    pipelines_table(&mut out, engine);
    series_table(&mut out, engine);
    out
}

const HEAD: &str = "<!doctype html><html lang=en><head><meta charset=utf-8><meta http-equiv=refresh content=2>
<meta name=viewport content=\"width=device-width\"><title>streamgauge</title><style>
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:0}main{max-width:72rem;margin:auto;padding:1rem}
h1{font-size:1.3rem}h2{font-size:1rem;margin:1.5rem 0 .3rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #8884}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.critical{color:#c22}.warning{color:#b70}.pending{opacity:.6}</style></head><body><main><h1>streamgauge</h1>";

fn alerts_table(out: &mut String, alerts: &[Transition]) {
    if alerts.is_empty() {
        out.push_str("<h2>Alerts</h2><p>none</p>");
        return;
    }
    out.push_str(
        "<h2>Alerts</h2><table><tr><th>severity<th>state<th>rule<th>about<th>value<th>what<th>since</tr>",
    );
    for alert in alerts.iter().take(ALERTS_SHOWN) {
        let (severity, state) = (alert.severity.name(), alert.state.name());
        let silence = alert.silence().map_or(String::new(), |silence| format!("; {silence}"));
        let _ = write!(
            out,
            "<tr class=\"{severity} {state}\"><td>{severity}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&alert.state_in_words()),
            escape(&alert.rule),
            escape(&alert.about()),
            escape(&format!("{}{silence}", alert.judged())),
            escape(&alert.summary),
            alert.started_at,
        );
    }
    out.push_str("</table>");
    if alerts.len() > ALERTS_SHOWN {
        let _ = write!(
            out,
            "<p>the first {ALERTS_SHOWN}; all are at <a href=\"/api/v1/alerts\">/api/v1/alerts</a></p>"
        );
    }
}

fn pipelines_table(out: &mut String, engine: &Engine) {
    let (pipelines, _) = pipeline::summaries(engine, None, SHOWN);
    if pipelines.is_empty() {
        return;
    }
    out.push_str("<h2>Pipelines</h2><table><tr><th>pipeline<th class=n>health<th class=n>in flight<th class=n>cards / h<th class=n>idle s<th>stages: in flight, share of the time</tr>");
    for pipeline in pipelines {
        let stages = pipeline["stages"].as_array().into_iter().flatten();
        let stages: Vec<String> = stages.map(stage_text).collect();
        let health = pipeline["health"].as_f64().map_or("–".to_string(), |score| format!("{score:.0}"));
        let _ = write!(
            out,
            "<tr><td>{}<td class=n>{health}<td class=n>{}<td class=n>{}<td class=n>{}<td>{}</tr>",
            escape(pipeline["pipeline"].as_str().unwrap_or("")),
            pipeline["in_flight"],
            pipeline["cards_per_hour"],
            pipeline["idle_seconds"],
            escape(&stages.join(" · ")),
        );
    }
    out.push_str("</table>");
}

/// The text for one stage, such as `build 3, 40 %`.
fn stage_text(stage: &serde_json::Value) -> String {
    let share = stage["share"].as_f64().map_or(String::new(), |share| format!(", {:.0} %", share * 100.0));
    format!("{} {}{share}", stage["stage"].as_str().unwrap_or(""), stage["in_flight"])
}

fn series_table(out: &mut String, engine: &Engine) {
    out.push_str("<h2>Open 5m windows</h2><table><tr><th>source<th>series<th>labels<th class=n>count<th class=n>p50<th class=n>p95<th class=n>p99<th class=n>max</tr>");
    let table = engine.series();
    let mut shown: Vec<_> = table.page(0, SERIES_LOOKED_AT).0.map(|(_, series)| series).collect();
    shown.sort_by(|a, b| {
        (&a.info.source, &a.info.name, &a.info.labels).cmp(&(&b.info.source, &b.info.name, &b.info.labels))
    });
    for series in shown.iter().take(SERIES_SHOWN) {
        let shape = table.metric_of(series).shape;
        let Some(open) = series.windows.current(WindowSize::FiveMinutes).pop() else { continue };
        let labels: Vec<String> = series.info.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let number = |value: Option<f64>| value.map_or("–".to_string(), |value| format!("{value:.3}"));
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
            escape(&series.info.source),
            escape(&series.info.name),
            escape(&labels.join(" ")),
            open.pane.count,
            number(open.pane.quantile(shape, 0.5)),
            number(open.pane.quantile(shape, 0.95)),
            number(open.pane.quantile(shape, 0.99)),
            number(open.pane.quantile(shape, 1.0)),
        );
    }
    out.push_str("</table>");
    if table.len() > SERIES_SHOWN {
        let _ = write!(out, "<p>and {} more</p>", table.len() - SERIES_SHOWN);
    }
}

/// Escapes text of clients so that it can neither become markup nor hide or reverse other text.
fn escape(text: &str) -> String {
    let text = printable(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::core::alert::Display;
    use crate::core::alert::self_alerts::bare;
    use crate::core::vocab::key::Key;
    use crate::core::vocab::severity::Severity;

    #[test]
    fn markup_in_names_is_only_text() {
        assert_eq!(escape("<b a=\"1\">&'"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;");
        assert_eq!(escape("\u{1b}[2J\u{202e}"), "\\x1b[2J\\u{202e}");
    }

    #[test]
    fn an_alert_is_listed_with_what_it_is_about() {
        let at = Timestamp::clamped(1_793_491_200_000 + 34_000_000);
        let key = Key::new(vec![("source".into(), "<checkout>".into())]);
        let alert = Transition {
            display: Display::new(Some(0.029), None, "> 1%", Some(0.01)),
            no_data_since: Timestamp::from_ms(1_793_491_200_000 + 33_120_000),
            ..bare("error_rate".into(), Severity::Warning, key, (at, at))
        };
        let mut out = String::new();
        alerts_table(&mut out, &[alert]);
        let row = "<td>error_rate<td>source=&lt;checkout&gt;<td>2.9 % &gt; 1 %; no data since 09:12<td>";
        assert!(out.contains(row), "{out}");
    }

    #[test]
    fn a_page_has_no_more_alerts_than_it_says() {
        let at = Timestamp::clamped(0);
        let alert = bare("busy".into(), Severity::Warning, Key::new(Vec::new()), (at, at));
        let rows = |count: usize| {
            let mut out = String::new();
            alerts_table(&mut out, &vec![alert.clone(); count]);
            (out.matches("<tr class").count(), out.contains("/api/v1/alerts"))
        };
        assert_eq!((rows(100), rows(1_000)), ((100, false), (100, true)));
    }
}
