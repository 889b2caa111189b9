//! Reads rule files: groups in one or several YAML documents, in `PrometheusRule` resources, and in lists of
//! these.
//!
//! Intuition: Prometheus reads a scalar as text where it expects text, so a label may be `yes` or `010`.
//! Invariant: every rule is returned once, with the reason if it is invalid. No unknown key or document is
//! ignored silently.

use super::duration::duration;
use crate::core::Span;
use crate::pipeline::yaml::{self, Kind, Node};
use std::collections::BTreeMap;
use std::fmt;

/// The file, group and rule that a rule or a remark belongs to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origin {
    pub file: String,
    pub group: String,
    /// The name of the alert or record; empty if the whole group or file is meant.
    pub name: String,
    pub is_alert: bool,
}

/// A rule as it is written, or the reason why it is invalid.
#[derive(Debug)]
pub(super) struct Rule {
    pub origin: Origin,
    pub body: Result<Body, String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Body {
    pub expr: String,
    pub pending_for: Span,
    pub keep_firing_for: Span,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// All rules of some files, and notes about their groups.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub rules: Vec<Rule>,
    pub notes: Vec<(Origin, String)>,
}

/// Reads rule files given as (name, text); returns an error if a file is no rule file.
pub(super) fn read(files: &[(String, String)]) -> Result<Files, String> {
    let mut all = Files::default();
    for (name, text) in files {
        let documents = yaml::parse_documents(text).map_err(|error| format!("{name}: {}", error.message))?;
        let mut is_rule_file = false;
        for document in &documents {
            is_rule_file |= all.document(name, document);
        }
        if !is_rule_file {
            return Err(format!(
                "{name} has no `groups:` and no `PrometheusRule`; is it a rule file of Prometheus?"
            ));
        }
    }
    Ok(all)
}

pub(super) fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    crate::pipeline::define::section(node, name).filter(|node| node.kind != Kind::Null)
}

pub(super) fn items(node: Option<&Node>) -> &[Node] {
    match node {
        Some(Node { kind: Kind::List(items), .. }) => items,
        _ => &[],
    }
}

pub(super) fn text(node: &Node) -> Option<String> {
    node.text().map(str::to_string)
}

/// Reads a map of texts; entries with an empty text are dropped, because an empty label is no label.
pub(super) fn texts(node: Option<&Node>) -> Option<BTreeMap<String, String>> {
    let mut texts = labels(node)?;
    texts.retain(|_, text| !text.is_empty());
    Some(texts)
}

/// Reads the labels of a rule. An empty one removes that label of the series, so it is kept.
fn labels(node: Option<&Node>) -> Option<BTreeMap<String, String>> {
    let Some(node) = node else { return Some(BTreeMap::new()) };
    let Kind::Map(entries) = &node.kind else { return None };
    let value = |node: &Node| if node.kind == Kind::Null { Some(String::new()) } else { text(node) };
    entries.iter().map(|(key, node)| Some((key.text.clone(), value(node)?))).collect()
}

impl Files {
    /// Reads a document; returns whether it has the form of a rule file.
    fn document(&mut self, file: &str, document: &Node) -> bool {
        if crate::pipeline::define::section(document, "groups").is_some() {
            self.groups(file, field(document, "groups"));
            return true;
        }
        let kind = field(document, "kind").and_then(text);
        match kind.as_deref() {
            Some("PrometheusRule") => {
                self.groups(file, field(document, "spec").and_then(|spec| field(spec, "groups")));
                true
            }
            Some("List" | "PrometheusRuleList") => {
                let mut has_rules = false;
                for item in items(field(document, "items")) {
                    has_rules |= self.document(file, item);
                }
                has_rules
            }
            other => {
                let what = other.map_or("a document without `groups:`".into(), |kind| format!("a `{kind}`"));
                let line = document.at.line;
                self.note(file, "", format!("{what} in line {line} has no rules: it is left alone"));
                false
            }
        }
    }

    fn note(&mut self, file: &str, group: &str, text: String) {
        let origin = Origin { file: file.into(), group: group.into(), ..Origin::default() };
        self.notes.push((origin, text));
    }

