//! The pipeline that an alert is about.
//!
//! Intuition: a rule over stages has the pipeline as `source` in its key, a rule over runs in flight has it
//! as `pipeline`, and a rule over a single pipeline may name it in its selector only. A silence, a route or
//! a maintenance window for a pipeline applies to the alerts of all three.
//! Invariant: keys stay as they are, so the identity of an alert does not depend on this module.
//! Rejected: writing the label into the keys (every active alert would get another id).

use super::{RecordSpec, Rule, RuleSet};
use crate::core::view::ViewSpec;
use crate::core::view::pipeline_records::PipelineRecords;
use crate::core::vocab::key::Key;
use crate::core::vocab::pipeline::PIPELINE;
use std::sync::Arc;

impl RuleSet {
    /// Returns the records that derive from pipeline series; a record comes after the records it reads.
    pub fn pipeline_records(&self) -> PipelineRecords {
        let mut records = PipelineRecords::default();
        for RecordSpec { name, views, .. } in &self.records {
            records.add(name, views.iter().map(|view| &self.views[*view as usize]));
        }
        records
    }
}

impl Rule {
    /// Returns the pipeline that a key of this rule is about. `views` gives the views that the rule reads.
    pub fn pipeline<'a>(
        &'a self,
        records: &PipelineRecords,
        key: &'a Key,
        views: impl Fn(u32) -> &'a ViewSpec,
    ) -> Option<&'a Arc<str>> {
        let stated = key.get(PIPELINE).or_else(|| self.labels.get(PIPELINE));
        stated.or_else(|| records.source(key, self.views.iter().map(|view| views(*view))))
    }
}
