//! Servers and workers of a test, each with ports and directories of its own.

use crate::edge::pause;
use crate::fixture;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The deadline for everything that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Ports below the range from which the system assigns ports to outgoing connections.
const PORTS: Range<u16> = 20_000..32_000;

/// Returns an unused port, each one once, because another test may ask before this test's server has bound
/// it.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Each process begins at another port.
        let place = std::process::id().wrapping_mul(97).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (place % u32::from(PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A process that is killed with its test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn spawn(mut command: Command) -> Process {
    let name = command.get_program().to_string_lossy().to_string();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Process(child.unwrap_or_else(|error| panic!("{name} does not start ({error}); tests/run.sh installs it")))
}

/// A broker and a store.
pub struct Servers {
    pub dir: tempfile::TempDir,
    pub nats_port: u16,
    pub redis_port: u16,
    pub fsync: &'static str,
    pub nats: Option<Process>,
    pub redis: Option<Process>,
}

impl Servers {
    pub fn start(fsync: &'static str) -> Servers {
        Servers::start_mapped(fsync, None)
    }

    /// Starts servers with the broker's own mapping of public subjects to partitions.
    pub fn start_mapped(fsync: &'static str, mapping: Option<Vec<u8>>) -> Servers {
        let dir = tempfile::tempdir().expect("a directory");
        if let Some(mapping) = mapping {
            std::fs::write(dir.path().join("mapping.conf"), mapping).expect("writable");
        }
        let (nats_port, redis_port) = (free_port(), free_port());
        let mut servers = Servers { dir, nats_port, redis_port, fsync, nats: None, redis: None };
        servers.start_nats();
        servers.start_redis();
        servers
    }

    /// Starts servers with the data of a fixture: `nats/`, the broker's store, and `redis/dump.rdb`. Returns them
    /// with what the service said.
    pub fn start_from(fixture: &Path) -> (Servers, Value) {
        let dir = tempfile::tempdir().expect("a directory");
        let said = fixture::unpack(fixture, "servers", dir.path());
        let (nats_port, redis_port) = (free_port(), free_port());
        let mut servers = Servers { dir, nats_port, redis_port, fsync: "everysec", nats: None, redis: None };
        servers.start_nats();
        // With an append-only file from the start, Redis would not read the dump.
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &redis_port.to_string(), "--save", "", "--dir"]);
        command.arg(servers.dir.path().join("redis"));
        servers.redis = Some(spawn(command));
        (servers, said)
    }

    pub fn start_nats(&mut self) {
        // The whole suite runs with Debian's broker and with a current one.
        let server = std::env::var_os("SG_NATS_SERVER").unwrap_or_else(|| "nats-server".into());
        let mut command = Command::new(server);
        command.args(["-a", "127.0.0.1", "-js", "-p", &self.nats_port.to_string(), "-sd"]);
        command.arg(self.dir.path().join("nats"));
        // The broker maps public subjects to partitions, if a mapping is given.
        let mapping = self.dir.path().join("mapping.conf");
        if mapping.exists() {
            command.arg("-c").arg(mapping);
        }
        self.nats = Some(spawn(command));
    }

    pub fn start_redis(&mut self) {
        let data = self.dir.path().join("redis");
        std::fs::create_dir_all(&data).expect("writable");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.redis_port.to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", self.fsync, "--save", "", "--dir"]);
        command.arg(data);
        self.redis = Some(spawn(command));
    }

    pub fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.nats_port)
    }

    /// Starts both servers with TLS and a user each, which has the permissions that the README lists.
    pub fn start_secure() -> Servers {
        let dir = tempfile::tempdir().expect("a directory");
        let (nats_port, redis_port) = (free_port(), free_port());
        let mut servers = Servers { dir, nats_port, redis_port, fsync: "everysec", nats: None, redis: None };
        certificates(servers.dir.path());
        let home = servers.dir.path().to_path_buf();
        let path = |name: &str| home.join(name).display().to_string();
        let tls =
            format!("tls {{ cert_file: '{}', key_file: '{}' }}\n", path("server.pem"), path("server.key"));
        let user = "authorization { users: [{ user: sg, password: secret }] }\n";
        std::fs::write(path("mapping.conf"), tls + user).expect("writable");
        servers.start_nats();
        std::fs::create_dir_all(path("redis")).expect("writable");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &redis_port.to_string()]);
        command.args(["--tls-cert-file", &path("server.pem"), "--tls-key-file", &path("server.key")]);
        command.args(["--tls-ca-cert-file", &path("ca.pem"), "--tls-auth-clients", "no"]);
        command.args([
            "--appendonly",
            "yes",
            "--save",
            "",
            "--dir",
            &path("redis"),
            "--aclfile",
            &path("acl"),
        ]);
        let rights = "+@hash +@string +@stream +@sortedset +@scripting +@connection +del +unlink +persist +pexpire +expireat +time +role";
        let users = format!("user default off\nuser sg on >secret ~sg:* {rights}\n");
        std::fs::write(path("acl"), users).expect("writable");
        servers.redis = Some(spawn(command));
        servers
    }

    /// Starts a worker, which may have to wait for servers and for the lease.
    pub fn worker(&self, lease: &str) -> Worker {
        self.worker_of(lease, 1)
    }

    pub fn worker_of(&self, lease: &str, partitions: u32) -> Worker {
        Worker::start(self.command(lease, partitions))
    }

    /// Starts a process that does a part of the work.
    pub fn worker_as(&self, role: &str) -> Worker {
        let mut command = self.command("1s", 1);
        command.args(["--role", role]);
        Worker::start(command)
    }

    /// Starts a worker that aborts at a payload with this text.
    pub fn poisoned_worker(&self, text: &str) -> Worker {
        let mut command = self.command("1s", 1);
        command.env("SG_TEST_POISON", text);
        Worker::start(command)
    }

    pub fn command(&self, lease: &str, partitions: u32) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--lease",
            lease,
            "--snapshot-every",
            "1s",
            "--rollups",
            "--allowed-lateness",
            "2s",
            "--partitions",
            &partitions.to_string(),
            "--nats",
            &self.nats_url(),
        ]);
        command.args(["--redis", &format!("redis://127.0.0.1:{}", self.redis_port), "--pipelines"]);
        command.arg(rules(self.dir.path())).env("RUST_LOG", "info").stderr(Stdio::piped());
        // The output of the receiver `log` is not needed.
        command.stdout(Stdio::null());
        command
    }
}

