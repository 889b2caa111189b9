//! `receivers:`, `route:` and `time_intervals:` of the configuration: who is notified, how, and when.
//!
//! The keys of routes and their meaning are Alertmanager's. Everything is read and checked at startup, so an
//! unknown receiver name, a missing secret or an invalid duration is reported then.

use super::BadConfig;
use super::channels::{ChannelFile, LogFile};
use super::checked::{Checked, bad, span};
use crate::adapters::notify::wording::Wording;
use crate::core::notify::{GroupBy, Grouping, Policy, Route, Routes};
use crate::core::vocab::calendar::Plan;
use crate::core::vocab::selector::Selector;
use crate::core::{Span, Timestamp};
use crate::driver::receivers::ports::Channel;
use crate::driver::receivers::self_alerts;
use crate::pipeline::ask;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The receiver that exists without being configured. Without receivers and a route, it gets all alerts.
const DEFAULT: &str = "log";

/// Default time after which a message that could not be delivered becomes a dead letter.
const MAX_AGE: Span = Span::from_hours(4);

/// The keys of a receiver beside its channel.
const KEYS: [&str; 6] = ["name", "title", "line", "max_per_hour", "max_per_day", "max_age"];

/// One receiver: a name, one channel, and its limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReceiverFile {
    pub name: String,
    #[serde(flatten)]
    pub channel: ChannelFile,
    /// The template of the title, for channels that people read, such as {{ status }}: {{ labels.rule }}
    pub title: Option<String>,
    /// The template of an alert's line, for channels that people read, such as {{ rule }} is {{ value }}
    pub line: Option<String>,
    /// The maximum number of messages per hour; further ones become one digest (no limit).
    pub max_per_hour: Option<u32>,
    pub max_per_day: Option<u32>,
    /// The time after which an undelivered message becomes a dead letter (4h).
    pub max_age: Option<String>,
    /// The unknown keys; each is an error.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// A route; `receiver`, `group_by`, `group_wait`, `group_interval` and `repeat_interval` default to those
/// of its parent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteFile {
    pub receiver: Option<String>,
    /// The matchers of the alerts, such as `severity="critical"`; all must hold.
    pub matchers: Vec<String>,
    /// Whether later sibling routes are also considered for an alert that matches (false).
    #[serde(rename = "continue")]
    pub is_continuing: bool,
    /// The labels by which alerts are grouped; `...` makes each alert a group of its own.
    pub group_by: Option<Vec<String>>,
    /// How long to wait for more alerts of a new group (30s).
    pub group_wait: Option<String>,
    /// How long to wait between two messages of a group with news (5m).
    pub group_interval: Option<String>,
    /// How long to wait before a message without news is sent again (4h); a list states the time after the
    /// first message, the second, and so on.
    pub repeat_interval: Option<Repeat>,
    /// The names of time intervals in which no news is sent.
    pub mute_time_intervals: Vec<String>,
    /// The names of the only time intervals in which news is sent (always).
    pub active_time_intervals: Vec<String>,
    pub routes: Vec<RouteFile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Repeat {
    One(String),
    Growing(Vec<String>),
}

/// Named time intervals for routes, in Alertmanager's notation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeIntervalFile {
    pub name: String,
    pub time_intervals: Vec<serde_json::Value>,
}

/// All receivers and routes, checked.
#[derive(Debug, Clone)]
pub struct Receivers {
    pub routes: Arc<Routes>,
    pub all: Vec<Receiver>,
}

/// One receiver, checked. Its channel is created in the process that delivers.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub policy: Policy,
    pub max_age: Span,
    channel: ChannelFile,
    external_url: String,
    /// Templates of the title and of an alert's line.
    words: (Option<String>, Option<String>),
}

impl Receiver {
    /// Creates the channel when a process that delivers starts. The secrets are read here, because only that
    /// process needs them. `now` returns the time that signatures carry.
    pub fn channel(&self, now: fn() -> Timestamp) -> Checked<Box<dyn Channel>> {
        let made = self.wording().and_then(|wording| self.channel.make(&self.external_url, wording, now));
        made.map_err(|error| self.named(error))
    }

    fn named(&self, error: BadConfig) -> BadConfig {
        bad(format!("receiver `{}`: {error}", self.policy.name))
    }

    fn is_heartbeat(&self) -> bool {
        self.channel.heartbeat.is_some()
    }

