//! Scenarios of one inbox, and one property over random scenarios.

use super::super::alert::Transition;
use super::super::alert::self_alerts::bare;
use super::super::alert::transition::{ChangeName, State};
use super::super::detect::dice::Dice;
use super::inbox::WAITING_MAX;
use super::undelivered::ASIDE_MAX;
use super::*;
use crate::core::mute::Suppressed;
use crate::core::vocab::calendar::Plan;
use crate::core::vocab::key::Key;
use crate::core::vocab::selector::{Matcher, Selector, Test};
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

fn at(secs: i64) -> Timestamp {
    Timestamp::clamped(secs * 1_000)
}

fn alert(host: &str, seq: u32, change: ChangeName, severity: Severity) -> Transition {
    let state = match change {
        ChangeName::Resolved => State::Resolved,
        ChangeName::Acknowledged => State::Acknowledged,
        _ => State::Firing,
    };
    let key = Key::new(vec![("host".into(), host.into())]);
    Transition {
        id: format!("slow:{host}:0"),
        seq,
        state,
        change,
        labels: BTreeMap::from([("team".into(), "ci".into())]),
        value: Some(1.5),
        threshold: "> 1".into(),
        ..bare("slow".into(), severity, key, (at(0), at(0)))
    }
}

fn firing(host: &str) -> Transition {
    alert(host, 0, ChangeName::Firing, Severity::Warning)
}

fn resolved(host: &str, seq: u32) -> Transition {
    alert(host, seq, ChangeName::Resolved, Severity::Warning)
}

fn suppressed(alert: Transition) -> Transition {
    Transition { suppressed_by: Some(Suppressed { kind: "silence".into(), id: "s1".into() }), ..alert }
}

fn route(receiver: &str, by: &[&str], routes: Vec<Route>) -> Route {
    let labels = by.iter().map(|label| Arc::from(*label)).collect();
    Route {
        path: format!("0/{receiver}"),
        receiver: receiver.into(),
        matchers: Selector { name: None, matchers: Vec::new() },
        is_continuing: false,
        grouping: Grouping { by: GroupBy::Labels(labels), ..Grouping::default() },
        muted: Vec::new(),
        active: Vec::new(),
        routes,
    }
}

fn matching(label: &str, value: &str, route: Route) -> Route {
    let matcher = Matcher { label: label.into(), test: Test::Equal(value.into()) };
    Route { matchers: Selector { name: None, matchers: vec![matcher] }, ..route }
}

fn policy(style: Style) -> Policy {
    let ends_last = Span::ZERO;
    let name = "ops".into();
    Policy {
        name,
        style,
        max_per_hour: None,
        max_per_day: None,
        grouping: None,
        ends_last,
        is_past_mutes: false,
    }
}

/// An inbox, the number of its newest transition, and the rows that it would be restored from.
struct Fixture {
    inbox: Inbox,
    policy: Policy,
    routes: Arc<Routes>,
    number: u64,
    rows: BTreeMap<String, Vec<u8>>,
}

impl Fixture {
    fn new(policy: Policy, root: Route) -> Fixture {
        let routes = Arc::new(Routes { root });
        let mut inbox = Inbox::new(policy.clone(), routes.clone(), Vec::new(), at(0));
        inbox.caught_up();
        Fixture { inbox, policy, routes, number: 0, rows: BTreeMap::new() }
    }

    fn take(&mut self, secs: i64, alert: Transition) {
        self.number += 1;
        self.inbox.absorb(self.number, alert, at(secs));
    }

