//! Planted faults, by which the simulator shows that it can find faults.
//!
//! Each is a mistake that somebody could make in a line nearby. They are there only in builds with
//! the feature `mutants`, which the tests have; elsewhere every question is answered no when it is
//! compiled.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A log that was made anew or cut back passes for the old one.
    TakeAnyLog,
    /// A log that was cut back and has grown again passes.
    TakeRefilledLog,
    /// A new consumer begins behind the next record.
    BeginOneLate,
    /// Messages that got lost on the way are not noticed.
    TrustConsumer,
    /// A record that comes again is applied again.
    TakeTwice,
    /// Transitions count as published before they are.
    TrimFirst,
    /// After an answer that is not known, other bytes are sent under the same version.
    NewBytes,
    /// Being fenced is not noticed.
    IgnoreFence,
    /// Effects that were committed before are committed again after a take-over.
    EffectsTwice,
    /// What an earlier owner left to be published is forgotten.
    ForgetOutbox,
    /// The same of messages to the aggregate.
    ForgetParcels,
    /// Records between the snapshot and the last commit are skipped.
    SkipTail,
    /// Rules are evaluated on the owner's clock.
    WallTime,
    /// Numbers of transitions go on from the board, not from the checkpoint.
    NumberFromBoard,
    /// Who is told to stop on the way to where an earlier owner was commits where they are.
    EndEarly,
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

/// Ends the process at a payload that holds what the environment names: to try out how owners cope.
#[inline(always)]
pub(super) fn die_of(payload: &[u8]) {
    #[cfg(feature = "mutants")]
    {
        static POISON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let poison = POISON.get_or_init(|| std::env::var("SG_TEST_POISON").ok());
        if let Some(poison) = poison
            && memchr::memmem::find(payload, poison.as_bytes()).is_some()
        {
            std::process::abort();
        }
    }
    let _ = payload;
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
