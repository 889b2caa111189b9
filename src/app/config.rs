//! The configuration file of `run`: the values of its flags, and also receivers, routes and access tokens.
//!
//! A flag takes precedence over an environment variable, and an environment variable over the file. A value
//! that none of them sets has a default. An unknown key is an error, because a misspelt key must not silently
//! leave a default in force.

use super::BadConfig;
use super::cli::{LimitArgs, RunArgs, Usage};
use super::receivers::{ReceiverFile, Receivers, RouteFile, TimeIntervalFile};
use crate::adapters::notify::secret::Secret;
use crate::adapters::{nats, redis};
use crate::core::Span;
use crate::core::vocab::limits::{Backfill, LatePolicy, Limits, PARTITIONS_MAX};
use crate::core::vocab::partition::Partition;
use crate::driver::outage::Outages;
use crate::driver::owner::SNAPSHOT_EVERY;
use crate::http::access::{Access, Role, Token, host_of};
use crate::pipeline::yaml;
use crate::wire::signature::Signing;
use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration file; its paths are relative to the working directory of the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "config")]
pub(crate) struct File {
    /// The directory of the pipeline files (./pipelines if it exists).
    pub pipelines: Option<PathBuf>,
    /// The data dir, in which log, windows and alerts are stored ($XDG_DATA_HOME/streamgauge).
    pub data_dir: Option<PathBuf>,
    /// The address of the API and the web page; beyond loopback it requires an access token (127.0.0.1:8080).
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// The time to finish after SIGTERM (10s).
    #[serde(deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub grace: Option<Span>,
    pub nats: Option<NatsFile>,
    pub redis: Option<RedisFile>,
    /// With servers: whether sealed and corrected windows are published on sg.v1.rollup.> (false).
    pub rollups: bool,
    /// With servers: the number of partitions of the log, 1 to 256; it never changes (1).
    pub partitions: Option<u32>,
    pub limits: LimitsFile,
    /// The receivers of alerts, each with its channel (`log`, which writes to standard output).
    pub receivers: Vec<ReceiverFile>,
    /// The root route, which assigns alerts to receivers; required if there are `receivers`.
    pub route: Option<RouteFile>,
    /// Named time intervals to which routes refer.
    pub time_intervals: Vec<TimeIntervalFile>,
    /// The URL under which people reach this service, for links in messages (the address it listens on).
    pub external_url: Option<String>,
    /// The host names under which this service is reached, in addition to loopback names, IP addresses and
    /// the host of `external_url`.
    pub hosts: Vec<String>,
    /// The access tokens and their roles; without any, and without STREAMGAUGE_TOKEN, every client on this
    /// machine has the role admin.
    pub tokens: Vec<TokenFile>,
    /// Whether /metrics answers without a token (false).
    pub metrics_public: bool,
}

/// An access token and its role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenFile {
    /// The person or program that holds the token; changes are recorded under this name.
    pub name: String,
    /// The role of the token: view, operate or admin; each includes the roles before it.
    pub role: Role,
    /// The secret, as env:NAME or file:PATH; it has 16 characters or more.
    pub token: String,
}

/// The NATS server. Credentials come from the environment, as for the `nats` tool: NATS_CREDS, NATS_NKEY,
/// NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CA, NATS_CERT, NATS_KEY.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatsFile {
    pub url: String,
    /// The first tokens of all subjects (sg.v1).
    #[serde(default)]
    pub root: Option<String>,
}

/// The Redis server: redis://user:password@host:port, or rediss:// for TLS. The certificates are those of the
/// system, or those in the files that REDIS_CA, REDIS_CERT and REDIS_KEY name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedisFile {
    pub url: String,
    /// The first part of all keys (sg).
    #[serde(default)]
    pub prefix: Option<String>,
    /// The lease of a partition: another worker takes over if the owner is silent for this long (10s).
    #[serde(default, deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub lease: Option<Span>,
    /// The minimum time between two full snapshots of the state (10s).
    #[serde(default, deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub snapshot_every: Option<Span>,
}