    fn keep(&mut self) {
        for (key, value) in self.inbox.changes() {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
    }

    /// Simulates a crash and a restart from the persisted rows.
    fn restart(&mut self, secs: i64) {
        let rows = self.rows.clone().into_iter().collect();
        self.inbox = Inbox::new(self.policy.clone(), self.routes.clone(), rows, at(secs));
        self.inbox.caught_up();
    }

    /// Sends what is due; returns each message as its alerts.
    fn send(&mut self, secs: i64) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(message) = self.inbox.next(at(secs)) {
            assert_eq!(Some(&message), self.inbox.next(at(secs)).as_ref(), "the same until it is sent");
            let one = |alert: &Transition| {
                let host = alert.key.get("host").map_or("", |host| host);
                format!("{host} {} {:?}", alert.severity.name(), alert.state).to_lowercase()
            };
            told.push(message.alerts.iter().map(one).collect::<Vec<String>>().join(", "));
            self.inbox.sent(&message, at(secs));
            self.keep();
        }
        told
    }

    fn wake(&self, secs: i64) -> Option<i64> {
        self.inbox.wake_at(at(secs)).map(|time| time.ms() / 1_000)
    }
}

#[test]
fn a_group_waits_then_tells_news_each_interval_and_repeats_without() {
    let mut receiver = Fixture::new(policy(Style::Grouped), route("ops", &["team"], Vec::new()));
    receiver.take(0, firing("a"));
    receiver.take(10, firing("b"));
    assert_eq!((receiver.send(29), receiver.wake(29)), (vec![], Some(30)));
    assert_eq!(receiver.send(30), ["a warning firing, b warning firing"]);
    receiver.take(40, firing("c"));
    receiver.take(50, resolved("a", 1));
    assert_eq!((receiver.send(329), receiver.wake(329)), (vec![], Some(330)));
    assert_eq!(receiver.send(330), ["a warning resolved, b warning firing, c warning firing"]);
    assert_eq!(receiver.send(330 + 4 * 3_600 - 1), Vec::<String>::new());
    assert_eq!(receiver.send(330 + 4 * 3_600), ["b warning firing, c warning firing"]);
    receiver.take(20_000, resolved("b", 1));
    receiver.take(20_001, resolved("c", 1));
    assert_eq!(receiver.send(20_002), ["b warning resolved, c warning resolved"]);
    assert_eq!((receiver.wake(20_002), receiver.inbox.sizes()), (None, (0, 0)));
    receiver.keep();
    assert_eq!(receiver.rows.keys().collect::<Vec<_>>(), ["bucket", "position"], "nothing is left of it");
}

#[test]
fn nothing_old_is_told_before_the_end_of_the_stream_is_known() {
    for style in [Style::Each, Style::Grouped] {
        let mut receiver = Fixture::new(policy(style), route("ops", &["team"], Vec::new()));
        receiver.inbox = Inbox::new(receiver.policy.clone(), receiver.routes.clone(), Vec::new(), at(0));
        receiver.take(0, firing("over"));
        receiver.take(0, firing("lasting"));
        assert_eq!((receiver.inbox.next(at(1_000)), receiver.wake(1_000)), (None, None), "more may follow");
        receiver.take(1_000, resolved("over", 1));
        assert!(receiver.inbox.caught_up());
        assert_eq!(receiver.send(2_000), ["lasting warning firing"]);
    }
}

/// A clock that was two hours ahead is set back, while the process runs and before it restarts.
#[test]
fn nothing_waits_until_a_clock_that_was_set_back_is_there_again() {
    for is_restarted in [false, true] {
        let bounds = Policy { max_per_hour: Some(2), ..policy(Style::Grouped) };
        let mut receiver = Fixture::new(bounds, route("ops", &["team"], Vec::new()));
        receiver.take(7_200, firing("a"));
        assert_eq!(receiver.send(7_230), ["a warning firing"]);
        receiver.take(7_231, firing("b"));
        receiver.keep();
        match is_restarted {
            true => receiver.restart(31),
            false => receiver.inbox.set_back(at(31)),
        }
        assert_eq!(
            (receiver.send(330), receiver.wake(330)),
            (vec![], Some(331)),
            "group_interval, from now on"
        );
        assert_eq!(receiver.send(331), ["a warning firing, b warning firing"]);
        let mut each = Fixture::new(policy(Style::Each), route("ops", &[], Vec::new()));
        each.take(7_200, Transition { flapping: true, ..firing("a") });
        each.keep();
        match is_restarted {
            true => each.restart(0),
            false => each.inbox.set_back(at(0)),
        }
        assert_eq!((each.send(299), each.send(300).len()), (vec![], 1), "a digest");
    }
}

