//! Bounds on the size of rule files and requests.
//!
//! Intuition: a file or a request has a few KiB, but may expand to far more: a rule repeats its escalation, a
//! label its regular expression, a YAML alias a whole tree.
//! Invariant: the work, the memory and the answer for a text grow no faster than the text, up to the bounds
//! below. Input beyond a bound is refused with a message that states the bound; it is never cut.

/// Rules of a set: 10,000 × about 1.5 KiB of state and text = 15 MiB. A thousand rules are about 200 KiB of
/// files.
pub(super) const RULES_MAX: usize = 10_000;

/// Recorded series of a set; each is evaluated at every grid point at which its input changed.
pub(super) const RECORDS_MAX: usize = 5_000;

/// Views of a set. A new series is compared with each view: 10,000 × about 50 ns = 0.5 ms.
pub(super) const VIEWS_MAX: usize = 10_000;

/// Names in a list: stages of a pipeline, receivers, actions, labels to compare.
pub(super) const NAMES_MAX: usize = 256;

/// Matchers of one selector: twice the labels that an event may have.
pub(super) const MATCHERS_MAX: usize = 64;

/// Steps of an escalation; a usual one has three or four.
pub(super) const STEPS_MAX: usize = 32;

/// Maintenance windows of a set, and inhibitions of a set. Each alert is compared with each of them:
/// 1,000 × about 100 ns = 0.1 ms.
pub(super) const MUTES_MAX: usize = 1_000;

/// Bytes of the escalations of a set. An escalation counts once for each rule that names it, because each
/// rule stores its own copy.
pub(super) const ESCALATIONS_BYTES_MAX: usize = 16 << 20;

/// Bytes of a text for people: a summary, a reason, the address of a runbook. A thousand alerts of 8 KiB are
/// 8 MiB.
pub(super) const PROSE_BYTES_MAX: usize = 8 << 10;

/// Bytes of the compiled regular expressions of a set: about 10,000 short ones. Compiling them takes 0.6 s,
/// here and again in the engine.
pub(super) const REGEXES_BYTES_MAX: usize = 16 << 20;

/// Bytes of the compiled regular expressions of a single request, such as a query or a silence. Compiling
/// them takes 0.15 s.
pub(super) const MATCHERS_BYTES_MAX: usize = 4 << 20;

/// Values and gaps in the tests of a set; all tests of a large fleet have fewer than a million.
pub(super) const TEST_SLOTS_MAX: usize = 4_000_000;

/// Problems of a file that are described; the rest is counted. 100 × about 1 KiB = 100 KiB of answer.
pub(super) const DIAGNOSTICS_MAX: usize = 100;

/// Problems of all files of a set that are described; the rest is counted.
pub(super) const SET_DIAGNOSTICS_MAX: usize = 1_000;
