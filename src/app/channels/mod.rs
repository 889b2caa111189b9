//! The channels of `receivers:`: the configuration of each, and how a channel is created from it.

mod files;

pub(crate) use files::*;

use super::checked::{Checked, bad, span};
use crate::adapters::notify::address::Network;
use crate::adapters::notify::alertmanager::{self, Alertmanager};
use crate::adapters::notify::discord::Discord;
use crate::adapters::notify::email::{Email, Parties};
use crate::adapters::notify::exec::Exec;
use crate::adapters::notify::heartbeat::Heartbeat;
use crate::adapters::notify::hook::Hook;
use crate::adapters::notify::http::{ANSWER_WITHIN, Http};
use crate::adapters::notify::log::Log;
use crate::adapters::notify::nats::{self, Nats};
use crate::adapters::notify::pagerduty::{self, PagerDuty};
use crate::adapters::notify::secret::Secret;
use crate::adapters::notify::slack::{self, Slack};
use crate::adapters::notify::smtp::{Security, Server};
use crate::adapters::notify::teams::Teams;
use crate::adapters::notify::webhook::{Format, Settings, Webhook};
use crate::adapters::notify::wording::Wording;
use crate::core::notify::{Policy, Style};
use crate::core::{Span, Timestamp};
use crate::driver::port_error::chain;
use crate::driver::receivers::ports::Channel;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Default timeout of a program.
const EXEC_WITHIN: Duration = Duration::from_secs(30);

/// Default maximum latency of a canary: twice its period, because a restart may lose one canary.
const MAX_LATENCY: Span = Span::from_mins(2);

impl ChannelFile {
    /// Returns the name of each channel, and whether it is configured.
    pub fn all(&self) -> [(&'static str, bool); 11] {
        [
            ("log", self.log.is_some()),
            ("webhook", self.webhook.is_some()),
            ("slack", self.slack.is_some()),
            ("discord", self.discord.is_some()),
            ("teams", self.teams.is_some()),
            ("email", self.email.is_some()),
            ("pagerduty", self.pagerduty.is_some()),
            ("alertmanager", self.alertmanager.is_some()),
            ("nats", self.nats.is_some()),
            ("exec", self.exec.is_some()),
            ("heartbeat", self.heartbeat.is_some()),
        ]
    }

    /// Checks that exactly one channel is configured.
    pub fn only(&self) -> Checked<()> {
        let there = self.all().into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name);
        match &there.collect::<Vec<&str>>()[..] {
            [_] => Ok(()),
            [] => Err(bad("needs one channel, such as `log: {}`")),
            several => {
                Err(bad(format!("has several channels: {}; make it several receivers", several.join(", "))))
            }
        }
    }

    /// Returns the grouping and the rate limits of the channel's messages.
    pub fn policy(&self, name: Arc<str>, max_per_hour: Option<u32>, max_per_day: Option<u32>) -> Policy {
        let is_each = match &self.webhook {
            Some(webhook) => webhook.format == WebhookFormat::Event,
            None => [
                self.log.is_some() && !self.is_log_text(),
                self.pagerduty.is_some(),
                self.nats.is_some(),
                self.exec.is_some(),
                self.heartbeat.is_some(),
            ]
            .contains(&true),
        };
        let is_mirror = self.alertmanager.is_some();
        Policy {
            name,
            style: if is_each { Style::Each } else { Style::Grouped },
            max_per_hour,
            max_per_day,
            grouping: is_mirror.then(alertmanager::grouping),
            ends_last: if is_mirror { alertmanager::ENDS_LAST } else { Span::ZERO },
            is_past_mutes: self.heartbeat.is_some(),
        }
    }

    /// Whether people, not programs, read the channel's messages, so that it has templates.
    pub fn has_words(&self) -> bool {
        let chats = self.slack.is_some() || self.discord.is_some() || self.teams.is_some();
        chats || self.is_log_text() || self.email.is_some() || self.pagerduty.is_some()
    }

    fn is_log_text(&self) -> bool {
        self.log.as_ref().is_some_and(|file| file.format == LogFormat::Text)
    }

