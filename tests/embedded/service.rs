//! The binary as a process, and requests to it.

use crate::edge::pause;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit of every wait: an alert over a trailing ten seconds takes twelve to end, and longer on a busy
/// machine. Only failing tests wait this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service that is killed when the test ends, in whatever way.
pub struct Service {
    pub child: Child,
    pub url: String,
    log: Option<BufReader<ChildStderr>>,
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

pub fn start(data: &Path, pipelines: &Path) -> Service {
    let mut command = binary();
    command.args(["run", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data).arg("--pipelines").arg(pipelines);
    spawn(command)
}

#[expect(clippy::zombie_processes, reason = "`Service` waits for it when it is dropped")]
pub fn spawn(mut command: Command) -> Service {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("readable") > 0, "ended before it listened: {seen}");
        seen.push_str(&line);
        let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(address) = entry["fields"]["address"].as_str() {
            return Service { child, url: format!("http://{address}"), log: Some(log) };
        }
    }
}

impl Service {
    /// A process that was started already, and may not listen yet.
    pub fn of(child: Child, url: String) -> Service {
        Service { child, url, log: None }
    }

    pub fn get(&self, path: &str) -> String {
        let mut response = ureq::get(format!("{}{path}", self.url)).call().expect("answers");
        response.body_mut().read_to_string().expect("a body")
    }

    pub fn status(&self, path: &str) -> u16 {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent.get(format!("{}{path}", self.url)).call().expect("answers").status().as_u16()
    }

    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path)).expect("JSON")
    }

    /// Polls until the answer satisfies the condition, for [`PATIENCE`] at most.
    pub fn wait_for(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.json(path);
            if is_so(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{path} stays {found}");
            pause();
        }
    }

    /// Sends SIGTERM and returns the exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        if let Some(log) = self.log.take() {
            for _ in log.lines() {}
        }
        self.child.wait().expect("it ends").code()
    }
}

pub fn post(url: &str, body: &str) -> Option<Value> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
    let mut response = agent.post(format!("{url}/api/v1/events")).send(body).ok()?;
    serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
}
