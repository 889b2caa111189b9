//! Forgotten runs, reduced to beginning and end, so that a later event of such a run is judged correctly.
//!
//! Intuition: a run without an event for `abandon_after`, or one beyond the limit, is forgotten with all its
//! stages. If an event of it arrives later, the run would otherwise begin in its middle, and a run that ended
//! long ago would be in flight again. The facts needed to judge such an event are therefore kept.
//! Invariant: at most the newest `GONE_PER_PIPELINE_MAX` forgotten runs are kept. When another event of such a
//! run arrives, the run is tracked again and removed from here.
//! Rejected: keeping the runs themselves (many times the memory), and digests of their ids (a collision would
//! confuse two runs).

use super::super::event::RunStatus;
use super::beginning::Beginning;
use crate::core::vocab::limits::{GONE_KEPT, GONE_PER_PIPELINE_MAX};
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The facts kept of a forgotten run.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Remains {
    pub beginning: Beginning,
    pub ended: Option<(Timestamp, RunStatus)>,
    /// Whether the run's duration was already derived.
    pub is_timed: bool,
}

/// The forgotten runs of one pipeline.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Gone {
    runs: BTreeMap<Arc<str>, (Timestamp, Remains)>,
    /// Runs in the order of the ingest times at which they were forgotten. An entry is stale if its run was
    /// tracked again or forgotten again since then.
    order: VecDeque<(Timestamp, Arc<str>)>,
}

impl Gone {
    pub(super) fn keep(&mut self, run: Arc<str>, remains: Remains, now: Timestamp) {
        self.runs.insert(run.clone(), (now, remains));
        self.order.push_back((now, run));
        while self.order.front().is_some_and(|(at, _)| *at + GONE_KEPT < now)
            || self.order.len() > GONE_PER_PIPELINE_MAX
        {
            self.drop_oldest();
        }
    }

    /// Removes and returns the facts of a run of which another event arrived.
    pub(super) fn take(&mut self, run: &str) -> Option<Remains> {
        self.runs.remove(run).map(|(_, remains)| remains)
    }

    /// Records that an event of a run that is not tracked was refused.
    pub(super) fn refuse(&mut self, run: &Arc<str>, time: Timestamp, now: Timestamp) {
        if let Some((_, remains)) = self.runs.get_mut(run) {
            return remains.beginning.refuse(time);
        }
        let mut remains = Remains::default();
        remains.beginning.refuse(time);
        self.keep(run.clone(), remains, now);
    }

    fn drop_oldest(&mut self) {
        let Some((at, run)) = self.order.pop_front() else { return };
        if self.runs.get(&run).is_some_and(|(went, _)| *went == at) {
            self.runs.remove(&run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn the_newest_are_kept_and_what_comes_back_is_taken_out() {
        let mut gone = Gone::default();
        for run in 0..=GONE_PER_PIPELINE_MAX {
            gone.keep(run.to_string().into(), Remains::default(), at(0));
        }
        assert!(gone.take("0").is_none() && gone.take("1").is_some() && gone.take("1").is_none());
        gone.keep("1".into(), Remains::default(), at(5));
        assert_eq!(gone.order.len(), GONE_PER_PIPELINE_MAX);
        gone.keep("late".into(), Remains::default(), at(5) + GONE_KEPT);
        assert!(gone.take("2").is_none(), "its time is over");
        assert!(gone.take("1").is_some(), "it went again later");
    }
}
