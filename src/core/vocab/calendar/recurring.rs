//! Spans of wall clock time at each match of a cron pattern.
//!
//! Invariant: a pattern is evaluated only if it matches at all, and if one query examines at most
//! `STARTS_MAX` starts.

use super::super::time::{Span, Timestamp};
use super::{PlanError, Standing, Written, zone};
use chrono::offset::LocalResult;
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use std::ops::Range;

/// Maximum number of starts that one query examines. A window of two days that begins each minute has fewer.
const STARTS_MAX: usize = 10_000;

/// A span of wall clock time at each match of a cron pattern. A span belongs to the day of its start, and
/// `except` removes it by that date.
#[derive(Debug, Clone)]
pub struct Recurring {
    pub(super) written: Written,
    /// The pattern of the starts, or the reason for which it cannot be evaluated.
    pub(super) cron: Result<Cron, PlanError>,
    pub(super) duration: Span,
    pub(super) zone: Tz,
    pub(super) except: Vec<NaiveDate>,
}

impl PartialEq for Recurring {
    fn eq(&self, other: &Recurring) -> bool {
        self.written == other.written
    }
}

/// The reason for which the starts of a pattern cannot be evaluated. A log that holds such a plan is
/// processed without it.
fn trouble(cron: &Cron, schedule: &str, duration: Span) -> Option<PlanError> {
    if !comes(cron) {
        // The cron library would search thousands of years for a start at each query.
        return Some(PlanError::Never(schedule.into()));
    }
    let has_seconds = schedule.split_whitespace().count() > CRON_FIELDS;
    has_too_many_starts(cron, has_seconds, duration).then(|| PlanError::Endless(schedule.into()))
}

/// Minute, hour, day of the month, month, day of the week. A sixth field before these is the second.
const CRON_FIELDS: usize = 5;

/// The years searched for a match. In these years each date falls on each weekday. A year in the seventh field
/// must be one of them, because nobody plans further ahead.
const CALENDAR_YEARS: Range<i32> = 2000..2128;

/// Whether a pattern has any start: a matching second, minute and hour on a matching day.
fn comes(cron: &Cron) -> bool {
    let of = &cron.pattern;
    let time = || {
        let hour = (0..24).find(|hour| of.hour_match(*hour).unwrap_or(false))?;
        let minute = (0..60).find(|minute| of.minute_match(*minute).unwrap_or(false))?;
        let second = (0..60).find(|second| of.second_match(*second).unwrap_or(false))?;
        NaiveTime::from_hms_opt(hour, minute, second)
    };
    let Some(time) = time() else { return false };
    let first = NaiveDate::from_ymd_opt(CALENDAR_YEARS.start, 1, 1);
    let days = first.into_iter().flat_map(|first| first.iter_days());
    let mut days = days.take_while(|day| CALENDAR_YEARS.contains(&day.year()));
    days.any(|day| cron.is_time_matching(&day.and_time(time)).unwrap_or(false))
}

/// Whether one query may have to examine more than [`STARTS_MAX`] starts. All matching days of a pattern have
/// the same number of starts, so those of the first day are counted. A query covers as many days as a span
/// lasts, and one more at each end for clock changes.
fn has_too_many_starts(cron: &Cron, has_seconds: bool, duration: Span) -> bool {
    let days = duration.ms() / TimeDelta::days(1).num_milliseconds() + 3;
    let starts_max = STARTS_MAX as i64 / days; // per day
    if !has_seconds && starts_max >= TimeDelta::days(1).num_minutes() {
        return false;
    }
    let mut starts = cron.iter_after(DateTime::<Utc>::UNIX_EPOCH.naive_utc());
    let Some(first) = starts.next() else { return false };
    let others = starts.take_while(|start| start.date() == first.date()).take(starts_max as usize);
    1 + others.count() as i64 > starts_max
}

impl Recurring {
    pub(super) fn new(written: Written) -> Result<Recurring, PlanError> {
        let Written::Recurring { schedule, duration, zone: name, except } = &written else {
            return Err(PlanError::Backwards);
        };
        if !duration.is_positive() {
            return Err(PlanError::Backwards);
        }
        let cron = schedule.parse::<Cron>();
        let cron = cron.map_err(|error| PlanError::Cron(schedule.clone(), error.to_string()))?;
        let cron = match trouble(&cron, schedule, *duration) {
            Some(trouble) => Err(trouble),
            None => Ok(cron),
        };
        let date = |text: &String| text.parse().map_err(|_| PlanError::Date(text.clone()));
        let except = except.iter().map(date).collect::<Result<_, _>>()?;
        let (zone, duration) = (zone(name)?, *duration);
        Ok(Recurring { written, cron, duration, zone, except })
    }

    pub(super) fn at(&self, at: Timestamp) -> Standing {
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

    /// Spans in order of their start. The first ones may end before `at`; every span that contains `at` is
    /// included.
    pub(super) fn spans(&self, at: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let duration = TimeDelta::milliseconds(self.duration.ms());
        let mut cursor = self.wall(at).and_then(|wall| wall.checked_sub_signed(duration));
        // A clock change shifts the wall clock by at most one day.
        cursor = cursor.and_then(|wall| wall.checked_sub_days(Days::new(1)));
        let starts = std::iter::from_fn(move || {
            cursor = self.cron.as_ref().ok()?.find_next_occurrence(&cursor?, false).ok();
            cursor
        });
        let is_planned = |start: &NaiveDateTime| !self.except.contains(&start.date());
        starts.take(STARTS_MAX).filter(is_planned).filter_map(move |start| {
            let begins = self.begin(start)?;
            // If a clock change skips the start, the wall clock shows a later time at `begins`. The duration
            // is counted from that time.
            let shown = self.wall(begins)?.max(start);
            Some((begins, self.end(shown.checked_add_signed(duration)?)?))
        })
    }

    fn wall(&self, at: Timestamp) -> Option<NaiveDateTime> {
        Some(DateTime::<Utc>::from_timestamp_millis(at.ms())?.with_timezone(&self.zone).naive_local())
    }

    /// The instant at which a span with this wall clock start begins: the first of two instants, or the next
    /// valid instant if there is none.
    fn begin(&self, wall: NaiveDateTime) -> Option<Timestamp> {
        let found = match self.zone.from_local_datetime(&wall) {
            LocalResult::Single(first) | LocalResult::Ambiguous(first, _) => first.timestamp_millis(),
            LocalResult::None => self.after_the_gap(wall)?,
        };
        Timestamp::from_ms(found)
    }

    /// The instant at which a span ends: just after the last instant at which the wall clock shows an earlier
    /// time. A repeated hour that begins at the end of the span is therefore not part of it.
    fn end(&self, wall: NaiveDateTime) -> Option<Timestamp> {
        let before = wall.checked_sub_signed(TimeDelta::milliseconds(1))?;
        let found = match self.zone.from_local_datetime(&before) {
            LocalResult::Single(last) | LocalResult::Ambiguous(_, last) => last.timestamp_millis() + 1,
            LocalResult::None => self.after_the_gap(before)?,
        };
        Timestamp::from_ms(found)
    }

    /// The first instant at which the wall clock shows this time or a later one.
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
