//! From rules as they stand to rules as they are said: records first, in the order in which they read each other.
//!
//! Intuition: an alert over a record that is not there never fires, and nobody would know why. Invariant: whatever
//! reads a record that is left out is left out with the same reason; what is converted compiles, by itself and with
//! everything it reads.

use super::ast::Node;
use super::document::{Body, Files, Origin};
use super::facts::Facts;
use super::out::{RecordOut, yaml};
use super::{Converted, Remark, alert, promql, translate};
use crate::core::unit::Unit;
use crate::pipeline::load_files;
use std::collections::{BTreeMap, BTreeSet};

/// A rule whose expression was read, and its place among those of its kind.
struct Parsed {
    place: usize,
    origin: Origin,
    body: Body,
    node: Node,
}

/// What is on the way from one to the other.
#[derive(Default)]
struct Resolver {
    facts: Facts,
    done: Converted,
}

/// Converts all rules of some files.
pub fn resolve(files: Files) -> Converted {
    let mut resolver = Resolver::default();
    resolver.done.notes = files.notes.into_iter().map(|(origin, text)| Remark { origin, text }).collect();
    let (mut alerts, mut records): (Vec<Parsed>, Vec<Parsed>) = (Vec::new(), Vec::new());
    for rule in files.rules {
        let parsed = rule.body.and_then(|body| promql::parse(&body.expr).map(|node| (body, node)));
        match parsed {
            Ok((body, node)) => {
                resolver.facts.learn(&node);
                let all = if rule.origin.is_alert { &mut alerts } else { &mut records };
                all.push(Parsed { place: all.len(), origin: rule.origin, body, node });
            }
            Err(reason) => resolver.leave_out(rule.origin, reason),
        }
    }
    let records = resolver.one_of_each(records);
    resolver.records(records);
    for parsed in alerts {
        resolver.alert(parsed);
    }
    resolver.settle();
    resolver.done
}

impl Resolver {
    fn leave_out(&mut self, origin: Origin, reason: String) {
        if !origin.is_alert {
            // Whoever reads it is told the first reason, not the way to it.
            let root = reason.rsplit(", which is left out: ").next().unwrap_or(&reason).to_string();
            self.facts.records.entry(origin.name.clone()).or_insert(Err(root));
        }
        self.done.left_out.push(Remark { origin, text: reason });
    }

    fn keep_record(&mut self, record: RecordOut) {
        for text in &record.said.notes {
            self.done.notes.push(Remark { origin: record.origin.clone(), text: text.clone() });
        }
        let units = record.said.units.clone();
        self.facts.records.insert(record.origin.name.clone(), Ok(units));
        self.done.records.push(record);
    }

    /// The records of which one name is one expression; the others are left out together.
    fn one_of_each(&mut self, records: Vec<Parsed>) -> Vec<Parsed> {
        let mut by_name: BTreeMap<String, Vec<Parsed>> = BTreeMap::new();
        for parsed in records {
            by_name.entry(parsed.origin.name.clone()).or_default().push(parsed);
        }
        let mut kept: Vec<Parsed> = Vec::new();
        for (name, all) in by_name {
            let is_lost = matches!(self.facts.records.get(&name), Some(Err(_)));
            let has_labels = all.iter().any(|parsed| !parsed.body.labels.is_empty());
            let differ = all.iter().any(|parsed| parsed.node != all[0].node);
            if is_lost || has_labels || differ {
                for parsed in all {
                    let reason = if !parsed.body.labels.is_empty() {
                        "its `labels` have no counterpart: a recorded series has the labels of its key"
                    } else if differ {
                        "its name is recorded by several expressions; here one name is one expression"
                    } else {
                        "its name is also recorded by a rule that is left out"
                    };
                    self.leave_out(parsed.origin, reason.into());
                }
                continue;
            }
            let mut all = all.into_iter();
            kept.extend(all.next());
            for parsed in all {
                let text = "it is recorded twice, the same: once is enough".to_string();
                self.done.notes.push(Remark { origin: parsed.origin, text });
            }
        }
        kept.sort_by_key(|parsed| parsed.place);
        kept
    }

