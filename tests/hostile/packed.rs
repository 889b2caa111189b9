//! Payloads that state more than they hold: lengths, nesting, ranges, and compressed data.

use crate::bodies::{JSON, MSGPACK, list, metric, now_ms, repeat};
use crate::exchange::request;
use crate::limits::{MIB, SIZES};
use crate::random::Random;
use crate::trial::Trial;
use base64::Engine as _;
use flate2::Compression;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::Write;

/// MessagePack markers with a length of four bytes: array, map, text, binary, extension.
const LONG: [u8; 5] = [0xdd, 0xdf, 0xdb, 0xc6, 0xc9];

/// MessagePack markers of small containers and extensions, complete one-byte values, and the unused marker
/// 0xc1.
const ALONE: [u8; 9] = [0x91, 0x81, 0x92, 0xdc, 0xc1, 0x00, 0xff, 0xd4, 0xc7];

pub fn run(trial: &mut Trial, random: &mut Random) {
    for size in SIZES {
        lengths(trial, size);
        elements(trial, size);
        histograms(trial, size, random);
        encodings(trial, size);
    }
    let hdr = hdr(&repeat(b"\x02", 100_000), 5, u64::MAX, true);
    let bombs = list(MIB, |_| histogram("h", &hdr));
    let headers = [("Content-Type", JSON), ("Content-Encoding", "")];
    trial.repeated("histograms, again: bombs", &request("POST", "/api/v1/events", &headers, &bombs));
    let headers = [("Content-Type", JSON), ("Content-Encoding", "gzip")];
    let bomb = request("POST", "/api/v1/events", &headers, &gzip(&vec![0; 16 * MIB]));
    trial.repeated("gzip, again: a bomb", &bomb);
}

/// A marker with the largest length that it can state.
fn long(marker: u8) -> [u8; 5] {
    [marker, 0xff, 0xff, 0xff, 0xff]
}

fn lengths(trial: &mut Trial, size: usize) {
    let count = (size as u32 / 5).to_be_bytes();
    for marker in LONG {
        let alone = [&long(marker)[..], &repeat(b"\x01", size - 5)].concat();
        let elements = [&[0xdd_u8][..], &count, &repeat(long(marker), size)].concat();
        let field = msgpack_event(&[("labels", long(marker).to_vec())]);
        let bodies = [alone, repeat(long(marker), size), elements, field];
        for (form, body) in ["alone", "nested", "as elements", "as a field"].iter().zip(bodies) {
            trial.events(&format!("msgpack, {marker:#x} of 4 GiB, {form}"), MSGPACK, &body);
        }
    }
    for marker in ALONE {
        trial.events(&format!("msgpack, {marker:#x} alone"), MSGPACK, &repeat([marker], size));
    }
}

/// Many small elements with true lengths.
fn elements(trial: &mut Trial, size: usize) {
    let many = |marker: u8, count: usize, element: &[u8]| {
        [&[marker][..], &(count as u32).to_be_bytes(), &element.repeat(count)].concat()
    };
    let room = size - 300;
    let column = |element: &[u8]| many(0xdd, room / 2 / element.len(), element);
    let samples = |times: Vec<u8>, values: Vec<u8>| {
        msgpack_event(&[("type", text("samples")), ("times", times), ("values", values)])
    };
    let one = msgpack_event(&[]);
    let bodies = [
        ("events", many(0xdd, room / one.len(), &one)),
        ("numbers", many(0xdd, room, &[1])),
        ("empty maps", many(0xdd, room, &[0x80])),
        ("numbers as keys", many(0xdf, room / 2, &[1, 1])),
        ("small columns", samples(column(&[1]), column(&[1]))),
        ("columns of nil", samples(column(&[0xc0]), column(&[0xc0]))),
        ("columns of empty texts", samples(column(&[0xa0]), column(&[0xa0]))),
        ("columns of maps", samples(column(&[0x80]), column(&[0x80]))),
    ];
    for (name, body) in bodies {
        trial.events(&format!("msgpack, {name}"), MSGPACK, &body);
    }
}

/// A text of at most 31 bytes.
fn text(text: &str) -> Vec<u8> {
    [&[0xa0 | text.len() as u8][..], text.as_bytes()].concat()
}

/// A metric event as a map, with some fields replaced or added.
fn msgpack_event(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let time = [&[0xd3][..], &(now_ms() as i64).to_be_bytes()].concat();
    let own = [
        ("type", text("metric")),
        ("time", time),
        ("source", text("packed")),
        ("name", text("m")),
        ("value", vec![1]),
    ];
    let kept = own.iter().filter(|(name, _)| !fields.iter().any(|(other, _)| other == name));
    let all: Vec<&(&str, Vec<u8>)> = kept.chain(fields).collect();
    let mut out = vec![0x80 | all.len() as u8];
    for (name, value) in all {
        out.extend(text(name));
        out.extend(value);
    }
    out
}

/// An HdrHistogram V2 with these encoded counts.
fn hdr(counts: &[u8], digits: u32, high: u64, is_deflated: bool) -> String {
    hdr_of_length(counts.len() as u32, counts, digits, high, is_deflated)
}

