//! Malformed files, and the commands that read them.

use crate::bodies::{between, list, metric_before, numbered, repeat};
use crate::events::{JUNK, alias_bomb};
use crate::limits::{MIB, SIZES};
use crate::memory;
use crate::random::Random;
use crate::service::binary;
use base64::Engine as _;
use flate2::Compression;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit of a command, fixed and for each MiB of text: half a million lines are refused in 0.6 s and
/// sorted in 1.5 s, 20,000 rules are checked in 4 s, 28,000 alerts are converted in 6 to 7.5 s, on two cores that
/// others use as well.
const FIXED: Duration = Duration::from_secs(1);
const PER_MIB: Duration = Duration::from_secs(10);

/// A command that exceeds its limit is killed this much later.
const ENDED_AFTER: Duration = Duration::from_secs(1);

/// Memory of a command: lines of 4 MiB in several threads, and the blocks that are sorted.
const MEMORY_FIXED: u64 = 160 << 20;
const MEMORY_PER_BYTE: u64 = 64;

/// Bytes of output, fixed and for each byte of the file: an error message, and the quoted line.
const OUTPUT_FIXED: u64 = 64 << 10;
const OUTPUT_PER_BYTE: u64 = 4;

/// Exit codes that the README names.
const CODES: [i32; 4] = [0, 1, 2, 78];

/// Pause between two checks of a process.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Bytes that 300,000 values would take, written out.
const VALUES_BYTES: usize = 2 * MIB;

/// Pieces that compress well.
const PIECES: [(&str, &str); 4] =
    [("zeros", "\0"), ("spaces", " "), ("line ends", "\n"), ("lines of x", "x\n")];

struct Readers {
    dir: tempfile::TempDir,
    seed: u64,
    wrong: Vec<String>,
}

/// Runs all commands over all files. Returns the exceeded limits.
pub fn run(seed: u64, random: &mut Random) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("none")).expect("a directory");
    let mut readers = Readers { dir, seed, wrong: Vec::new() };
    for size in SIZES {
        readers.logs(size, random);
        readers.compressed(size);
        readers.rules(size);
        readers.prometheus(size);
    }
    readers.tests();
    readers.wrong
}

impl Readers {
    fn logs(&mut self, size: usize, random: &mut Random) {
        let mut damaged = numbered(size, "\n", |n| metric_before("x", "m", -(n as i64))).into_bytes();
        let at = random.below(damaged.len());
        damaged[at] = random.below(256) as u8;
        let noise = random.bytes(size);
        let own = [("damaged", damaged), ("noise", noise)];
        let junk = JUNK.iter().map(|body| (body.name, (body.make)(size)));
        for (name, bytes) in own.into_iter().chain(junk).chain(exports(size)) {
            self.replay(name, &[], "log.ndjson", &bytes, bytes.len());
            self.replay(name, &["--sort"], "log.ndjson", &bytes, bytes.len());
        }
    }

    /// Compressed logs that inflate to twice a size; their lines are held to the limits of plain lines.
    fn compressed(&mut self, size: usize) {
        for (name, piece) in PIECES {
            let plain = repeat(piece, 2 * size);
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
            gzip.write_all(&plain).expect("memory");
            let gzip = gzip.finish().expect("memory");
            let half = &gzip[..gzip.len() / 2];
            self.replay(&format!("gzip of {name}"), &["--sort"], "log.ndjson.gz", &gzip, plain.len());
            self.replay(&format!("half a gzip of {name}"), &[], "log.ndjson.gz", half, plain.len());
            let zstd = compress_to_vec(plain.as_slice(), CompressionLevel::Fastest);
            self.replay(&format!("zstd of {name}"), &[], "log.ndjson.zst", &zstd, plain.len());
        }
        let window = b"\x28\xb5\x2f\xfd\x00\xa8\x02\x00\x10a";
        let skipped = repeat(b"\x50\x2a\x4d\x18\0\0\0\0", size);
        let headers = repeat(b"\x1f\x8b\x08\x08\0\0\0\0\0\0", size);
        self.replay("zstd with a window of 2 GiB", &[], "log.ndjson.zst", window, size);
        self.replay("zstd frames to skip", &[], "log.ndjson.zst", &skipped, size);
        self.replay("gzip headers", &[], "log.ndjson.gz", &headers, size);
    }

    fn replay(&mut self, name: &str, more: &[&str], file: &str, bytes: &[u8], text_bytes: usize) {
        let path = self.dir.path().join(file);
        std::fs::write(&path, bytes).expect("writable");
        let mut command = binary();
        command.args(["replay", "--json", "--pipelines"]).arg(self.dir.path().join("none"));
        command.args(more).arg(&path);
        self.judge(&format!("replay {more:?}: {name}"), command, bytes.len(), text_bytes);
    }