#[test]
fn what_follows_answers_the_first_message_until_all_is_over() {
    let mut receiver = Fixture::new(policy(Style::Grouped), route("ops", &[], Vec::new()));
    let send = |receiver: &mut Fixture, secs: i64, name: &str| {
        let message = receiver.inbox.next(at(secs)).expect("a message");
        receiver.inbox.named(&message, name);
        receiver.inbox.sent(&message, at(secs));
        receiver.keep();
        message.answers.as_deref().map(String::from)
    };
    receiver.take(0, firing("a"));
    assert_eq!(send(&mut receiver, 30, "first"), None);
    receiver.take(40, firing("b"));
    receiver.take(41, resolved("a", 1));
    assert_eq!(send(&mut receiver, 330, "second"), Some("first".into()));
    receiver.restart(340);
    receiver.take(350, resolved("b", 1));
    assert_eq!(send(&mut receiver, 630, "third"), Some("first".into()));
    receiver.take(700, firing("a"));
    assert_eq!(send(&mut receiver, 730, "fourth"), None, "a new story");
}

#[test]
fn what_gets_worse_does_not_wait() {
    let mut receiver = Fixture::new(policy(Style::Grouped), route("ops", &[], Vec::new()));
    receiver.take(0, firing("a"));
    assert_eq!(receiver.send(30).len(), 1);
    receiver.take(31, alert("a", 1, ChangeName::Level, Severity::Critical));
    assert_eq!(receiver.send(31), ["a critical firing"]);
    receiver.take(32, alert("a", 2, ChangeName::Level, Severity::Warning));
    assert_eq!((receiver.send(32), receiver.wake(32)), (vec![], Some(331)));
}

#[test]
fn what_gets_worse_before_it_was_told_does_not_wait_either() {
    let mut receiver = Fixture::new(policy(Style::Grouped), route("ops", &[], Vec::new()));
    receiver.take(0, firing("a"));
    receiver.take(1, alert("a", 1, ChangeName::Level, Severity::Critical));
    assert_eq!(receiver.send(1), ["a critical firing"]);
}

/// The end of an alert is sent although an earlier change still waits for a token.
#[test]
fn an_end_does_not_wait_behind_what_waits_for_a_token() {
    let mut receiver =
        Fixture::new(Policy { max_per_hour: Some(1), ..policy(Style::Each) }, route("ops", &[], vec![]));
    receiver.take(0, firing("a"));
    assert_eq!(receiver.send(0).len(), 1);
    receiver.take(1, alert("a", 1, ChangeName::Level, Severity::Critical));
    assert!(receiver.send(2).is_empty());
    receiver.take(3, resolved("a", 2));
    assert_eq!((receiver.send(3), receiver.inbox.left_out), (vec!["a warning resolved".into()], 1));
}

/// Goal: a redrive never leaves an ended alert open at the target. Method: the beginning and a change are dead
/// letters; the end is either delivered or a dead letter as well.
#[test]
fn what_is_over_is_not_redriven() {
    let rest = ["a critical firing".to_string(), "a warning resolved".to_string()];
    let all = [vec!["a warning firing".to_string()], rest.to_vec()].concat();
    for (is_end_delivered, expected) in [(true, vec![]), (false, all)] {
        let mut receiver = Fixture::new(policy(Style::Each), route("ops", &[], Vec::new()));
        let give_up = |receiver: &mut Fixture, secs: i64| {
            let message = receiver.inbox.next(at(secs)).expect("it is due");
            receiver.inbox.give_up(&message, "404".into(), at(secs));
        };
        receiver.take(0, firing("a"));
        give_up(&mut receiver, 0);
        receiver.inbox.others_noticed();
        receiver.take(1, alert("a", 1, ChangeName::Level, Severity::Critical));
        give_up(&mut receiver, 1);
        receiver.take(1, resolved("a", 2));
        match is_end_delivered {
            true => assert_eq!(receiver.send(1), ["a warning resolved"]),
            false => give_up(&mut receiver, 1),
        }
        receiver.inbox.redrive(at(2));
        assert_eq!(receiver.send(2), expected);
        assert_eq!(receiver.inbox.untold().map(|notice| notice.error.is_some()), Some(false), "it ends");
        receiver.keep();
        assert!(!receiver.rows.keys().any(|key| key.starts_with("d/")), "{:?}", receiver.rows);
    }
}

