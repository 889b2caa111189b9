//! Commands to the owner of a partition.
//!
//! Invariant: each command is answered, or its reply callback is dropped, which tells its sender that no answer will
//! come. Rejected: a channel for each kind of command, because an owner that waits on one channel does not receive
//! from the others.

use super::ports::{Entry, Intake, PortError, Reply, RequestId};
use crate::core::Inspect;
use crate::core::alert::Transition;
use crate::core::rule::RuleSet;
use crate::wire::snapshot;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Capacity of an owner's command queue: 1,024 payloads of a few KiB. A caller blocks while the queue is full.
const COMMANDS_WAITING: usize = 1_024;

/// Maximum commands taken from the queue at once. An embedded log appends their records in one transaction.
pub(super) const GROUP_MAX: usize = 512;

/// Commands to the owner of a partition.
pub enum Command {
    /// Appends a record; the reply comes when the record is durable.
    Append(Entry, Option<RequestId>, Reply<u64>),
    /// Puts these rules in force if they differ from those in force, now and whenever this process takes over the
    /// log. The reply is the number of the record that holds them, or 0 if they do not differ.
    Rules(Box<RuleSet>, Reply<u64>),
    Ask(Question),
    /// Commits, writes a snapshot and ends the owner.
    Stop,
}

/// A closure that reads the engine. The owner runs it between two records.
pub type Question = Box<dyn FnOnce(&mut Inspect<'_>) + Send>;

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

/// Callback that receives each transition once it is durable.
pub type Publish = Box<dyn FnMut(&Transition) + Send>;

/// Sender of commands to an owner.
pub type Sender = SyncSender<Command>;

/// Creates the command channel of an owner before the owner exists, so that commands are accepted while the
/// process waits for its servers.
pub fn commands() -> (Sender, Receiver<Command>) {
    sync_channel(COMMANDS_WAITING)
}

/// The intake into the log of an owner in the same process. It blocks while the command queue is full.
impl Intake for Sender {
    fn append(&self, _partition: u32, entry: Entry, request: Option<RequestId>, reply: Reply<u64>) {
        // A failed send means that the owner has ended. The dropped reply then informs the caller.
        let _ = self.send(Command::Append(entry, request, reply));
    }
}

/// Reasons why an owner cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Snapshot(#[from] snapshot::RestoreError),
}