/// Makes a certificate authority, and a certificate for a server on this machine.
pub fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let done = Command::new("openssl").current_dir(dir).args(args.split(' ')).output().expect("openssl");
        assert!(done.status.success(), "{args}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
    openssl(&format!("req {key} -subj /CN=server -keyout server.key -out server.csr"));
    std::fs::write(
        dir.join("san.cnf"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n",
    )
    .expect("writable");
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san.cnf -out server.pem",
    );
}

pub struct Worker {
    pub process: Process,
    pub url: String,
    pub log: Arc<Mutex<String>>,
}

impl Drop for Worker {
    /// Prints the log of each process if the test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("log of {}:\n{log}", self.url);
        }
    }
}

impl Worker {
    pub fn start(mut command: Command) -> Worker {
        let mut process = Process(command.spawn().expect("the binary starts"));
        let mut lines = BufReader::new(process.0.stderr.take().expect("piped"));
        let mut seen = String::new();
        let address = loop {
            let begun = seen.len();
            assert!(lines.read_line(&mut seen).expect("readable") > 0, "ended before it listened: {seen}");
            let entry: Value = serde_json::from_str(&seen[begun..]).unwrap_or_default();
            if let Some(address) = entry["fields"]["address"].as_str() {
                break address.to_string();
            }
        };
        let log = Arc::new(Mutex::new(seen));
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = kept.lock().expect("no panic");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Worker { process, url: format!("http://{address}"), log }
    }

    pub fn get(&self, path: &str) -> Option<String> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
        agent.get(format!("{}{path}", self.url)).call().ok()?.body_mut().read_to_string().ok()
    }

    /// Reads a number from /metrics, or none while the worker does not answer.
    pub fn metric(&self, name: &str) -> Option<u64> {
        let text = self.get("/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// The worker's log and its metrics other than 0, printed when an expected event does not happen.
    fn evidence(&self) -> String {
        let metrics = self.get("/metrics").unwrap_or_else(|| "no metrics".to_string());
        let moved = metrics.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
        let moved: Vec<&str> = moved.collect();
        format!("{}\n{}", self.log.lock().expect("no panic"), moved.join("\n"))
    }

    /// The number of partitions that this worker owns.
    pub fn owned(&self) -> u64 {
        self.metric("streamgauge_partitions_owned ").unwrap_or(0)
    }

    /// Counts the values in the 1h windows of each source.
    pub fn counts(&self) -> Option<BTreeMap<String, u64>> {
        let body = self.get("/api/v1/windows?name=latency_ms&window=1h")?;
        let found: Value = serde_json::from_str(&body).ok()?;
        let mut counts = BTreeMap::new();
        for window in found["windows"].as_array()? {
            *counts.entry(window["source"].as_str()?.to_string()).or_default() += window["count"].as_u64()?;
        }
        Some(counts)
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    pub fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.process.0.wait().expect("it ends").code()
    }
}

/// Polls until `look` returns a value.
pub fn wait_for<T>(what: &str, worker: &Worker, look: impl FnMut() -> Option<T>) -> T {
    wait_or_tell(what, || worker.evidence(), look)
}

pub fn wait_with_log<T>(what: &str, log: &Mutex<String>, look: impl FnMut() -> Option<T>) -> T {
    wait_or_tell(what, || log.lock().expect("no panic").clone(), look)
}

fn wait_or_tell<T>(what: &str, evidence: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not happen:\n{}", evidence());
        pause();
    }
}

pub fn rules(dir: &Path) -> PathBuf {
    let path = dir.join("pipelines");
    std::fs::create_dir_all(&path).expect("writable");
    let text = "version: 1
rules:
  - { id: busy, expr: 'count(latency_ms[10s]) by (source) > 200', severity: info, keep_firing_for: 1s }
  - { id: slow, expr: 'p99(latency_ms[1m]) by (source)', levels: { warning: '> 300ms', critical: '> 1200ms' }, for: 2s, min_count: 10 }
  - { id: odd, expr: 'max(latency_ms[10s]) by (source) > 1500ms', severity: warning, actions: [page_somebody] }
  - { id: trial, expr: 'max(latency_ms[10s]) by (source) > 1500ms', severity: info, actions: [nothing], shadow: true }
  - { id: all, expr: 'count(latency_ms[1m]) by () > 50', severity: info }
";
    std::fs::write(path.join("rules.yaml"), text).expect("writable");
    path
}

/// Sends one write command to the store.
pub fn tell_store(servers: &Servers, words: &[&str]) {
    ask_store::<redis::Value>(servers, words);
}

/// Sends a command to the store, and returns the answer.
pub fn ask_store<T: redis::FromRedisValue>(servers: &Servers, words: &[&str]) -> T {
    let url = format!("redis://127.0.0.1:{}", servers.redis_port);
    wait_with_log("the store", &Mutex::default(), || {
        let mut connection = redis::Client::open(url.as_str()).ok()?.get_connection().ok()?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query::<T>(&mut connection).ok()
    })
}
