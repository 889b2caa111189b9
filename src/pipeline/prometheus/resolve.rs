//! Converts all rules: records first, each after the records it reads, then alerts.
//!
//! Intuition: an alert over a missing record would never fire, without any error.
//! Invariant: a rule that reads a record that is left out is left out with the same reason. A converted rule
//! compiles, alone with the records it reads and together with all others.
//! Cost: each rule is compiled with at most [`NEEDED_MAX`] records, and all rules together about ten times.

use super::alert::{self, Ids};
use super::ast::{EXPORTED_NAME, Node};
use super::document::{Body, Files, Origin};
use super::facts::Facts;
use super::out::{RecordOut, yaml};
use super::{Converted, Remark, RuleOut, promql, template, translate};
use crate::core::vocab::pattern::Pattern;
use crate::core::vocab::selector::Matcher;
use crate::core::vocab::unit::Unit;
use crate::pipeline::bounds::REGEXES_BYTES_MAX;
use crate::pipeline::{Loaded, load_files};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A parsed rule, and its index among the alerts or the records.
struct Parsed {
    place: usize,
    origin: Origin,
    body: Body,
    node: Node,
    /// Whether the rule reads the label `name`, which is renamed to `exported_name`.
    has_name: bool,
}

/// Maximum number of records that one rule reads, directly or through other records. Usual rules read up to five.
const NEEDED_MAX: usize = 100;

/// The state of a conversion.
#[derive(Default)]
struct Resolver {
    facts: Facts,
    done: Converted,
    ids: Ids,
    /// Indexes of the converted records by their names.
    places: BTreeMap<String, usize>,
    /// Regular expressions that are compiled already, and the bytes of all of them.
    patterns: BTreeSet<Arc<str>>,
    regex_bytes: usize,
}

