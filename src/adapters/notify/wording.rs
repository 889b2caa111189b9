//! The wording of alerts and messages for people: the default one, or the receiver's templates.
//!
//! Intuition: a template produces plain text. Each channel escapes and cuts that text like the default wording, so
//! no template and no label becomes markup or exceeds the target's limit. Invariant: a template that fails for a
//! sample message is refused at start. If a template fails later, the default wording is used and the message is
//! still sent. Rejected: a template for the whole payload (one forgotten escape could notify a whole
//! channel), undefined names as empty text (a typo would stay unnoticed).

use super::text::{self, LISTED_MAX};
use super::webhook::labels;
use crate::core::alert::Transition;
use crate::core::notify::Message;
use minijinja::value::{Object, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Maximum number of minijinja instructions for one template. A template that uses every field needs a hundredth of
/// it.
const FUEL: u64 = 100_000;

/// Why a template is refused.
#[derive(Debug, thiserror::Error)]
#[error("template `{name}` cannot be used: {why}; its names are {known}")]
pub struct WordingError {
    name: &'static str,
    why: minijinja::Error,
    known: &'static str,
}

/// Names that templates may use.
const IN_TITLE: &str = "title, status, firing, resolved, receiver, labels, alerts";
const IN_LINE: &str = "line, rule, about, severity, state, standing, labels, value, judged, threshold, summary, reason, runbook, started_at, no_data_since, acknowledged_by, id";

/// The wording of one receiver.
#[derive(Debug, Default)]
pub struct Wording {
    title: Option<String>,
    line: Option<String>,
}

impl Wording {
    /// Checks the templates by rendering them with `sample`.
    pub fn new(title: Option<&str>, line: Option<&str>, sample: &Message) -> Result<Wording, WordingError> {
        // Prometheus templates use $labels and $value, so these are accepted.
        let plain = |text: &str| text.replace("$labels", "labels").replace("$value", "value");
        let wording = Wording { title: title.map(plain), line: line.map(plain) };
        let refused = |name, known| move |why| WordingError { name, why, known };
        if let Some(title) = &wording.title {
            render(title, of_message(sample)).map_err(refused("title", IN_TITLE))?;
        }
        for alert in &sample.alerts {
            if let Some(line) = &wording.line {
                render(line, of_alert(alert)).map_err(refused("line", IN_LINE))?;
            }
        }
        Ok(wording)
    }

    /// Returns the title as one line, for a subject or heading.
    pub fn title(&self, message: &Message) -> String {
        let Some(template) = &self.title else { return message.title() };
        let said = render(template, of_message(message));
        let said = said.unwrap_or_else(|error| format!("{} (title: {error})", message.title()));
        said.split(char::is_control).collect::<Vec<&str>>().join(" ").trim().to_string()
    }

    /// Returns the text about one alert.
    pub fn line(&self, alert: &Transition) -> String {
        let Some(template) = &self.line else { return text::line(alert) };
        let said = render(template, of_alert(alert));
        said.unwrap_or_else(|error| format!("{} (line: {error})", text::line(alert)))
    }
}

fn render(template: &str, of: Value) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.render_str(template, of)
}

fn of_message(message: &Message) -> Value {
    let (firing, resolved) = message.counts();
    let group = message.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let alerts: Vec<Value> = message.alerts.iter().take(LISTED_MAX).map(of_alert).collect();
    context! {
        title => message.title(),
        status => if firing > 0 { "firing" } else { "resolved" },
        firing, resolved, alerts,
        receiver => &*message.receiver,
        labels => Value::from_object(Labels(group)),
    }
}

fn of_alert(alert: &Transition) -> Value {
    context! {
        line => text::line(alert),
        rule => &*alert.rule,
        about => alert.about(),
        severity => alert.severity.name(),
        state => alert.state.name(),
        standing => text::standing(alert),
        labels => Value::from_object(Labels(labels(alert))),
        value => alert.value,
        judged => alert.judged(),
        threshold => &*alert.display.threshold,
        summary => &*alert.summary,
        reason => &*alert.reason,
        runbook => alert.runbook.as_deref().unwrap_or(""),
        started_at => alert.started_at.to_string(),
        no_data_since => alert.no_data_since.map_or(String::new(), |since| since.to_string()),
        acknowledged_by => alert.acknowledged_by.as_deref().unwrap_or(""),
        id => &*alert.id,
    }
}

/// Labels by name. A template reads a missing label as an empty text, as label matchers do.
#[derive(Debug)]
struct Labels(BTreeMap<String, String>);

impl Object for Labels {
    fn get_value(self: &Arc<Self>, name: &Value) -> Option<Value> {
        Some(self.0.get(name.as_str()?).map_or_else(|| Value::from(""), Value::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::driver::receivers::self_alerts;

    fn sample() -> Message {
        let at = Timestamp::clamped(0);
        self_alerts::trial(&"ops".into(), "ann", (at, at), false)
    }

    #[test]
    fn templates_say_it_in_other_words() {
        let title = "{{ status|upper }} {{ firing }} {{ labels.rule }}{{ labels.team }}\n";
        let line = "{{ $labels.receiver }}: {{ summary }} ({{ severity }})";
        let wording = Wording::new(Some(title), Some(line), &sample()).expect("it is right");
        assert_eq!(wording.title(&sample()), "FIRING 1 _sg_test");
        assert_eq!(wording.line(&sample().alerts[0]), "ops: ann tests receiver ops: nothing is wrong (info)");
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said_at_start_and_costs_no_message() {
        let wrong = |title: &str| Wording::new(Some(title), None, &sample()).expect_err(title).to_string();
        assert!(wrong("{{ firng }}").contains("undefined") && wrong("{{ firng }}").contains("firing"));
        assert!(wrong("{% if %}").contains("cannot be used"));
        assert!(
            wrong("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}")
                .contains("fuel")
        );
        // This template fails only for alerts that come later.
        let text = "{% if acknowledged_by %}{{ nobody }}{% endif %}fine";
        let wording = Wording::new(None, Some(text), &sample()).expect("it is right for now");
        let mut alert = sample().alerts[0].clone();
        assert_eq!(wording.line(&alert), "fine");
        alert.acknowledged_by = Some("bob".into());
        assert!(wording.line(&alert).contains("nothing is wrong (line: undefined"));
    }
}