fn hdr_of_length(length: u32, counts: &[u8], digits: u32, high: u64, is_deflated: bool) -> String {
    let mut plain = 0x1c84_9313_u32.to_be_bytes().to_vec();
    for word in [length, 0, digits] {
        plain.extend(word.to_be_bytes());
    }
    plain.extend(1_u64.to_be_bytes());
    plain.extend(high.to_be_bytes());
    plain.extend(1_f64.to_be_bytes());
    plain.extend(counts);
    if is_deflated {
        let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
        deflate.write_all(&plain).expect("memory");
        let deflated = deflate.finish().expect("memory");
        let length = (deflated.len() as u32).to_be_bytes();
        plain = [&0x1c84_9314_u32.to_be_bytes()[..], &length, &deflated].concat();
    }
    base64::engine::general_purpose::STANDARD.encode(plain)
}

fn histogram(source: &str, hdr: &str) -> String {
    let time = now_ms();
    format!(r#"{{"type":"histogram","time":{time},"source":"{source}","name":"hm","hdr":"{hdr}"}}"#)
}

/// Many histograms in one payload: a thousand of them must stay within the limits too.
fn histograms(trial: &mut Trial, size: usize, random: &mut Random) {
    let cells: Vec<u8> = [2, 3, 2, 2].repeat(1_000);
    let texts = [
        ("five digits and the largest range", hdr(&[], 5, u64::MAX, false)),
        ("a length of 4 GiB", hdr_of_length(u32::MAX, &[2], 2, 1 << 42, false)),
        ("seven digits", hdr(&[2], 7, 1 << 42, false)),
        ("a run to the end of the range", hdr(&[2, 0xff, 0xff, 0x0f, 2], 5, u64::MAX, false)),
        ("a count of 2^63", hdr(&[&[0xfe_u8][..], &[0xff; 8]].concat(), 2, 1 << 42, false)),
        ("4,000 deflated counts", hdr(&repeat(b"\x02", 4_000), 5, u64::MAX, true)),
        ("4,000 deflated counts and gaps", hdr(&cells, 5, u64::MAX, true)),
        ("a bomb", hdr(&repeat(b"\x02", 4 * size), 5, u64::MAX, true)),
    ];
    for (name, text) in texts {
        let body = list(size, |_| histogram("h", &text));
        trial.events(&format!("histograms, one series: {name}"), JSON, &body);
        let tag = random.name();
        let body = list(size, |n| histogram(&format!("{tag}-{n}"), &text));
        trial.events(&format!("histograms, new series: {name}"), JSON, &body);
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

/// A zstd frame with this window descriptor in which every four bytes inflate to 128 KiB.
fn zstd_run(window: u8, size: usize) -> Vec<u8> {
    let block = ((131_072_u32 << 3) | 2).to_le_bytes();
    let block = [block[0], block[1], block[2], b' '];
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, window][..], &repeat(block, size)].concat()
}

/// A zstd frame that states its decompressed length.
fn zstd_stated(length: u64, size: usize) -> Vec<u8> {
    [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0_u8][..], &length.to_le_bytes(), &repeat(b"\0", size)].concat()
}

fn encodings(trial: &mut Trial, size: usize) {
    let cut = |whole: Vec<u8>| whole[..whole.len().min(size)].to_vec();
    let frame = |plain: &[u8]| compress_to_vec(plain, CompressionLevel::Fastest);
    let good = metric("x", "m", "");
    let bodies = [
        ("gzip", "zeros", cut(gzip(&vec![0; 16 * size]))),
        ("gzip", "a batch of 1", cut(gzip(&[&b"["[..], &repeat("1,", 2 * size)].concat()))),
        ("gzip", "empty members", repeat(gzip(b""), size)),
        ("gzip", "members of one byte", repeat(gzip(b"1"), size)),
        ("gzip", "cut off", gzip(good.as_bytes())[..30].to_vec()),
        ("gzip", "noise", repeat(b"\x1f\x8b\x08\0", size)),
        ("zstd", "spaces", zstd_run(0x50, size)),
        ("zstd", "a window of 8 MiB", zstd_run(0x68, size)),
        ("zstd", "a window of 16 MiB", zstd_run(0x70, size)),
        ("zstd", "the largest window", zstd_run(0xff, size)),
        ("zstd", "a stated length of 2^60", zstd_stated(1 << 60, size)),
        ("zstd", "empty frames", repeat(frame(b""), size)),
        ("zstd", "frames of one byte", repeat(frame(b"1"), size)),
        ("zstd", "frames to skip", repeat(b"\x50\x2a\x4d\x18\0\0\0\0", size)),
        ("zstd", "cut off", frame(good.as_bytes())[..12].to_vec()),
        ("br", "an unknown one", repeat("x", size)),
        ("gzip, gzip", "two", repeat("x", size)),
    ];
    for (encoding, name, body) in bodies {
        let headers = [("Content-Type", JSON), ("Content-Encoding", encoding)];
        trial.inflated(&format!("{encoding}: {name}"), &headers, &body);
    }
}
