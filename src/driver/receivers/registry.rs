//! All receivers of a process, for status reports, redrives and shutdown.

use super::metrics::ReceiverMetrics;
use super::worker::Order;
use crate::core::alert::Transition;
use crate::driver::ports::OutOfBandAlert;
use crate::driver::ports::{OutOfBandAlerts, PortError};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Timeout for the answer of a receiver's thread, which may be in the middle of a message.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Senders to the receivers' threads; empty if this process delivers nothing.
#[derive(Debug, Clone, Default)]
pub struct ReceiverRegistry {
    all: Vec<(Arc<ReceiverMetrics>, Sender<Order>)>,
}

/// Why nothing can be redriven.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedriveError {
    #[error("there is no receiver `{0}` here; there are: {1}")]
    Unknown(String, String),
    #[error("receiver `{0}` is busy with a message; try again in a moment")]
    Busy(String),
    #[error(
        "another process delivers to receiver `{0}`; ask the process whose `notify list` says `delivers_here`"
    )]
    Elsewhere(String),
}

/// In a process without a broker, alerts that do not follow from the log are sent to its receivers directly,
/// because the disk may be full.
impl OutOfBandAlerts for ReceiverRegistry {
    fn newest_out_of_band(&mut self, _: &str) -> Result<Option<(u64, String)>, PortError> {
        Ok(None)
    }

    fn put_out_of_band(&mut self, aside: &OutOfBandAlert) -> Result<(), PortError> {
        // The JSON was written just now, so it always parses.
        let Ok(alert) = serde_json::from_str::<Transition>(&aside.json) else { return Ok(()) };
        for (_, orders) in &self.all {
            // A receiver whose thread has ended needs no alert.
            let _ = orders.send(Order::Tell(Box::new(alert.clone())));
        }
        Ok(())
    }
}

impl ReceiverRegistry {
    pub fn add(&mut self, post: Arc<ReceiverMetrics>, orders: Sender<Order>) {
        self.all.push((post, orders));
    }

    pub fn receivers(&self) -> impl Iterator<Item = &ReceiverMetrics> {
        self.all.iter().map(|(post, _)| &**post)
    }

    /// Redrives the dead letters of one receiver; returns how many.
    pub fn redrive(&self, name: &str) -> Result<usize, RedriveError> {
        let found = self.all.iter().find(|(post, _)| *post.name == *name);
        let (_, orders) = found.ok_or_else(|| {
            let names: Vec<&str> = self.receivers().map(|post| &*post.name).collect();
            RedriveError::Unknown(name.into(), names.join(", "))
        })?;
        let (reply, answer) = channel();
        let asked = orders.send(Order::Redrive(reply)).ok();
        let answered = asked.and_then(|()| answer.recv_timeout(ANSWER_WITHIN).ok());
        let done = answered.ok_or_else(|| RedriveError::Busy(name.into()))?;
        done.ok_or_else(|| RedriveError::Elsewhere(name.into()))
    }

    pub fn stop(&self) {
        for (_, orders) in &self.all {
            // A receiver whose thread has ended needs no stop.
            let _ = orders.send(Order::Stop);
        }
    }
}
