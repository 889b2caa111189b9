//! Records: the entries of the log, as the engine takes them.
//!
//! Invariant: a record is complete before the engine reads it. Only the decoders in `wire` make records from
//! bytes; the driver adds gaps, ticks and poison marks.

use super::event::Event;
use super::measure::partial::Partials;
use super::mute::{Maintenance, Silence};
use super::rule::RuleSet;
use super::vocab::counters::Refusal;
use super::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One record: an entry of the log.
#[derive(Debug)]
pub struct Record<'a> {
    /// The position in the log, from 1. Refusals name the record by it.
    pub seq: u64,
    /// The timestamp that the log assigned.
    pub stamp: Timestamp,
    /// The latest accepted event time; later values are refused as `future`. It is set only for a line of a
    /// file without ingest times.
    pub limit: Option<Timestamp>,
    /// The reasons for which events of the payload could not be decoded. These events are only counted.
    pub bad: &'a [Refusal],
    pub body: Body<'a>,
}

/// The content of a record.
#[derive(Debug)]
pub enum Body<'a> {
    Events(&'a [Event]),
    /// A tick, which carries only the time. The owner appends it while no input arrives.
    Tick,
    Control(&'a Control),
    /// A gap: the first and the last of the records that are missing. It precedes the next existing record
    /// and has its stamp.
    Gap(u64, u64),
    /// A poison record. It is skipped, because processing it crashed a worker.
    Poison,
    /// Message `number` of a partition to the aggregate. The numbers begin at 1 and are contiguous.
    Partials {
        from: u32,
        number: u64,
        partials: &'a Partials,
    },
}

/// A decision of an operator; decisions enter through the log, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Replaces the whole rule set from here on.
    Rules(Box<RuleSet>),
    /// Acknowledges an alert.
    Ack(Ack),
    /// Withdraws an acknowledgement.
    Unack {
        alert: String,
        by: String,
    },
    /// Adds a silence.
    Silence(Silence),
    Unsilence {
        id: String,
        by: String,
    },
    /// Adds a maintenance window.
    Maintenance(Maintenance),
    EndMaintenance {
        id: String,
        by: String,
    },
}

/// An acknowledgement of one alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    pub alert: String,
    pub by: String,
    #[serde(default)]
    pub why: String,
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Accepts the changed behaviour as normal: baselines restart at the time at which the change began.
    #[serde(default)]
    pub accept: bool,
}
