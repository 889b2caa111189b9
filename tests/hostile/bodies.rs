//! Bodies of a given size, made of small pieces.

use std::time::{SystemTime, UNIX_EPOCH};

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";
pub const MSGPACK: &str = "application/msgpack";

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// A piece, repeated as often as it fits, at least once.
pub fn repeat(piece: impl AsRef<[u8]>, size: usize) -> Vec<u8> {
    let piece = piece.as_ref();
    piece.repeat((size / piece.len()).max(1))
}

/// A repeated piece between a beginning and an end.
pub fn between(begin: &str, piece: &str, end: &str, size: usize) -> Vec<u8> {
    let room = size.saturating_sub(begin.len() + end.len());
    [begin.as_bytes(), &repeat(piece, room), end.as_bytes()].concat()
}

/// OutboxEntry pieces with a separator between them, as many as fit, at least one.
pub fn numbered(size: usize, separator: &str, mut make: impl FnMut(usize) -> String) -> String {
    let mut out = make(0);
    for n in 1.. {
        let piece = make(n);
        if out.len() + separator.len() + piece.len() > size {
            break;
        }
        out.push_str(separator);
        out.push_str(&piece);
    }
    out
}

/// A JSON array of numbered elements.
pub fn list(size: usize, make: impl FnMut(usize) -> String) -> Vec<u8> {
    format!("[{}]", numbered(size.saturating_sub(2), ",", make)).into_bytes()
}

/// A metric event; `more` holds further fields, each with a comma before it.
pub fn metric(source: &str, name: &str, more: &str) -> String {
    let time = now_ms();
    format!(r#"{{"type":"metric","time":{time},"source":"{source}","name":"{name}","value":1{more}}}"#)
}

/// A metric event `ms` milliseconds before now; a negative value is in the future.
pub fn metric_before(source: &str, name: &str, ms: i64) -> String {
    let time = now_ms() as i64 - ms;
    format!(r#"{{"type":"metric","time":{time},"source":"{source}","name":"{name}","value":1}}"#)
}

/// A stage event; `more` as for [`metric`].
pub fn stage(pipeline: &str, run: &str, stage: &str, status: &str, more: &str) -> String {
    let time = now_ms();
    let of = format!(r#""pipeline":"{pipeline}","run":"{run}","stage":"{stage}""#);
    format!(r#"{{"type":"stage","time":{time},{of},"status":"{status}"{more}}}"#)
}
