//! The simulated environment: a log, a transition log of transitions, a store, a clock, and the faults that hit
//! them.

use crate::store::State;
use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use streamgauge::core::Timestamp;
use streamgauge::driver::mutant::Mutant;
use streamgauge::driver::ports::{Entry, Extent, Logged};

/// When a simulation begins: a minute of 2026.
pub const BEGIN_MS: i64 = 1_793_491_200_000;

/// How long a lease lives without being renewed.
pub const LEASE_MS: i64 = 3_000;

/// Lines of the trace that are kept for the report of a failure.
const TRACE_LINES: usize = 60;

/// A planted mistake that the simulation must find: in the driver, or in the simulated environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    Driver(Mutant),
    /// The store skips a comparison: of the nonce, of epoch and nonce, or of the version; with `NoPlace`
    /// the transition log stores every transition that arrives.
    NoNonce,
    NoOwner,
    NoVersion,
    NoPlace,
}

/// The odds of each kind of fault, as one in N; 0 means never.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub kill: u64,
    pub pause: u64,
    pub lose_answer: u64,
    pub late: u64,
    pub lose_message: u64,
    pub lose_consumer: u64,
    pub go_back: u64,
    pub store_travels: u64,
    pub store_is_lost: u64,
    pub cut: u64,
    pub make_anew: u64,
    /// Retention removes records that are no longer needed; `overtake` removes records that are still
    /// needed.
    pub retain: u64,
    pub overtake: u64,
}

/// A small seeded generator, the only source of randomness.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// One step of SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True once in `odds`; never for 0.
    pub fn hits(&mut self, odds: u64) -> bool {
        odds > 0 && self.below(odds) == 0
    }
}

/// The event log, including every record ever appended.
#[derive(Debug, Default)]
pub struct Log {
    /// Counts how often the log was created.
    pub made: u64,
    pub first: u64,
    pub records: Vec<Logged>, // from number 1 of this creation; those below `first` are removed
    /// Counts restarts of the broker. Consumers of an earlier start no longer exist.
    pub restarts: u64,
    /// Whether records were removed that a process still needed. The expected result is then unknown.
    pub was_overtaken: bool,
}

impl Log {
    pub fn append(&mut self, now_ms: i64, entry: Entry) -> u64 {
        let seq = self.records.len() as u64 + 1;
        self.records.push(Logged { seq, stamp: Timestamp::clamped(now_ms), entry });
        seq
    }

    pub fn last(&self) -> u64 {
        self.records.len() as u64
    }

    pub fn extent(&self) -> Extent {
        Extent { stream: format!("made {}", self.made), first: self.first, last: self.last() }
    }
}

pub struct World {
    pub now_ms: i64,
    pub dice: Dice,
    pub faults: Faults,
    pub planted: Option<Planted>,
    /// Whether there is one process with its log and store on its own disk.
    pub is_local: bool,
    pub log: Log,
    pub transition_log: BTreeMap<u64, String>,
    /// Messages to the aggregate partition.
    pub partials: BTreeMap<u64, Vec<u8>>,
    pub stored_twice: u64,
    pub store: State,
    /// Earlier states of the store, newest last. The store may fall back to one of them.
    pub past: Vec<State>,
    /// Commits that are executed later although their process no longer waits for them.
    pub late: Vec<(i64, crate::store::Prepared)>,
    /// Whether the log was cut or created anew, at most once per simulation. A process is then right to
    /// stop.
    pub log_went_back: bool,
    /// How often a process stopped because of the log after all faults had ended.
    pub stops: u64,
    pub is_healed: bool,
    trace: Vec<String>,
}

/// A handle to the world that all processes share.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<World>>);

impl Shared {
    pub fn new(seed: u64, planted: Option<Planted>, is_local: bool) -> Shared {
        let mut dice = Dice::new(seed);
        let faults = Faults::of(&mut dice);
        let faults = if is_local { faults.of_one_machine() } else { faults };
        Shared(Rc::new(RefCell::new(World {
            now_ms: BEGIN_MS + dice.below(60_000) as i64,
            dice,
            faults,
            planted,
            is_local,
            log: Log { made: 1, first: 1, ..Log::default() },
            transition_log: BTreeMap::new(),
            partials: BTreeMap::new(),
            stored_twice: 0,
            store: State::default(),
            past: Vec::new(),
            late: Vec::new(),
            log_went_back: false,
            stops: 0,
            is_healed: false,
            trace: Vec::new(),
        })))
    }

    pub fn get(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }
}