#[test]
fn what_came_and_went_while_it_was_not_told_is_not_told() {
    let mut receiver = Fixture::new(policy(Style::Grouped), route("ops", &[], Vec::new()));
    receiver.take(0, firing("a"));
    receiver.take(5, resolved("a", 1));
    assert_eq!((receiver.send(100), receiver.wake(100)), (vec![], None));
    receiver.take(101, suppressed(firing("b")));
    assert_eq!((receiver.send(200), receiver.wake(200)), (vec![], None));
    receiver.take(201, alert("b", 1, ChangeName::Unsuppressed, Severity::Warning));
    assert_eq!(receiver.send(201), ["b warning firing"], "it waited long enough");
}

#[test]
fn what_came_and_went_between_two_messages_is_in_the_second() {
    let mut receiver = Fixture::new(policy(Style::Grouped), route("ops", &[], Vec::new()));
    receiver.take(0, firing("a"));
    assert_eq!(receiver.send(30), ["a warning firing"]);
    receiver.take(31, firing("b"));
    receiver.take(40, Transition { flapping: true, ..firing("c") });
    receiver.take(50, Transition { flapping: true, ..resolved("c", 1) });
    receiver.take(60, suppressed(firing("d")));
    receiver.take(61, suppressed(resolved("d", 1)));
    receiver.take(70, resolved("b", 1));
    receiver.keep();
    receiver.restart(100);
    assert_eq!((receiver.send(329), receiver.wake(329)), (vec![], Some(330)));
    assert_eq!(receiver.send(330), ["a warning firing, b warning resolved"]);
    assert_eq!(receiver.inbox.sizes(), (1, 0));
}

#[test]
fn nothing_new_is_told_in_muted_times_but_ends_are() {
    let night = Arc::new(Plan::Once { start: at(100), end: at(1_000) });
    for style in [Style::Each, Style::Grouped] {
        let root = Route { muted: vec![night.clone()], ..route("ops", &["host"], Vec::new()) };
        let mut receiver = Fixture::new(policy(style), root);
        for host in ["a", "b"] {
            receiver.take(0, firing(host));
        }
        assert_eq!(receiver.send(50), ["a warning firing", "b warning firing"]);
        receiver.take(200, alert("a", 1, ChangeName::Level, Severity::Critical));
        receiver.take(201, alert("b", 1, ChangeName::Level, Severity::Critical));
        receiver.take(202, firing("brief"));
        receiver.take(203, firing("long"));
        assert_eq!((receiver.send(600), receiver.wake(600)), (vec![], Some(1_000)), "{style:?}");
        receiver.keep();
        receiver.restart(601);
        receiver.take(610, resolved("brief", 1));
        receiver.take(611, alert("a", 2, ChangeName::Resolved, Severity::Critical));
        assert_eq!(receiver.send(911), ["a critical resolved"], "{style:?}");
        assert_eq!(receiver.send(999), Vec::<String>::new(), "{style:?}");
        let mut told = receiver.send(1_000);
        told.sort();
        assert_eq!(told, ["b critical firing", "long warning firing"], "{style:?}");
    }
}

