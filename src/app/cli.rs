//! The command line: words, flags, environment, examples.

use crate::core::limits::{LatePolicy, Limits};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Measures services and pipelines in windows, judges them with rules, and says when something is wrong.
#[derive(Debug, Parser)]
#[command(name = "streamgauge", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  streamgauge demo
  streamgauge run --data-dir data --pipelines pipelines
  streamgauge replay events.ndjson.gz --windows-out windows.ndjson --alerts-out alerts.ndjson
  streamgauge check pipelines
  streamgauge test pipelines

Exit codes: 0 fine, 1 a check or test failed, 2 usage, 78 bad configuration.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: a built-in story in one minute, nothing to install
    Demo(DemoArgs),
    /// Run the service: events in over HTTP, windows and alerts out
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Print the log as NDJSON; `replay` of it gives the same windows and alerts
    Export(ExportArgs),
    /// Send the events of files to JetStream, waiting for acknowledgements
    Publish(PublishArgs),
    /// Look at alerts of a running service, acknowledge them
    Alerts {
        #[command(subcommand)]
        command: AlertsCommand,
    },
    /// Keep alerts from being told for a while
    Silence {
        #[command(subcommand)]
        command: SilenceCommand,
    },
    /// Plan times in which alerts are expected
    Maintenance {
        #[command(subcommand)]
        command: MaintenanceCommand,
    },
    /// Look at the rules of a running service, add some
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// What the broker should know
    Nats {
        #[command(subcommand)]
        command: NatsCommand,
    },
    /// Print the JSON Schema of what goes in or comes out
    Schema {
        /// event, alert, window, pipeline or config
        kind: crate::wire::schema::Kind,
    },
    /// Run the engine over a log in files, at full speed
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Check pipeline files: every error with its place and a hint
    Check(CheckArgs),
    /// Run the test cases written beside the rules
    Test(TestArgs),
    /// Print a completion script
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    #[command(external_subcommand)]
    Later(Vec<OsString>),
}

const RUN_EXAMPLES: &str = "Examples:
  streamgauge run                                  data in $XDG_DATA_HOME/streamgauge, rules in ./pipelines
  streamgauge run --data-dir /var/lib/streamgauge --pipelines /etc/streamgauge/pipelines
  curl -d '{\"type\":\"metric\",\"time\":\"2026-11-01T00:00:00Z\",\"source\":\"a\",\"name\":\"b\",\"value\":1}' localhost:8080/api/v1/events

