//! kill -9 of worker, broker and store under load.

use crate::load::{board, produce, replayed};
use crate::servers::{Servers, wait_for};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// `SG_KILLS=100 SG_PROGRESS=22000` is the long form: 200 kills over more than two million events.
fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Goal: nothing is lost, doubled or published twice, whichever process is killed and when. Method: a
/// producer that repeats unacknowledged batches; kill -9 of worker, broker and store in turn; counts
/// compared with the producer's ledger, the published alerts with a replay of the stream.
fn survives(fsync: &'static str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut servers = Servers::start(fsync);
    let mut worker = servers.worker("1s");
    let mut logs = vec![worker.log.clone()];
    // The rules are a record of the log: events before that record are not evaluated.
    wait_for("rules", &worker, || worker.metric("streamgauge_rules ").filter(|rules| *rules > 0));
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone(), 3));
    let mut seed = 11u64;
    let progress = asked("SG_PROGRESS", 3_000);
    for _ in 0..asked("SG_KILLS", 12) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The kill follows a random amount of progress, not an amount of time.
        let before = worker.counts().unwrap_or_default().values().sum::<u64>();
        let more = (seed >> 33) % progress;
        wait_for("progress", &worker, || {
            worker.counts().filter(|counts| counts.values().sum::<u64>() > before + more)
        });
        match (seed >> 20) % 3 {
            0 => {
                drop(worker);
                worker = servers.worker("1s");
                logs.push(worker.log.clone());
            }
            1 => {
                servers.nats = None;
                servers.start_nats();
            }
            _ => {
                servers.redis = None;
                servers.start_redis();
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let ledger = runtime.block_on(producer).expect("no panic");
    let counts = wait_for("the rest", &worker, || {
        worker.counts().filter(|counts| counts.values().sum::<u64>() >= ledger.values().sum())
    });
    assert_eq!(counts, ledger, "values in the windows against the producer's ledger");
    println!("{fsync}: {} events, none lost, none doubled", ledger.values().sum::<u64>());
    assert_eq!(worker.stop(), Some(0));
    let board = runtime.block_on(board(servers.nats_url()));
    assert!(board.lines().count() >= 3, "hardly any alert fired: {board}\n{}", told(&logs));
    let replayed = replayed(&servers);
    // The export also contains changes of the last ticks before the end.
    assert!(replayed.starts_with(&board), "board:\n{board}\nreplayed:\n{replayed}");
}

/// The logs of all workers, one after the other.
fn told(logs: &[Arc<Mutex<String>>]) -> String {
    logs.iter().map(|log| log.lock().expect("no panic").clone()).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_is_lost_or_doubled_with_fsync_always() {
    survives("always");
}

#[test]
fn nothing_is_lost_or_doubled_with_fsync_every_second() {
    survives("everysec");
}
