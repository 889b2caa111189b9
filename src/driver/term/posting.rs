//! Publishes what is committed: transitions under their numbers, and messages to the aggregate partition.

use super::{RETRY_EVERY, Term};
use crate::driver::owner::Parts;
use crate::driver::ports::{Board, Clock, Numbered, Outlet, Placed, PortError, SharedStore};

impl Term {
    /// Publishes what is committed and not published yet. Without patience it makes one attempt and leaves
    /// the rest.
    pub(super) fn publish<F: Board + Outlet, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut Parts<F, S, C>,
        is_patient: bool,
    ) -> Result<(), PortError> {
        self.publish_transitions(parts, is_patient)?;
        self.post_parcels(parts, is_patient)?;
        self.publish_shadows(parts)
    }

    /// Publishes shadows without waiting: shadows that fail now are published after the next commit.
    fn publish_shadows<F: Board, S, C>(&mut self, parts: &mut Parts<F, S, C>) -> Result<(), PortError> {
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

    fn post_parcels<F: Board, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut Parts<F, S, C>,
        is_patient: bool,
    ) -> Result<(), PortError> {
        loop {
            self.parcels.retain(|parcel| parcel.number > self.published.parcels);
            if self.parcels.is_empty() {
                return Ok(());
            }
            let posted = parts.feed.post(&self.parcels)?;
            let newest = self.parcels[..posted].last().map(|parcel| parcel.number);
            self.published.parcels = newest.unwrap_or(self.published.parcels);
            parts.tally.posted.add(posted as u64);
            if posted < self.parcels.len() {
                if !is_patient {
                    return Ok(());
                }
                self.wait_for_the_board(parts)?;
            }
        }
    }

    /// Counts a retry, renews the lease and waits before unacknowledged messages are sent again.
    fn wait_for_the_board<F, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut Parts<F, S, C>,
    ) -> Result<(), PortError> {
        parts.tally.publish_retries.add(1);
        if parts.tally.outages.is_giving_up() {
            return Err(PortError::Stopping { place: "the broker".into() });
        }
        parts.clock.pause(RETRY_EVERY);
        self.keep_lease(parts)
    }

    fn publish_transitions<F: Board + Outlet, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut Parts<F, S, C>,
        is_patient: bool,
    ) -> Result<(), PortError> {
        while let Some(newest) = self.outbox.last().map(|transition| transition.number) {
            let placed = parts.feed.publish(&self.outbox)?;
            let mut unknown = Vec::new();
            let mut repeated: Option<(u64, u64)> = None;
            for (transition, placed) in std::mem::take(&mut self.outbox).into_iter().zip(placed) {
                match placed {
                    Placed::New => parts.tally.published.add(1),
                    Placed::There(text) => {
                        compare(&transition, &text)?;
                        parts.tally.suppressed.add(1);
                        repeated =
                            Some((repeated.map_or(transition.number, |(from, _)| from), transition.number));
                    }
                    Placed::Unknown => unknown.push(transition),
                }
            }
            if let Some((from, to)) = repeated {
                tracing::info!(from, to, "these transitions were on the board already");
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
fn compare(transition: &Numbered, there: &str) -> Result<(), PortError> {
    if there == transition.json {
        return Ok(());
    }
    Err(PortError::Changed {
        place: format!("transition {}", transition.number),
        found: "another one was published under its number".into(),
        hint: "two deployments share a stream, or the log was changed; nothing more is published",
    })
}
