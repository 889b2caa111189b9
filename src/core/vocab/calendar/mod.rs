//! Plans: the times at which a maintenance window or an escalation step is in force. A plan is one span, a
//! cron pattern with a duration, or Alertmanager's time intervals.
//!
//! Intuition: people plan by wall clock time. A plan is a set of wall clock spans, and the start and the end
//! of each are converted to instants separately. Invariant: a start that a clock change skips moves to the
//! next valid instant, and the span keeps its whole duration, counted from the wall clock time at that
//! instant. A start that occurs twice counts the first time. An hour that repeats within a span is covered
//! both times by that one span, because the end is a wall clock time as well. Rejected: durations in elapsed
//! time (a window until 4 o'clock would end at 3 or 5 o'clock twice a year), the end of a skipped start
//! counted from the planned start (a window from 2 to 3 o'clock would be empty on the day that skips this
//! hour), and the cron library's own instants (it treats these hours differently).

mod recurring;

use super::time::{Span, Timestamp};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
pub use recurring::Recurring;
use serde::{Deserialize, Serialize};

/// Maximum number of interval checks that one query makes; they take about 20 ms.
const LOOKS_MAX: usize = 200_000;

/// A plan that has been checked and can be queried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Plan {
    Once { start: Timestamp, end: Timestamp },
    Recurring(Box<Recurring>),
    Intervals(Vec<Interval>),
}

/// The serialised form of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    Once { start: Timestamp, end: Timestamp },
    Recurring { schedule: String, duration: Span, zone: String, except: Vec<NaiveDateText> },
    Intervals(Vec<Interval>),
}

type NaiveDateText = String;

/// One of Alertmanager's `time_intervals`: every field that is given must match, and an empty field always
/// matches.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Interval {
    /// Ranges of minutes of the day, the start included, the end excluded.
    pub times: Vec<(u32, u32)>,
    /// Ranges of weekdays; Sunday is 0.
    pub weekdays: Vec<(u32, u32)>,
    /// Ranges of days, from 1; −1 is the last day of the month.
    pub days_of_month: Vec<(i32, i32)>,
    pub months: Vec<(u32, u32)>,
    pub years: Vec<(i32, i32)>,
    pub zone: String,
}

/// The reason for which a plan is refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
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
    #[error("`{0}` never comes")]
    Never(String),
}

/// The state of a plan at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub is_in_force: bool,
    /// The time at which the state may change; `None`: never.
    pub until: Option<Timestamp>,
}

impl Plan {
    /// The error of a recurring plan that never begins, or has too many starts. A log may hold such a plan;
    /// it is then never in force.
    pub fn trouble(&self) -> Option<&PlanError> {
        match self {
            Plan::Recurring(recurring) => recurring.cron.as_ref().err(),
            Plan::Once { .. } | Plan::Intervals(_) => None,
        }
    }
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
            // All interval bounds are whole minutes, so the state can change at the next minute at the
            // earliest.
            Plan::Intervals(all) => Standing {
                is_in_force: all.iter().any(|interval| interval.holds(at)),
                until: Some(at.next(Span::from_mins(1))),
            },
        }
    }

    /// The next `count` spans in which the plan is in force, including the current one. The search ends after
    /// 366 days. A span that lasts longer gets the greatest timestamp as its end.
    pub fn next(&self, at: Timestamp, count: usize) -> Vec<(Timestamp, Timestamp)> {
        let mut looks = LOOKS_MAX;
        self.next_within(at, count, &mut looks)
    }

    /// Like [`Plan::next`], but makes at most `looks` interval checks and subtracts the checks made.
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

    /// The approximate memory of the plan in bytes.
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

/// Searches minute by minute through the days on which an interval may match, at most 366 days ahead.
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
    // The last span continues beyond the search, so its end is not known.
    spans.extend(begun.filter(|_| spans.len() < count).map(|start| (start, Timestamp::MAX)));
    spans
}

fn zone(name: &str) -> Result<Tz, PlanError> {
    let name = if name.is_empty() { "UTC" } else { name };
    name.parse().map_err(|_| PlanError::Zone(name.into()))
}

impl Interval {
    /// Returns whether any of the interval's months has any of its days.
    pub fn has_days(&self) -> bool {
        const LENGTHS: [i32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let may_be = |(month, length): (usize, i32)| {
            let is_month = |(from, to): &(u32, u32)| (*from..=*to).contains(&(month as u32 + 1));
            let is_day = |(from, _): &(i32, i32)| from.abs() <= length;
            (self.months.is_empty() || self.months.iter().any(is_month))
                && (self.days_of_month.is_empty() || self.days_of_month.iter().any(is_day))
        };
        LENGTHS.into_iter().enumerate().any(may_be)
    }

    /// The interval and its zone, if a date within one day of this UTC date can match. The local date differs
    /// from the UTC date by at most one day.
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
mod tests;
