//! Bytes on a connection that are not HTTP, or malformed HTTP.

use crate::bodies::{metric, repeat};
use crate::limits::Bounds;
use crate::random::Random;
use crate::trial::{Outcome, Trial, ask, is_answer};

/// Accepted outcomes.
#[derive(Clone, Copy)]
enum Wanted {
    /// One of these status codes.
    Status(&'static [u16]),
    /// Any answer, or the end of the connection.
    AnyEnd,
}

use Wanted::{AnyEnd, Status};

const EVENTS: &str = "POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n";
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n";

pub fn run(trial: &mut Trial, random: &mut Random) {
    for (name, wanted, bytes) in heads(random).into_iter().chain(bodies()) {
        let bounds = Bounds::post(bytes.len());
        trial.case(&format!("socket: {name}"), bounds, |address| match wanted {
            Status(right) => ask(address, &bytes, |status| right.contains(&status)),
            AnyEnd => ended(ask(address, &bytes, is_answer)),
        });
    }
}

/// Accepts a connection that ends without an answer, because the bytes may hold no request.
fn ended(outcome: Outcome) -> Outcome {
    let wrong = if outcome.is_hung || outcome.status > 0 { outcome.wrong } else { Vec::new() };
    Outcome { wrong, ..outcome }
}

type Sent = (&'static str, Wanted, Vec<u8>);

fn heads(random: &mut Random) -> Vec<Sent> {
    let head = |text: &str| text.as_bytes().to_vec();
    let with = |more: &str| format!("{HEALTH}{more}\r\n").into_bytes();
    let (long, many) = ("x".repeat(100_000), (0..1_000).map(|n| format!("X{n}: x\r\n")).collect::<String>());
    vec![
        ("HTTP/0.9", Status(&[400]), head("GET /\r\n\r\n")),
        ("HTTP/1.0 without a host", Status(&[400]), head("GET /healthz HTTP/1.0\r\n\r\n")),
        ("HTTP/2", AnyEnd, head("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        ("HTTP/3.0", Status(&[400]), head("GET / HTTP/3.0\r\nHost: 127.0.0.1\r\n\r\n")),
        ("TLS", AnyEnd, [&b"\x16\x03\x01\x00\xf1\x01\x00\x00\xed\x03\x03"[..], &random.bytes(240)].concat()),
        ("noise", AnyEnd, [random.bytes(100 << 10), b"\r\n\r\n".to_vec()].concat()),
        ("zeros", AnyEnd, repeat(b"\0", 100 << 10)),
        ("line ends", AnyEnd, repeat(b"\r\n", 1 << 20)),
        ("no host", Status(&[400]), head("GET / HTTP/1.1\r\n\r\n")),
        ("two hosts", Status(&[400]), with("Host: 127.0.0.1\r\n")),
        ("a foreign host", Status(&[403]), head("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")),
        ("a foreign origin", Status(&[403]), with("Origin: http://evil.example\r\n")),
        ("another site", Status(&[403]), with("Sec-Fetch-Site: cross-site\r\n")),
        ("a foreign target", Status(&[403]), head("GET http://evil/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")),
        ("a tunnel", Status(&[403, 404]), head("CONNECT evil:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")),
        // The server refuses these before reading them to the end, so its answer may be lost with the
        // connection.
        ("a header of 100 KB", AnyEnd, with(&format!("X: {long}\r\n"))),
        ("1,000 headers", AnyEnd, with(&many)),
        ("a target of 100 KB", AnyEnd, head(&format!("GET /{long} HTTP/1.1\r\n\r\n"))),
        ("a method of 100 KB", AnyEnd, head(&format!("{long} / HTTP/1.1\r\n\r\n"))),
        ("a header without a colon", Status(&[400]), with("abc\r\n")),
        ("a header that goes on", Status(&[400]), with("X: a\r\n b\r\n")),
        ("a zero in a header", Status(&[400]), with("X: \0\r\n")),
        ("no UTF-8 in a header", Status(&[200, 400]), [HEALTH.as_bytes(), b"X: \xff\xfe\r\n\r\n"].concat()),
        ("an upgrade", Status(&[200]), with("Connection: Upgrade\r\nUpgrade: h2c\r\n")),
        ("1,000 requests at once", Status(&[200]), repeat(format!("{HEALTH}\r\n"), 49_000)),
        ("an unknown method", Status(&[405]), head("FOO /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")),
    ]
}

fn bodies() -> Vec<Sent> {
    let good = metric("socket", "m", "");
    let with = |headers: &str, body: &str| format!("{EVENTS}{headers}\r\n\r\n{body}").into_bytes();
    let stated = |length: &str| with(&format!("Content-Length: {length}"), &good);
    let chunked = |body: &str| with("Transfer-Encoding: chunked", body);
    let event = stated(&good.len().to_string());
    let of_one_byte = "1\r\nx\r\n".repeat(100_000);
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked";
    let (long, zeros, trailers) = ("a".repeat(1 << 20), "0".repeat(1 << 20), "A: b\r\n".repeat(100_000));
    let expecting = format!("Expect: foo\r\nContent-Length: {}", good.len());
    let with_body = format!("{HEALTH}Content-Length: 9\r\n\r\n123456789");
    vec![
        ("a negative length", Status(&[400]), stated("-1")),
        ("a length with a sign", Status(&[400]), stated("+5")),
        ("a list of lengths", Status(&[400]), stated("5, 5")),
        ("a length beyond 2^64", Status(&[400]), stated("99999999999999999999999")),
        ("a length of 2^63 - 1", Status(&[413]), stated("9223372036854775807")),
        ("a length of 1 GiB", Status(&[413]), stated("1073741824")),
        ("two lengths", Status(&[400]), with("Content-Length: 5\r\nContent-Length: 6", &good)),
        ("a length and chunks", Status(&[400]), with(both, "0\r\n\r\n")),
        ("an unknown coding", Status(&[400, 501]), with("Transfer-Encoding: foo", "0\r\n\r\n")),
        ("no chunk", Status(&[400]), chunked("0\r\n\r\n")),
        ("chunks of one byte", Status(&[400]), chunked(&format!("{of_one_byte}0\r\n\r\n"))),
        ("a chunk beyond 2^64", Status(&[400]), chunked("fffffffffffffffff\r\n")),
        ("a long extension", AnyEnd, chunked(&format!("1;{long}\r\nx\r\n0\r\n\r\n"))),
        ("many trailers", AnyEnd, chunked(&format!("1\r\nx\r\n0\r\n{trailers}\r\n"))),
        ("zeros before a size", AnyEnd, chunked(&format!("{zeros}1\r\nx\r\n0\r\n\r\n"))),
        ("100 events one behind the other", Status(&[202]), event.repeat(100)),
        ("an unknown expectation", Status(&[202, 417]), with(&expecting, &good)),
        ("a body where none belongs", Status(&[200]), with_body.into_bytes()),
    ]
}
