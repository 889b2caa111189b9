//! The binary as a process: embedded, with two rules, and its memory.

use crate::memory;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time limit for starting to listen, and for ending after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lines of the log that are shown if the service dies.
const LINES_SHOWN: usize = 30;

/// Rule `hot` is for the honest client, `load` for all the others.
const RULES: &str = "version: 1
rules:
  - { id: hot, expr: 'max(temp[10s]) by (source) > 50', severity: warning }
  - { id: load, expr: 'max(load[10s]) by (source) > 50', severity: info }
";

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A service that is killed when it is dropped.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
    /// The file to which alerts are written, one JSON object per line.
    pub alerts: PathBuf,
    log: Lines,
    _dir: TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.env_remove("NATS_URL").env_remove("REDIS_URL").env("RUST_LOG", "info");
    command
}

impl Service {
    #[allow(clippy::zombie_processes, reason = "`Service` waits for it when it is dropped")]
    pub fn start() -> Service {
        let dir = tempfile::tempdir().expect("a directory");
        let alerts = dir.path().join("alerts.ndjson");
        let mut command = binary();
        command.args(["run", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join("data"));
        command.arg("--config").arg(config(dir.path(), &alerts)).arg("--pipelines").arg(rules(dir.path()));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (log, (told, heard)) = (Lines::default(), channel());
        let (stderr, kept) = (child.stderr.take().expect("piped"), log.clone());
        // A full pipe would block the service, so this thread empties it.
        std::thread::spawn(move || drain(stderr, &kept, &told));
        let Ok(address) = heard.recv_timeout(PATIENCE) else {
            let _ = (child.kill(), child.wait());
            panic!("it does not listen: {:?}", log.lock());
        };
        Service { child, address, alerts, log, _dir: dir }
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn resident(&self) -> u64 {
        memory::resident(self.child.id())
    }

    pub fn peak(&self) -> u64 {
        memory::peak(self.child.id())
    }

    pub fn forget_peak(&self) -> u64 {
        memory::forget_peak(self.child.id())
    }

    /// Returns the last lines of its log.
    pub fn last_words(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Sends SIGTERM. Returns the exit code, or `None` if the process did not end in time.
    pub fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        let until = Instant::now() + PATIENCE;
        while self.is_alive() {
            if Instant::now() > until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.wait().ok()?.code()
    }
}

fn config(dir: &Path, alerts: &Path) -> PathBuf {
    let path = dir.join("streamgauge.yaml");
    let receivers = format!("receivers: [{{ name: file, log: {{ path: {alerts:?} }} }}]\n");
    std::fs::write(&path, receivers + "route: { receiver: file }\n").expect("writable");
    path
}

fn rules(dir: &Path) -> PathBuf {
    let path = dir.join("pipelines");
    std::fs::create_dir(&path).expect("a directory");
    std::fs::write(path.join("rules.yaml"), RULES).expect("writable");
    path
}

/// Reads the log to its end, and reports the address on which the service listens.
fn drain(stderr: ChildStderr, kept: &Mutex<VecDeque<String>>, told: &Sender<SocketAddr>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(address) = entry["fields"]["address"].as_str().and_then(|text| text.parse().ok()) {
            let _ = told.send(address);
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == LINES_SHOWN {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
