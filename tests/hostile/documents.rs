//! Documents that users send: rules, silences, maintenance windows, acknowledgements.

use crate::bodies::{between, numbered, repeat};
use crate::events::{Body, JUNK, alias_bomb, body};
use crate::exchange::{exchange, request};
use crate::limits::{Bounds, HANG, SIZES};
use crate::random::Random;
use crate::trial::{Trial, ask};
use serde_json::json;

const YAML: &str = "application/yaml";
const RULE: &str = "/api/v1/rules";
const RULES: &str = "/api/v1/rules?name=hostile";

/// Expressions of one rule.
const EXPRESSIONS: &[Body] = &[
    body("a chain of numbers", |size| between("", "1+", "1 > 1", size)),
    body("a chain of aggregates", |size| between("", "max(m[10s]) + ", "max(m[10s]) > 1", size)),
    body("a chain of `and`", |size| between("", "max(m[10s]) > 1 and ", "max(m[10s]) > 1", size)),
    body("open parentheses", |size| repeat("(", size)),
    body("nested parentheses", |size| {
        [repeat("(", size / 2), b"1 > 1".to_vec(), repeat(")", size / 2)].concat()
    }),
    body("signs", |size| between("", "-", "1 > 1", size)),
    body("nested functions", |size| repeat("abs(", size)),
    body("many keys", |size| {
        format!("max(m[10s]) by ({}) > 1", numbered(size, ",", |n| format!("l{n}"))).into_bytes()
    }),
    body("many matchers", |size| {
        format!("max(m{{{}}}[10s]) > 1", numbered(size, ",", |n| format!(r#"l{n}="x""#))).into_bytes()
    }),
    body("many regexes", |size| {
        let regexes = numbered(size.min(2_000), ",", |n| format!(r#"l{n}=~"\\w{{1,99}}""#));
        format!("max(m{{{regexes}}}[10s]) > 1").into_bytes()
    }),
    body("a huge regex", |_| br#"max(m{a=~"(a{1,1000}){1,1000}"}[10s]) > 1"#.to_vec()),
    body("a long regex", |size| between(r#"max(m{a=~""#, "a|", r#""}[10s]) > 1"#, size)),
    body("a deep regex", |size| between(r#"max(m{a=~""#, "(", r#""}[10s]) > 1"#, size)),
    body("quotes", |size| repeat("\"", size)),
    body("zeros", |size| repeat("\0", size)),
];

/// Whole documents.
const DOCUMENTS: &[Body] = &[
    body("unknown keys on one line", |size| {
        format!("{{{}}}", numbered(size, ", ", |n| format!("k{n}: 1"))).into_bytes()
    }),
    body("unknown keys in a rule", |size| {
        let keys = numbered(size, ", ", |n| format!("k{n}: 1"));
        format!("version: 1\nrules: [{{ id: x, {keys} }}]\n").into_bytes()
    }),
    body("bad rules", |size| between("version: 1\nrules: [", "{ id: x }, ", "{}]", size)),
    body("one rule again and again", |size| rules(size, |_| "same".into())),
    body("many rules", |size| rules(size.min(64 << 10), |n| format!("r{n}"))),
    body("many pipelines", |size| {
        let lines = numbered(size.min(64 << 10), "\n", |n| format!("  p{n}: {{ stages: [a, b] }}"));
        format!("version: 1\npipelines:\n{lines}\n").into_bytes()
    }),
    body("a wide alias", |size| {
        let text = "x".repeat(size / 2);
        format!("a: &a \"{text}\"\nb: [{}]\n", ["*a"].repeat(size / 8).join(",")).into_bytes()
    }),
    body("a deep block", |size| {
        let depth = (2.0 * size as f64).sqrt() as usize;
        (0..depth).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>().into_bytes()
    }),
    body("a deep list", |size| repeat("- ", size)),
    body("deep keys", |size| repeat("? ", size)),
    body("deep maps", |size| repeat("{a: ", size)),
    body("anchors", |size| numbered(size, "\n", |n| format!("- &a{n} x")).into_bytes()),
    body("documents", |size| repeat("---\n", size)),
    body("one key again and again", |size| repeat("a: 1\n", size)),
    body("merges", |size| between("a: &a { x: 1 }\n", "<<: *a\n", "", size)),
    body("a block of text", |size| between("a: |\n", "  x\n", "", size)),
    body("lines in quotes", |size| between("a: \"", "\n", "\"", size)),
    body("comments", |size| repeat("#\n", size)),
    body("tabs", |size| repeat("\t", size)),
    body("tags", |size| repeat("!", size)),
    body("stars", |size| repeat("*", size)),
    body("colons", |size| repeat(":", size)),
    body("directives", |size| repeat("%YAML 1.2\n", size)),
    body("keys without colons", |size| repeat("\"a\" ", size)),
];

fn rules(size: usize, id: fn(usize) -> String) -> Vec<u8> {
    let of = "expr: 'max(m[10s]) by (source) > 1', severity: warning";
    let rule = |n: usize| format!("  - {{ id: {}, {of} }}", id(n));
    format!("version: 1\nrules:\n{}\n", numbered(size, "\n", rule)).into_bytes()
}

pub fn run(trial: &mut Trial, random: &mut Random) {
    for size in SIZES {
        for expression in EXPRESSIONS {
            let text = String::from_utf8_lossy(&(expression.make)(size)).into_owned();
            let rule = json!({"id": "hostile", "expr": text, "severity": "warning"}).to_string();
            send(trial, RULE, &format!("a rule of {}", expression.name), rule.as_bytes());
        }
        for document in DOCUMENTS.iter().chain(JUNK) {
            send(trial, RULES, &format!("rules: {}", document.name), &(document.make)(size));
        }
        fields(trial, size);
        for path in ["/api/v1/silences", "/api/v1/maintenance", "/api/v1/maintenance/preview"] {
            for document in JUNK {
                send(trial, path, &format!("{path}: {}", document.name), &(document.make)(size));
            }
            muted(trial, path, size);
        }
        for document in JUNK {
            let name = format!("an acknowledgement: {}", document.name);
            send(trial, "/api/v1/alerts/ack", &name, &(document.make)(size));
        }
        send(trial, RULES, "rules: noise", &random.bytes(size));
    }
    let bomb = request("POST", RULES, &[("Content-Type", YAML)], alias_bomb().as_bytes());
    trial.repeated("rules, again: an alias bomb", &bomb);
}

/// Sends a document. Accepted rules are removed again.
fn send(trial: &mut Trial, path: &str, name: &str, document: &[u8]) {
    let bytes = request("POST", path, &[("Content-Type", YAML)], document);
    let status = trial.request(name, &bytes, Bounds::post(document.len()));
    if status == 202 && path.starts_with(RULE) {
        let _ = exchange(trial.address(), &request("DELETE", "/api/v1/rules/hostile", &[], &[]), HANG);
    }
}

/// Documents with one overlong field of a rule.
fn fields(trial: &mut Trial, size: usize) {
    let long = "x".repeat(size);
    let labels: serde_json::Map<_, _> = (0..size / 12).map(|n| (format!("l{n}"), json!("x"))).collect();
    let changes = [
        ("id", json!(long)),
        ("summary", json!("{{ value }}".repeat(size / 11))),
        ("summary", json!(format!("{{{{ {} }}}}", "(".repeat(size)))),
        ("runbook", json!(long)),
        ("labels", json!(labels)),
        ("severity", json!(long)),
        ("for", json!("9".repeat(size))),
        ("actions", json!(vec!["a"; size / 4])),
    ];
    for (field, value) in changes {
        let mut rule = json!({"id": "hostile", "expr": "max(m[10s]) > 1", "severity": "warning"});
        rule[field] = value;
        send(trial, RULE, &format!("a rule with a long `{field}`"), rule.to_string().as_bytes());
    }
}

/// Silences and maintenance windows that are excessive in one respect.
fn muted(trial: &mut Trial, path: &str, size: usize) {
    let long = "x".repeat(size);
    let regexes: Vec<String> = (1..(size / 20).min(70)).map(|n| format!(r#"a=~"\\w{{{n}}}""#)).collect();
    let date = |n: usize| format!("{}-{:02}-28", 2_000 + n / 12, 1 + n % 12);
    let dates: Vec<String> = (0..size / 13).map(date).collect();
    let minutes = numbered(size, ",", |n| (n % 60).to_string());
    let changes = [
        ("match", json!(vec![r#"a="b""#; size / 9])),
        ("match", json!([vec![r#"a="b""#; size / 6].join(",")])),
        ("match", json!([r#"a=~"(a{1,1000}){1,1000}""#])),
        ("match", json!(regexes)),
        // Without the final `a` the pattern would match an empty label and mute every alert.
        ("match", json!([format!(r#"a=~"{}a""#, "a|".repeat(size / 2))])),
        ("match", json!(["\"".repeat(size)])),
        ("match", json!(["{".repeat(size)])),
        ("reason", json!(long)),
        ("by", json!(long)),
        ("id", json!(long)),
        ("end", json!("9".repeat(size))),
        ("schedule", json!("* * * * *")),
        ("schedule", json!("0 0 31 2 *")),
        ("schedule", json!("0 0 29 2 MON")),
        ("schedule", json!(format!("{minutes} * * * *"))),
        ("except", json!(dates)),
        ("tz", json!(long)),
        ("duration", json!("99999h")),
    ];
    for (number, (field, value)) in changes.into_iter().enumerate() {
        let mut asked = json!({"match": [r#"a="b""#], "by": "x", "duration": "1h"});
        if path.contains("maintenance") {
            asked["schedule"] = json!("0 22 * * FRI");
        }
        asked[field] = value;
        send(trial, path, &format!("{path}: `{field}`, way {number}"), asked.to_string().as_bytes());
    }
}

/// Silences whose matchers take long, while many alerts fire: each alert is compared with each silence.
pub fn costly_silences(trial: &mut Trial, random: &mut Random) {
    trial.prepare(|n| {
        let time = crate::bodies::now_ms();
        let source = format!("{}{n}", random.letters(200));
        format!(r#"{{"type":"metric","time":{time},"source":"{source}","name":"load","value":90}}"#)
    });
    for number in 0..SILENCES_TAKEN {
        let bytes = costly_silence(number);
        let bounds = Bounds::post(bytes.len());
        let is_taken = |status| status == 202;
        trial.case("a costly silence", bounds, |address| ask(address, &bytes, is_taken));
    }
    let bytes = costly_silence(SILENCES_TAKEN);
    let is_refused = |status| status == 409;
    let bounds = Bounds::post(bytes.len());
    trial.case("a costly silence too many", bounds, |address| ask(address, &bytes, is_refused));
}

/// Number of costly silences that are accepted together: 16 MiB in total, with 3.75 MiB each,
/// because compiling each of the 30 expressions takes up to 128 KiB.
const SILENCES_TAKEN: usize = 4;

fn costly_silence(number: usize) -> Vec<u8> {
    let matchers = vec![format!(r#"source=~"(.*a){{8}}.*b.*(c|d).{{5}}{number}""#); 30];
    let silence = json!({"id": format!("costly-{number}"), "match": matchers, "by": "x"}).to_string();
    request("POST", "/api/v1/silences", &[("Content-Type", YAML)], silence.as_bytes())
}
