//! Planted faults, by which the simulator shows that it can find faults.
//!
//! Each is a mistake that somebody could make in a line nearby. They are there only in builds with
//! the feature `mutants`, which the tests have; elsewhere every question is answered no when it is
//! compiled.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A stream that was deleted and made again passes for the old one.
    TakeAnyStream,
    /// A log that ends before what was applied passes.
    TakeCutLog,
    /// A log that was cut back and has grown again passes.
    TakeRefilledLog,
    /// A new consumer begins behind the next record.
    BeginOneLate,
    /// Messages that got lost on the way are not noticed.
    TrustConsumer,
    /// A record that comes again is applied again.
    TakeTwice,
    /// Transitions are published before they are committed.
    PublishFirst,
    /// Transitions count as published before they are.
    TrimFirst,
    /// An answer that is not known is taken for yes.
    UnknownIsDone,
    /// After an answer that is not known, other bytes are sent under the same version.
    NewBytes,
    /// Being fenced is not noticed.
    IgnoreFence,
    /// Effects that were committed before are committed again after a take-over.
    EffectsTwice,
    /// What an earlier owner left to be published is forgotten.
    ForgetOutbox,
    /// Records between the snapshot and the last commit are skipped.
    SkipTail,
    /// Rules are evaluated on the owner's clock.
    WallTime,
    /// Numbers of transitions go on from the board, not from the checkpoint.
    NumberFromBoard,
    /// The snapshot's last record is applied again.
    SnapshotLate,
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants one mistake in this thread, or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this mistake is to be made.
#[inline(always)]
pub(super) fn is(mutant: Mutant) -> bool {
    #[cfg(feature = "mutants")]
    return PLANTED.get() == Some(mutant);
    #[cfg(not(feature = "mutants"))]
    {
        let _ = mutant;
        false
    }
}
