//! The bodies that channels send stay within the limits of their targets, whatever an alert contains.

use super::*;
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::notify::{Message, Why};
use crate::driver::receivers::self_alerts;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Many alerts, each with a text that looks like markup and exceeds every limit.
fn storm(alerts: usize) -> Message {
    let receiver: Arc<str> = "ops".into();
    let evil = "<!channel> @everyone **bold** [x](http://evil) & \"q\"\n".repeat(200);
    let one = |at: usize| {
        let trial = self_alerts::trial(
            &receiver,
            "ann",
            (Timestamp::clamped(at as i64), Timestamp::clamped(0)),
            at % 2 == 1,
        );
        Transition {
            summary: evil.clone(),
            runbook: Some("https://runbooks/a|b>".into()),
            ..trial.alerts[0].clone()
        }
    };
    let group = ("0:{}".to_string(), BTreeMap::from([("rule".into(), evil.as_str().into())]));
    Message::new(&receiver, group, (0..alerts).map(one).collect(), (Why::News, Timestamp::clamped(0)))
}

fn chars(value: &Value) -> usize {
    value.as_str().map_or(0, |text| text.chars().count())
}

#[test]
fn limits_of_the_targets_are_kept_and_nothing_becomes_markup() {
    let words = wording::Wording::default();
    for alerts in [1, 3, 5_000] {
        let message = storm(alerts);
        let slack = slack::body(&message, "https://here/?a&b", &words);
        let blocks = slack["blocks"].as_array().expect("blocks");
        assert!(blocks.len() <= 50 && chars(&blocks[0]["text"]["text"]) <= 150);
        assert!(blocks.iter().all(|block| chars(&block["text"]["text"]) <= 3_000));
        // A Slack header is plain text; every other part is markup.
        let is_markup = |block: &&Value| block["type"] != "header";
        let mut marked = blocks.iter().filter(is_markup).chain([&slack["text"]]);
        assert!(marked.all(|part| !part.to_string().contains("<!channel>")), "{alerts}");
        let discord = discord::body(&message, "https://here", &words);
        let embed = &discord["embeds"][0];
        assert!(chars(&embed["title"]) <= 256 && chars(&embed["description"]) <= 4_096);
        assert!(chars(&embed["title"]) + chars(&embed["description"]) <= 6_000);
        assert_eq!(discord["allowed_mentions"]["parse"], serde_json::json!([]));
        assert!(teams::body(&message, "https://here", &words).to_string().len() <= 28 << 10);
        let event = pagerduty::event(&message, "https://here", &words).expect("an event");
        assert!(event.to_string().len() < 512_000 && chars(&event["payload"]["summary"]) <= 1_024);
        let text = format!("{slack}{discord}");
        let counted = alerts <= 10 || text.contains(&format!("and {} more", alerts - 10));
        assert!(counted, "what is not listed is counted");
    }
}

#[test]
fn an_incident_is_opened_and_closed_under_one_key() {
    let receiver: Arc<str> = "ops".into();
    let at = Timestamp::clamped(0);
    let words = wording::Wording::default();
    let event = |is_over| {
        let message = self_alerts::trial(&receiver, "ann", (at, at), is_over);
        pagerduty::event(&message, "https://here", &words).expect("an event")
    };
    let (opened, closed) = (event(false), event(true));
    assert_eq!((&opened["event_action"], &closed["event_action"]), (&"trigger".into(), &"resolve".into()));
    assert_eq!(opened["dedup_key"], closed["dedup_key"]);
    assert_eq!(closed["payload"], Value::Null);
}

#[test]
fn the_webhook_has_the_shape_of_alertmanagers() {
    let body = webhook::alertmanager(&storm(3), "https://here", 2);
    let names: Vec<&str> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = [
        "alerts",
        "commonAnnotations",
        "commonLabels",
        "externalURL",
        "groupKey",
        "groupLabels",
        "receiver",
        "status",
        "truncatedAlerts",
        "version",
    ];
    assert_eq!(names, expected);
    assert_eq!((body["truncatedAlerts"].clone(), body["status"].clone()), (1.into(), "firing".into()));
    let alert = &body["alerts"][0];
    assert_eq!(
        (&alert["endsAt"], &alert["labels"]["alertname"]),
        (&"0001-01-01T00:00:00Z".into(), &"_sg_test".into())
    );
    assert_eq!(body["alerts"][1]["endsAt"], "1970-01-01T00:00:00Z");
    assert_eq!(body["alerts"][1]["status"], "resolved");
}

#[test]
fn a_program_gets_the_alert_and_no_shell() {
    use crate::driver::receivers::ports::{Channel, Failure};
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("out");
    let receiver: Arc<str> = "scale".into();
    let message = self_alerts::trial(
        &receiver,
        "$(touch /tmp/x)",
        (Timestamp::clamped(0), Timestamp::clamped(0)),
        false,
    );
    let run = |script: &str, millis| {
        let arguments = vec!["-c".into(), script.into()];
        let timeout = std::time::Duration::from_millis(millis);
        exec::Exec { program: "/bin/sh".into(), arguments, timeout }.send(&message)
    };
    assert_eq!(run(&format!("cat > {}", out.display()), 10_000), Ok(()));
    let got: Value = serde_json::from_str(&std::fs::read_to_string(&out).expect("written")).expect("JSON");
    assert_eq!(got["rule"], "_sg_test");
    assert!(matches!(run("exit 75", 10_000), Err(Failure::Again { .. })));
    assert!(matches!(run("exit 1", 10_000), Err(Failure::Final { .. })));
    assert!(run("exec sleep 60", 50).is_err_and(|error| error.to_string().contains("killed")));
}
