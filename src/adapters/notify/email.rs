//! `email`: SMTP, as text and as HTML.
//!
//! Intuition: a mail states the current state of a group of alerts. All mails of a group form one thread, because
//! each of them refers to the same Message-ID, which is derived from the group. So the mail about an alert's end
//! appears below the mail about its beginning. Invariant: no mail is sent before the connection is encrypted,
//! unless the configuration disables encryption. A mail that is sent again has the same Message-ID. A mail is
//! retried after a 4yz reply, but not after a 5yz reply (RFC 5321, 4.2.1). Rejected: the first mail as the thread's
//! root (its id would have to be stored), STARTTLS only if the server offers it (an attacker on the path can remove
//! the offer).

use super::address::{Network, Refused, is_allowed};
use super::smtp::Server;
use super::text::{cut, listed, standing};
use super::wording::Wording;
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::notify::Message;
use crate::driver::receivers::ports::{Channel, Failure};
use lettre::address::Envelope;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, UNIX_EPOCH};
use xxhash_rust::xxh3::xxh3_128;

const SUBJECT_CHARS: usize = 200; // 4 B each, within a line's 998 octets
const LINE_CHARS: usize = 2_000;

/// An attempt times out after `STEPS` times the timeout of one SMTP step, such as connecting or one command.
const STEPS: u32 = 6;

/// Sender and recipients.
#[derive(Debug)]
pub(crate) struct Parties {
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Parties {
    /// Parses `name <name@example.com>`, or the address alone.
    pub(crate) fn new(from: &str, to: &[String]) -> Result<Parties, String> {
        let read = |text: &str| text.parse::<Mailbox>().map_err(|error| format!("`{text}`: {error}"));
        Ok(Parties { from: read(from)?, to: to.iter().map(|one| read(one)).collect::<Result<_, _>>()? })
    }
}

#[derive(Debug)]
pub(crate) struct Email {
    pub server: Server,
    pub allowed: Vec<Network>,
    pub parties: Parties,
    pub external_url: String,
    pub wording: Wording,
    pub now: fn() -> Timestamp,
}

impl Channel for Email {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let mail =
            self.mail(message).map_err(|error| Failure::never(format!("cannot build the mail: {error}")))?;
        let addresses = self.addresses()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::again(format!("cannot start a runtime: {error}")))?;
        let sending =
            async { tokio::time::timeout(self.attempt_max(), self.deliver(&addresses, &mail)).await };
        runtime.block_on(sending).unwrap_or_else(|_| Err(Failure::again("no answer in time")))
    }

    fn attempt_max(&self) -> Duration {
        self.server.timeout * STEPS
    }
}