    fn wording(&self) -> Checked<Wording> {
        let (title, line) = (self.words.0.as_deref(), self.words.1.as_deref());
        if !self.channel.has_words() && (title.is_some() || line.is_some()) {
            return Err(bad("`title` and `line` are for channels that people read"));
        }
        let at = Timestamp::clamped(0);
        let sample = self_alerts::trial(&self.policy.name, "somebody", (at, at), false);
        Wording::new(title, line, &sample).map_err(|error| bad(error.to_string()))
    }
}

impl Receivers {
    /// Reads and checks the configuration. Without receivers and a route, all alerts go to standard output.
    pub fn read(
        receivers: Vec<ReceiverFile>,
        route: Option<RouteFile>,
        intervals: &[TimeIntervalFile],
        external_url: &str,
    ) -> Checked<Receivers> {
        let mut all =
            receivers.iter().map(|file| file.check(external_url)).collect::<Checked<Vec<Receiver>>>()?;
        let mut names: BTreeSet<String> = BTreeSet::new();
        if let Some(twice) = all.iter().find(|one| !names.insert(one.policy.name.to_string())) {
            return Err(bad(format!("receiver `{}` is there twice", twice.policy.name)));
        }
        if names.insert(DEFAULT.into()) {
            let channel = ChannelFile { log: Some(LogFile::default()), ..ChannelFile::default() };
            let file = ReceiverFile { name: DEFAULT.into(), channel, ..ReceiverFile::default() };
            all.push(file.check(external_url)?);
        }
        let plans = intervals.iter().map(plan).collect::<Checked<BTreeMap<String, Arc<Plan>>>>()?;
        let known = Known { names: &names, plans: &plans };
        let file = match route {
            Some(route) => route,
            None if receivers.is_empty() => {
                RouteFile { receiver: Some(DEFAULT.into()), ..RouteFile::default() }
            }
            None => {
                return Err(bad("there are `receivers:` and no `route:`; add `route:` with a `receiver`"));
            }
        };
        if !file.matchers.is_empty() {
            return Err(bad("the root of `route:` has `matchers`; it takes everything"));
        }
        let routes = Arc::new(Routes { root: known.route(&file, "0".into(), None)? });
        let is_deaf = |one: &&Receiver| one.is_heartbeat() && !routes.has(&one.policy.name);
        if let Some(Receiver { policy: Policy { name, .. }, .. }) = all.iter().find(is_deaf) {
            let route = format!("{{ matchers: ['rule=\"canary\"'], receiver: {name} }}");
            return Err(bad(format!("receiver `{name}` has no route: add to `route:` the route {route}")));
        }
        Ok(Receivers { routes, all })
    }

    /// Whether any receiver waits for the canary.
    pub fn has_heartbeat(&self) -> bool {
        self.all.iter().any(Receiver::is_heartbeat)
    }

    pub fn find(&self, name: &str) -> Option<&Receiver> {
        self.all.iter().find(|one| *one.policy.name == *name)
    }
}

/// The names that routes may refer to.
struct Known<'a> {
    names: &'a BTreeSet<String>,
    plans: &'a BTreeMap<String, Arc<Plan>>,
}

impl Known<'_> {
    fn route(&self, file: &RouteFile, path: String, parent: Option<&Route>) -> Checked<Route> {
        let receiver = file.receiver.as_deref().or(parent.map(|parent| &*parent.receiver));
        let receiver = receiver.ok_or_else(|| bad("the root of `route:` names no `receiver`"))?;
        if !self.names.contains(receiver) {
            let near = crate::pipeline::diagnostic::nearest(receiver, self.names.iter().map(String::as_str));
            let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return Err(bad(format!("a route names receiver `{receiver}`, which is not there{hint}")));
        }
        let matchers = file.matchers.iter().map(|text| ask::matchers(text).map_err(bad));
        let matchers = matchers.collect::<Checked<Vec<Selector>>>()?.into_iter().flat_map(|one| one.matchers);
        let grouping = grouping(file, parent.map(|parent| &parent.grouping))?;
        let plans = |names: &[String]| names.iter().map(|name| self.plan(name)).collect::<Checked<Vec<_>>>();
        let mut route = Route {
            path,
            receiver: receiver.into(),
            matchers: Selector { name: None, matchers: matchers.collect() },
            is_continuing: file.is_continuing,
            grouping,
            muted: plans(&file.mute_time_intervals)?,
            active: plans(&file.active_time_intervals)?,
            routes: Vec::new(),
        };
        for (at, child) in file.routes.iter().enumerate() {
            let child = self.route(child, format!("{}/{at}", route.path), Some(&route))?;
            route.routes.push(child);
        }
        Ok(route)
    }

    fn plan(&self, name: &str) -> Checked<Arc<Plan>> {
        self.plans.get(name).cloned().ok_or_else(|| bad(format!("`time_intervals` has none named `{name}`")))
    }
}

