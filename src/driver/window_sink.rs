//! Windows on their way out of a replay: corrected, written as lines.
//!
//! Intuition: a fifth of a replay is turning windows into text, and that needs nothing of the
//! engine. So the engine's thread only queues them; a thread that waits for input takes the queue.
//! Invariant: windows are carried out one at a time in the order they were queued, whoever does it;
//! when too many wait, the engine's thread does it itself. Rejected: a thread of its own (with
//! `--threads 2` it would be a third).

use super::replay::ReplayError;
use super::sealed::SealedWindows;
use crate::core::Span;
use crate::core::effect::WindowEffect;
use crate::core::pane::Pane;
use crate::core::window::WindowKey;
use crate::wire::window::WindowView;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Windows that may wait: at about 1 KiB each, 16 MiB.
const WAITING_MAX: usize = 16_384;

/// Takes windows in, lets lines out.
#[derive(Debug)]
pub struct WindowSink<'a> {
    /// Whether anybody reads the windows; otherwise none need come.
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
    /// `kept`: how long after its end a window may still be corrected.
    pub fn new(kept: Span, out: Option<Box<dyn Write + Send + 'a>>) -> WindowSink<'a> {
        let is_wanted = out.is_some();
        let outlet = Outlet { sealed: SealedWindows::new(kept), out };
        WindowSink { is_wanted, waiting: Mutex::default(), outlet: Mutex::new(outlet) }
    }

    /// Queues windows; with `is_alone` nobody else will carry them out.
    pub fn push(&self, batch: Vec<WindowEffect>, is_alone: bool) -> Result<(), ReplayError> {
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

    /// Carries out what waits, unless somebody is at it already.
    pub fn help(&self) {
        let Ok(mut outlet) = self.outlet.try_lock() else { return };
        if let Err(error) = self.carry_out(&mut outlet) {
            lock(&self.waiting).failed = Some(error);
        }
    }

    /// Carries out all that waits.
    pub fn drain(&self) -> Result<(), ReplayError> {
        let mut outlet = lock(&self.outlet);
        self.carry_out(&mut outlet)?;
        lock(&self.waiting).failed.take().map_or(Ok(()), Err)
    }

    /// Windows that are still open at the end of input; how many.
    pub fn open(&self, windows: impl Iterator<Item = (WindowKey, Pane)>) -> Result<u64, ReplayError> {
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
        self.out.as_mut().map_or(Ok(()), |out| super::replay::write_json(out, view))
    }
}

/// A thread that panicked ends the whole replay; what it held is not read any more.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
