//! Recorded series (`record:`): parsing, checks, and the order in which they are evaluated.

use super::bounds::RECORDS_MAX;
use super::expr::check::{Checked, Checker, Keys, Recorded};
use super::expr::parse::{Arg, MatcherTerm, Parsed, Term, TermKind, parse};
use super::tree::File;
use super::yaml::{Node, TextPlace};
use crate::core::rule::RecordSpec;
use crate::core::vocab::pipeline::PIPELINE;
use crate::core::vocab::selector::By;
use crate::core::vocab::unit::Unit;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A `record:` entry with its parsed expression, before it is checked.
#[derive(Debug)]
pub(super) struct RawRecord<'n> {
    pub file: usize,
    pub at: TextPlace,
    pub name: String,
    pub node: &'n Node,
    pub parsed: Parsed,
}

/// Reads the `record:` entries of one file.
pub(super) fn records<'n>(file: &File<'_>, number: usize, node: &'n Node, out: &mut Vec<RawRecord<'n>>) {
    for item in file.list(node) {
        if out.len() >= RECORDS_MAX {
            let message = format!("there are more than {RECORDS_MAX} recorded series");
            return file.error(item.at, message, Some("let rules read the series themselves".into()));
        }
        let (mut name, mut expr) = (None, None);
        for (key, value) in file.map(item, &["name", "expr"]) {
            match key.text.as_str() {
                "name" => name = file.name_of(value),
                "expr" => expr = file.text(value).map(|text| (value, text)),
                _ => {}
            }
        }
        let (Some(name), Some((node, text))) = (name, expr) else {
            file.error(item.at, "a recorded series needs `name` and `expr`", None);
            continue;
        };
        match parse(&text) {
            Ok(parsed) => out.push(RawRecord { file: number, at: item.at, name, node, parsed }),
            Err(error) => file.error_within(
                node,
                error.at.start,
                error.at.end.saturating_sub(error.at.start),
                error.message,
                error.hint,
            ),
        }
    }
}

/// Sorts records topologically: each follows the records that it reads; ties keep the order of the files. `Err`: the
/// indexes of the records that are part of a cycle or read one that is.
///
/// For each name, the number of records that define it and are not yet sorted is kept. When it reaches zero,
/// the records that wait for the name are visited once, so the cost is linear in the number of references.
pub(super) fn in_dependency_order(records: &[RawRecord<'_>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut givers: HashMap<&str, usize> = HashMap::new();
    for record in records {
        *givers.entry(&record.name).or_default() += 1;
    }
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut waits = vec![0usize; records.len()];
    for (at, record) in records.iter().enumerate() {
        for name in names_read(&record.parsed.term).into_iter().filter(|name| givers.contains_key(name)) {
            readers.entry(name).or_default().push(at);
            waits[at] += 1;
        }
    }
    let mut ready: BTreeSet<usize> = (0..records.len()).filter(|at| waits[*at] == 0).collect();
    let mut order = Vec::with_capacity(records.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        let Some(left) = givers.get_mut(records[next].name.as_str()) else { continue };
        *left -= 1;
        if *left == 0 {
            for reader in readers.remove(records[next].name.as_str()).unwrap_or_default() {
                waits[reader] -= 1;
                ready.extend((waits[reader] == 0).then_some(reader));
            }
        }
    }
    if order.len() < records.len() {
        return Err((0..records.len()).filter(|at| waits[*at] > 0).collect());
    }
    Ok(order)
}

/// Returns the names of all series that an expression reads, without duplicates.
fn names_read(term: &Term) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    note_names(term, &mut names);
    names
}

fn note_names<'t>(term: &'t Term, names: &mut BTreeSet<&'t str>) {
    match &term.kind {
        TermKind::Selector(selector) => {
            let is_name = |matcher: &&MatcherTerm| matcher.label == "name" && matcher.op == "=";
            names.extend(selector.name.as_deref());
            names.extend(selector.matchers.iter().filter(is_name).map(|matcher| matcher.value.as_str()));
        }
        TermKind::Call { args, .. } => args.iter().for_each(|arg| match arg {
            Arg::Term(term) => note_names(term, names),
            Arg::Matcher(_) => {}
        }),
        TermKind::Arithmetic(_, a, b) | TermKind::Compare(_, a, b) | TermKind::Logic(_, a, b) => {
            note_names(a, names);
            note_names(b, names);
        }
        TermKind::Negative(inner) => note_names(inner, names),
        TermKind::Number(_) => {}
    }
}

/// Checks one record, and makes its unit and labels known to the records after it.
pub(super) fn check_record(
    file: &File<'_>,
    checker: &mut Checker,
    raw: &RawRecord<'_>,
) -> Option<RecordSpec> {
    let name: Arc<str> = raw.name.as_str().into();
    checker.doubts.clear();
    match checker.check(&raw.parsed.term) {
        Ok(Checked::Value(typed)) => {
            let stated = checker.metrics.get(&name).and_then(|spec| spec.unit.clone());
            let unit = stated.or_else(|| typed.unit().cloned());
            let mut views = Vec::new();
            typed.expr.for_each(&mut |part| views.extend(part.views()));
            views.sort_unstable();
            views.dedup();
            if views.is_empty() {
                file.error(raw.node.at, "a recorded series must read a series", None);
            }
            let recorded = recorded(checker, &name, &views, unit.clone(), &typed.keys);
            checker.records.insert(name.clone(), recorded);
            checker.tell_doubts(file, raw.node);
            Some(RecordSpec { name, expr: typed.expr, unit, views })
        }
        Ok(Checked::Condition(..)) => {
            file.error(raw.node.at, "a recorded series needs a value, this is a condition", None);
            None
        }
        Err(error) => {
            file.error_within(
                raw.node,
                error.at.start,
                error.at.end.saturating_sub(error.at.start),
                error.message,
                error.hint,
            );
            None
        }
    }
}

