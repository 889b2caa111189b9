//! Renewal of the lease while a single record or commit takes long.
//!
//! Intuition: a record of 1 MiB may correct 50,000 windows. An owner that loses its lease over such a record leaves
//! the record to the next owner, which loses its lease as well. Invariant: the work between two checks of the lease
//! is bounded: one request for windows, one record in the engine, or one Redis script. Rejected: a thread that renews
//! the lease (it would keep the partition for an owner that hangs).

use crate::core::measure::pane::Shape;
use crate::driver::mutant::{self, Mutant};
use crate::driver::ports::{Checkpoint, Clock, Fence, OwnerStore, PortError, Store, WindowAt, WindowRow};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Renews the lease. Returns the time of the next renewal.
pub(super) fn renewed<S: OwnerStore, C: Clock>(
    store: &mut S,
    clock: &C,
    fence: &Fence,
    lease: Duration,
) -> Result<Duration, PortError> {
    let now = clock.running();
    match store.renew(fence) {
        Ok(true) => Ok(now + lease / 3),
        Ok(false) if mutant::is(Mutant::IgnoreFence) => Ok(now + lease / 3),
        Ok(false) => Err(PortError::Fenced { place: "the lease".into() }),
        // The store may still hold the lease once it is reachable again.
        Err(PortError::Away { .. }) => Ok(now + super::RETRY_EVERY),
        Err(error) => Err(error),
    }
}

/// The store for reads while a record is applied. A read first renews the lease if the record has taken a third of
/// the lease.
pub(super) struct RenewingStore<'a, S, C> {
    store: RefCell<&'a mut S>,
    clock: &'a C,
    fence: &'a Fence,
    lease: Duration,
    /// The earliest time of the next renewal.
    renew_at: Cell<Duration>,
}

impl<'a, S: OwnerStore, C: Clock> RenewingStore<'a, S, C> {
    pub(super) fn new(
        store: &'a mut S,
        clock: &'a C,
        fence: &'a Fence,
        (lease, renew_at): (Duration, Duration),
    ) -> Self {
        let renew_at = Cell::new(renew_at.max(clock.running() + lease / 3));
        RenewingStore { store: RefCell::new(store), clock, fence, lease, renew_at }
    }
}

impl<S: OwnerStore, C: Clock> Store for RenewingStore<'_, S, C> {
    fn checkpoint(&self) -> Result<Checkpoint, PortError> {
        self.store.borrow().checkpoint()
    }

    fn windows(&self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError> {
        let mut store = self.store.borrow_mut();
        if self.clock.running() >= self.renew_at.get() {
            self.renew_at.set(renewed(*store, self.clock, self.fence, self.lease)?);
        }
        store.windows(wanted)
    }
}
