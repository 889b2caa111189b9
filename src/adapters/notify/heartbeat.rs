//! `heartbeat`: reports each minute to an external service that the alerting chain works. If the reports stop, that
//! service alerts the operators.
//!
//! Intuition: the program itself creates canary alerts. A canary that arrives here proves that every step from the
//! event to the notification works. A report (beat) is sent once a canary of each partition has arrived. Canaries
//! older than `max_latency` do not count, because a chain with a long delay does not work. Any monitoring service for
//! cron jobs can receive beats (a POST to a URL that is the secret). Without a URL only the latency is measured, as
//! for every receiver.

use super::http::Http;
use super::secret::Secret;
use crate::core::notify::{Message, Why};
use crate::core::{Span, Timestamp};
use crate::driver::receivers::canary::Origin;
use crate::driver::receivers::ports::{Channel, Failure};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Heartbeat {
    pub url: Option<Secret>,
    pub http: Http,
    /// Maximum age of a canary; an older one proves nothing.
    pub max_latency: Span,
    pub now: fn() -> Timestamp,
    /// Time of the newest canary of each partition since the last beat.
    pub seen: BTreeMap<u32, Timestamp>,
}

impl Channel for Heartbeat {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let Some(latency) = self.proof(message) else { return Ok(()) };
        let body = json!({"latency_ms": latency.ms(), "partitions": self.seen.len()}).to_string();
        if let Some(url) = &self.url {
            self.http.post(url.reveal(), &[], &body)?.verdict()?;
        }
        self.seen.clear();
        Ok(())
    }

    fn attempt_max(&self) -> Duration {
        self.http.request_max()
    }
}

impl Heartbeat {
    /// Returns the age of the oldest canary if a recent canary of every partition has arrived, or the age of a
    /// receiver test. Returns `None` if no beat is to be sent.
    fn proof(&mut self, message: &Message) -> Option<Span> {
        let now = (self.now)();
        if message.why == Why::Test {
            return message.alerts.first().filter(|alert| alert.is_active()).map(|alert| now - alert.at);
        }
        let alert = message.alerts.iter().find(|alert| alert.is_active())?;
        let Origin { partition, of } =
            alert.key.get("source").and_then(|source| Origin::of_source(source))?;
        self.seen.insert(partition, alert.event_time?);
        self.seen.retain(|partition, at| *partition < of && now - *at <= self.max_latency);
        let oldest = self.seen.values().min()?;
        (self.seen.len() == of as usize).then_some(now - *oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::notify::http::ANSWER_WITHIN;
    use crate::core::alert::self_alerts::bare;
    use crate::core::alert::transition::State;
    use crate::core::vocab::key::Key;
    use crate::core::vocab::severity::Severity;

    fn message(partition: u32, of: u32, secs: i64, state: State) -> Message {
        let at = Timestamp::clamped(secs * 1_000);
        let key = Key::new(vec![("source".into(), Origin { partition, of }.source().into())]);
        let mut alert = bare("canary".into(), Severity::Info, key, (at, at));
        (alert.event_time, alert.state) = (Some(at), state);
        Message::new(&"beat".into(), Default::default(), vec![alert], (Why::News, at))
    }

    #[test]
    fn it_beats_once_all_partitions_were_heard_in_time() {
        let mut beat = Heartbeat {
            url: None,
            http: Http::new(Vec::new(), ANSWER_WITHIN, None),
            max_latency: Span::from_mins(2),
            now: || Timestamp::clamped(1_000_000),
            seen: BTreeMap::new(),
        };
        let mut hear = |partition, of, secs, state| {
            let message = message(partition, of, secs, state);
            let proof = beat.proof(&message).map(Span::ms);
            // `send` clears `seen` after a beat.
            assert_eq!(beat.send(&message), Ok(()));
            proof
        };
        assert_eq!(hear(0, 1, 999, State::Firing), Some(1_000));
        assert_eq!(hear(0, 1, 879, State::Firing), None, "too old");
        assert_eq!(hear(0, 2, 998, State::Firing), None, "the other partition is silent");
        assert_eq!(hear(0, 2, 998, State::Resolved), None);
        assert_eq!(hear(1, 2, 997, State::Firing), Some(3_000));
        assert_eq!(hear(1, 2, 999, State::Firing), None, "that beat is told");
        let trial = Message { why: Why::Test, ..message(0, 1, 999, State::Firing) };
        assert_eq!(beat.proof(&trial).map(Span::ms), Some(1_000), "whoever tries it is heard");
    }
}