/// Describes a record to the expressions that read it. A record that derives from pipeline series also has
/// the label `pipeline`, equal to its source.
fn recorded(
    checker: &mut Checker,
    name: &Arc<str>,
    views: &[u32],
    unit: Option<Unit>,
    keys: &Keys,
) -> Recorded {
    let specs = views.iter().map(|view| &checker.views[*view as usize]);
    let is_of_pipeline = checker.made.add(name, specs);
    let labels = match keys {
        Keys::By(By::Labels(labels)) => {
            let has_source = labels.iter().any(|label| **label == *"source");
            let pipeline = (is_of_pipeline && has_source).then(|| PIPELINE.into());
            Some(labels.iter().cloned().chain(pipeline).collect())
        }
        Keys::By(By::Series) | Keys::Series(_) | Keys::Any => None,
    };
    Recorded { unit, labels }
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    fn order(text: &str) -> Vec<String> {
        let loaded = load_files(vec![("f.yaml".into(), format!("record:\n{text}"))]);
        let set = loaded.rules.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
        set.records.iter().map(|record| record.name.to_string()).collect()
    }

    #[test]
    fn records_stand_behind_what_they_read_and_else_as_written() {
        let written = "  - { name: c, expr: 'avg(b[1m]) + avg(a[1m])' }
  - { name: z, expr: 'avg(x[1m])' }
  - { name: b, expr: 'avg({name=\"a\"}[1m]) by (source)' }
  - { name: a, expr: 'avg(x[1m]) by (source)' }
  - { name: y, expr: 'avg(x[1m])' }
"
        .replace("avg(b[1m]) + avg(a[1m])", "avg(b[1m]) by (source) + avg(a[1m]) by (source)");
        assert_eq!(order(&written), ["z", "a", "b", "c", "y"]);
    }

    #[test]
    fn a_cycle_is_told_and_what_leads_nowhere_is_not() {
        let text = "record:
  - { name: a, expr: 'avg(b[1m])' }
  - { name: b, expr: 'avg(a[1m])' }
  - { name: c, expr: 'avg(x[1m])' }
";
        let found = load_files(vec![("f.yaml".into(), text.into())]).diagnostics;
        let lines: Vec<usize> = found.iter().map(|one| one.line).collect();
        assert_eq!(lines, [2, 3], "{found:?}");
    }

    #[test]
    fn a_label_that_a_record_never_has_is_a_doubt() {
        let said = |expr: &str| {
            let text = format!(
                "record:
  - {{ name: slow, expr: 'max(stage_duration_seconds[1m]) by (source)' }}
  - {{ name: busy, expr: 'max(cpu[1m]) by (host)' }}
  - {{ name: every, expr: 'max(cpu[1m])' }}
rules:
  - {{ id: r, severity: info, expr: '{expr}' }}
"
            );
            let found = load_files(vec![("f.yaml".into(), text)]).diagnostics.into_iter();
            found.map(|one| format!("{} ({})", one.message, one.hint.unwrap_or_default())).collect::<Vec<_>>()
        };
        for expr in [
            r#"max(slow{pipeline="a"}[1m]) by (pipeline) > 1"#,
            r#"max(slow{source="a", zone=""}[1m]) by (source) > 1"#,
            r#"max(busy{host=~"a.*"}[1m]) by (host) > 1"#,
            r#"max(every{zone="a"}[1m]) by (zone) > 1"#,
        ] {
            assert!(said(expr).is_empty(), "{expr}: {:?}", said(expr));
        }
        for (expr, words) in [
            (
                r#"max(slow{stage="a"}[1m]) by (source) > 1"#,
                "has no label `stage`, so this matches nothing (it has source, pipeline)",
            ),
            (
                r#"max(busy{pipeline="a"}[1m]) by (host) > 1"#,
                "has no label `pipeline`, so this matches nothing (it has host)",
            ),
            (r#"max(busy[1m]) by (zone) > 1"#, "has no label `zone`, so all of it is one key (it has host)"),
        ] {
            let found = said(expr);
            assert!(found.len() == 1 && found[0].contains(words), "{expr}: {found:?}");
        }
    }

    /// Goal: sorting is fast. Method: a chain of 2,000 records in reverse order, which once took a number of
    /// steps cubic in its length.
    #[test]
    fn many_records_are_put_in_order_quickly() {
        let lines: Vec<String> = (1..=2_000)
            .map(|n| format!("  - {{ name: r{}, expr: 'avg(r{n}[1m]) by (source)' }}\n", n - 1))
            .collect();
        let begun = std::time::Instant::now();
        let names = order(&lines.concat());
        assert_eq!((names.len(), names[0].as_str(), names[1_999].as_str()), (2_000, "r1999", "r0"));
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }
}
