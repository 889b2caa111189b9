//! The thread of one receiver.

use super::Attempts;
use super::metrics::ReceiverMetrics;
use super::ports::{AlertFeed, Channel, Failure, NotificationLog, Others, Written};
use super::self_alerts;
use crate::core::alert::Transition;
use crate::core::notify::{Inbox, Message, Policy, Routes, Why};
use crate::core::{Span, Timestamp};
use crate::driver::monitor::RULES;
use crate::driver::ports::{Clock, PortError};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Orders, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Maximum time between two reads of the alert stream and of the orders.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Time between two attempts to acquire a lease, or to reach a store or broker that is unreachable.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// Maximum messages sent before the alert stream is read again.
const SENT_AT_ONCE: usize = 64;

/// Maximum alerts from [`Order::Tell`] that are kept while they cannot be persisted: several times a beginning and an
/// end of each rule of the partition monitor.
const UNWRITTEN_MAX: usize = 64;

/// Base of the numbers of transitions that are in no stream; greater than any stream number.
const BESIDE: u64 = 1 << 62;

/// An order to a receiver's thread.
#[derive(Debug)]
pub enum Order {
    /// Delivers an alert that is not in the alert stream.
    Tell(Box<Transition>),
    /// Sends the dead letters again; the reply is their number, or `None` if another process delivers.
    Redrive(Sender<Option<usize>>),
    Stop,
}

/// The other receivers of this process.
impl Others for Vec<Sender<Order>> {
    fn tell(&mut self, alert: &Transition) -> Result<(), PortError> {
        for other in self {
            // A receiver whose thread has ended needs no alert.
            let _ = other.send(Order::Tell(Box::new(alert.clone())));
        }
        Ok(())
    }
}

/// The parts of one receiver's thread.
pub struct Receiver<F, L, C> {
    pub policy: Policy,
    pub routes: Arc<Routes>,
    /// A message that has waited longer than this becomes a dead letter when an attempt fails.
    pub max_age: Span,
    pub feed: F,
    pub notification_log: L,
    pub channel: Box<dyn Channel>,
    pub clock: C,
    pub post: Arc<ReceiverMetrics>,
    pub orders: Orders<Order>,
    /// The other receivers, which are notified of this one's dead letters.
    pub others: Box<dyn Others>,
    /// Whether the alerts of the partition monitor come from this process alone and are not in the alert stream.
    /// Those of an earlier process then end at the start, because no other process can end them.
    pub is_alone: bool,
}

impl<F, L, C> std::fmt::Debug for Receiver<F, L, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Starts the thread. It ends with [`Order::Stop`], or when all senders of orders are dropped.
pub fn start<F, L, C>(receiver: Receiver<F, L, C>) -> std::io::Result<JoinHandle<()>>
where
    F: AlertFeed + Send + 'static,
    L: NotificationLog + Send + 'static,
    C: Clock + Send + 'static,
{
    let name = format!("notify-{}", receiver.policy.name);
    std::thread::Builder::new().name(name).spawn(move || ReceiverWorker::new(receiver).run())
}

/// Why a session ended.
enum Over {
    Stopped,
    /// Another process has the lease.
    Fenced,
}

struct ReceiverWorker<F, L, C> {
    parts: Receiver<F, L, C>,
    attempts: Attempts,
    /// The time on the running clock before which no message is sent.
    rest_until: Duration,
    beside: u64,
    /// Whether an earlier session of this process has read the notification log.
    has_begun: bool,
    /// Whether the order to stop came between two messages.
    is_stopping: bool,
    /// Alerts from [`Order::Tell`] that are not persisted yet.
    unwritten: Vec<Transition>,
}

impl<F: AlertFeed, L: NotificationLog, C: Clock> ReceiverWorker<F, L, C> {
    fn new(parts: Receiver<F, L, C>) -> ReceiverWorker<F, L, C> {
        ReceiverWorker {
            parts,
            attempts: Attempts::default(),
            rest_until: Duration::ZERO,
            beside: BESIDE,
            has_begun: false,
            is_stopping: false,
            unwritten: Vec::new(),
        }
    }

    fn run(mut self) {
        loop {
            match self.turn() {
                Ok(Over::Stopped) => return self.parts.notification_log.release(),
                Ok(Over::Fenced) => {}
                Err(PortError::Away { .. }) => {}
                Err(error) => self.parts.post.get_stuck(&error),
            }
            self.parts.post.is_here.set(0);
            self.attempts = Attempts::default();
            if self.is_stopped(RETRY_EVERY) {
                return;
            }
        }
    }

