//! Transitions out: number n of a partition has a subject of its own, and is only stored where
//! nothing is there yet. So it is stored once, however often it is sent and by whom.

use super::{Bus, Cause};
use crate::driver::ports::{Board, Numbered, PortError};
use crate::wire::subject::Subjects;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;

/// Transitions on their way at once.
const UNDER_WAY_MAX: usize = 256;

impl Board for Bus {
    fn newest(&mut self) -> Result<u64, PortError> {
        let stream = self.stream(self.subjects.alerts_stream());
        let newest = self.patiently("read the newest transition", || async {
            match stream.get_last_raw_message_by_subject(&self.subjects.any_alert()).await {
                Ok(message) => Ok(Some(message.subject)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        Ok(newest.and_then(|subject| Subjects::alert_number(&subject)).unwrap_or(0))
    }

    fn publish(&mut self, transitions: &[Numbered]) -> Result<u64, PortError> {
        let mut known = 0;
        for some in transitions.chunks(UNDER_WAY_MAX) {
            known += self.publish_some(some)?;
        }
        Ok(known)
    }
}

impl Bus {
    /// Sends again until each is there; how many were there before.
    fn publish_some(&self, transitions: &[Numbered]) -> Result<u64, PortError> {
        let there = self.patiently("publish transitions", || async {
            let mut sent = Vec::with_capacity(transitions.len());
            for transition in transitions {
                let subject = self.subject(transition);
                let publish = PublishMessage::build()
                    .payload(transition.json.clone().into())
                    .expected_last_subject_sequence(0);
                sent.push(self.context.send_publish(subject, publish).await?);
            }
            let mut there = Vec::new();
            for (place, sent) in sent.into_iter().enumerate() {
                match PublishAckFuture::into_future(sent).await {
                    Ok(_) => {}
                    Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => there.push(place),
                    Err(error) => return Err(error),
                }
            }
            Ok(there)
        });
        there.iter().try_for_each(|place| self.compare(&transitions[*place]))?;
        Ok(there.len() as u64)
    }

    fn subject(&self, transition: &Numbered) -> String {
        self.subjects.alert(transition.severity, &transition.rule, transition.number)
    }

    /// What is there must be what we would have published: the log is the same, so is the answer.
    fn compare(&self, transition: &Numbered) -> Result<(), PortError> {
        let (stream, subject) = (self.stream(self.subjects.alerts_stream()), self.subject(transition));
        let there = self.patiently("read a transition back", || async {
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => Ok(Some(message.payload)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(Cause::from(error)),
            }
        });
        if there.is_none_or(|there| there == transition.json.as_bytes()) {
            return Ok(());
        }
        Err(PortError::Changed {
            place: format!("transition {} of partition {}", transition.number, self.subjects.partition()),
            found: "another one was published under its number".into(),
            hint: "two deployments share a stream, or the log was changed; nothing more is published",
        })
    }
}
