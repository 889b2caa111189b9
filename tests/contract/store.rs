//! The store: a commit is there as a whole and once, the next owner resumes from it, and readers see it.

use super::servers::Servers;
use super::{LEASE, embedded_feed, embedded_store, redis_store};
use crate::edge::now_ms;
use std::sync::{Arc, OnceLock};
use streamgauge::adapters::embedded::Embedded;
use streamgauge::core::measure::histogram::layout::Digits;
use streamgauge::core::measure::pane::{Pane, Sample, Shape};
use streamgauge::core::measure::window::WindowSize;
use streamgauge::core::vocab::identity::Labels;
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::vocab::series_info::{SeriesInfo, series_id};
use streamgauge::core::vocab::severity::Severity;
use streamgauge::core::vocab::unit::Unit;
use streamgauge::core::{Engine, Timestamp};
use streamgauge::driver::ports::{
    Answer, CatalogRow, Commit, Entry, Feed, Fence, Numbers, OutboxEntry, OwnerStore, Shown, Views, WindowAt,
    WindowRow,
};

/// The minute of the first window. It is recent, because a store removes windows that are past their retention.
fn minute() -> i64 {
    static MINUTE: OnceLock<i64> = OnceLock::new();
    *MINUTE.get_or_init(|| now_ms() as i64 / 60_000 * 60_000 - 600_000)
}

fn shape() -> Shape {
    Shape { digits: Digits::default(), resolution: Unit::resolution(None) }
}

fn series() -> CatalogRow {
    let (source, name, labels): (Arc<str>, Arc<str>, _) = ("s".into(), "latency".into(), Labels::default());
    let id = series_id(&source, &name, &labels);
    CatalogRow { series: Arc::new(SeriesInfo { id, source, name, labels }), unit: None, shape: shape() }
}

fn at(minutes: i64) -> WindowAt {
    (WindowSize::Minute, Timestamp::clamped(minute() + minutes * 60_000), series().series.id)
}

fn window(values: &[f64], revision: u32) -> WindowRow {
    let mut pane = Pane::default();
    values.iter().for_each(|value| pane.record(Sample::new(shape(), *value, Timestamp::clamped(minute()))));
    WindowRow { pane, revision, is_incomplete: false }
}

