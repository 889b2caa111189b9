//! Receivers against real targets: Alertmanager, a mail server, a stream of another subject.

use crate::edge::{now_ms, wait_for_early_in_pane};
use crate::servers::{Process, Servers, Worker, certificates, free_port, spawn, wait_for, wait_with_log};
use crate::sink::{Reply, Sink};
use crate::snippets::python;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// Sends enough events for the rule `busy` to fire; it ends by itself some seconds later.
fn burst(worker: &Worker) {
    wait_for_early_in_pane();
    let event = json!({"type": "samples", "source": "<b>checkout</b>", "name": "latency_ms",
        "times": vec![now_ms(); 250], "values": vec![1; 250]});
    let sent = ureq::post(format!("{}/api/v1/events", worker.url)).send(event.to_string());
    assert_eq!(sent.expect("accepted").status(), 202);
}

/// A worker whose receivers in `told` are notified of the rule `busy`, each in a group of its own.
fn worker(servers: &Servers, receivers: &str, told: &[&str]) -> Worker {
    let route =
        |name: &&str| format!("    - {{ receiver: {name}, matchers: ['rule=\"busy\"'], continue: true }}\n");
    let routes: String = told.iter().map(route).collect();
    let config = servers.dir.path().join("streamgauge.yaml");
    let text = format!(
        "receivers:\n{receivers}
route:
  receiver: log
  group_wait: 0s
  group_by: [rule, source]
  group_interval: 1s
  routes:\n{routes}"
    );
    std::fs::write(&config, text).expect("writable");
    let mut command = servers.command("3s", 1);
    command.arg("--config").arg(config).env("MAIL_PASSWORD", "secret");
    let worker = Worker::start(command);
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    worker
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

struct Mail {
    port: u16,
    path: PathBuf,
    _process: Process,
}

fn mail_server(dir: &Path, mode: &[&str]) -> Mail {
    let (port, path) = (free_port(), dir.join(format!("mails{}", mode.concat())));
    let mut command = Command::new(python());
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/mail.py")).arg(port.to_string());
    command.arg(dir).arg(&path).args(mode);
    let _process = spawn(command);
    wait_with_log("the mail server", &Mutex::default(), || TcpStream::connect(("127.0.0.1", port)).ok());
    Mail { port, path, _process }
}

fn email(name: &str, mail: &Mail, dir: &Path, rest: &str) -> String {
    let ca = dir.join("ca.pem");
    format!(
        "  - {{ name: {name}, email: {{ host: localhost, port: {}, ca: {ca:?}, from: 'gauge <gauge@example.com>', \
         allow: [127.0.0.0/8, '::1'], username: me, password: 'env:MAIL_PASSWORD', {rest} }} }}\n",
        mail.port
    )
}

/// Goal: a mail is sent over a secure connection only, as text and HTML with all markup escaped; the end is
/// in the thread of the firing; a mail with a temporary refusal is sent again, once.
#[test]
fn mails_arrive_in_one_thread() {
    let servers = Servers::start("everysec");
    let dir = servers.dir.path();
    certificates(dir);
    let mail = mail_server(dir, &[]);
    let told = worker(
        &servers,
        &email("told", &mail, dir, "to: ['ops@example.com', 'later@example.com']"),
        &["told"],
    );
    burst(&told);
    let mails = wait_for("two mails", &told, || Some(json_lines(&mail.path)).filter(|all| all.len() == 2));
    let header = |at: usize, name: &str| mails[at]["headers"][name].as_str().unwrap_or_default().to_string();
    assert!(header(0, "subject").starts_with("[INFO] busy"), "{mails:#?}");
    assert!(header(1, "subject").starts_with("[RESOLVED] busy"), "{mails:#?}");
    assert_eq!(header(0, "in-reply-to"), header(1, "in-reply-to"));
    assert_ne!(header(0, "message-id"), header(1, "message-id"));
    assert_eq!(header(1, "auto-submitted"), "auto-generated");
    for mail in &mails {
        assert_eq!((&mail["tls"], mail["to"].as_array().map(Vec::len)), (&json!(true), Some(2)));
        let (plain, html) = (mail["plain"].as_str().expect("text"), mail["html"].as_str().expect("HTML"));
        assert!(plain.contains("<b>checkout</b>") && !html.contains("<b>checkout"), "{plain}{html}");
    }
    assert_eq!(told.stop(), Some(0));
}

fn notify_test(dir: &Path, receivers: &str, password: &str) -> Output {
    let config = dir.join("try.yaml");
    std::fs::write(&config, format!("receivers:\n{receivers}route: {{ receiver: mail }}\n"))
        .expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["notify", "test", "mail", "--by", "ann", "--config"]).arg(config);
    command.env("MAIL_PASSWORD", password).output().expect("it runs")
}