/// Goal: a target that accepts nothing costs bounded memory, and only old dead letters are lost.
/// Method: a receiver that gets each alert by itself, filled beyond all limits.
#[test]
fn what_waits_and_what_lies_aside_is_bounded() {
    let mut receiver = Fixture::new(policy(Style::Each), route("ops", &[], Vec::new()));
    for at in 0..WAITING_MAX {
        assert!(!receiver.inbox.is_full(), "{at}");
        receiver.take(0, firing(&format!("h{at}")));
        receiver.take(1, resolved(&format!("h{at}"), 1));
    }
    assert!(receiver.inbox.is_full());
    for _ in 0..ASIDE_MAX + 10 {
        let message = receiver.inbox.next(at(2)).expect("there are more");
        receiver.inbox.give_up(&message, "it is dead".into(), at(2));
    }
    assert!(!receiver.inbox.is_full(), "there is room again");
    assert_eq!((receiver.inbox.letters().count(), receiver.inbox.gone), (ASIDE_MAX, 10));
    receiver.keep();
    assert_eq!(receiver.rows.keys().filter(|key| key.starts_with("d/")).count(), ASIDE_MAX);
}

#[test]
fn a_proof_that_alerting_works_is_not_mutable() {
    let policy = Policy { is_past_mutes: true, ..policy(Style::Each) };
    let mut receiver = Fixture::new(policy, route("ops", &[], Vec::new()));
    receiver.take(0, suppressed(firing("a")));
    assert_eq!(receiver.send(1), ["a warning firing"]);
}

#[test]
fn an_end_is_told_through_a_silence_and_another_route() {
    for style in [Style::Grouped, Style::Each] {
        let mut receiver = Fixture::new(policy(style), route("ops", &[], Vec::new()));
        receiver.take(0, firing("a"));
        assert_eq!(receiver.send(30), ["a warning firing"]);
        receiver.take(31, suppressed(alert("a", 1, ChangeName::Suppressed, Severity::Warning)));
        // All alerts are now routed to another receiver.
        receiver.routes = Arc::new(Routes { root: route("others", &[], Vec::new()) });
        receiver.keep();
        receiver.restart(32);
        receiver.take(33, firing("b"));
        receiver.take(34, suppressed(resolved("a", 2)));
        assert_eq!(receiver.send(1_000), ["a warning resolved"], "{style:?}");
    }
}

#[test]
fn each_transition_in_order_and_again_after_a_crash() {
    let mut receiver = Fixture::new(policy(Style::Each), route("ops", &[], Vec::new()));
    receiver.take(0, firing("a"));
    receiver.take(0, firing("b"));
    receiver.take(1, alert("a", 1, ChangeName::Level, Severity::Critical));
    receiver.take(1, alert("a", 2, ChangeName::Acknowledged, Severity::Critical));
    receiver.keep();
    let first = receiver.inbox.next(at(1)).expect("it is due");
    // The message was delivered, but the process crashed before it could record that.
    receiver.restart(2);
    assert_eq!(receiver.inbox.next(at(2)).map(|again| again.id), Some(first.id));
    let told = receiver.send(2);
    assert_eq!(
        told,
        ["a warning firing", "b warning firing", "a critical firing", "a critical acknowledged"]
    );
    receiver.take(3, resolved("a", 3));
    assert_eq!(receiver.send(3), ["a warning resolved"]);
}

#[test]
fn the_tree_is_walked_as_alertmanager_does() {
    let pages =
        matching("severity", "critical", Route { is_continuing: true, ..route("pager", &[], vec![]) });
    let team = matching("team", "ci", route("ci", &[], vec![matching("host", "a", route("a", &[], vec![]))]));
    let routes = Routes { root: route("root", &[], vec![pages, team]) };
    let names = |alert: &Transition| -> Vec<String> {
        routes.of(alert).iter().map(|route| route.receiver.to_string()).collect()
    };
    assert_eq!(names(&firing("a")), ["a"]);
    assert_eq!(names(&firing("b")), ["ci"]);
    assert_eq!(names(&alert("b", 0, ChangeName::Firing, Severity::Critical)), ["pager", "ci"]);
    let other = Transition { labels: BTreeMap::new(), ..firing("b") };
    assert_eq!(names(&other), ["root"]);
    let step = Transition { notify: vec!["pager".into()], ..firing("a") };
    assert!(routes.to("pager", &step).is_some() && routes.to("a", &step).is_none());
}