SIGTERM finishes what was accepted and stops, SIGHUP reads the rules again.";

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Address of the page
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// End after so many seconds [default: until Ctrl-C]
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Directory of rules [default: ./pipelines if there is one]
    #[arg(long, value_name = "DIR", env = "STREAMGAUGE_PIPELINES")]
    pub pipelines: Option<PathBuf>,
    /// Put the files in force even where others are wanted: those in Redis, or rules added over the API
    #[arg(long)]
    pub apply: bool,
    /// Where log and windows are kept [default: $XDG_DATA_HOME/streamgauge]
    #[arg(long, value_name = "DIR", env = "STREAMGAUGE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API and the page; beyond loopback it needs STREAMGAUGE_TOKEN [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "STREAMGAUGE_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Time to finish after SIGTERM [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<crate::core::Span>,
    /// Configuration file; flags and environment stand above it
    #[arg(long, value_name = "FILE", env = "STREAMGAUGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// What this process does: all, or some of ingest and api with commas; with servers
    #[arg(long, value_name = "ROLE", default_value = "all")]
    pub role: String,
    /// NATS server; then the log is JetStream, and --redis is needed, too
    #[arg(long, value_name = "URL", env = "NATS_URL")]
    pub nats: Option<String>,
    /// Redis server; then windows and state are kept there
    #[arg(long, value_name = "URL", env = "REDIS_URL")]
    pub redis: Option<String>,
    /// With servers: publish windows on sg.v1.rollup.> as they are sealed and corrected
    #[arg(long)]
    pub rollups: bool,
    /// With servers: number of logs that the work is divided into, the same for all workers and for good [default: 1]
    #[arg(long, value_name = "N", env = "STREAMGAUGE_PARTITIONS", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub partitions: Option<u32>,
    /// With servers: another worker takes over when this one was silent for so long [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<crate::core::Span>,
    /// With servers: the state is written whole this often at most [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub snapshot_every: Option<crate::core::Span>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// NDJSON files, `-` for standard input; .gz and .zst are inflated
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// NATS server
    #[arg(long, value_name = "URL", env = "NATS_URL")]
    pub nats: String,
    /// Events a second [default: as fast as it goes]
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Lines in one message
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: usize,
    /// Partitions of the deployment
    #[arg(long, value_name = "N", env = "STREAMGAUGE_PARTITIONS", default_value_t = 1)]
    pub partitions: u32,
    /// Begin with this line of each file
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub from_line: u64,
    /// Keeps in this file how far each file is acknowledged, and goes on from there when started again
    #[arg(long, value_name = "FILE")]
    pub position: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// NATS server, where the log is JetStream
    #[arg(long, value_name = "URL", env = "NATS_URL", conflicts_with = "data_dir")]
    pub nats: Option<String>,
    /// The data dir that `run` used
    #[arg(long, value_name = "DIR", env = "STREAMGAUGE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Only records stamped from this time on
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only records stamped before this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum AlertsCommand {
    /// Active alerts, or those in a given state
    List {
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
        #[arg(long, short, value_enum, default_value = "table")]
        output: Format,
        /// pending, firing, acknowledged, resolved or stale
        #[arg(long)]
        state: Option<String>,
    },
    /// One alert with its evidence
    Show {
        id: String,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Take an acknowledgement back: escalation goes on
    Unack {
        id: String,
        /// Who [default: $USER]
        #[arg(long)]
        by: Option<String>,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Say that somebody takes care of it
    Ack {
        id: String,
        /// What changed is normal from now on: baselines begin anew where it began
        #[arg(long)]
        accept: bool,
        /// Who [default: $USER]
        #[arg(long)]
        by: Option<String>,
        #[arg(long, default_value = "")]
        why: String,
        /// When the acknowledgement ends by itself
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Why something fires, or does not: what the rule sees, and what stands between that and a person
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
}

const EXPLAIN_EXAMPLES: &str = "Examples:
  streamgauge alerts explain high_latency source=checkout
  streamgauge alerts explain high_latency source=checkout --at 2026-11-01T03:00:00Z       what was told until then
  streamgauge alerts explain high_latency source=checkout --log log.ndjson --at 2026-11-01T03:00:00Z";

#[derive(Debug, Args)]
pub struct ExplainArgs {
    pub rule: String,
    /// Labels of the key, as source=checkout,host=h1, or as JSON; nothing for `by ()`
    #[arg(default_value = "")]
    pub key: String,
    /// As of then [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Run the engine over this log (an export, or any events) instead of asking a service
    #[arg(long, value_name = "FILE")]
    pub log: Vec<PathBuf>,
    /// With --log: the rules [default: those in the log]
    #[arg(long, value_name = "DIR", requires = "log")]
    pub pipelines: Option<PathBuf>,
    #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum NatsCommand {
    /// The server's mapping of public subjects to partitions, for its configuration file
    Mapping {
        #[arg(long, value_name = "N", env = "STREAMGAUGE_PARTITIONS")]
        partitions: u32,
        /// First tokens of all subjects
        #[arg(long, default_value = "sg.v1")]
        root: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Add a rule or a document to those in force, or replace it
    Add {
        /// One rule as JSON, or a pipeline file; `-` for standard input
        file: PathBuf,
        /// What the document is called [default: the rule's id, the file's name]
        #[arg(long)]
        name: Option<String>,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Take a document away that was added
    Remove {
        name: String,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// The rules in force
    List {
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
        #[arg(long, short, value_enum, default_value = "table")]
        output: Format,
    },
}

const SILENCE_EXAMPLES: &str = "Examples:
  streamgauge silence add 'source=\"db-1\"' 'rule=~\"slow.*\"' --for 2h --reason 'disk is being replaced'
  streamgauge silence add 'rule=\"leak\"' --for 3d --unmatched-for 30m     ends when it has hidden nothing for 30m
  streamgauge silence list
  streamgauge silence expire 3f9c0a11d2e4b5c6";

#[derive(Debug, Subcommand)]
#[command(after_help = SILENCE_EXAMPLES)]
pub enum SilenceCommand {
    /// Begin one
    Add {
        /// Matchers on labels, `rule` and `severity`; all must hold
        #[arg(required = true, value_name = "MATCHER")]
        matchers: Vec<String>,
        /// How long [default: 2h]
        #[arg(long = "for", value_name = "DURATION", conflicts_with = "until")]
        duration: Option<crate::core::Span>,
        /// When it ends
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// It ends by itself when no alert has matched it for so long
        #[arg(long, value_name = "DURATION")]
        unmatched_for: Option<crate::core::Span>,
        #[arg(long, default_value = "")]
        reason: String,
        /// Who [default: $USER]
        #[arg(long)]
        by: Option<String>,
        /// Its name; adding it again under the same one replaces it
        #[arg(long)]
        id: Option<String>,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Those that are active, or will be
    List {
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
        #[arg(long, short, value_enum, default_value = "table")]
        output: Format,
    },
    /// End one now
    Expire {
        id: String,
        /// Who [default: $USER]
        #[arg(long)]
        by: Option<String>,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
}

const MAINTENANCE_EXAMPLES: &str = "Examples:
  streamgauge maintenance add 'source=~\"db.*\"' --start 2026-12-01T02:00:00Z --end 2026-12-01T04:00:00Z --reason upgrade
  streamgauge maintenance add 'pipeline=\"release\"' --schedule '0 22 * * FRI' --duration 4h --tz Europe/Berlin --except 2026-12-25
  streamgauge maintenance preview 'pipeline=\"release\"' --schedule '0 22 * * FRI' --duration 4h --tz Europe/Berlin
  streamgauge maintenance list
  streamgauge maintenance end db-upgrade";

#[derive(Debug, Subcommand)]
#[command(after_help = MAINTENANCE_EXAMPLES)]
pub enum MaintenanceCommand {
    /// Plan one
    Add {
        #[command(flatten)]
        plan: PlanArgs,
        /// Its name; adding it again under the same one replaces it
        #[arg(long)]
        id: Option<String>,
        /// Who [default: $USER]
        #[arg(long)]
        by: Option<String>,
        #[arg(long, default_value = "")]
        reason: String,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// All of them, those of the pipeline files too, with the next time of each
    List {
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
        #[arg(long, short, value_enum, default_value = "table")]
        output: Format,
    },
    /// End one that was added, now and for good
    End {
        id: String,
        /// Who [default: $USER]
        #[arg(long)]
        by: Option<String>,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// What one would do: its next ten times, which alerts it would match now; changes nothing
    Preview {
        #[command(flatten)]
        plan: PlanArgs,
        /// Whether it would be in force then, and its times from there on [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        #[arg(long, env = "STREAMGAUGE_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
        #[arg(long, short, value_enum, default_value = "table")]
        output: Format,
    },
}

/// When maintenance is, and of what.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Matchers on labels, `rule` and `severity`; all must hold
    #[arg(required = true, value_name = "MATCHER")]
    pub matchers: Vec<String>,
    #[arg(long, value_name = "TIME", requires = "end")]
    pub start: Option<String>,
    #[arg(long, value_name = "TIME", requires = "start")]
    pub end: Option<String>,
    /// A cron pattern: when it begins, by the clock on the wall
    #[arg(long, value_name = "CRON", requires = "duration", conflicts_with = "start")]
    pub schedule: Option<String>,
    #[arg(long, value_name = "DURATION")]
    pub duration: Option<crate::core::Span>,
    /// IANA name of the wall's time zone [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub tz: Option<String>,
    /// Days on which it does not begin
    #[arg(long, value_name = "DATE")]
    pub except: Vec<String>,
    /// mute: alerts are judged, but not told; suspend: they are not judged
    #[arg(long, value_parser = ["mute", "suspend"], default_value = "mute")]
    pub mode: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Json,
}

const REPLAY_EXAMPLES: &str = "Examples:
  streamgauge replay events.ndjson                      windows and alerts are counted, not written
  zcat events.gz | streamgauge replay - --json          a summary for machines
  streamgauge replay log.ndjson --until 2026-11-01T01:00:00Z --alerts-out -";

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// NDJSON files, `-` for standard input; .gz and .zst are inflated
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Directory of rules; without it ./pipelines if there is one, and the rules the log itself holds
    #[arg(long, value_name = "DIR", env = "STREAMGAUGE_PIPELINES")]
    pub pipelines: Option<PathBuf>,
    /// Write each window as a line, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub windows_out: Option<PathBuf>,
    /// Write each transition of an alert as a line
    #[arg(long, value_name = "FILE")]
    pub alerts_out: Option<PathBuf>,
    /// Write each value of each `record:` series as a line
    #[arg(long, value_name = "FILE")]
    pub records_out: Option<PathBuf>,
    /// Threads; the output does not depend on it [default: the machine's processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: Option<u16>,
    /// Put the lines in order of their time first
    #[arg(long)]
    pub sort: bool,
    /// Advance the clock to this time after the last line
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Report each refused event, not only the first ones
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What may be set of the engine's limits on the command line.
#[derive(Debug, Args, Default)]
pub struct LimitArgs {
    /// An event is on time until this long after its minute [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub allowed_lateness: Option<crate::core::Span>,
    /// An event is refused from this long after its minute [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub max_lateness: Option<crate::core::Span>,
    /// What becomes of late events [default: correct]
    #[arg(long, value_name = "POLICY", value_parser = ["correct", "drop", "dead"])]
    pub late_policy: Option<String>,
    /// Distance of the points in time at which rules are evaluated [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub evaluation_interval: Option<crate::core::Span>,
}

impl LimitArgs {
    /// The default limits with what was said here put in.
    pub fn limits(&self) -> anyhow::Result<Limits> {
        self.over(Limits::default())
    }

    /// The limits with what was said here put in.
    pub fn over(&self, mut limits: Limits) -> anyhow::Result<Limits> {
        limits.allowed_lateness = self.allowed_lateness.unwrap_or(limits.allowed_lateness);
        limits.max_lateness = self.max_lateness.unwrap_or(limits.max_lateness);
        limits.evaluation_interval = self.evaluation_interval.unwrap_or(limits.evaluation_interval);
        limits.late_policy = match self.late_policy.as_deref() {
            Some("drop") => LatePolicy::Drop,
            Some("dead") => LatePolicy::Dead,
            Some(_) => LatePolicy::Correct,
            None => limits.late_policy,
        };
        if !limits.evaluation_interval.is_positive() {
            return Err(Usage("the evaluation interval must be above zero".into()).into());
        }
        if limits.max_lateness < limits.allowed_lateness {
            return Err(Usage("the maximal lateness must not be below the allowed one".into()).into());
        }
        Ok(limits)
    }
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Directories or files [default: pipelines]
    #[arg(value_name = "DIR")]
    pub paths: Vec<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Warnings count as errors
    #[arg(long)]
    pub deny_warnings: bool,
}

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Directories or files [default: pipelines]
    #[arg(value_name = "DIR")]
    pub paths: Vec<PathBuf>,
}

/// A word or flag that cannot be understood; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Words of later versions, which are reserved now.
const LATER: [&str; 4] = ["backtest", "convert", "notify", "top"];

pub fn not_yet(word: &str) -> anyhow::Error {
    if LATER.contains(&word) {
        return Usage(format!("`{word}` is not available yet")).into();
    }
    let known = Cli::command();
    let names: Vec<String> = known.get_subcommands().map(|command| command.get_name().to_string()).collect();
    let near = crate::pipeline::diagnostic::nearest(word, names.iter().map(String::as_str));
    let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    Usage(format!("`{word}` is not a command{hint} (see --help)")).into()
}

pub fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "streamgauge", &mut std::io::stdout());
}
