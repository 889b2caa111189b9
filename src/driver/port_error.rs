//! Errors of the log and the store.

/// Errors of the log and the store. A failed call had either its whole effect or none.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("cannot write to {place}; {}", remedy(&**source))]
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
    #[error(
        "record {seq} of the log is a control of version {found}, and this binary reads up to {known}: a newer \
         streamgauge wrote it; install that release again"
    )]
    Newer { seq: u64, found: u32, known: u32 },
    #[error("the log lost records while this worker read them again")]
    Overtaken,
    #[error("the process is stopping, and does not wait for {place} any longer")]
    Stopping { place: String },
    #[error("{place} cannot be reached")]
    Away { place: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// The name by which error messages refer to the log of a partition.
pub const EVENT_STREAM: &str = "the event stream";

impl PortError {
    /// The error that the log of a partition does not exist.
    pub const NO_LOG: PortError = PortError::Gone { place: EVENT_STREAM };

    /// Converts an error of reading the key that signs the alerts.
    pub fn of_alert_key(source: Box<dyn std::error::Error + Send + Sync>) -> PortError {
        match source.downcast::<PortError>() {
            Ok(error) => *error,
            Err(source) => PortError::Away { place: "the signing key of the alerts".into(), source },
        }
    }
}

/// Returns a hint about a failed write. The database's errors have no source, so the operating system's error code is
/// looked up in the error text, where the standard library writes it.
fn remedy(error: &dyn std::error::Error) -> &'static str {
    let text = chain(error);
    match FILE_LIMITS.iter().any(|code| text.contains(code)) {
        true => "raise the limit of open files (`ulimit -n`)",
        false => "is the disk full, or the directory read-only?",
    }
}

/// Texts of ENFILE and EMFILE: the system, or this process, has reached its limit of open files.
const FILE_LIMITS: [&str; 2] = ["(os error 23)", "(os error 24)"];

/// Returns an error with all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn a_failed_write_names_its_remedy() {
        let text = |code: i32| {
            let source = format!("I/O error: {}", Error::from_raw_os_error(code)).into();
            PortError::Write { place: "log.redb".into(), source }.to_string()
        };
        assert!(text(24).ends_with("raise the limit of open files (`ulimit -n`)"));
        assert!(text(28).ends_with("is the disk full, or the directory read-only?"));
    }
}
