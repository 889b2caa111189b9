//! Publishes what is committed: transitions under their numbers, and messages to the aggregate partition.

use super::SessionParts;
use super::{OwnerSession, RETRY_EVERY};
use crate::driver::ports::{
    Clock, OutboxEntry, Outlet, OwnerStore, PortError, PublishOutcome, TransitionLog,
};

impl OwnerSession {
    /// Publishes what is committed and not published yet. If `is_patient` is false, it makes one attempt and leaves
    /// the rest to a later call.
    pub(super) fn publish<F: TransitionLog + Outlet, S: OwnerStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        is_patient: bool,
    ) -> Result<(), PortError> {
        self.publish_transitions(parts, is_patient)?;
        self.post_partials(parts, is_patient)?;
        self.publish_shadows(parts)
    }

    /// Publishes transitions of `shadow: true` rules in one attempt. Those that fail are published after the next
    /// commit.
    fn publish_shadows<F: TransitionLog, S, C>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
    ) -> Result<(), PortError> {
        self.shadows.retain(|shadow| shadow.number > self.published.shadows);
        if self.shadows.is_empty() {
            return Ok(());
        }
        let put = parts.feed.shadow(&self.shadows)?;
        self.published.shadows =
            self.shadows[..put].last().map_or(self.published.shadows, |last| last.number);
        self.shadows.drain(..put);
        Ok(())
    }

    fn post_partials<F: TransitionLog, S: OwnerStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        is_patient: bool,
    ) -> Result<(), PortError> {
        loop {
            self.partials.retain(|message| message.number > self.published.partials);
            if self.partials.is_empty() {
                return Ok(());
            }
            let posted = parts.feed.post(&self.partials)?;
            let newest = self.partials[..posted].last().map(|message| message.number);
            self.published.partials = newest.unwrap_or(self.published.partials);
            parts.owner_metrics.posted.add(posted as u64);
            if posted < self.partials.len() {
                if !is_patient {
                    return Ok(());
                }
                self.wait_for_the_board(parts)?;
            }
        }
    }

    /// Counts a retry, renews the lease and waits before unacknowledged messages are sent again.
    fn wait_for_the_board<F, S: OwnerStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
    ) -> Result<(), PortError> {
        parts.owner_metrics.publish_retries.add(1);
        if parts.owner_metrics.outages.is_giving_up() {
            return Err(PortError::Stopping { place: "the broker".into() });
        }
        parts.clock.pause(RETRY_EVERY);
        self.keep_lease(parts)
    }

    fn publish_transitions<F: TransitionLog + Outlet, S: OwnerStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        is_patient: bool,
    ) -> Result<(), PortError> {
        while let Some(newest) = self.outbox.last().map(|transition| transition.number) {
            let placed = parts.feed.publish(&self.outbox)?;
            let mut unknown = Vec::new();
            let mut repeated: Option<(u64, u64)> = None;
            for (transition, placed) in std::mem::take(&mut self.outbox).into_iter().zip(placed) {
                match placed {
                    PublishOutcome::New => parts.owner_metrics.published.add(1),
                    PublishOutcome::There(text) => {
                        compare(&transition, &text)?;
                        parts.owner_metrics.suppressed.add(1);
                        repeated =
                            Some((repeated.map_or(transition.number, |(from, _)| from), transition.number));
                    }
                    PublishOutcome::Unknown => unknown.push(transition),
                }
            }
            if let Some((from, to)) = repeated {
                tracing::info!(from, to, "the transition log already holds these transitions");
            }
            self.published.alerts = unknown.first().map_or(newest, |oldest| oldest.number - 1);
            self.outbox = unknown;
            if self.outbox.is_empty() || !is_patient {
                return Ok(());
            }
            self.wait_for_the_board(parts)?;
        }
        Ok(())
    }
}

/// Checks that the published text is the one this worker would publish: equal logs give equal transitions.
fn compare(transition: &OutboxEntry, there: &str) -> Result<(), PortError> {
    if there == transition.json {
        return Ok(());
    }
    Err(PortError::Changed {
        place: format!("transition {}", transition.number),
        found: "another transition was published under this number".into(),
        hint: "two deployments share a stream, or the log was changed; nothing more is published",
    })
}
