//! Bounds on the size of rule files and requests.
//!
//! Intuition: a file or a request has a few KiB, but may expand to far more. For example, each rule copies its
//! escalation, and a short regular expression may compile to many KiB.
//! Invariant: the CPU time, the memory and the size of the response grow at most linearly with the text, up to the
//! bounds below. Input beyond a bound is refused with a message that states the bound; it is never truncated.

/// Maximum number of rules in a rule set: 10,000 × about 1.5 KiB of state and text = 15 MiB. A thousand rules are
/// about 200 KiB of files.
pub(super) const RULES_MAX: usize = 10_000;

/// Maximum number of `record:` entries in a rule set. Each is evaluated at every grid point at which its input
/// changed.
pub(super) const RECORDS_MAX: usize = 5_000;

/// Maximum number of views in a rule set. A new series is compared with each view: 10,000 × about 50 ns = 0.5 ms.
pub(super) const VIEWS_MAX: usize = 10_000;

/// Maximum number of names in one list: stages of a pipeline, receivers, actions, labels to compare.
pub(super) const NAMES_MAX: usize = 256;

/// Maximum number of matchers in one selector: twice the number of labels that an event may have.
pub(super) const MATCHERS_MAX: usize = 64;

/// Maximum number of steps in an escalation. A usual escalation has three or four.
pub(super) const STEPS_MAX: usize = 32;

/// Maximum number of maintenance windows, and of inhibitions, in a rule set. Each alert is compared with each of
/// them: 1,000 × about 100 ns = 0.1 ms.
pub(super) const MUTES_MAX: usize = 1_000;

/// Maximum bytes of the escalations in a rule set. An escalation counts once for each rule that names it, because
/// each rule stores its own copy.
pub(super) const ESCALATIONS_BYTES_MAX: usize = 16 << 20;

/// Maximum bytes of a human-readable text: a summary, a reason, the URL of a runbook. 1,000 alerts of 8 KiB take 8
/// MiB.
pub(super) const PROSE_BYTES_MAX: usize = 8 << 10;

/// Maximum bytes of the compiled regular expressions in a rule set: about 10,000 short ones. Compiling them takes
/// 0.6 s in the checks and 0.6 s again in the engine.
pub(super) const REGEXES_BYTES_MAX: usize = 16 << 20;

/// Maximum bytes of the compiled regular expressions in a single request, such as a query or a silence. Compiling
/// them takes 0.15 s.
pub(super) const MATCHERS_BYTES_MAX: usize = 4 << 20;

/// Maximum number of values and gaps in the test series of a rule set. The tests of a large fleet have fewer than
/// one million.
pub(super) const TEST_SLOTS_MAX: usize = 4_000_000;

/// Maximum number of problems that are described per file; further ones are only counted. 100 × about 1 KiB = 100
/// KiB of output.
pub(super) const DIAGNOSTICS_MAX: usize = 100;

/// Maximum number of problems that are described for all files of a rule set; further ones are only counted.
pub(super) const SET_DIAGNOSTICS_MAX: usize = 1_000;
