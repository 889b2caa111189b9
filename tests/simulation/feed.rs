//! The simulated broker: consumers that are lost, go back or skip messages, and answers that never arrive.

use crate::process::act;
use crate::world::{Planted, Shared, World};
use std::time::Duration;
use streamgauge::core::Timestamp;
use streamgauge::driver::continuity::{Broken, Continuity};
use streamgauge::driver::ports::OutOfBandAlert;
use streamgauge::driver::ports::{
    DeadLetter, Entry, Extent, Feed, Logged, Numbers, OutOfBandAlerts, OutboxEntry, Outlet, PartialsMessage,
    PortError, PublishOutcome, RequestId, Rollup, TransitionLog,
};

/// Maximum number of records in one batch.
const BATCH_MAX: u64 = 12;

/// The connection of one process to the broker.
pub struct SimFeed {
    world: Shared,
    who: usize,
    continuity: Option<Continuity>,
    consumer: Option<Consumer>,
}

/// A cursor that the broker keeps.
struct Consumer {
    restarts: u64,
    next: u64,
    place: u64,
}

impl SimFeed {
    pub fn new(world: Shared, who: usize) -> SimFeed {
        SimFeed { world, who, continuity: None, consumer: None }
    }

    /// Delivers a batch of one consumer, up to the first break in the continuity of the log.
    fn deliver(
        world: &mut World,
        consumer: &mut Consumer,
        continuity: &mut Continuity,
    ) -> (Vec<Logged>, Result<(), Broken>) {
        let mut batch = Vec::new();
        for _ in 0..world.dice.below(BATCH_MAX) + 1 {
            if world.dice.hits(world.faults.lose_consumer) {
                return (batch, Err(Broken::Consumer("no heartbeat".into())));
            }
            if world.dice.hits(world.faults.go_back) {
                // The broker stores a consumer's position lazily, so it may have forgotten the last
                // deliveries.
                let back = world
                    .dice
                    .below(5)
                    .min(consumer.place)
                    .min(consumer.next.saturating_sub(world.log.first));
                (consumer.next, consumer.place) = (consumer.next - back, consumer.place - back);
            }
            // The broker clamps a start to the records that it has, at both ends.
            consumer.next = consumer.next.clamp(world.log.first, world.log.last() + 1);
            let Some(record) = world.log.records.get(consumer.next as usize - 1) else { break };
            consumer.next += 1;
            consumer.place += 1;
            if world.dice.hits(world.faults.lose_message) {
                continue;
            }
            match continuity.take(consumer.place, record) {
                Ok(true) => batch.push(record.clone()),
                Ok(false) => {}
                Err(broken) => return (batch, Err(broken)),
            }
        }
        (batch, Ok(()))
    }

    /// Appends to a log in the process: with its own stamp, and all entries or none.
    fn append_locally(
        world: &mut World,
        entries: Vec<(Entry, Option<RequestId>)>,
        confirmed: Timestamp,
    ) -> Vec<Result<u64, PortError>> {
        let full = || PortError::Write { place: "the disk".into(), source: "no room".into() };
        if world.dice.hits(world.faults.lose_answer) {
            return entries.iter().map(|_| Err(full())).collect();
        }
        // The machine's clock is set now and then.
        let error = if world.dice.hits(20) { world.dice.below(400) as i64 } else { 0 };
        let stamp = (world.now_ms - error).max(confirmed.ms());
        entries.into_iter().map(|(entry, _)| Ok(world.log.append(stamp, entry))).collect()
    }
}

impl Feed for SimFeed {
    fn is_local(&self) -> bool {
        self.world.get().is_local
    }

