//! Runs one case after the other against one service, and collects the exceeded limits.
//!
//! Intuition: a case is judged by its own cost and by its effect on the honest client. An event is posted
//! right behind each case, so work that the service does after the answer is attributed to the case that
//! caused it.

use crate::bodies::{JSON, list};
use crate::exchange::{Unanswered, exchange, get, other_than, request};
use crate::honest::{Honest, Noticed};
use crate::limits::{
    ALERT_WITHIN, Bounds, HANG, HEALTH_AFTER, HEALTH_BESIDE, HONEST_WITHIN, LEAK_BYTES, MIB,
};
use crate::service::Service;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Hung cases after which the others are not tried: each takes [`HANG`].
const HANGS_MAX: usize = 3;

/// Requests to `/healthz` after a case. The fastest answer counts, because any single one may lose the
/// processor.
const LOOKS: usize = 5;

/// How often a request that must leave no memory behind is sent, after a few during which buffers grow.
const REPEATS: usize = 10;
const REPEATS_BEFORE: usize = 3;

/// The result of the hostile side of a case.
#[derive(Debug, Default)]
pub struct Outcome {
    pub took: Duration,
    /// Bytes of the answer.
    pub answer: usize,
    pub status: u16,
    pub is_hung: bool,
    pub wrong: Vec<String>,
}

pub struct Trial {
    service: Service,
    honest: Honest,
    seed: u64,
    hangs: usize,
    wrong: Vec<String>,
    /// The longest times that the honest client noticed, in the order of [`figures`].
    worst: [Duration; 4],
}

/// Whether a status is an expected answer: a success, a refusal, or "try again later".
pub fn is_answer(status: u16) -> bool {
    (200..500).contains(&status) || status == 503
}

/// Sends a request, or malformed bytes, and checks the answer.
pub fn ask(address: SocketAddr, bytes: &[u8], is_right: impl Fn(u16) -> bool) -> Outcome {
    let begun = Instant::now();
    let answered = exchange(address, bytes, HANG);
    let mut outcome = Outcome { took: begun.elapsed(), ..Outcome::default() };
    match answered {
        Ok(answer) => {
            (outcome.answer, outcome.status) = (answer.body.len(), answer.status);
            if !is_right(answer.status) {
                outcome.wrong.push(answer.shown());
            }
        }
        Err(error) => {
            outcome.is_hung = matches!(error, Unanswered::Silent);
            outcome.wrong.push(error.shown());
        }
    }
    outcome
}

impl Trial {
    pub fn start(seed: u64) -> Trial {
        let service = Service::start();
        let honest = Honest::start(service.address, service.alerts.clone());
        Trial { service, honest, seed, hangs: 0, wrong: Vec::new(), worst: [Duration::ZERO; 4] }
    }

    /// Posts events as a body of this type.
    pub fn events(&mut self, name: &str, kind: &str, body: &[u8]) {
        self.events_with(name, &[("Content-Type", kind)], body);
    }

    pub fn events_with(&mut self, name: &str, headers: &[(&str, &str)], body: &[u8]) {
        let bytes = request("POST", "/api/v1/events", headers, body);
        self.request(name, &bytes, Bounds::post(body.len()));
    }

    /// Posts a compressed body that inflates to a payload, and may cost as much as one.
    pub fn inflated(&mut self, name: &str, headers: &[(&str, &str)], body: &[u8]) {
        let bytes = request("POST", "/api/v1/events", headers, body);
        let bounds = Bounds { answer: Bounds::post(body.len()).answer, ..Bounds::post(MIB.max(body.len())) };
        self.request(name, &bytes, bounds);
    }

    /// Sends a request that must be answered. Returns its status.
    pub fn request(&mut self, name: &str, bytes: &[u8], bounds: Bounds) -> u16 {
        self.case(name, bounds, |address| ask(address, bytes, is_answer))
    }

    pub fn case(&mut self, name: &str, bounds: Bounds, work: impl FnOnce(SocketAddr) -> Outcome) -> u16 {
        if self.is_lost() {
            return 0;
        }
        let before = self.service.forget_peak();
        let outcome = work(self.service.address);
        self.honest.post_behind();
        let grown = self.service.peak().saturating_sub(before);
        let (status, is_hung) = (outcome.status, outcome.is_hung);
        let mut wrong = of_itself(bounds, outcome, grown);
        wrong.extend(self.of_others());
        self.note(name, bounds.size, wrong);
        if is_hung {
            self.hangs += 1;
        }
        status
    }

