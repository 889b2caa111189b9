//! A data dir that an older binary wrote is opened with everything in it: state, timers, rules and alerts.

use super::answer::get;
use super::clock::{self, WrongClock};
use super::edge::{now_ms, pause};
use super::fixture::{self, column};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use streamgauge::adapters::embedded::{Embedded, EmbeddedStore};
use streamgauge::core::engine::snapshot::VERSION;
use streamgauge::driver::outage::Outages;
use streamgauge::driver::ports::{Commit, OwnerStore, Views};
use tokio::runtime::Runtime;

/// Time in which the pending alert of the fixture fires.
const FIRES_WITHIN: Duration = Duration::from_secs(60);

/// Goal: an upgrade keeps everything. Method: the archives of `tests/fixtures/`, opened with a clock that
/// continues where the older binary ended; what the service says must be what the older one said.
#[test]
fn state_of_older_binaries_is_opened_whole() {
    let fixtures = fixture::all();
    let newest = fixtures.last().map(|(version, _)| *version);
    assert_eq!(
        newest,
        Some(VERSION),
        "run tests/fixtures/make.py with this binary, and commit what it writes"
    );
    for (version, path) in fixtures {
        opens(version, &path);
    }
}

/// Goal: an older binary refuses the state of a newer one and says so, instead of waiting or starting empty.
/// Method: the snapshot in a data dir is replaced by one of a version that is not written yet.
#[test]
fn state_of_a_newer_binary_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), super::rules(dir.path()));
    assert_eq!(super::start(&data, &pipelines).stop(), Some(0));
    let newer = rmp_serde::to_vec(&(VERSION + 1,)).expect("memory");
    let snapshot = [&newer[..], &xxhash_rust::xxh3::xxh3_64(&newer).to_le_bytes()].concat();
    let store = Embedded::open(&data).expect("a data dir");
    let applied = store.applied().expect("readable");
    let commit = Commit { applied, snapshot: Some(snapshot), ..Commit::default() };
    EmbeddedStore::new(store, Outages::default()).send(&&commit).expect("room");
    let mut command = super::binary();
    command
        .args(["run", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .arg("--pipelines")
        .arg(&pipelines);
    let output = command.output().expect("it runs and ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("a newer streamgauge wrote it"), "{said}");
}

fn opens(version: u32, path: &Path) {
    let (runtime, dir) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a directory"));
    let said = fixture::unpack(path, "embedded", dir.path());
    let wrong_clock = WrongClock::default();
    wrong_clock.go_wrong_by(said["at"].as_i64().expect("a time") + 2_000 - now_ms() as i64);
    let service = clock::start(&runtime, &dir.path().join("data"), &wrong_clock);
    let ask = |path: &str| get(&format!("http://{}{path}", service.address)).json();
    let list = |path: &str, name: &str| ask(path)[name].clone();
    let alerts = list("/api/v1/alerts", "alerts");
    for field in ["id", "rule", "key", "state", "started_at", "acknowledged_by"] {
        assert_eq!(column(&alerts, field), column(&said["alerts"], field), "version {version}: {alerts}");
    }
    assert_eq!(list("/api/v1/silences", "silences"), said["silences"]);
    assert_eq!(list("/api/v1/maintenance", "maintenance"), said["maintenance"]);
    assert_eq!(json!(column(&list("/api/v1/rules", "rules"), "id")), said["rules"]);
    let pipelines = list("/api/v1/pipelines", "pipelines");
    for field in ["pipeline", "in_flight", "cards_per_hour", "health"] {
        assert_eq!(column(&pipelines, field), column(&said["pipelines"], field), "{pipelines}");
    }
    let since = said["at"].as_i64().expect("a time") - 3_600_000;
    let windows = list(&format!("/api/v1/windows?name=latency_ms&window=1m&from={since}"), "windows");
    for field in ["start", "count", "sum", "min", "max", "p50", "p99"] {
        assert_eq!(column(&windows, field), column(&said["windows"], field), "{windows}");
    }
    // The `for` of this rule had begun under the older binary.
    let deadline = Instant::now() + FIRES_WITHIN;
    while list("/api/v1/alerts?rule=warm", "alerts")[0]["state"] != "firing" {
        assert!(
            Instant::now() < deadline,
            "the pending alert does not fire: {}",
            ask("/api/v1/alerts?rule=warm")
        );
        pause();
    }
    clock::stop(&runtime, service);
}
