//! Queries, and all other operations of the OpenAPI document: a new operation is tested without a change
//! here.

use crate::bodies::{metric, metric_before, stage};
use crate::crowds::crowd;
use crate::events::JUNK;
use crate::exchange::{exchange, get, request};
use crate::limits::{Bounds, HANG, SIZES};
use crate::random::Random;
use crate::trial::{Trial, ask, is_answer};
use serde_json::Value;

/// Values that no parameter expects, as encoded in a query.
const ABSURD: [&str; 30] = [
    "",
    "0",
    "-1",
    "1",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1e400",
    "NaN",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "1793491200",
    "-999999h",
    "-99999999999999999999h",
    "-0h",
    "now",
    "1h",
    "true",
    "firing",
    "resolved",
    "%00",
    "%FF%FE",
    "%F0%9F%98%80",
    "%E2%80%AE",
    "..%2F..%2Fetc%2Fpasswd",
    "*",
    "+",
    "%7B%7D",
    "m%7Bsource!%3D%22x%22%7D",
    "m%7Ba%3D~%22(a%7B1,1000%7D)%7B1,1000%7D%22%7D",
];

/// Pieces of long values: letters, quotes, parentheses, matchers.
const PIECES: [&str; 5] = ["a", "%22", "(", "a%3D%22b%22,", "%5B"];

/// Bytes of a long value: the head of a request may have 64 KiB.
const VALUE_BYTES: usize = 60_000;

/// Queries over much data.
const WIDE: [&str; 14] = [
    "/api/v1/series",
    "/api/v1/series?limit=99999999",
    "/api/v1/series?match=%7Bsource%3D~%22.*%22%7D",
    "/api/v1/series?match=%7Bsource%3D~%22(.*.*.*.*.*)*x%22%7D",
    "/api/v1/windows?name=m&from=-24h",
    "/api/v1/windows?name=n",
    "/api/v1/windows?name=m&window=1h&from=0000-01-01T00:00:00Z&to=9999-12-31T23:59:59Z",
    "/api/v1/windows?name=m&from=0000-01-01T00:00:00Z&to=0001-01-01T00:00:00Z",
    "/api/v1/windows?name=m&from=9999-12-31T23:59:59Z&to=0000-01-01T00:00:00Z",
    "/api/v1/windows?nothing=x",
    "/api/v1/pipelines",
    "/api/v1/health",
    "/api/v1/bottlenecks",
    "/",
];

/// An operation of the document.
struct Operation {
    method: String,
    path: String,
    /// Names of the query parameters, and whether each is required.
    query: Vec<(String, bool)>,
    /// Content types of the body.
    kinds: Vec<String>,
}

pub fn run(trial: &mut Trial, random: &mut Random) {
    fill(trial, random);
    for path in WIDE {
        trial.request(path, &get(path), Bounds::get(path.len()));
    }
    let operations = operations(trial);
    assert!(operations.len() > 10, "the document names only {} operations", operations.len());
    for operation in &operations {
        match operation.method.as_str() {
            "GET" => operation.ask(trial),
            "DELETE" => operation.take_back(trial),
            _ => operation.send(trial),
        }
        operation.come_from_elsewhere(trial);
    }
}

/// Fills the service with series with windows, many without, long labels and pipelines.
fn fill(trial: &mut Trial, random: &mut Random) {
    trial.prepare(|n| metric_before(&format!("w-{}", n % 300), "m", n as i64 / 300 % 50 * 60_000));
    for round in 0..2 {
        trial.prepare(|n| metric(&format!("n-{round}-{n}"), "n", ""));
        trial.prepare(|n| metric(&format!("l-{round}-{n}"), "long", &labelled(&random.letters(250))));
    }
    trial.prepare(|n| stage(&format!("p{}", n % 2_000), &format!("r{n}"), "s", "started", ""));
}

fn labelled(value: &str) -> String {
    format!(r#","labels":{{"l":"{value}"}}"#)
}

/// Queries that are compared with every series at a high cost each.
pub fn costly(trial: &mut Trial, random: &mut Random) {
    fill(trial, random);
    let labels: Vec<String> = (0..8_000).map(|n| format!("l{n}=x")).collect();
    let selector = "/api/v1/series?match=long%7Bl%3D~%22%5Bab%5D*a%5Bab%5D%7B80%7Dc%22%7D";
    let matcher = "l!~%22%5Bab%5D*a%5Bab%5D%7B80%7Dc%22";
    let questions = [
        format!("/api/v1/windows?{}", labels.join("&")),
        format!("/api/v1/explain?rule=hot&{}", labels.join("&")),
        selector.to_string(),
        format!("/api/v1/series?match=long%7B{}%7D", [matcher].repeat(60).join(",")),
    ];
    for question in questions {
        let shown: String = question.chars().take(80).collect();
        let bounds = Bounds::get(question.len());
        trial.case(&shown, bounds, |address| ask(address, &get(&question), is_answer));
        crowd(trial, &format!("20 times at once: {shown}"), &get(&question), 20, bounds);
    }
}

fn operations(trial: &Trial) -> Vec<Operation> {
    let answer = exchange(trial.address(), &get("/openapi.json"), HANG).expect("the document");
    let document: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").iter();
    let all = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").iter();
        methods.map(move |(method, operation)| Operation::of(method, path, operation))
    });
    all.collect()
}

