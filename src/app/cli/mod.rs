//! The command line: commands, flags, environment variables and examples.

mod operate;

use crate::core::vocab::limits::{Backfill, LatePolicy, Limits, PARTITIONS_MAX};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use operate::{
    AlertsCommand, ExplainArgs, Listing, MaintenanceCommand, NotifyCommand, PlanArgs, RulesCommand, Service,
    SilenceCommand, Who,
};

/// Measure services and pipelines in windows, judge them with rules, and notify people of problems
#[derive(Debug, Parser)]
#[command(name = "streamgauge", version = crate::app::VERSION, after_help = EXAMPLES)]
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

Exit codes: 0 fine, 1 a check or test failed, an input or output is broken, 2 usage, 78 bad configuration.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a built-in demonstration of one minute, without any installation
    Demo(DemoArgs),
    /// Run the service, which turns events into windows and alerts
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Print the log as NDJSON, from which `replay` gives the same windows and alerts
    Export(ExportArgs),
    /// Check a data dir for damage, by its checksums
    Verify(VerifyArgs),
    /// Collect what a report of a problem needs, without secrets, as one JSON document
    #[command(after_help = SUPPORT_EXAMPLES)]
    SupportBundle(SupportArgs),
    /// Send the events of files to JetStream and wait for acknowledgements
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish(PublishArgs),
    /// List and acknowledge alerts of a running service
    Alerts {
        #[command(subcommand)]
        command: AlertsCommand,
    },
    /// Silence alerts for a while
    Silence {
        #[command(subcommand)]
        command: SilenceCommand,
    },
    /// Plan maintenance windows, in which alerts are expected
    Maintenance {
        #[command(subcommand)]
        command: MaintenanceCommand,
    },
    /// Test and list receivers, deliver dead letters again
    Notify {
        #[command(subcommand)]
        command: NotifyCommand,
    },
    /// List, add and remove rules of a running service
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// Print configuration for the NATS server
    Nats {
        #[command(subcommand)]
        command: NatsCommand,
    },
    /// Print the JSON Schema of an input or output format
    Schema {
        /// Format to describe: event, alert, window, pipeline or config
        kind: crate::wire::schema::Kind,
    },
    /// Run the engine over log files at full speed
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Check pipeline files and report every error with its place and a hint
    Check(CheckArgs),
    /// Run the test cases of pipeline files
    Test(TestArgs),
    /// Run rules over past data, or compare two rule sets
    #[command(after_help = BACKTEST_EXAMPLES)]
    Backtest(BacktestArgs),
    /// Convert rules of other systems into pipeline files
    Convert {
        #[command(subcommand)]
        command: ConvertCommand,
    },
    /// Print a completion script
    Completions {
        /// Shell: bash, elvish, fish, powershell or zsh
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
    /// Address of the web page
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// End after N seconds [default: until Ctrl-C]
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// IdentityTable of the pipeline files [default: ./pipelines if there is one]
    #[arg(long, value_name = "DIR", env = "STREAMGAUGE_PIPELINES")]
    pub pipelines: Option<PathBuf>,
    /// Put the files in force in place of the rules in Redis or those added over the API
    #[arg(long)]
    pub apply: bool,
    /// IdentityTable of log, windows and alerts [default: $XDG_DATA_HOME/streamgauge]
    #[arg(long, value_name = "DIR", env = "STREAMGAUGE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API and the web page; beyond loopback a token is required [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "STREAMGAUGE_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Time to finish after SIGTERM [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<crate::core::Span>,
    /// Configuration file; flags and environment variables take precedence over it
    #[arg(long, value_name = "FILE", env = "STREAMGAUGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// With servers: roles of this process: all, or ingest, api and notify separated by commas
    #[arg(long, value_name = "ROLE", default_value = "all")]
    pub role: String,
    /// URL of the NATS server, whose JetStream holds the log; requires --redis
    #[arg(long, value_name = "URL", env = "NATS_URL", hide_env_values = true)]
    pub nats: Option<String>,
    /// URL of the Redis server, which holds windows and state; requires --nats
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// With servers: publish sealed and corrected windows on sg.v1.rollup.>
    #[arg(long)]
    pub rollups: bool,
    /// With servers: number of partitions, the same for all workers and never changed [default: 1]
    #[arg(long, value_name = "N", env = "STREAMGAUGE_PARTITIONS", value_parser = clap::value_parser!(u32).range(1..=PARTITIONS_MAX.into()))]
    pub partitions: Option<u32>,
    /// With servers: lease; another worker takes over if the owner is silent for this time [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<crate::core::Span>,
    /// With servers: minimum time between two full snapshots of the state [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub snapshot_every: Option<crate::core::Span>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

const PUBLISH_EXAMPLES: &str = "Examples:
  streamgauge publish events.ndjson.gz --nats nats://127.0.0.1:4222
  tail -F events.ndjson | streamgauge publish - --nats nats://127.0.0.1:4222
  streamgauge publish events.ndjson --position events.position --timeout 30s    goes on where it ended

Ends with 1 when it gave up or was told to end; then it says from which line to go on, and --position keeps it.
Lines that the service would refuse as too long or as no text are said and left out; all of them: 1.";

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// NDJSON files, or `-` for standard input; gzip and zstd are decompressed
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// URL of the NATS server
    #[arg(long, value_name = "URL", env = "NATS_URL", hide_env_values = true)]
    pub nats: String,
    /// Give up when the server acknowledges nothing for this time [default: wait, and say so]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<crate::core::Span>,
    /// Maximum number of events per second [default: as fast as it goes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Maximum number of lines in one message
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Number of partitions of the deployment
    #[arg(long, value_name = "N", env = "STREAMGAUGE_PARTITIONS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=PARTITIONS_MAX.into()))]
    pub partitions: u32,
    /// Begin with this line of each file [default: where --position says, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub from_line: Option<u64>,
    /// Save in this file how far each input is acknowledged, and resume from there after a restart
    #[arg(long, value_name = "FILE")]
    pub position: Option<PathBuf>,
}

