//! Secrets: the configuration only refers to them. Their text comes from an environment variable or a file, and is
//! never logged.

use std::fmt;
use std::io::Read;

/// Maximum size of a file with a secret.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A text that no log, error or debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("a secret must not be in the configuration; write it as env:NAME or file:PATH")]
    Plain,
    #[error(
        "a URL begins with https:// (or http:// where `allow` names the address), or is env:NAME or file:PATH"
    )]
    Url,
    #[error("environment variable {0} is not set")]
    Missing(String),
    #[error("cannot read {path}; check that the file exists and that this user may read it")]
    File { path: String, source: std::io::Error },
    #[error("{0} may be read by others; chmod 600 it")]
    Open(String),
    #[error("{0} is larger than a secret")]
    Large(String),
}

impl Secret {
    /// Reads the secret that `env:NAME` or `file:PATH` refers to, without white space around it.
    pub(crate) fn read(reference: &str) -> Result<Secret, SecretError> {
        if let Some(name) = reference.strip_prefix("env:") {
            let value = std::env::var(name).map_err(|_| SecretError::Missing(name.into()))?;
            return Ok(Secret(value.trim().into()));
        }
        let path = reference.strip_prefix("file:").ok_or(SecretError::Plain)?;
        let failed = |source| SecretError::File { path: path.into(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(SecretError::Large(path.into()));
        }
        if is_open(&metadata) {
            return Err(SecretError::Open(path.into()));
        }
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(SecretError::Large(path.into()));
        }
        Ok(Secret(text.trim().into()))
    }

    /// Reads a URL. The configuration contains the URL itself, or refers to it as in [`Secret::read`].
    pub(crate) fn read_or_plain(text: &str) -> Result<Secret, SecretError> {
        let is_url = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        let secret = if is_url(text) { Secret(text.into()) } else { Secret::read(text).map_err(url)? };
        if is_url(secret.reveal()) { Ok(secret) } else { Err(SecretError::Url) }
    }

    /// Reads a broker's address. The configuration may contain the address itself only if it has no credentials;
    /// otherwise it must refer to it as in [`Secret::read`].
    pub(crate) fn read_or_broker(text: &str) -> Result<Secret, SecretError> {
        let is_plain = ["nats://", "tls://", "ws://", "wss://"].iter().any(|scheme| text.starts_with(scheme));
        match is_plain && !text.contains('@') {
            true => Ok(Secret(text.into())),
            false => Secret::read(text),
        }
    }

    /// Returns the secret as the value of an `Authorization` header.
    pub(crate) fn bearer(&self) -> Secret {
        Secret(format!("Bearer {}", self.0))
    }

    /// Returns the text itself, for the one place that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

fn url(error: SecretError) -> SecretError {
    if matches!(error, SecretError::Plain) { SecretError::Url } else { error }
}

fn is_open(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_referred_to_and_not_shown() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("room");
        let reference = format!("file:{}", file.path().display());
        let allow = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("ours")
        };
        allow(0o644);
        assert!(matches!(Secret::read(&reference), Err(SecretError::Open(_))));
        allow(0o600);
        let secret = Secret::read(&reference).expect("it is there");
        assert_eq!((secret.reveal(), format!("{secret:?}")), ("s3cret", "***".to_string()));
        assert!(matches!(Secret::read("s3cret"), Err(SecretError::Plain)));
        assert!(matches!(Secret::read("env:STREAMGAUGE_NO_SUCH"), Err(SecretError::Missing(_))));
    }
}
