//! One request and its answer over a connection of its own, with a deadline.
//!
//! Rejected: a client library, which corrects requests that are meant to be malformed and reuses
//! connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Reasons for a missing answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing arrived in time.
    Silent,
    /// The connection ended before the answer was complete.
    Ended(String),
}

/// Characters of an answer that an error message quotes.
const SHOWN_CHARS: usize = 200;

impl Answer {
    /// Returns the status and the beginning of the body.
    pub fn shown(&self) -> String {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(SHOWN_CHARS).collect();
        format!("status {}: {body}", self.status)
    }
}

impl Unanswered {
    pub fn shown(&self) -> String {
        match self {
            Unanswered::Silent => "no answer in time".into(),
            Unanswered::Ended(why) => format!("no answer: {why}"),
        }
    }
}

/// Returns nothing if the answer has this status, otherwise what is wrong with it.
pub fn other_than(status: u16, answered: &Result<Answer, Unanswered>) -> Option<String> {
    match answered {
        Ok(answer) if answer.status == status => None,
        Ok(answer) => Some(answer.shown()),
        Err(error) => Some(error.shown()),
    }
}

/// Builds a request with its length and these headers.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

pub fn get(path: &str) -> Vec<u8> {
    request("GET", path, &[], &[])
}

/// Sends these bytes unchanged and reads the first answer.
pub fn exchange(address: SocketAddr, bytes: &[u8], within: Duration) -> Result<Answer, Unanswered> {
    let until = Instant::now() + within;
    let ended = |error: std::io::Error| Unanswered::Ended(error.to_string());
    let mut stream = TcpStream::connect_timeout(&address, within).map_err(ended)?;
    stream.set_nodelay(true).map_err(ended)?;
    stream.set_write_timeout(Some(within)).map_err(ended)?;
    // A server that has already answered may refuse further bytes; its answer can still be read.
    let _ = stream.write_all(bytes);
    read(&mut stream, until)
}

fn read(stream: &mut TcpStream, until: Instant) -> Result<Answer, Unanswered> {
    let (mut taken, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unanswered::Silent);
        }
        stream.set_read_timeout(Some(left)).map_err(|error| Unanswered::Ended(error.to_string()))?;
        let end = match stream.read(&mut piece) {
            Ok(0) => Some("no whole answer".to_string()),
            Ok(length) => {
                taken.extend_from_slice(&piece[..length]);
                None
            }
            Err(error) if is_early(error.kind()) => continue,
            Err(error) => Some(error.to_string()),
        };
        if let Some(answer) = parse(&taken, end.is_some()) {
            return Ok(answer);
        }
        if let Some(end) = end {
            return Err(Unanswered::Ended(end));
        }
    }
}

fn is_early(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Parses an answer if it is complete. An interim answer (100) is skipped.
fn parse(bytes: &[u8], is_ended: bool) -> Option<Answer> {
    let head_bytes = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let (head, body) = bytes.split_at(head_bytes);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    if status == 100 {
        return parse(body, is_ended);
    }
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| *known == name).map(|(_, value)| value.trim())
    };
    let length = field("content-length").and_then(|text| text.parse::<usize>().ok());
    let is_whole = match (length, field("transfer-encoding")) {
        (Some(length), _) => body.len() >= length,
        (None, Some("chunked")) => body.ends_with(b"0\r\n\r\n"),
        (None, _) => is_ended,
    };
    is_whole.then(|| Answer { status, body: body.to_vec() })
}
