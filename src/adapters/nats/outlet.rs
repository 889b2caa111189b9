//! What leaves besides transitions, at least once each: refused events and windows.
//!
//! Intuition: both follow from the log, so they are published before the commit that counts them; who
//! dies in between publishes them again, under the same id.

use super::{Bus, Cause, acknowledged};
use crate::core::effect::Aside;
use crate::driver::ports::{Letter, Outlet, PortError, Rollup};
use crate::wire::event::{Codec, elements};
use async_nats::Message;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::RawMessageErrorKind;
use std::collections::BTreeSet;

/// Messages on their way at once.
const UNDER_WAY_MAX: usize = 512;

impl Outlet for Bus {
    fn dead(&mut self, letters: &[Letter]) -> Result<(), PortError> {
        // Letters of one record stand together: it is fetched once.
        let mut record: Option<(u64, Option<StreamMessage>)> = None;
        let mut messages = Vec::with_capacity(letters.len());
        for letter in letters {
            let known = record.take().filter(|(seq, _)| *seq == letter.seq);
            let found = match known {
                Some((_, found)) => found,
                None => self.fetch(letter.seq),
            };
            messages.push(self.letter(letter, found.as_ref()));
            record = Some((letter.seq, found));
        }
        self.send_all(messages);
        Ok(())
    }

    fn rollups(&mut self, rollups: &[Rollup]) -> Result<(), PortError> {
        let message = |rollup: &Rollup| {
            let subject = self.subjects.rollup(rollup.size, &rollup.source, &rollup.name);
            let id = format!(
                "{:016x}:{}:{}:{}",
                rollup.series,
                rollup.size.name(),
                rollup.start.ms(),
                rollup.revision
            );
            (subject, PublishMessage::build().message_id(id).payload(rollup.json.clone().into()))
        };
        let messages = rollups.iter().map(message).collect();
        self.send_all(messages);
        Ok(())
    }
}

impl Bus {
    /// The records of this log that were left out, as they killed whoever read them.
    pub fn left_out(&self) -> BTreeSet<u64> {
        let stream = self.subjects.events_stream();
        let letters = self.read_all("SG_DEAD", &self.subjects.dead(Aside::Poison.name()));
        let header = |letter: &Message, name: &str| Some(letter.headers.as_ref()?.get(name)?.to_string());
        let own = letters.iter().filter(|letter| header(letter, "Sg-Stream").as_ref() == Some(&stream));
        own.filter_map(|letter| header(letter, "Sg-Stream-Seq")?.parse().ok()).collect()
    }

    /// A record as the stream has it; nothing where it has gone since.
    fn fetch(&self, seq: u64) -> Option<StreamMessage> {
        let name = self.subjects.events_stream();
        self.patiently("read a record again", || async {
            let stream = self.context.get_stream_no_info(&name).await.map_err(Cause::from)?;
            match stream.get_raw_message(seq).await {
                Ok(message) => Ok::<_, Cause>(Some(message)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn letter(&self, letter: &Letter, record: Option<&StreamMessage>) -> (String, PublishMessage) {
        let stream = self.subjects.events_stream();
        let codec = record.map(|record| {
            crate::wire::subject::codec(record.headers.get("Content-Type").map(|value| value.as_str()))
        });
        let payload = record.map(|record| match letter.reason {
            // Nobody touches it.
            Aside::Poison => record.payload.to_vec(),
            _ => one_event(codec.unwrap_or(Codec::Json), &record.payload, letter.index),
        });
        let subject = record.map_or("", |record| record.subject.as_str());
        let publish = PublishMessage::build()
            .message_id(format!("{stream}:{}:{}", letter.seq, letter.index))
            .header("Sg-Reason", letter.reason.name())
            .header("Sg-Stream", stream.as_str())
            .header("Sg-Stream-Seq", letter.seq.to_string())
            .header("Sg-Index", letter.index.to_string())
            .header("Sg-Subject", subject)
            .header("Content-Type", codec.unwrap_or(Codec::Json).content_type())
            .payload(payload.unwrap_or_default().into());
        (self.subjects.dead(letter.reason.name()), publish)
    }

    /// Sends each until it is acknowledged.
    fn send_all(&self, messages: Vec<(String, PublishMessage)>) {
        for some in messages.chunks(UNDER_WAY_MAX) {
            self.patiently("publish what is set aside", || async {
                let mut sent = Vec::with_capacity(some.len());
                for (subject, publish) in some {
                    sent.push(self.context.send_publish(subject.clone(), publish.clone()).await);
                }
                for sent in sent {
                    acknowledged(sent).await?;
                }
                Ok::<_, PublishError>(())
            });
        }
    }
}

/// The bytes of one event of a payload; all of them where it cannot be split.
fn one_event(codec: Codec, payload: &[u8], index: u32) -> Vec<u8> {
    let events = elements(codec, payload).unwrap_or_default();
    events.get(index as usize).copied().unwrap_or(payload).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_event_is_told_alone() {
        assert_eq!(one_event(Codec::Json, br#"[{"a":1}, {"b":2}]"#, 1), br#"{"b":2}"#);
        assert_eq!(one_event(Codec::Ndjson, b"x\n\ny\n", 1), b"y");
        assert_eq!(one_event(Codec::Json, b"{nonsense", 0), b"{nonsense");
    }
}
