//! When something planned is in force: one span, a cron pattern with a duration, or Alertmanager's intervals.
//!
//! Intuition: people plan by the clock on their wall. A plan is a set of wall clock spans; each end is
//! turned into an instant by itself. Invariant: a start that a change of the clock skips happens at the next
//! valid instant, and the span has its whole duration from what the wall shows then; a start that repeats
//! happens the first time; an hour that repeats inside counts once, whole, as the end is a time on the wall,
//! too. Rejected: durations in elapsed time (a window until 4 o'clock would end at 3 or 5 twice a year), the
//! end of a skipped start counted from the planned start (2 to 3 o'clock would last nothing on the day that
//! skips that hour), and the cron library's own instants (it decides such hours otherwise).

use super::time::{Span, Timestamp};
use chrono::offset::LocalResult;
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use serde::{Deserialize, Serialize};

/// Starts looked at for one question; a window of two days that begins each minute has fewer.
const STARTS_MAX: usize = 10_000;

/// Instants that are compared with intervals for one question: about 20 ms.
const LOOKS_MAX: usize = 200_000;

/// A plan, ready to be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Plan {
    Once { start: Timestamp, end: Timestamp },
    Recurring(Box<Recurring>),
    Intervals(Vec<Interval>),
}

/// A plan as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    Once { start: Timestamp, end: Timestamp },
    Recurring { schedule: String, duration: Span, zone: String, except: Vec<NaiveDateText> },
    Intervals(Vec<Interval>),
}

type NaiveDateText = String;

/// A span of wall clock time at each match of a cron pattern; it belongs to the day of its start.
#[derive(Debug, Clone)]
pub struct Recurring {
    written: Written,
    cron: Cron,
    duration: Span,
    zone: Tz,
    except: Vec<NaiveDate>,
}

impl PartialEq for Recurring {
    fn eq(&self, other: &Recurring) -> bool {
        self.written == other.written
    }
}

/// Alertmanager's `time_intervals`: all that is given must hold; what is not given holds always.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Interval {
    /// Minutes of the day, start and end.
    pub times: Vec<(u32, u32)>,
    /// Sunday is 0.
    pub weekdays: Vec<(u32, u32)>,
    /// From 1; −1 is the last day of the month.
    pub days_of_month: Vec<(i32, i32)>,
    pub months: Vec<(u32, u32)>,
    pub years: Vec<(i32, i32)>,
    pub zone: String,
}

/// Why a plan cannot be kept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("`{0}` is no cron pattern: {1}")]
    Cron(String, String),
    #[error("`{0}` is no time zone; take an IANA name such as Europe/Berlin")]
    Zone(String),
    #[error("`{0}` is no date; write it as 2026-12-25")]
    Date(String),
    #[error("it ends before it begins")]
    Backwards,
    #[error("`{0}` begins so often and lasts so long that it never ends; give a start and an end")]
    Endless(String),
}

/// What a plan says of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub is_in_force: bool,
    /// When that may change; `None`: never.
    pub until: Option<Timestamp>,
}

impl TryFrom<Written> for Plan {
    type Error = PlanError;

    fn try_from(written: Written) -> Result<Plan, PlanError> {
        match written {
            Written::Once { start, end } if end <= start => Err(PlanError::Backwards),
            Written::Once { start, end } => Ok(Plan::Once { start, end }),
            Written::Recurring { .. } => Ok(Plan::Recurring(Box::new(Recurring::new(written)?))),
            Written::Intervals(all) => {
                all.iter().try_for_each(|interval| zone(&interval.zone).map(drop))?;
                Ok(Plan::Intervals(all))
            }
        }
    }
}

impl From<Plan> for Written {
    fn from(plan: Plan) -> Written {
        match plan {
            Plan::Once { start, end } => Written::Once { start, end },
            Plan::Recurring(recurring) => recurring.written,
            Plan::Intervals(all) => Written::Intervals(all),
        }
    }
}

impl Plan {
    pub fn at(&self, at: Timestamp) -> Standing {
        match self {
            Plan::Once { start, .. } if at < *start => Standing { is_in_force: false, until: Some(*start) },
            Plan::Once { end, .. } if at < *end => Standing { is_in_force: true, until: Some(*end) },
            Plan::Once { .. } => Standing { is_in_force: false, until: None },
            Plan::Recurring(recurring) => recurring.at(at),
            // All of its ends are whole minutes.
            Plan::Intervals(all) => Standing {
                is_in_force: all.iter().any(|interval| interval.holds(at)),
                until: Some(at.next(Span::from_mins(1))),
            },
        }
    }

