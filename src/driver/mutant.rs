//! Planted faults (mutants), with which the simulator proves that it can find faults.
//!
//! Each mutant stands for a mistake that a programmer could make at the line that checks for it. Mutants exist only
//! in builds with the feature `mutants`, which the tests enable. In other builds each check is the constant `false`.

/// A planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A log that was recreated or truncated is accepted as the old one.
    TakeAnyLog,
    /// A log that was truncated and has grown again is accepted.
    TakeRefilledLog,
    /// A new consumer begins one record late.
    BeginOneLate,
    /// Messages lost in transit are not noticed.
    TrustConsumer,
    /// A record that is delivered again is applied again.
    TakeTwice,
    /// Transitions are removed from the outbox before they are published.
    TrimFirst,
    /// After a commit with an unknown outcome, other bytes are sent under the same version.
    NewBytes,
    /// The worker ignores that it is fenced.
    IgnoreFence,
    /// Effects that were committed before are committed again after a take-over.
    EffectsTwice,
    /// The outbox of an earlier owner is forgotten.
    ForgetOutbox,
    /// The messages to the aggregate partition that an earlier owner left unpublished are forgotten.
    ForgetPartials,
    /// Records between the snapshot and the last commit are skipped.
    SkipTail,
    /// Records get the time of the owner's clock instead of the log's stamp.
    WallTime,
    /// Numbers of transitions continue from the transition log rather than from the checkpoint.
    NumberFromBoard,
    /// A worker that is stopped before it has caught up with an earlier owner commits its older state.
    EndEarly,
    /// The last record in the snapshot is applied again.
    SnapshotLate,
    /// The windows of a commit that failed are forgotten.
    NoUndo,
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants one mutant in this thread, or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Aborts the process at a payload that contains the text in `SG_TEST_POISON`. Tests use it to see how owners
/// cope with a poison record.
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

/// Whether this mutant is planted.
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
