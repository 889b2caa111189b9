//! Admission of requests by host, origin, token and role. Each refusal states its reason.
//!
//! Intuition: a browser on the same machine runs foreign web pages, and such a page can send requests to
//! loopback. In a DNS rebinding attack the `Host` header still carries the attacker's name, and a
//! cross-origin request carries its `Origin`, so both are compared with the names of this service. IP
//! addresses are accepted as hosts, because DNS rebinding needs a name.
//! Invariant: if no tokens are configured, the service listens on loopback only, and every client has the admin role.
//! If tokens are configured, only the probes answer without a token, and `/metrics` if it is public. Rejected: CORS
//! headers (no foreign page needs to read this API).

use axum::http::{HeaderMap, Method, Uri, header};
use ring::digest::{SHA256, digest};
use std::net::IpAddr;
use std::sync::Arc;

/// Minimum length of a token in bytes: 16 characters from an alphabet of 64 are 96 bits.
pub(crate) const TOKEN_BYTES_MIN: usize = 16;

/// The role of a token; each includes the rights of those before it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May read everything.
    View,
    /// May send events, acknowledge alerts, and plan silences and maintenance windows.
    Operate,
    /// May change rules.
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::View => "view",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }
}

/// An access token of the service.
#[derive(Clone)]
pub struct Token {
    /// The person or program that holds the token; changes are recorded under this name.
    pub name: Option<Arc<str>>,
    pub role: Role,
    digest: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// A token that is too short and could be guessed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the token {of} has {bytes} characters; take {TOKEN_BYTES_MIN} or more, such as `openssl rand -hex 16` gives"
)]
pub struct WeakToken {
    of: String,
    bytes: usize,
}

/// Returns the secret after the `Bearer` scheme, which is case-insensitive.
fn bearer(stated: &[u8]) -> Option<&[u8]> {
    /// Length of the scheme including the space.
    const SCHEME_BYTES: usize = "Bearer ".len();
    let (scheme, secret) = stated.split_at_checked(SCHEME_BYTES)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(secret)
}

impl Token {
    pub fn new(name: Option<&str>, role: Role, secret: &str) -> Result<Token, WeakToken> {
        if secret.len() < TOKEN_BYTES_MIN {
            let of = name.map_or("in STREAMGAUGE_TOKEN".into(), |name| format!("of `{name}`"));
            return Err(WeakToken { of, bytes: secret.len() });
        }
        Ok(Token { name: name.map(Into::into), role, digest: hash(secret.as_bytes()) })
    }

    pub fn has_secret_of(&self, other: &Token) -> bool {
        is_equal(&self.digest, &other.digest)
    }

    /// The name by which messages refer to this token.
    pub fn shown_name(&self) -> String {
        self.name.as_ref().map_or("STREAMGAUGE_TOKEN".into(), |name| format!("`{name}`"))
    }
}

/// Hashes a secret. Hashes are compared instead of secrets, so the comparison time reveals nothing about the
/// token.
fn hash(secret: &[u8]) -> [u8; 32] {
    // A SHA-256 digest has 32 bytes, so the conversion cannot fail.
    digest(&SHA256, secret).as_ref().try_into().unwrap_or_default()
}

/// The admission settings.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// If the list is empty, every client has the admin role.
    pub tokens: Vec<Token>,
    /// Host names under which this service is reached, besides loopback names and IP addresses.
    pub hosts: Vec<String>,
    /// Origins of web pages that may send requests, each as host and port without the scheme.
    pub origins: Vec<String>,
    /// Whether `/metrics` answers without a token.
    pub metrics_public: bool,
    /// Values that a source may send in one second; `None` means no limit.
    pub values_per_source_per_sec_max: Option<u32>,
}

/// The sender of an admitted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `None` if the token has no name or no tokens are configured.
    pub name: Option<Arc<str>>,
    pub role: Role,
}