    /// Says each record after those that it reads.
    fn records(&mut self, mut left: Vec<Parsed>) {
        let mut names: BTreeSet<String> = left.iter().map(|parsed| parsed.origin.name.clone()).collect();
        while !left.is_empty() {
            let is_ready = |parsed: &Parsed| !parsed.node.names().iter().any(|name| names.contains(*name));
            let Some(next) = left.iter().position(is_ready) else { break };
            let parsed = left.remove(next);
            names.remove(&parsed.origin.name);
            match self.record(&parsed) {
                Ok(record) => self.keep_record(record),
                Err(reason) => self.leave_out(parsed.origin, reason),
            }
        }
        for parsed in left {
            self.leave_out(parsed.origin, "it reads itself, or records that do".into());
        }
    }

    fn record(&self, parsed: &Parsed) -> Result<RecordOut, String> {
        let said = translate::record(&parsed.node, &self.facts)?;
        let record = RecordOut { origin: parsed.origin.clone(), said };
        let mut needed = self.needed(&record.said.records);
        needed.push(&record);
        let loaded = load_files(vec![("converted".into(), yaml(&needed, &[]))]);
        if let Some(problem) = problem(&loaded) {
            return Err(problem);
        }
        let name = record.origin.name.as_str();
        let records = loaded.rules.map(|set| set.records).unwrap_or_default();
        let unit = records.into_iter().find(|one| *one.name == *name).and_then(|one| one.unit);
        match (unit, Unit::from_suffix(name)) {
            (Some(unit), Some(suffix)) if unit != suffix => Err(format!(
                "it is {unit} by what it reads and {suffix} by its name; here it would be converted"
            )),
            _ => Ok(record),
        }
    }

    fn alert(&mut self, parsed: Parsed) {
        let Parsed { origin, body, node, .. } = parsed;
        let said = translate::alert(&node, &self.facts);
        let rules = &self.done.rules;
        let is_taken = |id: &str| rules.iter().any(|rule| rule.id == id);
        let rule = said.and_then(|said| alert::alert(&origin, &body, said, is_taken));
        let rule = rule.and_then(|rule| {
            let needed = self.needed(&rule.said.records);
            let loaded = load_files(vec![("converted".into(), yaml(&needed, &[&rule]))]);
            problem(&loaded).map_or(Ok(rule), Err)
        });
        match rule {
            Ok(rule) => {
                let remark = |text: &String| Remark { origin: origin.clone(), text: text.clone() };
                self.done.notes.extend(rule.notes.iter().map(remark));
                self.done.rules.push(rule);
            }
            Err(reason) => self.leave_out(origin, reason),
        }
    }

    /// The records that are read, and those that these read, in the order in which they were said.
    fn needed(&self, reads: &BTreeSet<String>) -> Vec<&RecordOut> {
        let mut found: BTreeSet<&str> = reads.iter().map(String::as_str).collect();
        // Each reads only those said before it.
        for record in self.done.records.iter().rev() {
            if found.contains(record.origin.name.as_str()) {
                found.extend(record.said.records.iter().map(String::as_str));
            }
        }
        self.done.records.iter().filter(|record| found.contains(record.origin.name.as_str())).collect()
    }

    /// All together compile, too; should they not, the last go first.
    fn settle(&mut self) {
        while let Some(problem) = problem(&load_files(vec![("converted".into(), self.done.yaml())])) {
            let rule = self.done.rules.pop().map(|rule| rule.origin);
            let Some(origin) = rule.or_else(|| self.done.records.pop().map(|record| record.origin)) else {
                return;
            };
            self.done.notes.retain(|note| note.origin != origin);
            self.leave_out(origin, problem);
        }
    }
}

/// What is wrong with what was converted.
fn problem(loaded: &crate::pipeline::Loaded) -> Option<String> {
    let first = loaded.diagnostics.iter().find(|one| one.is_error)?;
    let hint = first.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
    Some(format!("{}{hint}", first.message))
}
