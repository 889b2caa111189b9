//! `schemas/` is generated from the types; `UPDATE_GOLDEN=1` writes it anew.

use std::fs;
use std::path::Path;
use streamgauge::app::schema as text;
use streamgauge::wire::schema::Kind;

#[test]
fn the_schemas_are_those_of_the_types() {
    for kind in Kind::ALL {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(kind.file());
        let expected = text(kind) + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &expected).expect("writable");
        }
        assert!(
            fs::read_to_string(&path).ok() == Some(expected),
            "{} is stale; UPDATE_GOLDEN=1",
            path.display()
        );
    }
}

#[test]
fn what_the_readme_sends_is_valid_and_nonsense_is_not() {
    let schema: serde_json::Value = serde_json::from_str(&text(Kind::Event)).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let event = |value| serde_json::json!({"type": "metric", "time": "2026-11-01T00:00:00Z", "source": "a", "name": "b", "value": value});
    assert!(validator.is_valid(&event(serde_json::json!(1.5))));
    assert!(!validator.is_valid(&event(serde_json::json!("x"))));
}
