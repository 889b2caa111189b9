//! Several workers, several partitions: each partition has one owner, while workers join and leave.

use crate::load::{board, produce, replayed};
use crate::servers::{Servers, Worker, wait_for};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PARTITIONS: u32 = 8;

fn owned(workers: &[Worker]) -> Vec<u64> {
    workers.iter().map(Worker::owned).collect()
}

/// Goal: partitions are spread evenly and taken over in time, without loss or duplication. Method: workers
/// join, one is killed, one leaves, under load through the broker's own mapping.
#[test]
fn partitions_find_an_owner_whoever_comes_and_goes() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mapping = Command::new(env!("CARGO_BIN_EXE_streamgauge"))
        .args(["nats", "mapping", "--partitions", "8"])
        .output()
        .expect("runs");
    let servers = Servers::start_mapped("everysec", Some(mapping.stdout));
    let mut workers = vec![servers.worker_of("1s", PARTITIONS)];
    wait_for("one owns all", &workers[0], || (owned(&workers) == [8]).then_some(()));
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone(), 16));
    while workers.len() < 4 {
        workers.push(servers.worker_of("1s", PARTITIONS));
    }
    wait_for("an even spread", &workers[0], || (owned(&workers) == [2, 2, 2, 2]).then_some(()));
    wait_for("progress", &workers[0], || {
        workers[0].counts().filter(|counts| counts.values().sum::<u64>() > 3_000)
    });
    drop(workers.pop());
    let killed_at = Instant::now();
    wait_for("take-over", &workers[0], || (owned(&workers).iter().sum::<u64>() == 8).then_some(()));
    let took = killed_at.elapsed();
    assert!(took < Duration::from_secs(3), "taken over after {took:?}, at a lease of 1 s");
    assert_eq!(workers.pop().expect("a worker").stop(), Some(0));
    wait_for("hand-over", &workers[0], || (owned(&workers) == [4, 4]).then_some(()));
    stop.store(true, Ordering::Relaxed);
    let ledger = runtime.block_on(producer).expect("no panic");
    let counts = wait_for("the rest", &workers[0], || {
        workers[0].counts().filter(|counts| counts.values().sum::<u64>() >= ledger.values().sum())
    });
    assert_eq!(counts, ledger);
    // The aggregate waits for the slowest partition, so its alert is the last.
    wait_for("the rule over all partitions", &workers[0], || {
        let board = runtime.block_on(board(servers.nats_url()));
        board.contains("\"rule\":\"all\"").then_some(())
    });
    for worker in workers {
        assert_eq!(worker.stop(), Some(0));
    }
    let board = runtime.block_on(board(servers.nats_url()));
    assert!(board.lines().count() >= 8, "hardly any alert fired: {board}");
    let replayed = replayed(&servers);
    // The last ticks of each partition may have changed something more.
    let missing = board.lines().find(|line| !replayed.contains(line));
    assert_eq!(missing, None, "replayed:\n{replayed}");
}

/// Goal: a deployment does not change its number of partitions by accident.
#[test]
fn another_number_of_partitions_is_refused() {
    let servers = Servers::start("everysec");
    let first = servers.worker_of("1s", 2);
    wait_for("ownership", &first, || (first.owned() == 2).then_some(()));
    let mut second = servers.worker_of("1s", 3);
    let code = wait_for("the end", &first, || second.process.0.try_wait().expect("a child"));
    assert_eq!(code.code(), Some(78));
    // The last log lines may arrive after the process has ended.
    wait_for("the reason", &second, || {
        let log = second.log.lock().expect("no panic");
        (log.contains("partitions, not 3") || log.contains("it takes")).then_some(())
    });
}