/// The reason why a request is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("a request needs one `Host` header")]
    NoHost,
    #[error(
        "`{0}` is not a name of this service; ask under its address, or add the name to `hosts` in the configuration"
    )]
    Host(String),
    #[error("the origin `{0}` is not allowed; if it is yours, add its name with the port to `hosts`")]
    Origin(String),
    #[error("send `Authorization: Bearer …` with a token of the service")]
    NoToken,
    #[error("this token has the role `{}`; this needs `{}`", .has.name(), .needs.name())]
    Role { has: Role, needs: Role },
}

/// Maximum number of characters of client text that a refusal repeats.
const SHOWN_CHARS: usize = 80;

impl Access {
    /// Checks that neither the host nor the origin of a request is foreign.
    pub fn admit_origin(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Denied> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let stated = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().map_err(|_| Denied::NoHost)?,
            _ => return Err(Denied::NoHost),
        };
        for host in [Some(stated), uri.authority().map(|authority| authority.as_str())].into_iter().flatten()
        {
            if !self.is_own(host_of(host)) {
                return Err(Denied::Host(shown(host)));
            }
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return admit_site(headers) };
        let origin = origin.to_str().unwrap_or("?");
        if self.is_own_origin(origin, stated) { Ok(()) } else { Err(Denied::Origin(shown(origin))) }
    }

    /// Returns whether an origin is the requested address or a configured origin. The port counts, because another
    /// port is another service. An `https` origin on loopback is accepted only if it is configured, because this
    /// service itself speaks no TLS.
    fn is_own_origin(&self, origin: &str, stated: &str) -> bool {
        match origin.split_once("://") {
            Some(("http", of)) if of == stated => true,
            Some(("https", of)) if of == stated && !is_local(host_of(of)) => true,
            Some(("http" | "https", of)) => self.origins.iter().any(|known| known.eq_ignore_ascii_case(of)),
            _ => false,
        }
    }

    /// Authenticates the sender of a request and checks its role for the path.
    pub fn admit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Caller, Denied> {
        if self.tokens.is_empty() {
            return Ok(Caller { name: None, role: Role::Admin });
        }
        let is_open = matches!(path, "/healthz" | "/readyz") || path == "/metrics" && self.metrics_public;
        if is_open {
            return Ok(Caller { name: None, role: Role::View });
        }
        let stated = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let secret = stated.and_then(bearer).ok_or(Denied::NoToken)?;
        let digest = hash(secret.trim_ascii());
        // The search does not stop at the first match, so its duration does not reveal which token matched.
        let found = self
            .tokens
            .iter()
            .filter(|token| is_equal(&token.digest, &digest))
            .fold(None, |_, token| Some(token));
        let token = found.ok_or(Denied::NoToken)?;
        let needs = needed(method, path);
        if token.role < needs {
            return Err(Denied::Role { has: token.role, needs });
        }
        Ok(Caller { name: token.name.clone(), role: token.role })
    }

    fn is_own(&self, host: &str) -> bool {
        is_local_or_address(host) || self.is_listed(host)
    }

    fn is_listed(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
    }
}

/// Refuses a request of a foreign page that has no `Origin` header. Browsers state the relation of the page to this
/// service in `Sec-Fetch-Site`. Following a link from a foreign page is allowed.
fn admit_site(headers: &HeaderMap) -> Result<(), Denied> {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_navigation = headers.get("sec-fetch-mode").is_some_and(|mode| mode.as_bytes() == b"navigate");
    match site {
        Some(b"cross-site" | b"same-site") if !is_navigation => Err(Denied::Origin("another site".into())),
        _ => Ok(()),
    }
}

/// Returns whether the host is a loopback name or address, which only this machine reaches.
fn is_local(host: &str) -> bool {
    is_loopback_name(host) || address(host).is_some_and(|address| address.is_loopback())
}

fn is_local_or_address(host: &str) -> bool {
    is_loopback_name(host) || address(host).is_some()
}

fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn is_loopback_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost")
}

