//! `nats`: publishes each message to a subject that the configuration names.
//!
//! Invariant: a message is reported as delivered only if the NATS server has it. With JetStream, a stream has stored
//! the message with its id, so that the stream drops a repeat. Without JetStream, this process publishes a second
//! message to its own inbox; when that one arrives, the server has processed the first one, too. Rejected: a flush
//! (it only shows that the bytes have left this machine).

use super::log;
use super::secret::Secret;
use crate::core::notify::Message;
use crate::driver::receivers::ports::{Channel, Failure};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::{Client, ConnectOptions, HeaderMap};
use futures_util::StreamExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Settings of the target.
#[derive(Debug)]
pub(crate) struct Settings {
    pub url: Secret,
    pub subject: String,
    pub is_stored: bool,
    pub credentials: Option<PathBuf>,
    pub token: Option<Secret>,
    pub ca: Option<PathBuf>,
    pub timeout: Duration,
}

/// The channel; it connects with the first message and keeps the connection.
#[derive(Debug)]
pub(crate) struct Nats {
    settings: Settings,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    /// `None` only during the drop. The drop takes the runtime and shuts it down in the background, because a runtime
    /// that is dropped on a thread of another runtime panics.
    runtime: Option<Runtime>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Nats {
    pub(crate) fn new(settings: Settings) -> Nats {
        Nats { settings, connection: None }
    }
}

impl Channel for Nats {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.settings)?,
        };
        let sent = connection.send(&self.settings, message);
        if sent.is_ok() {
            self.connection = Some(connection);
        }
        sent
    }

    fn attempt_max(&self) -> Duration {
        // It may have to connect first.
        self.settings.timeout * 2
    }
}

impl Connection {
    fn open(settings: &Settings) -> Result<Connection, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::again(format!("cannot start a thread: {error}")))?;
        let connecting = async { tokio::time::timeout(settings.timeout, settings.connect()).await };
        match runtime.block_on(connecting) {
            Ok(client) => Ok(Connection { client: client?, runtime: Some(runtime) }),
            Err(_) => {
                runtime.shutdown_background();
                Err(Failure::again("no connection in time"))
            }
        }
    }

    fn send(&mut self, settings: &Settings, message: &Message) -> Result<(), Failure> {
        let Some(runtime) = &self.runtime else { return Err(Failure::again("the connection is closed")) };
        let sending = async {
            match settings.is_stored {
                true => store(&self.client, settings, message).await,
                false => tell(&self.client, settings, message).await,
            }
        };
        let sent = runtime.block_on(async { tokio::time::timeout(settings.timeout, sending).await });
        sent.unwrap_or_else(|_| Err(Failure::again("no answer in time")))
    }
}

impl Settings {
    async fn connect(&self) -> Result<Client, Failure> {
        let mut options = ConnectOptions::new().name("streamgauge notify").connection_timeout(self.timeout);
        if let Some(path) = &self.credentials {
            let read = options.credentials_file(path).await;
            options =
                read.map_err(|error| Failure::never(format!("cannot read its credentials: {error}")))?;
        }
        if let Some(token) = &self.token {
            options = options.token(token.reveal().into());
        }
        if let Some(path) = &self.ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        let connected = options.connect(self.url.reveal()).await;
        connected.map_err(|error| Failure::again(format!("cannot connect: {}", error.kind())))
    }
}

fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Ids contain labels, and a line break would end the header.
    let id: String = message.id.chars().filter(|c| !c.is_control()).collect();
    headers.insert("Nats-Msg-Id", id);
    headers
}

async fn store(client: &Client, settings: &Settings, message: &Message) -> Result<(), Failure> {
    let stream = async_nats::jetstream::new(client.clone());
    let subject = settings.subject.clone();
    let sent = stream.publish_with_headers(subject, headers(message), log::line(message).into()).await;
    let failed = |error: async_nats::jetstream::context::PublishError| match error.kind() {
        PublishErrorKind::StreamNotFound => {
            Failure::again("no stream keeps its subject; make one, or say `jetstream: false` in the receiver")
        }
        kind => Failure::again(format!("it was not stored: {kind}")),
    };
    sent.map_err(failed)?.await.map(|_| ()).map_err(failed)
}

async fn tell(client: &Client, settings: &Settings, message: &Message) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::again(format!("it was not sent: {error}"));
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let sent =
        client.publish_with_headers(settings.subject.clone(), headers(message), log::line(message).into());
    sent.await.map_err(|error| failed(&error))?;
    client.publish(inbox, "".into()).await.map_err(|error| failed(&error))?;
    answers.next().await.map(|_| ()).ok_or_else(|| failed(&"the connection is closed"))
}