    fn rules(&mut self, size: usize) {
        let chain = "1 + ".repeat(size / 4);
        let own = [
            ("many rules", rules(size, |n| format!("{{ id: r{n}, {RULE} }}"))),
            ("bad rules", rules(size, |n| format!("{{ id: r{n} }}"))),
            ("a long chain", rules(size, |_| format!("{{ id: a, expr: '{chain}1 > 1' }}"))),
            ("a chain of records", records(size)),
            ("stage limits", limits(size)),
        ];
        let junk = JUNK.iter().map(|body| (body.name, (body.make)(size)));
        for (name, bytes) in own.into_iter().chain(junk) {
            self.directory(&format!("check: {name}"), "check", &bytes, bytes.len());
            // `test` reads files in the same way as `check`, so one size is enough.
            if size == SIZES[0] {
                self.directory(&format!("test: {name}"), "test", &bytes, bytes.len());
            }
        }
    }

    fn directory(&mut self, name: &str, verb: &str, bytes: &[u8], text_bytes: usize) {
        let dir = self.dir.path().join("rules");
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join("rules.yaml"), bytes).expect("writable");
        let mut command = binary();
        command.arg(verb).arg(&dir);
        self.judge(name, command, bytes.len(), text_bytes);
    }

    /// Test inputs use repetitions: a few bytes may stand for many values and are held to the limits of
    /// those values.
    fn tests(&mut self) {
        let test = |values: &str| {
            format!(
                "version: 1\nrules:\n  - {{ id: a, {RULE} }}\ntests:\n  - name: t\n    interval: 1s\n    \
                 input_series: [{{ series: 'm{{source=\"a\"}}', values: '{values}' }}]\n    \
                 expect: [{{ at: 1m, rule: a, state: firing }}]\n"
            )
        };
        for values in ["2x1000000000", "2x300000", "2+1x100000", "2 _x300000 2", "2x99999999999999999999"] {
            let name = format!("test: values '{values}'");
            self.directory(&name, "test", test(values).as_bytes(), VALUES_BYTES);
        }
    }

    fn prometheus(&mut self, size: usize) {
        let junk = JUNK.iter().map(|body| (body.name.to_string(), (body.make)(size)));
        let expressions = expressions(size).into_iter().map(|(name, text)| {
            let expr = serde_json::Value::from(text);
            let file = format!("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: {expr}\n");
            (format!("an expression of {name}"), file.into_bytes())
        });
        let own = [
            ("an alias bomb".to_string(), format!("groups:\n{}", alias_bomb()).into_bytes()),
            ("many alerts".to_string(), alerts(size, |n| format!("A{n}"))),
            ("one name again and again".to_string(), alerts(size, |_| "A".into())),
            ("records of records".to_string(), chained(size)),
        ];
        for (name, bytes) in own.into_iter().chain(expressions).chain(junk) {
            let path = self.dir.path().join("prometheus.yml");
            std::fs::write(&path, &bytes).expect("writable");
            let mut command = binary();
            command.args(["convert", "prometheus-rules"]).arg(&path);
            self.judge(&format!("convert: {name}"), command, bytes.len(), bytes.len());
        }
    }

    /// Runs a command over a file of `file_bytes` bytes that holds `text_bytes` bytes of text.
    fn judge(&mut self, name: &str, command: Command, file_bytes: usize, text_bytes: usize) {
        let within = FIXED + PER_MIB.mul_f64(text_bytes as f64 / MIB as f64);
        let ran = watch(command, self.dir.path(), within + ENDED_AFTER);
        let memory = MEMORY_FIXED + MEMORY_PER_BYTE * file_bytes as u64;
        let output = OUTPUT_FIXED + OUTPUT_PER_BYTE * file_bytes as u64;
        let mut wrong = Vec::new();
        if ran.took > within {
            wrong.push(format!("{:.2?}, limit {within:.2?}", ran.took));
        }
        if ran.peak > memory {
            wrong.push(format!("{} MiB, limit {}", ran.peak >> 20, memory >> 20));
        }
        if ran.output > output {
            wrong.push(format!("{} bytes of output, limit {output}", ran.output));
        }
        if ran.took <= within && ran.code.is_none_or(|code| !CODES.contains(&code)) {
            wrong.push(format!("exit code {:?}", ran.code));
        }
        let seed = self.seed;
        self.wrong.extend(wrong.iter().map(|one| format!("{name}, {file_bytes} bytes, seed {seed}: {one}")));
    }
}

const RULE: &str = "expr: 'max(m[10s]) by (source) > 1', severity: warning";

fn rules(size: usize, rule: impl Fn(usize) -> String) -> Vec<u8> {
    let rules = numbered(size, "\n", |n| format!("  - {}", rule(n)));
    format!("version: 1\nrules:\n{rules}\n").into_bytes()
}

fn records(size: usize) -> Vec<u8> {
    let record = |n: usize| format!("  - {{ name: r{}, expr: 'max(r{n}[10s])' }}", n + 1);
    format!("version: 1\nrecord:\n{}\n", numbered(size, "\n", record)).into_bytes()
}

fn limits(size: usize) -> Vec<u8> {
    let one = |n: usize| format!("  p{n}: {{ stages: [a], stage_limits: {{ a: 10m }} }}");
    format!("version: 1\npipelines:\n{}\n", numbered(size, "\n", one)).into_bytes()
}

