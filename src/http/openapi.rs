//! `/openapi.json`: a description of the API for client generators.
//!
//! Invariant: the routes and the operations listed here are the same; a test compares the two. Rejected: a crate that
//! derives the document from the handlers (the handlers are generic over `Views`, and the parser for pipeline files
//! reads their bodies).

use super::Answer;
use super::json_response;
use super::params::{Empty, Params};
use crate::wire::schema;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// One operation of the API.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Name and meaning of each query parameter; the name of a required one begins with `!`.
    query: &'static [(&'static str, &'static str)],
    /// A description of the body, in words.
    body: Option<&'static str>,
    status: &'static str,
    answer: Shape,
}

/// The form of an answer.
enum Shape {
    Text,
    /// An object with one field that lists items, optionally of a named schema.
    List(&'static str, Option<&'static str>),
    /// An object with the given fields.
    Object(&'static [&'static str]),
    /// One JSON object per line.
    Lines(&'static str),
}

const fn read(path: &'static str, summary: &'static str, answer: Shape) -> Operation {
    Operation { method: "get", path, summary, query: &[], body: None, status: "200", answer }
}

const fn asked(path: &'static str, summary: &'static str, query: Query, answer: Shape) -> Operation {
    Operation { query, ..read(path, summary, answer) }
}

const fn ask(path: &'static str, summary: &'static str, body: &'static str, answer: Shape) -> Operation {
    let operation = read(path, summary, answer);
    Operation { method: "post", body: Some(body), status: "202", ..operation }
}

const fn take_back(path: &'static str, summary: &'static str, query: Query, answer: Shape) -> Operation {
    let operation = read(path, summary, answer);
    Operation { method: "delete", query, status: "202", ..operation }
}

type Query = &'static [(&'static str, &'static str)];

const BY: (&str, &str) = ("by", "who asks; the name of a token takes precedence");
const LIMIT: (&str, &str) = ("limit", "the most that is listed; `truncated` says whether there is more");

use Shape::{Lines, List, Object, Text};

