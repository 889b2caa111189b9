//! The read-only view of the engine that servers and pages get.
//!
//! Intuition: an answer to a question must not depend on who asked before, nor change what the log says. Some
//! answers are computed as a grid point computes them, which fills caches, so they need the engine exclusively
//! although they change nothing of its state. Invariant: through this view no record can be applied; the
//! snapshot of the engine is the same before and after each of its methods.
//! Rejected: `&mut Engine` for readers (any handler could apply a record), and caches behind locks (the grid
//! point would pay for them).

use super::Engine;
use super::explain::{Explanation, Unexplained};
use crate::core::alert::Transition;
use crate::core::vocab::key::Key;
use std::ops::Deref;

/// An engine between two records, for reading. It has all methods of the engine that need no exclusive access,
/// and the ones here.
///
/// A reader cannot apply a record:
///
/// ```compile_fail,E0596
/// use streamgauge::core::{Effects, Inspect, vocab::identity::IdentityTable, record::Record};
/// fn handler(engine: &mut Inspect<'_>, record: &Record<'_>) {
///     engine.handle(record, &IdentityTable::default(), &mut Effects::default());
/// }
/// ```
///
/// It can read:
///
/// ```
/// use streamgauge::core::{Inspect, Timestamp};
/// fn handler(engine: &mut Inspect<'_>) -> (Timestamp, usize) {
///     (engine.now(), engine.active_alerts().len())
/// }
/// ```
#[derive(Debug)]
pub struct Inspect<'a>(&'a mut Engine);

impl Deref for Inspect<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.0
    }
}

impl<'a> Inspect<'a> {
    pub fn new(engine: &'a mut Engine) -> Inspect<'a> {
        Inspect(engine)
    }

    /// Explains one rule for one key, as of now.
    pub fn explain(&mut self, rule: &str, key: &Key) -> Result<Explanation, Unexplained> {
        self.0.explain(rule, key)
    }

    /// Returns the active alerts, pending ones included, in file order and key order, then those
    /// about the log itself.
    pub fn active_alerts(&mut self) -> Vec<Transition> {
        self.0.active_alerts()
    }

    /// Returns the active alerts of `shadow: true` rules.
    pub fn active_shadows(&mut self) -> Vec<Transition> {
        self.0.active_shadows()
    }

    /// Returns the active alerts of the rules from place `from` on, and the place at which the next page
    /// begins. A page ends with the rule that brings it to `max` alerts. Unless `is_shadow`, the first page
    /// also holds the alerts about the log itself.
    pub fn active_page(
        &mut self,
        from: usize,
        is_shadow: bool,
        max: usize,
    ) -> (Vec<Transition>, Option<usize>) {
        self.0.active_page(from, is_shadow, max)
    }
}