    /// The next spans in which it is in force, the present one included.
    pub fn next(&self, at: Timestamp, count: usize) -> Vec<(Timestamp, Timestamp)> {
        let mut looks = LOOKS_MAX;
        self.next_within(at, count, &mut looks)
    }

    /// The same, at most as far as so many looks reach; those made are taken off.
    pub fn next_within(&self, at: Timestamp, count: usize, looks: &mut usize) -> Vec<(Timestamp, Timestamp)> {
        match self {
            Plan::Once { start, end } if at < *end => vec![(*start, *end)],
            Plan::Once { .. } => Vec::new(),
            Plan::Recurring(recurring) => {
                recurring.spans(at).filter(|(_, end)| *end > at).take(count).collect()
            }
            Plan::Intervals(all) => next_by_minutes(all, at, count, looks),
        }
    }

    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let of = |one: &Interval| {
            let ranges = [one.times.len(), one.weekdays.len(), one.days_of_month.len(), one.months.len()];
            let ranges = ranges.iter().sum::<usize>() + one.years.len();
            size_of::<Interval>() + one.zone.len() + ranges * size_of::<(u32, u32)>()
        };
        match self {
            Plan::Once { .. } => size_of::<Plan>(),
            Plan::Recurring(one) => size_of::<Recurring>() + one.except.len() * size_of::<NaiveDateText>(),
            Plan::Intervals(all) => all.iter().map(of).sum(),
        }
    }
}

/// Minute by minute over the days on which one of the intervals may hold; a year at most.
fn next_by_minutes(
    all: &[Interval],
    at: Timestamp,
    count: usize,
    looks: &mut usize,
) -> Vec<(Timestamp, Timestamp)> {
    let (minute, day) = (Span::from_mins(1), Span::from_hours(24));
    let begin = at.floor(minute);
    let (mut spans, mut begun, mut today, mut now) = (Vec::new(), None, Vec::new(), begin);
    while spans.len() < count && now < begin + day * 366 && *looks > 0 {
        let midnight = now.floor(day);
        if now == begin || now == midnight {
            today = all.iter().filter_map(|interval| interval.of_day(midnight)).collect();
            *looks = looks.saturating_sub(all.len());
        }
        *looks = looks.saturating_sub(today.len());
        let holds = today.iter().any(|(interval, zone)| interval.holds_in(*zone, now));
        match (holds, begun) {
            (true, None) => begun = Some(now),
            (false, Some(start)) => {
                spans.push((start, now));
                begun = None;
            }
            _ => {}
        }
        now = if today.is_empty() { midnight + day } else { now + minute };
    }
    // It goes on beyond what was looked at.
    spans.extend(begun.filter(|_| spans.len() < count).map(|start| (start, now)));
    spans
}

fn zone(name: &str) -> Result<Tz, PlanError> {
    let name = if name.is_empty() { "UTC" } else { name };
    name.parse().map_err(|_| PlanError::Zone(name.into()))
}

/// Whether one question may have to look at more starts than [`STARTS_MAX`]. All days of a pattern are alike: those of
/// its first one, as many days as a span lasts, and one at each end for changes of the clock.
fn has_too_many_starts(cron: &Cron, duration: Span) -> bool {
    let days = duration.ms() / TimeDelta::days(1).num_milliseconds() + 3;
    let starts_max = STARTS_MAX as i64 / days; // of a day
    if starts_max >= TimeDelta::days(1).num_minutes() {
        return false;
    }
    let mut starts = cron.iter_after(DateTime::<Utc>::UNIX_EPOCH.naive_utc());
    let Some(first) = starts.next() else { return false };
    let others = starts.take_while(|start| start.date() == first.date()).take(starts_max as usize);
    1 + others.count() as i64 > starts_max
}

impl Recurring {
    fn new(written: Written) -> Result<Recurring, PlanError> {
        let Written::Recurring { schedule, duration, zone: name, except } = &written else {
            return Err(PlanError::Backwards);
        };
        if !duration.is_positive() {
            return Err(PlanError::Backwards);
        }
        // Nobody plans by the second, and each day would have more starts than are looked at.
        let cron = CronParser::builder().seconds(Seconds::Disallowed).build().parse(schedule);
        let cron = cron.map_err(|error| PlanError::Cron(schedule.clone(), error.to_string()))?;
        if has_too_many_starts(&cron, *duration) {
            return Err(PlanError::Endless(schedule.clone()));
        }
        let date = |text: &String| text.parse().map_err(|_| PlanError::Date(text.clone()));
        let except = except.iter().map(date).collect::<Result<_, _>>()?;
        let (zone, duration) = (zone(name)?, *duration);
        Ok(Recurring { written, cron, duration, zone, except })
    }

