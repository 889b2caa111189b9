//! Coarser panes from finer ones.
//!
//! Intuition: rules over `[1m]` and `[5m]` of the same keys would record every value twice. So only the
//! finest view of the same keys, the source, records values. When a pane of the source is finished, the
//! source hands it on to the coarser views, which it feeds: one merge per pane instead of one addition per
//! value.
//! Invariant: a fed view holds all observations of its keys except those in the newest pane of its source
//! while that pane is open. A read of the fed view adds that pane.
//! Rejected: merging the coarse pane from the fine ones at each grid point (a merge of six histograms per
//! second and key), and a running total from which old panes are subtracted (floating-point sums drift).

use super::group::Trail;
use super::{Alike, Reading, Recorded, View, ViewKind, lead};
use crate::core::measure::series::Subscription;
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};

/// The current ingest time, and the distance between grid points.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    pub now: Timestamp,
    pub interval: Span,
}

/// The newest pane of a source that the fed views have not received yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open<'a> {
    pub(super) start: Timestamp,
    pub(super) trail: &'a Trail,
}

/// Links each fed view to its source; the result depends only on the specs of the views and their order.
pub(crate) fn link(views: &mut [View]) {
    lead::link(views);
    let mut alike = Alike::of_keys(views);
    alike.sort_by_key(|at| rank(views, at));
    let sources: Vec<Option<u32>> = (0..views.len()).map(|at| source_of(views, at, &alike)).collect();
    for view in views.iter_mut() {
        view.feeds.clear();
        view.asked.clear();
        view.groups.iter_mut().flatten().for_each(|group| {
            group.forget_merged();
            group.memo_at = None;
        });
    }
    for (at, source) in sources.into_iter().enumerate() {
        views[at].source = source;
        if let Some(source) = source {
            views[source as usize].feeds.push(at as u32);
        }
    }
}

/// Returns the finest other view that has all panes and details which this view needs.
fn source_of(views: &[View], at: usize, alike: &Alike) -> Option<u32> {
    let fed = &views[at];
    let can_feed = |other: &usize| {
        let (finer, spec) = (&views[*other], &fed.spec);
        is_trailing(finer)
            && finer.spec.selector == spec.selector
            && finer.spec.by == spec.by
            && finer.spec.has_quantiles >= spec.has_quantiles
            && finer.spec.has_spread >= spec.has_spread
            && fed.pane.ms() % finer.pane.ms() == 0
    };
    // The views are sorted by pane length, so only finer views come before this one.
    let finer = alike.of(fed.spec.keys_number()).take_while(|other| *other != at);
    let found = finer.filter(|_| is_trailing(fed)).find(can_feed);
    found.map(|at| at as u32)
}

fn rank(views: &[View], at: usize) -> (Span, Span, usize) {
    (views[at].pane, views[at].kept, at)
}

fn is_trailing(view: &View) -> bool {
    matches!(view.spec.kind, ViewKind::Trailing { .. })
}

/// Adds observations to a group, and hands on the panes or observations that the fed views need.
#[inline]
pub(crate) fn record(views: &mut [View], to: Subscription, reading: &Reading<'_>, when: When) {
    let view = &mut views[to.view as usize];
    let recorded = view.record(to.group, reading, when.now, when.interval);
    if recorded != Recorded::Kept && !view.feeds.is_empty() {
        hand_on(views, to, recorded, reading, when);
    }
}

fn hand_on(views: &mut [View], to: Subscription, recorded: Recorded, reading: &Reading<'_>, when: When) {
    let source = to.view as usize;
    let feeds = std::mem::take(&mut views[source].feeds);
    for fed in &feeds {
        let Ok([source, fed]) = views.get_disjoint_mut([source, *fed as usize]) else { continue };
        let Some(group) = source.group(to.group) else { continue };
        match recorded {
            Recorded::Kept => {}
            Recorded::Passed => fed.take(group.key, reading, when),
            Recorded::Begun => {
                if let Some(finished) = group.finished() {
                    fed.absorb(group.key, source.pane, finished, when);
                }
                fed.begin(group.key, reading.time(), when);
            }
        }
    }
    views[source].feeds = feeds;
    if let Some(group) = views[source].group_mut(to.group) {
        group.hand_over_older();
    }
}

