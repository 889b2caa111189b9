use super::*;
use chrono::TimeZone;
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

/// Goal: a schedule with more starts than one query examines is refused; such a window was once accepted and
/// never in force. Method: starts each second, and starts each minute that last a week, beside schedules with
/// fewer starts.
#[test]
fn what_begins_too_often_is_refused() {
    let plan = |schedule: &str, duration: Span| {
        let (schedule, zone, except) = (schedule.into(), "UTC".into(), Vec::new());
        Plan::try_from(Written::Recurring { schedule, duration, zone, except })
    };
    let (minute, week) = (Span::from_mins(1), Span::from_hours(24 * 7));
    let trouble = |schedule: &str, duration: Span| {
        let plan = plan(schedule, duration).expect("a log may hold it");
        assert!(!is_in_force(&plan, "2026-11-06T22:00:30Z"), "{schedule}");
        plan.trouble().cloned()
    };
    assert!(matches!(trouble("* * * * * *", minute), Some(PlanError::Endless(_))));
    assert!(matches!(trouble("* * * * *", week), Some(PlanError::Endless(_))));
    assert!(matches!(trouble("* 9-17 * * MON", week * 3), Some(PlanError::Endless(_))));
    for (schedule, duration) in
        [("* * * * *", minute), ("*/30 * * * *", week), ("0 22 * * FRI", week * 50), ("0 0 22 * * FRI", week)]
    {
        let plan = plan(schedule, duration).expect("few enough");
        assert!(is_in_force(&plan, "2026-11-06T22:00:30Z"), "{schedule}");
        assert_eq!(plan.trouble(), None);
    }
    for never in [", * * * *", "0 0 30 2 *", "0 0 31 2,4,6,9,11 *"] {
        assert!(matches!(trouble(never, minute), Some(PlanError::Never(_))), "{never}");
    }
    for rare in ["0 0 29 2 MON", "0 0 0 1 1 * 2031"] {
        assert!(plan(rare, minute).expect("now and then").trouble().is_none(), "{rare}");
    }
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
    // Berlin 2026: on 29 March the clock skips the hour from 2 to 3, on 25 October it repeats this hour.
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

/// Goal: every clock change of every zone from 2020 to 2035 is converted correctly. Method: comparison with a
/// wall clock that is read once a minute.
#[test]
fn all_changes_of_all_zones() {
    let mut known = BTreeSet::new();
    for zone in chrono_tz::TZ_VARIANTS.iter().copied() {
        let changes = changes(zone);
        let turned =
            |change: &Timestamp| (*change, offset(zone, *change - Span::MILLISECOND), offset(zone, *change));
        if !known.insert(changes.iter().map(turned).collect::<Vec<_>>()) {
            continue; // another name of a zone that has been compared
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
        assert!(has_change_inside || end - start == duration, "{zone} {change} {duration}: {start} {end}");
    }
    // With one span per quarter of an hour every instant is covered, however the clock changes.
    for now in [change - Span::MILLISECOND, change, change + Span::from_hours(1)] {
        assert!(plan.at(now).is_in_force, "{zone} {change} {now}");
    }
}

/// The expected spans for each quarter of an hour. A span begins when the wall clock first shows its start or
/// a later time. It ends after the last time at which the wall clock shows less than its time at the
/// beginning plus the duration.
fn read_each_minute(zone: Tz, change: Timestamp, duration: Span) -> Vec<(Timestamp, Timestamp)> {
    let (begin, minute, quarter) = (change - Span::from_hours(6), Span::from_mins(1), Span::from_mins(15));
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

/// The offset of the wall clock from UTC.
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
    let registry = Interval {
        times: vec![(9 * 60, 17 * 60)],
        weekdays: vec![(1, 5)],
        zone: "Europe/Berlin".into(),
        ..Interval::default()
    };
    let month_end = Interval { days_of_month: vec![(-1, -1)], ..Interval::default() };
    let plan = Plan::Intervals(vec![registry, month_end]);
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
