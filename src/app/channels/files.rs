//! The channel part of `receivers:`, as the configuration states it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The channel of a receiver: exactly one of these fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ChannelFile {
    /// A log: one JSON line for each transition, or readable text for each group.
    pub log: Option<LogFile>,
    /// An HTTP POST to a URL.
    pub webhook: Option<WebhookFile>,
    pub slack: Option<SlackFile>,
    pub discord: Option<ChatFile>,
    /// The webhook of a Microsoft Teams workflow.
    pub teams: Option<ChatFile>,
    /// An email, sent over SMTP.
    pub email: Option<EmailFile>,
    pub pagerduty: Option<PagerDutyFile>,
    pub alertmanager: Option<AlertmanagerFile>,
    /// A NATS subject on which each transition is published.
    pub nats: Option<NatsFile>,
    /// A program on this machine, run for each transition.
    pub exec: Option<ExecFile>,
    /// A dead man's switch: an outside service that alerts when no heartbeat arrives.
    pub heartbeat: Option<HeartbeatFile>,
}

/// The target of a log: the file at `path` (standard output).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogFile {
    pub path: Option<PathBuf>,
    /// The format: json, one line for each transition (the default), or text, readable text for each group.
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Json,
    Text,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookFile {
    /// The URL of the target: https://…, or env:NAME or file:PATH if the URL is a secret.
    pub url: String,
    /// The body: alertmanager, Alertmanager's body for each group (the default), or event, one transition.
    pub format: WebhookFormat,
    /// The token of the Authorization header, as env:NAME or file:PATH.
    pub bearer: Option<String>,
    /// The secrets of the signature (Standard Webhooks), the newest first, each as env:NAME or file:PATH.
    pub secrets: Vec<String>,
    /// Networks that are not public and may be reached, also without TLS, such as 10.0.0.0/8.
    pub allow: Vec<String>,
    /// The maximum number of alerts in one message (0: all).
    pub max_alerts: usize,
    /// The time within which the target must answer (10s).
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookFormat {
    #[default]
    Alertmanager,
    Event,
}

/// A Slack channel: either `url`, an incoming webhook, or `token` and `channel`, an app. The app posts the
/// later messages of a group in the thread of its first message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlackFile {
    /// The URL of an incoming webhook, as env:NAME or file:PATH; it is a secret, because it allows posting.
    pub url: Option<String>,
    /// The bot token of an app with the scope `chat:write`, as env:NAME or file:PATH.
    pub token: Option<String>,
    /// The ID or name of the channel in which the app posts.
    pub channel: Option<String>,
    /// The URL to which the app posts (`https://slack.com/api/chat.postMessage`).
    pub api: Option<String>,
    /// Networks that are not public and may be reached, such as 10.0.0.0/8.
    pub allow: Vec<String>,
    /// The time within which the target must answer (10s).
    pub timeout: Option<String>,
}

/// The incoming webhook of a chat: Discord or Microsoft Teams.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChatFile {
    /// The URL of the webhook, as env:NAME or file:PATH; it is a secret, because it allows posting.
    pub url: String,
    /// Networks that are not public and may be reached, such as 10.0.0.0/8.
    pub allow: Vec<String>,
    /// The time within which the target must answer (10s).
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PagerDutyFile {
    /// The routing key of the PagerDuty integration, as env:NAME or file:PATH.
    pub routing_key: String,
    /// The URL of the Events API v2 (`https://events.pagerduty.com/v2/enqueue`).
    pub url: Option<String>,
    pub allow: Vec<String>,
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertmanagerFile {
    /// The URL of each peer, such as http://alertmanager:9093
    pub urls: Vec<String>,
    /// The token of the Authorization header, as env:NAME or file:PATH.
    pub bearer: Option<String>,
    pub allow: Vec<String>,
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecFile {
    /// The absolute path of the program, which is run without a shell.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The time after which the program is killed (30s).
    pub timeout: Option<String>,
}

/// A dead man's switch: it gets a POST each time the canaries of all partitions have arrived. A route must
/// send the rule `canary` to this receiver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatFile {
    /// The URL that gets the POST, as env:NAME or file:PATH; without it only the latency is measured.
    pub url: Option<String>,
    /// The maximum latency of a canary; a slower one is ignored (2m).
    pub max_latency: Option<String>,
    /// Networks that are not public and may be reached, also without TLS, such as 10.0.0.0/8.
    pub allow: Vec<String>,
    /// The time within which the target must answer (10s).
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmailFile {
    /// The host name of the SMTP server, such as smtp.example.com
    pub host: String,
    /// The port of the SMTP server (587 for starttls, 465 for implicit, 25 for none).
    pub port: Option<u16>,
    /// The encryption of the connection: starttls (the default), implicit or none.
    pub tls: EmailTls,
    /// A PEM file with a certificate to trust in addition to the usual ones.
    pub ca: Option<PathBuf>,
    pub username: Option<String>,
    /// The password of `username`, as env:NAME or file:PATH.
    pub password: Option<String>,
    /// The sender, such as streamgauge <alerts@example.com>
    pub from: String,
    pub to: Vec<String>,
    /// Networks that are not public and may be reached, such as 10.0.0.0/8.
    pub allow: Vec<String>,
    /// The timeout of each step of the SMTP exchange (10s).
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmailTls {
    #[default]
    Starttls,
    Implicit,
    None,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NatsFile {
    /// The URL of the NATS server: nats://host:4222, or env:NAME or file:PATH if it contains credentials.
    pub url: String,
    pub subject: String,
    /// Whether a JetStream stream stores the subject and acknowledges each message (true); without a stream,
    /// only connected subscribers get the message.
    pub jetstream: Option<bool>,
    /// The path of a .creds file with the credentials.
    pub credentials: Option<PathBuf>,
    /// The token for the NATS server, as env:NAME or file:PATH.
    pub token: Option<String>,
    /// A PEM file with a certificate to trust.
    pub ca: Option<PathBuf>,
    /// The time within which the target must answer (10s).
    pub timeout: Option<String>,
}
