//! The simulated store: the commit script of the real one over plain maps, with the same comparisons.

use crate::process::act;
use crate::world::{LEASE_MS, Planted, Shared, World};
use std::collections::BTreeMap;
use streamgauge::core::measure::pane::Shape;
use streamgauge::driver::ports::{
    Answer, Asked, Checkpoint, Commit, Fence, OutboxEntry, OwnerStore, PartialsMessage, PortError, Shown,
    Store, WindowAt, WindowRow,
};

/// The whole content of the store.
#[derive(Debug, Clone, Default)]
pub struct State {
    epoch: u64,
    nonce: String,
    version: u64,
    commit: String,
    lease: Option<(String, i64)>, // nonce, end
    checkpoint: Checkpoint,
    outbox: BTreeMap<u64, OutboxEntry>,
    trying: u64,
    suspect: (u64, u32), // record, deaths
    partials: BTreeMap<u64, Vec<u8>>,
    pub alerts: BTreeMap<u64, String>,
    active: Vec<String>,
    pub windows: BTreeMap<WindowAt, WindowRow>,
}

impl State {
    pub fn applied(&self) -> u64 {
        self.checkpoint.applied
    }

    pub fn snapshot_at(&self) -> u64 {
        self.checkpoint.snapshot.as_ref().map_or(0, |(at, _)| *at)
    }

    pub fn snapshot(&self) -> Option<&[u8]> {
        self.checkpoint.snapshot.as_ref().map(|(_, bytes)| bytes.as_slice())
    }

    pub fn active(&self) -> &[String] {
        &self.active
    }

    fn take(&mut self, commit: &Commit) {
        let known = &mut self.checkpoint;
        (known.applied, known.anchor) = (commit.applied, commit.anchor.clone());
        known.is_losing = commit.is_losing;
        known.poison.extend(&commit.poison);
        known.numbered = commit.numbered;
        if let Some(snapshot) = &commit.snapshot {
            known.snapshot = Some((commit.applied, snapshot.clone()));
        }
        for transition in &commit.transitions {
            self.alerts.entry(transition.number).or_insert_with(|| transition.json.clone());
            self.outbox.insert(transition.number, transition.clone());
        }
        if let Some(active) = &commit.active {
            self.active = active.iter().map(|(_, json)| json.clone()).collect();
        }
        let partials = commit.partials.iter().map(|message| (message.number, message.bytes.clone()));
        self.partials.extend(partials);
        self.partials.retain(|number, _| *number > commit.published.partials);
        self.outbox.retain(|number, _| *number > commit.published.alerts);
        self.windows.extend(commit.windows.iter().cloned());
    }
}

#[derive(Debug, Clone)]
pub struct Prepared {
    fence: Fence,
    commit: Commit,
}

impl Prepared {
    pub fn applied(&self) -> u64 {
        self.commit.applied
    }
}

/// The commit script.
pub fn run(world: &mut World, prepared: &Prepared) -> Answer {
    let (state, fence) = (&world.store, &prepared.fence);
    let id = format!("{}:{}:{}", fence.epoch, fence.nonce, fence.version + 1);
    if state.commit == id {
        return Answer::Done;
    }
    let is_off = |planted| world.planted == Some(planted);
    let is_ours = (state.epoch == fence.epoch || is_off(Planted::NoOwner))
        && (state.nonce == fence.nonce)
        && (state.version == fence.version || is_off(Planted::NoVersion));
    if !is_ours {
        return Answer::Fenced;
    }
    world.keep_past();
    world.store.take(&prepared.commit);
    (world.store.version, world.store.commit) = (fence.version + 1, id);
    Answer::Done
}

/// The connection of one process to the store.
#[derive(Clone)]
pub struct SimStore {
    pub world: Shared,
    pub who: usize,
}

impl SimStore {
    /// Writes to a disk in the machine. A write that fails may be there or not, and is not tried again by itself.
    fn send_locally(&self, prepared: &Prepared) -> Answer {
        let answer = {
            let world = &mut *self.world.get();
            let is_failed = world.dice.hits(world.faults.lose_answer);
            if !is_failed || world.dice.hits(2) {
                world.store.take(&prepared.commit);
            }
            if is_failed { Answer::Failed } else { Answer::Done }
        };
        let (who, applied) = (self.who, prepared.applied());
        self.world.get().note(format!("{who} commits {applied}: {answer:?}"));
        act(&self.world, self.who);
        answer
    }
}

impl Store for SimStore {
    fn checkpoint(&self) -> Result<Checkpoint, PortError> {
        act(&self.world, self.who);
        let world = self.world.get();
        let outbox = world.store.outbox.values().cloned().collect();
        let partials = world.store.partials.iter();
        let partials = partials
            .map(|(number, bytes)| PartialsMessage { number: *number, bytes: bytes.clone() })
            .collect();
        Ok(Checkpoint { outbox, partials, ..world.store.checkpoint.clone() })
    }