fn grouping(file: &RouteFile, parent: Option<&Grouping>) -> Checked<Grouping> {
    let own = parent.cloned().unwrap_or_default();
    let or = |text: &Option<String>, own: Span| text.as_deref().map_or(Ok(own), span);
    let by = match &file.group_by {
        None => own.by,
        Some(labels) if labels.iter().any(|label| label == "...") => GroupBy::All,
        Some(labels) => GroupBy::Labels(labels.iter().map(|label| label.as_str().into()).collect()),
    };
    let repeat = match &file.repeat_interval {
        None => own.repeat,
        Some(Repeat::One(text)) => vec![span(text)?],
        Some(Repeat::Growing(all)) if all.is_empty() => return Err(bad("`repeat_interval` is empty")),
        Some(Repeat::Growing(all)) => all.iter().map(|text| span(text)).collect::<Checked<_>>()?,
    };
    if repeat.iter().any(|every| !every.is_positive()) {
        return Err(bad("`repeat_interval` must be above zero"));
    }
    Ok(Grouping {
        by,
        wait: or(&file.group_wait, own.wait)?,
        interval: or(&file.group_interval, own.interval)?,
        repeat,
    })
}

/// Reads a time interval with the parser of maintenance windows, so that syntax and errors are the same.
fn plan(file: &TimeIntervalFile) -> Checked<(String, Arc<Plan>)> {
    let text = serde_json::json!({"time_intervals": file.time_intervals}).to_string();
    let plan = ask::intervals(&text).map_err(|found| {
        let first = found.first().map_or(String::new(), |found| found.message.clone());
        bad(format!("time_intervals `{}`: {first}", file.name))
    })?;
    Ok((file.name.clone(), Arc::new(plan)))
}

