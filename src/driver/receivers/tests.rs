//! Tests of a receiver whose alert log cannot be read.

use super::metrics::ReceiverMetrics;
use super::ports::{AlertFeed, Batch, Channel, Failure, NotificationLog, Written};
use super::worker::{Order, Receiver, start};
use crate::core::alert::self_alerts::bare;
use crate::core::notify::inbox::Rows;
use crate::core::notify::route::{Grouping, Route};
use crate::core::notify::{Message, Policy, Routes, Style};
use crate::core::vocab::key::Key;
use crate::core::vocab::selector::Selector;
use crate::core::vocab::severity::Severity;
use crate::core::{Span, Timestamp};
use crate::driver::ports::{Clock, PortError};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

struct Unreadable;

impl AlertFeed for Unreadable {
    fn next(&mut self, _: u64, _: Duration) -> Result<Batch, PortError> {
        Err(PortError::Away { place: "the alert log".into(), source: "it cannot be opened".into() })
    }

    fn done(&mut self) {}
}

/// The notification log of a receiver that has read the alert log before. Its first `self.0` writes fail.
struct Known(u32);

impl NotificationLog for Known {
    fn acquire(&mut self) -> Result<bool, PortError> {
        Ok(true)
    }

    fn load(&mut self) -> Result<Vec<(String, Vec<u8>)>, PortError> {
        Ok(vec![("position".into(), b"7".to_vec())])
    }

    fn write(&mut self, _: &Rows) -> Result<Written, PortError> {
        match self.0.checked_sub(1) {
            None => Ok(Written::Done),
            Some(left) => {
                self.0 = left;
                Err(PortError::Away { place: "the notification log".into(), source: "it is full".into() })
            }
        }
    }

    fn hold(&mut self, _: Duration) -> Result<Written, PortError> {
        Ok(Written::Done)
    }

    fn release(&mut self) {}
}

struct Target(Sender<String>);

impl Channel for Target {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let rules = message.alerts.iter().map(|alert| alert.rule.to_string());
        rules.into_iter().try_for_each(|rule| self.0.send(rule)).map_err(|_| Failure::never("nobody listens"))
    }

    fn attempt_max(&self) -> Duration {
        Duration::ZERO
    }
}

struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp::clamped(1_793_491_200_000)
    }

    fn running(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn pause(&self, _: Duration) {}
}

fn policy() -> Policy {
    Policy {
        name: "ops".into(),
        style: Style::Each,
        max_per_hour: None,
        max_per_day: None,
        grouping: None,
        ends_last: Span::ZERO,
        is_past_mutes: false,
    }
}

fn routes() -> Routes {
    let root = Route {
        path: "0".into(),
        receiver: "ops".into(),
        matchers: Selector { name: None, matchers: Vec::new() },
        is_continuing: false,
        grouping: Grouping::default(),
        muted: Vec::new(),
        active: Vec::new(),
        routes: Vec::new(),
    };
    Routes { root }
}

/// Goal: an alert that the log is unwritten is delivered even while the log cannot be read. Method: a feed that only
/// fails, and a notification log whose first writes fail; two orders, which may come between two sessions.
#[test]
fn an_alert_about_the_log_needs_no_log() {
    let (orders, for_worker) = channel();
    let (told, heard) = channel();
    let worker = start(Receiver {
        policy: policy(),
        routes: Arc::new(routes()),
        max_age: Span::from_hours(1),
        feed: Unreadable,
        notification_log: Known(2),
        channel: Box::new(Target(told)),
        clock: Standing,
        post: Arc::new(ReceiverMetrics::default()),
        orders: for_worker,
        others: Box::new(Vec::<Sender<Order>>::new()),
        is_alone: true,
    });
    for rule in ["_sg_unwritten", "_sg_clock"] {
        let at = Standing.now();
        let alert = bare(rule.into(), Severity::Critical, Key::new(Vec::new()), (at, at));
        orders.send(Order::Tell(Box::new(alert))).expect("it runs");
        assert_eq!(heard.recv_timeout(Duration::from_secs(20)).as_deref(), Ok(rule));
    }
    orders.send(Order::Stop).expect("it runs");
    worker.expect("a thread").join().expect("no panic");
}