/// Goal: a refusal of the mail server is reported in its words with an explanation, and no password is sent
/// over an insecure connection.
#[test]
fn what_a_mail_server_refuses_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    certificates(dir);
    let (closed, open) = (mail_server(dir, &[]), mail_server(dir, &["open"]));
    let said = |mail: &Mail, rest: &str, password: &str| {
        let output = notify_test(dir, &email("mail", mail, dir, rest), password);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, fine) = said(&closed, "to: ['ops@example.com']", "secret");
    assert_eq!((code, json_lines(&closed.path).len()), (Some(0), 2), "{fine}");
    let refused = |mail: &Mail, rest: &str, password: &str, why: &str| {
        let (code, said) = said(mail, rest, password);
        assert!(code == Some(1) && said.contains(why), "{why}: {said}");
        assert!(!said.contains(password), "{said}");
    };
    refused(&closed, "to: ['nobody@example.com']", "secret", "550");
    refused(
        &closed,
        "to: ['nobody@example.com', 'ops@example.com']",
        "secret",
        "nobody@example.com: it answered 550",
    );
    assert_eq!(
        json_lines(&closed.path).pop().map(|mail| mail["to"].clone()),
        Some(json!(["ops@example.com"]))
    );
    refused(&closed, "to: ['ops@example.com']", "wr0ng", "535");
    refused(&open, "to: ['ops@example.com']", "secret", "STARTTLS");
    // A server that accepts the connection and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let silent = Mail { port, path: dir.join("none"), _process: mail_server(dir, &["open"])._process };
    refused(&silent, "to: ['ops@example.com'], timeout: 300ms", "secret", "no answer in time");
    // A certificate without a trusted authority.
    std::fs::rename(dir.join("ca.pem"), dir.join("own.pem")).expect("writable");
    std::fs::copy(dir.join("server.pem"), dir.join("ca.pem")).expect("writable");
    refused(&closed, "to: ['ops@example.com']", "secret", "invalid peer certificate");
    assert_eq!(json_lines(&closed.path).len(), 3);
}

