//! The place of the first definition of each name in a rule set, so that a duplicate is reported with both
//! places.

use super::tree::File;
use super::yaml::TextPlace;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Maps (kind, name) to the file and line of the first definition.
#[derive(Debug, Default)]
pub(crate) struct Firsts(BTreeMap<(&'static str, String), (String, usize)>);

impl Firsts {
    /// Notes a definition; a second definition of the same name is an error.
    pub(crate) fn note(&mut self, file: &File<'_>, what: &'static str, name: &str, at: TextPlace) {
        match self.0.entry((what, name.into())) {
            Entry::Occupied(first) => {
                let (other, line) = first.get();
                let message = format!("{what} `{name}` is there twice; the first is at {other}:{line}");
                file.error(at, message, Some("give it another name, or take one of them out".into()));
            }
            Entry::Vacant(place) => {
                place.insert((file.name.into(), at.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    /// Goal: every duplicate is reported, with the place of the first definition. Method: two files with the
    /// same duplicated names.
    #[test]
    fn all_that_stand_twice_are_named_at_once() {
        let text = "metrics:\n  m: { unit: ms }\n  m: { unit: s }\npipelines:\n  p: { stages: [a] }\nescalations:\n  e: [{ after: 0m, notify: [log] }]\nmaintenance:\n  - { id: w, match: ['a=\"b\"'], start: '2026-11-15T02:00:00Z', end: '2026-11-15T04:00:00Z' }\nrules:\n  - { id: r, expr: 'count(m[1m]) > 1', severity: info }\n  - { id: r, expr: 'count(m[1m]) > 2', severity: info }\n";
        let files = vec![("a.yaml".into(), text.into()), ("b.yaml".into(), text.into())];
        let found: Vec<String> = load_files(files)
            .diagnostics
            .into_iter()
            .filter(|one| one.is_error)
            .map(|one| one.message)
            .collect();
        let of = |what: &str| found.iter().filter(|message| message.contains(what)).count();
        assert_eq!(of("rule `r` is there twice; the first is at a.yaml:11"), 3, "{found:#?}");
        assert_eq!(of("key `m` is there twice; the first is in line 2"), 2, "{found:#?}");
        for what in ["metric `m`", "pipeline `p`", "escalation `e`", "maintenance `w`"] {
            assert_eq!(of(&format!("{what} is there twice; the first is at a.yaml:")), 1, "{found:#?}");
        }
    }
}