    /// Creates the channel. Everything that it needs, such as secrets, is read now.
    pub fn make(
        &self,
        external_url: &str,
        wording: Wording,
        now: fn() -> Timestamp,
    ) -> Checked<Box<dyn Channel>> {
        let external_url = external_url.to_string();
        if let Some(file) = &self.webhook {
            return Ok(Box::new(file.make(external_url, now)?));
        }
        if let Some(file) = &self.slack {
            return Ok(Box::new(file.make(external_url, wording)?));
        }
        if let Some(file) = &self.discord {
            return Ok(Box::new(Discord(file.open(external_url, wording)?)));
        }
        if let Some(file) = &self.teams {
            return Ok(Box::new(Teams(file.open(external_url, wording)?)));
        }
        if let Some(file) = &self.pagerduty {
            return Ok(Box::new(file.make(external_url, wording)?));
        }
        if let Some(file) = &self.email {
            return Ok(Box::new(file.make(external_url, wording, now)?));
        }
        if let Some(file) = &self.nats {
            return Ok(Box::new(file.make()?));
        }
        if let Some(file) = &self.alertmanager {
            return Ok(Box::new(file.make(external_url, now)?));
        }
        if let Some(file) = &self.exec {
            return Ok(Box::new(file.make()?));
        }
        if let Some(file) = &self.heartbeat {
            return Ok(Box::new(file.make(now)?));
        }
        let path = self.log.as_ref().and_then(|file| file.path.clone());
        Ok(Box::new(Log::new(path, self.is_log_text().then_some(wording))))
    }
}

impl WebhookFile {
    fn make(&self, external_url: String, now: fn() -> Timestamp) -> Checked<Webhook> {
        let format = match self.format {
            WebhookFormat::Alertmanager => Format::Alertmanager,
            WebhookFormat::Event => Format::Event,
        };
        let settings = Settings {
            url: url(&self.url)?,
            format,
            secrets: self.secrets.iter().map(|one| secret(one)).collect::<Checked<_>>()?,
            max_alerts: self.max_alerts,
            external_url,
        };
        let http = http(&self.allow, self.timeout.as_deref(), self.bearer.as_deref())?;
        Ok(Webhook::new(settings, http, now))
    }
}

impl SlackFile {
    fn make(&self, external_url: String, wording: Wording) -> Checked<Slack> {
        let (hook, channel) = match (&self.url, &self.token, &self.channel) {
            (Some(hook), None, None) => (url(secret(hook)?.reveal())?, None),
            (None, Some(_), Some(channel)) => {
                (url(self.api.as_deref().unwrap_or(slack::API))?, Some(channel.clone()))
            }
            _ => return Err(bad("`slack` needs either `url`, or `token` and `channel`")),
        };
        let http = http(&self.allow, self.timeout.as_deref(), self.token.as_deref())?;
        Ok(Slack { hook: Hook { url: hook, http, external_url, wording }, channel, named: None })
    }
}

impl ChatFile {
    fn open(&self, external_url: String, wording: Wording) -> Checked<Hook> {
        // The URL is a secret, so the configuration only refers to it.
        let url = url(secret(&self.url)?.reveal())?;
        Ok(Hook { url, http: http(&self.allow, self.timeout.as_deref(), None)?, external_url, wording })
    }
}

impl PagerDutyFile {
    fn make(&self, external_url: String, wording: Wording) -> Checked<PagerDuty> {
        let url = self.url.clone().unwrap_or_else(|| pagerduty::URL.into());
        let http = http(&self.allow, self.timeout.as_deref(), None)?;
        Ok(PagerDuty { url, routing_key: secret(&self.routing_key)?, http, external_url, wording })
    }
}

impl AlertmanagerFile {
    fn make(&self, external_url: String, now: fn() -> Timestamp) -> Checked<Alertmanager> {
        if self.urls.is_empty() {
            return Err(bad("`alertmanager` needs `urls`, one for each peer"));
        }
        let urls = self.urls.iter().map(|one| url(one)).collect::<Checked<Vec<Secret>>>()?;
        let http = http(&self.allow, self.timeout.as_deref(), self.bearer.as_deref())?;
        Ok(Alertmanager { urls, http, external_url, now })
    }
}

