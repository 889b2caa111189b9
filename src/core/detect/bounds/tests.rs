use super::super::dice::Dice;
use super::super::regression::{Errors, Past, Profile, Reference};
use super::super::shares::may_be_shares;
use super::super::sorted::Sorted;
use super::super::{anomaly, zscore};
use super::*;

/// Whether the counts that are updated window by window equal the counts computed anew.
pub(crate) fn is_counted(bounds: &Bounds, windows: &[Window], means: &[f64]) -> bool {
    let mut anew = Bounds { tails: Tails::default(), no_shares: 0, ..bounds.clone() };
    [&mut anew.values, &mut anew.p50, &mut anew.log].into_iter().for_each(Middle::empty);
    [&mut anew.ends, &mut anew.slow].into_iter().for_each(Ends::empty);
    windows.iter().for_each(|window| anew.count(window, Turn::Comes));
    means.iter().for_each(|mean| anew.count_mean(*mean, Turn::Comes));
    let counted = |it: &Bounds| {
        let (low, high) = it.moments.bounds(it.windows()).0;
        let middles = format!("{:?}{:?}{:?}", it.values, it.p50, it.log);
        (format!("{middles} {:?}{:?} {}", it.ends, it.slow, it.no_shares), low, high)
    };
    let (ours, others) = (counted(bounds), counted(&Bounds { moments: bounds.moments.clone(), ..anew }));
    let mean = windows.iter().map(|window| window.value).sum::<f64>() / windows.len() as f64;
    let is_sure = bounds.moments.holds(windows.len());
    ours.0 == others.0 && (!is_sure || (ours.1..=ours.2).contains(&mean))
}

/// Returns one window of a kind: steady, heavy-tailed, small counts, shares, mostly zero, a small spread
/// around a large mean, constant, rarely a billion times as large.
fn window(dice: &mut Dice, kind: u32) -> Window {
    let n = dice.normal();
    let value = match kind {
        0 => 100.0 + 5.0 * n,
        1 => (2.0 * n).exp(),
        2 => (3.0 + 2.0 * n).round().max(0.0),
        3 => ((0.3 + 0.1 * n) * 20.0).round().clamp(0.0, 20.0) / 20.0,
        4 if n > 1.5 => n,
        4 => 0.0,
        5 => 1e9 + n,
        6 => 7.0,
        _ if n > 2.5 => 1e11 * n,
        _ => 100.0 + n,
    };
    let count = 30 + (dice.uniform() * 90.0) as u64;
    let tail = (count as f64 * 0.1 * dice.uniform()).round() / count as f64;
    let (p50, log) = (value.abs() + 1.0, (value.abs() + 1.0).ln());
    let profile = Profile { p50, p50_error: 0.1, tail, log: Some((log, 0.02)) };
    Window { count, value, profile: (dice.uniform() < 0.9).then_some(profile) }
}

const KINDS: u32 = 8;

fn means(windows: &[Window]) -> Vec<f64> {
    anomaly::means(&values(windows)).collect()
}

fn values(windows: &[Window]) -> Vec<f64> {
    windows.iter().map(|window| window.value).collect()
}

fn is_within(value: f64, bounds: (f64, f64)) -> bool {
    bounds.0 <= value && value <= bounds.1
}

/// Adds and removes some windows.
fn change(bounds: &mut Bounds, windows: &mut Vec<Window>, dice: &mut Dice, kind: u32) {
    let before = means(windows);
    let gone = ((dice.uniform() * 4.0) as usize).min(windows.len().saturating_sub(20));
    windows.drain(..gone).for_each(|window| bounds.count(&window, Turn::Goes));
    before.iter().take(gone).for_each(|mean| bounds.count_mean(*mean, Turn::Goes));
    for _ in 0..(dice.uniform() * 4.0) as usize {
        // A new window may be of another kind than the earlier ones.
        let of = if dice.uniform() < 0.9 { kind } else { (kind + 1) % KINDS };
        let window = window(dice, of);
        windows.push(window);
        bounds.count(&window, Turn::Comes);
        means(windows).last().iter().for_each(|mean| bounds.count_mean(**mean, Turn::Comes));
    }
}