/// Returns the host of an authority, without its port.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Returns the role that a request needs.
fn needed(method: &Method, path: &str) -> Role {
    let is_read = matches!(*method, Method::GET | Method::HEAD) || path == "/api/v1/maintenance/preview";
    if is_read {
        Role::View
    } else if path == "/api/v1/rules" || path.starts_with("/api/v1/rules/") {
        Role::Admin
    } else {
        Role::Operate
    }
}

fn is_equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), value.parse().expect("a value"))
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn names_and_pages_of_strangers_are_refused() {
        let names = vec!["gauge.example.com".to_string()];
        let access = Access { hosts: names.clone(), origins: names, ..Access::default() };
        let is_fine =
            |all: &[(&'static str, &str)]| access.admit_origin(&headers(all), &Uri::from_static("/"));
        for host in
            ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "10.0.0.7", "gauge.example.com:443"]
        {
            assert_eq!(is_fine(&[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", ""] {
            assert_eq!(is_fine(&[("host", host)]), Err(Denied::Host(host.into())), "{host}");
        }
        assert_eq!(is_fine(&[]), Err(Denied::NoHost));
        let own = ("host", "127.0.0.1:8080");
        assert_eq!(is_fine(&[own, ("origin", "http://127.0.0.1:8080")]), Ok(()));
        assert_eq!(is_fine(&[own, ("origin", "https://gauge.example.com")]), Ok(()));
        let listed = Access {
            origins: vec!["localhost:8443".into(), "gauge.example.com:8443".into()],
            ..access.clone()
        };
        let of_listed =
            |origin| listed.admit_origin(&headers(&[own, ("origin", origin)]), &Uri::from_static("/"));
        for origin in ["https://gauge.example.com:8443", "https://localhost:8443"] {
            assert_eq!(of_listed(origin), Ok(()), "{origin}");
        }
        for origin in
            ["http://127.0.0.1", "http://127.0.0.1:9999", "https://127.0.0.1:8080", "ftp://127.0.0.1:8080"]
        {
            assert_eq!(of_listed(origin), Err(Denied::Origin(origin.into())), "{origin}");
        }
        for origin in ["http://127.0.0.1:9090", "http://evil.example", "null", "http://localhost"] {
            assert_eq!(is_fine(&[own, ("origin", origin)]), Err(Denied::Origin(origin.into())), "{origin}");
        }
        assert!(is_fine(&[own, ("sec-fetch-site", "cross-site")]).is_err());
        let opened = [own, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(is_fine(&opened), Ok(()), "a link may be followed");
    }

    #[test]
    fn tokens_have_roles_and_names() {
        let token = |name, role, secret| Token::new(Some(name), role, secret).expect("long enough");
        let tokens = vec![
            token("wall", Role::View, "0123456789abcdef"),
            token("ann", Role::Operate, "fedcba9876543210"),
            Token::new(None, Role::Admin, "fedcba98765432101").expect("long enough"),
        ];
        let access = Access { tokens, ..Access::default() };
        let ask = |method: Method, path, token: &str| {
            access.admit(&method, path, &headers(&[("authorization", &format!("Bearer {token}"))]))
        };
        let wall = Caller { name: Some("wall".into()), role: Role::View };
        assert_eq!(ask(Method::GET, "/api/v1/alerts", "0123456789abcdef"), Ok(wall));
        let denied = Denied::Role { has: Role::View, needs: Role::Operate };
        assert_eq!(ask(Method::POST, "/api/v1/silences", "0123456789abcdef"), Err(denied));
        let denied = Denied::Role { has: Role::Operate, needs: Role::Admin };
        assert_eq!(ask(Method::DELETE, "/api/v1/rules/x", "fedcba9876543210"), Err(denied));
        assert!(ask(Method::POST, "/api/v1/rules", "fedcba98765432101").is_ok());
        assert_eq!(ask(Method::GET, "/", "nonsense"), Err(Denied::NoToken));
        assert_eq!(access.admit(&Method::GET, "/metrics", &HeaderMap::new()), Err(Denied::NoToken));
        assert!(access.admit(&Method::GET, "/readyz", &HeaderMap::new()).is_ok());
        assert!(Token::new(None, Role::Admin, "short").is_err());
    }
}
