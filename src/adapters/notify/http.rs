//! Requests to the outside, as careful as what people configure needs.
//!
//! Intuition: whoever may write a URL must not be able to reach what only this machine can. Invariant: the
//! address that was looked at is the address that is connected to; private, local and special addresses are
//! refused unless they are allowed by name; nothing is followed, nothing is read for long.
//! Rejected: looking at the name in the URL (it may resolve to anything), an answer of any size.

use super::secret::Secret;
use crate::driver::notify::ports::Failure;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Time to connect, and for everything unless another time is stated.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read: enough for the reason of an error.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Characters of an answer that stand in an error.
const ERROR_CHARS: usize = 200;

/// Addresses that may be reached although they are not public: `10.0.0.0/8`, `127.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("`{text}` is no network; write it as 10.0.0.0/8 or 127.0.0.1");
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Network { address, bits }) }
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        let (own, other, all) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let shift = all - self.bits;
        shift >= 128 || own >> shift == other >> shift
    }
}

/// Whether an address is that of some machine on the internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b); // carriers' own networks
    let is_special = a == 0 || a >= 240 || (a == 192 && b == 0 && c == 0) || (a == 198 && (b & 0xfe) == 18);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || is_shared
        || is_special)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Only 2000::/3 is given out; documentation is part of it.
    let first = address.segments();
    first[0] & 0xe000 == 0x2000 && !(first[0] == 0x2001 && first[1] == 0x0db8)
}

/// The address of the old kind in one of the new: mapped, compatible, translated, or tunnelled.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => of(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

/// Resolves once, and refuses a name of which any address is not to be reached.
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
        let is_allowed =
            |address: IpAddr| is_public(address) || self.allowed.iter().any(|one| one.has(address));
        match found.iter().find(|address| !is_allowed(address.ip())) {
            None => Ok(found),
            Some(bad) => Err(ureq::Error::Other(Box::new(Refused(bad.ip())))),
        }
    }
}

#[derive(Debug)]
struct Refused(IpAddr);

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not public; add it to the receiver's `allow` if it may be reached", self.0)
    }
}

/// A client for one receiver.
#[derive(Debug)]
pub struct Http {
    agent: ureq::Agent,
    /// Whether plain HTTP may be spoken: only to what is allowed by name.
    is_plain_allowed: bool,
    /// `Bearer …`, sent with each request.
    authorization: Option<Secret>,
}

/// What a target said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: String,
}

impl Http {
    /// `token`: who is asked wants to see it.
    pub fn new(allowed: Vec<Network>, timeout: Duration, token: Option<&Secret>) -> Http {
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
            authorization: token.map(Secret::bearer),
        }
    }

    /// One request with JSON; whoever answers is asked nothing more.
    pub fn post(&self, url: &str, headers: &[(&str, &str)], json: &str) -> Result<Answer, Failure> {
        if !url.starts_with("https://") && !self.is_plain_allowed {
            return Err(Failure::never(
                "only https:// is spoken, unless the address is in the receiver's `allow`",
            ));
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
        // The status says what became of it; an answer that cannot be read says less.
        Ok(Answer { status, retry_after, body: body.unwrap_or_default() })
    }
}

/// Seconds, or a date of which the wait is not known: then our own is as good.
fn after(value: &str) -> Option<Duration> {
    let seconds: f64 = value.trim().parse().ok()?;
    (0.0..1e9).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// What went wrong on the way, without the URL: it may hold a secret.
fn failure(error: &ureq::Error) -> Failure {
    match error {
        ureq::Error::Other(inner) if inner.is::<Refused>() => Failure::never(inner.to_string()),
        ureq::Error::BadUri(_) => Failure::never("the URL cannot be read"),
        ureq::Error::HostNotFound => Failure::again("its name does not resolve"),
        ureq::Error::Timeout(what) => Failure::again(format!("no answer in time ({what})")),
        ureq::Error::Io(error) => Failure::again(format!("the connection failed: {}", error.kind())),
        ureq::Error::Tls(why) => Failure::again(format!("no secure connection: {why}")),
        ureq::Error::Rustls(error) => Failure::again(format!("no secure connection: {error}")),
        _ => Failure::again("it does not speak HTTP as expected"),
    }
}

impl Answer {
    /// As most targets mean it: 2xx is there; 408, 425, 429 and 5xx may be later; the rest never.
    pub fn verdict(&self) -> Result<(), Failure> {
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

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_public_addresses_are_reached() {
        for text in ["1.1.1.1", "93.184.216.34", "2606:4700::1111"] {
            assert!(is_public(address(text)), "{text}");
        }
        let refused = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "::7f00:1",
            "2001:db8::1",
        ];
        for text in refused {
            assert!(!is_public(address(text)), "{text}");
        }
    }

    #[test]
    fn networks_are_allowed_by_name() {
        let has =
            |network: &str, text: &str| network.parse::<Network>().expect("a network").has(address(text));
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("127.0.0.1", "127.0.0.1") && !has("127.0.0.1", "127.0.0.2"));
        assert!(has("fd00::/8", "fdff::1") && !has("fd00::/8", "10.0.0.1") && has("::/0", "::1"));
        assert!("10.0.0.0/33".parse::<Network>().is_err() && "intranet".parse::<Network>().is_err());
    }

    #[test]
    fn what_is_not_allowed_is_refused_before_it_is_reached() {
        let http = Http::new(Vec::new(), ANSWER_WITHIN, None);
        let refused = http.post("https://127.0.0.1:1/", &[], "").map_err(|error| error.to_string());
        assert!(refused.is_err_and(|why| why.contains("127.0.0.1 is not public")));
        let plain = http.post("http://example.com/", &[], "").map_err(|error| error.to_string());
        assert!(plain.is_err_and(|why| why.contains("only https")));
        let split = http.post("https://example.com/", &[("x", "a\r\nHost: b")], "");
        assert!(split.is_err_and(|error| error.to_string().contains("line break")));
    }
}