    fn create(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    fn extent(&mut self) -> Result<Option<Extent>, PortError> {
        act(&self.world, self.who);
        Ok(Some(self.world.get().log.extent()))
    }

    fn seek(&mut self, continuity: Continuity) -> Result<(), PortError> {
        (self.continuity, self.consumer) = (Some(continuity), None);
        Ok(())
    }

    fn next(&mut self, wait: Duration) -> Result<Vec<Logged>, PortError> {
        act(&self.world, self.who);
        let world = &mut *self.world.get();
        let Some(continuity) = &mut self.continuity else { return Ok(Vec::new()) };
        let restarts = world.log.restarts;
        let consumer = match &mut self.consumer {
            Some(consumer) if consumer.restarts == restarts => consumer,
            gone => {
                let next = continuity.begin(&world.log.extent())?;
                gone.insert(Consumer { restarts, next, place: 0 })
            }
        };
        let (batch, result) = SimFeed::deliver(world, consumer, continuity);
        match batch.last() {
            Some(last) => continuity.remember(last),
            None => world.now_ms += wait.as_millis().max(1) as i64,
        }
        match result {
            Ok(()) => {}
            Err(Broken::Consumer(_)) => self.consumer = None,
            Err(Broken::Log(error)) => return Err(error),
        }
        Ok(batch)
    }

    fn append(
        &mut self,
        entries: Vec<(Entry, Option<RequestId>)>,
        confirmed: Timestamp,
    ) -> Vec<Result<u64, PortError>> {
        act(&self.world, self.who);
        let world = &mut *self.world.get();
        if world.is_local {
            return SimFeed::append_locally(world, entries, confirmed);
        }
        let mut answers = Vec::new();
        for (entry, _) in entries {
            let is_answered = !world.dice.hits(world.faults.lose_answer);
            let now = world.now_ms - if world.dice.hits(20) { world.dice.below(400) as i64 } else { 0 };
            let seq = (is_answered || world.dice.hits(2)).then(|| world.log.append(now, entry));
            let away = || PortError::Away { place: "the log".into(), source: "no answer".into() };
            answers.push(seq.filter(|_| is_answered).ok_or_else(away));
        }
        answers
    }
}

/// Dead letters are not compared, because they do not follow from the log alone.
impl OutOfBandAlerts for SimFeed {
    fn newest_out_of_band(&mut self, _: &str) -> Result<Option<(u64, String)>, PortError> {
        Ok(None)
    }

    fn put_out_of_band(&mut self, _: &OutOfBandAlert) -> Result<(), PortError> {
        Ok(())
    }
}

impl TransitionLog for SimFeed {
    fn newest(&mut self) -> Result<Numbers, PortError> {
        act(&self.world, self.who);
        let newest = |keys: Option<&u64>| keys.copied().unwrap_or(0);
        let world = &*self.world.get();
        let alerts = newest(world.told().keys().next_back());
        let partials = newest(world.partials.keys().next_back());
        Ok(Numbers { alerts, partials, ..Numbers::default() })
    }

    fn told(&mut self) -> Result<Vec<String>, PortError> {
        act(&self.world, self.who);
        Ok(self.world.get().told().values().cloned().collect())
    }

    fn publish(&mut self, transitions: &[OutboxEntry]) -> Result<Vec<PublishOutcome>, PortError> {
        if self.world.get().is_local {
            return Ok(vec![PublishOutcome::New; transitions.len()]);
        }
        let mut placed = Vec::new();
        for transition in transitions {
            act(&self.world, self.who);
            let world = &mut *self.world.get();
            let is_answered = !world.dice.hits(world.faults.lose_answer);
            if !is_answered && world.dice.hits(2) {
                placed.push(PublishOutcome::Unknown);
                continue;
            }
            let there = world.transition_log.get(&transition.number).cloned();
            let there = there.filter(|_| world.planted != Some(Planted::NoPlace));
            if there.is_none() {
                let old = world.transition_log.insert(transition.number, transition.json.clone());
                world.stored_twice += u64::from(old.is_some());
            }
            world.note(format!("{} publishes {}: new {}", self.who, transition.number, there.is_none()));
            placed.push(match there {
                _ if !is_answered => PublishOutcome::Unknown,
                Some(text) => PublishOutcome::There(text),
                None => PublishOutcome::New,
            });
        }
        Ok(placed)
    }

    fn post(&mut self, partials: &[PartialsMessage]) -> Result<usize, PortError> {
        for (done, message) in partials.iter().enumerate() {
            act(&self.world, self.who);
            let world = &mut *self.world.get();
            let is_answered = !world.dice.hits(world.faults.lose_answer);
            if is_answered || world.dice.hits(2) {
                world.post(message.number, &message.bytes);
            }
            if !is_answered {
                return Ok(done);
            }
        }
        Ok(partials.len())
    }

    fn shadow(&mut self, shadows: &[OutboxEntry]) -> Result<usize, PortError> {
        Ok(shadows.len())
    }
}

impl Outlet for SimFeed {
    fn dead(&mut self, _letters: &[DeadLetter]) -> Result<(), PortError> {
        act(&self.world, self.who);
        Ok(())
    }

    fn rollups(&mut self, _rollups: &[Rollup]) -> Result<(), PortError> {
        Ok(())
    }
}