fn transition(number: u64) -> OutboxEntry {
    let json = format!(r#"{{"number":{number}}}"#);
    OutboxEntry { number, severity: Severity::Warning, rule: "r".into(), json, actions: Vec::new() }
}

/// A snapshot whose checksum is right; a store may check it.
fn snapshot() -> Vec<u8> {
    streamgauge::wire::snapshot::encode(&Engine::new(Limits::default())).expect("memory")
}

/// The first commit of a partition.
fn first() -> Commit {
    Commit {
        applied: 3,
        windows: vec![(at(0), window(&[1.0, 2.0], 0))],
        catalog: vec![series()],
        transitions: vec![transition(1), transition(2)],
        numbered: Numbers { alerts: 2, ..Numbers::default() },
        snapshot: Some(snapshot()),
        ..Commit::default()
    }
}

/// Writes a commit as the owner does: what readers see first, then the commit, whose answer may get lost.
fn write<S: OwnerStore>(store: &mut S, fence: &mut Fence, commit: &Commit) {
    let shown = Shown { catalog: &commit.catalog, windows: &commit.windows, is_open: false };
    assert_eq!(store.show(fence, &shown).expect("room"), Answer::Done);
    let prepared = store.prepare(fence, commit).expect("room");
    assert_eq!(store.send(&prepared).expect("room"), Answer::Done);
    assert_eq!(store.send(&prepared).expect("room"), Answer::Done, "the same bytes again change nothing");
    fence.version += 1;
}

/// Goal: what a commit holds is there for the next owner and for readers, once and whole.
fn commits_whole<S: OwnerStore, V: Views>(mut open: impl FnMut() -> (S, V)) {
    let (mut store, views) = open();
    let mut fence = store.acquire().expect("reachable").expect("a free lease");
    let begun = store.checkpoint().expect("readable");
    assert_eq!((begun.applied, begun.snapshot, begun.numbered), (0, None, Numbers::default()));
    write(&mut store, &mut fence, &first());
    let wanted = [(at(0), shape()), (at(1), shape())];
    assert_eq!(store.windows(&wanted).expect("readable"), [Some(window(&[1.0, 2.0], 0)), None]);
    // A correction and a second window, without a snapshot.
    let windows = vec![(at(0), window(&[1.0, 2.0, 9.0], 1)), (at(1), window(&[4.0], 0))];
    let published = Numbers { alerts: 2, ..Numbers::default() };
    let numbered = published;
    write(&mut store, &mut fence, &Commit { applied: 5, windows, numbered, published, ..Commit::default() });
    store.release(&fence).expect("reachable");
    drop((store, views));

    let (mut store, views) = open();
    store.acquire().expect("reachable").expect("the lease was given back");
    let found = store.checkpoint().expect("readable");
    assert_eq!((found.applied, found.snapshot), (5, Some((3, snapshot()))));
    assert_eq!((found.numbered.alerts, found.outbox.len(), found.tries), (2, 0, 1));
    let corrected = [Some(window(&[1.0, 2.0, 9.0], 1)), Some(window(&[4.0], 0))];
    assert_eq!(store.windows(&wanted).expect("readable"), corrected);

    assert_eq!(views.applied().expect("readable"), 5);
    let texts = |number: u64| (number, transition(number).json);
    assert_eq!(views.transitions(1, 10).expect("readable"), [texts(1), texts(2)]);
    assert_eq!(views.transitions(2, 10).expect("readable"), [texts(2)]);
    assert_eq!(views.transitions_before(u64::MAX, 1).expect("readable"), [texts(2)]);
    assert_eq!(views.catalog_page(0, 10).expect("readable"), (vec![series()], None));
    let range = (at(0).1, at(9).1);
    let shown = views.shown(&series(), WindowSize::Minute, range, 10).expect("readable");
    let counts: Vec<_> = shown.iter().map(|(start, row)| (*start, row.n)).collect();
    assert_eq!(counts, [(at(0).1, 3), (at(1).1, 1)]);
    assert_eq!(views.shown(&series(), WindowSize::Minute, range, 1).expect("readable").len(), 1);
}

/// Goal: owners that die at one record are counted there, and no longer once an owner has lived well.
fn counts_deaths<S: OwnerStore, V: Views>(mut open: impl FnMut() -> (S, V)) {
    let mut fence = Fence::default();
    for deaths in 0..3 {
        let (mut store, _views) = open();
        fence = take(&mut store);
        assert_eq!(store.checkpoint().expect("readable").tries, deaths + 1);
        assert_eq!(store.attempt(&fence, 7).expect("reachable"), deaths, "deaths at record 7");
    }
    // Dies between two records.
    let (mut store, views) = open();
    fence = if store.renew(&fence).is_ok_and(|is_ours| is_ours) { fence } else { take(&mut store) };
    store.attempt(&fence, 0).expect("reachable");
    drop((store, views));
    let (mut store, _views) = open();
    let fence = take(&mut store);
    assert_eq!(store.attempt(&fence, 7).expect("reachable"), 0, "the newest death was elsewhere");
    store.attempt(&fence, 0).expect("reachable");
    store.calm(&fence);
    assert_eq!(store.checkpoint().expect("readable").tries, 0);
}

/// Takes the lease, which a dead owner may still hold for a while.
fn take(store: &mut impl OwnerStore) -> Fence {
    loop {
        match store.acquire().expect("reachable") {
            Some(fence) => return fence,
            None => std::thread::park_timeout(LEASE / 5),
        }
    }
}

#[test]
fn the_embedded_store() {
    let dir = tempfile::tempdir().expect("a directory");
    // A data dir whose log ends before what was applied is not opened.
    let data = Embedded::open(dir.path()).expect("a data dir");
    let ticks = vec![(Entry::Tick, None); 5];
    assert!(embedded_feed(&data).append(ticks, Timestamp::MIN).iter().all(Result::is_ok));
    drop(data);
    commits_whole(|| embedded_store(dir.path()));
}

#[test]
fn the_store_in_redis() {
    let servers = Servers::start("everysec");
    commits_whole(|| redis_store(&servers));
}

#[test]
fn the_embedded_store_counts_deaths() {
    let dir = tempfile::tempdir().expect("a directory");
    counts_deaths(|| embedded_store(dir.path()));
}

#[test]
fn the_store_in_redis_counts_deaths() {
    let servers = Servers::start("everysec");
    counts_deaths(|| redis_store(&servers));
}