impl Operation {
    fn of(method: &str, path: &str, document: &Value) -> Operation {
        let parameters = document["parameters"].as_array().into_iter().flatten();
        let query = parameters.filter(|parameter| parameter["in"] == "query").map(|parameter| {
            let name = parameter["name"].as_str().unwrap_or("").to_string();
            (name, parameter["required"] == true)
        });
        let kinds = document["requestBody"]["content"].as_object().into_iter().flatten();
        Operation {
            method: method.to_uppercase(),
            path: path.to_string(),
            query: query.collect(),
            kinds: kinds.map(|(kind, _)| kind.clone()).collect(),
        }
    }

    /// The path with `name` in place of each parameter.
    fn path_of(&self, name: &str) -> String {
        let parts = self.path.split('/').map(|part| if part.starts_with('{') { name } else { part });
        parts.collect::<Vec<_>>().join("/")
    }

    /// A query in which one parameter has this value, and each other required parameter has some value.
    fn query(&self, parameter: &str, value: &str) -> String {
        let others = self.query.iter().filter(|(name, is_needed)| *is_needed && name != parameter);
        let others: String = others.map(|(name, _)| format!("&{name}=hot")).collect();
        format!("{}?{parameter}={value}{others}", self.path_of("x"))
    }

    fn ask(&self, trial: &mut Trial) {
        self.refuses(trial, "an unknown parameter", &self.query("no_such_parameter", "1"));
        for (name, _) in &self.query {
            let long = PIECES.map(|piece| piece.repeat(VALUE_BYTES / piece.len()));
            for value in ABSURD.into_iter().chain(long.iter().map(String::as_str)) {
                let path = self.query(name, value);
                let shown: String = path.chars().take(80).collect();
                trial.request(&shown, &get(&path), Bounds::get(path.len()));
            }
            let twice = self.query(name, &format!("a&{name}=a"));
            self.refuses(trial, "a parameter that is there twice", &twice);
        }
    }

    fn refuses(&self, trial: &mut Trial, what: &str, path: &str) {
        // An endpoint that accepts labels as parameters answers 404, because no series has this label.
        let is_right = |status: u16| status == 400 || status == 404;
        let bounds = Bounds::get(path.len());
        trial.case(&format!("{what}: {path}"), bounds, |address| ask(address, &get(path), is_right));
    }

    fn take_back(&self, trial: &mut Trial) {
        let long = "a".repeat(VALUE_BYTES / 2);
        for name in ["x", "%00", "%FF", "%2F..", "..", "%E2%80%AE", long.as_str()] {
            let path = format!("{}?by=x", self.path_of(name));
            let shown: String = path.chars().take(80).collect();
            trial.request(&shown, &request("DELETE", &path, &[], &[]), Bounds::post(path.len()));
        }
    }

    /// Sends junk of each content type, small and large. Payloads of events have their own cases.
    fn send(&self, trial: &mut Trial) {
        if self.path == "/api/v1/events" {
            return;
        }
        let path = self.path_of("x");
        for kind in self.kinds.iter().map(String::as_str).chain([""]) {
            for size in [SIZES[0], SIZES[2]] {
                for body in JUNK {
                    let bytes = request(&self.method, &path, &[("Content-Type", kind)], &(body.make)(size));
                    let name = format!("{} {path}, {kind}: {}", self.method, body.name);
                    trial.request(&name, &bytes, Bounds::post(size));
                }
            }
        }
    }

    /// Requests from foreign origins and with foreign host names must be refused, whatever they ask for.
    fn come_from_elsewhere(&self, trial: &mut Trial) {
        let path = self.path_of("x");
        let plain = request(&self.method, &path, &[("Content-Type", "application/json")], b"");
        let plain = String::from_utf8_lossy(&plain).into_owned();
        let foreign = [
            plain.replacen("Host: 127.0.0.1", "Host: gauge.evil.example", 1),
            plain.replacen("Host: 127.0.0.1", "Host: 127.0.0.1\r\nOrigin: https://evil.example", 1),
            plain.replacen("Host: 127.0.0.1", "Host: 127.0.0.1\r\nOrigin: null", 1),
        ];
        for bytes in foreign {
            let name = format!("{} {path} of a stranger's page or name", self.method);
            trial.case(&name, Bounds::post(bytes.len()), |address| {
                ask(address, bytes.as_bytes(), |status| status == 403)
            });
        }
    }
}
