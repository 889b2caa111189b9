//! Baseline views over the same windows: one of them leads, and the others, its followers, only read the
//! windows that the leader seals.
//!
//! Intuition: `p95`, `count` and `avg` of the same minutes, or the same count over an hour and over a day,
//! are computed from the same sealed panes. So only the leader records observations and keeps the panes of
//! windows that may still change. When the leader seals a window, each view writes its own row.
//! Invariant: a view has the same rows as it would have alone. The specs and the order of the views determine
//! the leader, so it is the same after a restart.
//! Rejected: one view with a row for all (adding or removing a rule would change the state of the others).

use super::group::{Group, Sealable, Trail};
use super::{Alike, View, ViewKind, ViewSpec, schedule_rolls};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};

/// The panes that a leader holds for itself and its followers.
#[derive(Debug)]
pub(crate) struct Lead {
    of: ViewSpec,
    groups: Vec<(KeyId, Timestamp, Sealable)>,
}

/// Links each follower to its leader; the result depends only on the specs of the views and their order.
pub(super) fn link(views: &mut [View]) {
    for view in views.iter_mut() {
        view.detail = (view.spec.has_quantiles, view.spec.has_spread);
        (view.leader, view.followers) = (None, Vec::new());
    }
    let alike = Alike::of_windows(views);
    for at in 0..views.len() {
        let is_leader = |other: &usize| views[*other].leads(&views[at].spec);
        let Some(number) = views[at].spec.window_number() else { continue };
        let Some(leader) = alike.of(number).take_while(|other| *other < at).find(is_leader) else { continue };
        let spec = &views[at].spec;
        let needs = (spec.has_quantiles, spec.has_spread);
        let lead = &mut views[leader];
        lead.detail = (lead.detail.0 | needs.0, lead.detail.1 | needs.1);
        lead.followers.push(at as u32);
        views[at].leader = Some(leader as u32);
    }
}

/// Removes and returns the panes that the leaders hold, because other views may become leaders.
pub(crate) fn take(views: &mut [View]) -> Vec<Lead> {
    let leaders = views.iter_mut().filter(|view| view.leader.is_none());
    leaders.filter_map(View::take_lead).collect()
}

/// Gives the panes of [`take`] to the current leaders.
pub(crate) fn give(views: &mut [View], leads: Vec<Lead>, now: Timestamp, interval: Span) {
    let alike = Alike::of_windows(views);
    for lead in leads {
        let number = lead.of.window_number();
        let places = number.into_iter().flat_map(|number| alike.of(number));
        let found = places.into_iter().find(|at| views[*at].leads(&lead.of));
        if let Some(at) = found {
            views[at].accept_lead(lead, now, interval);
        }
    }
}

/// Seals the due windows of a leader, and writes their rows in the leader and its followers.
pub(super) fn roll(views: &mut [View], leader: usize, at: Timestamp) {
    let followers = std::mem::take(&mut views[leader].followers);
    for places in views[leader].take_rolls(at).chunks(AT_ONCE) {
        prefetch(views, leader, &followers, places);
        places.iter().for_each(|place| roll_group(views, leader, &followers, *place, at));
    }
    views[leader].followers = followers;
}

fn roll_group(views: &mut [View], leader: usize, followers: &[u32], place: u32, at: Timestamp) {
    let (pane, lateness) = (views[leader].pane, views[leader].lateness);
    while let Some((key, trail)) = views[leader].take_due(place, at) {
        views[leader].write(key, &trail, at);
        followers.iter().for_each(|follower| views[*follower as usize].write(key, &trail, at));
        if let Some(group) = views[leader].group_mut(place) {
            group.keep_sealed(&trail);
        }
    }
    if let Some(group) = views[leader].group_mut(place) {
        group.close_before((at - pane - lateness.max).ceil(pane).index(pane));
    }
}

/// Number of keys that are prefetched together before their windows are sealed. Sealing writes about 2 KiB
/// per key.
const AT_ONCE: usize = 16;

fn prefetch(views: &[View], leader: usize, followers: &[u32], places: &[u32]) {
    let leader = &views[leader];
    let keys: Vec<KeyId> = places.iter().filter_map(|place| Some(leader.group(*place)?.key)).collect();
    let own = leader.ask_for(places.iter().copied(), true);
    let all = followers.iter().fold(own, |token, view| token ^ views[*view as usize].prefetch(&keys, true));
    std::hint::black_box(all);
}

