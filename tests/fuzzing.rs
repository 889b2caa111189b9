//! Untrusted bytes cannot make a decoder panic, take longer than a second, or use memory out of proportion.
//!
//! Intuition: this is the part of fuzzing that a test can do: a minute of inputs, the same on every
//! machine, on the stable toolchain. Long coverage-guided runs use cargo-fuzz in `tests/fuzz` with the same
//! properties. `SG_SEED=7` selects other inputs, `SG_TIMES=60` more of them, `SG_TARGET=line` one target,
//! and `SG_ROUND=812` in addition one input of it. Invariant: a failing input is printed in a form that can
//! become a test.

#[path = "fuzz/mutation.rs"]
mod mutation;
#[path = "fuzz/properties.rs"]
mod properties;
#[path = "fuzz/seeds.rs"]
mod seeds;

use mutation::Dice;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SEED: u64 = 20_261_130;

/// Time limit of one call with up to [`mutation::INPUT_BYTES_MAX`] bytes: a thousand times what it normally
/// takes.
const TIME_MAX: Duration = Duration::from_secs(1);

/// Memory limit of a batch of rounds: memory that the allocator holds back, and 4 KiB for each byte of the
/// longest input.
const MEMORY_KIB_MAX: u64 = 256 << 10;

/// Rounds between two measurements of the memory.
const BATCH: u64 = 100;

/// Number of faults after which a run ends.
const FAULTS_MAX: usize = 10;

/// Longest part of a fault's message and of its input that is printed, in characters.
const SHOWN_CHARS: usize = 2_000;

/// A decoder and the property that must hold for it.
struct Target {
    name: &'static str,
    property: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    words: fn() -> Vec<&'static str>,
    rounds: u64,
}

const fn target(
    name: &'static str,
    property: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    words: fn() -> Vec<&'static str>,
    rounds: u64,
) -> Target {
    Target { name, property, seeds, words, rounds }
}

/// Rounds for about four seconds each, fewer for decoders in which little can go wrong.
static TARGETS: [Target; 16] = [
    target("events_json", properties::events_json, seeds::events_json, seeds::json_words, 10_000),
    target("events_ndjson", properties::events_ndjson, seeds::events_ndjson, seeds::json_words, 8_000),
    target("events_msgpack", properties::events_msgpack, seeds::events_msgpack, seeds::json_words, 8_000),
    target("histogram", properties::histogram, seeds::histograms, seeds::text_words, 8_000),
    target("line", properties::line, seeds::exported, seeds::json_words, 12_000),
    target("control", properties::control, seeds::controls_json, seeds::json_words, 4_000),
    target("expression", properties::expression, seeds::expressions, seeds::rule_words, 8_000),
    target("pipeline_yaml", properties::pipeline_yaml, seeds::pipelines, seeds::rule_words, 1_500),
    target("promql", properties::promql, seeds::promql, seeds::promql_words, 2_500),
    target("promtool_suite", properties::promtool_suite, seeds::suites, seeds::text_words, 2_500),
    target("time", properties::time, seeds::times, seeds::text_words, 100_000),
    target("silence", properties::silence, seeds::silences, seeds::rule_words, 5_000),
    target("encoding", properties::encoding, seeds::compressed, seeds::text_words, 4_000),
    target("snapshot", properties::snapshot, seeds::snapshots, seeds::text_words, 4_000),
    target("url", properties::url, seeds::addresses, seeds::text_words, 40_000),
    target("printable", properties::printable_text, seeds::texts, seeds::text_words, 20_000),
];

/// The message of the last panic.
static SAID: Mutex<String> = Mutex::new(String::new());

/// Serializes runs, because the panic hook applies to the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn note(panic: &PanicHookInfo<'_>) {
    *SAID.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
}

/// A fault, distinguished from others by the place of its panic.
struct Fault {
    place: String,
    told: String,
}