impl Faults {
    /// Enables about half of the faults for each seed, so that the rarer ones also occur alone. A log that
    /// goes back is never combined with a store that goes back: no process could detect both together.
    fn of(dice: &mut Dice) -> Faults {
        let mut some = |odds: u64| if dice.hits(2) { odds } else { 0 };
        let mut faults = Faults {
            kill: some(150),
            pause: some(400),
            lose_answer: some(12),
            late: some(3),
            lose_message: some(300),
            lose_consumer: some(100),
            go_back: some(200),
            store_travels: some(120),
            store_is_lost: some(900),
            cut: some(500),
            make_anew: some(1_500),
            retain: some(300),
            overtake: some(2_000),
        };
        if dice.hits(2) {
            (faults.cut, faults.make_anew) = (0, 0);
        } else {
            (faults.store_travels, faults.store_is_lost, faults.retain, faults.overtake) = (0, 0, 0, 0);
        }
        // A store that falls back to records that the log has lost cannot be repaired.
        if dice.hits(2) {
            faults.overtake = 0;
        } else {
            faults.store_travels = 0;
        }
        // Two owners with the same epoch arise only if the store goes back while one of them is paused.
        if faults.store_travels > 0 && dice.hits(3) {
            (faults.pause, faults.store_travels, faults.kill) = (60, 40, 0);
        }
        faults
    }
}

impl Faults {
    /// Those of a process whose log and store are on its own disk.
    fn of_one_machine(self) -> Faults {
        Faults { kill: self.kill, pause: self.pause, lose_answer: self.lose_answer, ..Faults::default() }
    }
}

impl World {
    /// The published transitions by number. On one machine they are part of the store.
    pub fn told(&self) -> &BTreeMap<u64, String> {
        if self.is_local { &self.store.alerts } else { &self.transition_log }
    }

    /// Stores a message to the aggregate partition, once.
    pub fn post(&mut self, number: u64, bytes: &[u8]) {
        self.partials.entry(number).or_insert_with(|| bytes.into());
        self.note(format!("message {number} to the aggregate"));
    }

    pub fn note(&mut self, what: impl Into<String>) {
        if self.trace.len() >= TRACE_LINES {
            self.trace.remove(0);
        }
        let line = format!("{:>7} ms {}", self.now_ms - BEGIN_MS, what.into());
        self.trace.push(line);
    }

    pub fn trace(&self) -> String {
        self.trace.join("\n")
    }

    /// Applies the faults that hit the store and the log, between two steps of the processes.
    pub fn befall(&mut self) {
        let faults = self.faults.clone();
        if self.dice.hits(faults.store_travels) && !self.past.is_empty() {
            let back = self.dice.below(self.past.len().min(4) as u64) as usize + 1;
            self.store = self.past[self.past.len() - back].clone();
            self.past.truncate(self.past.len() - back);
            self.note(format!("the store goes back {back} commits, to {}", self.store.applied()));
        }
        if self.dice.hits(faults.store_is_lost) && (self.log.first == 1 || self.log.was_overtaken) {
            self.store = State::default();
            self.past.clear();
            self.note("the store is lost");
        }
        if self.dice.hits(faults.cut) && self.log.last() > 4 && !self.log_went_back {
            let gone = self.dice.below(4) + 1;
            self.log.records.truncate((self.log.last() - gone) as usize);
            self.log.restarts += 1;
            self.log_went_back = true;
            self.note(format!("the log loses its last {gone} records, ends at {}", self.log.last()));
        }
        if self.dice.hits(faults.make_anew) && !self.log_went_back {
            self.log =
                Log { made: self.log.made + 1, first: 1, restarts: self.log.restarts + 1, ..Log::default() };
            self.log_went_back = true;
            self.note("the log is made anew");
        }
        // A log that loses the records from which a lost store is being rebuilt cannot be repaired either.
        let is_rebuilding = self.store.alerts.len() < self.transition_log.len();
        if self.dice.hits(faults.overtake) && !is_rebuilding && self.log.last() > 8 {
            let kept = self.dice.below(self.log.last() - self.log.first + 1);
            self.log.first = self.log.last() - kept;
            self.log.was_overtaken = true;
            self.note(format!("the log begins at {} now", self.log.first));
        }
        if self.dice.hits(faults.retain) {
            // Retention may remove any record that the store's snapshots cover.
            let covered = self.past.iter().chain([&self.store]).map(State::snapshot_at).min().unwrap_or(0);
            self.log.first = self.log.first.max(covered + 1).min(self.log.last().max(1));
        }
    }

    /// Saves the store's state so that the store can fall back to it.
    pub fn keep_past(&mut self) {
        self.past.push(self.store.clone());
        if self.past.len() > 8 {
            self.past.remove(0);
        }
    }

    /// Executes the late commits that are due.
    pub fn catch_up(&mut self) {
        let now = self.now_ms;
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        for (_, prepared) in due {
            let answer = crate::store::run(self, &prepared);
            self.note(format!("a late commit of {} is carried out: {answer:?}", prepared.applied()));
        }
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.faults = Faults::default();
        self.is_healed = true;
        self.note("from here on nothing goes wrong");
    }
}
