//! The notification log of a receiver: rows are there for the next process, which has the lease.

use super::redis_settings;
use super::servers::Servers;
use std::collections::BTreeMap;
use streamgauge::adapters::embedded::notification_log::FileNotificationLog;
use streamgauge::adapters::redis::SharedNotificationLog;
use streamgauge::driver::receivers::ports::{NotificationLog, Written};

fn row(name: &str, value: Option<&str>) -> (String, Option<Vec<u8>>) {
    (name.into(), value.map(|value| value.as_bytes().to_vec()))
}

fn rows(log: &mut impl NotificationLog) -> BTreeMap<String, String> {
    let text = |value| String::from_utf8(value).expect("text");
    log.load().expect("readable").into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Goal: rows are replaced and deleted together, and outlast the process that wrote them.
fn keeps_rows<L: NotificationLog>(mut open: impl FnMut() -> L) {
    let mut log = open();
    assert!(log.acquire().expect("reachable"));
    assert!(rows(&mut log).is_empty());
    let some = vec![row("a", Some("1")), row("b", Some("2"))];
    assert_eq!(log.write(&some).expect("room"), Written::Done);
    let more = vec![row("a", None), row("b", Some("3")), row("c", Some("4"))];
    assert_eq!(log.write(&more).expect("room"), Written::Done);
    assert_eq!(log.write(&Vec::new()).expect("room"), Written::Done, "it only keeps the lease");
    log.release();
    drop(log);
    let mut next = open();
    assert!(next.acquire().expect("reachable"), "the lease was given back");
    let wanted = [("b", "3"), ("c", "4")].map(|(name, value)| (name.to_string(), value.to_string()));
    assert_eq!(rows(&mut next), BTreeMap::from(wanted));
    assert_eq!(next.write(&vec![row("d", Some("5"))]).expect("room"), Written::Done);
    assert_eq!(rows(&mut next).len(), 3);
}

#[test]
fn the_file_of_a_receiver() {
    let dir = tempfile::tempdir().expect("a directory");
    keeps_rows(|| FileNotificationLog::new(dir.path(), "mail"));
}

#[test]
fn the_rows_of_a_receiver_in_redis() {
    let servers = Servers::start("everysec");
    let settings = redis_settings(&servers);
    keeps_rows(|| SharedNotificationLog::new(&settings, "mail").expect("a store"));
}