#[test]
fn more_than_the_limit_is_one_digest_and_nothing_is_lost() {
    let mut receiver =
        Fixture::new(Policy { max_per_hour: Some(2), ..policy(Style::Each) }, route("ops", &[], vec![]));
    receiver.take(0, firing("a"));
    assert_eq!(receiver.send(0).len(), 1);
    for host in ["b", "c", "d", "e"] {
        receiver.take(1, firing(host));
    }
    assert_eq!(receiver.send(1), ["b warning firing, c warning firing, d warning firing, e warning firing"]);
    receiver.take(2, firing("f"));
    receiver.take(3, resolved("a", 1));
    assert_eq!(receiver.send(3), ["a warning resolved"], "it needs no token, though f is first in line");
    assert_eq!((receiver.send(1_799), receiver.wake(1_799)), (vec![], Some(1_800)));
    assert_eq!(receiver.send(1_800), ["f warning firing"]);
}

#[test]
fn what_cannot_be_delivered_is_put_aside_and_taken_up_again() {
    let mut receiver = Fixture::new(policy(Style::Each), route("ops", &[], Vec::new()));
    receiver.take(0, firing("a"));
    let message = receiver.inbox.next(at(0)).expect("it is due");
    receiver.inbox.give_up(&message, "404".into(), at(0));
    receiver.keep();
    receiver.restart(1);
    assert_eq!((receiver.send(1), receiver.inbox.letters().count()), (vec![], 1));
    assert_eq!(receiver.inbox.redrive(at(1)), 1);
    receiver.keep();
    receiver.restart(2);
    assert_eq!((receiver.inbox.letters().count(), receiver.inbox.redrive(at(2))), (0, 0), "it is due");
    assert_eq!((receiver.send(2), receiver.send(3)), (vec!["a warning firing".into()], vec![]));
    assert!(!receiver.rows.keys().any(|key| key.starts_with("d/")), "{:?}", receiver.rows);
}

#[test]
fn the_others_are_told_of_what_lies_aside_and_that_it_does_no_more() {
    let mut receiver = Fixture::new(policy(Style::Each), route("ops", &[], Vec::new()));
    for (secs, host) in [(10, "a"), (20, "b")] {
        receiver.take(secs, firing(host));
        let message = receiver.inbox.next(at(secs)).expect("it is due");
        receiver.inbox.give_up(&message, format!("404 {host}"), at(secs));
        receiver.keep();
        // The process crashes before the notice is sent; after the restart the notice is the same.
        receiver.restart(secs + 1);
        let untold = receiver.inbox.untold().expect("something to tell");
        assert_eq!((untold.since, untold.error.as_deref()), (at(10), Some("404 a")));
    }
    receiver.inbox.others_noticed();
    assert_eq!(receiver.inbox.untold(), None, "once is enough");
    receiver.inbox.redrive(at(30));
    let untold = receiver.inbox.untold().expect("something to tell");
    assert_eq!((untold.since, untold.at, &untold.error), (at(10), at(30), &None));
    receiver.inbox.others_noticed();
    receiver.keep();
    assert!(!receiver.rows.contains_key("notice"), "{:?}", receiver.rows);
}

#[test]
fn a_new_receiver_is_told_what_still_fires_and_not_what_was() {
    let routes = Arc::new(Routes { root: route("ops", &[], Vec::new()) });
    let mut inbox = Inbox::new(policy(Style::Each), routes, Vec::new(), at(0));
    inbox.absorb(1, firing("a"), at(9));
    inbox.absorb(2, firing("b"), at(9));
    inbox.absorb(3, resolved("a", 1), at(9));
    inbox.absorb(4, alert("b", 1, ChangeName::Level, Severity::Critical), at(9));
    inbox.caught_up();
    let message = inbox.next(at(9)).expect("b fires");
    assert_eq!((&*message.alerts[0].id, message.alerts[0].seq), ("slow:b:0", 1));
    inbox.sent(&message, at(9));
    assert_eq!(inbox.next(at(9)), None);
}