    /// Sends a request repeatedly. It must leave no memory behind.
    pub fn repeated(&mut self, name: &str, bytes: &[u8]) {
        if self.is_lost() {
            return;
        }
        let send = |times: usize| {
            for _ in 0..times {
                let _ = exchange(self.service.address, bytes, HANG);
            }
        };
        send(REPEATS_BEFORE);
        let before = self.resident();
        send(REPEATS);
        let left = self.resident().saturating_sub(before);
        let what = format!("memory left after {REPEATS} times: {}, limit {}", mib(left), mib(LEAK_BYTES));
        let mut wrong = if left > LEAK_BYTES { vec![what] } else { Vec::new() };
        wrong.extend(self.of_others());
        self.note(name, bytes.len(), wrong);
    }

    /// Sends events that prepare later cases; this is not a case itself.
    pub fn prepare(&mut self, make: impl FnMut(usize) -> String) {
        let bytes = request("POST", "/api/v1/events", &[("Content-Type", JSON)], &list(MIB, make));
        let answered = exchange(self.service.address, &bytes, HANG);
        self.honest.post_behind();
        let mut wrong: Vec<String> = other_than(202, &answered).into_iter().collect();
        wrong.extend(self.of_others());
        self.note("preparing", MIB, wrong);
    }

    pub fn address(&self) -> SocketAddr {
        self.service.address
    }

    /// Returns all exceeded limits of the cases and of the ledger, and the number of published and of
    /// resolved alerts.
    pub fn finish(mut self) -> (Vec<String>, u64, u64) {
        let is_alive = self.service.is_alive();
        if !is_alive {
            self.wrong.push(format!("the service died:\n{}", self.service.last_words()));
        } else if self.is_lost() {
            self.wrong.push(format!("the cases behind were not tried, as {HANGS_MAX} had no answer"));
        }
        let (wrong, told, resolved) = self.honest.finish();
        self.wrong.extend(wrong.into_iter().map(|one| format!("at the end: {one}")));
        let worst = figures(Duration::ZERO, &Noticed::default()).into_iter().zip(self.worst);
        for ((what, ..), took) in worst {
            eprintln!("at worst {what}: {took:.2?}");
        }
        if !self.wrong.is_empty() {
            eprintln!("the last lines of the service's log:\n{}", self.service.last_words());
        }
        if is_alive && self.service.stop() != Some(0) {
            self.wrong.push("at the end: SIGTERM does not end it well".into());
        }
        (self.wrong, told, resolved)
    }

    fn note(&mut self, name: &str, size: usize, wrong: Vec<String>) {
        let seed = self.seed;
        self.wrong.extend(wrong.into_iter().map(|one| format!("{name}, {size} bytes, seed {seed}: {one}")));
    }

    /// Figures of the honest client that are above their limits.
    fn of_others(&mut self) -> Vec<String> {
        let noticed = self.honest.take();
        let figures = figures(self.health(), &noticed);
        for (worst, (_, took, _)) in self.worst.iter_mut().zip(figures) {
            *worst = took.max(*worst);
        }
        let above = figures.into_iter().filter(|(_, took, limit)| took > limit);
        let above = above.map(|(what, took, limit)| format!("{what} took {took:.2?}, limit {limit:.2?}"));
        above.chain(noticed.wrong).collect()
    }

    fn is_lost(&mut self) -> bool {
        self.hangs >= HANGS_MAX || !self.service.is_alive()
    }

    /// The minimum of the memory within a quarter of a second, because freed memory is returned with some
    /// delay.
    fn resident(&self) -> u64 {
        let look = |_| {
            std::thread::sleep(Duration::from_millis(25));
            self.service.resident()
        };
        (0..10).map(look).min().unwrap_or(0)
    }

    fn health(&self) -> Duration {
        let mut best = HANG;
        for _ in 0..LOOKS {
            let begun = Instant::now();
            if exchange(self.service.address, &get("/healthz"), HANG).is_ok() {
                best = best.min(begun.elapsed());
            }
            if best <= HEALTH_AFTER {
                break;
            }
        }
        best
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB as f64)
}

/// Figures of a case that are above their limits.
fn of_itself(bounds: Bounds, outcome: Outcome, grown: u64) -> Vec<String> {
    let (mut wrong, within) = (outcome.wrong, bounds.within(outcome.answer));
    if outcome.took > within {
        wrong.push(format!("answered in {:.2?}, limit {within:.2?}", outcome.took));
    }
    if grown > bounds.memory {
        wrong.push(format!("memory grew by {}, limit {}", mib(grown), mib(bounds.memory)));
    }
    if outcome.answer > bounds.answer {
        wrong.push(format!("{} bytes of answer, limit {}", outcome.answer, bounds.answer));
    }
    wrong
}

/// The times that the honest client noticed, each with its limit.
fn figures(health_after: Duration, noticed: &Noticed) -> [(&'static str, Duration, Duration); 4] {
    [
        ("/healthz after it", health_after, HEALTH_AFTER),
        ("/healthz beside it", noticed.health, HEALTH_BESIDE),
        ("an honest event beside it", noticed.event, HONEST_WITHIN),
        ("an honest alert beside it", noticed.alert, ALERT_WITHIN),
    ]
}