/// All operations.
const OPERATIONS: &[Operation] = &[
    read("/", "A page: what fires, what flows.", Text),
    read("/healthz", "Whether the process lives.", Text),
    read("/readyz", "Whether it can do its work, and what is in the way (503).", Text),
    read("/metrics", "Counters and gauges in Prometheus' text format.", Text),
    read("/openapi.json", "This document.", Object(&["openapi", "info", "paths"])),
    ask(
        "/api/v1/events",
        "Takes events; answered once they are durable. `Idempotency-Key` is remembered for ten minutes.",
        "One event, an array of them, or one a line (application/x-ndjson); MessagePack as application/msgpack.",
        Object(&["accepted", "doubtful", "refused"]),
    ),
    asked(
        "/api/v1/series",
        "Known series.",
        &[("match", "a selector such as latency_ms{source=\"checkout\"}"), LIMIT],
        List("series", None),
    ),
    asked(
        "/api/v1/windows",
        "Windows of the series with this id, or of all that the labels match; further labels as further fields.",
        &[
            ("series", "16 hex digits"),
            ("source", "a label of the series"),
            ("name", "a label of the series"),
            ("window", "1m, 5m or 1h (1m)"),
            ("from", "RFC 3339, epoch milliseconds, or -24h (60 windows before `to`)"),
            ("to", "RFC 3339, epoch milliseconds, -24h or now (now)"),
            LIMIT,
        ],
        List("windows", Some("window")),
    ),
    asked(
        "/api/v1/alerts",
        "Active alerts; with state=resolved or stale those that are over.",
        &[
            ("state", "pending, firing, acknowledged, escalated, resolved or stale"),
            ("rule", "its id"),
            ("shadow", "true: those of shadow rules instead"),
            LIMIT,
        ],
        List("alerts", Some("alert")),
    ),
    read("/api/v1/alerts/log", "All transitions, oldest first.", Lines("alert")),
    ask("/api/v1/alerts/ack", "Acknowledges an alert.", "{alert, by, why, until, accept}", Object(&["seq"])),
    take_back(
        "/api/v1/alerts/ack",
        "Takes an acknowledgement back.",
        &[("!alert", "its id"), BY],
        Object(&["seq"]),
    ),
    asked(
        "/api/v1/explain",
        "Why an alert fires or does not; the labels of its key as further fields.",
        &[("!rule", "its id"), ("at", "an earlier time: what was told then")],
        Object(&["rule", "key"]),
    ),
    read("/api/v1/silences", "Silences, those to come too.", List("silences", None)),
    ask(
        "/api/v1/silences",
        "Adds a silence.",
        "{id, match, start, end or duration, by, reason, unmatched_for}, as JSON or YAML",
        Object(&["id", "end", "matching"]),
    ),
    take_back("/api/v1/silences/{id}", "Ends a silence.", &[BY], Object(&["id"])),
    read("/api/v1/maintenance", "Maintenance windows.", List("maintenance", None)),
    ask(
        "/api/v1/maintenance",
        "Adds a maintenance window.",
        "As in a pipeline file, and `by`; JSON or YAML",
        Object(&["id", "next", "matching"]),
    ),
    Operation {
        query: &[("at", "whether it would be in force then")],
        status: "200",
        ..ask(
            "/api/v1/maintenance/preview",
            "What a maintenance window would do; nothing is changed.",
            "As for adding one",
            Object(&["at", "in_force", "next", "matching", "match"]),
        )
    },
    take_back("/api/v1/maintenance/{id}", "Ends a maintenance window.", &[BY], Object(&["id"])),
    read("/api/v1/rules", "The rules in force.", Object(&["rules", "remarks"])),
    Operation {
        query: &[("name", "of a whole document; without it the body is one rule")],
        ..ask(
            "/api/v1/rules",
            "Adds or replaces a rule, or a document; refused whole where anything is wrong.",
            "JSON or YAML, as in a pipeline file",
            Object(&["rev"]),
        )
    },
    read(
        "/api/v1/rules/documents",
        "The documents that the rules are made of.",
        Object(&["rev", "documents"]),
    ),
    take_back("/api/v1/rules/{name}", "Removes a document that was added here.", &[], Object(&["rev"])),
    read("/api/v1/pipelines", "What is in flight, and where its time goes.", List("pipelines", None)),
    read("/api/v1/health", "How each pipeline does beside itself, 0 to 100.", List("health", None)),
    read("/api/v1/bottlenecks", "Stages, most of a pipeline's time first.", List("bottlenecks", None)),
    read("/api/v1/dead", "Events that were refused.", List("dead", None)),
    read("/api/v1/receivers", "Receivers: how they are.", List("receivers", None)),
    Operation {
        status: "200",
        ..ask(
            "/api/v1/receivers/{name}/redrive",
            "Delivers the dead letters of a receiver again.",
            "nothing",
            Object(&["messages"]),
        )
    },
];

pub(crate) async fn openapi(Params(Empty {}): Params<Empty>) -> Answer {
    Ok(json_response(StatusCode::OK, DOCUMENT.clone()))
}

/// The document is the same in every process and takes a millisecond to build, so it is built once.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// Builds the whole document, OpenAPI 3.1.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        paths.entry(operation.path).or_insert_with(|| json!({}))[operation.method] = operation.json();
    }
    let mut schemas = schema::components();
    schemas.insert("error".into(), error());
    json!({
        "openapi": "3.1.0",
        "info": {"title": "streamgauge", "version": env!("CARGO_PKG_VERSION"),
            "description": "Windows, alerts and pipelines; times are RFC 3339 in UTC."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"error": {"description": "Why not, and what to do.", "content": typed("error")}},
            // Tokens are required if the service listens on more than loopback.
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    })
}

