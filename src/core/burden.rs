//! Bounds on silences and maintenance windows that people add: their number and their size.
//!
//! Intuition: at a grid point each alert is compared with all silences and windows, and all of them are
//! stored, shown and published together. So their total is bounded, not only the size of each. Invariant: a
//! request beyond a bound is refused before anything is written to the log. The engine itself bounds only the
//! number, because a replay must not depend on how many bytes a compiled pattern takes.
//! Rejected: a bound on each alone (1,000 silences of 64 patterns are 64 million matches for 1,000 alerts).

use crate::core::vocab::selector::{Matcher, Selector};
use std::iter::Sum;

/// Maximum number of silences, and separately of maintenance windows that people added.
pub(crate) const COUNT_MAX: usize = 1_000;

/// Maximum number of matchers of all silences together, and separately of all added windows. When a silence or
/// window is added, each firing alert is compared with all matchers. For 1,000 alerts this takes 0.1 s with
/// label values of 20 bytes, and 1.2 s with values of 256 bytes.
pub(crate) const MATCHERS_MAX: usize = 2_000;

/// Maximum bytes of the texts and compiled patterns of these matchers. 2,000 matchers such as `source=~"db.*"`
/// take 3 MiB.
pub(crate) const BYTES_MAX: usize = 16 << 20;

/// The size of one silence or maintenance window, or the sum of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Burden {
    pub count: usize,
    pub matchers: usize,
    pub bytes: usize,
}

/// The bound that another silence or maintenance window would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("there are {COUNT_MAX} already")]
    Count,
    #[error("all together would have more than {MATCHERS_MAX} matchers")]
    Matchers,
    #[error("all together, with their patterns compiled, would take more than {} MiB", BYTES_MAX >> 20)]
    Bytes,
}

impl Burden {
    /// The burden of one silence or maintenance window with these matchers and this reason.
    pub fn of(selector: &Selector, reason: &str) -> Burden {
        let bytes: usize = selector.matchers.iter().map(bytes).sum();
        Burden { count: 1, matchers: selector.matchers.len(), bytes: bytes + reason.len() }
    }

    /// Adds another burden to this one and names the first bound that the sum exceeds.
    pub fn room_for(self, other: Burden) -> Result<(), NoRoom> {
        let Burden { count, matchers, bytes } = [self, other].into_iter().sum();
        match () {
            () if count > COUNT_MAX => Err(NoRoom::Count),
            () if matchers > MATCHERS_MAX => Err(NoRoom::Matchers),
            () if bytes > BYTES_MAX => Err(NoRoom::Bytes),
            () => Ok(()),
        }
    }
}

fn bytes(matcher: &Matcher) -> usize {
    let value = matcher.value().len();
    matcher.label.len() + value + matcher.pattern().map_or(0, |pattern| pattern.bytes())
}

impl Sum for Burden {
    fn sum<I: Iterator<Item = Burden>>(all: I) -> Burden {
        all.fold(Burden::default(), |sum, one| Burden {
            count: sum.count + one.count,
            matchers: sum.matchers + one.matchers,
            bytes: sum.bytes + one.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_named() {
        let of = |count, matchers, bytes| Burden { count, matchers, bytes };
        let almost = of(COUNT_MAX - 1, MATCHERS_MAX - 1, BYTES_MAX - 1);
        assert_eq!(almost.room_for(of(1, 1, 1)), Ok(()));
        assert_eq!(almost.room_for(of(2, 1, 1)), Err(NoRoom::Count));
        assert_eq!(almost.room_for(of(1, 2, 1)), Err(NoRoom::Matchers));
        assert_eq!(almost.room_for(of(1, 1, 2)), Err(NoRoom::Bytes));
    }
}
