//! Alerts as rows of a table: the subject, the value against its threshold, and since when there is no data.

use super::cli::Format;
use crate::core::alert::Transition;
use serde_json::{Value, json};

/// The columns of a list of alerts.
pub(crate) const ALERTS: [&str; 8] =
    ["severity", "state", "rule", "about", "value", "since", "summary", "id"];

/// Returns a row for each alert of an API answer. An alert that cannot be parsed stays as it came, and so do
/// all alerts for JSON output.
pub(crate) fn alerts(found: &Value, format: &Format) -> Value {
    if *format == Format::Json {
        return found.clone();
    }
    let row = |alert: &Value| match serde_json::from_value::<Transition>(alert.clone()) {
        Ok(alert) => row(&alert),
        Err(_) => alert.clone(),
    };
    found.as_array().map_or(Value::Null, |all| all.iter().map(row).collect())
}

fn row(alert: &Transition) -> Value {
    let silence = alert.silence().map_or(String::new(), |silence| format!("; {silence}"));
    let value = format!("{}{silence}", alert.judged());
    json!({"severity": alert.severity.name(), "state": alert.state_in_words(), "rule": alert.rule, "about": alert.about(),
        "value": value, "since": alert.started_at.to_string(), "summary": alert.summary, "id": alert.id})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::core::alert::Display;
    use crate::core::alert::self_alerts::bare;
    use crate::core::mute::Suppressed;
    use crate::core::vocab::key::Key;
    use crate::core::vocab::severity::Severity;

    #[test]
    fn a_row_says_what_it_is_about_and_in_what_unit() {
        let at = Timestamp::clamped(1_793_491_200_000 + 34_000_000);
        let key = Key::new(vec![("stage".into(), "build".into()), ("source".into(), "checkout".into())]);
        let alert = Transition {
            display: Display::new(Some(0.029), None, "> 1%", Some(0.01)),
            no_data_since: Timestamp::from_ms(1_793_491_200_000 + 33_120_000),
            ..bare("error_rate".into(), Severity::Warning, key, (at, at))
        };
        let rows = alerts(&json!([alert, {"id": "of another version"}]), &Format::Table);
        assert_eq!(rows[0]["about"], "source=checkout, stage=build");
        assert_eq!(rows[0]["value"], "2.9 % > 1 %; no data since 09:12");
        assert_eq!((&rows[0]["state"], &rows[0]["severity"]), (&json!("firing"), &json!("warning")));
        assert_eq!(rows[1]["id"], "of another version");
        let muted = Transition {
            suppressed_by: Some(Suppressed { kind: "silence".into(), id: "s-1".into() }),
            ..bare("busy".into(), Severity::Info, Key::new(Vec::new()), (at, at))
        };
        assert_eq!(alerts(&json!([muted]), &Format::Table)[0]["state"], "firing, muted by silence s-1");
        assert!(ALERTS.iter().all(|column| rows[0][column].is_string()), "{rows}");
    }
}
