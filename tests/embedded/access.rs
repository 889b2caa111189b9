//! Tokens and roles over HTTP, as configured in a file.

use super::answer::{Answer, ask};
use super::edge::now_ms;
use super::rules;
use super::service::{Service, binary, spawn};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tokens of the configuration: name, role and secret of each.
const TOKENS: [(&str, &str, &str); 3] = [
    ("wall", "view", "view-0123456789abcdef"),
    ("ann", "operate", "operate-0123456789abcdef"),
    ("root", "admin", "admin-0123456789abcdef"),
];

/// The status of a request without a token, with a wrong one, and with each of [`TOKENS`].
type Wanted = [u16; 5];

const FOR_ALL: Wanted = [200; 5];
const TO_VIEW: Wanted = [401, 401, 200, 200, 200];
const TO_OPERATE: Wanted = [401, 401, 403, 202, 202];
const TO_ADMINISTER: Wanted = [401, 401, 403, 403, 202];

fn config(dir: &Path, more: &str) -> PathBuf {
    let token = |(name, role, _): &(&str, &str, &str)| {
        format!("  - {{ name: {name}, role: {role}, token: 'env:TOKEN_OF_{name}' }}\n")
    };
    let path = dir.join("streamgauge.yaml");
    let text = format!("tokens:\n{}{more}", TOKENS.iter().map(token).collect::<String>());
    std::fs::write(&path, text).expect("writable");
    path
}

/// The service with these tokens, of which `ann` has another secret.
fn command(dir: &Path, more: &str, of_ann: &str) -> Command {
    let mut command = binary();
    command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(config(dir, more)).arg("--data-dir");
    command.arg(dir.join("data")).arg("--pipelines").arg(rules(dir));
    command.envs(TOKENS.iter().map(|(name, _, secret)| (format!("TOKEN_OF_{name}"), *secret)));
    command.env("TOKEN_OF_ann", of_ann);
    command
}

fn with_token(
    service: &Service,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&str>,
) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    ask(method, &format!("{}{path}", service.url), &headers, body)
}

/// Sends the same request with each token.
fn statuses(service: &Service, method: &str, path: &str, body: Option<&str>) -> Wanted {
    let tokens =
        [None, Some("wrong-0123456789abcdef"), Some(TOKENS[0].2), Some(TOKENS[1].2), Some(TOKENS[2].2)];
    tokens.map(|token| with_token(service, method, path, token, body).status)
}

/// Goal: a role allows its own operations and nothing above it; only probes answer without a token; a
/// change is recorded under the name of the token, whatever the request states. Method: requests of each
/// kind with every token.
#[test]
fn a_token_opens_what_its_role_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = spawn(command(dir.path(), "", TOKENS[1].2));
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "a", "name": "b", "value": 1}).to_string();
    let silence =
        json!({"id": "s1", "match": ["source=\"a\""], "duration": "1h", "by": "mallory", "reason": "known"});
    let plan = json!({"match": ["source=\"a\""], "schedule": "0 0 * * *", "duration": "1h", "by": "mallory"});
    let rule = json!({"id": "added", "expr": "max(x[1m]) by (source) > 5", "severity": "info"}).to_string();
    let (silence, plan) = (silence.to_string(), plan.to_string());
    let check = |method: &str, path: &str, body: Option<&str>, wanted: Wanted| {
        assert_eq!(statuses(&service, method, path, body), wanted, "{method} {path}");
    };
    for path in ["/healthz", "/readyz"] {
        check("GET", path, None, FOR_ALL);
    }
    for path in ["/metrics", "/", "/openapi.json", "/api/v1/alerts", "/api/v1/silences", "/api/v1/receivers"]
    {
        check("GET", path, None, TO_VIEW);
    }
    check("POST", "/api/v1/maintenance/preview", Some(plan.as_str()), TO_VIEW);
    check("POST", "/api/v1/events", Some(event.as_str()), TO_OPERATE);
    check("POST", "/api/v1/maintenance", Some(plan.as_str()), TO_OPERATE);
    check("POST", "/api/v1/rules", Some(rule.as_str()), TO_ADMINISTER);
    check("DELETE", "/api/v1/rules/nobody", None, [401, 401, 403, 403, 404]);
    check("GET", "/nothing", None, [401, 401, 404, 404, 404]);
    let operator = Some(TOKENS[1].2);
    assert_eq!(
        with_token(&service, "POST", "/api/v1/silences", operator, Some(silence.as_str())).status,
        202
    );
    let shown = with_token(&service, "GET", "/api/v1/silences", Some(TOKENS[0].2), None).json();
    assert_eq!(shown["silences"][0]["by"], "ann", "{shown}");
    check("DELETE", "/api/v1/silences/s1?by=mallory", None, [401, 401, 403, 202, 404]);
    let denied = with_token(&service, "GET", "/api/v1/alerts", None, None);
    assert!(denied.message().contains("Bearer"), "{denied:?}");
    let denied =
        with_token(&service, "POST", "/api/v1/events", Some(TOKENS[0].2), Some(event.as_str())).message();
    assert!(denied.contains("view") && denied.contains("operate"), "{denied}");
    assert_eq!(service.stop(), Some(0));
}

