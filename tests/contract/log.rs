//! The log: what is appended is read in order, once, also by the next process.

use super::servers::Servers;
use super::{bus, embedded_feed, embedded_store};
use crate::edge::pause;
use std::time::{Duration, Instant};
use streamgauge::adapters::embedded::{Embedded, EmbeddedFeed};
use streamgauge::core::Timestamp;
use streamgauge::core::vocab::severity::Severity;
use streamgauge::driver::continuity::Continuity;
use streamgauge::driver::ports::{
    Answer, Commit, EVENT_STREAM, Entry, Feed, Logged, Numbers, OutboxEntry, OwnerStore, PublishOutcome,
    TransitionLog,
};
use streamgauge::wire::event::Codec;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(20);

fn entries() -> Vec<Entry> {
    let event = |n: u64| Entry::Events(Codec::Json, format!("event {n}").into_bytes());
    vec![event(1), Entry::Tick, event(2), Entry::Control(b"{}".to_vec()), event(3)]
}

fn seek(feed: &mut impl Feed, from: u64, known: Option<&Logged>) {
    let extent = feed.extent().expect("readable").expect("a log");
    let known = known.map(|record| (record.seq, record.fingerprint()));
    let continuity = Continuity::new(EVENT_STREAM, &extent.stream, from, known);
    continuity.clone().begin(&extent).expect("the log that was read before");
    feed.seek(continuity).expect("a log");
}

/// Reads until there are `count` records.
fn read(feed: &mut impl Feed, count: usize) -> Vec<Logged> {
    let (mut records, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while records.len() < count {
        assert!(Instant::now() < deadline, "{records:?}");
        records.extend(feed.next(Duration::from_millis(50)).expect("readable"));
        pause();
    }
    assert!(feed.next(Duration::from_millis(50)).expect("readable").is_empty(), "nothing else was appended");
    records
}

/// Goal: the log keeps what was appended, in order, and gives each record once; an empty log has an extent, too.
fn keeps_order<F: Feed>(mut open: impl FnMut() -> F) {
    let mut feed = open();
    feed.create().expect("room");
    let extent = feed.extent().expect("readable").expect("a log");
    assert_eq!((extent.first, extent.last), (1, 0), "it is empty");
    seek(&mut feed, 1, None);
    let appended = feed.append(entries().into_iter().map(|entry| (entry, None)).collect(), Timestamp::MIN);
    let numbers: Vec<u64> = appended.into_iter().map(|number| number.expect("durable")).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let records = read(&mut feed, 5);
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), numbers);
    assert_eq!(records.iter().map(|record| record.entry.clone()).collect::<Vec<_>>(), entries());
    assert!(records.is_sorted_by_key(|record| record.stamp), "{records:?}");
    drop(feed);
    let mut next = open();
    let again = next.extent().expect("readable").expect("a log");
    assert_eq!((again.stream.clone(), again.first, again.last), (extent.stream, 1, 5));
    seek(&mut next, 3, Some(&records[1]));
    assert_eq!(read(&mut next, 3), records[2..], "the next process resumes behind what was applied");
}

#[test]
fn the_embedded_log() {
    let dir = tempfile::tempdir().expect("a directory");
    keeps_order(|| embedded_feed(&Embedded::open(dir.path()).expect("a data dir")));
}

#[test]
fn the_log_on_the_broker() {
    let (runtime, servers) = (Runtime::new().expect("a runtime"), Servers::start("everysec"));
    keeps_order(|| bus(&runtime, &servers));
}

fn transition(number: u64) -> OutboxEntry {
    let json = format!(r#"{{"number":{number}}}"#);
    OutboxEntry { number, severity: Severity::Warning, rule: "r".into(), json, actions: Vec::new() }
}

/// Goal: a transition is stored once under its number, however often it is published, and the newest number is
/// known to the next process. `publish` publishes after the commit that holds the transitions.
fn publishes_once<T: TransitionLog>(
    mut open: impl FnMut() -> T,
    mut publish: impl FnMut(&mut T, &[OutboxEntry]) -> Vec<PublishOutcome>,
) {
    let mut log = open();
    assert_eq!(log.newest().expect("readable"), Numbers::default());
    let placed = publish(&mut log, &[transition(1), transition(2)]);
    assert_eq!(placed, [PublishOutcome::New, PublishOutcome::New]);
    drop(log);
    let mut next = open();
    let placed = publish(&mut next, &[transition(2), transition(3)]);
    assert!(placed[0] != PublishOutcome::Unknown && placed[1] == PublishOutcome::New, "{placed:?}");
    assert_eq!(next.newest().expect("readable").alerts, 3);
    let wanted: Vec<String> = [1, 2, 3].map(|number| transition(number).json).into();
    assert_eq!(next.told().expect("readable"), wanted);
}

#[test]
fn the_transition_log_on_the_broker() {
    let (runtime, servers) = (Runtime::new().expect("a runtime"), Servers::start("everysec"));
    bus(&runtime, &servers).create().expect("room");
    publishes_once(|| bus(&runtime, &servers), |bus, some| bus.publish(some).expect("room"));
}

/// The commit writes the transitions, so publishing them adds nothing.
#[test]
fn the_embedded_transition_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut store, data) = embedded_store(dir.path());
    let publish = |feed: &mut EmbeddedFeed<_>, some: &[OutboxEntry]| {
        let commit = Commit { applied: 1, transitions: some.to_vec(), ..Commit::default() };
        assert_eq!(store.send(&&commit).expect("room"), Answer::Done);
        feed.publish(some).expect("room")
    };
    publishes_once(|| embedded_feed(&data), publish);
}
