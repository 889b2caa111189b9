//! The rule documents that all processes of a deployment share, in the Redis hash `<prefix>:rules`.

use super::{RedisStore, Settings};
use crate::driver::ports::PortError;
use crate::driver::rule_documents::{RuleDocumentStore, RuleDocuments};
use crate::pipeline::document::{self, Documents};
use ::redis::{Script, cmd};
use serde_json::Value;
use std::collections::HashMap;

/// The field with the revision, which counts changes. No document may have this name.
const REVISION: &str = "rev";

/// KEYS: rules. ARGV: the revision that the change is based on, then names and values. Returns the new
/// revision, or -1 on a conflict.
const WRITE: &str = "local rev = redis.call('HGET', KEYS[1], 'rev') or '0'
if rev ~= ARGV[1] then return -1 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'rev', rev + 1)
for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
return rev + 1";

/// The rule documents in Redis.
#[derive(Debug)]
pub struct StoredRules {
    store: RedisStore,
    key: String,
}

impl StoredRules {
    pub fn new(settings: &Settings) -> Result<StoredRules, PortError> {
        let store = RedisStore::new(settings, false)?;
        Ok(StoredRules { store, key: format!("{}:rules", settings.prefix) })
    }
}

impl RuleDocumentStore for StoredRules {
    fn revision(&mut self) -> Result<u64, PortError> {
        let key = &self.key;
        let found: Option<String> =
            self.store.ask_once(key, |c| cmd("HGET").arg(key).arg(REVISION).query(c))?;
        Ok(found.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    fn read(&mut self) -> Result<RuleDocuments, PortError> {
        let key = &self.key;
        let mut fields: HashMap<String, String> =
            self.store.ask_once(key, |c| cmd("HGETALL").arg(key).query(c))?;
        let revision = fields.remove(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0);
        // A text that is not JSON is passed on unchanged. Parsing the rules then fails with an error that names the
        // document.
        let of = |(name, text): (String, String)| {
            let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            let text = document::of_value(&name, value);
            (name, text)
        };
        Ok(RuleDocuments { revision, documents: fields.into_iter().map(of).collect() })
    }

    fn write(&mut self, revision: u64, documents: &Documents) -> Result<Option<u64>, PortError> {
        let key = &self.key;
        let script = Script::new(WRITE);
        let mut call = script.key(key);
        call.arg(revision);
        for (name, text) in documents {
            call.arg(name).arg(value_of(text));
        }
        let new: i64 = self.store.ask_once(key, |connection| call.invoke(connection))?;
        self.store.has_written();
        Ok(u64::try_from(new).ok())
    }
}

/// Encodes a document as JSON: a JSON object unchanged, anything else as a string.
fn value_of(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => text.to_string(),
        _ => Value::String(text.into()).to_string(),
    }
}
