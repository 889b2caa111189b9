//! The read-only view of the engine that servers and pages get.
//!
//! Intuition: a query must not depend on earlier queries, nor change what follows from the log. Some queries
//! evaluate rules as a grid point does. This fills caches, so it needs `&mut Engine` although it changes no state.
//! Invariant: through this view no record can be applied; the snapshot of the engine is the same before and
//! after each of its methods.
//! Rejected: `&mut Engine` for readers (any handler could apply a record), and caches behind locks (the grid
//! point would pay for them).

use super::Engine;
use super::explain::{Explanation, Unexplained};
use crate::core::alert::Transition;
use crate::core::vocab::key::Key;
use std::ops::Deref;

/// An engine between two records, for reading. It has the methods of [`Engine`] that take `&self`, and the
/// methods below.
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

    /// Explains one rule for one key, as of the newest grid point.
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

    /// Returns the active alerts of the rules from index `from` on, and the index of the first rule of the next
    /// page. A page ends after the rule with which it reaches `max` alerts. Unless `is_shadow`, the first page
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