/// Moves the windows of all views to a grid point: new panes enter and old panes leave.
pub(crate) fn roll(views: &mut [View], when: When) {
    for source in 0..views.len() {
        views[source].look_at(when.now);
        if views[source].is_looking_back() {
            lead::roll(views, source, when.now);
            continue;
        }
        let gone = views[source].roll(when.now);
        let (feeds, pane) = (views[source].feeds.clone(), views[source].pane);
        for (key, trail) in gone.iter().flat_map(|gone| gone.iter()) {
            feeds.iter().for_each(|fed| views[*fed as usize].absorb(*key, pane, trail, when));
        }
    }
}

/// Hands on all open panes, because the links between views are about to change.
pub(crate) fn settle(views: &mut [View], when: When) {
    for source in 0..views.len() {
        let (open, pane) = (views[source].take_open(), views[source].pane);
        for fed in views[source].feeds.clone() {
            for (key, trail) in &open {
                views[fed as usize].absorb(*key, pane, trail, when);
            }
        }
    }
}

/// Marks the changed keys of a view as changed in the views that it feeds.
pub(crate) fn spread(views: &mut [View], changed: u32, keys: &[KeyId]) {
    for fed in views[changed as usize].feeds.clone() {
        let fed = &mut views[fed as usize];
        for key in keys {
            if let Some(group) = fed.group_of(*key) {
                fed.forget_memo(group);
            }
        }
    }
}

/// Reads a view together with the open pane of its source.
pub(super) fn with_open<T>(
    views: &mut [View],
    at: u32,
    key: KeyId,
    read: impl FnOnce(&mut View, Option<Open<'_>>) -> T,
) -> T {
    let view = &mut views[at as usize];
    let Some(source) = view.source else { return read(view, None) };
    match views.get_disjoint_mut([source as usize, at as usize]) {
        Ok([source, view]) => {
            let pane = source.pane;
            let group = source.group_of(key).and_then(|group| source.group(group));
            let trail = group.and_then(|group| group.open());
            read(view, trail.map(|trail| Open { start: trail.start(pane), trail }))
        }
        // Unreachable: a view is never its own source.
        Err(_) => read(&mut views[at as usize], None),
    }
}

impl View {
    /// Records one observation that the source could not keep in its open pane.
    fn take(&mut self, key: KeyId, reading: &Reading<'_>, when: When) {
        let Some(group) = self.group_of(key) else { return };
        self.record(group, reading, when.now, when.interval);
        self.forget_merged(group);
    }

    /// Merges a finished pane of the source.
    fn absorb(&mut self, key: KeyId, pane: Span, finished: &Trail, when: When) {
        let Some(group) = self.group_of(key) else { return };
        let Some((trail, _)) = self.trail(group, finished.start(pane), when.now, when.interval) else {
            return;
        };
        trail.absorb(finished);
        let index = trail.index;
        if let Some(group) = self.group_mut(group) {
            group.newest = finished.pane.last_time().unwrap_or(group.newest).max(group.newest);
            group.add_to_merged(index, &finished.pane);
        }
    }

    /// Creates the pane that contains `time`. The source has begun a pane there, and creating the coarser
    /// pane schedules the grid points at which it enters and leaves the window.
    fn begin(&mut self, key: KeyId, time: Timestamp, when: When) {
        let Some(group) = self.group_of(key) else { return };
        self.trail(group, time, when.now, when.interval);
    }

    fn forget_merged(&mut self, group: u32) {
        if let Some(group) = self.group_mut(group) {
            group.forget_merged();
        }
    }

    fn forget_memo(&mut self, group: u32) {
        self.mark(group);
        if let Some(group) = self.group_mut(group) {
            group.memo_at = None;
        }
    }
}
