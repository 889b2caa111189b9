//! Inhibition: alerts that are not notified while certain other alerts fire.
//!
//! Intuition: each inhibition draws edges from its source alerts to its target alerts, among the firing
//! alerts with equal values of its `equal` labels. Invariants, as in Alertmanager: an alert that matches both
//! sides is not inhibited by other alerts that match both, and no alert inhibits itself. In addition, a cycle
//! of alerts that inhibit each other takes effect only if an alert outside the cycle inhibits one of them, so
//! each chain begins with an alert that is notified. Rejected: the first alert of a cycle represents the
//! others (which one is first depends on names, and its end would look like the beginning of another alert).

use super::rule::Inhibit;
use std::collections::BTreeMap;

/// A firing alert as inhibition sees it.
pub(crate) trait Party {
    fn id(&self) -> &str;
    fn label(&self, name: &str) -> Option<&str>;
}

/// For each alert the lowest id among the alerts that inhibit it, if there is one.
pub(crate) fn inhibitors<'a, P: Party>(inhibits: &[Inhibit], alerts: &'a [P]) -> Vec<Option<&'a str>> {
    let hubs: Vec<Hub> = inhibits.iter().flat_map(|inhibit| hubs(inhibit, alerts)).collect();
    let circle = circles(&arrows(&hubs, alerts.len()));
    let mut is_covered = vec![false; alerts.len() + hubs.len()];
    for hub in &hubs {
        let mut of_sources = hub.sources.iter().map(|source| circle[*source]);
        let Some(first) = of_sources.next() else { continue };
        let is_mixed = of_sources.any(|other| other != first);
        for target in &hub.targets {
            is_covered[circle[*target]] |= is_mixed || circle[*target] != first;
        }
    }
    let mut found: Vec<Option<&str>> = vec![None; alerts.len()];
    for hub in &hubs {
        let first = hub.sources.iter().map(|source| alerts[*source].id()).min();
        for target in hub.targets.iter().filter(|target| is_covered[circle[**target]]) {
            let known = found[*target];
            found[*target] = known.into_iter().chain(first).min();
        }
    }
    found
}

/// Edges of one inhibition from each source to each target, among alerts with the same values of its `equal`
/// labels. The edges share one intermediate node: 1,000 sources and 1,000 targets need 2,000 edges instead of
/// a million.
#[derive(Debug, Default)]
struct Hub {
    sources: Vec<usize>,
    targets: Vec<usize>,
}

/// Builds two hubs per combination of `equal` values. With two hubs, an alert that matches both sides is
/// inhibited only by alerts that match the source alone, and inhibits only alerts that match the target alone.
fn hubs<P: Party>(inhibit: &Inhibit, alerts: &[P]) -> Vec<Hub> {
    let mut by_values: BTreeMap<Vec<&str>, [Hub; 2]> = BTreeMap::new();
    for (at, alert) in alerts.iter().enumerate() {
        let is_source = inhibit.source.selects(|name| alert.label(name));
        let is_target = inhibit.target.selects(|name| alert.label(name));
        if !is_source && !is_target {
            continue;
        }
        let values = inhibit.equal.iter().map(|name| alert.label(name).unwrap_or("")).collect();
        let [of_sources, of_both] = by_values.entry(values).or_default();
        match (is_source, is_target) {
            (true, true) => {
                of_sources.targets.push(at);
                of_both.sources.push(at);
            }
            (true, false) => of_sources.sources.push(at),
            _ => {
                of_sources.targets.push(at);
                of_both.targets.push(at);
            }
        }
    }
    let has_arrows = |hub: &Hub| !hub.sources.is_empty() && !hub.targets.is_empty();
    by_values.into_values().flatten().filter(has_arrows).collect()
}

/// The adjacency lists of the graph: the successors of each alert, followed by those of each hub.
fn arrows(hubs: &[Hub], alerts: usize) -> Vec<Vec<usize>> {
    let mut arrows = vec![Vec::new(); alerts];
    for (at, hub) in hubs.iter().enumerate() {
        hub.sources.iter().for_each(|source| arrows[*source].push(alerts + at));
    }
    arrows.extend(hubs.iter().map(|hub| hub.targets.clone()));
    arrows
}