/// One run over some targets.
struct Run {
    seed: u64,
    /// Names the current input, so that it is known after an abort.
    last: File,
    faults: Vec<Fault>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzzing-last");
        let last = File::create(&path).expect("a directory of the build");
        Run { seed, last, faults: Vec::new() }
    }

    fn target(&mut self, target: &Target, rounds: u64) {
        let (seeds, words) = ((target.seeds)(), (target.words)());
        let (mut memory, begun) = (Memory::now(), Instant::now());
        for round in 0..rounds {
            let input = input(target, &seeds, &words, self.seed, round);
            let mark = format!("{:>20} seed {:>20} round {round:>20}\n", target.name, self.seed);
            self.last.write_all_at(mark.as_bytes(), 0).expect("room");
            if let Some(told) = judged_twice(target.property, &input) {
                self.note(target, round, &input, told);
            }
            if round % BATCH == BATCH - 1 || round == rounds - 1 {
                let grown = memory.grown_kib();
                if grown > MEMORY_KIB_MAX {
                    let told = format!("the {BATCH} rounds up to here took {} MiB", grown >> 10);
                    self.note(target, round, &[], told);
                }
                memory = Memory::now();
            }
            if self.faults.len() >= FAULTS_MAX {
                return;
            }
        }
        eprintln!("{}: {rounds} rounds in {:.1} s", target.name, begun.elapsed().as_secs_f64());
    }

    /// Records a fault that is not recorded yet, with the shortest input that causes it.
    fn note(&mut self, target: &Target, round: u64, input: &[u8], told: String) {
        let first = told.lines().next().unwrap_or("");
        let place = format!("{} {}", target.name, first.split(" took ").next().unwrap_or(""));
        if self.faults.iter().any(|fault| fault.place == place) {
            return;
        }
        let shortest = shortest(target.property, input);
        let shown = |text: &str| text.chars().take(SHOWN_CHARS).collect::<String>();
        let text = shown(&shortest.escape_ascii().to_string());
        let (name, seed) = (target.name, self.seed);
        let again = format!("SG_SEED={seed} SG_TARGET={name} SG_ROUND={round}");
        let told = format!("{again}\n{}\n{} bytes: b\"{text}\"", shown(&told), shortest.len());
        self.faults.push(Fault { place, told });
    }
}

/// Returns the input of a round: first each valid seed, then mutations.
fn input(target: &Target, seeds: &[Vec<u8>], words: &[&str], seed: u64, round: u64) -> Vec<u8> {
    match seeds.get(round as usize) {
        Some(seed) => seed.clone(),
        None => mutation::input(&mut Dice::new(seed, target.name, round), seeds, words),
    }
}

/// Returns what is wrong with an input. A slow input is tried twice, because a busy machine is not a fault.
fn judged_twice(property: fn(&[u8]), input: &[u8]) -> Option<String> {
    let told = judged(property, input)?;
    if told.starts_with("it took") { judged(property, input) } else { Some(told) }
}

fn judged(property: fn(&[u8]), input: &[u8]) -> Option<String> {
    let begun = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| property(input))).is_err() {
        return Some(SAID.lock().unwrap_or_else(PoisonError::into_inner).clone());
    }
    let took = begun.elapsed();
    (took > TIME_MAX).then(|| format!("it took {took:.1?} for {} bytes", input.len()))
}

/// Removes as much of the input as possible within 500 tries while the fault remains. An input that causes
/// no panic by itself stays unchanged.
fn shortest(property: fn(&[u8]), input: &[u8]) -> Vec<u8> {
    let is_fault = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| property(input))).is_err();
    let (mut input, mut tries) = (input.to_vec(), 500);
    let mut size = if is_fault(&input) { input.len() / 2 } else { 0 };
    while size > 0 {
        let mut at = 0;
        while at < input.len() && tries > 0 {
            let mut shorter = input.clone();
            shorter.drain(at..(at + size).min(input.len()));
            tries -= 1;
            if is_fault(&shorter) { input = shorter } else { at += size }
        }
        size /= 2;
    }
    input
}

/// Resident memory of this process at one moment, from which its peak is counted.
struct Memory(u64);

impl Memory {
    fn now() -> Memory {
        // If the peak cannot be reset, only growth above the old peak is seen; without these files nothing
        // is measured.
        let is_forgotten = fs::write("/proc/self/clear_refs", "5").is_ok();
        Memory(status_kib(if is_forgotten { "VmRSS:" } else { "VmHWM:" }).unwrap_or(0))
    }

