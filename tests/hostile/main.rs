//! Worst-case input from untrusted clients, sent while an honest client and its alerts run: they must not
//! be affected.
//!
//! Intuition: every endpoint, query and file reader gets generated bodies of 1 KiB to 1 MiB. Each case has
//! limits for time, memory and answer that grow with the size of the request and with nothing else. An
//! honest client posts an event every 50 ms, `/healthz` is queried as often, and once a second an alert is
//! raised that must be published in time. Invariant: whatever is sent, the process survives, and every
//! event that it acknowledged to the honest client is in the windows. A failure names the case, the size,
//! the figure and the seed; SG_SEED=<seed> repeats the run, SG_SCENE=<0 to 6> one scene of it. Rejected: a
//! test for each input (new endpoints would have none); a limit on the address space (the allocator
//! reserves more than it uses).

mod alarms;
mod bodies;
mod crowds;
mod documents;
mod events;
mod exchange;
mod growth;
mod honest;
mod limits;
mod memory;
mod packed;
mod questions;
mod random;
mod readers;
mod service;
mod sockets;
mod trial;

use random::Random;
use std::sync::{Mutex, PoisonError};
use trial::Trial;

/// Runs one test at a time, because tests at the same time would affect each other's figures.
static ALONE: Mutex<()> = Mutex::new(());

/// Cases that share a service, so that each scene begins with little data.
type Scene = fn(&mut Trial, &mut Random);

const SCENES: [Scene; 7] = [
    |trial, random| {
        events::run(trial, random);
        sockets::run(trial, random);
    },
    packed::run,
    growth::metrics,
    growth::stages,
    |trial, random| {
        questions::run(trial, random);
        crowds::senders(trial);
        crowds::waiters(trial);
    },
    questions::costly,
    |trial, random| {
        documents::run(trial, random);
        documents::costly_silences(trial, random);
    },
];

#[test]
fn nothing_that_is_sent_is_noticed_by_others() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    crowds::raise_files();
    let seed = random::seed();
    let (mut random, mut wrong, mut told, mut resolved) = (Random::new(seed), Vec::new(), 0, 0);
    let only: Option<usize> = std::env::var("SG_SCENE").ok().and_then(|number| number.parse().ok());
    for (_, scene) in SCENES.iter().enumerate().filter(|(at, _)| only.is_none_or(|only| only == *at)) {
        let mut trial = Trial::start(seed);
        scene(&mut trial, &mut random);
        let (more, told_here, resolved_here) = trial.finish();
        wrong.extend(more);
        told += told_here;
        resolved += resolved_here;
    }
    assert!(wrong.is_empty(), "{} limits were not kept:\n{}", wrong.len(), wrong.join("\n"));
    assert!(told > 0 && resolved > 0, "the honest client raised no alert: {told} told, {resolved} resolved");
}

#[test]
fn no_file_makes_a_reader_grow_or_hang() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = random::seed();
    let wrong = readers::run(seed, &mut Random::new(seed));
    assert!(wrong.is_empty(), "{} limits were not kept:\n{}", wrong.len(), wrong.join("\n"));
}
