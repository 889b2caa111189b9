//! Where a rule runs when a deployment has several partitions.
//!
//! Intuition: a rule whose keys are bound to a source or pipeline finds everything it reads in one
//! partition. Any other would see a part of the truth in each, and be wrong everywhere; it runs
//! where all partials come together. What reads a record runs where the record does.

use super::RuleSet;
use crate::core::histogram::layout::Digits;
use crate::core::pane::Shape;
use crate::core::partition::Partition;
use crate::core::selector::{By, Matcher, Selector, Test};
use crate::core::time::Span;
use crate::core::unit::Unit;
use crate::core::view::{Lateness, View, ViewSpec, feed};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a rule or record finds what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In the partition of its source or pipeline.
    Partition,
    /// Only where the partials of all partitions come together.
    Aggregate,
}

/// Labels that an event's partition follows from.
const BOUND: [&str; 2] = ["source", "pipeline"];

impl RuleSet {
    /// The scope of each record and of each rule.
    pub fn scopes(&self) -> (Vec<Scope>, Vec<Scope>) {
        let mut spanning: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut records = Vec::new();
        for record in &self.records {
            let scope = self.scope(&record.views, &spanning);
            if scope == Scope::Aggregate {
                spanning.insert(record.name.clone());
            }
            records.push(scope);
        }
        let rules = self.rules.iter().map(|rule| self.scope(&rule.views, &spanning)).collect();
        (records, rules)
    }

    fn scope(&self, views: &[u32], spanning: &BTreeSet<Arc<str>>) -> Scope {
        let is_bound = |view: &u32| {
            let spec = &self.views[*view as usize];
            let is_record = spec.selector.name.as_ref().is_some_and(|name| spanning.contains(name));
            !is_record && is_bound(spec)
        };
        if views.iter().all(is_bound) { Scope::Partition } else { Scope::Aggregate }
    }

    /// The rules that run in a partition: all of them where it is the only one, else those that find
    /// everything there. A partition gathers what the others read, which run in the aggregate.
    pub fn within(&self, partition: Partition) -> RuleSet {
        if partition.count <= 1 {
            return self.clone();
        }
        let spanning = self.only(Scope::Aggregate);
        if partition.is_aggregate() {
            return spanning;
        }
        let mut part = self.only(Scope::Partition);
        part.views.extend(spanning.gathered());
        part
    }

    /// Places of views stay as they are, as expressions refer to them; a view that nobody reads any more
    /// matches nothing.
    fn only(&self, wanted: Scope) -> RuleSet {
        let (records, rules) = self.scopes();
        let keep = |scope: &Scope| *scope == wanted;
        let mut part = self.clone();
        part.records =
            self.records.iter().zip(&records).filter(|(_, s)| keep(s)).map(|(r, _)| r.clone()).collect();
        part.rules = self.rules.iter().zip(&rules).filter(|(_, s)| keep(s)).map(|(r, _)| r.clone()).collect();
        let read: BTreeSet<u32> = part
            .records
            .iter()
            .flat_map(|record| &record.views)
            .chain(part.rules.iter().flat_map(|rule| &rule.views))
            .copied()
            .collect();
        for (place, view) in part.views.iter_mut().enumerate() {
            if !read.contains(&(place as u32)) {
                view.selector = nothing();
            }
        }
        part
    }

    /// What partitions gather for the views of this set: those that are not made of others.
    fn gathered(&self) -> Vec<ViewSpec> {
        let shape = Shape { digits: Digits::default(), resolution: Unit::resolution(None) };
        // They gather whatever their partition takes: how late that may be is configured there.
        let lateness = Lateness { allowed: Span::ZERO, max: Span::from_hours(24 * 7) };
        let mut views: Vec<View> =
            self.views.iter().map(|spec| View::new(spec.clone(), shape, lateness)).collect();
        feed::link(&mut views);
        let nothing = nothing();
        let is_read = |view: &&View| !view.is_fed() && view.spec.selector != nothing;
        views.iter().filter(is_read).map(|view| view.gathering(&views)).collect()
    }
}

/// A selector that no series passes.
fn nothing() -> Selector {
    let matchers = vec![Matcher { label: "source".into(), test: Test::Equal("".into()) }];
    Selector { name: Some("".into()), matchers }
}

fn is_bound(spec: &ViewSpec) -> bool {
    let by_bound = match &spec.by {
        By::Series => true,
        By::Labels(labels) => labels.iter().any(|label| BOUND.contains(&&**label)),
    };
    by_bound || BOUND.iter().any(|label| spec.selector.fixed(label).is_some())
}