/// The limits of the engine that the configuration can change. A duration is written as 30s, 5m or 1h.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    /// The lateness up to which an event is on time, counted from the end of its minute (30s).
    #[serde(deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub allowed_lateness: Option<Span>,
    /// The lateness from which an event is refused, counted from the end of its minute (1h).
    #[serde(deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub max_lateness: Option<Span>,
    /// The maximum time by which an event may be ahead of log time; beyond it, the event is refused (5m).
    #[serde(deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub max_skew: Option<Span>,
    /// The handling of late events: correct (their windows), drop, or dead (drop and keep as dead letters)
    /// (correct).
    #[schemars(with = "Option<String>")]
    pub late_policy: Option<LatePolicy>,
    /// The handling of a duration of a stage or run that arrives after its window is closed: never (counted
    /// and dropped) or now (recorded in the window of its arrival time) (never).
    #[schemars(with = "Option<String>")]
    pub backfill: Option<Backfill>,
    /// The distance between two grid points, the times at which rules are evaluated; above zero (1s).
    #[serde(deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub evaluation_interval: Option<Span>,
    /// The time without a value after which a series is forgotten (24h).
    #[serde(deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub forget_after: Option<Span>,
    /// The time without an event after which a run is forgotten (24h).
    #[serde(deserialize_with = "span")]
    #[schemars(with = "Option<String>")]
    pub abandon_after: Option<Span>,
    /// The maximum number of live series; new ones beyond it are refused (1,000,000).
    pub series_max: Option<usize>,
    /// The maximum number of live series of one source; new ones beyond it are refused (500,000).
    pub series_per_source_max: Option<usize>,
    /// The maximum number of values per second that one source may send over HTTP to one process; a request
    /// beyond it is answered with 429 and may be retried (no limit).
    pub values_per_source_per_sec_max: Option<NonZeroU32>,
}

/// All settings of `run`, from flags, environment and file.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub pipelines: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub grace: Duration,
    pub limits: Limits,
    /// The settings of both servers. Without servers, everything is kept in the data dir.
    pub servers: Option<(nats::Settings, redis::Settings)>,
    pub snapshot_every: Duration,
    pub rollups: bool,
    /// Whether the files take precedence over rules that were added over the API or are in the store.
    pub is_applying: bool,
    pub receivers: Receivers,
    pub access: Access,
}

/// Default address of the API and the web page.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// Default lease: another worker takes over when the owner was silent for this long.
const LEASE: Span = Span::from_secs(10);

/// Default time to finish after SIGTERM.
const GRACE: Span = Span::from_secs(10);

impl Config {
    /// Reads the configuration file if a flag names one. Flags take precedence over it.
    pub(crate) fn read(args: &RunArgs) -> Result<Config> {
        let file = args.config.as_deref().map_or_else(|| Ok(File::default()), File::read)?;
        let default = Path::new("pipelines");
        let dir = args.pipelines.clone().or(file.pipelines);
        let grace = args.grace.or(file.grace).unwrap_or(GRACE);
        let stated = args.snapshot_every.or(file.redis.as_ref().and_then(|redis| redis.snapshot_every));
        let snapshot_every =
            stated.map_or(SNAPSHOT_EVERY, |span| Duration::from_millis(span.ms().max(0) as u64));
        let listen = args.listen.or(file.listen).unwrap_or(LISTEN);
        let external_url = file.external_url.unwrap_or_else(|| format!("http://{listen}"));
        let access = access(&file.tokens, file.hosts, &external_url)?;
        let access = Access {
            metrics_public: file.metrics_public,
            values_per_source_per_sec_max: file.limits.values_per_source_per_sec_max.map(NonZeroU32::get),
            ..access
        };
        let receivers = Receivers::read(file.receivers, file.route, &file.time_intervals, &external_url)?;
        Ok(Config {
            access,
            receivers,
            snapshot_every,
            is_applying: args.apply,
            rollups: args.rollups || file.rollups,
            servers: servers(args, file.nats, file.redis, file.partitions)?,
            pipelines: dir.or_else(|| default.is_dir().then(|| default.into())),
            data_dir: args.data_dir.clone().or(file.data_dir).unwrap_or_else(default_data_dir),
            listen,
            grace: Duration::from_millis(grace.ms().max(0) as u64),
            limits: file.limits.under(&args.limits).map_err(|error| bad_limits(args, &error))?,
        })
    }
}