impl View {
    /// Whether this view is a leader and holds the panes that a view with the spec `other` reads.
    fn leads(&self, other: &ViewSpec) -> bool {
        let (ViewKind::Baseline { window, .. }, ViewKind::Baseline { window: wanted, .. }) =
            (self.spec.kind, other.kind)
        else {
            return false;
        };
        let is_same = window == wanted && self.spec.selector == other.selector && self.spec.by == other.by;
        is_same && self.leader.is_none()
    }

    fn is_following(&self) -> bool {
        self.leader.is_some()
    }

    /// Closes all windows of a new follower that begin before the current one: the follower has no rows for
    /// them and accepts none.
    pub(crate) fn begin_following(&mut self, now: Timestamp) {
        if self.is_following() {
            let first = now.index(self.pane);
            self.groups.iter_mut().flatten().for_each(|group| group.close_before(first));
        }
    }

    /// Removes and returns the groups that have a window to seal or to close by grid point `at`.
    fn take_rolls(&mut self, at: Timestamp) -> Vec<u32> {
        let later = self.rolls.split_off(&(at + Span::MILLISECOND));
        std::mem::replace(&mut self.rolls, later).into_values().flatten().collect()
    }

    /// Removes and returns the oldest pane of a group if its end is older than the allowed lateness.
    fn take_due(&mut self, place: u32, at: Timestamp) -> Option<(KeyId, Trail)> {
        let (pane, allowed) = (self.pane, self.lateness.allowed);
        let group = self.group_mut(place)?;
        let is_due = group.panes.front().is_some_and(|trail| trail.start(pane) + pane + allowed < at);
        if is_due { group.panes.pop_front().map(|trail| (group.key, trail)) } else { None }
    }

    /// Writes the row of a sealed window, and drops the rows that the view no longer keeps.
    fn write(&mut self, key: KeyId, trail: &Trail, at: Timestamp) {
        let (Some(place), Some((reader, kept))) = (self.group_of(key), self.reader()) else { return };
        let is_following = self.is_following();
        let Some(group) = self.group_mut(place) else { return };
        // The leader noted its windows with their first observation; a follower notes them here.
        if is_following && (group.is_closed(trail.index) || !group.note_window(trail.index)) {
            return;
        }
        group.write(trail, &reader);
        group.trim(at, kept, reader.window);
        self.mark(place);
    }

    fn take_lead(&mut self) -> Option<Lead> {
        let of = Some(&self.spec).filter(|_| self.leads(&self.spec))?.clone();
        let groups = self.groups.iter_mut().flatten();
        let groups = groups.map(|group| (group.key, group.newest, group.take_sealable())).collect();
        self.rolls.clear();
        Some(Lead { of, groups })
    }

    fn schedule_seal(&mut self, place: u32, index: i64, now: Timestamp, interval: Span) {
        schedule_rolls(&mut self.rolls, (self.spec.kind, self.lateness), place, (index, true), now, interval);
    }

