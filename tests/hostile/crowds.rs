//! Many clients at once: senders of large bodies, and connections that are opened and left waiting.

use crate::bodies::{JSON, MSGPACK, NDJSON, between, list, metric, repeat};
use crate::exchange::{get, request};
use crate::limits::{Bounds, HELD_BYTES, MIB};
use crate::trial::{Outcome, Trial, ask, is_answer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Open files of this process, and of the service that it starts: 1,200 connections at both ends, and some
/// more.
const FILES: u64 = 4_096;

/// Connections that are opened at once: more than the service accepts at a time (1,024).
const CONNECTIONS: usize = 1_200;

/// How long they are held: longer than the one second after which a client counts as stalled.
const HELD: Duration = Duration::from_secs(2);

/// Pause between two writes of a slow sender.
const DRIP: Duration = Duration::from_millis(250);

/// Common queries, some of which have long answers.
const READ: [&str; 6] =
    ["/openapi.json", "/metrics", "/", "/api/v1/series", "/api/v1/windows?name=m", "/api/v1/pipelines"];

/// Raises the limit on open files as far as the system allows; processes started later inherit it.
pub fn raise_files() {
    let known = getrlimit(Resource::Nofile);
    let wanted = known.maximum.map_or(FILES, |maximum| maximum.min(FILES));
    // After a failure there are fewer connections, and the case that needs them reports it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: known.maximum });
}

const POST: &str = "POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n";

pub fn senders(trial: &mut Trial) {
    let good = list(MIB, |n| metric(&format!("crowd-{}", n % 100), "m", ""));
    let columns = r#"{"type":"samples","source":"x","name":"m","times":["#;
    let bodies = [
        ("good events", JSON, good),
        ("lines of x", NDJSON, repeat("x\n", MIB)),
        ("arrays of 1", JSON, between("[", "1,", "1]", MIB)),
        ("empty maps", MSGPACK, [&b"\xdd\x00\x0f\x00\x00"[..], &repeat(b"\x80", 0x0f_0000)].concat()),
        ("columns", JSON, between(columns, "1,", r#"1],"values":[1]}"#, MIB)),
    ];
    for (name, kind, body) in bodies {
        let bytes = request("POST", "/api/v1/events", &[("Content-Type", kind)], &body);
        crowd(trial, &format!("16 times 1 MiB at once: {name}"), &bytes, 16, Bounds::post(MIB));
    }
    let headers = [("Content-Type", JSON), ("Idempotency-Key", "one for all")];
    let bytes = request("POST", "/api/v1/events", &headers, metric("x", "m", "").as_bytes());
    crowd(trial, "100 times one key at once", &bytes, 100, Bounds::post(bytes.len()));
    for path in READ {
        crowd(trial, &format!("40 times at once: {path}"), &get(path), 40, Bounds::get(path.len()));
    }
}

/// Sends `count` requests at once, each on a connection of its own.
pub fn crowd(trial: &mut Trial, name: &str, bytes: &[u8], count: usize, of_one: Bounds) {
    trial.case(name, Bounds::crowd(of_one, count), |address| {
        let begun = Instant::now();
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let one = || ask(address, bytes, is_answer);
            let asked: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
            asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
        });
        let mut all = Outcome { took: begun.elapsed(), ..Outcome::default() };
        for one in outcomes {
            all.answer += one.answer;
            all.is_hung |= one.is_hung;
            all.wrong.extend(one.wrong);
        }
        // All of them report the same problem.
        all.wrong.truncate(1);
        all
    });
}

/// Connections that wait: for a head, for a body, or for a client that does not read its answers.
pub fn waiters(trial: &mut Trial) {
    let post = |length: usize, sent: usize| {
        let head = format!("{POST}Content-Length: {length}\r\n\r\n");
        [head.as_bytes(), &repeat("x", sent)].concat()
    };
    let head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.";
    let chunk = format!("{POST}Transfer-Encoding: chunked\r\n\r\n40000000\r\nx");
    let questions = |path: &str, count: usize| {
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").repeat(count).into_bytes()
    };
    hold(trial, "idle connections", CONNECTIONS, b"", b"");
    hold(trial, "half heads", CONNECTIONS, head, b"");
    hold(trial, "heads byte by byte", CONNECTIONS, head, b"1");
    hold(trial, "half bodies of 60 KB", CONNECTIONS, &post(65_000, 60_000), b"");
    hold(trial, "half bodies of 1 MiB", CONNECTIONS, &post(MIB, 70_000), b"");
    hold(trial, "bodies byte by byte", 300, &post(MIB, 70_000), b"x");
    hold(trial, "chunks of 1 GiB", 300, chunk.as_bytes(), b"x");
    hold(trial, "half a message of TLS", 300, b"\x16\x03\x01", b"\x01");
    // The answers are larger than the socket buffers, so the rest waits in the service.
    hold(trial, "series that nobody reads", 12, &questions("/api/v1/series", 32), b"");
    hold(trial, "windows that nobody reads", 12, &questions("/api/v1/windows?name=m", 32), b"");
    hold(trial, "a document that nobody reads", 100, &questions("/openapi.json", 300), b"");
    hold(trial, "questions of clients that go", 300, &questions("/api/v1/windows?name=n", 1), b"");
}

/// Opens connections, sends these bytes on each, then some more from time to time, and closes them.
fn hold(trial: &mut Trial, name: &str, count: usize, bytes: &[u8], drip: &[u8]) {
    let bounds = Bounds { memory: HELD_BYTES, ..Bounds::get(count * bytes.len()) };
    trial.case(&format!("{count} {name}"), bounds, |address| {
        let mut streams: Vec<TcpStream> = (0..count).filter_map(|_| open(address, bytes)).collect();
        let until = Instant::now() + HELD;
        while Instant::now() < until {
            // The service may have closed a connection meanwhile, so write errors are ignored.
            streams.iter_mut().for_each(|stream| drop(stream.write_all(drip)));
            std::thread::sleep(DRIP);
        }
        let is_few = streams.len() * 10 < count * 9;
        let wrong = is_few.then(|| format!("only {} connections could be made", streams.len()));
        Outcome { wrong: wrong.into_iter().collect(), ..Outcome::default() }
    });
}

fn open(address: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, HELD).ok()?;
    stream.set_write_timeout(Some(DRIP)).ok()?;
    // The service may close it at any time.
    let _ = stream.write_all(bytes);
    Some(stream)
}
