//! The transition log: publishes transitions.
//!
//! Intuition: transition number n of a partition has a subject of its own, and the broker stores it only if
//! that subject is still empty. Invariant: each transition is stored once, however often and by whichever
//! worker it is sent.

use super::raw::{self, Found, Which};
use super::reader::MessagePlace;
use super::{ANSWER_WITHIN, Bus, Cause, acknowledged};
use crate::core::Timestamp;
use crate::driver::ports::OutOfBandAlert;
use crate::driver::ports::{
    Numbers, OutOfBandAlerts, OutboxEntry, PartialsMessage, PortError, PublishOutcome, TransitionLog,
};
use crate::wire::signature::{HEADER, Signing};
use crate::wire::subject::Subjects;
use async_nats::Message;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use futures_util::StreamExt;
use serde_json::json;

/// Name of the outage of the alert stream.
const ALERTS: &str = "alert stream";

/// Maximum number of transitions in flight.
const UNDER_WAY_MAX: usize = 256;

/// Maximum number of forged messages that one call deletes. More of them mean that a client keeps publishing them,
/// and the operator must stop that client.
const FORGED_MAX: usize = 100;

/// The places of one stream. A place is a subject that holds one signed message.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) context: Context,
    pub(super) stream: &'static str,
    pub(super) signing: Signing,
}

impl Places {
    /// A signed message that the broker stores only if its subject is still empty.
    fn alone(&self, subject: &str, payload: Vec<u8>) -> PublishMessage {
        let signature = self.signing.sign(subject, &payload);
        let publish = PublishMessage::build().payload(payload.into()).expected_last_subject_sequence(0);
        signature.into_iter().fold(publish, |publish, value| publish.header(HEADER, value))
    }

    /// Stores a message in its place, unless the place already holds a genuine one.
    pub(super) async fn put_once(&self, subject: String, payload: Vec<u8>) -> Result<(), Cause> {
        for _ in 0..FORGED_MAX {
            let publish = self.alone(&subject, payload.clone());
            let sent = self.context.send_publish(subject.clone(), publish).await;
            match acknowledged(sent).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {}
                Err(error) => return Err(error.into()),
            }
            if self.newest(&subject).await?.is_some() {
                return Ok(());
            }
        }
        Err("another client keeps publishing forged messages to this subject".into())
    }

    /// Returns the newest genuine message on these subjects. Deletes all forged messages that are newer.
    pub(super) async fn newest(&self, subjects: &str) -> Result<Option<StreamMessage>, Cause> {
        let stream = self.context.get_stream_no_info(self.stream).await?;
        for _ in 0..FORGED_MAX {
            let which = Which { last_by_subj: Some(subjects), ..Which::default() };
            let Some(Found { message, .. }) = raw::get(&self.context, self.stream, which).await? else {
                return Ok(None);
            };
            if self.signing.settle(&mut false, |signing| is_genuine_raw(signing, &message))? {
                return Ok(Some(message));
            }
            self.signing.note_forged(&message.subject);
            stream.delete_message(message.sequence).await?;
        }
        Err("another client keeps publishing forged messages to these subjects".into())
    }
}

/// Whether a stored message has the right signature for its subject and payload.
pub(super) fn is_genuine_raw(signing: &Signing, message: &StreamMessage) -> bool {
    let signature = message.headers.get(HEADER).map(|value| value.as_str());
    let at = super::stamp(message.time.unix_timestamp_nanos());
    signing.is_genuine(&message.subject, &message.payload, signature, at)
}

/// Whether a consumed message has the right signature for its subject and payload.
pub(super) fn is_genuine(signing: &Signing, message: &Message, at: Timestamp) -> bool {
    let signature = message.headers.as_ref().and_then(|headers| headers.get(HEADER));
    signing.is_genuine(&message.subject, &message.payload, signature.map(|value| value.as_str()), at)
}

/// Checks like [`is_genuine`], with the broker's time from the reply subject. A message without a valid reply subject
/// counts as forged.
pub(super) fn is_genuine_placed(signing: &Signing, message: &Message) -> bool {
    let place = message.reply.as_ref().and_then(|reply| MessagePlace::parse(reply));
    place.is_some_and(|place| is_genuine(signing, message, place.stamp()))
}

impl OutOfBandAlerts for Bus {
    fn newest_out_of_band(&mut self, rule: &str) -> Result<Option<(u64, String)>, PortError> {
        let newest = self.newest_message(self.subjects.alerts_stream(), &self.subjects.any_aside(rule))?;
        Ok(newest.and_then(|(subject, text)| Some((Subjects::alert_number(&subject)?, text))))
    }

    fn put_out_of_band(&mut self, aside: &OutOfBandAlert) -> Result<(), PortError> {
        let subject = self.subjects.aside(aside.severity, aside.rule, aside.number);
        let places = self.places(self.subjects.alerts_stream());
        let put = self.handle.block_on(places.put_once(subject, aside.json.clone().into()));
        put.map_err(|source| PortError::Away { place: "the alert stream".into(), source })
    }
}

