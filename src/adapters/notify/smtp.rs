//! One mail over one SMTP connection.
//!
//! Invariant: memory and time are bounded whatever the server sends. The replies of a connection have a maximum total
//! length; each step and the whole attempt have a timeout. Rejected: the client library's blocking transport, which
//! reads a reply of any length into memory.

use super::secret::Secret;
use crate::driver::receivers::ports::Failure;
use lettre::address::Envelope;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Total length of all replies of a connection. A server with 100 recipients sends about 10 KB.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// Timeout of the QUIT command; after it the connection is closed in any case.
const QUIT_WITHIN: Duration = Duration::from_secs(1);

const ERROR_CHARS: usize = 200;

/// How the connection is made secure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// STARTTLS on an unencrypted connection. If the server does not support it, the mail is not sent.
    StartTls,
    /// TLS from the first byte.
    Implicit,
    /// No encryption.
    None,
}

/// The SMTP server.
#[derive(Debug)]
pub(crate) struct Server {
    pub host: String,
    pub port: u16,
    pub security: Security,
    /// A certificate in PEM to trust beside the usual ones.
    pub ca: Option<Vec<u8>>,
    pub login: Option<(String, Secret)>,
    /// Timeout of each step, such as connecting or waiting for a reply.
    pub timeout: Duration,
}

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("its certificates cannot be used: {0}")]
    Certificates(String),
    #[error("no secure connection: {0}")]
    Tls(io::Error),
    #[error("the connection failed: {0}")]
    Connect(io::Error),
    #[error("no answer in time")]
    Late,
    #[error("{}", reply(.0))]
    Smtp(#[from] Error),
}

impl SubmitError {
    /// Returns whether the error concerns only this address of the server, so that another address may work.
    pub fn is_of_address(&self) -> bool {
        match self {
            SubmitError::Connect(_) | SubmitError::Late => true,
            SubmitError::Smtp(error) => error.status().is_none() && !error.is_tls(),
            SubmitError::Certificates(_) | SubmitError::Tls(_) => false,
        }
    }

    /// Returns whether the server refused one recipient, not the mail (RFC 5321, 4.2.3).
    pub fn is_of_recipient(&self) -> bool {
        let SubmitError::Smtp(error) = self else { return false };
        error.status().is_some_and(|code| (550..=553).contains(&u16::from(code)))
    }

    fn is_final(&self) -> bool {
        match self {
            SubmitError::Certificates(_) => true,
            SubmitError::Smtp(error) => error.is_permanent() || error.is_client(),
            SubmitError::Tls(_) | SubmitError::Connect(_) | SubmitError::Late => false,
        }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Failure {
        let why = error.to_string();
        let why: String =
            why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_CHARS).collect();
        if error.is_final() { Failure::never(why) } else { Failure::again(why) }
    }
}

/// Describes an error with the server's reply, which never contains the password in plain text.
fn reply(error: &Error) -> String {
    let said = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    match error.status() {
        Some(code) => format!("it answered {code} {said}"),
        None if error.is_tls() => format!("no secure connection: {said}"),
        None if error.is_timeout() || is_late(error) => "no answer in time".into(),
        None if error.is_client() => said,
        None => format!("the connection failed: {said}"),
    }
}

fn is_late(error: &Error) -> bool {
    let inner = std::error::Error::source(error).and_then(|inner| inner.downcast_ref::<io::Error>());
    inner.is_some_and(|inner| inner.kind() == io::ErrorKind::TimedOut)
}

impl Server {
    /// Opens a connection, sends one mail and closes the connection.
    pub(crate) async fn submit(
        &self,
        address: IpAddr,
        envelope: &Envelope,
        text: &[u8],
    ) -> Result<(), SubmitError> {
        let mut connection = self.connect(address).await?;
        if let Some((user, password)) = &self.login {
            let credentials = Credentials::new(user.clone(), password.reveal().into());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        connection.send(envelope, text).await?;
        // The server has the mail, so a failure from here on must not send it again.
        let _ = tokio::time::timeout(QUIT_WITHIN, connection.quit()).await;
        Ok(())
    }

    async fn connect(&self, address: IpAddr) -> Result<AsyncSmtpConnection, SubmitError> {
        let connecting = tokio::time::timeout(self.timeout, TcpStream::connect((address, self.port)));
        let stream = connecting.await.map_err(|_| SubmitError::Late)?.map_err(SubmitError::Connect)?;
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(self.timeout));
        stream.set_write_timeout(Some(self.timeout));
        let (stream, peer, hello) = (Box::pin(stream), (address, self.port).into(), ClientId::default());
        let open = AsyncSmtpConnection::connect_with_transport;
        Ok(match self.security {
            Security::None => open(Box::new(Replies::new(stream, peer)), &hello).await?,
            Security::StartTls => {
                let parameters = self.parameters()?;
                let mut connection = open(Box::new(Replies::new(stream, peer)), &hello).await?;
                connection.starttls(parameters, &hello).await?;
                connection
            }
            Security::Implicit => {
                let stream = self.encrypted(stream).await?;
                open(Box::new(Replies::new(stream, peer)), &hello).await?
            }
        })
    }

    /// Returns the TLS parameters of STARTTLS. The certificate is verified against the configured host name, not
    /// against the address.
    fn parameters(&self) -> Result<TlsParameters, SubmitError> {
        let unusable = |error: Error| SubmitError::Certificates(reply(&error));
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(pem) = &self.ca {
            parameters = parameters.add_root_certificate(Certificate::from_pem(pem).map_err(unusable)?);
        }
        parameters.build().map_err(unusable)
    }

    /// Establishes TLS before SMTP begins. The client library does this only over TCP streams that it opens itself,
    /// so rustls is used directly here.
    async fn encrypted<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<TlsStream<S>, SubmitError> {
        let unusable = |error: &dyn std::fmt::Display| SubmitError::Certificates(error.to_string());
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in CertificateDer::pem_slice_iter(self.ca.as_deref().unwrap_or_default()) {
            roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            config.map_err(|error| unusable(&error))?.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).map_err(|error| unusable(&error))?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(SubmitError::Tls)
    }
}

/// A stream that ends with an error once the replies are too long.
#[derive(Debug)]
struct Replies<S> {
    inner: S,
    peer: SocketAddr,
    left: usize,
}

impl<S> Replies<S> {
    fn new(inner: S, peer: SocketAddr) -> Replies<S> {
        Replies { inner, peer, left: REPLY_BYTES_MAX }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replies<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, into);
        let read = into.filled().len() - before;
        match self.left.checked_sub(read) {
            Some(left) => {
                self.left = left;
                polled
            }
            None => Poll::Ready(Err(io::Error::other("its replies are longer than 1 MiB"))),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replies<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> AsyncTokioStream for Replies<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    /// Goal: a server that never ends its reply costs bounded memory. Method: a line without an end; the
    /// client library limits only lines that have one.
    #[test]
    fn a_reply_without_an_end_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            while stream.write_all(&[b'x'; 1_000]).is_ok() {}
        });
        let server = Server {
            host: "localhost".into(),
            port,
            security: Security::None,
            ca: None,
            login: None,
            timeout: Duration::from_secs(10),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let envelope =
            Envelope::new(None, vec!["a@example.com".parse().expect("an address")]).expect("valid");
        let submitted = runtime.block_on(server.submit([127, 0, 0, 1].into(), &envelope, b"text"));
        let error = submitted.expect_err("it is too long");
        assert!(error.to_string().contains("longer than 1 MiB"), "{error}");
        assert_eq!(
            Failure::from(error),
            Failure::again("the connection failed: its replies are longer than 1 MiB")
        );
    }
}