const SUPPORT_EXAMPLES: &str = "Examples:
  streamgauge support-bundle -o bundle.json
  streamgauge support-bundle --config streamgauge.yaml --pipelines pipelines --log service.log -o bundle.json";

#[derive(Debug, Args)]
pub struct SupportArgs {
    #[command(flatten)]
    pub service: Service,
    /// Configuration file; values that may be secrets are left out
    #[arg(long, value_name = "FILE", env = "STREAMGAUGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Rule file, or directory of rule files, to check
    #[arg(long, value_name = "PATH")]
    pub pipelines: Option<PathBuf>,
    /// Log of the service; its last 1,000 lines are included
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Write to this new file, which only you can read, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Data dir of a stopped service [default: $XDG_DATA_HOME/streamgauge]
    #[arg(long, value_name = "DIR", env = "STREAMGAUGE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Skip damaged records of a data dir and write each as a gap
    #[arg(long, conflicts_with = "nats")]
    pub skip_damaged: bool,
    /// URL of the NATS server whose JetStream holds the log [env, if no flag names a log: NATS_URL]
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    pub nats: Option<String>,
    /// Data dir of a stopped service [env, if no flag names a log: STREAMGAUGE_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print only records stamped at or after this time
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Print only records stamped before this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum NatsCommand {
    /// Print the mapping of public subjects to partitions, for the server's configuration file
    Mapping {
        #[arg(long, value_name = "N", env = "STREAMGAUGE_PARTITIONS", value_parser = clap::value_parser!(u32).range(1..=PARTITIONS_MAX.into()))]
        partitions: u32,
        /// First tokens of all subjects
        #[arg(long, default_value = "sg.v1")]
        root: String,
    },
}

const BACKTEST_EXAMPLES: &str = "Examples:
  streamgauge backtest events.ndjson.gz --pipelines pipelines
  streamgauge backtest --nats nats://127.0.0.1:4222 --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z
  streamgauge backtest --data-dir ./data --compare pipelines pipelines.new --json

The data before --from teaches baselines, and its alerts are not counted.";

#[derive(Debug, Args)]
pub struct BacktestArgs {
    /// NDJSON files, as for `replay`
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Read the log from JetStream of this server [env, if nothing names a log: NATS_URL]
    #[arg(long, value_name = "URL", conflicts_with_all = ["files", "data_dir"])]
    pub nats: Option<String>,
    /// Read the log from the data dir of a stopped service
    #[arg(long, value_name = "DIR", conflicts_with = "files")]
    pub data_dir: Option<PathBuf>,
    /// Count only alerts from this time on
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Process data only until this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Length of a service's log before --from that teaches baselines [default: 1d]
    #[arg(long, value_name = "DURATION")]
    pub warm: Option<crate::core::Span>,
    /// IdentityTable of the rules [default: ./pipelines] [env, if no flag names rules: STREAMGAUGE_PIPELINES]
    #[arg(long, value_name = "DIR")]
    pub pipelines: Option<PathBuf>,
    /// Compare two directories of rules: report the alerts that the second one gains and loses
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "pipelines")]
    pub compare: Vec<PathBuf>,
    /// Sort the lines by time first
    #[arg(long)]
    pub sort: bool,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

