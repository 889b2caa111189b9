//! Writes data for readers of the store outside of the commits: windows, silences and maintenance windows.
//!
//! Invariant: the data is written one piece at a time, so that memory does not grow with the number of
//! series, and Redis serves other requests between two pieces. Rejected: everything in one commit (a hundred
//! thousand open windows are copied, and copied again into a command, while the next records wait).

use super::{OwnerSession, RETRY_EVERY, SessionParts, chain};
use crate::core::measure::window::WindowSize;
use crate::driver::ports::{Answer, Asked, Clock, Commit, Fence, OwnerStore, PortError, Shown};
use crate::wire::asked;

/// Windows written together: 2,048 x about 0.5 KiB = 1 MiB.
const WINDOWS_AT_ONCE: usize = 2_048;

/// Writes the windows sealed since the last commit, ahead of the commit that holds them.
pub(super) fn sealed<F, S: OwnerStore, C: Clock>(
    parts: &mut SessionParts<F, S, C>,
    fence: &Fence,
    commit: &Commit,
) -> Result<(), PortError> {
    let mut catalog = commit.catalog.as_slice();
    for windows in commit.windows.chunks(WINDOWS_AT_ONCE) {
        show(parts, fence, Shown { catalog: std::mem::take(&mut catalog), windows, is_open: false })?;
    }
    Ok(())
}

/// Sends one piece until its outcome is known.
fn show<F, S: OwnerStore, C: Clock>(
    parts: &mut SessionParts<F, S, C>,
    fence: &Fence,
    shown: Shown<'_>,
) -> Result<(), PortError> {
    loop {
        match parts.store.show(fence, &shown)? {
            Answer::Done => return Ok(()),
            // A piece that was not written is not retried, because its windows are written again when they next
            // change.
            Answer::Failed => return Ok(()),
            Answer::Fenced => return Err(PortError::Fenced { place: "the store".into() }),
            Answer::Unknown => parts.owner_metrics.commit_retries.add(1),
        }
        if parts.owner_metrics.outages.is_giving_up() {
            return Err(PortError::Stopping { place: "the store".into() });
        }
        parts.clock.pause(RETRY_EVERY);
    }
}

impl OwnerSession {
    /// Writes the open windows of series with new values: 1m windows each time, 5m and 1h windows if
    /// `is_coarse`.
    pub(super) fn show_open<F, S: OwnerStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        touched: &[u32],
        is_coarse: bool,
    ) -> Result<(), PortError> {
        self.show_open_of(parts, touched, &[WindowSize::Minute])?;
        if is_coarse {
            let touched: Vec<u32> = std::mem::take(&mut self.touched).into_iter().collect();
            self.show_open_of(parts, &touched, &[WindowSize::FiveMinutes, WindowSize::Hour])?;
        }
        Ok(())
    }

    fn show_open_of<F, S: OwnerStore, C: Clock>(
        &self,
        parts: &mut SessionParts<F, S, C>,
        slots: &[u32],
        sizes: &[WindowSize],
    ) -> Result<(), PortError> {
        for slots in slots.chunks(WINDOWS_AT_ONCE / sizes.len()) {
            let windows = self.applier.open_windows(slots, sizes);
            show(parts, &self.fence, Shown { catalog: &[], windows: &windows, is_open: true })?;
        }
        Ok(())
    }

    /// Writes the silences and maintenance windows if they have changed. Each partition knows the same ones,
    /// so partition 0 alone writes them.
    pub(super) fn show_asked<F, S: OwnerStore, C>(&mut self, parts: &mut SessionParts<F, S, C>) {
        let change = self.applier.engine.mutes().changes;
        if parts.limits.partition.index > 0 || self.asked_shown == Some(change) {
            return;
        }
        for kind in Asked::ALL {
            let all = asked::all(&self.applier.engine, kind);
            let all: Vec<(String, String)> = all.into_iter().map(|(id, one)| (id, one.to_string())).collect();
            if let Err(error) = parts.store.show_asked(kind, &all) {
                // The write is tried again after the next commit.
                tracing::debug!(error = %chain(&error), "cannot write silences or maintenance windows");
                return;
            }
        }
        self.asked_shown = Some(change);
    }
}