    fn accept_lead(&mut self, lead: Lead, now: Timestamp, interval: Span) {
        for (key, newest, held) in lead.groups {
            let place = self.group_of(key).unwrap_or_else(|| self.add_group(Group::new(key, newest)));
            for index in held.indexes().collect::<Vec<i64>>() {
                self.schedule_seal(place, index, now, interval);
            }
            if let Some(group) = self.group_mut(place) {
                group.give_sealable(held);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reading;
    use super::super::feed::{self, When};
    use super::*;
    use crate::core::detect::dice::Dice;
    use crate::core::measure::histogram::layout::Digits;
    use crate::core::measure::pane::{Sample, Shape};
    use crate::core::measure::series::Subscription;
    use crate::core::vocab::aggregate::Aggregate;
    use crate::core::vocab::key::{Key, Keys};
    use crate::core::vocab::limits::Lateness;
    use crate::core::vocab::selector::{By, Selector};
    use crate::core::vocab::unit::Unit;

    const MINUTE: Span = Span::from_mins(1);

    fn shape() -> Shape {
        Shape { digits: Digits::Two, resolution: Unit::resolution(None) }
    }

    fn view(aggregate: Aggregate, minutes: i64, has_quantiles: bool) -> View {
        let kind = ViewKind::Baseline {
            window: MINUTE,
            period: MINUTE * minutes,
            aggregate,
            is_profiled: has_quantiles,
        };
        let selector = Selector { name: Some("load".into()), matchers: Vec::new() };
        let has_spread = aggregate == Aggregate::Stddev;
        let spec = ViewSpec { selector, by: By::Series, kind, has_quantiles, has_spread, per_version: false };
        let lateness = Lateness { allowed: Span::from_secs(5), max: Span::from_mins(10) };
        View::new(spec, shape(), lateness)
    }

    fn views() -> Vec<View> {
        vec![
            view(Aggregate::Count, 30, false),
            view(Aggregate::Quantile(0.95), 20, true),
            view(Aggregate::Avg, 90, false),
            view(Aggregate::Stddev, 40, false),
        ]
    }

    /// Returns the rows of a view for the last 20 minutes.
    fn known(view: &View, key: KeyId, minute: i64) -> Vec<(i64, String)> {
        let windows = view.past(key, minute - 20, minute);
        windows.into_iter().map(|(index, window)| (index, format!("{window:?}"))).collect()
    }

    /// Goal: each view has the rows that it would have alone. Method: busy and silent minutes, late values,
    /// and changes of the leader.
    #[test]
    fn who_follows_knows_what_it_would_know_alone() {
        let (mut keys, mut dice) = (Keys::default(), Dice(4));
        let key = keys.intern(Key::default());
        let (mut alone, mut linked): (Vec<View>, Vec<View>) = (views(), views());
        for view in alone.iter_mut().chain(&mut linked) {
            view.join(key, Timestamp::clamped(0), shape());
        }
        let mut order: Vec<usize> = (0..4).collect();
        feed::link(&mut linked);
        let mut is_silent = false;
        for minute in 1..600i64 {
            let now = Timestamp::clamped(minute * 60_000 + 6_000);
            let when = When { now, interval: Span::from_secs(1) };
            is_silent ^= dice.uniform() < 0.05;
            for _ in 0..if is_silent { 0 } else { (dice.uniform() * 60.0) as usize } {
                let late = if dice.uniform() < 0.01 { dice.uniform() * 12.0 * 60_000.0 } else { 0.0 };
                let time = now - Span::from_ms(6_000 + (dice.uniform() * 50_000.0 + late) as i64);
                let sample = Sample::new(shape(), 100.0 + 9.0 * dice.normal(), time);
                for (at, view) in alone.iter_mut().enumerate() {
                    let to = Subscription { view: 0, group: 0 };
                    feed::record(std::slice::from_mut(view), to, &Reading::One(sample), when);
                    let leads = order[0] == at;
                    if leads {
                        feed::record(&mut linked, to, &Reading::One(sample), when);
                    }
                }
            }
            alone.iter_mut().for_each(|view| feed::roll(std::slice::from_mut(view), when));
            feed::roll(&mut linked, when);
            if dice.uniform() < 0.05 {
                let leads = take(&mut linked);
                linked.rotate_left(1);
                order.rotate_left(1);
                feed::link(&mut linked);
                give(&mut linked, leads, now, when.interval);
            }
            for (at, of) in order.iter().enumerate() {
                assert_eq!(linked[at].is_following(), at > 0);
                assert_eq!(
                    known(&linked[at], key, minute),
                    known(&alone[*of], key, minute),
                    "{of} in minute {minute}"
                );
            }
        }
    }

    #[test]
    fn a_newcomer_knows_nothing_of_windows_before_it_came() {
        let mut keys = Keys::default();
        let key = keys.intern(Key::default());
        let mut views = vec![view(Aggregate::Avg, 30, false)];
        views[0].join(key, Timestamp::clamped(0), shape());
        let to = Subscription { view: 0, group: 0 };
        let record = |views: &mut [View], of: i64, minute: i64| {
            let when =
                When { now: Timestamp::clamped(minute * 60_000 + 10_000), interval: Span::from_secs(1) };
            let sample = Sample::new(shape(), 1.0, Timestamp::clamped(of * 60_000));
            feed::record(views, to, &Reading::One(sample), when);
            feed::roll(views, When { now: when.now + Span::from_secs(1), ..when });
        };
        (1..6).for_each(|minute| record(&mut views, minute, minute));
        let leads = take(&mut views);
        views.push(view(Aggregate::Count, 30, false));
        feed::link(&mut views);
        let now = Timestamp::clamped(5 * 60_000 + 20_000);
        give(&mut views, leads, now, Span::from_secs(1));
        views[1].join(key, now, shape());
        views[1].begin_following(now);
        // A late observation arrives for minute 3, and minute 5 is sealed.
        record(&mut views, 3, 5);
        record(&mut views, 6, 6);
        let counts: Vec<(i64, u64)> =
            views[1].past(key, 0, 5).iter().map(|(index, window)| (*index, window.count)).collect();
        assert_eq!(counts, [(5, 1)]);
        assert_eq!(views[0].past(key, 3, 3)[0].1.count, 2);
    }
}
