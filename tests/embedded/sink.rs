//! A web server that misbehaves in the ways a test needs.

use crate::edge::{now_ms, pause};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Chooses the reply to a request; the number counts requests from 0.
pub type Mood = fn(usize) -> Reply;

#[derive(Debug, Clone, Copy)]
pub enum Reply {
    Status(u16),
    /// Success, with this body.
    Says(&'static str),
    /// 429 with a Retry-After of one second.
    Busy,
    /// Redirects to another address.
    Redirect,
    /// Closes the connection in the middle of the answer.
    Reset,
    /// A response head that never ends.
    Endless,
    /// No answer, with the connection open.
    Hang,
    /// Success, with a body that never completes.
    Slow,
}

/// A request that was answered with success: its headers and its body.
#[derive(Debug, Clone)]
pub struct Taken {
    pub headers: Vec<String>,
    pub body: Value,
    pub text: String,
    /// Time of the request, in ms since 1970.
    pub at_ms: u64,
}

#[derive(Clone)]
pub struct Sink {
    pub url: String,
    taken: Arc<Mutex<Vec<Taken>>>,
    asked: Arc<AtomicUsize>,
}

impl Sink {
    pub fn start(mood: Mood) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
        let sink = Sink { url, taken: Arc::default(), asked: Arc::default() };
        let own = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || while own.serve(&stream, mood).is_some() {});
            }
        });
        sink
    }

    fn serve(&self, stream: &TcpStream, mood: Mood) -> Option<()> {
        // With Nagle's algorithm an answer in several pieces would wait 40 ms for the peer's
        // acknowledgement.
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let (mut headers, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_string();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            headers.push(line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let text = String::from_utf8(body).ok()?;
        let mut stream = stream;
        let reply = mood(self.asked.fetch_add(1, Ordering::SeqCst));
        if matches!(reply, Reply::Status(..300) | Reply::Says(_)) {
            let body = serde_json::from_str(&text).ok()?;
            self.taken.lock().expect("whole").push(Taken { headers, body, text, at_ms: now_ms() });
        }
        match reply {
            Reply::Status(status) => {
                write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\nok").ok()
            }
            Reply::Says(body) => {
                let length = body.len();
                write!(stream, "HTTP/1.1 200 x\r\nContent-Length: {length}\r\n\r\n{body}").ok()
            }
            Reply::Busy => {
                write!(stream, "HTTP/1.1 429 x\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n").ok()
            }
            Reply::Redirect => {
                let to = &self.url;
                write!(stream, "HTTP/1.1 302 x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").ok()
            }
            Reply::Reset => None,
            Reply::Endless => {
                write!(stream, "HTTP/1.1 200 x\r\n").ok()?;
                while write!(stream, "X: {}\r\n", "x".repeat(900)).is_ok() {}
                None
            }
            Reply::Hang => until_left(&mut reader),
            Reply::Slow => {
                write!(stream, "HTTP/1.1 200 x\r\nContent-Length: 99\r\n\r\n.").ok()?;
                until_left(&mut reader)
            }
        }
    }

    /// The same address with the scheme https.
    pub fn secure_url(&self) -> String {
        self.url.replacen("http", "https", 1)
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().expect("whole").clone()
    }

    pub fn count(&self) -> usize {
        self.taken.lock().expect("whole").len()
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until the accepted requests satisfy the condition, at most two minutes, because some events
    /// occur once a minute.
    pub fn wait_for(&self, is_so: impl Fn(&[Taken]) -> bool) -> Vec<Taken> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let taken = self.taken();
            if is_so(&taken) {
                return taken;
            }
            assert!(Instant::now() < deadline, "it stays {taken:#?}");
            pause();
        }
    }
}

/// Waits until the client closes the connection.
fn until_left(reader: &mut BufReader<TcpStream>) -> Option<()> {
    let _ = reader.read(&mut [0]);
    None
}

/// Writes a file that only its owner may read.
pub fn secret(path: &Path, text: &str) {
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path).expect("writable");
    file.write_all(text.as_bytes()).expect("writable");
}
