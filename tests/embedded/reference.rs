//! The reference pages name what the service answers.

use super::service::start;
use super::{batch, rules};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The metrics of the reference page: name → type.
fn documented() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `streamgauge_"));
    let row = |row: &str| {
        let (name, rest) = row.split_once('`').expect("a name ends");
        let name = name.split('{').next().unwrap_or(name);
        let kind = rest.split('|').nth(1).expect("a type").trim();
        (format!("streamgauge_{name}"), kind.to_string())
    };
    let is_type = |kind: &str| matches!(kind, "counter" | "gauge" | "histogram" | "summary");
    rows.map(row).filter(|(_, kind)| is_type(kind)).collect()
}

/// Goal: `/metrics` and its page agree: each metric has a line with its type, and each line is about a metric.
/// Method: a service that has taken events is asked; what only other deployments answer is looked for in the
/// source.
#[test]
fn each_metric_has_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    super::service::post(&service.url, &batch(0, 20)).expect("202");
    let metrics = service.get("/metrics");
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let answered: BTreeMap<String, String> =
        types.map(|(name, kind)| (name.to_string(), kind.to_string())).collect();
    let documented = documented();
    let undocumented: Vec<_> =
        answered.iter().filter(|(name, kind)| documented.get(*name) != Some(kind)).collect();
    assert!(
        undocumented.is_empty(),
        "docs/reference/metrics.md lacks, or has with another type: {undocumented:?}"
    );
    let source = ["src/http/metrics.rs", "src/driver/metrics.rs", "src/driver/receivers/metrics.rs"]
        .map(|path| {
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a source")
        })
        .concat();
    let invented: BTreeSet<&String> = documented
        .keys()
        .filter(|name| !answered.contains_key(*name))
        .filter(|name| !source.contains(name.trim_start_matches("streamgauge_")))
        .collect();
    assert!(invented.is_empty(), "docs/reference/metrics.md names what no source names: {invented:?}");
    assert!(answered.len() > 40, "{answered:?}");
}