/// Goal: a receiver that was notified of a firing alert is notified of its end exactly once, and the
/// transitions of an episode are delivered in order. Method: random lives of alerts, sends at random times,
/// restarts at random places.
#[test]
fn each_firing_that_was_told_gets_exactly_one_end() {
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let style = if seed % 2 == 0 { Style::Each } else { Style::Grouped };
        let max_per_hour = (seed % 3 == 0).then_some(20);
        let mut receiver =
            Fixture::new(Policy { max_per_hour, ..policy(style) }, route("ops", &["host"], Vec::new()));
        // Host → the next seq of its episode, and how many episodes it had.
        let mut live: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        let mut told: BTreeMap<String, Vec<(u32, bool)>> = BTreeMap::new();
        let mut now = 0;
        let send = |receiver: &mut Fixture,
                    told: &mut BTreeMap<String, Vec<(u32, bool)>>,
                    now: i64,
                    dice: &mut Dice| {
            while let Some(message) = receiver.inbox.next(at(now)) {
                for alert in &message.alerts {
                    let news = told.entry(alert.id.clone()).or_default();
                    if news.last().is_none_or(|(seq, _)| *seq != alert.seq) {
                        news.push((alert.seq, alert.is_active()));
                    }
                }
                receiver.inbox.sent(&message, at(now));
                receiver.keep();
                if dice.uniform() < 0.1 {
                    receiver.restart(now);
                }
            }
        };
        for _ in 0..120 {
            now += (dice.uniform() * 400.0) as i64;
            let host = format!("h{}", (dice.uniform() * 4.0) as u32);
            let (seq, episode) = live.get(&host).copied().unwrap_or((0, 0));
            let change = match (seq, (dice.uniform() * 6.0) as u32) {
                (0, _) => ChangeName::Firing,
                (_, 0..=2) => ChangeName::Resolved,
                (_, 3) => ChangeName::Level,
                (_, 4) => ChangeName::Suppressed,
                _ => ChangeName::Unsuppressed,
            };
            let severity = if dice.uniform() < 0.5 { Severity::Warning } else { Severity::Critical };
            let mut next =
                Transition { id: format!("slow:{host}:{episode}"), ..alert(&host, seq, change, severity) };
            next.flapping = dice.uniform() < 0.1;
            if change == ChangeName::Suppressed || (change == ChangeName::Firing && dice.uniform() < 0.2) {
                next = suppressed(next);
            }
            let is_over = change == ChangeName::Resolved;
            live.insert(host, if is_over { (0, episode + 1) } else { (seq + 1, episode) });
            receiver.take(now, next);
            receiver.keep();
            if dice.uniform() < 0.5 {
                send(&mut receiver, &mut told, now, &mut dice);
            }
        }
        for (host, (seq, episode)) in live.clone().into_iter().filter(|(_, (seq, _))| *seq > 0) {
            receiver.take(now, Transition { id: format!("slow:{host}:{episode}"), ..resolved(&host, seq) });
        }
        for _ in 0..400 {
            now += 600;
            send(&mut receiver, &mut told, now, &mut dice);
        }
        for (id, news) in &told {
            assert!(news.is_sorted_by_key(|(seq, _)| seq), "seed {seed}: {id} {news:?}");
            let ends = news.iter().filter(|(_, is_active)| !is_active).count();
            assert_eq!(ends, 1, "seed {seed}, {style:?}: {id} {news:?}");
        }
        assert!(told.len() > 5, "seed {seed}: only {} episodes were told", told.len());
        assert_eq!(receiver.inbox.sizes(), (0, 0), "seed {seed}");
    }
}
