//! Valid inputs: the seeds of the targets, and the tokens of their languages.

use base64::Engine as _;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer, V2Serializer};
use serde_json::{Value, json};
use std::io::Write;
use streamgauge::core::event::{Event, Observation};
use streamgauge::core::measure::partial::Partials;
use streamgauge::core::record::{Ack, Body, Control, Record};
use streamgauge::core::rule::RuleSet;
use streamgauge::core::vocab::identity::{Identity, IdentityTable, Labels, SeriesRef};
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::vocab::unit::Unit;
use streamgauge::core::{Effects, Engine, Span, Timestamp};
use streamgauge::pipeline::{ask, load_files};
use streamgauge::wire::event::Codec;
use streamgauge::wire::ndjson::Exported;
use streamgauge::wire::{partial, snapshot as stored};

const START: Timestamp = Timestamp::clamped(1_793_491_200_000);

/// Events of every type; `HDR` stands for a histogram.
const EVENTS: &str = r#"{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1}
{"type":"metric","time":"2026-11-01T00:00:00Z","source":"a","name":"b","value":-0}
{"type":"metric","source":"checkout","name":"latency_ms","labels":{"host":"h1"},"value":41.13,"time":1793491200000,"unit":"ms"}
{"type":"metric","time":"2026-11-01T02:00:00.123+02:00","source":"checkout","name":"latency_ms","value":0.000001,"unit":"ms","labels":{"host":"h1"}}
{"type":"metric","time":1793491200001,"source":"checkout","name":"latency_ms","value":9007199254740993,"id":"e-1","labels":{}}
{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1e5,"more":{"x":[1,{"y":null}]},"partition":3,"seq":9}
{"type":"metric","time":1793491200000,"source":"a","name":"b","value":2,"partition":3,"partitions":8}
{"type":"metric","time":1793491200000,"source":"\u0061 \"q\"","name":"größe","value":1.5,"labels":{"a":"","b":"}","c":"{\"d\":1}"}}
{ "type" : "metric" , "time" : 1793491200000 , "source" : "a" , "name" : "b" , "value" : 1 }
{"type":"samples","source":"a","name":"b","unit":"ms","labels":{"host":"h1"},"times":[1793491200000,1793491201000],"values":[41.13,39]}
{"type":"samples","source":"a","name":"b","times":["2026-11-01T00:00:00Z",1793491201000],"values":[1,2.5]}
{"type":"samples","source":"a","name":"b","times":[],"values":[]}
{"type":"histogram","time":1793491200000,"source":"a","name":"b","hdr":"HDR","scale":0.001,"unit":"s"}
{"type":"stage","time":"2026-11-01T00:00:05Z","pipeline":"release","run":"r-17","stage":"build","status":"started","attempt":1}
{"type":"stage","time":1793491209000,"pipeline":"release","run":17,"stage":"build","status":"succeeded","queued_at":1793491200000,"started_at":1793491201000,"finished_at":1793491209500,"labels":{"leg":"x"}}
{"type":"stage","time":1793491209000,"pipeline":"release","run":"r","stage":"build","status":"progress","progress":0.5,"source":"s","id":7}
{"type":"run","time":1793491200000,"pipeline":"release","run":"r-17","status":"queued"}
{"type":"run","time":1793491200000,"pipeline":"release","run":"r-17","status":"failed","id":"x","started_at":"2026-10-31T23:00:00Z"}
{"type":"gate","time":"2026-11-01T00:01:05Z","pipeline":"release","run":"r-17","gate":"coverage","status":"failed","value":71.5,"threshold":80}
{"type":"metric","time":1793491200,"source":"a","name":"b","value":1}
{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1,"ingest_time":"2026-11-01T00:00:00Z","unit":null}"#;

/// The separator of the tokens below.
const BETWEEN: char = '¦';

