//! HTTP requests to configured targets, restricted to safe addresses.
//!
//! Intuition: a user who may configure a URL must not use this machine to reach its internal network (server-side
//! request forgery). Invariant: the client connects only to an address that was checked. Private, local and special
//! addresses are refused unless the configuration allows them. Redirects are not followed. The size and the time of
//! an answer are limited. Rejected: a check of the host name in the URL (it may resolve to any address).

use super::address::{Network, Refused, is_allowed, is_in};
use super::secret::Secret;
use crate::driver::receivers::ports::Failure;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Timeouts of connecting (`CONNECT_WITHIN`) and, unless another one is configured, of a whole request
/// (`ANSWER_WITHIN`).
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read: enough for an error message.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Characters of an answer that an error quotes.
const ERROR_CHARS: usize = 200;

/// A resolver that refuses a host name if any of its addresses may not be reached. The client connects to the
/// addresses that this resolver returns, and does not resolve the name again.
#[derive(Debug)]
struct Careful {
    allowed: Vec<Network>,
    inner: DefaultResolver,
}

impl Resolver for Careful {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        // Plain HTTP can be read and changed on the way, so it is permitted only to networks that the configuration
        // allows.
        let is_plain = uri.scheme_str() == Some("http");
        if is_plain && found.iter().any(|address| !is_in(address.ip(), &self.allowed)) {
            return Err(ureq::Error::Other(Box::new(Plain)));
        }
        match found.iter().find(|address| !is_allowed(address.ip(), &self.allowed)) {
            None => Ok(found),
            Some(bad) => Err(ureq::Error::Other(Box::new(Refused(bad.ip())))),
        }
    }
}

/// Plain HTTP to an address that is in no allowed network.
#[derive(Debug, thiserror::Error)]
#[error("only https:// is accepted, unless the address is in the receiver's `allow`")]
struct Plain;

/// The HTTP client of one receiver.
#[derive(Debug)]
pub(crate) struct Http {
    agent: ureq::Agent,
    /// Whether plain HTTP is permitted at all: only if the configuration allows a network.
    is_plain_allowed: bool,
    timeout: Duration,
    /// `Bearer …`, sent with each request.
    authorization: Option<Secret>,
}

/// A target's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: String,
}

impl Http {
    /// `token`: a bearer token that the target requires.
    pub(crate) fn new(allowed: Vec<Network>, timeout: Duration, token: Option<&Secret>) -> Http {
        let is_plain_allowed = !allowed.is_empty();
        let config = Config::builder()
            .timeout_connect(Some(CONNECT_WITHIN.min(timeout)))
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("streamgauge/", env!("CARGO_PKG_VERSION")))
            .build();
        let resolver = Careful { allowed, inner: DefaultResolver::default() };
        Http {
            agent: ureq::Agent::with_parts(config, DefaultConnector::default(), resolver),
            is_plain_allowed,
            timeout,
            authorization: token.map(Secret::bearer),
        }
    }

    /// Returns the time after which a request has ended, from resolving the name to reading the answer.
    pub(crate) fn request_max(&self) -> Duration {
        self.timeout
    }

    /// Posts JSON in one request, without following redirects.
    pub(crate) fn post(&self, url: &str, headers: &[(&str, &str)], json: &str) -> Result<Answer, Failure> {
        if !url.starts_with("https://") && !self.is_plain_allowed {
            return Err(Failure::never(Plain.to_string()));
        }
        let bearer = self.authorization.as_ref().map(|bearer| ("authorization", bearer.reveal()));
        let headers = || headers.iter().copied().chain([("content-type", "application/json")]).chain(bearer);
        if headers().any(|(_, value)| value.contains(['\r', '\n', '\0'])) {
            return Err(Failure::never("a header's value has a line break in it"));
        }
        let mut request = self.agent.post(url);
        for (name, value) in headers() {
            request = request.header(name, value);
        }
        let mut response = request.send(json).map_err(|error| failure(&error))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(after);
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        // The status decides the outcome, so an unreadable body is ignored.
        Ok(Answer { status, retry_after, body: body.unwrap_or_default() })
    }
}

/// Parses `Retry-After` in seconds. A date yields `None`, so the caller's own backoff applies.
fn after(value: &str) -> Option<Duration> {
    let seconds: f64 = value.trim().parse().ok()?;
    (0.0..1e9).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// Converts an error without the URL, which may hold a secret.
fn failure(error: &ureq::Error) -> Failure {
    match error {
        ureq::Error::Other(inner) if inner.is::<Refused>() || inner.is::<Plain>() => {
            Failure::never(inner.to_string())
        }
        ureq::Error::BadUri(_) => Failure::never("the URL cannot be read"),
        ureq::Error::HostNotFound => Failure::again("the host name does not resolve"),
        ureq::Error::Timeout(what) => Failure::again(format!("no answer in time ({what})")),
        ureq::Error::Io(error) => Failure::again(format!("the connection failed: {}", error.kind())),
        ureq::Error::Tls(why) => Failure::again(format!("no secure connection: {why}")),
        ureq::Error::Rustls(error) => Failure::again(format!("no secure connection: {error}")),
        _ => Failure::again("it does not speak HTTP as expected"),
    }
}

impl Answer {
    /// The verdict that suits most targets: 2xx is a success; 408, 425, 429 and 5xx are retried; all others
    /// are permanent failures.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let short: String = self.body.chars().filter(|c| !c.is_control()).take(ERROR_CHARS).collect();
        let why = format!("it answered {} {short}", self.status).trim_end().to_string();
        match self.status {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(Failure::Again { why, after: self.retry_after }),
            300..=399 => Err(Failure::never(format!("{why}: redirects are not followed"))),
            _ => Err(Failure::never(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_allowed_is_refused_before_it_is_reached() {
        let http = Http::new(Vec::new(), ANSWER_WITHIN, None);
        let refused = http.post("https://127.0.0.1:1/", &[], "").map_err(|error| error.to_string());
        assert!(refused.is_err_and(|why| why.contains("127.0.0.1 is not public")));
        let plain = http.post("http://example.com/", &[], "").map_err(|error| error.to_string());
        assert!(plain.is_err_and(|why| why.contains("only https")));
        let inside = Http::new(vec!["10.0.0.0/8".parse().expect("a network")], ANSWER_WITHIN, None);
        let plain = inside.post("http://93.184.215.14/", &[], "").map_err(|error| error.to_string());
        assert!(plain.is_err_and(|why| why.contains("only https")), "a public address in no allowed network");
        let split = http.post("https://example.com/", &[("x", "a\r\nHost: b")], "");
        assert!(split.is_err_and(|error| error.to_string().contains("line break")));
    }
}
