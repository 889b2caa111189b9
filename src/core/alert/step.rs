//! One step of the alert state machine.

use super::*;
use crate::core::rule::Rule;

/// The result of a step.
#[derive(Debug, Default, PartialEq)]
pub struct Stepped {
    /// The changes to publish: first a change of level or an end, then an expired acknowledgement, then an
    /// escalation. A terminal change comes alone.
    pub changes: Vec<Change>,
    /// How late an escalation step was taken, if that is worth reporting.
    pub overdue: Option<Span>,
    /// The next instant at which time alone may change the state.
    pub look_again: Option<Timestamp>,
}

impl Instance {
    /// Applies the observation at grid point `at`. `counted`: the part of the time since the last step that
    /// counts for timers, which excludes interruptions of the log.
    pub fn step(&mut self, rule: &Rule, observation: Observation, at: Timestamp, counted: Span) -> Stepped {
        self.count(counted, at - self.seen_at);
        self.seen_at = at;
        let mut changes = Vec::new();
        match self.effective(rule, observation) {
            Observation::Known { value, met, reset } => {
                self.see(value, met);
                self.known(rule, met, reset, at, &mut changes);
            }
            Observation::Unknown(reason) => self.unknown(rule, reason, at, &mut changes),
            Observation::Gone => self.gone(StaleCause::Forgotten, &mut changes),
        }
        self.expire_ack(at, &mut changes);
        let overdue = self.escalate(rule, at, &mut changes);
        Stepped { look_again: self.look_again(rule, at), overdue, changes }
    }

    /// Ends the episode because its rule was removed or now judges something else.
    pub fn end_by_rule(&mut self) -> Option<Change> {
        let mut changes = Vec::new();
        self.gone(StaleCause::RuleChanged, &mut changes);
        changes.pop()
    }

    /// Acknowledges a firing alert.
    pub fn acknowledge(
        &mut self,
        by: &str,
        why: &str,
        until: Option<Timestamp>,
        at: Timestamp,
    ) -> Option<Change> {
        let since = at - self.seen_at;
        let Phase::Firing(firing) = &mut self.phase else { return None };
        let level = firing.level;
        if firing.ack.is_none() {
            firing.unattended += since;
        }
        firing.ack = Some(Acknowledged { by: by.into(), why: why.into(), until, level });
        Some(Change::Acknowledged)
    }

    /// Removes the acknowledgement of a firing alert.
    pub fn unacknowledge(&mut self, at: Timestamp) -> Option<Change> {
        let since = at - self.seen_at;
        let Phase::Firing(firing) = &mut self.phase else { return None };
        if firing.ack.is_some() {
            // The next step adds all of the time since the last one, so the acknowledged part is
            // subtracted here.
            firing.unattended = firing.unattended - since;
        }
        firing.ack.take().map(|_| Change::Unacknowledged)
    }

    /// Advances the timers by the time that the last observation held.
    fn count(&mut self, counted: Span, passed: Span) {
        if let Phase::Firing(firing) = &mut self.phase
            && firing.ack.is_none()
        {
            firing.unattended += passed;
        }
        if let Some((reason, _)) = self.unknown {
            self.unknown_for += if reason == Unknown::Suspended { Span::ZERO } else { counted };
            return;
        }
        for level in (0..LEVELS_MAX).filter(|level| self.met.has(*level)) {
            self.met_for[level] += counted;
        }
        if let Phase::Firing(firing) = &mut self.phase
            && firing.held.is_empty()
        {
            firing.not_met_for += counted;
        }
    }

    /// Returns the observation that applies. With `on_unknown: fire`, unknown counts as met at the lowest
    /// level until the alert fires. A firing alert that is not met only because an operand that it waited for
    /// was forgotten has not recovered, so its observation is `Gone`.
    fn effective(&self, rule: &Rule, observation: Observation) -> Observation {
        match observation {
            Observation::Known { met: Levels::NONE, .. }
                if matches!((&self.phase, self.unknown), (Phase::Firing(_), Some((Unknown::Unseen, _)))) =>
            {
                Observation::Gone
            }
            Observation::Unknown(reason)
                if rule.on_unknown == OnUnknown::Fire
                    && reason.may_fire()
                    && !matches!(self.phase, Phase::Firing(_)) =>
            {
                Observation::Known { value: f64::NAN, met: Levels::up_to(0), reset: Levels::NONE }
            }
            other => other,
        }
    }

