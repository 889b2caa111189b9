//! Processes: they step in turn, may be killed before any effect, and may sleep past the end of their
//! lease.

use crate::feed::SimFeed;
use crate::store::SimStore;
use crate::world::{LEASE_MS, Shared};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;
use streamgauge::core::rule::RuleSet;
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::{Span, Timestamp};
use streamgauge::driver::command::{self, Command, Sender, StartError};
use streamgauge::driver::metrics::OwnerMetrics;
use streamgauge::driver::owner::{Owner, SessionParts, Step};
use streamgauge::driver::ports::{Clock, PortError};
use streamgauge::driver::quota::OwnershipQuota;

/// The panic payload of a killed process.
struct Killed;

/// The clock of one process, which is wrong by a constant.
pub struct SimClock {
    world: Shared,
    skew_ms: i64,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::clamped(self.world.get().now_ms + self.skew_ms)
    }

    fn running(&self) -> Duration {
        Duration::from_millis(self.world.get().now_ms as u64)
    }

    fn pause(&self, time: Duration) {
        self.world.get().now_ms += time.as_millis() as i64;
    }

    fn receive<T>(&self, messages: &Receiver<T>, time: Duration) -> Result<T, RecvTimeoutError> {
        messages.try_recv().map_err(|error| match error {
            TryRecvError::Empty => {
                self.pause(time);
                RecvTimeoutError::Timeout
            }
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }
}

struct Process {
    owner: Owner<SimFeed, SimStore, SimClock>,
    sender: Sender,
    wake_ms: i64,
}

thread_local! {
    /// All processes of this thread's simulation. The place of a process that is stepping is empty.
    static PROCESSES: RefCell<Vec<Option<Process>>> = const { RefCell::new(Vec::new()) };
}

/// The limits that every process runs with.
pub fn limits() -> Limits {
    Limits { allowed_lateness: Span::from_secs(5), max_lateness: Span::from_secs(180), ..Limits::default() }
}

/// Starts `count` processes.
pub fn start_all(world: &Shared, count: usize, rules: &RuleSet) {
    PROCESSES.with_borrow_mut(|all| all.clear());
    for who in 0..count {
        let process = start(world, who, rules);
        PROCESSES.with_borrow_mut(|all| all.push(Some(process)));
    }
}

fn start(world: &Shared, who: usize, rules: &RuleSet) -> Process {
    let (sender, commands) = command::commands();
    let (wake_ms, skew_ms) = {
        let world = &mut *world.get();
        (world.now_ms + world.dice.below(500) as i64, world.dice.below(200) as i64 - 100)
    };
    let parts = SessionParts {
        feed: SimFeed::new(world.clone(), who),
        store: SimStore { world: world.clone(), who },
        clock: SimClock { world: world.clone(), skew_ms },
        limits: limits(),
        rules: Some(rules.clone()),
        lease: Duration::from_millis(LEASE_MS as u64),
        snapshot_every: Duration::from_secs(5),
        is_rolling_up: false,
        share: OwnershipQuota::new(1),
        owner_metrics: Arc::new(OwnerMetrics::default()),
    };
    Process { owner: Owner::new(parts, commands, Box::new(|_| {})), sender, wake_ms }
}

/// Runs before each effect. Here a process may be killed, or sleep while the others continue.
pub fn act(world: &Shared, who: usize) {
    let (is_killed, is_paused) = {
        let world = &mut *world.get();
        world.now_ms += world.dice.below(4) as i64;
        world.catch_up();
        (world.dice.hits(world.faults.kill), world.dice.hits(world.faults.pause))
    };
    if is_killed {
        world.get().note(format!("{who} is killed"));
        resume_unwind(Box::new(Killed));
    }
    if is_paused {
        sleep(world, who);
    }
}

/// Suspends one process in the middle of a step while the others continue.
fn sleep(world: &Shared, who: usize) {
    let (until, pause) = {
        let world = &mut *world.get();
        world.note(format!("{who} sleeps"));
        let until = world.now_ms + world.dice.below(3 * LEASE_MS as u64) as i64;
        // No other process sleeps meanwhile, so that the recursion has one level.
        (until, std::mem::take(&mut world.faults.pause))
    };
    while world.get().now_ms < until {
        let next = PROCESSES.with_borrow(|all| all.iter().position(|process| process.is_some()));
        match next {
            Some(other) => step(world, other),
            None => world.get().now_ms = until,
        }
        world.get().befall();
        world.get().now_ms += 5;
    }
    let world = &mut *world.get();
    world.note(format!("{who} wakes up"));
    if !world.is_healed {
        world.faults.pause = pause;
    }
}

/// Runs one step of one process. A process that was killed or has stopped is started again.
pub fn step(world: &Shared, who: usize) {
    let Some(mut process) = PROCESSES.with_borrow_mut(|all| all[who].take()) else { return };
    if process.wake_ms > world.get().now_ms {
        PROCESSES.with_borrow_mut(|all| all[who] = Some(process));
        return;
    }
    let result = catch_unwind(AssertUnwindSafe(|| process.owner.step()));
    let process = match result {
        Ok(Ok(Step::Working)) => process,
        Ok(Ok(Step::Waiting(time))) => {
            process.wake_ms = world.get().now_ms + time.as_millis() as i64;
            process
        }
        Ok(Ok(Step::Stopped)) => anew(world, who),
        Ok(Err(StartError::Port(PortError::Changed { place, found, .. }))) => {
            {
                let world = &mut *world.get();
                world.stops += u64::from(world.is_healed);
                world.note(format!("{who} stops: {place}: {found}"));
            }
            let mut anew = anew(world, who);
            anew.wake_ms += 500;
            anew
        }
        Ok(Err(error)) => panic!("{who} fails: {error}\n{}", world.get().trace()),
        Err(reason) if reason.is::<Killed>() => anew(world, who),
        Err(reason) => resume_unwind(reason),
    };
    PROCESSES.with_borrow_mut(|all| all[who] = Some(process));
}

fn anew(world: &Shared, who: usize) -> Process {
    start(world, who, &crate::rules())
}

/// Asks a process to stop, unless it is asleep.
pub fn stop(who: usize) {
    send(who, Command::Stop);
}

/// Sends a command to a process, unless it is asleep or its queue is full.
pub fn send(who: usize, command: Command) {
    PROCESSES.with_borrow(|all| {
        if let Some(process) = &all[who] {
            let _ = process.sender.try_send(command);
        }
    });
}
