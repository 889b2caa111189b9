//! Output of the windows of a replay: corrections are merged into their windows, and windows are written as lines.
//!
//! Intuition: a fifth of the time of a replay turns windows into text, and that needs nothing of the engine.
//! So the engine's thread only queues them, and a thread that waits for input empties the queue. Invariant:
//! windows are written one at a time in the order they were queued, whichever thread writes them; when too
//! many wait, the engine's thread writes them itself. Rejected: a dedicated thread (with `--threads 2` it
//! would be a third).

use super::replay_output::{ReplayError, write_json};
use super::sealed::SealedWindows;
use crate::core::Span;
use crate::core::effect::WindowEffect;
use crate::core::measure::pane::Pane;
use crate::core::measure::window::WindowKey;
use crate::wire::window::WindowView;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Windows that may wait in the queue: at about 1 KiB each, 16 MiB.
const WAITING_MAX: usize = 16_384;

/// A queue of windows and the writer of their lines.
#[derive(Debug)]
pub(crate) struct WindowSink<'a> {
    /// Whether there is an output for the windows. If not, they need not be pushed.
    pub is_wanted: bool,
    waiting: Mutex<Waiting>,
    outlet: Mutex<Outlet<'a>>,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Vec<WindowEffect>>,
    windows: usize, // in all batches
    failed: Option<ReplayError>,
}

struct Outlet<'a> {
    sealed: SealedWindows,
    out: Option<Box<dyn Write + Send + 'a>>,
}

impl std::fmt::Debug for Outlet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").field("out", &self.out.is_some()).finish_non_exhaustive()
    }
}

impl<'a> WindowSink<'a> {
    /// Creates a sink. `kept` says how long after its end a window may still be corrected.
    pub(crate) fn new(kept: Span, out: Option<Box<dyn Write + Send + 'a>>) -> WindowSink<'a> {
        let is_wanted = out.is_some();
        let outlet = Outlet { sealed: SealedWindows::new(kept), out };
        WindowSink { is_wanted, waiting: Mutex::default(), outlet: Mutex::new(outlet) }
    }

    /// Queues windows. With `is_alone` no other thread writes them, so this call does.
    pub(crate) fn push(&self, batch: Vec<WindowEffect>, is_alone: bool) -> Result<(), ReplayError> {
        let mut waiting = lock(&self.waiting);
        if let Some(error) = waiting.failed.take() {
            return Err(error);
        }
        waiting.windows += batch.len();
        waiting.batches.push_back(batch);
        let is_crowded = waiting.windows > WAITING_MAX;
        drop(waiting);
        if is_alone || is_crowded { self.drain() } else { Ok(()) }
    }

    /// Writes the queued windows, unless another thread is writing already.
    pub(crate) fn help(&self) {
        let Ok(mut outlet) = self.outlet.try_lock() else { return };
        if let Err(error) = self.carry_out(&mut outlet) {
            lock(&self.waiting).failed = Some(error);
        }
    }

    /// Writes all queued windows.
    pub(crate) fn drain(&self) -> Result<(), ReplayError> {
        let mut outlet = lock(&self.outlet);
        self.carry_out(&mut outlet)?;
        lock(&self.waiting).failed.take().map_or(Ok(()), Err)
    }

    /// Writes the windows that are still open at the end of input. Returns their number.
    pub(crate) fn open(&self, windows: impl Iterator<Item = (WindowKey, Pane)>) -> Result<u64, ReplayError> {
        self.drain()?;
        let mut outlet = lock(&self.outlet);
        let mut count = 0;
        for (key, pane) in windows {
            count += 1;
            outlet.line(&WindowView::new(&key, &pane, 0, true))?;
        }
        outlet.out.as_mut().map_or(Ok(()), |out| out.flush()).map_err(ReplayError::Output)?;
        Ok(count)
    }

    fn carry_out(&self, outlet: &mut Outlet<'_>) -> Result<(), ReplayError> {
        loop {
            let batch = {
                let mut waiting = lock(&self.waiting);
                let Some(batch) = waiting.batches.pop_front() else { return Ok(()) };
                waiting.windows -= batch.len();
                batch
            };
            batch.iter().try_for_each(|window| outlet.window(window))?;
        }
    }
}

impl Outlet<'_> {
    fn window(&mut self, window: &WindowEffect) -> Result<(), ReplayError> {
        match window {
            WindowEffect::Sealed(sealed) => {
                self.sealed.keep(sealed).map_err(ReplayError::Temporary)?;
                self.line(&WindowView::new(&sealed.key, &sealed.pane, 0, false))
            }
            WindowEffect::Correction(correction) => {
                let (pane, revision) = self.sealed.correct(correction).map_err(ReplayError::Temporary)?;
                self.line(&WindowView::new(&correction.key, &pane, revision, false))
            }
        }
    }

    fn line(&mut self, view: &WindowView) -> Result<(), ReplayError> {
        self.out.as_mut().map_or(Ok(()), |out| write_json(out, view))
    }
}

/// Locks a mutex even if it is poisoned. A thread that panicked ends the whole replay, so the data it held is
/// not read again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
