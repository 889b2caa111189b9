//! The partition in which a rule runs when a deployment has several partitions.
//!
//! Intuition: a rule whose keys are bound to a source or pipeline finds everything it reads in one
//! partition. Any other rule would see only part of the data in each partition and be wrong everywhere, so
//! it runs in the aggregate partition, which receives all partials. A rule that reads a record runs where
//! the record does.

use super::RuleSet;
use crate::core::measure::histogram::layout::Digits;
use crate::core::measure::pane::Shape;
use crate::core::view::{View, ViewSpec, feed};
use crate::core::vocab::limits::Lateness;
use crate::core::vocab::partition::Partition;
use crate::core::vocab::selector::{By, Matcher, Selector, Test};
use crate::core::vocab::time::Span;
use crate::core::vocab::unit::Unit;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The partition that holds everything a rule or record reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The partition of the source or pipeline that each key or the selector fixes.
    Partition,
    /// Only the aggregate partition, which receives the partials of all partitions.
    Aggregate,
}

/// Labels that determine the partition of an event.
const BOUND: [&str; 2] = ["source", "pipeline"];

impl RuleSet {
    /// Returns the scope of each record and of each rule.
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

    /// Returns the rules that run in a partition: all of them if it is the only partition, else those that
    /// find everything they read there. A partition also gathers the partials for the rules of the
    /// aggregate partition.
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

    /// Keeps the rules and records of one scope. Views keep their indices, because expressions refer to views
    /// by index. A view that is no longer read gets a selector that matches nothing.
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

    /// Returns the views with which each partition collects partials for this rule set: one for each view that
    /// is not computed from another view.
    fn gathered(&self) -> Vec<ViewSpec> {
        let shape = Shape { digits: Digits::default(), resolution: Unit::resolution(None) };
        // A gathering view need not limit the lateness: its partition refuses events that are too late before
        // they reach the view.
        let lateness = Lateness { allowed: Span::ZERO, max: Span::from_hours(24 * 7) };
        let mut views: Vec<View> =
            self.views.iter().map(|spec| View::new(spec.clone(), shape, lateness)).collect();
        feed::link(&mut views);
        let nothing = nothing();
        let is_read = |view: &&View| !view.is_fed() && view.spec.selector != nothing;
        views.iter().filter(is_read).map(|view| view.gathering(&views)).collect()
    }
}

/// Returns a selector that no series matches.
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
