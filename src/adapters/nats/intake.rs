//! Intake of events and decisions that clients send to this process instead of to the broker. The intake publishes
//! them to the broker, and answers the client after the broker's acknowledgement.

use super::{APPENDS, Cause, Settings, append, connect};
use crate::core::Timestamp;
use crate::core::vocab::partition::Partition;
use crate::driver::port_error::chain;
use crate::driver::ports::{Entry, Intake, PortError, Reply, RequestId};
use crate::wire::address::without_password;
use crate::wire::event::Codec;
use crate::wire::subject::Subjects;
use async_nats::jetstream::Context;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// Time between two probes of a log that accepts no appends.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Intake for all partitions of a deployment.
pub(crate) struct NatsIntake {
    handle: Handle,
    logs: Logs,
}

impl std::fmt::Debug for NatsIntake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("settings", &self.logs.settings).finish_non_exhaustive()
    }
}

impl NatsIntake {
    /// Connects in the background: an unreachable broker delays the appends, not this call.
    pub(crate) async fn open(settings: &Settings) -> Result<NatsIntake, PortError> {
        let context = super::context(connect(&settings.url, &settings.outages).await?);
        let logs = Logs { context, settings: settings.clone(), watched: Arc::default() };
        Ok(NatsIntake { handle: Handle::current(), logs })
    }
}

impl Intake for NatsIntake {
    fn append(&self, partition: u32, entry: Entry, request: Option<RequestId>, reply: Reply<u64>) {
        let id = request.map(|request| request.in_partition(partition));
        let logs = self.logs.clone();
        self.handle.spawn(async move {
            // `append` returns exactly one result for each entry, so `pop` returns the only one.
            let answer = append(&logs.context, &logs.subjects(partition), vec![(entry, id)]).await.pop();
            let is_refused = matches!(answer, Some(Err(_)));
            reply(answer.unwrap_or(Ok(0)).map_err(|error| chain(&error)));
            if is_refused {
                logs.watch(partition).await;
            }
        });
    }

    fn record_bytes_max(&self) -> Option<usize> {
        super::record_bytes_max(&self.logs.context)
    }

    fn is_stamped_elsewhere(&self) -> bool {
        true
    }

    fn read_stamp(&self, partition: u32, seq: u64, reply: Reply<Timestamp>) {
        let logs = self.logs.clone();
        self.handle.spawn(async move {
            let read = async {
                let name = logs.subjects(partition).events_stream();
                let stream = logs.context.get_stream_no_info(name).await?;
                let message = stream.get_raw_message(seq).await?;
                Ok::<_, Cause>(super::stamp(message.time.unix_timestamp_nanos()))
            };
            reply(read.await.map_err(|error| error.to_string()));
        });
    }
}

/// The logs of a deployment, and the partitions whose logs are probed because they refused an entry.
///
/// Intuition: a refused append may be an outage of the log, or the broker may have refused that entry because of its
/// content. A payload without events has no such content, so it is the probe. A process that owns no partition
/// appends only what clients send. While the outage lasts, the process is not ready, and clients use another process;
/// so without a probe it would not notice the end of the outage. Invariant: at most one probing task per partition,
/// which ends with the outage. Rejected: a tick as the probe (a log that keeps one message per subject can store a
/// tick in place of the previous one even when it is full).
#[derive(Debug, Clone)]
struct Logs {
    context: Context,
    settings: Settings,
    watched: Arc<Mutex<BTreeSet<u32>>>,
}

impl Logs {
    fn subjects(&self, partition: u32) -> Subjects {
        let count = self.settings.partition.count;
        Subjects::new(&self.settings.root, Partition { index: partition, count })
    }

    /// Probes the log until it accepts an append, and keeps the outage noted until then.
    async fn watch(self, partition: u32) {
        if !self.lock().insert(partition) {
            return;
        }
        let (subjects, place) = (self.subjects(partition), without_password(&self.settings.url));
        let (outages, of) = (&self.settings.outages, (APPENDS, partition));
        while let Some(Err(error)) = append(&self.context, &subjects, nothing()).await.pop() {
            // The error already names the stream, so only the broker's address is added.
            outages.begin_of(of, &place, &chain(&error));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        outages.end_of(of);
        self.lock().remove(&partition);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        // A set stays consistent even if a thread panics while it holds the lock.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A payload without events, which serves as the probe.
fn nothing() -> Vec<(Entry, Option<String>)> {
    vec![(Entry::Events(Codec::Json, b"[]".to_vec()), None)]
}