const JSON_WORDS: &str = r#"{¦}¦[¦]¦,¦:¦"¦\¦ ¦null¦true¦""¦"time":¦"time":""¦"value":¦"type":"metric"¦"type":"samples"¦"type":"histogram"¦"source":"a"¦"name":"b"¦"labels":{"a":"b"}¦"labels":{¦"id":¦"seq":1¦"ingest_time":¦"partition":1¦"tick":true¦"events":[¦"raw":"¦"control":{¦"gap":{"from":1,"to":2}¦"partials":{¦"hdr":"¦"scale":¦2026-11-01T00:00:00Z¦1793491200000¦\u0061¦e5¦.0"#;

const RULE_WORDS: &str = r#"  ¦- ¦: ¦'¦"¦{¦}¦[¦]¦(¦)¦, ¦&a ¦*a¦<<: *a¦!!str ¦#¦rules:¦levels: ¦for: ¦labels: ¦match: ¦time_intervals: ¦schedule: '0 22 * * FRI'¦duration: ¦ by (source)¦ > 1¦ and ¦ or ¦ unless ¦avg(¦p99(¦quantile(0.99, ¦regression(¦season(week, 4)¦sustained(¦idle(pipeline="p")¦a_ms¦a_ns¦[5m]¦=~"¦{{ value }}¦%¦1e308s¦\"#;

const PROMQL_WORDS: &str = r#"(¦)¦{¦}¦[5m]¦[1h:1m]¦"¦`¦#¦,¦=~¦!=¦ == ¦ > bool ¦ ^ ¦ % ¦ - ¦-¦ and ¦ unless ¦ or ¦on (a) ¦group_left (b) ¦ by (job)¦ without (a)¦ offset 5m¦ @ end()¦sum(¦rate(¦absent(¦histogram_quantile(0.99, ¦clamp_max(¦le¦NaN¦+Inf¦0x10"#;

const TEXT_WORDS: &str =
    "T¦Z¦+00:00¦:60¦.999999999¦-¦x¦_¦stale¦+¦@¦:¦//¦://¦?¦#¦%¦%4¦%+1¦,¦nats://¦1h¦30m¦ms¦w¦y¦e¦{{¦}}¦=";

pub fn json_words() -> Vec<&'static str> {
    JSON_WORDS.split(BETWEEN).chain(["\n"]).collect()
}

pub fn rule_words() -> Vec<&'static str> {
    RULE_WORDS.split(BETWEEN).chain(["\n", "|\n", "---\n"]).collect()
}

pub fn promql_words() -> Vec<&'static str> {
    PROMQL_WORDS.split(BETWEEN).chain(["\n"]).collect()
}

pub fn text_words() -> Vec<&'static str> {
    TEXT_WORDS.split(BETWEEN).collect()
}

fn lines(text: &str) -> Vec<Vec<u8>> {
    text.lines().map(|line| line.as_bytes().to_vec()).collect()
}

/// Histograms as the `hdrhistogram` crate writes them, and one in the format of snapshots.
pub fn histograms() -> Vec<Vec<u8>> {
    let mut all = vec![vec![0, 1, 1, 2, 77, 1, 0xff, 0x1e, 0x80, 0x80, 0x04]];
    for (low, high, digits) in [(1, 1 << 42, 2), (1, 1 << 42, 3), (100, 1 << 20, 1), (7, 1_000_000, 0)] {
        let mut histogram =
            hdrhistogram::Histogram::<u64>::new_with_bounds(low, high, digits).expect("bounds");
        for n in 1..40u64 {
            histogram.record_n(n * n * 97 % high, n).expect("in range");
        }
        let (mut plain, mut deflated) = (Vec::new(), Vec::new());
        V2Serializer::new().serialize(&histogram, &mut plain).expect("memory");
        V2DeflateSerializer::new().serialize(&histogram, &mut deflated).expect("memory");
        all.extend([plain, deflated]);
    }
    all
}

fn event_texts() -> Vec<String> {
    let hdr = base64::engine::general_purpose::STANDARD.encode(&histograms()[2]);
    EVENTS.lines().map(|event| event.replace("HDR", &hdr)).collect()
}