    fn at(&self, at: Timestamp) -> Standing {
        let mut end = None;
        for (start, stop) in self.spans(at) {
            if start > at {
                let until = end.unwrap_or(start);
                return Standing { is_in_force: end.is_some(), until: Some(until) };
            }
            if stop > at {
                end = end.max(Some(stop));
            }
        }
        Standing { is_in_force: end.is_some(), until: end }
    }

    /// Spans in order of their start, from one that is over at `at` on.
    fn spans(&self, at: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let duration = TimeDelta::milliseconds(self.duration.ms());
        let mut cursor = self.wall(at).and_then(|wall| wall.checked_sub_signed(duration));
        // A change of the clock moves a day at the very most.
        cursor = cursor.and_then(|wall| wall.checked_sub_days(Days::new(1)));
        let starts = std::iter::from_fn(move || {
            cursor = self.cron.find_next_occurrence(&cursor?, false).ok();
            cursor
        });
        let is_planned = |start: &NaiveDateTime| !self.except.contains(&start.date());
        starts.take(STARTS_MAX).filter(is_planned).filter_map(move |start| {
            let begins = self.begin(start)?;
            // Where the start is skipped, the wall shows a later time then: the duration counts from there.
            let shown = self.wall(begins)?.max(start);
            Some((begins, self.end(shown.checked_add_signed(duration)?)?))
        })
    }

    fn wall(&self, at: Timestamp) -> Option<NaiveDateTime> {
        Some(DateTime::<Utc>::from_timestamp_millis(at.ms())?.with_timezone(&self.zone).naive_local())
    }

    /// When a span begins that is planned for a time on the wall: of two instants the first, of none the next.
    fn begin(&self, wall: NaiveDateTime) -> Option<Timestamp> {
        let found = match self.zone.from_local_datetime(&wall) {
            LocalResult::Single(first) | LocalResult::Ambiguous(first, _) => first.timestamp_millis(),
            LocalResult::None => self.after_the_gap(wall)?,
        };
        Timestamp::from_ms(found)
    }

    /// When a span ends: after the last instant at which the wall shows less. So a repeated hour that begins where
    /// the span ends is no part of it.
    fn end(&self, wall: NaiveDateTime) -> Option<Timestamp> {
        let before = wall.checked_sub_signed(TimeDelta::milliseconds(1))?;
        let found = match self.zone.from_local_datetime(&before) {
            LocalResult::Single(last) | LocalResult::Ambiguous(_, last) => last.timestamp_millis() + 1,
            LocalResult::None => self.after_the_gap(before)?,
        };
        Timestamp::from_ms(found)
    }

    /// The first instant at which the wall shows this time or a later one.
    fn after_the_gap(&self, wall: NaiveDateTime) -> Option<i64> {
        let (day, utc) = (TimeDelta::days(1).num_milliseconds(), wall.and_utc().timestamp_millis());
        let (mut before, mut after) = (utc - 2 * day, utc + 2 * day);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            let shown = self.wall(Timestamp::from_ms(middle)?)?;
            if shown >= wall { after = middle } else { before = middle }
        }
        Some(after)
    }
}

impl Interval {
    /// It and its zone, if the date that its wall shows within a day of UTC may be one of its dates.
    fn of_day(&self, midnight: Timestamp) -> Option<(&Interval, Tz)> {
        let utc = DateTime::<Utc>::from_timestamp_millis(midnight.ms())?.naive_utc();
        let dates = [-1, 0, 1].map(|days| utc.checked_add_signed(TimeDelta::days(days)));
        let may_hold = dates.into_iter().flatten().any(|date| self.is_date(date));
        Some((self, zone(&self.zone).ok()?)).filter(|_| may_hold)
    }

    fn holds(&self, at: Timestamp) -> bool {
        zone(&self.zone).is_ok_and(|zone| self.holds_in(zone, at))
    }

