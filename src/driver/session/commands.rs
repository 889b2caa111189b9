//! Commands to an owner: appends to its log, rules to put in force, and questions; and the ticks that it appends
//! itself.
//!
//! Invariant: where only this process appends to the log, a question is answered from a state that includes
//! everything whose append was acknowledged before.

use super::{COMMIT_EVERY, OwnerSession, SessionParts, TICK_EVERY, TICK_EVERY_WAITING, WAIT_MAX, Wanted};
use crate::core::Inspect;
use crate::core::record::Control;
use crate::core::rule::RuleSet;
use crate::driver::command::{Command, GROUP_MAX};
use crate::driver::port_error::chain;
use crate::driver::ports::{Clock, Entry, Feed, PortError, RequestId};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Time budget for questions in one step, so that records, ticks and commits come in between.
const ANSWERS_WITHIN: Duration = Duration::from_millis(5);

/// Longest wait for commands where only this process appends to the log.
const IDLE_MAX: Duration = Duration::from_millis(500);

/// Shortest wait for records. It prevents a busy loop while a tick is due but not appended yet.
const WAIT_MIN: Duration = Duration::from_millis(1);

impl OwnerSession {
    /// Takes the waiting commands. If only this process appends to the log, it waits for a command, because nothing
    /// else can arrive.
    pub(super) fn hear<F: Feed, S, C: Clock>(
        &self,
        parts: &SessionParts<F, S, C>,
        commands: &Receiver<Command>,
    ) -> Vec<Command> {
        let mut heard = Vec::new();
        if parts.feed.is_local() {
            match parts.clock.receive(commands, self.wait_for_commands(parts)) {
                Ok(command) => heard.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                // All senders are dropped, so no further command can arrive.
                Err(RecvTimeoutError::Disconnected) => heard.push(Command::Stop),
            }
        }
        heard.extend(commands.try_iter().take(GROUP_MAX - heard.len()));
        heard
    }

    /// Returns how long to wait for commands: until the next tick or commit.
    fn wait_for_commands<F: Feed, S, C: Clock>(&self, parts: &SessionParts<F, S, C>) -> Duration {
        if self.has_more() {
            return Duration::ZERO;
        }
        let tick = self.applier.tick_due().map_or(IDLE_MAX, |wake| parts.clock.until(wake));
        let commit = match self.applier.is_dirty() {
            true => COMMIT_EVERY.saturating_sub(parts.clock.running().saturating_sub(self.committed_at)),
            false => IDLE_MAX,
        };
        tick.max(self.time_to_tick(parts)).min(commit).min(IDLE_MAX)
    }

    /// Returns how long to wait for records: until the engine's wake-up, but at most `WAIT_MAX`.
    pub(super) fn wait_for_records<F: Feed, S, C: Clock>(&self, parts: &SessionParts<F, S, C>) -> Duration {
        if parts.feed.is_local() || self.has_more() {
            return Duration::ZERO;
        }
        let wake = self.applier.tick_due().map_or(WAIT_MAX, |wake| parts.clock.until(wake));
        wake.clamp(WAIT_MIN, WAIT_MAX)
    }

    /// Returns whether there is work to do even if no further record or command arrives.
    fn has_more(&self) -> bool {
        self.ahead.is_busy() || !self.questions.is_empty() || self.applier.taken() < self.appended
    }

    /// Returns whether no work is left: all records are applied, the wanted rules are in force, and no tick is due,
    /// or it was just tried. Wanted rules do not count while a clock jump is unconfirmed, because they cannot come
    /// into force then.
    pub(in crate::driver) fn is_idle<F: Feed, S, C: Clock>(&self, parts: &SessionParts<F, S, C>) -> bool {
        let is_tick_due = self.applier.tick_due().is_some_and(|wake| wake <= parts.clock.now());
        let is_ticking = is_tick_due && self.time_to_tick(parts).is_zero();
        let is_waiting = self.applier.jump().is_some();
        !self.has_more() && (self.rules.is_none() || is_waiting) && !is_ticking
    }

