//! Subcommands and flags of the commands that operate a running service.

use super::Format;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The service that is asked.
#[derive(Debug, Args)]
pub struct Service {
    #[arg(long, env = "STREAMGAUGE_URL", hide_env_values = true, default_value = "http://127.0.0.1:8080")]
    pub url: String,
}

/// What a list is asked of, and how it is shown.
#[derive(Debug, Args)]
pub struct Listing {
    #[command(flatten)]
    pub service: Service,
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Format,
}

/// In whose name.
#[derive(Debug, Args)]
pub struct Who {
    /// Who [default: $USER]
    #[arg(long)]
    pub by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum AlertsCommand {
    /// Active alerts, or those in a given state
    List {
        #[command(flatten)]
        listing: Listing,
        /// pending, firing, acknowledged, escalated, resolved or stale
        #[arg(long)]
        state: Option<String>,
    },
    /// One alert with its evidence
    Show {
        id: String,
        #[command(flatten)]
        service: Service,
    },
    /// Take an acknowledgement back: escalation goes on
    Unack {
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        service: Service,
    },
    /// Say that somebody takes care of it
    Ack {
        id: String,
        /// What changed is normal from now on: baselines begin anew where it began
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        who: Who,
        #[arg(long, default_value = "")]
        why: String,
        /// When the acknowledgement ends by itself
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        #[command(flatten)]
        service: Service,
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
        #[command(flatten)]
        who: Who,
        /// Its name; adding it again under the same one replaces it
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Those that are active, or will be
    List(Listing),
    /// End one now
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
    /// Plan one
    Add {
        #[command(flatten)]
        plan: PlanArgs,
        /// Its name; adding it again under the same one replaces it
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        who: Who,
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        service: Service,
    },
    /// All of them, those of the pipeline files too, with the next time of each
    List(Listing),
    /// End one that was added, now and for good
    End {
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        service: Service,
    },
    /// What one would do: its next ten times, which alerts it would match now; changes nothing
    Preview {
        #[command(flatten)]
        plan: PlanArgs,
        /// Whether it would be in force then, and its times from there on [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        #[command(flatten)]
        service: Service,
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

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Add a rule or a document to those in force, or replace it
    Add {
        /// One rule as JSON, or a pipeline file; `-` for standard input
        file: PathBuf,
        /// What the document is called [default: the rule's id, the file's name]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Take a document away that was added
    Remove {
        name: String,
        #[command(flatten)]
        service: Service,
    },
    /// The rules in force
    List(Listing),
}

#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send a receiver an alert and its end, from here, and say what became of it
    #[command(after_help = "Examples:\n  streamgauge notify test ops --config streamgauge.yaml")]
    Test {
        receiver: String,
        /// The configuration with `receivers:`
        #[arg(long, env = "STREAMGAUGE_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        who: Who,
    },
    /// Take up the messages that could not be delivered and were put aside
    #[command(
        after_help = "Examples:\n  streamgauge notify redrive ops --url http://127.0.0.1:8080\n\nWith several processes, ask the one that delivers: `streamgauge notify list` says which."
    )]
    Redrive {
        receiver: String,
        #[command(flatten)]
        service: Service,
    },
    /// The receivers of a running service, and how they are
    List(Listing),
}