    /// Waits between two sessions for at most one order, and returns whether the thread has to stop. It declines a
    /// redrive, because this process may not have the lease.
    fn is_stopped(&mut self, wait: Duration) -> bool {
        match self.parts.orders.recv_timeout(wait) {
            Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => true,
            Ok(Order::Redrive(reply)) => {
                let _ = reply.send(None);
                false
            }
            Ok(Order::Tell(alert)) => {
                self.keep(*alert);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
        }
    }

    /// Runs one session: from acquiring the lease to losing it.
    fn turn(&mut self) -> Result<Over, PortError> {
        if !self.parts.notification_log.acquire()? {
            return Ok(Over::Fenced);
        }
        let (policy, routes, now) =
            (self.parts.policy.clone(), self.parts.routes.clone(), self.parts.clock.now());
        let mut inbox = Inbox::new(policy, routes, self.parts.notification_log.load()?, now);
        self.beside = self.beside.max(inbox.last_number());
        if self.parts.is_alone && !std::mem::replace(&mut self.has_begun, true) {
            self.end_earlier(&mut inbox, now);
        }
        for alert in std::mem::take(&mut self.unwritten) {
            self.obey(&mut inbox, alert);
        }
        self.parts.post.is_here.set(1);
        let (mut wait, mut newest) = (Duration::ZERO, now);
        loop {
            if self.is_stopping || self.is_ordered_to_stop(&mut inbox) {
                return Ok(Over::Stopped);
            }
            let now = self.parts.clock.now();
            if now < newest {
                inbox.set_back(now);
            }
            newest = now;
            if !self.take_in(&mut inbox, wait)? {
                return Ok(Over::Fenced);
            }
            self.tell_others(&mut inbox)?;
            if !self.send(&mut inbox)? {
                return Ok(Over::Fenced);
            }
            self.parts.post.goes_on();
            wait = self.wait(&inbox);
            self.show(&inbox);
        }
    }

    /// Ends the monitor alerts of an earlier process. The monitor of this process publishes those that still hold
    /// again.
    fn end_earlier(&mut self, inbox: &mut Inbox, now: Timestamp) {
        let of_sentinel = |alert: &&Transition| alert.is_active() && RULES.contains(&&*alert.rule);
        let earlier: Vec<Transition> = inbox.alerts().filter(of_sentinel).cloned().collect();
        for alert in earlier {
            self.beside += 1;
            let reason = "the process has restarted and publishes the alerts that still hold again";
            inbox.take_in(self.beside, alert.over(reason.into(), now), now);
        }
    }

    /// Adds an alert from [`Order::Tell`] to the inbox.
    fn obey(&mut self, inbox: &mut Inbox, alert: Transition) {
        self.beside += 1;
        inbox.take_in(self.beside, alert.clone(), self.parts.clock.now());
        self.keep(alert);
    }

    /// Keeps an alert from [`Order::Tell`] until it is persisted. Without `is_alone` nothing is kept, because the
    /// process that has the lease gets its own orders.
    fn keep(&mut self, alert: Transition) {
        if self.parts.is_alone && !self.unwritten.contains(&alert) {
            if self.unwritten.len() >= UNWRITTEN_MAX {
                self.unwritten.remove(0);
            }
            self.unwritten.push(alert);
        }
    }

    fn is_ordered_to_stop(&mut self, inbox: &mut Inbox) -> bool {
        loop {
            match self.parts.orders.try_recv() {
                Ok(Order::Stop) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return true,
                Err(std::sync::mpsc::TryRecvError::Empty) => return false,
                Ok(Order::Tell(alert)) => self.obey(inbox, *alert),
                Ok(Order::Redrive(reply)) => {
                    let _ = reply.send(Some(inbox.redrive(self.parts.clock.now())));
                    self.rest_until = Duration::ZERO;
                }
            }
        }
    }

    /// Reads the stream into the inbox; returns `false` if another process has the lease now.
    fn take_in(&mut self, inbox: &mut Inbox, wait: Duration) -> Result<bool, PortError> {
        if inbox.is_full() {
            self.parts.clock.pause(wait);
            return self.write(inbox);
        }
        let batch = match self.parts.feed.next(inbox.position(), wait) {
            Ok(batch) => batch,
            Err(error) => {
                // An alert from an order may report this very failure, so it is sent before the error is returned.
                if self.write(inbox)? {
                    self.send(inbox)?;
                }
                return Err(error);
            }
        };
        let now = self.parts.clock.now();
        if let Some(number) = batch.restart {
            let (receiver, known) = (&*self.parts.policy.name, inbox.position());
            tracing::warn!(
                receiver,
                known,
                number,
                "the alert stream ends before the receiver's position: it was recreated or restored from an \
                 older copy; the notifier continues with new transitions"
            );
            inbox.restart(number);
        }
        for (number, json) in &batch.alerts {
            match serde_json::from_str(json) {
                Ok(alert) if self_alerts::is_about(&alert, &self.parts.policy.name) => inbox.pass(*number),
                Ok(alert) => inbox.absorb(*number, alert, now),
                // Another program wrote this record; it is not an alert.
                Err(error) => {
                    tracing::warn!(number, %error, "the message is not an alert; the notifier skips it");
                    inbox.pass(*number);
                }
            }
        }
        if batch.is_end && inbox.caught_up() {
            let (receiver, (following, _)) = (&*self.parts.policy.name, inbox.sizes());
            tracing::info!(
                receiver,
                following,
                "the notification log of this receiver is empty; the notifier sends the alerts that fire now"
            );
        }
        let is_here = self.write(inbox)?;
        self.parts.feed.done();
        Ok(is_here)
    }

    fn write(&mut self, inbox: &mut Inbox) -> Result<bool, PortError> {
        let written = self.parts.notification_log.write(&inbox.changes())?;
        self.unwritten.clear();
        Ok(written == Written::Done)
    }

    /// Sends the messages that are due, until one has to wait; returns `false` if another process has the
    /// lease now.
    fn send(&mut self, inbox: &mut Inbox) -> Result<bool, PortError> {
        for _ in 0..SENT_AT_ONCE {
            if self.parts.clock.running() < self.rest_until {
                return Ok(true);
            }
            // Sending a message may take long, so orders are read before each one. After the order to stop, no
            // message is sent.
            self.is_stopping |= self.is_ordered_to_stop(inbox);
            // An alert is persisted before it is sent. Otherwise, after a crash, its end would not be sent.
            if !self.write(inbox)? {
                return Ok(false);
            }
            if self.is_stopping {
                return Ok(true);
            }
            let Some(message) = inbox.next(self.parts.clock.now()) else { return Ok(true) };
            if self.parts.notification_log.hold(self.parts.channel.attempt_max())? == Written::Fenced {
                return Ok(false);
            }
            let sent = self.parts.channel.send(&message);
            let now = self.parts.clock.now();
            match sent {
                Ok(()) => self.arrived(inbox, &message, now),
                Err(Failure::Final { why }) => self.give_up(inbox, &message, &why, now),
                Err(Failure::Again { why, .. }) if now - message.since > self.parts.max_age => {
                    self.give_up(inbox, &message, &why, now);
                }
                Err(Failure::Again { why, after }) => self.rest(&why, after),
            }
            if !self.write(inbox)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn arrived(&mut self, inbox: &mut Inbox, message: &Message, now: Timestamp) {
        if self.attempts.failed > 0 {
            tracing::info!(
                receiver = %self.parts.policy.name,
                after = self.attempts.failed,
                "the receiver accepts messages again"
            );
        }
        self.attempts = Attempts::default();
        self.parts.post.delivered.add(1);
        if let (Why::News, Some(alert)) = (message.why, message.alerts.last()) {
            let since = |at: Timestamp| Duration::from_millis((now - at).ms().max(0) as u64);
            self.parts.post.times.add(since(alert.at));
            if let (0, Some(event_time)) = (alert.seq, alert.event_time) {
                self.parts.post.chain_times.add(since(event_time));
            }
        }
        if let Some(name) = self.parts.channel.named() {
            inbox.named(message, name);
        }
        inbox.sent(message, now);
    }

    fn give_up(&mut self, inbox: &mut Inbox, message: &Message, why: &str, now: Timestamp) {
        let name = &self.parts.policy.name;
        tracing::error!(
            receiver = %name,
            message_id = %message.id,
            %why,
            "the message becomes a dead letter; `streamgauge notify redrive` sends it again"
        );
        self.parts.post.given_up.add(1);
        inbox.give_up(message, why.into(), now);
    }

    fn rest(&mut self, why: &str, after: Option<Duration>) {
        let name = self.parts.policy.name.clone();
        let wait = self.attempts.fail(&name, after);
        self.parts.post.retried.add(1);
        if self.attempts.failed.is_power_of_two() {
            let failed = self.attempts.failed;
            tracing::warn!(receiver = %name, failed, ?wait, %why, "cannot deliver a message; retrying");
        }
        self.rest_until = self.parts.clock.running() + wait;
    }

    /// Sends the persisted notice about dead letters to the other receivers.
    fn tell_others(&mut self, inbox: &mut Inbox) -> Result<(), PortError> {
        let Some(notice) = inbox.untold() else { return Ok(()) };
        self.parts.others.tell(&self_alerts::undelivered(&self.parts.policy.name, notice))?;
        inbox.others_noticed();
        Ok(())
    }

    /// Returns the time until the next message may be due. It is at most [`LOOK_EVERY`], because each round
    /// also renews the lease.
    fn wait(&self, inbox: &Inbox) -> Duration {
        let clock = &self.parts.clock;
        let Some(due) = inbox.wake_at(clock.now()) else { return LOOK_EVERY };
        let rest = self.rest_until.saturating_sub(clock.running());
        clock.until(due).max(rest).min(LOOK_EVERY)
    }

    fn show(&self, inbox: &Inbox) {
        let post = &self.parts.post;
        let (following, waiting) = inbox.sizes();
        post.following.set(following as u64);
        post.waiting.set(waiting as u64);
        post.letters.set(inbox.letters().count() as u64);
        post.left_out.set(inbox.left_out);
        post.gone.set(inbox.gone);
        post.is_full.set(u64::from(inbox.is_full()));
        post.is_open.set(u64::from(self.attempts.is_open()));
    }
}