    /// Takes the escalation steps that are due. Several steps that are overdue together are one change. An
    /// ended alert takes none.
    fn escalate(&mut self, rule: &Rule, at: Timestamp, changes: &mut Vec<Change>) -> Option<Span> {
        let policy = rule.escalation.as_ref()?;
        let Phase::Firing(firing) = &mut self.phase else { return None };
        let due = policy.due(firing.unattended, at, firing.steps);
        if firing.ack.is_some() || due <= firing.steps {
            return None;
        }
        let overdue = policy.overdue(firing.steps, firing.unattended);
        firing.steps = due;
        changes.push(Change::Escalated);
        overdue
    }

    fn see(&mut self, value: f64, met: Levels) {
        self.unknown = None;
        self.unknown_for = Span::ZERO;
        self.value = value;
        self.met = met;
        if !met.is_empty() {
            self.met_value = value;
        }
        for level in (0..LEVELS_MAX).filter(|level| !met.has(*level)) {
            self.met_for[level] = Span::ZERO;
        }
    }

    fn known(&mut self, rule: &Rule, met: Levels, reset: Levels, at: Timestamp, changes: &mut Vec<Change>) {
        let full = self.full_level(rule, met);
        match &mut self.phase {
            Phase::Firing(firing) => {
                let (change, is_unheard) = (firing.judge(rule, met, reset, full), firing.is_unheard);
                if matches!(change, Some(Change::Resolved)) {
                    self.end(rule.cooldown, is_unheard, at);
                }
                changes.extend(change);
            }
            Phase::Inactive | Phase::Pending => {
                let steps = rule.escalation.as_ref().map_or(0, |policy| policy.due(Span::ZERO, at, 0));
                self.not_firing(met, full, (at, steps), changes);
            }
        }
    }

    /// Returns the highest met level that has been met for its `pending_for`.
    fn full_level(&self, rule: &Rule, met: Levels) -> Option<usize> {
        let is_full =
            |level: &usize| met.has(*level) && self.met_for[*level] >= rule.levels[*level].pending_for;
        (0..rule.levels.len()).rev().find(is_full)
    }

    fn not_firing(
        &mut self,
        met: Levels,
        full: Option<usize>,
        (at, steps): (Timestamp, usize),
        changes: &mut Vec<Change>,
    ) {
        if met.is_empty() {
            self.phase = Phase::Inactive;
            return;
        }
        if self.phase == Phase::Inactive {
            self.phase = Phase::Pending;
            self.started_at = at;
        }
        let is_cooling = self.cooldown_until.is_some_and(|until| at < until);
        if let Some(level) = full
            && !is_cooling
        {
            self.cooldown_until = None;
            self.phase = Phase::Firing(Firing::begin(level, at, steps));
            changes.push(Change::Firing);
        }
    }

    fn unknown(&mut self, rule: &Rule, reason: Unknown, at: Timestamp, changes: &mut Vec<Change>) {
        let since = self.unknown.map_or(at, |(_, since)| since);
        self.unknown = Some((reason, since));
        match &self.phase {
            Phase::Pending if self.unknown_for > pending_unknown_max(rule) => {
                self.phase = Phase::Inactive;
                self.forget_timers();
            }
            Phase::Firing(firing) if clear_after(rule).is_some_and(|max| self.unknown_for > max) => {
                self.end(rule.cooldown, firing.is_unheard, at);
                changes.push(Change::Stale(StaleCause::UnknownTooLong(reason)));
            }
            _ => {}
        }
    }