/// Returns the error for contradictory limits. Without a configuration file it is a usage error, because then
/// only flags set limits.
fn bad_limits(args: &RunArgs, error: &str) -> anyhow::Error {
    match &args.config {
        Some(path) => BadConfig(format!("{}: limits: {error}", path.display())).into(),
        None => Usage(error.into()).into(),
    }
}

/// Builds the access rules: the tokens, and the names under which the service is reached.
fn access(files: &[TokenFile], hosts: Vec<String>, external_url: &str) -> Result<Access> {
    let bad = |message: String| BadConfig(message);
    let mut tokens = Vec::new();
    let of_environment = std::env::var("STREAMGAUGE_TOKEN").ok().filter(|token| !token.is_empty());
    if let Some(secret) = of_environment {
        tokens.push(Token::new(None, Role::Admin, &secret).map_err(|weak| bad(weak.to_string()))?);
    }
    for file in files {
        let secret = Secret::read(&file.token);
        let secret = secret.map_err(|error| bad(format!("token `{}`: {error}", file.name)))?;
        let token = Token::new(Some(&file.name), file.role, secret.reveal());
        tokens.push(token.map_err(|weak| bad(weak.to_string()))?);
    }
    check_distinct(&tokens).map_err(bad)?;
    let rest = external_url.split_once("://").map_or(external_url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or("");
    // The origin of a web page includes its port, so `origins` keeps the port and `hosts` does not.
    let origins: Vec<String> = hosts.into_iter().chain([authority.to_string()]).collect();
    let hosts = origins.iter().map(|name| host_of(name).to_string()).collect();
    Ok(Access { tokens, hosts, origins, ..Access::default() })
}

/// Checks that each token has its own secret and its own name. Otherwise the order in the file would decide
/// which role a secret has, and under whose name a change is recorded.
fn check_distinct(tokens: &[Token]) -> Result<(), String> {
    for (at, one) in tokens.iter().enumerate() {
        let (name, before) = (one.shown_name(), &tokens[..at]);
        if let Some(same) = before.iter().find(|other| other.has_secret_of(one)) {
            return Err(format!(
                "the tokens {} and {name} have the same secret; each needs its own",
                same.shown_name()
            ));
        }
        if before.iter().any(|other| other.name == one.name) {
            return Err(format!("two tokens are called {name}; each needs a name of its own"));
        }
    }
    Ok(())
}

/// Returns the settings of both servers; one server without the other is an error.
fn servers(
    args: &RunArgs,
    nats: Option<NatsFile>,
    redis: Option<RedisFile>,
    partitions: Option<u32>,
) -> Result<Option<(nats::Settings, redis::Settings)>> {
    let (root, prefix) =
        (nats.as_ref().and_then(|n| n.root.clone()), redis.as_ref().and_then(|r| r.prefix.clone()));
    let lease = args.lease.or(redis.as_ref().and_then(|redis| redis.lease)).unwrap_or(LEASE);
    if let Some(count) = partitions.filter(|count| !(1..=PARTITIONS_MAX).contains(count)) {
        return Err(BadConfig(format!("`partitions` is {count}; it is 1 to {PARTITIONS_MAX}")).into());
    }
    let nats = args.nats.clone().or(nats.map(|nats| nats.url));
    let redis = args.redis.clone().or(redis.map(|redis| redis.url));
    let (nats, redis) = match (nats, redis) {
        (Some(nats), Some(redis)) => (nats, redis),
        (None, None) => return Ok(None),
        _ => {
            let message =
                "--nats and --redis belong together; without both, everything is kept in the data dir";
            return Err(BadConfig(message.into()).into());
        }
    };
    nats::check(&nats).and_then(|()| redis::check(&redis)).map_err(BadConfig)?;
    let outages = Outages::default();
    let partition = Partition { index: 0, count: args.partitions.or(partitions).unwrap_or(1) };
    let nats = nats::Settings {
        url: nats,
        root: root.unwrap_or_else(|| "sg.v1".into()),
        partition,
        outages: outages.clone(),
        signing: Signing::default(),
    };
    let lease = Duration::from_millis(lease.ms().max(1) as u64);
    let prefix = prefix.unwrap_or_else(|| "sg".into());
    Ok(Some((nats, redis::Settings { url: redis, prefix, partition, lease, outages })))
}

impl File {
    pub(crate) fn read(path: &Path) -> Result<File> {
        let text = super::text::read(path).map_err(|error| BadConfig(format!("{error:#}")))?;
        let parsed = yaml::typed(&text);
        parsed.map_err(|error| {
            let at = error.at.map_or(String::new(), |at| format!(":{}:{}", at.line, at.column));
            BadConfig(format!("{}{at}: {}", path.display(), error.message)).into()
        })
    }
}

impl LimitsFile {
    /// Returns the engine's limits. Flags take precedence over the file.
    fn under(self, args: &LimitArgs) -> Result<Limits, String> {
        let mut limits = Limits::default();
        let put = |into: &mut Span, stated: Option<Span>| *into = stated.unwrap_or(*into);
        put(&mut limits.allowed_lateness, self.allowed_lateness);
        put(&mut limits.max_lateness, self.max_lateness);
        put(&mut limits.max_skew, self.max_skew);
        put(&mut limits.evaluation_interval, self.evaluation_interval);
        put(&mut limits.forget_after, self.forget_after);
        put(&mut limits.abandon_after, self.abandon_after);
        limits.late_policy = self.late_policy.unwrap_or(limits.late_policy);
        limits.backfill = self.backfill.unwrap_or(limits.backfill);
        limits.series_max = self.series_max.unwrap_or(limits.series_max);
        limits.series_per_source_max = self.series_per_source_max.unwrap_or(limits.series_per_source_max);
        args.over(limits)
    }
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Span>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

/// Returns the schema of the file as pretty-printed JSON.
pub(crate) fn schema() -> String {
    serde_json::to_string_pretty(&schemars::schema_for!(File)).unwrap_or_default()
}

/// Returns `$XDG_DATA_HOME/streamgauge`, by default `~/.local/share/streamgauge`.
pub(crate) fn default_data_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    base.unwrap_or_else(|| ".".into()).join("streamgauge")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<File> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("streamgauge.yaml");
        std::fs::write(&path, text)?;
        File::read(&path)
    }

    #[test]
    fn flags_stand_above_the_file() {
        assert!(file("limits: { backfill: later }").is_err());
        let text = "limits: { max_lateness: 2h, allowed_lateness: 10s, late_policy: dead, backfill: now }";
        let file = file(text).expect("read");
        let args = LimitArgs { allowed_lateness: Some(Span::from_secs(5)), ..LimitArgs::default() };
        let limits = file.limits.under(&args).expect("fits");
        assert_eq!(limits.max_lateness, Span::from_hours(2));
        assert_eq!(limits.allowed_lateness, Span::from_secs(5));
        assert_eq!((limits.late_policy, limits.backfill), (LatePolicy::Dead, Backfill::Now));
    }

    #[test]
    fn a_typing_error_is_an_error_with_its_place() {
        let wrong = file("data_dir: /data\nlimits:\n  max_latenes: 2h\n").map_err(|e| e.to_string());
        assert!(wrong.is_err_and(|e| e.contains("yaml:3:") && e.contains("max_latenes")));
        assert!(file("grace: soon").is_err());
        assert_eq!(file("").expect("an empty file"), File::default());
    }
}