    fn windows(&self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError> {
        let world = self.world.get();
        Ok(wanted.iter().map(|(at, _)| world.store.windows.get(at).cloned()).collect())
    }
}

impl OwnerStore for SimStore {
    type Prepared<'c> = Prepared;

    fn is_read_elsewhere(&self) -> bool {
        !self.world.get().is_local
    }

    /// The simulation does not compare what is shown beside the commits.
    fn show(&mut self, _: &Fence, _: &Shown<'_>) -> Result<Answer, PortError> {
        act(&self.world, self.who);
        Ok(Answer::Done)
    }

    fn prepare(&mut self, fence: &Fence, commit: &Commit) -> Result<Prepared, PortError> {
        Ok(Prepared { fence: fence.clone(), commit: commit.clone() })
    }

    fn send(&mut self, prepared: &Prepared) -> Result<Answer, PortError> {
        act(&self.world, self.who);
        if self.world.get().is_local {
            return Ok(self.send_locally(prepared));
        }
        let answer = {
            let world = &mut *self.world.get();
            let odds = (world.faults.lose_answer, world.faults.late);
            if !world.dice.hits(odds.0) {
                Some(run(world, prepared))
            } else if world.dice.hits(odds.1) {
                let at = world.now_ms + world.dice.below(3 * LEASE_MS as u64) as i64;
                world.late.push((at, prepared.clone()));
                None
            } else if world.dice.hits(2) {
                run(world, prepared);
                None
            } else {
                None
            }
        };
        let (who, applied) = (self.who, prepared.applied());
        self.world.get().note(format!("{who} commits {applied}: {answer:?}"));
        act(&self.world, self.who);
        Ok(answer.unwrap_or(Answer::Unknown))
    }

    fn acquire(&mut self) -> Result<Option<Fence>, PortError> {
        act(&self.world, self.who);
        let world = &mut *self.world.get();
        let now = world.now_ms;
        if !world.is_local && world.store.lease.as_ref().is_some_and(|(_, end)| *end > now) {
            return Ok(None);
        }
        world.keep_past();
        let has_nonce = !matches!(world.planted, Some(Planted::NoNonce | Planted::NoOwner));
        let nonce = if has_nonce { format!("{:x}", world.dice.next()) } else { "all the same".into() };
        let state = &mut world.store;
        state.epoch += 1;
        state.checkpoint.tries += 1;
        match std::mem::take(&mut state.trying) {
            0 => state.suspect = (0, 0),
            trying if trying == state.suspect.0 => state.suspect.1 += 1,
            trying => state.suspect = (trying, 1),
        }
        state.nonce.clone_from(&nonce);
        state.lease = Some((nonce.clone(), now + LEASE_MS));
        let fence = Fence { epoch: state.epoch, nonce, version: state.version };
        world.note(format!("{} takes the lease, epoch {}, version {}", self.who, fence.epoch, fence.version));
        Ok(Some(fence))
    }

    fn renew(&mut self, fence: &Fence) -> Result<bool, PortError> {
        act(&self.world, self.who);
        let world = &mut *self.world.get();
        let now = world.now_ms;
        if world.is_local {
            return Ok(true);
        }
        if world.store.version != fence.version {
            return Ok(false);
        }
        let lease = world.store.lease.as_mut().filter(|(nonce, end)| *nonce == fence.nonce && *end > now);
        let Some(lease) = lease else { return Ok(false) };
        lease.1 = now + LEASE_MS;
        Ok(true)
    }

    fn attempt(&mut self, fence: &Fence, seq: u64) -> Result<u32, PortError> {
        // A process is never killed between applying a record and reporting it as applied. At the kill rate
        // used here, that would happen three times in a row at one record, which does not occur in
        // production.
        let state = &mut self.world.get().store;
        if state.nonce != fence.nonce {
            return Err(PortError::Fenced { place: "the store".into() });
        }
        state.trying = seq;
        Ok(if state.suspect.0 == seq { state.suspect.1 } else { 0 })
    }

    fn calm(&mut self, fence: &Fence) {
        act(&self.world, self.who);
        let state = &mut self.world.get().store;
        if state.nonce == fence.nonce {
            state.checkpoint.tries = 0;
            (state.trying, state.suspect) = (0, (0, 0));
        }
    }

    fn show_asked(&mut self, _: Asked, _: &[(String, String)]) -> Result<(), PortError> {
        Ok(())
    }

    fn release(&mut self, fence: &Fence) -> Result<(), PortError> {
        act(&self.world, self.who);
        let world = &mut *self.world.get();
        if world.store.lease.as_ref().is_some_and(|(nonce, _)| *nonce == fence.nonce) {
            world.store.lease = None;
            (world.store.checkpoint.tries, world.store.trying) = (0, 0);
        }
        Ok(())
    }
}
