//! Modules of a room do not reach each other in a circle.
//!
//! The graph has one node for each module directly below a room, such as `driver::ports`, and one edge for each
//! path in the code of one that leads to another. Invariant: the graph has no circle.

use super::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Modules whose parts are nodes of their own, because each part is small and has its own users.
const DIVIDED: [[&str; 2]; 2] = [["core", "vocab"], ["core", "measure"]];

type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn modules_reach_each_other_in_one_direction() {
    let graph = graph();
    assert!(graph["driver::owner"].contains("driver::ports"), "the graph is read wrongly: {graph:?}");
    let within = |from: &String, to: &String| reaches(&graph, from, to) && reaches(&graph, to, from);
    let edges = graph.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to)));
    let wrong: Vec<String> =
        edges.filter(|(from, to)| within(from, to)).map(|(from, to)| format!("{from} -> {to}")).collect();
    assert!(wrong.is_empty(), "these paths are part of a circle: {wrong:#?}");
}

/// Returns the node of a path; `None` if it is shorter than a node.
fn node(path: &[String]) -> Option<String> {
    let is_divided = DIVIDED.iter().any(|divided| path.starts_with(&divided.map(String::from)));
    let steps = if is_divided && path.len() > 2 { 3 } else { 2 };
    path.get(..steps).map(|steps| steps.join("::"))
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
    let nodes: BTreeSet<String> = modules.keys().filter_map(|parts| node(parts)).collect();
    let mut graph: Graph = nodes.iter().map(|node| (node.clone(), BTreeSet::new())).collect();
    for (parts, text) in &modules {
        let Some(from) = node(parts) else { continue };
        for path in paths(text) {
            let found = absolute(parts, &path).and_then(|path| node(&path));
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