impl HeartbeatFile {
    fn make(&self, now: fn() -> Timestamp) -> Checked<Heartbeat> {
        // The URL is a secret, like that of a chat.
        let url = self.url.as_deref().map(|reference| url(secret(reference)?.reveal())).transpose()?;
        let http = http(&self.allow, self.timeout.as_deref(), None)?;
        let max_latency = self.max_latency.as_deref().map_or(Ok(MAX_LATENCY), span)?;
        Ok(Heartbeat { url, http, max_latency, now, seen: BTreeMap::new() })
    }
}

impl EmailFile {
    fn make(&self, external_url: String, wording: Wording, now: fn() -> Timestamp) -> Checked<Email> {
        if self.host.is_empty() || self.to.is_empty() {
            return Err(bad("`email` needs `host`, `from` and `to`"));
        }
        let (security, port) = match self.tls {
            EmailTls::Starttls => (Security::StartTls, 587),
            EmailTls::Implicit => (Security::Implicit, 465),
            EmailTls::None => (Security::None, 25),
        };
        let login = match (&self.username, &self.password) {
            (Some(_), _) if security == Security::None => {
                return Err(bad("`email` sends no password over a connection that is not secure"));
            }
            (Some(user), Some(password)) => Some((user.clone(), secret(password)?)),
            (None, None) => None,
            _ => return Err(bad("`email` needs `username` and `password`, or neither")),
        };
        let unread = |path: &PathBuf| bad(format!("cannot read {}; is it there, and yours?", path.display()));
        let ca = self.ca.as_ref().map(|path| std::fs::read(path).map_err(|_| unread(path))).transpose()?;
        let server = Server {
            host: self.host.clone(),
            port: self.port.unwrap_or(port),
            security,
            ca,
            login,
            timeout: timeout(self.timeout.as_deref(), ANSWER_WITHIN)?,
        };
        let parties = Parties::new(&self.from, &self.to).map_err(bad)?;
        let allowed = networks(&self.allow)?;
        Ok(Email { server, allowed, parties, external_url, wording, now })
    }
}

impl NatsFile {
    fn make(&self) -> Checked<Nats> {
        let subject = &self.subject;
        let is_name = |part: &str| !part.is_empty() && !part.contains(['*', '>', ' ', '\t', '\r', '\n']);
        if !subject.split('.').all(is_name) || subject.starts_with('$') {
            return Err(bad(format!("`{subject}` is no subject to publish on; write it as ops.alerts")));
        }
        if subject.starts_with("sg.") {
            return Err(bad(format!("`{subject}` is reserved: streamgauge would read its own messages")));
        }
        Ok(Nats::new(nats::Settings {
            url: Secret::read_or_broker(&self.url).map_err(|error| bad(chain(&error)))?,
            subject: subject.clone(),
            is_stored: self.jetstream.unwrap_or(true),
            credentials: self.credentials.clone(),
            token: self.token.as_deref().map(secret).transpose()?,
            ca: self.ca.clone(),
            timeout: timeout(self.timeout.as_deref(), ANSWER_WITHIN)?,
        }))
    }
}

impl ExecFile {
    fn make(&self) -> Checked<Exec> {
        if !self.program.is_absolute() || !self.program.is_file() {
            return Err(bad("`exec` needs the absolute path of a program that is there"));
        }
        let timeout = timeout(self.timeout.as_deref(), EXEC_WITHIN)?;
        Ok(Exec { program: self.program.clone(), arguments: self.arguments.clone(), timeout })
    }
}

fn secret(reference: &str) -> Checked<Secret> {
    Secret::read(reference).map_err(|error| bad(chain(&error)))
}

fn url(text: &str) -> Checked<Secret> {
    Secret::read_or_plain(text).map_err(|error| bad(chain(&error)))
}

fn timeout(text: Option<&str>, default: Duration) -> Checked<Duration> {
    let stated = text.map(span).transpose()?;
    Ok(stated.map_or(default, |span| Duration::from_millis(span.ms().max(1) as u64)))
}

fn networks(allow: &[String]) -> Checked<Vec<Network>> {
    allow.iter().map(|text| text.parse::<Network>()).collect::<Result<_, _>>().map_err(bad)
}

fn http(allow: &[String], within: Option<&str>, bearer: Option<&str>) -> Checked<Http> {
    let token = bearer.map(secret).transpose()?;
    Ok(Http::new(networks(allow)?, timeout(within, ANSWER_WITHIN)?, token.as_ref()))
}
