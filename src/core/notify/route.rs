//! The routing tree, which determines the receivers of an alert. Terms and semantics are those of
//! Alertmanager.
//!
//! Intuition: an alert descends from the root. The deepest matching routes take it; after the first matching
//! sibling, further siblings are tried only if that sibling sets `continue`. If an escalation step of the
//! alert names receivers, those receivers get it instead. Invariant: a route inherits the settings that it
//! does not state from its parent, and the root matches everything.

use super::super::alert::Transition;
use crate::core::vocab::calendar::Plan;
use crate::core::vocab::selector::Selector;
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which alerts share a message.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupBy {
    /// `...`: each alert by itself.
    All,
    Labels(Vec<Arc<str>>),
}

/// How messages of a route are grouped.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    pub by: GroupBy,
    /// The wait for more news before a group's first message.
    pub wait: Span,
    /// The time between two messages with news of a group.
    pub interval: Span,
    /// The times between messages without news; the last one repeats from then on. Never empty.
    pub repeat: Vec<Span>,
}

impl Default for Grouping {
    /// Returns Alertmanager's defaults.
    fn default() -> Grouping {
        Grouping {
            by: GroupBy::Labels(Vec::new()),
            wait: Span::from_secs(30),
            interval: Span::from_mins(5),
            repeat: vec![Span::from_hours(4)],
        }
    }
}

/// One route, complete: inherited settings are filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its place in the tree, for example `0/2/1`; part of its groups' names.
    pub path: String,
    pub receiver: Arc<str>,
    pub matchers: Selector,
    pub is_continuing: bool,
    pub grouping: Grouping,
    /// Only ends are delivered in these times.
    pub muted: Vec<Arc<Plan>>,
    /// Beginnings and changes are delivered only in these times, if there are any.
    pub active: Vec<Arc<Plan>>,
    pub routes: Vec<Route>,
}

/// The whole tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    pub root: Route,
}

/// Returns a label of an alert as matchers and groups see it.
pub(crate) fn label<'a>(alert: &'a Transition, name: &str) -> Option<&'a str> {
    match name {
        "rule" | "alertname" => Some(&alert.rule),
        "severity" => Some(alert.severity.name()),
        _ => alert.key.get(name).or_else(|| alert.labels.get(name)).map(|value| &**value),
    }
}

impl Routes {
    /// Returns the routes that an alert takes, in the order of the tree.
    pub fn of<'a>(&'a self, alert: &Transition) -> Vec<&'a Route> {
        let mut found = Vec::new();
        self.root.walk(alert, &mut found);
        found
    }

    /// Returns the route by which an alert reaches a receiver, if it does.
    pub fn to<'a>(&'a self, receiver: &str, alert: &Transition) -> Option<&'a Route> {
        if alert.notify.is_empty() {
            return self.of(alert).into_iter().find(|route| *route.receiver == *receiver);
        }
        // The escalation step names the receivers; the grouping comes from the receiver's route in the tree,
        // or from the root.
        let is_named = alert.notify.iter().any(|name| name == receiver);
        is_named.then(|| self.root.first_of(receiver).unwrap_or(&self.root))
    }

    /// Returns whether any route leads to a receiver.
    pub fn has(&self, receiver: &str) -> bool {
        self.root.first_of(receiver).is_some()
    }

    /// Returns the route of a path, or the root.
    pub fn at(&self, path: &str) -> &Route {
        self.root.at(path).unwrap_or(&self.root)
    }
}

impl Route {
    fn walk<'a>(&'a self, alert: &Transition, found: &mut Vec<&'a Route>) -> bool {
        if !self.matchers.is_match_labels(|name| label(alert, name)) {
            return false;
        }
        let before = found.len();
        for route in &self.routes {
            if route.walk(alert, found) && !route.is_continuing {
                break;
            }
        }
        if found.len() == before {
            found.push(self);
        }
        true
    }

    fn first_of(&self, receiver: &str) -> Option<&Route> {
        match *self.receiver == *receiver {
            true => Some(self),
            false => self.routes.iter().find_map(|route| route.first_of(receiver)),
        }
    }

    fn at(&self, path: &str) -> Option<&Route> {
        match self.path == path {
            true => Some(self),
            false => self.routes.iter().find_map(|route| route.at(path)),
        }
    }

    /// Returns the name and the labels of an alert's group; the name holds the alert's id if each alert is a
    /// group by itself.
    pub fn group(&self, by: &GroupBy, alert: &Transition) -> (String, BTreeMap<Arc<str>, Arc<str>>) {
        let GroupBy::Labels(labels) = by else {
            let all = alert.key.0.iter().map(|(name, value)| (name.clone(), value.clone()));
            let rule = [("rule".into(), alert.rule.clone())];
            return (format!("{}:{}", self.path, alert.id), rule.into_iter().chain(all).collect());
        };
        let value = |name: &Arc<str>| Some((name.clone(), Arc::from(label(alert, name)?)));
        let common: BTreeMap<Arc<str>, Arc<str>> = labels.iter().filter_map(value).collect();
        let text: Vec<String> = common.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        (format!("{}:{{{}}}", self.path, text.join(",")), common)
    }

    /// Returns until when beginnings and changes are muted; `None` if they may be delivered now.
    pub fn muted_until(&self, now: Timestamp) -> Option<Timestamp> {
        let standing = |plan: &Arc<Plan>| plan.at(now);
        let muted = self.muted.iter().map(standing).filter(|standing| standing.is_in_force);
        if let Some(until) = muted.map(|standing| standing.until.unwrap_or(Timestamp::MAX)).max() {
            return Some(until);
        }
        let active: Vec<_> = self.active.iter().map(standing).collect();
        if active.is_empty() || active.iter().any(|standing| standing.is_in_force) {
            return None;
        }
        active.iter().filter_map(|standing| standing.until).min().or(Some(Timestamp::MAX))
    }
}
