//! The recorded series that derive from pipeline series, and the pipelines that their keys name. Pipeline
//! series are made from the events of stages, runs and gates.

use super::ViewSpec;
use crate::core::vocab::key::Key;
use crate::core::vocab::pipeline::{PIPELINE, is_of_pipeline};
use crate::core::vocab::series_info::{RECORD_SOURCE, SeriesInfo};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Names of the records that derive from pipeline series.
#[derive(Debug, Default)]
pub struct PipelineRecords(BTreeSet<Arc<str>>);

impl PipelineRecords {
    /// Adds a record if it derives from pipeline series, that is, if one of its `views` reads such a series.
    /// Returns whether it was added.
    pub fn add<'a>(&mut self, name: &Arc<str>, mut views: impl Iterator<Item = &'a ViewSpec>) -> bool {
        let is_made = views.any(|view| self.has(view));
        if is_made {
            self.0.insert(name.clone());
        }
        is_made
    }

    /// Whether a view reads a pipeline series.
    fn has(&self, view: &ViewSpec) -> bool {
        view.selector.name.as_ref().is_some_and(|name| self.has_name(name))
    }

    fn has_name(&self, name: &str) -> bool {
        is_of_pipeline(name) || self.0.contains(name)
    }

    /// Returns the value of a series' label, as [`SeriesInfo::label`] does. There is one addition: for a
    /// record that derives from pipeline series, `pipeline` is the record's source, if its keys have a
    /// `source`.
    pub fn label<'s>(&self, series: &'s SeriesInfo, name: &str) -> Option<&'s Arc<str>> {
        let is_made =
            || name == PIPELINE && self.0.contains(&series.name) && *series.source != *RECORD_SOURCE;
        series.label(name).or_else(|| is_made().then_some(&series.source))
    }

    /// Returns the pipeline of a key: the key's `source`, else the one that a selector of the rule's views
    /// fixes.
    pub(in crate::core) fn source<'a>(
        &self,
        key: &'a Key,
        views: impl Iterator<Item = &'a ViewSpec>,
    ) -> Option<&'a Arc<str>> {
        if let Some(name) = key.get("name") {
            // A key with a `name` denotes a single series.
            return key.get("source").filter(|_| self.has_name(name));
        }
        let fixed = |of: &'a ViewSpec| of.selector.fixed(PIPELINE).or_else(|| of.selector.fixed("source"));
        let mut views = views.filter(|view| self.has(view));
        views.find_map(|view| key.get("source").or_else(|| fixed(view)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::view::ViewKind;
    use crate::core::vocab::selector::{By, Matcher, Selector, Test};

    fn view(name: &str, matched: Option<(&str, &str)>) -> ViewSpec {
        let test = |value: &str| Test::Equal(value.into());
        let matcher = |(label, value): (&str, &str)| Matcher { label: label.into(), test: test(value) };
        let matchers = matched.map(matcher).into_iter().collect();
        ViewSpec {
            selector: Selector { name: Some(name.into()), matchers },
            by: By::Labels(Vec::new()),
            kind: ViewKind::Newest,
            has_quantiles: false,
            has_spread: false,
            per_version: false,
        }
    }

    #[test]
    fn the_pipeline_is_where_a_key_or_a_selector_names_it() {
        let key = |pairs: &[(&str, &str)]| {
            Key::new(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
        };
        let of = |pairs: &[(&str, &str)], view: ViewSpec| {
            PipelineRecords::default().source(&key(pairs), [&view].into_iter()).map(ToString::to_string)
        };
        let (stages, requests) = (view("stage_duration_seconds", None), view("requests", None));
        assert_eq!(of(&[("source", "release")], stages.clone()).as_deref(), Some("release"));
        assert_eq!(of(&[("source", "checkout")], requests), None);
        let whole = [("name", "gate_pass"), ("source", "release")];
        assert_eq!(of(&whole, stages.clone()).as_deref(), Some("release"));
        assert_eq!(of(&[("name", "requests"), ("source", "release")], stages.clone()), None);
        assert_eq!(of(&[("stage", "build")], stages), None);
        for label in ["source", "pipeline"] {
            let fixed = view("cards_processed", Some((label, "release")));
            assert_eq!(of(&[("outcome", "failed")], fixed).as_deref(), Some("release"));
        }
    }
}