    fn holds_in(&self, zone: Tz, at: Timestamp) -> bool {
        let Some(utc) = DateTime::<Utc>::from_timestamp_millis(at.ms()) else { return false };
        let wall = utc.with_timezone(&zone).naive_local();
        let minute = wall.hour() * 60 + wall.minute();
        let is_time =
            self.times.is_empty() || self.times.iter().any(|(from, to)| (*from..*to).contains(&minute));
        is_time && self.is_date(wall)
    }

    fn is_date(&self, wall: NaiveDateTime) -> bool {
        let within = |ranges: &[(u32, u32)], value: u32| {
            ranges.is_empty() || ranges.iter().any(|(from, to)| (*from..=*to).contains(&value))
        };
        within(&self.weekdays, wall.weekday().num_days_from_sunday())
            && within(&self.months, wall.month())
            && (self.years.is_empty()
                || self.years.iter().any(|(from, to)| (*from..=*to).contains(&wall.year())))
            && self.is_day(wall)
    }

    fn is_day(&self, wall: NaiveDateTime) -> bool {
        let last = days_in_month(wall.year(), wall.month());
        let day = |day: i32| if day < 0 { last + 1 + day } else { day };
        let today = wall.day() as i32;
        self.days_of_month.is_empty()
            || self.days_of_month.iter().any(|(from, to)| (day(*from)..=day(*to)).contains(&today))
    }
}

