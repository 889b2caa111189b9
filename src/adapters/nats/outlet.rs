//! Output besides transitions, published at least once: dead letters and rollups.
//!
//! Intuition: both follow from the log, so they are published before the commit that contains them. After a
//! crash between publishing and commit, the next owner publishes them again with the same message ids.

use super::raw::{self, Which};
use super::{Bus, acknowledged};
use crate::core::effect::RejectReason;
use crate::driver::ports::{DeadLetter, Outlet, PortError, Rollup};
use crate::wire::event::{Codec, elements};
use async_nats::Message;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use std::collections::BTreeSet;

/// Upper bound in bytes for a dead letter's headers without the subject: ten headers of at most 100 B each.
const HEADERS_BYTES: usize = 1_024;

/// Maximum number of messages in flight.
const UNDER_WAY_MAX: usize = 512;

impl Outlet for Bus {
    /// Publishes refused events as dead letters. The dead letters of one record are adjacent, so each record is
    /// fetched and split once.
    fn dead(&mut self, letters: &[DeadLetter]) -> Result<(), PortError> {
        let mut messages = Vec::with_capacity(letters.len());
        for of_one in letters.chunk_by(|a, b| a.seq == b.seq) {
            let record = self.fetch(of_one[0].seq)?;
            let codec = record.as_ref().map_or(Codec::Json, |record| {
                crate::wire::subject::codec(record.headers.get("Content-Type").map(|value| value.as_str()))
            });
            let payload = record.as_ref().map_or(&[][..], |record| &record.payload);
            let events = elements(codec, payload).unwrap_or_default();
            let subject = record.as_ref().map_or("", |record| record.subject.as_str());
            for letter in of_one {
                let payload = one_event(letter, &events, payload);
                messages.push(self.letter(letter, codec, subject, payload));
            }
        }
        self.send_all(messages)
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
        self.send_all(messages)
    }
}

impl Bus {
    /// Returns the poison records of this log: those skipped because they crashed their workers.
    pub fn left_out(&self) -> Result<BTreeSet<u64>, PortError> {
        let stream = self.subjects.events_stream();
        let letters = self.read_all("SG_DEAD", &self.subjects.dead(RejectReason::Poison.name()))?;
        let header = |letter: &Message, name: &str| Some(letter.headers.as_ref()?.get(name)?.to_string());
        let own = letters.iter().filter(|letter| header(letter, "Sg-Stream").as_ref() == Some(&stream));
        Ok(own.filter_map(|letter| header(letter, "Sg-Stream-Seq")?.parse().ok()).collect())
    }

    /// Reads a record from the stream; `None` if it has expired.
    fn fetch(&self, seq: u64) -> Result<Option<StreamMessage>, PortError> {
        let name = self.subjects.events_stream();
        let which = Which { seq: Some(seq), ..Which::default() };
        let found = self.patiently("read a record again", || raw::get(&self.context, &name, which))?;
        Ok(found.map(|found| found.message))
    }

    fn letter(
        &self,
        letter: &DeadLetter,
        codec: Codec,
        subject: &str,
        payload: &[u8],
    ) -> (String, PublishMessage) {
        let stream = self.subjects.events_stream();
        let mut publish = PublishMessage::build()
            .message_id(format!("{stream}:{}:{}", letter.seq, letter.index))
            .header("Sg-Reason", letter.reason.name())
            .header("Sg-Stream", stream.as_str())
            .header("Sg-Stream-Seq", letter.seq.to_string())
            .header("Sg-Index", letter.index.to_string())
            .header("Sg-Subject", subject)
            .header("Content-Type", codec.content_type());
        if letter.more > 0 {
            publish = publish.header("Sg-More", letter.more.to_string());
        }
        // A payload of nearly the broker's maximum size leaves no room for the headers, so it is truncated. The
        // event stream still has the whole record.
        let room = self.client.server_info().max_payload.saturating_sub(HEADERS_BYTES + subject.len());
        if payload.len() > room {
            publish = publish.header("Sg-Bytes", payload.len().to_string());
        }
        let payload = &payload[..payload.len().min(room)];
        (self.subjects.dead(letter.reason.name()), publish.payload(payload.to_vec().into()))
    }

    /// Publishes each message until it is acknowledged.
    fn send_all(&self, messages: Vec<(String, PublishMessage)>) -> Result<(), PortError> {
        for some in messages.chunks(UNDER_WAY_MAX) {
            self.patiently("publish dead letters or windows", || async {
                let mut sent = Vec::with_capacity(some.len());
                for (subject, publish) in some {
                    sent.push(self.context.send_publish(subject.clone(), publish.clone()).await);
                }
                for (sent, (subject, _)) in sent.into_iter().zip(some) {
                    if let Err(error) = acknowledged(sent).await {
                        self.make_streams_out().await;
                        return Err(format!("{subject}: {error}"));
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Returns the bytes of the refused event. Returns the whole payload if the payload cannot be split, if the record is
/// a poison record, or if the dead letter also stands for further refused events.
fn one_event<'a>(letter: &DeadLetter, events: &[&'a [u8]], payload: &'a [u8]) -> &'a [u8] {
    let is_whole = letter.more > 0 || letter.reason == RejectReason::Poison;
    let event = events.get(letter.index as usize).filter(|_| !is_whole);
    event.copied().unwrap_or(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::counters::Refusal;

    #[test]
    fn the_refused_event_is_told_alone() {
        let told = |codec, payload: &'static [u8], index, more| {
            let letter = DeadLetter { seq: 1, index, reason: RejectReason::Refused(Refusal::BadEvent), more };
            one_event(&letter, &elements(codec, payload).unwrap_or_default(), payload)
        };
        assert_eq!(told(Codec::Json, br#"[{"a":1}, {"b":2}]"#, 1, 0), br#"{"b":2}"#);
        assert_eq!(told(Codec::Ndjson, b"x\n\ny\n", 1, 0), b"y");
        assert_eq!(told(Codec::Json, b"{nonsense", 0, 0), b"{nonsense");
        assert_eq!(told(Codec::Ndjson, b"x\ny\nz", 1, 1), b"x\ny\nz", "z has no letter");
    }
}