    fn groups(&mut self, file: &str, groups: Option<&Node>) {
        for (place, group) in items(groups).iter().enumerate() {
            let name = field(group, "name").and_then(text).unwrap_or_else(|| format!("group {}", place + 1));
            let (labels, wrong) = self.group(file, &name, group);
            for (place, node) in items(field(group, "rules")).iter().enumerate() {
                let mut rule = rule(node, place);
                (rule.origin.file, rule.origin.group) = (file.to_string(), name.clone());
                rule.body = match (&wrong, rule.body) {
                    (Some(wrong), Ok(_)) => Err(wrong.clone()),
                    (_, body) => body.map(|body| body.with(&labels)),
                };
                self.rules.push(rule);
            }
        }
    }

    /// Returns the labels that a group gives to its rules, and the reason if the group makes all its rules
    /// invalid.
    fn group(&mut self, file: &str, name: &str, group: &Node) -> (BTreeMap<String, String>, Option<String>) {
        let Kind::Map(entries) = &group.kind else { return Default::default() };
        let (mut common, mut wrong) = (BTreeMap::new(), None);
        for (key, value) in entries {
            let written = text(value).unwrap_or_default();
            match key.text.as_str() {
                "name" | "rules" | "partial_response_strategy" => {}
                "labels" => match labels(Some(value)) {
                    Some(found) => common = found,
                    None => wrong = Some("the `labels` of its group are no map of texts".into()),
                },
                "interval" => {
                    self.note(
                        file,
                        name,
                        format!("`interval: {written}`: here rules are judged each second"),
                    );
                }
                "limit" => {
                    self.note(file, name, format!("`limit: {written}`: here a rule has up to 1000 alerts"));
                }
                "query_offset" | "evaluation_delay" => {
                    let key = &key.text;
                    self.note(file, name, format!("`{key}: {written}`: here values are judged as they come"));
                }
                other => wrong = Some(format!("its group has the key `{other}`, which is not known here")),
            }
        }
        (common, wrong)
    }
}

