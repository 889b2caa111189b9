//! Starts a thread for each receiver.

use super::receivers::Receivers;
use crate::adapters::clock::{SteadyClock, SystemClock};
use crate::driver::ports::Clock;
use crate::driver::receivers::metrics::ReceiverMetrics;
use crate::driver::receivers::ports::{AlertFeed, NotificationLog, Others};
use crate::driver::receivers::{Order, Receiver, ReceiverRegistry, start};
use anyhow::Result;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// The threads of the receivers, and the channels to them.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    pub registry: ReceiverRegistry,
    threads: Vec<JoinHandle<()>>,
}

impl Telling {
    /// Starts all receivers. `make` returns the alert stream and the notification log of a receiver, and the access
    /// to the other receivers if some of them may run in other processes.
    pub(crate) fn start<F, L, C>(
        receivers: &Receivers,
        clock: C,
        mut make: impl FnMut(&str) -> Result<(F, L, Option<Box<dyn Others>>)>,
    ) -> Result<Telling>
    where
        F: AlertFeed + Send + 'static,
        L: NotificationLog + Send + 'static,
        C: Clock + Clone + Send + 'static,
    {
        let mut telling = Telling::default();
        let clock = SteadyClock::over(clock);
        // All channels are created first, so that an error in one is found before another has sent anything.
        let channels = receivers.all.iter().map(|receiver| receiver.channel(SystemClock::time));
        let mut channels = channels.collect::<Result<Vec<_>, _>>()?;
        let (senders, mut orders): (Vec<Sender<Order>>, Vec<_>) =
            receivers.all.iter().map(|_| channel()).unzip();
        for (at, receiver) in receivers.all.iter().enumerate().rev() {
            let name = &receiver.policy.name;
            let others = senders.iter().enumerate().filter(|(other, _)| *other != at);
            let here: Vec<Sender<Order>> = others.map(|(_, sender)| sender.clone()).collect();
            let post = Arc::new(ReceiverMetrics::new(name.clone()));
            let (feed, notification_log, beyond) = make(name)?;
            let (Some(orders), Some(channel)) = (orders.pop(), channels.pop()) else { break };
            let is_alone = beyond.is_none();
            let thread = start(Receiver {
                policy: receiver.policy.clone(),
                routes: receivers.routes.clone(),
                max_age: receiver.max_age,
                feed,
                notification_log,
                channel,
                clock: clock.clone(),
                post: post.clone(),
                orders,
                others: beyond.unwrap_or_else(|| Box::new(here)),
                is_alone,
            })?;
            telling.threads.push(thread);
            telling.registry.add(post, senders[at].clone());
        }
        Ok(telling)
    }

    /// Stops all receivers; a message that is being sent is finished.
    pub(crate) fn stop(self) {
        self.registry.stop();
        // A panic of one receiver must not keep the others from stopping.
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}