fn error() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "required": ["error"], "properties": {"error": {"type": "object",
        "required": ["code", "message"], "properties": {"code": text, "message": text, "details": {}}}}})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn typed(name: &str) -> Value {
    json!({"application/json": {"schema": reference(name)}})
}

impl Operation {
    fn json(&self) -> Value {
        let mut json = json!({"summary": self.summary, "operationId": self.id(), "parameters": self.parameters(),
        "responses": {
            self.status: {"description": self.summary, "content": self.answer.content(self.path)},
            "default": {"$ref": "#/components/responses/error"},
        }});
        if let Some(body) = self.body {
            json["requestBody"] = json!({"description": body, "content": self.taken()});
        }
        json
    }

    /// The operation id, such as `get_api_v1_alerts_log`.
    fn id(&self) -> String {
        let words = self.path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty());
        [self.method].into_iter().chain(words).collect::<Vec<_>>().join("_")
    }

    fn taken(&self) -> Value {
        let event = reference("event");
        match self.path {
            "/api/v1/events" => json!({
                "application/json": {"schema": {"oneOf": [event, {"type": "array", "items": event}]}},
                "application/x-ndjson": {}, "application/msgpack": {},
            }),
            _ => json!({"application/json": {"schema": {"type": "object"}}}),
        }
    }

    fn parameters(&self) -> Vec<Value> {
        let text = json!({"type": "string"});
        let of_path = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let of_path =
            of_path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": text}));
        let of_query = self.query.iter().map(|(name, meaning)| {
            let is_needed = name.starts_with('!');
            json!({"name": name.trim_start_matches('!'), "in": "query", "required": is_needed,
                "description": meaning, "schema": text})
        });
        of_path.chain(of_query).collect()
    }
}

impl Shape {
    fn content(&self, path: &str) -> Value {
        match self {
            Shape::Text if path == "/" => json!({"text/html": {}}),
            Shape::Text => json!({"text/plain": {}}),
            // NDJSON: the schema describes one line.
            Shape::Lines(name) => typed(name),
            Shape::List(field, of) => {
                let items = of.map_or_else(|| json!({"type": "object"}), reference);
                let properties = json!({*field: {"type": "array", "items": items}});
                object(&[field], properties)
            }
            Shape::Object(fields) => object(fields, json!({})),
        }
    }
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"application/json": {"schema":
        {"type": "object", "required": required, "properties": properties}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Goal: the document lists exactly the routes that are served. Method: compares it with the route
    /// definitions in the source of `mod.rs`.
    #[test]
    fn each_route_stands_in_the_document_and_nothing_else() {
        let source = include_str!("mod.rs");
        let routes: BTreeSet<&str> = source
            .match_indices(".route(\"")
            .filter_map(|(at, begun)| source[at + begun.len()..].split('"').next())
            .collect();
        let documented: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.path).collect();
        assert_eq!(routes, documented);
        for path in &documented {
            let line = source.split_once(&format!(".route(\"{path}\"")).expect("found").1;
            let line = line.split(".route(").next().unwrap_or("");
            for method in ["get", "post", "delete"] {
                let is_here = OPERATIONS.iter().any(|one| one.path == *path && one.method == method);
                assert_eq!(line.contains(&format!("{method}(")), is_here, "{method} {path}");
            }
        }
    }

    #[test]
    fn all_that_it_refers_to_is_in_it() {
        let document = document();
        let text = document.to_string();
        let references = text.match_indices("\"$ref\":\"#").map(|(at, begun)| &text[at + begun.len()..]);
        let mut count = 0;
        for reference in references.filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
            count += 1;
        }
        assert!(count > OPERATIONS.len());
        let ids: BTreeSet<String> = OPERATIONS.iter().map(Operation::id).collect();
        assert_eq!(ids.len(), OPERATIONS.len(), "each has an id of its own");
    }
}
