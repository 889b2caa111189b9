//! Events and decisions that did not come through the broker: published to it, answered after its ack.

use super::{APPENDS, Cause, Settings, append, connect};
use crate::core::Timestamp;
use crate::core::partition::Partition;
use crate::driver::ports::{Entry, Intake, PortError, Reply, RequestId};
use crate::driver::worker::chain;
use crate::wire::event::Codec;
use crate::wire::subject::Subjects;
use async_nats::jetstream::Context;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// Time between two looks at a log that takes nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The way into all partitions of a deployment.
pub struct Door {
    handle: Handle,
    context: Context,
    settings: Settings,
    watch: Watch,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Door {
    /// Connects in the background: a broker that is away is waited for by whoever sends.
    pub async fn open(settings: &Settings) -> Result<Door, PortError> {
        let context = super::context(connect(&settings.url, &settings.outages).await?);
        let watch = Watch { context: context.clone(), settings: settings.clone(), watched: Arc::default() };
        Ok(Door { handle: Handle::current(), context, settings: settings.clone(), watch })
    }
}

impl Intake for Door {
    fn append(&self, partition: u32, entry: Entry, request: Option<RequestId>, reply: Reply<u64>) {
        let count = self.settings.partition.count;
        let subjects = Subjects::new(&self.settings.root, Partition { index: partition, count });
        let context = self.context.clone();
        let id = request.map(|request| request.in_partition(partition));
        let watch = self.watch.clone();
        self.handle.spawn(async move {
            // One entry, one answer.
            let answer = append(&context, &subjects, vec![(entry, id)]).await.pop();
            let is_refused = matches!(answer, Some(Err(_)));
            reply(answer.unwrap_or(Ok(0)).map_err(|error| chain(&error)));
            if is_refused {
                watch.look(partition).await;
            }
        });
    }

    fn is_stamped_elsewhere(&self) -> bool {
        true
    }

    fn read_stamp(&self, partition: u32, seq: u64, reply: Reply<Timestamp>) {
        let count = self.settings.partition.count;
        let subjects = Subjects::new(&self.settings.root, Partition { index: partition, count });
        let context = self.context.clone();
        self.handle.spawn(async move {
            let read = async {
                let stream = context.get_stream_no_info(subjects.events_stream()).await?;
                let message = stream.get_raw_message(seq).await?;
                Ok::<_, Cause>(super::stamp(message.time.unix_timestamp_nanos()))
            };
            reply(read.await.map_err(|error| error.to_string()));
        });
    }
}

/// Looks whether a log takes anything at all, after it refused something.
///
/// Intuition: one entry may be refused for what it is, but a payload without events never is. A process that owns
/// nothing appends only what it is sent, and whoever sends goes elsewhere while it is not ready, so it has to look by
/// itself. Invariant: one task a partition, which ends with the outage. Rejected: a tick, which takes the place of the
/// one before, for which there is room in a log that is full.
#[derive(Debug, Clone)]
struct Watch {
    context: Context,
    settings: Settings,
    watched: Arc<Mutex<BTreeSet<u32>>>,
}

impl Watch {
    async fn look(self, partition: u32) {
        if !self.lock().insert(partition) {
            return;
        }
        let count = self.settings.partition.count;
        let subjects = Subjects::new(&self.settings.root, Partition { index: partition, count });
        let (outages, of) = (&self.settings.outages, (APPENDS, partition));
        while let Some(Err(error)) = append(&self.context, &subjects, nothing()).await.pop() {
            outages.begin_of(of, &subjects.events_stream(), &chain(&error));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        outages.end_of(of);
        self.lock().remove(&partition);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        // A set is whole whatever its holder did.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A payload without events.
fn nothing() -> Vec<(Entry, Option<String>)> {
    vec![(Entry::Events(Codec::Json, b"[]".to_vec()), None)]
}