/// The number of the strongly connected component of each node; a node outside every cycle is a component of
/// its own. Tarjan (1972), with an explicit stack, because chains may be long.
fn circles(arrows: &[Vec<usize>]) -> Vec<usize> {
    const UNSEEN: usize = usize::MAX;
    let (mut seen, mut lowest) = (vec![UNSEEN; arrows.len()], vec![UNSEEN; arrows.len()]);
    let mut circle = vec![UNSEEN; arrows.len()];
    let (mut path, mut open, mut count, mut closed) = (Vec::new(), Vec::new(), 0, 0);
    for root in 0..arrows.len() {
        if seen[root] == UNSEEN {
            path.push((root, 0));
        }
        while let Some((node, next)) = path.pop() {
            if next == 0 {
                (seen[node], lowest[node]) = (count, count);
                count += 1;
                open.push(node);
            }
            if let Some(to) = arrows[node].get(next).copied() {
                path.push((node, next + 1));
                match (seen[to], circle[to]) {
                    (UNSEEN, _) => path.push((to, 0)),
                    (since, UNSEEN) => lowest[node] = lowest[node].min(since),
                    _ => {}
                }
                continue;
            }
            if lowest[node] == seen[node] {
                while let Some(member) = open.pop() {
                    circle[member] = closed;
                    if member == node {
                        break;
                    }
                }
                closed += 1;
            }
            if let Some((before, _)) = path.last() {
                lowest[*before] = lowest[*before].min(lowest[node]);
            }
        }
    }
    circle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::pattern::Pattern;
    use crate::core::vocab::selector::{Matcher, Selector, Test};
    use std::sync::Arc;

    struct Alert(&'static str, &'static str); // rule, severity

    impl Party for Alert {
        fn id(&self) -> &str {
            self.0
        }
        fn label(&self, name: &str) -> Option<&str> {
            match name {
                "rule" => Some(self.0),
                "severity" => Some(self.1),
                "source" => Some("x"),
                _ => None,
            }
        }
    }

    fn selector(label: &str, pattern: &str) -> Selector {
        let test = Test::Match(Pattern::new(pattern).expect("valid"));
        Selector { name: None, matchers: vec![Matcher { label: label.into(), test }] }
    }

    fn inhibit(source: Selector, target: Selector) -> Inhibit {
        Inhibit { source, target, equal: vec![Arc::from("source")] }
    }

    fn rules(source: &str, target: &str) -> Inhibit {
        inhibit(selector("rule", source), selector("rule", target))
    }

    fn found(inhibits: &[Inhibit], alerts: &[Alert]) -> Vec<Option<String>> {
        let found = inhibitors(inhibits, alerts);
        found.into_iter().map(|id| id.map(String::from)).collect()
    }

    fn said(ids: &[&str]) -> Vec<Option<String>> {
        ids.iter().map(|id| Some(id.to_string()).filter(|id| !id.is_empty())).collect()
    }

    #[test]
    fn what_matches_both_sides_is_not_inhibited_by_what_matches_both() {
        let both = [inhibit(selector("severity", "critical"), selector("severity", "warning|critical"))];
        let alerts = [Alert("a", "critical"), Alert("b", "critical"), Alert("c", "warning")];
        assert_eq!(found(&both, &alerts), said(&["", "", "a"]));
        assert_eq!(found(&both, &alerts[..1]), said(&[""]), "none inhibits itself");
        // A source that is not a target inhibits all of them.
        let wider = [inhibit(selector("rule", "cause|a|b"), selector("rule", "a|b|c"))];
        let alerts = [Alert("a", ""), Alert("b", ""), Alert("c", ""), Alert("cause", "")];
        assert_eq!(found(&wider, &alerts), said(&["cause", "cause", "a", ""]));
    }

    #[test]
    fn no_matchers_select_nothing() {
        let none = || Selector { name: None, matchers: Vec::new() };
        let alerts = [Alert("a", "critical"), Alert("b", "info")];
        for inhibit in [
            inhibit(none(), none()),
            inhibit(none(), selector("rule", ".*")),
            inhibit(selector("rule", ".*"), none()),
        ] {
            assert_eq!(found(&[inhibit], &alerts), said(&["", ""]));
        }
    }

    #[test]
    fn a_circle_leaves_nobody_untold() {
        let mutual = [rules("a", "b"), rules("b", "a")];
        let alerts = [Alert("a", ""), Alert("b", ""), Alert("c", ""), Alert("d", "")];
        assert_eq!(found(&mutual, &alerts), said(&["", "", "", ""]));
        let round = [rules("a", "b"), rules("b", "c"), rules("c", "a"), rules("c", "d")];
        assert_eq!(found(&round, &alerts), said(&["", "", "", "c"]), "what hangs on it is inhibited");
        let from_outside = [rules("a", "b"), rules("b", "c"), rules("c", "a"), rules("d", "b")];
        assert_eq!(found(&from_outside, &alerts), said(&["c", "a", "b", ""]));
        let chain = [rules("a", "b"), rules("b", "c"), rules("c", "d")];
        assert_eq!(found(&chain, &alerts), said(&["", "a", "b", "c"]));
    }

    /// Goal: at least one alert is notified, whatever the inhibitions are. Method: all pairs of inhibitions
    /// among three alerts.
    #[test]
    fn somebody_is_always_told() {
        let alerts = [Alert("a", ""), Alert("b", ""), Alert("c", "")];
        let sides = ["a", "b", "c", "a|b", "b|c", "a|b|c"];
        let pairs: Vec<(&str, &str)> =
            sides.iter().flat_map(|source| sides.iter().map(move |target| (*source, *target))).collect();
        let mut inhibited = 0;
        for first in &pairs {
            for second in &pairs {
                let told = found(&[rules(first.0, first.1), rules(second.0, second.1)], &alerts);
                inhibited += told.iter().flatten().count();
                assert!(told.iter().any(Option::is_none), "{first:?} {second:?}: {told:?}");
            }
        }
        assert!(inhibited > pairs.len() * pairs.len(), "most of them inhibit something: {inhibited}");
    }
}