impl Email {
    /// Sends the mail over the first address that answers.
    async fn deliver(&self, addresses: &[IpAddr], mail: &lettre::Message) -> Result<(), Failure> {
        let (envelope, text) = (mail.envelope(), mail.formatted());
        let mut last = Failure::again("the host name does not resolve");
        for address in addresses {
            match self.server.submit(*address, envelope, &text).await {
                Ok(()) => return Ok(()),
                Err(error) if self.parties.to.len() > 1 && error.is_of_recipient() => {
                    return self.send_to_each(*address, &text).await;
                }
                Err(error) if error.is_of_address() => last = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last)
    }

    /// Sends the mail to each recipient separately. It is used after the server refused the mail because of one of
    /// several recipients. The failure names the refused recipients.
    async fn send_to_each(&self, address: IpAddr, text: &[u8]) -> Result<(), Failure> {
        let from = &self.parties.from.email;
        let mut refused = Vec::new();
        for to in &self.parties.to {
            let alone = Envelope::new(Some(from.clone()), vec![to.email.clone()]);
            let alone = alone.map_err(|error| Failure::never(error.to_string()))?;
            if let Err(error) = self.server.submit(address, &alone, text).await {
                refused.push(format!("{}: {}", to.email, Failure::from(error)));
            }
        }
        match &refused[..] {
            [] => Ok(()),
            some => Err(Failure::never(format!("the server refused some recipients: {}", some.join("; ")))),
        }
    }

    /// Builds the mail.
    pub(crate) fn mail(&self, message: &Message) -> Result<lettre::Message, lettre::error::Error> {
        let domain = self.parties.from.email.domain();
        let id = |of: &str| format!("<{:032x}@{domain}>", xxh3_128(of.as_bytes()));
        let root = id(&format!("{} {}", message.receiver, message.group));
        let header = |name, value: &str| HeaderValue::new(HeaderName::new_from_ascii_str(name), value.into());
        let date = UNIX_EPOCH + Duration::from_millis((self.now)().ms().max(0) as u64);
        let mut mail = lettre::Message::builder().from(self.parties.from.clone()).date(date);
        for to in &self.parties.to {
            mail = mail.to(to.clone());
        }
        let mail = mail.subject(cut(&self.wording.title(message), SUBJECT_CHARS));
        let mail = mail.message_id(Some(id(&message.id))).in_reply_to(root.clone()).references(root);
        // `Auto-Submitted` prevents automatic replies. A unique `X-Entity-Ref-ID` keeps mail clients from merging
        // mails with equal subjects.
        let mail = mail.raw_header(header("Auto-Submitted", "auto-generated"));
        let mail = mail.raw_header(header("X-Entity-Ref-ID", &id(&message.id)));
        mail.multipart(MultiPart::alternative_plain_html(self.text(message), self.html(message)))
    }

    fn text(&self, message: &Message) -> String {
        let (alerts, left_out) = listed(message);
        let one = |alert: &&Transition| {
            let runbook = alert.runbook.as_deref().map_or(String::new(), |url| format!("\n  runbook: {url}"));
            let since = alert.started_at;
            format!("{}: {}\n  since {since}{runbook}\n", standing(alert), self.line(alert))
        };
        let mut lines: Vec<String> = alerts.iter().map(one).collect();
        if left_out > 0 {
            lines.push(format!("and {left_out} more\n"));
        }
        format!("{}\n-- \nstreamgauge {}\n", lines.join("\n"), self.external_url)
    }

    fn html(&self, message: &Message) -> String {
        let (alerts, left_out) = listed(message);
        let one = |alert: &&Transition| {
            let runbook = alert.runbook.as_deref().filter(|url| url.starts_with("https://"));
            let link =
                runbook.map_or(String::new(), |url| format!(" <a href=\"{}\">runbook</a>", escape(url)));
            format!(
                "<p><b>{}</b> {}<br><small>since {}{link}</small></p>\n",
                escape(&standing(alert)),
                escape(&self.line(alert)).replace('\n', "<br>"),
                alert.started_at
            )
        };
        let mut parts: Vec<String> = alerts.iter().map(one).collect();
        if left_out > 0 {
            parts.push(format!("<p>and {left_out} more</p>\n"));
        }
        let title = escape(&self.wording.title(message));
        let url = escape(&self.external_url);
        format!(
            "<!doctype html>\n<title>{title}</title>\n<h3>{title}</h3>\n{}<p><a href=\"{url}\">streamgauge</a></p>\n",
            parts.concat()
        )
    }

    fn line(&self, alert: &Transition) -> String {
        cut(&self.wording.line(alert), LINE_CHARS)
    }
}

impl Email {
    /// Resolves the name once, and refuses it if any of its addresses may not be reached.
    fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let found = (self.server.host.as_str(), self.server.port).to_socket_addrs();
        let found = found.map_err(|_| Failure::again("the host name does not resolve"))?;
        let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        match found.iter().find(|address| !is_allowed(**address, &self.allowed)) {
            None => Ok(found),
            Some(bad) => Err(Failure::never(Refused(*bad).to_string())),
        }
    }
}

/// Escapes a text for HTML, including attribute values.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}