impl TransitionLog for Bus {
    fn newest(&mut self) -> Result<Numbers, PortError> {
        // A new owner calls this function before it publishes. The key is read again, so that the owner signs with
        // the current one.
        self.reread_key()?;
        let (alerts, partials) = (self.subjects.alerts_stream(), self.subjects.partials_stream());
        Ok(Numbers {
            alerts: self.newest_of(alerts, &self.subjects.any_alert())?,
            actions: self.newest_of(alerts, &self.subjects.any_action())?,
            partials: match self.has_aggregate {
                true => self.newest_of(partials, &self.subjects.any_partials())?,
                false => 0,
            },
            shadows: self.newest_of(alerts, &self.subjects.any_shadow())?,
        })
    }

    fn is_older_than_log(&mut self) -> Result<bool, PortError> {
        let (alerts, partials) = (self.subjects.alerts_stream(), self.subjects.partials_stream());
        let mut places = vec![(alerts, self.subjects.any_alert()), (alerts, self.subjects.any_shadow())];
        if self.has_aggregate {
            places.push((partials, self.subjects.any_partials()));
        }
        let mut newest = None;
        for (stream, subjects) in places {
            let places = self.places(stream);
            let message = self.patiently("read the newest transition", || places.newest(&subjects))?;
            newest = newest.max(message.map(|message| message.time));
        }
        let made = self.stream(&self.subjects.events_stream())?.cached_info().created;
        Ok(newest.is_some_and(|newest| newest < made))
    }

    fn told(&mut self) -> Result<Vec<String>, PortError> {
        let messages = self.read_all(self.subjects.alerts_stream(), &self.subjects.any_alert())?;
        let mut is_fresh = false;
        let mut ours = Vec::with_capacity(messages.len());
        for message in &messages {
            let is_ours = self.signing.settle(&mut is_fresh, |signing| is_genuine_placed(signing, message));
            match is_ours.map_err(PortError::of_alert_key)? {
                true => ours.push(message),
                false => self.signing.note_forged(&message.subject),
            }
        }
        let text = |message: &Message| {
            let number = Subjects::alert_number(&message.subject).unwrap_or(0);
            (number, String::from_utf8_lossy(&message.payload).into_owned())
        };
        let mut told: Vec<(u64, String)> = ours.into_iter().map(text).collect();
        told.sort();
        Ok(told.into_iter().map(|(_, text)| text).collect())
    }

    fn publish(&mut self, transitions: &[OutboxEntry]) -> Result<Vec<PublishOutcome>, PortError> {
        let mut placed = Vec::with_capacity(transitions.len());
        for some in transitions.chunks(UNDER_WAY_MAX) {
            let (done, failed) = self.handle.block_on(self.publish_some(some));
            placed.extend(done);
            match failed {
                None => self.outages.end(ALERTS),
                Some(error) => self.outages.begin(ALERTS, self.subjects.alerts_stream(), &error),
            }
        }
        // If a place was already occupied, the stored transition is read back, so that the caller can compare it.
        for (transition, placed) in transitions.iter().zip(&mut placed) {
            if matches!(placed, PublishOutcome::There(_)) {
                *placed = self.handle.block_on(self.read_back(transition));
            }
        }
        Ok(placed)
    }

    /// Posts one message at a time, so that the log stores them in the order of their numbers.
    fn post(&mut self, partials: &[PartialsMessage]) -> Result<usize, PortError> {
        let messages = partials
            .iter()
            .map(|message| (self.subjects.partials_subject(message.number), message.bytes.clone()));
        let places = self.places(self.subjects.partials_stream());
        Ok(self.handle.block_on(put_in_order(&places, messages, "a message to the aggregate")))
    }

    fn shadow(&mut self, shadows: &[OutboxEntry]) -> Result<usize, PortError> {
        let message = |shadow: &OutboxEntry| {
            (self.subjects.shadow(&shadow.rule, shadow.number), shadow.json.clone().into_bytes())
        };
        let places = self.places(self.subjects.alerts_stream());
        Ok(self.handle.block_on(put_in_order(&places, shadows.iter().map(message), "a shadow")))
    }
}

impl Bus {
    /// Reads all messages of a stream on these subjects.
    pub(super) fn read_all(&self, stream: &str, subjects: &str) -> Result<Vec<Message>, PortError> {
        let mut attempts = 0u32;
        self.patiently("read messages", || {
            attempts += 1;
            self.read_by(attempts, stream, subjects)
        })
    }

