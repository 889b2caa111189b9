//! Errors of the log and the store.

/// Errors of the log and the store. A failed call had either its whole effect or none.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("cannot write to {place}; is the disk full, or the directory read-only?")]
    Write { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot write to {place}")]
    Lost { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot read from {place}")]
    Read { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{place} is in use by another process; stop that one, or take another --data-dir")]
    Locked { place: String },
    #[error("this worker's fencing token is stale at {place}; another worker owns the partition")]
    Fenced { place: String },
    #[error("{place} cannot be used: {found}; {hint}")]
    Changed { place: String, found: String, hint: &'static str },
    #[error("{place} is missing; restore it, or remove the partition's keys from Redis to recreate it empty")]
    Gone { place: &'static str },
    #[error("{place} has other settings than required: {found}; {hint}")]
    OtherSettings { place: String, found: String, hint: &'static str },
    #[error("key `{place}` holds data that this program did not write; repair or delete the key")]
    Unreadable { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the log lost records while this worker read them again")]
    Overtaken,
    #[error("the process is stopping, and does not wait for {place} any longer")]
    Stopping { place: String },
    #[error("{place} cannot be reached")]
    Away { place: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// The name in messages of the log that a partition reads.
pub const EVENT_STREAM: &str = "the event stream";

impl PortError {
    /// The log that a partition reads is not there.
    pub const NO_LOG: PortError = PortError::Gone { place: EVENT_STREAM };

    /// Converts an error of reading the key that signs the alerts.
    pub fn of_alert_key(source: Box<dyn std::error::Error + Send + Sync>) -> PortError {
        match source.downcast::<PortError>() {
            Ok(error) => *error,
            Err(source) => PortError::Away { place: "the signing key of the alerts".into(), source },
        }
    }
}

/// Returns an error with all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some errors already contain the text of their cause.
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