/// Goal: firing alerts are in Alertmanager, ended ones are removed, and alerts of a sender that died
/// expire; the webhook of Alertmanager and that of this service have the same shape and the same labels.
#[test]
fn alertmanager_knows_what_fires() {
    let servers = Servers::start("everysec");
    let dir = servers.dir.path();
    let (theirs, ours) = (Sink::start(|_| Reply::Status(200)), Sink::start(|_| Reply::Status(200)));
    let (config, port) = (dir.join("alertmanager.yaml"), free_port().to_string());
    let text = format!(
        "route: {{ receiver: hook, group_by: [alertname, source], group_wait: 0s, group_interval: 1s }}
receivers: [{{ name: hook, webhook_configs: [{{ url: '{}' }}] }}]\n",
        theirs.url
    );
    std::fs::write(&config, text).expect("writable");
    let mut command = Command::new("prometheus-alertmanager");
    command.arg(format!("--config.file={}", config.display())).arg("--cluster.listen-address=");
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
    let _process = spawn(command);
    let url = format!("http://127.0.0.1:{port}");
    let amtool = |what: &str| -> Vec<Value> {
        let mut command = Command::new("amtool");
        command.args([&format!("--alertmanager.url={url}"), "--output=json", "alert", "query", what]);
        let output = command.output().expect("amtool; tests/run.sh installs it");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let receivers = format!(
        "  - {{ name: am, alertmanager: {{ urls: ['{url}'], allow: [127.0.0.1] }} }}
  - {{ name: hook, webhook: {{ url: '{}', allow: [127.0.0.1] }} }}\n",
        ours.url
    );
    let told = worker(&servers, &receivers, &["am", "hook"]);
    burst(&told);
    let firing = wait_for("the alert", &told, || amtool("alertname=busy").into_iter().next());
    assert_eq!(firing["labels"]["source"], "<b>checkout</b>");
    let ends: chrono::DateTime<chrono::Utc> =
        firing["endsAt"].as_str().expect("a time").parse().expect("a time");
    let left = ends.timestamp_millis() - now_ms() as i64;
    assert!((1..=600_000).contains(&left), "it goes {left} ms after its sender died");
    wait_for("its end", &told, || amtool("alertname=busy").is_empty().then_some(()));
    let is_over =
        |taken: &[crate::sink::Taken]| taken.last().is_some_and(|one| one.body["status"] == "resolved");
    let (theirs, ours) = (theirs.wait_for(is_over), ours.wait_for(is_over));
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    for (theirs, ours) in [
        (&theirs[0].body, &ours[0].body),
        (&theirs.last().expect("one").body, &ours.last().expect("one").body),
    ] {
        assert_eq!(keys(theirs), keys(ours));
        assert_eq!(keys(&theirs["alerts"][0]), keys(&ours["alerts"][0]));
        assert_eq!(theirs["status"], ours["status"]);
        for part in ["labels", "annotations", "startsAt"] {
            assert_eq!(theirs["alerts"][0][part], ours["alerts"][0][part], "{part}");
        }
    }
    assert_eq!(told.stop(), Some(0));
}

/// Goal: each transition is published once on another subject and stored by its stream.
#[test]
fn transitions_go_to_another_subject() {
    let servers = Servers::start("everysec");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let url = servers.nats_url();
    let stream = runtime.block_on(async {
        let client = loop {
            if let Ok(client) = async_nats::connect(&url).await {
                break client;
            }
        };
        let config = async_nats::jetstream::stream::Config {
            name: "OPS".into(),
            subjects: vec!["ops.>".into()],
            ..Default::default()
        };
        let context = async_nats::jetstream::new(client);
        loop {
            if let Ok(stream) = context.create_stream(config.clone()).await {
                break stream;
            }
        }
    });
    let told = worker(
        &servers,
        &format!(
            "  - {{ name: told, nats: {{ url: '{url}', subject: ops.alerts }} }}
  - {{ name: nowhere, nats: {{ url: '{url}', subject: else.alerts, timeout: 2s }} }}
  - {{ name: open, nats: {{ url: '{url}', subject: else.alerts, jetstream: false }} }}\n"
        ),
        &["told"],
    );
    burst(&told);
    let message = |number: u64| {
        let found = runtime.block_on(stream.get_raw_message(number)).ok()?;
        serde_json::from_slice::<Value>(&found.payload).ok()
    };
    let (begun, ended) = wait_for("two transitions", &told, || Some((message(1)?, message(2)?)));
    assert_eq!((&begun["state"], &begun["seq"]), (&json!("firing"), &json!(0)));
    assert_eq!((&ended["state"], &ended["id"]), (&json!("resolved"), &begun["id"]));
    assert!(message(3).is_none());
    let config = servers.dir.path().join("streamgauge.yaml");
    let test = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args(["notify", "test", name, "--by", "ann", "--config"]).arg(&config);
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = test("nowhere");
    assert!(code == Some(1) && said.contains("no stream keeps its subject"), "{said}");
    assert_eq!(test("open").0, Some(0));
    assert_eq!(told.stop(), Some(0));
}
