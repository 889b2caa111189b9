//! Event payloads that are invalid or nearly so: with any codec, their cost stays in proportion to their
//! size.

use crate::bodies::{JSON, MSGPACK, NDJSON, between, list, metric, now_ms, numbered, repeat};
use crate::exchange::request;
use crate::limits::{Bounds, MIB, SIZES};
use crate::random::Random;
use crate::trial::Trial;

/// Makes a body of a given size.
pub type Make = fn(usize) -> Vec<u8>;

pub struct Body {
    pub name: &'static str,
    pub make: Make,
}

pub const fn body(name: &'static str, make: Make) -> Body {
    Body { name, make }
}

/// Each content type, and none.
const KINDS: [&str; 4] = [JSON, NDJSON, MSGPACK, ""];

/// Bodies for any endpoint: they are invalid in every format.
pub const JUNK: &[Body] = &[
    body("nothing", |_| Vec::new()),
    body("lines of x", |size| repeat("x\n", size)),
    body("an array of 1", |size| between("[", "1,", "1]", size)),
    body("an array of {}", |size| between("[", "{},", "{}]", size)),
    body("open brackets", |size| repeat("[", size)),
    body("open objects", |size| repeat(r#"{"a":"#, size)),
    body("closed brackets", |size| [repeat("[", size / 2), repeat("]", size / 2)].concat()),
    body("spaces", |size| repeat(" ", size)),
    body("line ends", |size| repeat("\n", size)),
    body("one text", |size| between("\"", "a", "\"", size)),
    body("escapes", |size| between("\"", "\\u0000", "\"", size)),
    body("a number", |size| repeat("9", size)),
    body("no UTF-8", |size| repeat(b"\xff", size)),
    body("zeros", |size| repeat(b"\0", size)),
    body("a key again and again", |size| between("{", r#""time":1,"#, r#""a":1}"#, size)),
    body("unknown keys", |size| {
        format!("{{{}}}", numbered(size - 2, ",", |n| format!(r#""k{n}":1"#))).into_bytes()
    }),
    body("unknown keys on lines", |size| numbered(size, "\n", |n| format!("k{n}: 1")).into_bytes()),
    body("one long key", |size| between("{\"", "k", "\":1}", size)),
    body("an alias bomb", |_| alias_bomb().into_bytes()),
];

/// Bodies that resemble events.
const EVENTS: &[Body] = &[
    body("a deep field", |size| {
        let inner = size.saturating_sub(40) / 2;
        [&br#"{"type":"metric","z":"#[..], &repeat("[", inner), &repeat("]", inner), b"}"].concat()
    }),
    body("one name", |size| metric("x", &"n".repeat(size - 100), "").into_bytes()),
    body("many labels", |size| {
        let (name, value) = ("x".repeat(200), "v".repeat(200));
        let labels = numbered(size - 120, ",", |n| format!(r#""l{n}{name}":"{value}""#));
        metric("x", "m", &format!(r#","labels":{{{labels}}}"#)).into_bytes()
    }),
    body("256 ignored keys an event", |size| {
        let keys: Vec<String> = (0..250).map(|n| format!(r#""k{n}":1"#)).collect();
        list(size, |_| metric("x", "m", &format!(",{}", keys.join(","))))
    }),
    body("columns of unequal length", |size| columns(size, "1", "[1]")),
    body("columns of texts", |size| columns(size, r#""a""#, r#"["a"]"#)),
    body("columns of null", |size| columns(size, "null", "[null]")),
    body("columns in many events", |size| {
        list(size, |_| r#"{"type":"samples","times":[1,1,"",""],"values":[]}"#.into())
    }),
    body("one sample again and again", |size| {
        let (count, time) = (size.saturating_sub(120) / 16, now_ms().to_string());
        let values = vec!["1"; count].join(",");
        let times = vec![time.as_str(); count].join(",");
        let of = r#"{"type":"samples","source":"x","name":"m""#;
        format!(r#"{of},"times":[{times}],"values":[{values}]}}"#).into_bytes()
    }),
    body("a long fraction", |size| {
        let time = format!("2026-11-30T00:00:00.{}Z", "1".repeat(size - 120));
        format!(r#"{{"type":"metric","time":"{time}","source":"x","name":"m","value":1}}"#).into_bytes()
    }),
    body("a long value", |size| {
        let of = format!(r#"{{"type":"metric","time":{},"source":"x","name":"m""#, now_ms());
        format!(r#"{of},"value":0.{}}}"#, "1".repeat(size - 120)).into_bytes()
    }),
    body("no UTF-8 in a text", |size| {
        [&br#"{"type":"metric","source":""#[..], &repeat(b"\xff", size - 40), br#""}"#].concat()
    }),
];

/// Nine aliases of nine aliases, twelve times: 282 billion texts.
pub fn alias_bomb() -> String {
    let letters: Vec<char> = ('a'..='m').collect();
    let mut text = format!("a: &a [{}]\n", ["x"; 9].join(", "));
    for two in letters.windows(2) {
        let (inner, outer) = (two[0], two[1]);
        let aliases = vec![format!("*{inner}"); 9].join(", ");
        text.push_str(&format!("{outer}: &{outer} [{aliases}]\n"));
    }
    text
}

fn columns(size: usize, time: &str, values: &str) -> Vec<u8> {
    let end = format!(r#"{time}],"values":{values}}}"#);
    between(r#"{"type":"samples","source":"x","name":"m","times":["#, &format!("{time},"), &end, size)
}

pub fn run(trial: &mut Trial, random: &mut Random) {
    for size in SIZES {
        for kind in KINDS {
            for body in JUNK.iter().chain(EVENTS) {
                let name = format!("events, {}: {}", named(kind), body.name);
                trial.events(&name, kind, &(body.make)(size));
            }
            by_chance(trial, random, kind, size);
        }
    }
    for body in JUNK.iter().filter(|body| ["lines of x", "an array of 1"].contains(&body.name)) {
        let bytes = request("POST", "/api/v1/events", &[("Content-Type", NDJSON)], &(body.make)(MIB));
        trial.repeated(&format!("events, again: {}", body.name), &bytes);
    }
    keys(trial);
}

fn named(kind: &str) -> &str {
    if kind.is_empty() { "no type" } else { kind }
}

/// Random bytes, and valid events of which a few bytes are changed.
fn by_chance(trial: &mut Trial, random: &mut Random, kind: &str, size: usize) {
    let noise = random.bytes(size);
    trial.events(&format!("events, {}: noise", named(kind)), kind, &noise);
    let mut damaged = list(size, |_| metric("x", "m", r#","labels":{"a":"b"}"#));
    for _ in 0..1 + size / 1_000 {
        let at = random.below(damaged.len());
        damaged[at] = random.below(256) as u8;
    }
    trial.events(&format!("events, {}: damaged", named(kind)), kind, &damaged);
}

/// Idempotency keys of several lengths, and many of them.
fn keys(trial: &mut Trial) {
    for length in [1, 256, 257, 10_000, 60_000] {
        let key = "k".repeat(length);
        let headers = [("Content-Type", JSON), ("Idempotency-Key", key.as_str())];
        let name = format!("events, a key of {length} bytes");
        trial.events_with(&name, &headers, metric("x", "m", "").as_bytes());
    }
    for number in 0..30 {
        let key = format!("k-{number}");
        let headers = [("Content-Type", NDJSON), ("Idempotency-Key", key.as_str())];
        let lines = [metric("x", "m", "").as_bytes(), b"\n", &repeat("x\n", 100 << 10)].concat();
        trial.events_with("events, a key with a long answer", &headers, &lines);
    }
    let first = metric("x", "m", r#","id":"1""#);
    let again = |body: &str| {
        let headers = [("Content-Type", JSON), ("Idempotency-Key", "same")];
        request("POST", "/api/v1/events", &headers, body.as_bytes())
    };
    let bounds = Bounds::post(first.len());
    for (body, wanted) in [(first.as_str(), 202), (first.as_str(), 202), ("{}", 422)] {
        trial.case("events, one key", bounds, |address| {
            crate::trial::ask(address, &again(body), |status| status == wanted)
        });
    }
}
