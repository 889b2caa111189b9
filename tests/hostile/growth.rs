//! Valid events, each of which creates new state: the memory kept for them stays in proportion to their
//! size.

use crate::bodies::{JSON, list, metric, metric_before, now_ms, stage};
use crate::limits::SIZES;
use crate::random::Random;
use crate::trial::Trial;

/// An array of a given size; the second argument is an unused name.
struct Kind {
    name: &'static str,
    make: fn(usize, &str) -> Vec<u8>,
}

const fn kind(name: &'static str, make: fn(usize, &str) -> Vec<u8>) -> Kind {
    Kind { name, make }
}

const METRICS: &[Kind] = &[
    kind("one series", |size, tag| list(size, |_| metric(tag, "m", ""))),
    kind("sources", |size, tag| list(size, |n| metric(&format!("{tag}-{n}"), "m", ""))),
    kind("names", |size, tag| list(size, |n| metric("x", &format!("{tag}-{n}"), ""))),
    kind("label values", |size, tag| {
        list(size, |n| metric("x", "m", &format!(r#","labels":{{"a":"{tag}-{n}"}}"#)))
    }),
    kind("label names", |size, tag| {
        list(size, |n| metric("x", "m", &format!(r#","labels":{{"{tag}-{n}":"a"}}"#)))
    }),
    kind("32 labels", |size, tag| {
        let value = "v".repeat(100);
        let labels: Vec<String> = (0..32).map(|n| format!(r#""l{n}":"{value}""#)).collect();
        list(size, |n| metric(&format!("{tag}-{n}"), "m", &format!(r#","labels":{{{}}}"#, labels.join(","))))
    }),
    kind("labels in other orders", |size, tag| {
        let labels: Vec<String> = (0..16).map(|n| format!(r#""l{n}":"v""#)).collect();
        let turned = |n: usize| [&labels[n % 16..], &labels[..n % 16]].concat().join(",");
        list(size, |n| metric(tag, "m", &format!(r#","labels":{{{}}}"#, turned(n))))
    }),
    kind("ids", |size, tag| list(size, |n| metric("x", "m", &format!(r#","id":"{tag}-{n}""#)))),
    kind("units of one length", |size, tag| {
        list(size, |n| metric("x", "m", &format!(r#","unit":"{}{n:06}""#, &tag[..2])))
    }),
    kind("values of all magnitudes", |size, tag| {
        list(size, |n| {
            let sign = if n.is_multiple_of(2) { "" } else { "-" };
            let (time, exponent) = (now_ms(), n as i32 % 600 - 300);
            let of = format!(r#""time":{time},"source":"{tag}","name":"m""#);
            format!(r#"{{"type":"metric",{of},"value":{sign}1e{exponent}}}"#)
        })
    }),
    kind("each a second older", |size, tag| list(size, |n| metric_before(tag, "m", n as i64 * 1_000))),
    kind("each a minute older", |size, tag| list(size, |n| metric_before(tag, "m", n as i64 % 55 * 60_000))),
    kind("late, each of its own series", |size, tag| {
        list(size, |n| metric_before(&format!("{tag}-{n}"), "m", n as i64 % 55 * 60_000))
    }),
    kind("too late", |size, tag| list(size, |_| metric_before(tag, "m", 100_000_000))),
    kind("future", |size, tag| list(size, |_| metric_before(tag, "m", -1_000_000_000))),
];

const STAGES: &[Kind] = &[
    kind("pipelines", |size, tag| list(size, |n| stage(&format!("{tag}-{n}"), "r", "s", "started", ""))),
    kind("runs", |size, tag| list(size, |n| stage(tag, &format!("r{n}"), "s", "started", ""))),
    kind("stages", |size, tag| list(size, |n| stage(tag, "r", &format!("s{n}"), "started", ""))),
    kind("attempts", |size, tag| {
        list(size, |n| stage(tag, "r", "s", "failed", &format!(r#","attempt":{}"#, n + 1)))
    }),
    kind("legs of a matrix", |size, tag| {
        list(size, |n| stage(tag, "r", "s", "started", &format!(r#","labels":{{"leg":"{n}"}}"#)))
    }),
    kind("ended stages of many runs", wide),
    kind("ended stages of more runs", wide),
    kind("stages of few runs", |size, _| list(size, |n| broad(n, "started", now_ms()))),
    kind("progress of few runs with many stages", |size, _| {
        let now = now_ms();
        list(size, |n| broad(n, "progress", now - n as u64))
    }),
    kind("gates", |size, tag| {
        list(size, |n| {
            let (time, of) = (now_ms(), format!(r#""pipeline":"{tag}","run":"r{n}","gate":"g{n}""#));
            format!(r#"{{"type":"gate","time":{time},{of},"status":"passed"}}"#)
        })
    }),
    kind("ended runs", |size, tag| {
        let begun = now_ms() - 1_000_000_000;
        list(size, |n| {
            let (time, of) = (now_ms(), format!(r#""pipeline":"{tag}","run":"r{n}""#));
            format!(r#"{{"type":"run","time":{time},{of},"status":"succeeded","started_at":{begun}}}"#)
        })
    }),
];

/// Stages of one pipeline, in new runs.
fn wide(size: usize, tag: &str) -> Vec<u8> {
    let begun = format!(r#","started_at":{}"#, now_ms() - 5_000);
    list(size, |n| {
        let (run, of) = (format!("{tag}-{}", n / 900), format!("s{}", n % 900));
        stage("wide", &run, &of, "succeeded", &begun)
    })
}

/// An event of one of 9,000 stages, 1,000 in each of nine runs.
fn broad(n: usize, status: &str, time: u64) -> String {
    let of = format!(r#""pipeline":"broad","run":"r{}","stage":"s{}""#, n % 9, n / 9 % 1_000);
    format!(r#"{{"type":"stage","time":{time},{of},"status":"{status}"}}"#)
}

pub fn metrics(trial: &mut Trial, random: &mut Random) {
    all(trial, random, METRICS);
}

pub fn stages(trial: &mut Trial, random: &mut Random) {
    all(trial, random, STAGES);
}

fn all(trial: &mut Trial, random: &mut Random, kinds: &[Kind]) {
    for size in SIZES {
        for kind in kinds {
            let body = (kind.make)(size, &random.name());
            trial.events(&format!("growth, {}", kind.name), JSON, &body);
        }
    }
}