    /// Ends an episode whose condition can no longer be evaluated. The alert becomes inactive without a recovery
    /// or cooldown; if it was firing, a `Stale` change is emitted.
    fn gone(&mut self, cause: StaleCause, changes: &mut Vec<Change>) {
        if matches!(self.phase, Phase::Firing(_)) {
            changes.push(Change::Stale(cause));
        }
        self.phase = Phase::Inactive;
        self.cooldown_until = None;
        self.forget_timers();
    }

    /// Ends an episode and starts its cooldown, unless the episode was never notified.
    fn end(&mut self, cooldown: Span, is_unheard: bool, at: Timestamp) {
        self.phase = Phase::Inactive;
        self.cooldown_until = (cooldown.is_positive() && !is_unheard).then(|| at + cooldown);
        self.forget_timers();
    }

    fn forget_timers(&mut self) {
        self.met = Levels::NONE;
        self.met_for = [Span::ZERO; LEVELS_MAX];
        self.unknown = None;
        self.unknown_for = Span::ZERO;
    }

    fn expire_ack(&mut self, at: Timestamp, changes: &mut Vec<Change>) {
        if let Phase::Firing(firing) = &mut self.phase
            && firing.ack.as_ref().and_then(|ack| ack.until).is_some_and(|until| until <= at)
        {
            firing.ack = None;
            changes.push(Change::Unacknowledged);
        }
    }

    /// Returns when time alone may change the state, if nothing new is observed until then.
    fn look_again(&self, rule: &Rule, at: Timestamp) -> Option<Timestamp> {
        let over = |max: Span| at + (max - self.unknown_for) + Span::MILLISECOND;
        let pending_left = |level: &usize| {
            let left = rule.levels[*level].pending_for - self.met_for[*level];
            left.is_positive().then(|| at + left)
        };
        match (&self.phase, self.unknown) {
            (Phase::Inactive, _) => self.cooldown_until.filter(|until| *until > at),
            (Phase::Pending, Some(_)) => Some(over(pending_unknown_max(rule))),
            (Phase::Pending, None) => {
                let met = (0..rule.levels.len()).filter(|level| self.met.has(*level));
                let cooling = self.cooldown_until.filter(|until| *until > at);
                met.filter_map(|level| pending_left(&level)).chain(cooling).min()
            }
            (Phase::Firing(firing), unknown) => {
                let ack = firing.ack.as_ref().and_then(|ack| ack.until);
                let policy = rule.escalation.as_ref().filter(|_| firing.ack.is_none());
                let next = policy.and_then(|policy| policy.next(firing.steps, firing.unattended, at));
                let timer = match unknown {
                    Some(_) => clear_after(rule).map(over),
                    None if firing.held.is_empty() => Some(at + (rule.keep_firing_for - firing.not_met_for)),
                    None => {
                        let higher = firing.level + 1..rule.levels.len();
                        higher.filter(|level| self.met.has(*level)).filter_map(|l| pending_left(&l)).min()
                    }
                };
                timer.into_iter().chain(ack).chain(next.map(|left| at + left)).min()
            }
        }
    }
}

impl Firing {
    /// Moves the alert between its levels, or resolves it.
    fn judge(&mut self, rule: &Rule, met: Levels, reset: Levels, full: Option<usize>) -> Option<Change> {
        for level in 0..=self.level {
            if met.has(level) {
                self.held = self.held.with(level);
            } else if reset.has(level) {
                self.held = self.held.without(level);
            }
        }
        if let Some(level) = full.filter(|level| *level > self.level) {
            return Some(self.rise(level));
        }
        let Some(highest_held) = self.held.highest() else {
            return (self.not_met_for >= rule.keep_firing_for).then_some(Change::Resolved);
        };
        self.not_met_for = Span::ZERO;
        if highest_held < self.level {
            self.level = highest_held;
            return Some(Change::Fall);
        }
        None
    }

    /// Raises the alert to a level, and removes an acknowledgement that was given at a lower level.
    fn rise(&mut self, level: usize) -> Change {
        self.level = level;
        self.highest = self.highest.max(level);
        self.held = Levels::up_to(level);
        self.not_met_for = Span::ZERO;
        if self.ack.as_ref().is_some_and(|ack| ack.level < level) {
            self.ack = None;
        }
        Change::Rise
    }
}
