//! A chat's incoming webhook: a URL that is itself the secret, and JSON.

use super::http::{Answer, Http};
use super::secret::Secret;
use super::wording::Wording;
use crate::driver::receivers::ports::Failure;
use serde_json::Value;

/// Target of messages that people read.
#[derive(Debug)]
pub(crate) struct Hook {
    pub url: Secret,
    pub http: Http,
    /// The address at which people reach this service.
    pub external_url: String,
    pub wording: Wording,
}

impl Hook {
    pub(crate) fn post(&self, body: &Value) -> Result<Answer, Failure> {
        self.http.post(self.url.reveal(), &[], &body.to_string())
    }
}
