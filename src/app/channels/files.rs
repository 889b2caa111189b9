//! The channel part of `receivers:`, as the configuration states it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ChannelFile {
    /// One JSON line for each transition.
    pub log: Option<LogFile>,
    /// An HTTP POST.
    pub webhook: Option<WebhookFile>,
    pub slack: Option<SlackFile>,
    pub discord: Option<ChatFile>,
    /// A workflow's webhook.
    pub teams: Option<ChatFile>,
    /// By SMTP.
    pub email: Option<EmailFile>,
    pub pagerduty: Option<PagerDutyFile>,
    pub alertmanager: Option<AlertmanagerFile>,
    /// Each transition on a subject.
    pub nats: Option<NatsFile>,
    /// A program of this machine.
    pub exec: Option<ExecFile>,
    /// Somebody outside who calls when they hear nothing.
    pub heartbeat: Option<HeartbeatFile>,
}

/// Standard output, or a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogFile {
    pub path: Option<PathBuf>,
    /// json: each transition by itself (the default); text: what people read, by groups.
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
    /// https://…, or env:NAME or file:PATH where the URL is a secret.
    pub url: String,
    /// alertmanager: its body, by groups (the default); event: each transition by itself.
    pub format: WebhookFormat,
    /// Token of an Authorization header, as env:NAME or file:PATH.
    pub bearer: Option<String>,
    /// Secrets of the signature (Standard Webhooks), the newest first, as env:NAME or file:PATH.
    pub secrets: Vec<String>,
    /// Addresses that are not public and may be reached, also without TLS: 10.0.0.0/8.
    pub allow: Vec<String>,
    /// Alerts in one message (0: all).
    pub max_alerts: usize,
    /// Time in which it must answer (10s).
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookFormat {
    #[default]
    Alertmanager,
    Event,
}

/// Either `url`, an incoming webhook, or `token` and `channel`: then what follows stands in the thread of what
/// began it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlackFile {
    /// Of an incoming webhook. Whoever knows the URL may write there: env:NAME or file:PATH.
    pub url: Option<String>,
    /// Bot token of an app with `chat:write`, as env:NAME or file:PATH.
    pub token: Option<String>,
    /// Where the app writes: a channel's ID or name.
    pub channel: Option<String>,
    /// Another place than Slack's Web API.
    pub api: Option<String>,
    /// Addresses that are not public and may be reached.
    pub allow: Vec<String>,
    /// Time in which it must answer (10s).
    pub timeout: Option<String>,
}

/// A chat's incoming webhook.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChatFile {
    /// Whoever knows the URL may write there: env:NAME or file:PATH.
    pub url: String,
    /// Addresses that are not public and may be reached.
    pub allow: Vec<String>,
    /// Time in which it must answer (10s).
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PagerDutyFile {
    /// env:NAME or file:PATH.
    pub routing_key: String,
    /// Another place than the Events API v2 of PagerDuty.
    pub url: Option<String>,
    pub allow: Vec<String>,
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertmanagerFile {
    /// Of each peer: http://alertmanager:9093
    pub urls: Vec<String>,
    /// env:NAME or file:PATH.
    pub bearer: Option<String>,
    pub allow: Vec<String>,
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecFile {
    /// An absolute path; there is no shell.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// It is killed after this (30s).
    pub timeout: Option<String>,
}

/// A POST for each canary that came all the way; route the rule `canary` here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatFile {
    /// Whoever knows the URL may beat: env:NAME or file:PATH. Without one the latency is measured only.
    pub url: Option<String>,
    /// A canary that took longer proves nothing (2m).
    pub max_latency: Option<String>,
    /// Addresses that are not public and may be reached, also without TLS.
    pub allow: Vec<String>,
    /// Time in which it must answer (10s).
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmailFile {
    /// The server that takes mails: smtp.example.com
    pub host: String,
    /// 587 for starttls, 465 for implicit, 25 for none.
    pub port: Option<u16>,
    /// starttls (the default), implicit, or none.
    pub tls: EmailTls,
    /// A certificate to trust beside the usual ones: a PEM file.
    pub ca: Option<PathBuf>,
    pub username: Option<String>,
    /// env:NAME or file:PATH.
    pub password: Option<String>,
    /// streamgauge <alerts@example.com>
    pub from: String,
    pub to: Vec<String>,
    /// Addresses that are not public and may be reached.
    pub allow: Vec<String>,
    /// Time for each step (10s).
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
    /// nats://host:4222; env:NAME or file:PATH where it names a user.
    pub url: String,
    pub subject: String,
    /// Whether a stream keeps the subject, and says so (true); without one, whoever does not listen misses it.
    pub jetstream: Option<bool>,
    /// A .creds file.
    pub credentials: Option<PathBuf>,
    /// env:NAME or file:PATH.
    pub token: Option<String>,
    /// A certificate to trust: a PEM file.
    pub ca: Option<PathBuf>,
    /// Time in which it must answer (10s).
    pub timeout: Option<String>,
}
