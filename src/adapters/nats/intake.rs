//! Events and decisions that did not come through the broker: published to it, answered after its ack.

use super::{Cause, Settings, append, connect};
use crate::core::Timestamp;
use crate::core::partition::Partition;
use crate::driver::ports::{Entry, Intake, PortError, Reply, RequestId};
use crate::driver::worker::chain;
use crate::wire::subject::Subjects;
use async_nats::jetstream::Context;
use tokio::runtime::Handle;

/// The way into all partitions of a deployment.
pub struct Door {
    handle: Handle,
    context: Context,
    settings: Settings,
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
        Ok(Door { handle: Handle::current(), context, settings: settings.clone() })
    }
}

impl Intake for Door {
    fn append(&self, partition: u32, entry: Entry, request: Option<RequestId>, reply: Reply<u64>) {
        let count = self.settings.partition.count;
        let subjects = Subjects::new(&self.settings.root, Partition { index: partition, count });
        let context = self.context.clone();
        let id = request.map(|request| request.in_partition(partition));
        self.handle.spawn(async move {
            // One entry, one answer.
            let answer = append(&context, &subjects, vec![(entry, id)]).await.pop();
            reply(answer.unwrap_or(Ok(0)).map_err(|error| chain(&error)));
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
