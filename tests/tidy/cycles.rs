//! Modules of a room do not reach each other in a circle.
//!
//! The graph has one node for each module directly below a room, such as `driver::ports`, and one edge for each
//! path in the code of one that leads to another.

use super::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Modules of the core that still reach each other. The list only shrinks.
const KNOWN: [&str; 18] = [
    "core::alert",
    "core::asked",
    "core::detect",
    "core::event",
    "core::histogram",
    "core::identity",
    "core::key",
    "core::limits",
    "core::mute",
    "core::packed",
    "core::pane",
    "core::partial",
    "core::rule",
    "core::run",
    "core::selector",
    "core::series",
    "core::view",
    "core::window",
];

type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn modules_reach_each_other_in_one_direction() {
    let graph = graph();
    assert!(graph["driver::worker"].contains("driver::ports"), "the graph is read wrongly: {graph:?}");
    let within = |from: &String, to: &String| reaches(&graph, from, to) && reaches(&graph, to, from);
    let mut wrong = Vec::new();
    for (from, to) in graph.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to))) {
        let is_known = KNOWN.contains(&from.as_str()) && KNOWN.contains(&to.as_str());
        if !is_known && within(from, to) {
            wrong.push(format!("{from} -> {to}"));
        }
    }
    assert!(wrong.is_empty(), "these paths are part of a circle: {wrong:#?}");
    let is_free = |known: &String| !graph[known].iter().any(|to| within(known, to));
    let free: Vec<String> = KNOWN.map(String::from).into_iter().filter(is_free).collect();
    assert!(free.is_empty(), "in no circle any more: {free:?}");
}

fn reaches(graph: &Graph, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(at) = next.pop() {
        for one in graph.get(at).into_iter().flatten() {
            if one == to {
                return true;
            }
            if seen.insert(one) {
                next.push(one);
            }
        }
    }
    false
}

fn graph() -> Graph {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::new();
    for (path, text) in sources("src") {
        let below = path.strip_prefix(&root).expect("below src").with_extension("");
        let mut parts: Vec<String> = below.iter().map(|part| part.to_string_lossy().into()).collect();
        parts.pop_if(|last| last == "mod");
        if parts.len() >= 2 && parts.last().is_some_and(|last| last != "tests") {
            modules.insert(parts, text);
        }
    }
    let nodes: BTreeSet<String> = modules.keys().map(|parts| parts[..2].join("::")).collect();
    let mut graph: Graph = nodes.iter().map(|node| (node.clone(), BTreeSet::new())).collect();
    for (parts, text) in &modules {
        let from = parts[..2].join("::");
        for path in paths(text) {
            let found =
                absolute(parts, &path).filter(|path| path.len() >= 2).map(|path| path[..2].join("::"));
            if let Some(to) = found.filter(|to| *to != from && nodes.contains(to)) {
                graph.entry(from.clone()).or_default().insert(to);
            }
        }
    }
    graph
}

/// Returns a path from the root of the crate; `None` if it is none of this crate.
fn absolute(module: &[String], path: &str) -> Option<Vec<String>> {
    let mut steps = path.split("::").map(str::trim).peekable();
    let mut at = match *steps.peek()? {
        "crate" => Vec::new(),
        "super" | "self" => module.to_vec(),
        _ => return None,
    };
    steps.next_if(|step| matches!(*step, "crate" | "self"));
    while steps.next_if(|step| *step == "super").is_some() {
        at.pop();
    }
    at.extend(steps.map(String::from));
    Some(at)
}

/// Returns all paths of a file that begin with `crate`, `super` or `self`, without those of its tests.
fn paths(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let code: String = super::code(text).map(|(_, line)| format!("{line} ")).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let begin =
            code[..at].rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |place| place + 1);
        if matches!(&code[begin..at], "crate" | "super" | "self") && !code[..begin].ends_with("::") {
            expand(String::new(), &code[begin..], &mut found);
        }
    }
    found
}

/// Adds the paths of an import, whose braces may contain several. Returns the rest of the text.
fn expand<'a>(before: String, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let is_end = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    let end = text.find(is_end).unwrap_or(text.len());
    let (path, mut rest) = (format!("{before}{}", &text[..end]), &text[end..]);
    if !(path.ends_with("::") && rest.starts_with('{')) {
        found.push(path);
        return rest;
    }
    loop {
        rest = expand(path.clone(), rest[1..].trim_start(), found);
        // `Trait as _` and spaces lie before the next comma or the end of the braces.
        let next = rest.find([',', '}']).unwrap_or(rest.len());
        rest = &rest[next..];
        if !rest.starts_with(',') {
            return rest.get(1..).unwrap_or("");
        }
    }
}