pub fn events_json() -> Vec<Vec<u8>> {
    let all = event_texts();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|event| event.clone().into_bytes()).collect();
    seeds.push(format!("[{}]", all.join(",")).into_bytes());
    seeds.push(format!("[\n{}\n]", all[..4].join(",\n")).into_bytes());
    seeds.push(format!("[{}]", vec![all[0].as_str(); 40].join(", ")).into_bytes());
    seeds
}

pub fn events_ndjson() -> Vec<Vec<u8>> {
    let all = event_texts();
    let mut seeds = vec![all.join("\n").into_bytes(), all.join("\r\n\n").into_bytes()];
    seeds.extend(all.windows(3).map(|three| three.join("\n").into_bytes()));
    // The lines of one producer.
    let lines = (0..30).map(|n| {
        let (time, value) = (START.ms() + n, n as f64 / 8.0);
        format!(r#"{{"type":"metric","time":{time},"source":"s-{}","name":"n","value":{value}}}"#, n % 3)
    });
    seeds.push(lines.collect::<Vec<_>>().join("\n").into_bytes());
    seeds
}

fn packed(value: &impl serde::Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("memory")
}

pub fn events_msgpack() -> Vec<Vec<u8>> {
    let all: Vec<Value> =
        event_texts().iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(packed).collect();
    seeds.extend([packed(&all), packed(&all[..3].to_vec())]);
    // Bytes instead of base64.
    let hdr = histograms().swap_remove(1);
    let of_type = |of: &str| packed(&json!({"type": of, "time": START.ms(), "source": "a", "name": "b"}));
    let mut with_bytes = of_type("histogram");
    with_bytes[0] += 1;
    with_bytes.extend(b"\xa3hdr\xc5");
    with_bytes.extend((hdr.len() as u16).to_be_bytes());
    with_bytes.extend(hdr);
    // A repeated label, and a number of four bytes.
    let mut twice = of_type("metric");
    twice[0] += 2;
    twice.extend(b"\xa5value\xca\x3f\x8c\xcc\xcd\xa6labels\x82\xa1a\xa1b\xa1a\xa1c");
    seeds.extend([with_bytes, twice]);
    seeds
}

/// Lines of an export: every kind of record.
pub fn exported() -> Vec<Vec<u8>> {
    let texts = event_texts();
    let events = |codec, bytes: &[u8]| Exported::events(8, START, codec, bytes).text();
    let mut all = vec![
        Exported::tick(7, START).text(),
        Exported::gap(9, 12, START).text(),
        Exported::poison(13, START).text(),
        Exported::partials(14, START, 1, 3, &partials()[0]).text(),
        events(Codec::Json, b"no event"),
        events(Codec::Ndjson, texts[..3].join("\n").as_bytes()),
    ];
    all.extend(texts.iter().map(|text| events(Codec::Json, text.as_bytes())));
    all.extend(controls().iter().map(|control| Exported::control(15, START, control).text()));
    all.iter().chain(&texts).map(|line| line.clone().into_bytes()).collect()
}

fn controls() -> Vec<Control> {
    let new = ask::New { id: "s", by: None };
    let silence = ask::silence(SILENCES[0], new, START).expect("complete");
    let maintenance = |text| Control::Maintenance(ask::maintenance(text, new).expect("complete"));
    let (alert, by) = ("a".to_string(), "ann".to_string());
    let ack = Ack { alert: "a".into(), by: "b".into(), why: "c".into(), until: Some(START), accept: true };
    vec![
        Control::Rules(Box::new(rule_set(CANARY))),
        Control::Rules(Box::new(rule_set(SMALL))),
        Control::Ack(ack),
        Control::Unack { alert, by: by.clone() },
        Control::Silence(silence),
        Control::Unsilence { id: "s".into(), by: by.clone() },
        maintenance(SILENCES[2]),
        maintenance(SILENCES[3]),
        maintenance(SILENCES[4]),
        Control::EndMaintenance { id: "s".into(), by },
    ]
}

/// Control records as a log holds them, and bytes that describe a change of one.
pub fn controls_json() -> Vec<Vec<u8>> {
    let all = super::properties::rule_controls().into_iter().chain(controls().into_iter().skip(1));
    let written = all.map(|control| serde_json::to_vec(&control).expect("plain data"));
    let changes =
        (0..64u8).map(|n| vec![n % 12, n.wrapping_mul(37), n.wrapping_mul(101), n, n.wrapping_mul(53), 7]);
    written.chain(changes).collect()
}

fn partials() -> Vec<Vec<u8>> {
    let mut one = Partials::new(START);
    one.interrupted.push((START, START + Span::from_secs(1)));
    vec![partial::encode(&one)]
}

/// Requests as users send them.
const SILENCES: [&str; 6] = [
    r#"{"match": ["source=\"db\"", "stage=~\"b.*\""], "by": "ann", "duration": "30m", "reason": "known"}"#,
    "match: ['a!=\"b\"']\nby: ann\nstart: 2026-11-01T00:00:00Z\nend: 2026-11-02T00:00:00+01:00\nunmatched_for: 1h\n",
    r#"{"match": "a=\"b\"", "schedule": "0 22 * * FRI", "duration": "4h", "by": "ann", "mode": "suspend", "tz": "Europe/Berlin", "except": ["2026-12-25"]}"#,
    r#"{"match": ["a=\"b\""], "start": "2026-11-15T02:00:00Z", "end": "2026-11-15T04:00:00Z", "by": "ann"}"#,
    r#"{"match": ["a=\"b\""], "by": "ann", "time_intervals": [{"weekdays": ["monday:friday"], "times": [{"start_time": "22:00", "end_time": "24:00"}], "months": ["12", "january:march"], "days_of_month": ["-1"], "years": ["2026:2030"], "location": "Europe/Berlin"}]}"#,
    r#"source="db",stage=~"b.*",rule!="x",severity!~"info|warning""#,
];

pub fn silences() -> Vec<Vec<u8>> {
    SILENCES.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const CANARY: &str = include_str!("../../pipelines/canary.yaml");
const DATABASE: &str = include_str!("../../pipelines/database.yaml");
const RELEASE: &str = include_str!("../../pipelines/release.yaml");
const RESOURCES: &str = include_str!("../../pipelines/resources.yaml");
const SERVICE: &str = include_str!("../../pipelines/service.yaml");

/// A file with a little of everything.
const SMALL: &str = r#"version: 1
metrics: { a_ms: { unit: ms, digits: 3 }, c_total: { temporality: cumulative } }
declare: [{ source: s, name: heartbeat, labels: { job: runner } }]
pipelines: { release: { stages: [build, 'unit tests'], stage_limits: { build: 10m } } }
record: [{ name: ratio, expr: 'count(e[5m]) by (source) / count(r[5m]) by (source)' }]
rules:
  - id: a
    expr: &e p95(a_ms{host=~"h.*"}[5m]) by (source)
    levels: { warning: '> 1s', critical: '> 2s' }
    reset: { warning: '< 800ms' }
    for: { warning: 5m, critical: 2m }
    escalation: standard
    labels: { team: "x", version: 1.10 }
    summary: "{{ labels.source }} is {{ value | round }}"
  - { id: b, expr: 'idle(pipeline="release") > learned', severity: info, on_unknown: clear_after 1m, fdr: 5% }
  - { id: c, expr: 'sustained(rate(c_total[1m]) > 1, 1h) > 50%', severity: info, actions: [scale_up] }
escalations: { standard: [{ after: 0m, notify: [log] }, { after: 5m, notify: [mail], repeat: 1h }] }
maintenance:
  - { id: w, match: ['a="b"'], schedule: '0 22 * * FRI', duration: 4h, tz: Europe/Berlin }
inhibit: [{ source: ['severity="critical"'], target: ['severity="warning"'], equal: [source] }]
health: { weights: { latency: 40, errors: 35.5 } }
"#;

/// Tests of rules, with every kind of input.
const TESTED: &str = r#"rules: [{ id: r, expr: 'count(x[1m]) by (source) > 5', severity: info }]
tests:
  - name: t
    interval: 1s
    input_series: [{ series: 'x{source="a"}', values: '1+2x3 _ 5@+90s stale' }]
    input_events: [{ at: 1s, late: -1s, type: stage, pipeline: on, run: 17, stage: 1.10, status: started }]
    say: [{ at: 5m, ack: r, key: { source: a }, by: ann }, { at: 6m, silence: { match: 'a="b"', duration: 1h } }]
    expect: [{ at: 1m, rule: r, key: { source: a }, state: firing }, { at: 9m, rule: r, state: none }]
    transitions: []
    until: 10m
"#;

fn rule_set(text: &str) -> RuleSet {
    load_files(vec![("f.yaml".into(), text.into())]).rules.expect("a file without errors")
}

pub fn pipelines() -> Vec<Vec<u8>> {
    let all = [CANARY, DATABASE, RELEASE, RESOURCES, SERVICE, SMALL, SMALL, SMALL, TESTED];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The expressions of the shipped files, and typical expressions of users.
pub fn expressions() -> Vec<Vec<u8>> {
    let mut all = lines(
        r#"p99(api_latency_ms[1m]) by (source) > 1000ms for 5 minutes
abs(p95(a_ms[5m]) by (s)) + clamp(p95(b_ms[5m]) by (s), 1ms, 2s) * 2 > 1
avg(a_ns[1m]) by (source) > 1.5s
max(1, avg(x[1m]), -2.5e3) > 20%
quantile(99%, a_ms{host=~"h[0-9]+", zone!="x"}[10s]) by () >= 1h30m
forecast(max(disk_percent[5m]) by (host), 6h, 4h) > 95%
regression(p95(a_ms[5m]) by (source), season(week, 4)) > 10% and avg(b_percent[5m]) by (source) > 1
regression(p95(a_ms[5m]) by (source), deploys(8)) > 10%
avg(a_ms[5m]) by (s) > upper(avg(a_ms[5m]) by (s), 24h, 3) unless count({name="b"}[5m]) by (s) == 0
correlation(avg(a[1m]) by (h), avg(b[1m]) by (h), 30m) > 0.9
silent(heartbeat{job="runner"}) > 2m
age(pipeline=~"p.*", stage="t") > learned
occurrences(p99(a_ms[1m]) > 1s, 1h) > 3
change(p95(a_ms[5m]), 1h) < -10%
> 10%
source=~"db.*",a!="b\"c\\""#,
    );
    for text in [DATABASE, RELEASE, RESOURCES, SERVICE, SMALL] {
        all.extend(rule_set(text).rules.iter().map(|rule| rule.text.as_bytes().to_vec()));
    }
    all
}

const GROUPS: &str = r#"groups:
- name: g
  interval: 1m
  labels: { team: a }
  rules:
  - record: job:errors:rate5m
    expr: sum by (job) (rate(errors_total{code=~"5.."}[5m]))
  - alert: Errors
    expr: job:errors:rate5m > 0.5
    for: 10m
    labels: { severity: page, version: 1.10 }
    annotations: { summary: '{{ $labels.job }} has {{ $value | humanizePercentage }}', runbook_url: 'http://r' }
---
kind: PrometheusRule
spec: { groups: [{ name: h, rules: [{ alert: Absent, expr: 'absent(up{job="a"})' }] }] }
"#;

pub fn promql() -> Vec<Vec<u8>> {
    let mut all = lines(
        r#"rate(errors_total[5m]) > 0.5
sum by (job) (rate(errors_total{code=~"5.."}[5m])) / sum by (job) (rate(requests_total[5m])) > 0.05
histogram_quantile(0.99, sum by (le, job) (rate(latency_bucket[5m]))) > 1
absent(up{job="a", env!="b"})
up == 0 unless on (job) maintenance > 0
max by (host) (max_over_time(cpu[5m])) > 80 and avg by (host) (avg_over_time(mem[5m])) > 90
predict_linear(disk_free[6h], 4 * 3600) < 0
clamp_max(x, 10) - clamp(y, -1, 1) != NaN
5 < x and x < +Inf or -x ^ 2 + 0x10 % 2 > 1e+9
label_replace(x, "a", "$1", "b", "(.*)") > 1
sum without (a) (q) > bool on (a) group_left (b) y # why
max_over_time(rate(x[5m])[1h:1m]) > 1 or x offset -5m @ start() > 1
{__name__=~"a|b", x=`b\d`} > 1
quantile_over_time(0.9, x[10m]) > 5
count_over_time(x[5m]) < 3 unless absent_over_time(y[5m])
increase(x_total[1h]) * 2 >= 7"#,
    );
    all.push(GROUPS.into());
    all
}

pub fn suites() -> Vec<Vec<u8>> {
    let suite = r#"rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - name: t
    interval: 30s
    input_series:
    - { series: 'x{job="a"}', values: '1+1x10 _ _x3 stale 5x2 -1e-3x1' }
    - series: 'x_total{job="b", source="c"}'
      values: "0 0x10 010 +1 NaN"
    alert_rule_test:
    - { eval_time: 5m, alertname: A, exp_alerts: [{ exp_labels: { severity: page }, exp_annotations: { a: b } }] }
    - eval_time: 1h
      alertname: B
    promql_expr_test: [{ expr: x, eval_time: 1m, exp_samples: [] }]
"#;
    vec![suite.into(), GROUPS.into()]
}

pub fn times() -> Vec<Vec<u8>> {
    lines(
        "2026-11-01T00:00:00Z
2024-02-29t23:59:60.999999999+23:59
0000-01-01T00:00:00Z
9999-12-31T23:59:59.999Z
1969-07-20 20:17:40.1-00:00
1793491200000
1793491200
-62167219200000
1h30m
2w3d4h5m6s7ms
-24h
500ms
1.5e3
20%
now",
    )
}

/// Bodies as clients compress them.
pub fn compressed() -> Vec<Vec<u8>> {
    let text = event_texts().join("\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(text.as_bytes(), level);
    let zeros = ruzstd::encoding::compress_to_vec(&[0; 70_000][..], level);
    vec![[&gzip[..], &gzip].concat(), gzip, [&zstd[..], &zstd].concat(), zstd, zeros]
}

/// What stores keep of an engine.
pub fn snapshots() -> Vec<Vec<u8>> {
    let mut all = partials();
    for text in [SMALL, CANARY, SERVICE] {
        let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
        engine.load(rule_set(text), &mut out);
        let labels = Labels::of([("host", "h1")]);
        let identity = Identity::new("a".into(), "a_ms".into(), labels, Some(Unit::Ms)).expect("valid");
        let mut directory = IdentityTable::default();
        directory.learn(0, [identity.into()]);
        for seq in 1..200u64 {
            let time = START + Span::from_secs(seq as i64);
            let value = (seq * 37 % 101) as f64 * 10.0;
            let events = [Event::Metric(Observation { who: SeriesRef::new(0, 0), time, value })];
            let record = Record { seq, stamp: time, limit: None, bad: &[], body: Body::Events(&events) };
            engine.handle(&record, &directory, &mut out);
        }
        all.push(stored::encode(&engine).expect("memory"));
    }
    all
}

pub fn addresses() -> Vec<Vec<u8>> {
    lines(
        "nats://ann:s3cret@host:4222
redis://:p%40ss/word@host:1/0?x=y#z
tls://token@h,nats://u:p@i:2
a,b,c@d
127.0.0.1:4222",
    )
}

pub fn texts() -> Vec<Vec<u8>> {
    vec![
        b"checkout".to_vec(),
        "größer 日本 🙂 a\\b".into(),
        b"\x1b[2J\x1b[31mX\r\nY\tZ\x07".to_vec(),
        "abc\u{202e}fdp.exe\u{2066}\u{feff}".into(),
    ]
}