/// Converts all rules of some files.
pub(super) fn resolve(files: Files) -> Converted {
    let mut resolver = Resolver::default();
    resolver.done.notes = files.notes.into_iter().map(|(origin, text)| Remark { origin, text }).collect();
    let (mut alerts, mut records): (Vec<Parsed>, Vec<Parsed>) = (Vec::new(), Vec::new());
    let mut has_exported = false;
    for rule in files.rules {
        let parsed = rule.body.and_then(|body| promql::parse(&body.expr).map(|node| (body, node)));
        match parsed {
            Ok((body, mut node)) => {
                let (mut has_name, is_exported) = node.rename_labels();
                let mut texts = body.annotations.values();
                has_name |= texts.clone().any(|text| template::has_label(text, "name"));
                has_exported |= is_exported || texts.any(|text| template::has_label(text, EXPORTED_NAME));
                resolver.facts.learn(&node);
                let all = if rule.origin.is_alert { &mut alerts } else { &mut records };
                all.push(Parsed { place: all.len(), origin: rule.origin, body, node, has_name });
            }
            Err(reason) => resolver.leave_out(rule.origin, reason),
        }
    }
    resolver.done.has_exported = has_exported;
    if has_exported {
        alerts = resolver.without_names(alerts);
        records = resolver.without_names(records);
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
            // A rule that reads this record is left out with the root reason only, without the chain of records in
            // between.
            let root = reason.rsplit(", which is left out: ").next().unwrap_or(&reason).to_string();
            self.facts.records.entry(origin.name.clone()).or_insert(Err(root));
        }
        self.done.left_out.push(Remark { origin, text: reason });
    }

    /// Leaves out the rules that read the label `name`, because the files already use its new name for another
    /// label.
    fn without_names(&mut self, all: Vec<Parsed>) -> Vec<Parsed> {
        let (named, others): (Vec<Parsed>, Vec<Parsed>) = all.into_iter().partition(|parsed| parsed.has_name);
        for parsed in named {
            let reason = format!(
                "its label `name` would be called `{EXPORTED_NAME}` here, which is a label of these rules already"
            );
            self.leave_out(parsed.origin, reason);
        }
        others
    }

    fn note_name(&mut self, origin: &Origin) {
        let text = format!("its label `name` is called `{EXPORTED_NAME}` here: send it as that");
        self.done.notes.push(Remark { origin: origin.clone(), text });
    }

    fn keep_record(&mut self, record: RecordOut) {
        for text in &record.said.notes {
            self.done.notes.push(Remark { origin: record.origin.clone(), text: text.clone() });
        }
        let units = record.said.units.clone();
        self.facts.records.insert(record.origin.name.clone(), Ok(units));
        self.places.insert(record.origin.name.clone(), self.done.records.len());
        self.done.records.push(record);
    }

    /// Keeps the records whose name has one expression, and leaves out all records of the other names.
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

    /// Converts each record after those that it reads.
    fn records(&mut self, records: Vec<Parsed>) {
        let (order, in_circles) = in_order(&records);
        let mut records: Vec<Option<Parsed>> = records.into_iter().map(Some).collect();
        for parsed in order.into_iter().filter_map(|at| records[at].take()) {
            match self.record(&parsed) {
                Ok(record) => {
                    if parsed.has_name {
                        self.note_name(&parsed.origin);
                    }
                    self.keep_record(record);
                }
                Err(reason) => self.leave_out(parsed.origin, reason),
            }
        }
        for parsed in in_circles.into_iter().filter_map(|at| records[at].take()) {
            self.leave_out(parsed.origin, "it reads itself, or records that do".into());
        }
    }

    fn record(&mut self, parsed: &Parsed) -> Result<RecordOut, String> {
        let said = translate::record(&parsed.node, &self.facts)?;
        let record = RecordOut { origin: parsed.origin.clone(), said };
        let mut needed = self.needed(&record.said.records)?;
        needed.push(&record);
        let text = yaml(&needed, &[]);
        let loaded = self.compile(text)?;
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
        let Parsed { origin, body, node, has_name, .. } = parsed;
        let said = translate::alert(&node, &self.facts);
        let rule = said.and_then(|said| alert::alert(&origin, &body, said, has_name, &mut self.ids));
        let rule = rule.and_then(|rule| {
            let needed = self.needed(&rule.said.records)?;
            let text = yaml(&needed, &[&rule]);
            let loaded = self.compile(text)?;
            problem(&loaded).map_or(Ok(rule), Err)
        });
        match rule {
            Ok(rule) => {
                if has_name {
                    self.note_name(&origin);
                }
                let remark = |text: &String| Remark { origin: origin.clone(), text: text.clone() };
                self.done.notes.extend(rule.notes.iter().map(remark));
                self.ids.take(&rule.id);
                self.done.rules.push(rule);
            }
            Err(reason) => self.leave_out(origin, reason),
        }
    }

    /// Compiles converted rules until the regular expressions of all rules reach the bound for a rule set. Later
    /// rules with regular expressions are not compiled, because they would be left out anyway.
    fn compile(&mut self, text: String) -> Result<Loaded, String> {
        let has_regex = text.contains("=~") || text.contains("!~");
        if has_regex && self.regex_bytes > REGEXES_BYTES_MAX {
            let most = REGEXES_BYTES_MAX >> 20;
            return Err(format!("the regular expressions of the rules before it take more than {most} MiB"));
        }
        let loaded = load_files(vec![("converted".into(), text)]);
        match &loaded.rules {
            Some(set) => {
                let selectors = set.views.iter().map(|view| &view.selector);
                for pattern in selectors.flat_map(|of| &of.matchers).filter_map(Matcher::pattern) {
                    if self.patterns.insert(pattern.text().into()) {
                        self.regex_bytes += pattern.bytes();
                    }
                }
            }
            // Compiling a refused expression may have cost as much as the largest accepted one.
            None if has_regex => self.regex_bytes += Pattern::BYTES_MAX,
            None => {}
        }
        Ok(loaded)
    }

    /// Returns the converted records that are read, directly or through others, in the order of their
    /// conversion.
    fn needed(&self, reads: &BTreeSet<String>) -> Result<Vec<&RecordOut>, String> {
        let mut found: BTreeSet<usize> = BTreeSet::new();
        let mut left: Vec<&str> = reads.iter().map(String::as_str).collect();
        while let Some(at) = left.pop().map(|name| self.places.get(name)) {
            let Some(at) = at.filter(|at| found.insert(**at)) else { continue };
            if found.len() > NEEDED_MAX {
                return Err(format!("it reads more than {NEEDED_MAX} records, one through another"));
            }
            left.extend(self.done.records[*at].said.records.iter().map(String::as_str));
        }
        // A record reads only records converted before it, so the order of the indexes is correct.
        Ok(found.into_iter().map(|at| &self.done.records[at]).collect())
    }

    /// Compiles all converted rules together. If this fails, a binary search finds the longest prefix that
    /// compiles, and the rest is left out.
    fn settle(&mut self) {
        let all = self.done.records.len() + self.done.rules.len();
        let Some(mut reason) = self.problem_of(all) else { return };
        let (mut fits, mut exceeds) = (0, all);
        while fits + 1 < exceeds {
            let middle = fits.midpoint(exceeds);
            match self.problem_of(middle) {
                None => fits = middle,
                Some(problem) => (exceeds, reason) = (middle, problem),
            }
        }
        let records = fits.min(self.done.records.len());
        let records_gone = self.done.records.split_off(records).into_iter().map(|record| record.origin);
        let rules_gone = self.done.rules.split_off(fits - records).into_iter().map(|rule| rule.origin);
        let gone: Vec<Origin> = records_gone.chain(rules_gone).collect();
        let names: BTreeSet<String> = gone.iter().map(Origin::to_string).collect();
        self.done.notes.retain(|note| !names.contains(&note.origin.to_string()));
        gone.into_iter().for_each(|origin| self.leave_out(origin, reason.clone()));
    }

    /// Returns the first error of the first `count` records and rules, with records before rules.
    fn problem_of(&self, count: usize) -> Option<String> {
        let records: Vec<&RecordOut> = self.done.records.iter().take(count).collect();
        let rules: Vec<&RuleOut> = self.done.rules.iter().take(count - records.len()).collect();
        problem(&load_files(vec![("converted".into(), yaml(&records, &rules))]))
    }
}