impl ReceiverFile {
    fn check(&self, external_url: &str) -> Checked<Receiver> {
        if self.name.is_empty() {
            return Err(bad("a receiver has no `name`"));
        }
        if let Some(wrong) = self.unknown.keys().next() {
            let known = KEYS.into_iter().chain(self.channel.all().map(|(name, _)| name));
            let near = crate::pipeline::diagnostic::nearest(wrong, known);
            let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return Err(bad(format!("receiver `{}`: `{wrong}` is not known{hint}", self.name)));
        }
        let only = self.channel.only();
        only.map_err(|error| bad(format!("receiver `{}` {error}", self.name)))?;
        let policy = self.channel.policy(self.name.as_str().into(), self.max_per_hour, self.max_per_day);
        let max_age = self.max_age.as_deref().map_or(Ok(MAX_AGE), span)?;
        let channel = self.channel.clone();
        let words = (self.title.clone(), self.line.clone());
        let receiver = Receiver { policy, max_age, channel, external_url: external_url.into(), words };
        receiver.wording().map_err(|error| receiver.named(error))?;
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::notify::Style;
    use crate::pipeline::yaml;

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct File {
        receivers: Vec<ReceiverFile>,
        route: Option<RouteFile>,
        time_intervals: Vec<TimeIntervalFile>,
    }

    fn file(text: &str) -> Result<File, String> {
        yaml::typed(text).map_err(|error| error.message)
    }

    fn read(text: &str) -> Result<Receivers, String> {
        let file = file(text)?;
        let read = Receivers::read(file.receivers, file.route, &file.time_intervals, "http://here");
        read.map_err(|error| error.to_string())
    }

    /// Returns the first error that a delivering process finds.
    fn open(text: &str) -> Result<(), String> {
        let made = |one: &ReceiverFile| one.check("http://here")?.channel(|| Timestamp::MAX).map(drop);
        file(text)?.receivers.iter().try_for_each(made).map_err(|error| error.to_string())
    }

    #[test]
    fn routes_have_from_their_parents_what_they_do_not_say() {
        let text = "
receivers:
  - { name: ops, webhook: { url: 'https://example.com/hook', allow: [10.0.0.0/8] }, max_per_hour: 60 }
  - { name: night, log: {} }
time_intervals:
  - { name: offhours, time_intervals: [{ times: [{ start_time: '18:00', end_time: '24:00' }], location: Europe/Berlin }] }
route:
  receiver: ops
  group_by: [source]
  repeat_interval: [4h, 1d, 7d]
  routes:
    - { matchers: ['severity=\"critical\"'], group_wait: 0s, continue: true }
    - { receiver: night, group_by: ['...'], active_time_intervals: [offhours] }
";
        let receivers = read(text).expect("it is right");
        let root = &receivers.routes.root;
        let [urgent, night] = &root.routes[..] else { panic!("two routes") };
        assert_eq!(
            (&*urgent.receiver, urgent.grouping.wait, urgent.is_continuing),
            ("ops", Span::ZERO, true)
        );
        assert_eq!(urgent.grouping.by, root.grouping.by);
        assert_eq!(night.grouping.repeat.len(), 3);
        assert_eq!((&night.grouping.by, night.active.len()), (&GroupBy::All, 1));
        assert_eq!(receivers.find("ops").map(|one| one.policy.style), Some(Style::Grouped));
        assert!(receivers.find("log").is_some(), "it is there without being asked for");
    }

    #[test]
    fn what_is_wrong_is_said_at_start() {
        let wrong = |text: &str| open(text).and_then(|()| read(text).map(drop)).expect_err(text);
        let ops = "receivers: [{ name: ops, log: {} }]\n";
        assert!(wrong(ops).contains("no `route:`"));
        assert!(wrong(&format!("{ops}route: {{ receiver: obs }}")).contains("did you mean `ops`?"));
        assert!(wrong(&format!("{ops}route: {{ receiver: ops, group_wait: soon }}")).contains("soon"));
        assert!(wrong(&format!("{ops}route: {{ receiver: ops, mute_time_intervals: [x] }}")).contains("`x`"));
        let hook = |inner: &str| {
            wrong(&format!("receivers: [{{ name: h, webhook: {{ {inner} }} }}]\nroute: {{ receiver: h }}"))
        };
        assert!(hook("url: 'https://x', bearer: abc").contains("env:NAME"));
        assert!(hook("url: 'https://x', secrets: ['env:STREAMGAUGE_NO_SUCH']").contains("is not set"));
        assert!(hook("url: 'ftp://x'").contains("https://"));
        assert!(hook("url: 'https://x', allow: [intranet]").contains("no network"));
        assert!(wrong("receivers: [{ name: ops }]").contains("one channel"));
        assert!(wrong("receivers: [{ name: ops, log: {}, slack: {} }]").contains("several channels"));
        assert!(wrong("receivers: [{ name: ops, webhok: {} }]").contains("did you mean `webhook`?"));
        let chat = |inner: &str| {
            let chat = "slack: { url: 'file:/no/such' }";
            wrong(&format!("receivers: [{{ name: c, {chat}, {inner} }}]\nroute: {{ receiver: c }}"))
        };
        assert!(chat("title: '{{ staus }}'").contains("status"));
        let slack = |inner: &str| {
            wrong(&format!("receivers: [{{ name: c, slack: {{ {inner} }} }}]\nroute: {{ receiver: c }}"))
        };
        let untold = "receivers: [{ name: c, slack: { url: 'env:NO_SUCH' } }]\nroute: { receiver: c }";
        assert!(
            wrong(untold).contains("is not set") && read(untold).is_ok(),
            "who does not deliver needs none"
        );
        assert!(slack("token: 'env:X'").contains("either `url`, or `token` and `channel`"));
        assert!(wrong("receivers: [{ name: l, log: {}, line: x }]").contains("people read"));
        let mail = |inner: &str| wrong(&format!("receivers: [{{ name: m, email: {{ host: x, {inner} }} }}]"));
        assert!(mail("from: 'a@b.c'").contains("`to`"));
        assert!(mail("from: nobody, to: ['a@b.c']").contains("`nobody`"));
        assert!(
            mail("from: 'a@b.c', to: ['a@b.c'], tls: none, username: a, password: 'env:HOME'")
                .contains("not secure")
        );
        let bus = |inner: &str| wrong(&format!("receivers: [{{ name: n, nats: {{ {inner} }} }}]"));
        assert!(bus("url: 'nats://a:4222', subject: 'a.>'").contains("no subject"));
        assert!(bus("url: 'nats://a:4222', subject: sg.v1.alert.x").contains("is reserved"));
        assert!(bus("url: 'nats://me:pw@a:4222', subject: a").contains("env:NAME"));
        assert!(
            wrong("receivers: [{ name: h, heartbeat: {} }, { name: l, log: {} }]\nroute: { receiver: l }")
                .contains("canary")
        );
        assert!(read("").is_ok_and(|all| all.all.len() == 1));
    }
}