const CONVERT_EXAMPLES: &str = "Examples:
  streamgauge convert prometheus-rules alerts.yml > pipelines/alerts.yaml
  streamgauge convert prometheus-rules rules/*.yml --out pipelines/imported.yaml --strict
  streamgauge test alerts_test.yml              promtool's tests of the same rules";

#[derive(Debug, Subcommand)]
#[command(after_help = CONVERT_EXAMPLES)]
pub enum ConvertCommand {
    /// Convert alerting and recording rules of Prometheus; list what has no counterpart, with the reason
    PrometheusRules {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Write the pipeline file here [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Exit with 1 if anything was left out
        #[arg(long)]
        strict: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Json,
}

const REPLAY_EXAMPLES: &str = "Examples:
  streamgauge replay events.ndjson                      windows and alerts are counted, not written
  zcat events.gz | streamgauge replay - --json          a summary for machines
  streamgauge replay log.ndjson --until 2026-11-01T01:00:00Z --alerts-out -
  streamgauge replay nightly.ndjson --pipelines pipelines --fail-on critical       a gate in a build

Ends with 0 also where some lines are refused: they are reported and counted. Ends with 1 when all of them
are, when an input is damaged (what is whole of it is taken, and the summary has `input_errors`), when an
output cannot be written, and with --fail-on when an alert of a rule reached that level, told or not.";

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// NDJSON files, or `-` for standard input; gzip and zstd are decompressed, several files merged by time
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// IdentityTable of the pipeline files; without it, ./pipelines if it exists and the rules in the log
    #[arg(long, value_name = "DIR", env = "STREAMGAUGE_PIPELINES")]
    pub pipelines: Option<PathBuf>,
    /// Write each window as a line to this file, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub windows_out: Option<PathBuf>,
    /// Write each transition of an alert as a line to this file
    #[arg(long, value_name = "FILE")]
    pub alerts_out: Option<PathBuf>,
    /// Write each value of each `record:` series as a line to this file
    #[arg(long, value_name = "FILE")]
    pub records_out: Option<PathBuf>,
    /// Number of threads, 1 to 64; it does not affect the output [default: the machine's processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: Option<u16>,
    /// Sort the lines by time first, in a temporary file
    #[arg(long)]
    pub sort: bool,
    /// Advance log time to this time after the last line
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Exit with 1 if an alert of this level or a higher one fired
    #[arg(long, value_name = "LEVEL", value_parser = ["info", "warning", "critical"])]
    pub fail_on: Option<String>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Report each refused event, not only the first ones
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// The limits of the engine that the command line can change.
#[derive(Debug, Args, Default)]
pub struct LimitArgs {
    /// Lateness up to which an event is on time, counted from the end of its minute [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub allowed_lateness: Option<crate::core::Span>,
    /// Lateness from which an event is refused, counted from the end of its minute [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub max_lateness: Option<crate::core::Span>,
    /// Handling of late events [default: correct]
    #[arg(long, value_name = "POLICY", value_parser = ["correct", "drop", "dead"])]
    pub late_policy: Option<String>,
    /// Handling of a stage's or run's duration that arrives after its window is closed [default: never]
    #[arg(long, value_name = "WHEN", value_parser = ["never", "now"])]
    pub backfill: Option<String>,
    /// Distance between two grid points, the times at which rules are evaluated [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub evaluation_interval: Option<crate::core::Span>,
}

impl LimitArgs {
    /// Returns the default limits with the stated flags applied.
    pub fn limits(&self) -> anyhow::Result<Limits> {
        Ok(self.over(Limits::default()).map_err(Usage)?)
    }

    /// Returns the limits with the stated flags applied, or an error if they contradict each other.
    pub fn over(&self, mut limits: Limits) -> Result<Limits, String> {
        limits.allowed_lateness = self.allowed_lateness.unwrap_or(limits.allowed_lateness);
        limits.max_lateness = self.max_lateness.unwrap_or(limits.max_lateness);
        limits.evaluation_interval = self.evaluation_interval.unwrap_or(limits.evaluation_interval);
        limits.late_policy = match self.late_policy.as_deref() {
            Some("drop") => LatePolicy::Drop,
            Some("dead") => LatePolicy::Dead,
            Some(_) => LatePolicy::Correct,
            None => limits.late_policy,
        };
        limits.backfill = match self.backfill.as_deref() {
            Some("now") => Backfill::Now,
            Some(_) => Backfill::Never,
            None => limits.backfill,
        };
        if !limits.evaluation_interval.is_positive() {
            return Err("the evaluation interval must be above zero".into());
        }
        if limits.max_lateness < limits.allowed_lateness {
            let Limits { allowed_lateness, max_lateness, .. } = limits;
            return Err(format!(
                "the maximal lateness {max_lateness} must not be below the allowed one of {allowed_lateness}"
            ));
        }
        Ok(limits)
    }
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Directories or pipeline files [default: pipelines]
    #[arg(value_name = "DIR")]
    pub paths: Vec<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Treat warnings as errors
    #[arg(long)]
    pub deny_warnings: bool,
}

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Directories or pipeline files [default: pipelines]
    #[arg(value_name = "DIR")]
    pub paths: Vec<PathBuf>,
}

/// An error in the command line; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Returns an environment variable that is not empty. Commands with mutually exclusive flags read it
/// themselves, so that a flag takes precedence over the variable of another flag.
pub fn of_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Parses the RFC 3339 time of a flag.
pub fn instant(text: &str) -> anyhow::Result<crate::core::Timestamp> {
    let time = crate::wire::time::parse(text.as_bytes());
    time.ok_or_else(|| Usage(format!("`{text}` is no RFC 3339 time, such as 2026-11-01T00:00:00Z")).into())
}

/// Names reserved for commands of later versions.
const LATER: [&str; 1] = ["top"];

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

/// Returns the completion script of a shell.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "streamgauge", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Prints the help, the version, or the error in the command line. Returns the exit code.
pub fn answer(answer: &clap::Error) -> u8 {
    let said = answer.print().and_then(|()| std::io::stdout().flush());
    match said {
        _ if answer.use_stderr() => super::BAD_USAGE,
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            super::stderr::note(format_args!("streamgauge: cannot write to standard output: {error}"));
            super::FAILED
        }
        _ => super::FINE,
    }
}
