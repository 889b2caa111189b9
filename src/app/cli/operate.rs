//! Subcommands and flags of the commands that operate a running service.

use super::Format;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The running service to which a command sends its requests.
#[derive(Debug, Args)]
pub struct Service {
    #[arg(long, env = "STREAMGAUGE_URL", hide_env_values = true, default_value = "http://127.0.0.1:8080")]
    pub url: String,
}

/// The service and the output format of a list.
#[derive(Debug, Args)]
pub struct Listing {
    #[command(flatten)]
    pub service: Service,
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Format,
}

/// The name under which a change is recorded.
#[derive(Debug, Args)]
pub struct Who {
    /// Record the change under this name [default: $USER]
    #[arg(long)]
    pub by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum AlertsCommand {
    /// List active alerts, or those in a given state
    List {
        #[command(flatten)]
        listing: Listing,
        /// State: pending, firing, acknowledged, escalated, resolved or stale
        #[arg(long)]
        state: Option<String>,
    },
    /// Show an alert with its evidence
    Show {
        id: String,
        #[command(flatten)]
        service: Service,
    },
    /// Withdraw an acknowledgement, so that the escalation continues
    Unack {
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        service: Service,
    },
    /// Acknowledge an alert
    Ack {
        id: String,
        /// Accept the change as normal: baselines are learned anew from its beginning
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        who: Who,
        #[arg(long, default_value = "")]
        why: String,
        /// End the acknowledgement at this time
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Explain why an alert fires or does not, from the inputs of the rule to the notification
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
    /// Labels of the key, as source=checkout,host=h1 or as JSON; empty for `by ()`
    #[arg(default_value = "")]
    pub key: String,
    /// Explain the state at this time [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Run the engine over this log (an export, or any events) instead of asking a service
    #[arg(long, value_name = "FILE")]
    pub log: Vec<PathBuf>,
    /// With --log: directory of the rules [default: those in the log]
    #[arg(long, value_name = "DIR", requires = "log")]
    pub pipelines: Option<PathBuf>,
    #[command(flatten)]
    pub service: Service,
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Format,
}

const SILENCE_EXAMPLES: &str = "Examples:
  streamgauge silence add 'source=\"db-1\"' 'rule=~\"slow.*\"' --for 2h --reason 'disk is being replaced'
  streamgauge silence add 'rule=\"leak\"' --for 3d --unmatched-for 30m     ends when it has hidden nothing for 30m
  streamgauge silence list
  streamgauge silence expire 3f9c0a11d2e4b5c6";

#[derive(Debug, Subcommand)]
#[command(after_help = SILENCE_EXAMPLES)]
pub enum SilenceCommand {
    /// Add a silence
    Add {
        /// Matchers on labels, `rule` and `severity`; all must hold
        #[arg(required = true, value_name = "MATCHER")]
        matchers: Vec<String>,
        /// Duration of the silence [default: 2h]
        #[arg(long = "for", value_name = "DURATION", conflicts_with = "until")]
        duration: Option<crate::core::Span>,
        /// End the silence at this time
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// End the silence when no alert has matched it for this time
        #[arg(long, value_name = "DURATION")]
        unmatched_for: Option<crate::core::Span>,
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        who: Who,
        /// Id of the silence; a silence with the same id is replaced
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// List silences that are active, or will be
    List(Listing),
    /// End a silence now
    Expire {
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        service: Service,
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
    /// Add a maintenance window
    Add {
        #[command(flatten)]
        plan: PlanArgs,
        /// Id of the maintenance window; a window with the same id is replaced
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        who: Who,
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        service: Service,
    },
    /// List all maintenance windows, including those of the pipeline files, with the next time of each
    List(Listing),
    /// End an added maintenance window now and for good
    End {
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        service: Service,
    },
    /// Show the next ten times of a maintenance window and the alerts that it matches now; change nothing
    Preview {
        #[command(flatten)]
        plan: PlanArgs,
        /// Show whether the window is in force at this time, and its times from then on [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        #[command(flatten)]
        service: Service,
        #[arg(long, short, value_enum, default_value = "table")]
        output: Format,
    },
}

/// The times and the matchers of a maintenance window.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Matchers on labels, `rule` and `severity`; all must hold
    #[arg(required = true, value_name = "MATCHER")]
    pub matchers: Vec<String>,
    #[arg(long, value_name = "TIME", requires = "end")]
    pub start: Option<String>,
    #[arg(long, value_name = "TIME", requires = "start")]
    pub end: Option<String>,
    /// Cron pattern of the starts, in local time of --tz
    #[arg(long, value_name = "CRON", requires = "duration", conflicts_with = "start")]
    pub schedule: Option<String>,
    #[arg(long, value_name = "DURATION")]
    pub duration: Option<crate::core::Span>,
    /// IANA name of the time zone of --schedule [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub tz: Option<String>,
    /// Date on which no window of the schedule begins
    #[arg(long, value_name = "DATE")]
    pub except: Vec<String>,
    /// Effect on alerts: mute (judged, but not notified) or suspend (not judged)
    #[arg(long, value_parser = ["mute", "suspend"], default_value = "mute")]
    pub mode: String,
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Add or replace a rule or a document
    Add {
        /// File with one rule as JSON, or a pipeline file; `-` for standard input
        file: PathBuf,
        /// Name of the document [default: the rule's id, the file's name]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Remove a document that was added
    Remove {
        name: String,
        #[command(flatten)]
        service: Service,
    },
    /// List the rules in force
    List(Listing),
}

#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send an alert and its end to a receiver from this machine, and report the result
    #[command(after_help = "Examples:\n  streamgauge notify test ops --config streamgauge.yaml")]
    Test {
        receiver: String,
        /// Configuration file with `receivers:`
        #[arg(long, env = "STREAMGAUGE_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        who: Who,
    },
    /// Deliver the dead letters of a receiver again
    #[command(
        after_help = "Examples:\n  streamgauge notify redrive ops --url http://127.0.0.1:8080\n\nWith several processes, ask the one that delivers: `streamgauge notify list` says which."
    )]
    Redrive {
        receiver: String,
        #[command(flatten)]
        service: Service,
    },
    /// List the receivers of a running service and their state
    List(Listing),
}