/// Goal: the baseline learned from scratch is never outside of the bounds, and the bounds recognise most
/// usual windows.
/// Method: many thousands of cases, in which some of the added windows are of another kind.
#[test]
fn what_is_learned_is_never_outside() {
    let (mut dice, mut calm, mut asked, mut anew) = (Dice(5), [0; 3], 0, 0);
    for round in 0..240 {
        let kind = round % KINDS;
        let n = 5 + (dice.uniform() * 400.0) as usize + if dice.uniform() < 0.05 { 900 } else { 0 };
        let mut windows: Vec<Window> = (0..n).map(|_| window(&mut dice, kind)).collect();
        let mut bounds = Bounds::of(windows.iter().copied(), true);
        for _ in 0..60 {
            change(&mut bounds, &mut windows, &mut dice, kind);
            assert!(is_counted(&bounds, &windows, &means(&windows)), "{round}");
            if !bounds.holds() {
                anew += u32::from(kind == 0);
                bounds = Bounds::of(windows.iter().copied(), true);
            }
            let of = if dice.uniform() < 0.8 { kind } else { (kind + 1) % KINDS };
            let now = window(&mut dice, of);
            if bounds.holds() {
                let told = check(
                    &bounds,
                    &windows,
                    &now,
                    if dice.uniform() < 0.5 { Side::Above } else { Side::Below },
                );
                let count =
                    |calm: &mut u32, is: bool, kind_of: u32| *calm += u32::from(is && kind == kind_of);
                count(&mut calm[0], told[0] && windows.len() >= anomaly::WINDOWS_MIN, 0);
                count(&mut calm[1], told[1], 0);
                count(&mut calm[2], told[2], 6);
                asked += u32::from(kind == 0);
            }
        }
    }
    assert!(calm.iter().all(|calm| calm * 4 > asked), "{calm:?} of {asked}");
    assert!(anew * 6 < asked, "{anew} of {asked}");
}

/// Compares the bounds with the learned baselines. Returns whether the bounds decided for `anomaly`, for
/// `regression`, and for counts.
fn check(bounds: &Bounds, windows: &[Window], now: &Window, side: Side) -> [bool; 3] {
    let past = Past::of(windows);
    if let Some(spread) = zscore::Reference::learn(&past.values) {
        for (told, value) in [
            (bounds.z(now.value), spread.z(now.value)),
            (bounds.robust_z(now.value), spread.robust_z(now.value)),
            (Some(bounds.bound(3.0)), Some(spread.bound(3.0))),
            (Some(bounds.bound(-2.0)), Some(spread.bound(-2.0))),
        ] {
            let is_true = told.is_none_or(|told| value.is_some_and(|value| is_within(value, told)));
            assert!(is_true, "{value:?} is outside of {told:?}");
        }
    }
    let sum = values(&windows[windows.len().saturating_sub(SLOW_WINDOWS - 1)..]).iter().sum();
    let is_usual = bounds.is_usual(now.value, sum);
    let learned = anomaly::Reference::learn(&past.values, &Sorted::of(means(windows)), sum);
    if let Some(learned) = learned.filter(|_| is_usual) {
        assert!(learned.score(now.value, None) <= 1.0 && learned.p_value(now.value) == 1.0);
    }
    let Some(learned) = Reference::learn(windows) else { return [is_usual, false, false] };
    let judge = |learned: &Reference| {
        let verdict = learned.judge(now, Errors::default(), side, None);
        (verdict.change, verdict.chance, verdict.ratio() <= 1.0)
    };
    let told = [bounds.is_unchanged(now, side), bounds.is_unchanged_count(now.value, side)];
    if told[0] {
        assert_eq!(judge(&learned), (0.0, 1.0, true), "{now:?}");
    }
    if told[1] {
        assert_eq!(judge(&learned.counting(&past.values, 1.0)), (0.0, 1.0, true), "{now:?}");
    }
    if bounds.is_unchanged_average(now, side) {
        let counted = windows.iter().map(|window| (window.count as f64, window.value));
        let learned = if may_be_shares(&past.values) { learned.sharing(counted) } else { learned };
        assert_eq!(judge(&learned), (0.0, 1.0, true), "{now:?}");
    }
    [is_usual, told[0], told[1]]
}