    pub(in crate::driver) fn inspect(&mut self) -> Inspect<'_> {
        Inspect::new(&mut self.applier.engine)
    }

    /// Returns whether rules wait to be appended.
    pub(in crate::driver) fn is_wanting_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// Puts these rules in force, once every record of the log is applied.
    pub(in crate::driver) fn want(&mut self, rules: RuleSet) {
        self.rules = Some(Wanted { rules, reply: None });
    }

    /// Carries out commands. Returns whether the session has to stop.
    pub(super) fn obey<F: Feed, S, C>(
        &mut self,
        heard: Vec<Command>,
        parts: &mut SessionParts<F, S, C>,
    ) -> bool {
        let (mut entries, mut replies, mut is_stop) = (Vec::new(), Vec::new(), false);
        for command in heard {
            match command {
                Command::Append(entry, request, reply) => {
                    entries.push((entry, request));
                    replies.push(reply);
                }
                Command::Rules(rules, reply) => {
                    parts.rules = Some((*rules).clone());
                    self.rules = Some(Wanted { rules: *rules, reply: Some(reply) });
                }
                Command::Ask(question) => self.questions.push_back(question),
                Command::Stop => is_stop = true,
            }
        }
        if !entries.is_empty() {
            for (result, reply) in self.append(entries, parts).into_iter().zip(replies) {
                reply(result.map_err(|error| chain(&error)));
            }
        }
        is_stop
    }

    fn append<F: Feed, S, C>(
        &mut self,
        entries: Vec<(Entry, Option<RequestId>)>,
        parts: &mut SessionParts<F, S, C>,
    ) -> Vec<Result<u64, PortError>> {
        let appended = parts.feed.append(entries, self.applier.engine.now());
        if let Some(Ok(newest)) = appended.last()
            && parts.feed.is_local()
        {
            self.appended = *newest;
        }
        appended
    }

    /// Answers questions within a time budget.
    pub(super) fn answer<F, S, C: Clock>(&mut self, parts: &SessionParts<F, S, C>) {
        let begun = parts.clock.running();
        while parts.clock.running().saturating_sub(begun) < ANSWERS_WITHIN
            && let Some(question) = self.questions.pop_front()
        {
            question(&mut Inspect::new(&mut self.applier.engine));
        }
    }

    /// Appends the wanted rules to the log if they differ from those in force, once every record of the log
    /// is applied.
    pub(super) fn want_rules<F: Feed, S, C>(&mut self, parts: &mut SessionParts<F, S, C>) {
        let Some(wanted) = self.rules.take_if(|_| self.applier.applied >= self.caught_up_at) else { return };
        let mut appended = Ok(0);
        if wanted.rules != *self.applier.engine.rules() {
            let entry = Entry::control(&Control::Rules(Box::new(wanted.rules.clone())));
            appended = self.append(vec![(entry, None)], parts).pop().unwrap_or(Ok(0));
        }
        match appended {
            Ok(seq) => {
                // The next wanted rules are compared with these, so these must be applied first.
                self.caught_up_at = self.caught_up_at.max(seq);
                wanted.reply.map(|reply| reply(Ok(seq))).unwrap_or_default();
            }
            Err(error) => {
                // The log may be unreachable. The append is tried again, because a session without rules raises no
                // alerts.
                tracing::debug!(error = %chain(&error), "cannot append the rules yet");
                self.rules = Some(wanted);
            }
        }
    }

    /// Appends a tick if the engine's wake-up is due and no record arrived.
    pub(super) fn tick<F: Feed, S, C: Clock>(&mut self, parts: &mut SessionParts<F, S, C>) {
        let wake = self.applier.tick_due();
        let is_due = wake.is_some_and(|wake| wake <= parts.clock.now());
        if !is_due || !self.time_to_tick(parts).is_zero() {
            return;
        }
        self.ticked_at = Some(parts.clock.running());
        parts.owner_metrics.ticks.add(1);
        for error in self.append(vec![(Entry::Tick, None)], parts).into_iter().filter_map(Result::err) {
            // The feed logs the outage.
            tracing::debug!(error = %chain(&error), "cannot append a tick");
        }
    }

    /// Returns how long to wait before the next tick may be appended.
    fn time_to_tick<F, S, C: Clock>(&self, parts: &SessionParts<F, S, C>) -> Duration {
        // While a clock jump is unconfirmed, the engine's time does not advance, so its wake-up stays due. One tick a
        // second is enough to confirm the jump.
        let is_slow = self.applier.jump().is_some() || parts.owner_metrics.outages.is_any();
        let every = if is_slow { TICK_EVERY_WAITING } else { TICK_EVERY } / parts.clock.speed();
        let past = self.ticked_at.map(|at| parts.clock.running().saturating_sub(at));
        past.map_or(Duration::ZERO, |past| every.saturating_sub(past))
    }
}
