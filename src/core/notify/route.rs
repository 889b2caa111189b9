//! The tree that says who is told of an alert: Alertmanager's words and semantics.
//!
//! Intuition: an alert walks down from the root; the deepest routes that match it have it, and siblings after
//! the first only where that one says `continue`. An alert whose escalation step names receivers is theirs
//! instead. Invariant: what a route does not say it has from its parent, and the root matches everything.

use super::super::alert::Transition;
use super::super::calendar::Plan;
use super::super::selector::Selector;
use super::super::time::{Span, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which alerts come in one message.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupBy {
    /// `...`: each alert by itself.
    All,
    Labels(Vec<Arc<str>>),
}

/// How messages of a route are put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    pub by: GroupBy,
    /// A group waits so long for more before its first message.
    pub wait: Span,
    /// Between two messages with news of a group.
    pub interval: Span,
    /// Between two messages without news; the last one holds from then on. Never empty.
    pub repeat: Vec<Span>,
}

impl Default for Grouping {
    /// Alertmanager's.
    fn default() -> Grouping {
        Grouping {
            by: GroupBy::Labels(Vec::new()),
            wait: Span::from_secs(30),
            interval: Span::from_mins(5),
            repeat: vec![Span::from_hours(4)],
        }
    }
}

/// One route, complete: what it has from its parent is written into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Where it is in the tree: `0/2/1`; names its groups.
    pub path: String,
    pub receiver: Arc<str>,
    pub matchers: Selector,
    pub is_continuing: bool,
    pub grouping: Grouping,
    /// Nothing new is told in these times.
    pub muted: Vec<Arc<Plan>>,
    /// Something new is told only in these times, if there are any.
    pub active: Vec<Arc<Plan>>,
    pub routes: Vec<Route>,
}

/// The whole tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    pub root: Route,
}

/// A label as matchers and groups see it.
pub fn label<'a>(alert: &'a Transition, name: &str) -> Option<&'a str> {
    match name {
        "rule" | "alertname" => Some(&alert.rule),
        "severity" => Some(alert.severity.name()),
        _ => alert.key.get(name).or_else(|| alert.labels.get(name)).map(|value| &**value),
    }
}

impl Routes {
    /// The routes that an alert takes, in the order of the tree.
    pub fn of<'a>(&'a self, alert: &Transition) -> Vec<&'a Route> {
        let mut found = Vec::new();
        self.root.walk(alert, &mut found);
        found
    }

    /// Through which route an alert comes to a receiver, if it does.
    pub fn to<'a>(&'a self, receiver: &str, alert: &Transition) -> Option<&'a Route> {
        if alert.notify.is_empty() {
            return self.of(alert).into_iter().find(|route| *route.receiver == *receiver);
        }
        // The step names receivers; how their messages are put together the tree says where it can.
        let is_named = alert.notify.iter().any(|name| name == receiver);
        is_named.then(|| self.root.first_of(receiver).unwrap_or(&self.root))
    }

    /// Whether any route goes to a receiver.
    pub fn has(&self, receiver: &str) -> bool {
        self.root.first_of(receiver).is_some()
    }

    /// The route of a path, or the root.
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

    /// The labels that an alert's group has in common; each alert's own id where it is alone.
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

    /// Until when nothing new is told; `None`: it may be told now.
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