    fn grown_kib(&self) -> u64 {
        status_kib("VmHWM:").unwrap_or(0).saturating_sub(self.0)
    }
}

fn status_kib(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Runs some targets with panics recorded instead of printed.
fn faults(run: impl FnOnce(&mut Run), seed: u64) -> Vec<Fault> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(note));
    let mut one = Run::new(seed);
    let ended = catch_unwind(AssertUnwindSafe(|| run(&mut one)));
    std::panic::set_hook(hook);
    if ended.is_err() {
        panic!("the harness itself failed: {}", SAID.lock().unwrap_or_else(PoisonError::into_inner));
    }
    one.faults
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Goal: a decoder reads or refuses any bytes within a second and within its memory bounds, and gives the
/// same result for each way of delivery. Method: valid inputs with a few mutations, the same in every run.
#[test]
fn no_input_breaks_a_decoder() {
    let (seed, times) = (number("SG_SEED").unwrap_or(SEED), number("SG_TIMES").unwrap_or(1));
    let only = std::env::var("SG_TARGET").ok();
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)).collect();
    assert!(!chosen.is_empty(), "there is no target {only:?}");
    if let Some(round) = number("SG_ROUND") {
        for target in chosen {
            let input = input(target, &(target.seeds)(), &(target.words)(), seed, round);
            eprintln!("{}: b\"{}\"", target.name, input.escape_ascii());
            (target.property)(&input);
        }
        return;
    }
    let found = faults(|run| chosen.iter().for_each(|one| run.target(one, one.rounds * times)), seed);
    let told: Vec<&str> = found.iter().map(|fault| fault.told.as_str()).collect();
    assert!(told.is_empty(), "{} faults\n\n{}\n", told.len(), told.join("\n\n"));
}

/// Goal: the harness detects faults. Method: planted faults of each kind.
#[test]
fn planted_faults_are_found_and_shown_short() {
    fn panics(bytes: &[u8]) {
        assert!(!bytes.windows(4).any(|four| four == b"null"), "planted");
    }
    fn takes_long(bytes: &[u8]) {
        if bytes.is_empty() {
            std::thread::sleep(TIME_MAX + Duration::from_millis(10));
        }
    }
    fn takes_memory(bytes: &[u8]) {
        if bytes.is_empty() {
            std::hint::black_box(vec![1u8; 2 * MEMORY_KIB_MAX as usize * 1_024]);
        }
    }
    let json = |property: fn(&[u8])| target("planted", property, seeds::events_json, seeds::json_words, 0);
    let empty = |property: fn(&[u8])| target("planted", property, || vec![Vec::new()], seeds::json_words, 0);
    let found = faults(|run| run.target(&json(panics), 3_000), SEED);
    assert_eq!(found.len(), 1, "one place, one fault");
    let told = &found[0].told;
    assert!(told.contains("planted") && told.ends_with("4 bytes: b\"null\""), "{told}");
    let found = faults(|run| run.target(&empty(takes_long), 1), SEED);
    assert!(found.len() == 1 && found[0].told.contains("it took 1.0"), "{} faults", found.len());
    if status_kib("VmHWM:").is_some() {
        let found = faults(|run| run.target(&empty(takes_memory), 1), SEED);
        assert!(found.len() == 1 && found[0].told.contains("MiB"), "{} faults", found.len());
    }
}

/// The targets of this test and of cargo-fuzz are the same.
#[test]
fn cargo_fuzz_has_the_same_targets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest of the targets");
    let files = fs::read_dir(root.join("fuzz_targets")).expect("the targets");
    let mut there: Vec<String> =
        files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    there.sort();
    let mut here: Vec<String> = TARGETS.iter().map(|target| format!("{}.rs", target.name)).collect();
    here.sort();
    assert_eq!(here, there);
    for target in &TARGETS {
        let name = target.name;
        let named = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&named), "{name}");
    }
}

/// Writes the seeds as files, the initial corpus of cargo-fuzz.
#[test]
#[ignore = "writes files into tests/fuzz/corpus"]
fn seeds_become_a_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for target in &TARGETS {
        let dir = root.join(target.name);
        fs::create_dir_all(&dir).expect("writable");
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(dir.join(format!("seed-{number}")), seed).expect("writable");
        }
    }
}