/// Returns two lists of indexes. The first is in topological order: each record follows those that it reads; ties
/// keep the order of the files. The second has the records that are part of a cycle or read one that is.
fn in_order(records: &[Parsed]) -> (Vec<usize>, Vec<usize>) {
    let names: Vec<&str> = records.iter().map(|parsed| parsed.origin.name.as_str()).collect();
    let places: BTreeMap<&str, usize> = names.iter().zip(0..).map(|(name, at)| (*name, at)).collect();
    let (mut readers, mut waits) = (vec![Vec::new(); records.len()], vec![0usize; records.len()]);
    for (at, parsed) in records.iter().enumerate() {
        let reads: BTreeSet<usize> =
            parsed.node.names().into_iter().filter_map(|name| places.get(name).copied()).collect();
        waits[at] = reads.len();
        reads.into_iter().for_each(|read| readers[read].push(at));
    }
    let mut ready: BTreeSet<usize> = (0..records.len()).filter(|at| waits[*at] == 0).collect();
    let mut order = Vec::new();
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for reader in &readers[next] {
            waits[*reader] -= 1;
            if waits[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    let in_circles = (0..records.len()).filter(|at| waits[*at] > 0).collect();
    (order, in_circles)
}

/// Returns the first error of a compilation.
fn problem(loaded: &crate::pipeline::Loaded) -> Option<String> {
    let first = loaded.diagnostics.iter().find(|one| one.is_error)?;
    let hint = first.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
    Some(format!("{}{hint}", first.message))
}
