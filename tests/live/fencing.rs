//! Ownership of a partition, and the fencing of former owners.

use crate::load::{board, produce, replayed};
use crate::servers::{Servers, wait_for};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use streamgauge::adapters::redis::{RedisStore, Settings, Shared};
use streamgauge::driver::ports::{Answer, Commit, Fence, OwnerStore, Store};

/// Two seconds: with one, an owner that shares two cores with all other tests may lose its lease.
const LEASE: &str = "2s";

/// Goal: an owner that slept through its lease changes nothing when it wakes up. Method: SIGSTOP for three
/// lease times under load; another worker takes over; then both run.
#[test]
fn an_owner_that_slept_through_its_lease_is_fenced() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("always");
    let first = servers.worker(LEASE);
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone(), 3));
    wait_for("progress", &first, || first.counts().filter(|counts| counts.values().sum::<u64>() > 1_000));
    first.signal("-STOP");
    let second = servers.worker(LEASE);
    let stopped_at = Instant::now();
    wait_for("take-over", &second, || (second.owned() == 1).then_some(()));
    let took = stopped_at.elapsed();
    assert!(took < Duration::from_millis(3_500), "taken over after {took:?}, at a lease of {LEASE}");
    wait_for("three terms", &second, || (stopped_at.elapsed() > Duration::from_secs(6)).then_some(()));
    first.signal("-CONT");
    wait_for("fencing", &first, || {
        first.log.lock().expect("no panic").contains("this worker no longer owns the partition").then_some(())
    });
    let others = || second.log.lock().expect("no panic").clone();
    let is_asked_in_vain = first.get("/api/v1/rules").is_none();
    assert!(is_asked_in_vain, "a worker that stands by has no engine to ask; the other one: {}", others());
    assert_eq!(first.metric("streamgauge_commits_fenced_total "), Some(1));
    stop.store(true, Ordering::Relaxed);
    let ledger = runtime.block_on(producer).expect("no panic");
    let counts = wait_for("the rest", &second, || {
        second.counts().filter(|counts| counts.values().sum::<u64>() >= ledger.values().sum())
    });
    assert_eq!(counts, ledger);
    // The standby becomes the owner at once, because the leaving owner releases its lease.
    let left_at = Instant::now();
    assert_eq!(second.stop(), Some(0));
    wait_for("hand-over", &first, || (first.owned() == 1).then_some(()));
    assert!(left_at.elapsed() < Duration::from_secs(1), "handed over after {:?}", left_at.elapsed());
    assert_eq!(first.counts(), Some(ledger));
    assert_eq!(first.stop(), Some(0));
    let board = runtime.block_on(board(servers.nats_url()));
    assert!(replayed(&servers).starts_with(&board));
}

/// Goal: only the newest owner changes the store, with or without the lease; the same commit sent twice
/// counts once. Method: two stores on one partition, the lease of the first deleted.
#[test]
fn only_the_newest_owner_commits() {
    let servers = Servers::start("always");
    let url = format!("redis://127.0.0.1:{}", servers.redis_port);
    let settings = Settings {
        url: url.clone(),
        prefix: "sg".into(),
        partition: Default::default(),
        lease: Duration::from_secs(60),
        outages: Default::default(),
    };
    let store = || Shared::new(RedisStore::new(&settings, true).expect("a url"));
    let commit = |store: &mut Shared, fence: &Fence, applied| {
        let prepared = store.prepare(fence, &Commit { applied, ..Commit::default() }).expect("prepared");
        let answer = store.send(&prepared).expect("redis answers");
        assert_eq!(store.send(&prepared).expect("redis answers"), answer, "the same bytes, the same answer");
        answer
    };
    let (mut first, mut second) = (store(), store());
    assert_eq!(first.checkpoint().expect("redis answers in time").applied, 0);
    let old = first.acquire().expect("redis answers").expect("nobody has it");
    assert_eq!(commit(&mut first, &old, 5), Answer::Done);
    let old = Fence { version: old.version + 1, ..old };
    assert!(second.acquire().expect("redis answers").is_none(), "there is an owner");
    let connection = redis::Client::open(url).and_then(|client| client.get_connection());
    let mut connection = connection.expect("redis answers");
    let gone: u64 = redis::cmd("DEL").arg("sg:{0}:lease").query(&mut connection).expect("a number");
    assert_eq!(gone, 1);
    let new = second.acquire().expect("redis answers").expect("nobody has it");
    assert!(!first.renew(&old).expect("redis answers"), "the lease is somebody else's");
    assert_eq!(second.checkpoint().expect("readable").applied, 5);
    assert_eq!(commit(&mut first, &old, 9), Answer::Fenced);
    assert_eq!(commit(&mut second, &new, 6), Answer::Done);
    let new = Fence { version: new.version + 1, ..new };
    assert_eq!(commit(&mut first, &old, 9), Answer::Fenced);
    assert_eq!(second.checkpoint().expect("readable").applied, 6);
    // The store was set back behind the second owner's last commit, so its version no longer matches.
    let back: u64 = redis::cmd("HSET")
        .arg("sg:{0}:ckpt")
        .arg(&[("ver", "1"), ("applied", "5"), ("commit", "")])
        .query(&mut connection)
        .expect("a number");
    assert_eq!(back, 0);
    assert_eq!(commit(&mut second, &new, 7), Answer::Fenced);
}