fn days_in_month(year: i32, month: u32) -> i32 {
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let last = NaiveDate::from_ymd_opt(year, month, 1).and_then(|first| first.pred_opt());
    last.map_or(31, |last| last.day() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn at(text: &str) -> Timestamp {
        Timestamp::clamped(DateTime::parse_from_rfc3339(text).expect("a time").timestamp_millis())
    }

    fn weekly(schedule: &str, hours: i64, zone: &str, except: &[&str]) -> Plan {
        recurring(schedule, Span::from_hours(hours), zone, except)
    }

    fn recurring(schedule: &str, duration: Span, zone: &str, except: &[&str]) -> Plan {
        let written = Written::Recurring {
            schedule: schedule.into(),
            duration,
            zone: zone.into(),
            except: except.iter().map(|date| date.to_string()).collect(),
        };
        Plan::try_from(written).expect("a plan")
    }

    fn is_in_force(plan: &Plan, text: &str) -> bool {
        plan.at(at(text)).is_in_force
    }

    #[test]
    fn what_hardly_ever_comes_costs_little_and_what_never_ends_is_there() {
        let never = Interval { months: vec![(2, 2)], days_of_month: vec![(30, 30)], ..Interval::default() };
        let friday = Interval { weekdays: vec![(5, 5)], times: vec![(600, 660)], ..Interval::default() };
        let all = [vec![never; 255], vec![friday.clone()]].concat();
        let now = at("2026-11-07T00:00:00Z");
        let mut looks = LOOKS_MAX;
        let found = Plan::Intervals(all).next_within(now, 1, &mut looks);
        assert!(looks > 0, "the days on which nothing can hold are passed over");
        assert_eq!(found[0].0, at("2026-11-13T10:00:00Z"));
        let found = Plan::Intervals(vec![friday]).next(now, 2);
        assert_eq!(found[1], (at("2026-11-20T10:00:00Z"), at("2026-11-20T11:00:00Z")));
        let always = Plan::Intervals(vec![Interval::default()]).next(now, 2);
        assert!(always.len() == 1 && always[0].0 == now);
    }

    /// Each second of a day, and each minute of a week, are more starts than are looked at: such a window was taken
    /// and never in force.
    #[test]
    fn what_begins_too_often_is_refused() {
        let plan = |schedule: &str, duration: Span| {
            let (schedule, zone, except) = (schedule.into(), "UTC".into(), Vec::new());
            Plan::try_from(Written::Recurring { schedule, duration, zone, except })
        };
        let (minute, week) = (Span::from_mins(1), Span::from_hours(24 * 7));
        assert!(matches!(plan("* * * * * *", minute), Err(PlanError::Cron(..))));
        assert!(matches!(plan("* * * * *", week), Err(PlanError::Endless(_))));
        assert!(matches!(plan("* 9-17 * * MON", week * 3), Err(PlanError::Endless(_))));
        for (schedule, duration) in
            [("* * * * *", minute), ("*/30 * * * *", week), ("0 22 * * FRI", week * 50)]
        {
            let plan = plan(schedule, duration).expect("few enough");
            assert!(is_in_force(&plan, "2026-11-06T22:00:30Z"), "{schedule}");
        }
        assert!(plan("0 0 30 2 *", week).is_ok(), "what never comes");
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_of_its_start() {
        let plan = weekly("0 22 * * FRI", 4, "Europe/Berlin", &["2026-12-25"]);
        assert!(!is_in_force(&plan, "2026-11-06T20:59:59Z") && is_in_force(&plan, "2026-11-06T21:00:00Z"));
        assert!(is_in_force(&plan, "2026-11-07T00:59:59Z") && !is_in_force(&plan, "2026-11-07T01:00:00Z"));
        assert!(!is_in_force(&plan, "2026-12-25T21:30:00Z") && !is_in_force(&plan, "2026-12-26T00:30:00Z"));
        assert_eq!(plan.at(at("2026-11-06T22:00:00Z")).until, Some(at("2026-11-07T01:00:00Z")));
        assert_eq!(plan.at(at("2026-11-07T02:00:00Z")).until, Some(at("2026-11-13T21:00:00Z")));
        assert_eq!(plan.next(at("2026-12-19T00:00:00Z"), 2)[1].0, at("2027-01-01T21:00:00Z"));
    }

    #[test]
    fn skipped_starts_come_next_and_repeated_hours_count_once_and_whole() {
        // Berlin 2026: 29 March skips 2 to 3, 25 October repeats it.
        let early = weekly("30 2 * * *", 1, "Europe/Berlin", &[]);
        assert!(!is_in_force(&early, "2026-03-29T00:59:59Z") && is_in_force(&early, "2026-03-29T01:00:00Z"));
        assert_eq!(early.at(at("2026-03-29T01:10:00Z")).until, Some(at("2026-03-29T02:00:00Z")));
        let skipped = weekly("0 2 * * SUN", 1, "Europe/Berlin", &[]);
        let hour = (at("2026-03-29T01:00:00Z"), at("2026-03-29T02:00:00Z"));
        assert_eq!(skipped.next(at("2026-03-28T00:00:00Z"), 1), [hour], "it lasts an hour, not nothing");
        let starts = |plan: &Plan| plan.next(at("2026-10-24T23:00:00Z"), 2);
        assert_eq!(starts(&early)[0], (at("2026-10-25T00:30:00Z"), at("2026-10-25T02:30:00Z")));
        assert_eq!(starts(&early)[1].0, at("2026-10-26T01:30:00Z"));
        let before = weekly("0 1 * * *", 1, "Europe/Berlin", &[]);
        let hour = (at("2026-10-24T23:00:00Z"), at("2026-10-25T00:00:00Z"));
        assert_eq!(starts(&before)[0], hour, "the hour that repeats begins where it ends");
        let night = weekly("0 0 * * *", 4, "Europe/Berlin", &[]);
        let (start, end) = night.next(at("2026-10-24T22:00:00Z"), 1)[0];
        assert_eq!((start, end - start), (at("2026-10-24T22:00:00Z"), Span::from_hours(5)));
    }

    /// Every change of every zone from 2020 to 2035, against a clock that is read once a minute.
    #[test]
    fn all_changes_of_all_zones() {
        let mut known = BTreeSet::new();
        for zone in chrono_tz::TZ_VARIANTS.iter().copied() {
            let changes = changes(zone);
            let turned = |change: &Timestamp| {
                (*change, offset(zone, *change - Span::MILLISECOND), offset(zone, *change))
            };
            if !known.insert(changes.iter().map(turned).collect::<Vec<_>>()) {
                continue; // another name of a clock that was looked at
            }
            for minutes in [15, 60, 240] {
                let duration = Span::from_mins(minutes);
                let plan = recurring("*/15 * * * *", duration, zone.name(), &[]);
                changes.iter().for_each(|change| compare(&plan, zone, *change, duration));
            }
        }
        assert!(known.len() > 30, "only {} different clocks", known.len());
    }

    fn compare(plan: &Plan, zone: Tz, change: Timestamp, duration: Span) {
        let Plan::Recurring(recurring) = plan else { unreachable!("it is one") };
        let (from, to) = (change - Span::from_hours(3), change + Span::from_hours(3));
        let spans = recurring.spans(from).skip_while(|span| span.0 < from);
        let found: Vec<_> = spans.take_while(|span| span.0 < to).collect();
        let expected = read_each_minute(zone, change, duration);
        let expected: Vec<_> = expected.into_iter().filter(|span| (from..to).contains(&span.0)).collect();
        assert_eq!(found, expected, "{zone} {change} {duration}");
        for (start, end) in found {
            let has_change_inside = start < change && change <= end;
            assert!(
                has_change_inside || end - start == duration,
                "{zone} {change} {duration}: {start} {end}"
            );
        }
        // A span for each quarter of an hour leaves nothing out, however the clock is turned.
        for now in [change - Span::MILLISECOND, change, change + Span::from_hours(1)] {
            assert!(plan.at(now).is_in_force, "{zone} {change} {now}");
        }
    }

    /// Spans for each quarter of an hour: they begin the first time that the wall shows their start or a later
    /// time, and end after the last time that it shows less than a duration more than it showed then.
    fn read_each_minute(zone: Tz, change: Timestamp, duration: Span) -> Vec<(Timestamp, Timestamp)> {
        let (begin, minute, quarter) =
            (change - Span::from_hours(6), Span::from_mins(1), Span::from_mins(15));
        let read = |now: Timestamp| (now, now + offset(zone, now));
        let clock: Vec<(Timestamp, Timestamp)> =
            (0..18 * 60).map(|minutes| read(begin + minute * minutes)).collect();
        let first = clock[0].1.next(quarter);
        let spans = (0..13 * 4).filter_map(|quarters| {
            let start = first + quarter * quarters;
            let (begins, shown) = clock.iter().find(|(_, wall)| *wall >= start).copied()?;
            let last = clock.iter().rposition(|(_, wall)| *wall < shown + duration)?;
            Some((begins, clock.get(last + 1)?.0))
        });
        spans.collect()
    }

    /// What the wall shows more than UTC.
    fn offset(zone: Tz, at: Timestamp) -> Span {
        use chrono::Offset;
        let utc = DateTime::<Utc>::from_timestamp_millis(at.ms()).expect("a time").naive_utc();
        Span::from_secs(i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()))
    }

    /// The instants at which a zone's offset changes.
    fn changes(zone: Tz) -> Vec<Timestamp> {
        const WEEKS: i64 = 835; // 2020 to 2035
        let (week, begin) = (Span::from_hours(7 * 24), at("2020-01-01T00:00:00Z"));
        let mut found = Vec::new();
        for step in 0..WEEKS {
            let (mut low, mut high) = (begin + week * step, begin + week * (step + 1));
            if offset(zone, low) == offset(zone, high) {
                continue;
            }
            let before = offset(zone, low);
            while high - low > Span::MILLISECOND {
                let middle = low + Span::from_ms((high - low).ms() / 2);
                if offset(zone, middle) == before { low = middle } else { high = middle }
            }
            found.push(high);
        }
        found
    }

    #[test]
    fn intervals_are_those_of_alertmanager() {
        let office = Interval {
            times: vec![(9 * 60, 17 * 60)],
            weekdays: vec![(1, 5)],
            zone: "Europe/Berlin".into(),
            ..Interval::default()
        };
        let month_end = Interval { days_of_month: vec![(-1, -1)], ..Interval::default() };
        let plan = Plan::Intervals(vec![office, month_end]);
        assert!(is_in_force(&plan, "2026-11-06T08:00:00Z") && !is_in_force(&plan, "2026-11-06T07:59:00Z"));
        assert!(!is_in_force(&plan, "2026-11-07T10:00:00Z") && is_in_force(&plan, "2026-02-28T23:00:00Z"));
        assert_eq!(plan.next(at("2026-11-06T12:00:00Z"), 2)[1].0, at("2026-11-09T08:00:00Z"));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let written = |schedule: &str, zone: &str, except: &str| Written::Recurring {
            schedule: schedule.into(),
            duration: Span::from_hours(1),
            zone: zone.into(),
            except: vec![except.into()],
        };
        let error = |written: Written| Plan::try_from(written).expect_err("refused").to_string();
        assert!(error(written("0 25 * * *", "UTC", "2026-01-01")).contains("cron"));
        assert!(error(written("0 1 * * *", "Europe/Berln", "2026-01-01")).contains("time zone"));
        assert!(error(written("0 1 * * *", "UTC", "25.12.2026")).contains("date"));
        let once = Written::Once { start: at("2026-01-02T00:00:00Z"), end: at("2026-01-01T00:00:00Z") };
        assert!(error(once).contains("ends before"));
    }
}
