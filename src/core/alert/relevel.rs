//! Changes of a rule's levels while it has alerts.
//!
//! Intuition: a level is identified by its severity, not by its index.
//! Invariant: an alert stays at its severity. If the rule no longer has that severity, the alert must end.
//! Rejected: the index, because a rule that loses a level would leave alerts at a level that does not exist.

use super::{Instance, Levels, Phase};
use crate::core::vocab::severity::{LEVELS_MAX, Severity};
use crate::core::vocab::time::Span;

impl Instance {
    /// Moves the instance from the old levels to the new ones, both ascending. Returns `false` if its
    /// current level was removed.
    pub fn relevel(&mut self, from: &[Severity], to: &[Severity]) -> bool {
        // A new level takes over the state of the next higher old level, because a value that passes the limit of
        // the higher level passes both limits.
        let was = |severity: Severity| from.iter().position(|known| *known >= severity);
        let is_now = |level: usize| to.iter().position(|severity| from.get(level) == Some(severity));
        let moved = |levels: Levels| {
            let has = |(_, severity): &(usize, &Severity)| was(**severity).is_some_and(|old| levels.has(old));
            to.iter().enumerate().filter(has).fold(Levels::NONE, |all, (level, _)| all.with(level))
        };
        if let Phase::Firing(firing) = &mut self.phase {
            let Some(level) = is_now(firing.level) else { return false };
            firing.highest = is_now(firing.highest).unwrap_or(level);
            firing.level = level;
            firing.held = moved(firing.held);
            if let Some(ack) = &mut firing.ack {
                ack.level = is_now(ack.level).unwrap_or(level);
            }
        }
        let mut met_for = [Span::ZERO; LEVELS_MAX];
        for (level, severity) in to.iter().enumerate() {
            met_for[level] = was(*severity).map_or(Span::ZERO, |old| self.met_for[old]);
        }
        (self.met, self.met_for) = (moved(self.met), met_for);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::Firing;
    use super::*;
    use crate::core::vocab::time::Timestamp;

    const ALL: [Severity; 3] = Severity::ALL;

    fn firing(level: usize) -> Instance {
        let mut instance = Instance::new(Timestamp::clamped(0));
        instance.met = Levels::up_to(level);
        instance.met_for = [Span::from_secs(30), Span::from_secs(20), Span::from_secs(10)];
        instance.phase = Phase::Firing(Firing::begin(level, Timestamp::clamped(0), 0));
        instance
    }

    #[test]
    fn an_alert_stays_at_its_severity() {
        let mut alert = firing(1);
        assert!(alert.relevel(&ALL, &ALL[1..]), "info is gone, warning is the first now");
        assert_eq!(alert.firing().map(|firing| (firing.level, firing.highest)), Some((0, 0)));
        assert_eq!((alert.met, alert.met_for[0]), (Levels::up_to(0), Span::from_secs(20)));
        assert!(alert.relevel(&ALL[1..], &ALL), "a level below is passed as long as the one above");
        assert_eq!(alert.firing().map(|firing| firing.level), Some(1));
        assert_eq!((alert.met, alert.met_for[0]), (Levels::up_to(1), Span::from_secs(20)));
        assert!(!firing(2).relevel(&ALL, &ALL[..2]), "critical is gone");
        let mut pending = Instance { phase: Phase::Pending, ..firing(2) };
        assert!(pending.relevel(&ALL, &ALL[..1]));
        assert_eq!(pending.met, Levels::up_to(0));
    }
}
