//! Runs that were let go, in a few bytes each: a run whose end comes later began when it began.
//!
//! Intuition: a run without an event for `abandon_after`, or one too many, is forgotten with all its stages.
//! If something of it comes after all, a run that is new here would begin in its middle, and one that ended
//! long ago would be in flight again. So what such an event is judged by stays.
//! Invariant: at most `GONE_PER_PIPELINE_MAX` are kept, the newest; one that comes back is taken out.
//! Rejected: keeping the runs themselves (many times the memory), and digests of their ids (two runs could be
//! taken for one).

use super::super::event::RunStatus;
use super::super::limits::{GONE_KEPT, GONE_PER_PIPELINE_MAX};
use super::super::time::Timestamp;
use super::beginning::Beginning;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What stays of a run.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Remains {
    pub beginning: Beginning,
    pub ended: Option<(Timestamp, RunStatus)>,
    /// Its duration was told.
    pub is_timed: bool,
}

/// The runs of one pipeline that were let go.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Gone {
    runs: BTreeMap<Arc<str>, (Timestamp, Remains)>,
    /// By the ingest time at which they went; some have come back, or went again.
    order: VecDeque<(Timestamp, Arc<str>)>,
}

impl Gone {
    pub fn keep(&mut self, run: Arc<str>, remains: Remains, now: Timestamp) {
        self.runs.insert(run.clone(), (now, remains));
        self.order.push_back((now, run));
        while self.order.front().is_some_and(|(at, _)| *at + GONE_KEPT < now)
            || self.order.len() > GONE_PER_PIPELINE_MAX
        {
            self.drop_oldest();
        }
    }

    /// What is known of a run that comes back.
    pub fn take(&mut self, run: &str) -> Option<Remains> {
        self.runs.remove(run).map(|(_, remains)| remains)
    }

    /// An event of a run that is not here was refused.
    pub fn refuse(&mut self, run: &Arc<str>, time: Timestamp, now: Timestamp) {
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
