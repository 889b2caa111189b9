//! One process or many workers: the same events give the same windows and the same alerts.

use crate::edge::now_ms;
use crate::servers::{Servers, Worker, rules, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

const SOURCES: u64 = 12;
const ROUNDS: u64 = 30;

/// A deployment under test. Its first worker takes the events over HTTP.
struct Mode {
    name: &'static str,
    workers: Vec<Worker>,
    export: Vec<String>,
}

impl Mode {
    fn embedded(dir: &Path) -> Mode {
        let data = dir.join("data").display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args(["run", "--listen", "127.0.0.1:0", "--allowed-lateness", "2s", "--data-dir", &data]);
        command.arg("--pipelines").arg(rules(dir)).stderr(Stdio::piped());
        let export = vec!["--data-dir".into(), data];
        Mode { name: "embedded", workers: vec![Worker::start(command)], export }
    }

    fn live(name: &'static str, servers: &Servers, workers: u32, partitions: u32) -> Mode {
        let workers = (0..workers).map(|_| servers.worker_of("1s", partitions)).collect();
        Mode { name, workers, export: vec!["--nats".into(), servers.nats_url()] }
    }

    fn post(&self, events: &Value) {
        let url = format!("{}/api/v1/events", self.workers[0].url);
        let mut response = ureq::post(url).send(events.to_string()).expect("taken");
        let answer = response.body_mut().read_to_string().expect("an answer");
        assert!(answer.contains("\"refused\":[]"), "{}: {answer}", self.name);
    }

    fn count(&self) -> u64 {
        self.workers[0].counts().map_or(0, |counts| counts.values().sum())
    }

    fn firing(&self) -> bool {
        let firing = |rule: &str| {
            let alerts = self.workers[0].get(&format!("/api/v1/alerts?rule={rule}")).unwrap_or_default();
            alerts.matches("\"state\":\"firing\"").count()
        };
        (firing("odd"), firing("all")) == (2, 1)
    }

    /// Replays the export. Returns the final windows, and the transitions of the alerts.
    fn replayed(self, dir: &Path) -> (BTreeMap<String, Value>, BTreeSet<String>) {
        for worker in self.workers {
            assert_eq!(worker.stop(), Some(0), "{}", self.name);
        }
        let binary = || Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        let export = binary().arg("export").args(&self.export).output().expect("runs");
        assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
        let path = |kind: &str| dir.join(format!("{}-{kind}.ndjson", self.name));
        std::fs::write(path("log"), export.stdout).expect("writable");
        let mut replay = binary();
        replay
            .current_dir(dir.join("redis"))
            .arg("replay")
            .arg(path("log"))
            .args(["--allowed-lateness", "2s"]);
        replay.arg("--windows-out").arg(path("windows")).arg("--alerts-out").arg(path("alerts"));
        assert!(replay.env_remove("STREAMGAUGE_PIPELINES").output().expect("runs").status.success());
        let mut windows = BTreeMap::new();
        for line in std::fs::read_to_string(path("windows")).expect("windows").lines() {
            let window: Value = serde_json::from_str(line).expect("JSON");
            let place =
                ["source", "name", "window", "start"].map(|field| window[field].to_string()).join(" ");
            let of = ["count", "min", "max", "p50", "p90", "p95", "p99", "p999"];
            windows.insert(place, json!(of.map(|field| window[field].clone())));
        }
        let mut alerts = BTreeSet::new();
        for line in std::fs::read_to_string(path("alerts")).expect("alerts").lines() {
            let alert: Value = serde_json::from_str(line).expect("JSON");
            if ["odd", "all"].iter().any(|rule| alert["rule"] == *rule) {
                let of = ["rule", "key", "seq", "state", "severity"];
                alerts.insert(of.map(|field| alert[field].to_string()).join(" "));
            }
        }
        (windows, alerts)
    }
}

/// Goal: the modes agree. Method: the same events to all three at the same time, far from any window edge;
/// then a replay of each log.
#[test]
fn the_modes_agree() {
    let one = Servers::start("everysec");
    let many = Servers::start("everysec");
    let modes = [
        Mode::embedded(one.dir.path()),
        Mode::live("one worker", &one, 1, 1),
        Mode::live("four workers", &many, 4, 8),
    ];
    for mode in &modes[1..] {
        let partitions = if mode.workers.len() == 1 { 1 } else { 8 };
        wait_for("ownership", &mode.workers[0], || {
            (mode.workers.iter().map(Worker::owned).sum::<u64>() == partitions).then_some(())
        });
    }
    let time = now_ms();
    for round in 0..ROUNDS {
        let event = |source: u64| {
            let value = if source < 2 && round == 7 { 9_000 } else { (round * 13 + source * 7) % 400 };
            json!({"type": "metric", "time": time + round, "source": format!("s-{source}"), "name": "latency_ms", "value": value})
        };
        let events = Value::Array((0..SOURCES).map(event).collect());
        modes.iter().for_each(|mode| mode.post(&events));
    }
    for mode in &modes {
        wait_for(mode.name, &mode.workers[0], || {
            (mode.count() == SOURCES * ROUNDS && mode.firing()).then_some(())
        });
    }
    let mut told = modes.into_iter().map(|mode| mode.replayed(one.dir.path()));
    let (windows, alerts) = told.next().expect("embedded");
    assert_eq!(windows.len() as u64 % SOURCES, 0, "{windows:?}");
    assert!(alerts.len() >= 3, "{alerts:?}");
    for (other_windows, other_alerts) in told {
        assert_eq!(other_windows, windows);
        // A mode that ran a little longer may also have recorded the end.
        let firing = |alerts: &BTreeSet<String>| -> Vec<String> {
            alerts.iter().filter(|alert| alert.contains(" 0 ")).cloned().collect()
        };
        assert_eq!(firing(&other_alerts), firing(&alerts));
    }
}
