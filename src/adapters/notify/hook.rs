//! The incoming webhook of a chat service: it takes JSON at a URL, which is itself the secret.

use super::http::{Answer, Http};
use super::secret::Secret;
use super::wording::Wording;
use crate::driver::receivers::ports::Failure;
use serde_json::Value;

/// Connection settings and wording of a chat webhook.
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