    /// Reads with a consumer at odd attempts, and without one at even attempts, because a consumer cannot deliver
    /// messages that the client cannot parse.
    async fn read_by(&self, attempt: u32, stream: &str, subjects: &str) -> Result<Vec<Message>, Cause> {
        let stream = self.context.get_stream(stream).await?;
        if attempt.is_multiple_of(2) {
            let last = stream.cached_info().state.last_sequence;
            let name = &stream.cached_info().config.name;
            let all = raw::some(&self.context, name, subjects, 1..last + 1, usize::MAX).await?;
            return Ok(raw::as_consumed(name, all));
        }
        let config = pull::Config {
            filter_subject: subjects.into(),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let mut consumer = stream.create_consumer(config).await?;
        let mut left = consumer.info().await?.num_pending;
        let mut messages = consumer.messages().await?;
        let mut read = Vec::new();
        while left > 0 {
            let message = tokio::time::timeout(ANSWER_WITHIN, messages.next()).await?;
            read.push(message.ok_or("the consumer has ended")??.message);
            left -= 1;
        }
        Ok(read)
    }

    fn reread_key(&self) -> Result<(), PortError> {
        self.signing.reread().map_err(PortError::of_alert_key)
    }

    /// Returns the number of the newest genuine message on these subjects, which is the highest; 0 if there is none.
    fn newest_of(&self, stream: &'static str, subjects: &str) -> Result<u64, PortError> {
        let newest = self.newest_message(stream, subjects)?;
        Ok(newest.and_then(|(subject, _)| Subjects::alert_number(&subject)).unwrap_or(0))
    }

    /// Returns subject and text of the newest genuine message on these subjects.
    fn newest_message(
        &self,
        stream: &'static str,
        subjects: &str,
    ) -> Result<Option<(String, String)>, PortError> {
        let places = self.places(stream);
        let newest = self.patiently("read the newest transition", || places.newest(subjects))?;
        let text = |message: StreamMessage| {
            (message.subject.to_string(), String::from_utf8_lossy(&message.payload).into_owned())
        };
        Ok(newest.map(text))
    }

    fn places(&self, stream: &'static str) -> Places {
        Places { context: self.context.clone(), stream, signing: self.signing.clone() }
    }

    /// Publishes a transition's actions. The caller publishes the transition afterwards, so if the transition is
    /// stored, its actions are stored, too.
    async fn ask_for_actions(&self, transition: &OutboxEntry) -> Result<(), Cause> {
        for (number, action) in &transition.actions {
            let payload = format!("{{\"action\":{},\"alert\":{}}}", json!(&**action), transition.json);
            let subject = self.subjects.action(action, *number);
            let places = self.places(self.subjects.alerts_stream());
            places.put_once(subject, payload.into()).await?;
        }
        Ok(())
    }

    /// Publishes transitions; returns the outcome of each, and the newest error.
    async fn publish_some(&self, transitions: &[OutboxEntry]) -> (Vec<PublishOutcome>, Option<Cause>) {
        let (mut sent, mut failed) = (Vec::with_capacity(transitions.len()), None);
        for transition in transitions {
            if let Err(error) = self.ask_for_actions(transition).await {
                // This transition and the later ones get the outcome `Unknown`, so they are sent again.
                failed = Some(error);
                break;
            }
            let (subject, places) = (self.subject(transition), self.places(self.subjects.alerts_stream()));
            let publish = places.alone(&subject, transition.json.clone().into());
            sent.push(self.context.send_publish(subject, publish).await);
        }
        let mut placed = Vec::with_capacity(sent.len());
        for sent in sent {
            placed.push(match acknowledged(sent).await {
                Ok(_) => PublishOutcome::New,
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                    PublishOutcome::There(String::new())
                }
                Err(error) => {
                    failed = Some(error.into());
                    PublishOutcome::Unknown
                }
            });
        }
        placed.resize(transitions.len(), PublishOutcome::Unknown);
        if failed.is_some() {
            self.make_streams_out().await;
        }
        (placed, failed)
    }

    fn subject(&self, transition: &OutboxEntry) -> String {
        self.subjects.alert(transition.severity, &transition.rule, transition.number)
    }

    /// Reads the message that is stored in the transition's place. If that message is forged, it is deleted and the
    /// result is `Unknown`, so the transition is sent again.
    async fn read_back(&self, transition: &OutboxEntry) -> PublishOutcome {
        let places = self.places(self.subjects.alerts_stream());
        match places.newest(&self.subject(transition)).await {
            Ok(Some(message)) => {
                PublishOutcome::There(String::from_utf8_lossy(&message.payload).into_owned())
            }
            Ok(None) => PublishOutcome::Unknown,
            Err(error) => {
                tracing::warn!(%error, number = transition.number, "a transition could not be read back");
                PublishOutcome::Unknown
            }
        }
    }
}

/// Stores messages in their places one after the other, and stops at the first failure. Returns how many are stored.
async fn put_in_order(
    places: &Places,
    messages: impl Iterator<Item = (String, Vec<u8>)>,
    what: &str,
) -> usize {
    let mut done = 0;
    for (subject, payload) in messages {
        if let Err(error) = places.put_once(subject, payload).await {
            tracing::warn!(%error, "the broker did not acknowledge {what}");
            break;
        }
        done += 1;
    }
    done
}