impl Body {
    /// Adds the labels of the group; the rule's own labels take precedence.
    fn with(mut self, group: &BTreeMap<String, String>) -> Body {
        for (label, value) in group {
            self.labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
        self
    }
}

fn rule(node: &Node, place: usize) -> Rule {
    let word = |name: &str| field(node, name).and_then(text);
    let (record, alert) = (word("record"), word("alert"));
    let name = alert.clone().or_else(|| record.clone()).unwrap_or_else(|| format!("rule {}", place + 1));
    let origin = Origin { name, is_alert: record.is_none(), ..Origin::default() };
    let body = match (&record, &alert) {
        (Some(_), Some(_)) => Err("it is both `record` and `alert`".into()),
        (None, None) => Err("it is neither `record` nor `alert`".into()),
        _ => body(node, record.is_some()),
    };
    Rule { origin, body }
}

fn body(node: &Node, is_record: bool) -> Result<Body, String> {
    let Kind::Map(entries) = &node.kind else { return Err("it is no map".into()) };
    let of_alerts = ["for", "keep_firing_for", "annotations"];
    for (key, _) in entries {
        let name = key.text.as_str();
        let is_known = matches!(name, "record" | "alert" | "expr" | "labels") || of_alerts.contains(&name);
        if !is_known || (is_record && of_alerts.contains(&name)) {
            return Err(format!("its key `{name}` is not known here"));
        }
    }
    let wrong = |name: &str| format!("its `{name}` are no map of texts");
    Ok(Body {
        expr: field(node, "expr").and_then(text).ok_or("it has no `expr`")?,
        pending_for: span(node, "for")?,
        keep_firing_for: span(node, "keep_firing_for")?,
        labels: labels(field(node, "labels")).ok_or_else(|| wrong("labels"))?,
        annotations: texts(field(node, "annotations")).ok_or_else(|| wrong("annotations"))?,
    })
}

/// Reads a duration; zero if the field is missing.
pub(super) fn span(node: &Node, name: &str) -> Result<Span, String> {
    let Some(written) = field(node, name) else { return Ok(Span::ZERO) };
    let written = text(written).unwrap_or_default();
    duration(&written).ok_or_else(|| format!("`{name}: {written}` is no duration"))
}

/// `alerts.yml: web: HighErrorRate`, with control characters replaced, because they could affect a terminal.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.file, &self.group, &self.name];
        let parts: Vec<&str> =
            parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        f.write_str(&parts.join(": ").chars().map(shown).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Files {
        read(&[("f.yml".into(), text.into())]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn texts_stay_as_they_are_written() {
        let files = one(
            "groups:\n- name: g\n  rules:\n  - alert: y\n    expr: q > 1\n    labels: { page: yes, slo: true, region: no, n: null, e: , num: 010, ver: 1.10, f: 1e5, x: 0x10, i: .inf, s: 'a: b' }\n    annotations: { t: ~, d: 2020-01-01 }\n",
        );
        assert_eq!(files.rules[0].origin.name, "y");
        let body = files.rules[0].body.as_ref().expect("a rule");
        let labels: Vec<(&str, &str)> = body.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let wanted = [
            ("e", ""),
            ("f", "1e5"),
            ("i", ".inf"),
            ("n", ""),
            ("num", "010"),
            ("page", "yes"),
            ("region", "no"),
            ("s", "a: b"),
            ("slo", "true"),
            ("ver", "1.10"),
            ("x", "0x10"),
        ];
        assert_eq!(labels, wanted);
        assert_eq!(body.annotations.len(), 1);
    }

    #[test]
    fn resources_lists_and_documents_are_read() {
        let rule = "groups: [{ name: g, rules: [{ alert: a, expr: up == 0 }] }]";
        let resource = format!("kind: PrometheusRule\nspec: {{ {rule} }}");
        let list =
            format!("kind: List\nitems:\n- kind: Service\n- {{ kind: PrometheusRule, spec: {{ {rule} }} }}");
        for text in [rule.to_string(), resource.clone(), list.clone()] {
            assert_eq!(one(&text).rules.len(), 1, "{text}");
        }
        let all = one(&format!("{rule}\n---\n{resource}\n---\n---\n{list}\n"));
        assert_eq!((all.rules.len(), all.notes.len()), (3, 1), "{:?}", all.notes);
        assert!(all.notes[0].1.contains("`Service`"));
        for text in ["", "kind: Service", "rules: []", "[1]"] {
            let refused = read(&[("f.yml".into(), text.into())]);
            assert!(refused.is_err_and(|error| error.contains("no `groups:`")), "{text}");
        }
        assert!(one("groups:").rules.is_empty() && one("groups: []\n---\ngroups: []").rules.is_empty());
    }

    #[test]
    fn a_quoted_text_goes_on_at_the_indentation_of_its_key() {
        let files = one(
            "groups:\n- name: g\n  rules:\n  - alert: a\n    expr: up == 0\n    annotations:\n      d: \"one,\n      two,\n   three\"\n      e: 'x\n\n      y'\n",
        );
        let body = files.rules[0].body.as_ref().expect("a rule");
        assert_eq!(body.annotations["d"], "one, two, three");
        assert_eq!(body.annotations["e"], "x\ny");
    }

    #[test]
    fn what_is_no_rule_says_why() {
        let rules = [
            ("{ alert: a, record: b, expr: x }", "both"),
            ("{ expr: x }", "neither"),
            ("{ alert: a }", "no `expr`"),
            ("{ alert: a, expr: x, for: 5x }", "`for: 5x` is no duration"),
            ("{ alert: a, expr: x, fro: 5m }", "key `fro`"),
            ("{ record: a, expr: x, for: 5m }", "key `for`"),
            ("{ alert: a, expr: x, labels: [b] }", "`labels`"),
            ("5", "neither"),
        ];
        for (rule, reason) in rules {
            let files = one(&format!("groups: [{{ name: g, rules: [{rule}] }}]"));
            let body = &files.rules[0].body;
            assert!(body.as_ref().is_err_and(|error| error.contains(reason)), "{rule}: {body:?}");
        }
    }

    #[test]
    fn groups_give_labels_and_remarks() {
        let files = one(
            "groups: [{ name: g, interval: 5m, limit: 3, query_offset: 1m, labels: { team: a, x: b }, rules: [{ alert: a, expr: x, labels: { x: c } }] }, { name: h, params: {}, rules: [{ alert: b, expr: x }] }]",
        );
        assert_eq!(files.notes.len(), 3);
        assert_eq!(files.notes[0].0.to_string(), "f.yml: g");
        let body = files.rules[0].body.as_ref().expect("a rule");
        assert_eq!((body.labels["team"].as_str(), body.labels["x"].as_str()), ("a", "c"));
        assert!(files.rules[1].body.as_ref().is_err_and(|error| error.contains("`params`")));
        assert_eq!(files.rules[1].origin.to_string(), "f.yml: h: b");
    }
}