fn alerts(size: usize, name: impl Fn(usize) -> String) -> Vec<u8> {
    let alert = |n: usize| format!("  - alert: {}\n    expr: up == 0", name(n));
    format!("groups:\n- name: g\n  rules:\n{}\n", numbered(size, "\n", alert)).into_bytes()
}

/// Recording rules each of which adds the previous one to itself.
fn chained(size: usize) -> Vec<u8> {
    let record = |n: usize| format!("  - record: r{}\n    expr: r{n} + r{n}", n + 1);
    let records = numbered(size, "\n", record);
    format!("groups:\n- name: g\n  rules:\n{records}\n  - alert: A\n    expr: r9 > 1\n").into_bytes()
}

/// PromQL expressions that are excessive in one respect.
fn expressions(size: usize) -> [(&'static str, String); 14] {
    let chain = |piece: &str| format!("{}up > 1", piece.repeat(size / piece.len()));
    let nested = |name: &str, end: &str| {
        let depth = size / (name.len() + end.len());
        format!("{}up{} > 1", name.repeat(depth), end.repeat(depth))
    };
    let labels = numbered(size, ",", |n| format!(r#"l{n}="x""#));
    [
        ("parentheses", nested("(", ")")),
        ("open parentheses", "(".repeat(size)),
        ("sums", chain("up + ")),
        ("powers", chain("up ^ ")),
        ("alternatives", chain("up > 1 or ")),
        ("signs", chain("-")),
        ("functions", nested("abs(", ")")),
        ("subqueries", nested("max_over_time(", "[5m:1m])")),
        ("matchers", format!("up{{{labels}}} > 1")),
        ("a huge regex", r#"up{a=~"(a{1,1000}){1,1000}"} > 1"#.into()),
        ("a long regex", format!(r#"up{{a=~"{}"}} > 1"#, "a|".repeat(size / 2))),
        ("digits", format!("up > {}", "9".repeat(size))),
        ("comments", format!("up > 1 {}", "#".repeat(size))),
        ("units", format!("rate(up[{}]) > 1", "1s".repeat(size / 2))),
    ]
}

/// Lines in the format of `export`, with content that `export` never writes.
fn exports(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let at = r#""ingest_time":"2026-11-01T00:00:00Z""#;
    let raw = |bytes: Vec<u8>, kind: &str| {
        let raw = base64::engine::general_purpose::STANDARD.encode(bytes);
        format!(r#"{{"seq":1,{at},"raw":"{raw}","content_type":"{kind}"}}"#).into_bytes()
    };
    let line = |more: &str| format!(r#"{{"seq":1,{at},{more}}}"#);
    let lines = |more: &str| numbered(size, "\n", |_| line(more)).into_bytes();
    let of_many = format!(r#"{{"seq":1,"partition":0,"partitions":4294967295,{at},"tick":true}}"#);
    let begun = format!(r#"{{"seq":1,{at},"events":"#);
    let events = String::from_utf8(list(size, |_| "{}".into())).expect("text");
    let maps = [&b"\xdd"[..], &(size as u32 / 2).to_be_bytes(), &repeat(b"\x80", size / 2)].concat();
    vec![
        ("empty events", format!("{begun}{events}}}").into_bytes()),
        ("raw lines", raw(repeat("x\n", size / 2), crate::bodies::NDJSON)),
        ("raw maps", raw(maps, crate::bodies::MSGPACK)),
        ("all records gone", lines(r#""gap":{"from":0,"to":18446744073709551615}"#)),
        ("deep control", between(&format!(r#"{{"seq":1,{at},"control":"#), "[", "", size)),
        ("partitions", numbered(size, "\n", |_| of_many.clone()).into_bytes()),
        ("years", numbered(size, "\n", |n| year(n % 8_000 + 1_970)).into_bytes()),
        ("months", numbered(size, "\n", month).into_bytes()),
    ]
}

/// An event this many months before now.
fn month(months: usize) -> String {
    metric_before("x", "m", -2_592_000_000 * (months as i64 % 800))
}

/// A tick on the first day of a year.
fn year(year: usize) -> String {
    format!(r#"{{"seq":1,"ingest_time":"{year}-01-01T00:00:00Z","tick":true}}"#)
}

/// How a command ended, and its cost.
struct Ran {
    took: Duration,
    peak: u64,
    output: u64,
    code: Option<i32>,
}

fn watch(mut command: Command, dir: &Path, at_most: Duration) -> Ran {
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    let file = |path: &Path| Stdio::from(File::create(path).expect("writable"));
    command.current_dir(dir).stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
    let begun = Instant::now();
    let child = command.spawn().expect("it starts");
    let (peak, code) = follow(child, begun + at_most);
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |known| known.len());
    Ran { took: begun.elapsed(), peak, output: bytes(&out) + bytes(&err), code }
}

/// Waits for the process to end, or kills it. Returns its peak memory and exit code.
fn follow(mut child: Child, until: Instant) -> (u64, Option<i32>) {
    let mut peak = 0;
    loop {
        peak = peak.max(memory::peak(child.id()));
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return (peak, status.code());
        }
        if Instant::now() > until {
            let _ = (child.kill(), child.wait());
            return (peak, None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
