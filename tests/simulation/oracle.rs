//! The expected result: an uninterrupted run over the log gives the same windows, alerts and messages.

use crate::process::limits;
use crate::world::World;
use std::collections::BTreeMap;
use streamgauge::core::alert::Transition;
use streamgauge::core::measure::pane::Shape;
use streamgauge::core::{Engine, Inspect};
use streamgauge::driver::applier::Applier;
use streamgauge::driver::ports::{Checkpoint, Numbers, PortError, Store, WindowAt, WindowRow};
use streamgauge::wire::snapshot;

/// A store that only keeps windows.
#[derive(Default)]
struct Plain(BTreeMap<WindowAt, WindowRow>);

impl Store for Plain {
    fn checkpoint(&self) -> Result<Checkpoint, PortError> {
        Ok(Checkpoint::default())
    }
    fn windows(&self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError> {
        Ok(wanted.iter().map(|(at, _)| self.0.get(at).cloned()).collect())
    }
}

/// The result of an uninterrupted run over the log.
struct Straight {
    windows: BTreeMap<WindowAt, WindowRow>,
    alerts: BTreeMap<u64, String>,
    partials: BTreeMap<u64, Vec<u8>>,
    applier: Applier,
}

/// Applies the log up to a record, once from the first record to the last.
fn straight(world: &World, to: u64) -> Straight {
    let mut applier = Applier::new(Engine::new(limits()), 0, 0, Numbers::default());
    let (mut plain, mut alerts, mut partials) = (Plain::default(), BTreeMap::new(), BTreeMap::new());
    for record in &world.log.records[..to as usize] {
        // The plain store never fails.
        let _ = applier.apply(record, &plain);
        let commit = applier.commit();
        plain.0.extend(commit.windows.drain(..));
        alerts.extend(commit.transitions.drain(..).map(|one| (one.number, one.json)));
        partials.extend(commit.partials.drain(..).map(|one| (one.number, one.bytes)));
        applier.finish_commit();
    }
    Straight { windows: plain.0, alerts, partials, applier }
}

/// Returns what is wrong with the final state, if anything.
pub fn judge(world: &World, is_settled: bool) -> Result<(), String> {
    if world.stored_twice > 0 {
        return Err(format!("{} transitions were stored twice", world.stored_twice));
    }
    // A log that has gone back must stop the partition.
    if world.stops > 0 && world.log_went_back {
        return Ok(());
    }
    if !is_settled {
        return Err(format!("not settled: applied {} of {}", world.store.applied(), world.log.last()));
    }
    let applied = world.store.applied();
    if applied > world.log.last() {
        return Err(format!("{applied} was applied of a log that ends at {}", world.log.last()));
    }
    if world.log.was_overtaken {
        return consistent(world);
    }
    let Straight { windows, alerts, partials, mut applier } = straight(world, applied);
    same("window", &world.store.windows, &windows)?;
    same("alert in the store", &world.store.alerts, &alerts)?;
    same("alert on the board", world.told(), &alerts)?;
    if !world.is_local {
        same("message to the aggregate", &world.partials, &partials)?;
    }
    let active = Inspect::new(&mut applier.engine).active_alerts().into_iter().filter(Transition::is_active);
    let active = active.map(|told| (told.id, told.seq)).collect();
    same("open alert", &episodes(world)?, &active)?;
    if world.store.snapshot_at() == applied
        && let Some(bytes) = world.store.snapshot()
    {
        let engine = snapshot::decode(bytes, limits()).map_err(|error| error.to_string())?;
        if engine.counters() != applier.engine.counters() {
            return Err(format!("counted {:?}, not {:?}", engine.counters(), applier.engine.counters()));
        }
    }
    Ok(())
}

/// Checks a run in which records were lost, so that the expected result is unknown. The published
/// transitions must still be consistent: each number once, each episode from its beginning to at most one
/// end, and every open episode an active alert.
fn consistent(world: &World) -> Result<(), String> {
    // The store may lack alerts that were published before it was lost, but it must not contradict the
    // transition log.
    let told = world.transition_log.iter().filter(|(number, _)| world.store.alerts.contains_key(number));
    same("alert in the store", &world.store.alerts, &told.map(|(n, text)| (*n, text.clone())).collect())?;
    if !world.transition_log.keys().copied().eq(1..=world.transition_log.len() as u64) {
        return Err(format!("numbers {:?} have a hole", world.transition_log.keys()));
    }
    let open = episodes(world)?;
    let active = world.store.active().iter().filter_map(|text| serde_json::from_str::<Transition>(text).ok());
    let active = active.filter(Transition::is_active).map(|told| (told.id, told.seq)).collect();
    same("open alert", &open, &active)
}

/// Checks that each episode is published from its beginning to at most one end, through mutes,
/// acknowledgements, changes of the rules and changes of the owner. Returns the open episodes with the
/// number of their last transition.
fn episodes(world: &World) -> Result<BTreeMap<String, u32>, String> {
    let mut last: BTreeMap<String, Transition> = BTreeMap::new();
    for (number, text) in world.told() {
        let told: Transition = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let before = last.get(&told.id);
        let is_next = before.map_or(told.seq == 0 && told.is_active(), |before| {
            before.is_active() && told.seq == before.seq + 1
        });
        if !is_next {
            return Err(format!("transition {number} does not follow {before:?}: {text}"));
        }
        last.insert(told.id.clone(), told);
    }
    Ok(last.into_values().filter(Transition::is_active).map(|told| (told.id, told.seq)).collect())
}

fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &BTreeMap<K, V>,
    right: &BTreeMap<K, V>,
) -> Result<(), String> {
    for (key, value) in right {
        match found.get(key) {
            None => return Err(format!("{what} {key:?} is missing: {value:?}")),
            Some(other) if other != value => {
                return Err(format!("{what} {key:?} is {other:?}, not {value:?}"));
            }
            Some(_) => {}
        }
    }
    match found.iter().find(|(key, _)| !right.contains_key(key)) {
        Some((key, value)) => Err(format!("{what} {key:?} should not be there: {value:?}")),
        None => Ok(()),
    }
}