/// Goal: an operator may make the metrics public, and nothing else with them.
#[test]
fn metrics_are_public_where_the_configuration_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = spawn(command(dir.path(), "metrics_public: true\n", TOKENS[1].2));
    assert_eq!(statuses(&service, "GET", "/metrics", None), FOR_ALL);
    assert_eq!(statuses(&service, "GET", "/api/v1/alerts", None), TO_VIEW);
    assert_eq!(service.stop(), Some(0));
}

/// Goal: a weak or missing token is a configuration error: exit code 78, and a message that names the token
/// without its secret.
#[test]
fn a_weak_token_is_a_bad_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let is_refused = |command: &mut Command, words: &[&str]| {
        let output = command.output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        said
    };
    for weak in ["sh0rt", "", "                "] {
        let said = is_refused(&mut command(dir.path(), "", weak), &["`ann`"]);
        assert!(!said.contains("sh0rt"), "{said}");
    }
    is_refused(command(dir.path(), "", TOKENS[1].2).env_remove("TOKEN_OF_ann"), &["`ann`", "TOKEN_OF_ann"]);
    let twice = |names: [&str; 2], secrets: [&str; 2]| {
        let token =
            |at: usize| format!("  - {{ name: {}, role: view, token: 'env:TOKEN_{at}' }}\n", names[at]);
        let config = dir.path().join("twice.yaml");
        std::fs::write(&config, format!("tokens:\n{}{}", token(0), token(1))).expect("writable");
        let mut command = binary();
        command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(config);
        command.env("TOKEN_0", secrets[0]).env("TOKEN_1", secrets[1]);
        command
    };
    let (one, other) = ("one secret of many letters", "another of as many letters");
    let said = is_refused(&mut twice(["ann", "ben"], [one, one]), &["`ann`", "`ben`", "same secret"]);
    assert!(!said.contains(one), "{said}");
    is_refused(&mut twice(["ann", "ann"], [one, other]), &["`ann`", "a name of its own"]);
    let mut plain = binary();
    plain.args(["run", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join("other"));
    let said = is_refused(plain.env("STREAMGAUGE_TOKEN", "sh0rt"), &["STREAMGAUGE_TOKEN"]);
    assert!(!said.contains("sh0rt"), "{said}");
    let mut open = binary();
    open.args(["run", "--listen", "0.0.0.0:0", "--data-dir"]).arg(dir.path().join("other"));
    is_refused(&mut open, &["0.0.0.0", "token"]);
    let wrong = json!({"tokens": [{"name": "a", "role": "king", "token": "env:X"}]}).to_string();
    std::fs::write(dir.path().join("wrong.yaml"), wrong).expect("writable");
    let mut wrong = binary();
    wrong.args(["run", "--config"]).arg(dir.path().join("wrong.yaml"));
    is_refused(&mut wrong, &["king"]);
    assert!(!dir.path().join("other").exists(), "a refused configuration leaves nothing behind");
}
