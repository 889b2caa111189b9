//! Payloads: the fast path decodes like the slow one, and hostile bytes are refused without a panic.

use crate::START_MS;
use proptest::prelude::*;
use streamgauge::wire::event::{Codec, Decoded, Decoder};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The fast path takes only what the slow path takes, with the same result.
    #[test]
    fn fast_and_slow_decoding_agree(value in prop_oneof!["-?[0-9]{1,12}", "-?[0-9]{1,6}\\.[0-9]{1,10}", "[0-9]e[0-9]", "[a-z0-9.+-]{0,6}"],
        time in prop_oneof!["2026-11-0[1-9]T0[0-9]:[0-5][0-9]:0[0-9]Z", "[0-9]{10,14}", "[0-9T:Z-]{0,24}"],
        quoted in any::<bool>(), order in any::<bool>(), space in " {0,2}") {
        let time = if quoted { format!("\"{time}\"") } else { time };
        let line = |value: &str, time: &str| {
            let (a, b) = (format!("\"time\":{space}{time}"), format!("\"value\":{space}{value}"));
            let (a, b) = if order { (a, b) } else { (b, a) };
            format!("{{\"type\":\"metric\",\"source\":\"s\",{a},\"name\":\"n\",\"labels\":{{\"a\":\"b\"}},{space}{b}{space}}}")
        };
        let taught = line("1.5", "\"2026-11-01T00:00:00Z\"");
        let asked = line(&value, &time);
        let decode = |lines: &[&str]| {
            let (mut decoder, mut out) = (Decoder::new(0), Decoded::default());
            lines.iter().for_each(|line| decoder.json_one(0, line.as_bytes(), &mut out));
            out
        };
        let (fast, slow) = (decode(&[&taught, &asked, &asked]), decode(&[&asked]));
        prop_assert_eq!(fast.events.get(1), slow.events.first());
        prop_assert_eq!(fast.events.get(2), slow.events.first());
        prop_assert_eq!(fast.bad.len(), 2 * slow.bad.len());
    }

    /// Hostile bytes are an error, never a panic.
    #[test]
    fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), codec in 0..3usize) {
        let codec = [Codec::Json, Codec::Ndjson, Codec::MessagePack][codec];
        let mut out = Decoded::default();
        Decoder::new(0).payload(codec, &bytes, &mut out);
    }

    /// A good event with some bytes changed is taken or refused, never a panic.
    #[test]
    fn damaged_events_are_refused(at in 0..200usize, byte in any::<u8>(), codec in any::<bool>()) {
        let event = serde_json::json!({"type": "samples", "source": "a", "name": "b_ms", "labels": {"x": "y"},
            "times": [START_MS, "2026-11-01T00:00:01Z"], "values": [1, 2.5]});
        let mut bytes = if codec { event.to_string().into_bytes() } else { rmp_serde::to_vec_named(&event).expect("memory") };
        let at = at % bytes.len();
        bytes[at] = byte;
        let mut out = Decoded::default();
        Decoder::new(0).payload(if codec { Codec::Json } else { Codec::MessagePack }, &bytes, &mut out);
        prop_assert!(out.events.len() + out.bad.len() >= 1 || !codec);
    }
}

#[test]
fn bombs_are_refused_within_bounds() {
    let decode = |codec, bytes: &[u8]| {
        let mut out = Decoded::default();
        Decoder::new(0).payload(codec, bytes, &mut out);
        assert!(out.events.is_empty() && !out.bad.is_empty());
        out.bad.swap_remove(0).message
    };
    let head = "{\"type\":\"metric\",\"time\":1793491200000,\"source\":\"a\",\"name\":\"b\",\"value\":";
    let deep = format!("{head}{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    decode(Codec::Json, deep.as_bytes());
    let labels: Vec<String> = (0..60_000).map(|n| format!("\"l{n}\":\"v\"")).collect();
    let many = format!("{head}1,\"labels\":{{{}}}}}", labels.join(","));
    assert!(decode(Codec::Json, many.as_bytes()).contains("60000 labels"));
    assert!(decode(Codec::Json, format!("{head}1,\"value\":2}}").as_bytes()).contains("twice"));
    assert!(decode(Codec::Json, format!("{head}1,\"x\":2,\"x\":3}}").as_bytes()).contains("twice"));
    assert!(
        decode(Codec::Json, format!("{head}1,\"labels\":{{\"a\":\"1\",\"a\":\"2\"}}}}").as_bytes())
            .contains("twice")
    );
    decode(Codec::Json, format!("{head}NaN}}").as_bytes());
    decode(Codec::Json, format!("{head}1}} trailing").as_bytes());
    assert!(
        decode(Codec::Json, format!("{head}1,\"labels\":{{\"name\":\"x\"}}}}").as_bytes()).contains("named")
    );
    decode(Codec::Json, &vec![b' '; 2 << 20]);
    decode(Codec::MessagePack, &[0xdd, 0xff, 0xff, 0xff, 0xff]);
    decode(Codec::MessagePack, &[0x91; 100_000]);
    let mut nan = rmp_serde::to_vec_named(
        &serde_json::json!({"type": "metric", "time": 1_793_491_200_000_u64, "source": "a", "name": "b"}),
    )
    .expect("memory");
    nan[0] += 1;
    nan.extend([&[0xa5][..], b"value", &[0xcb], &f64::NAN.to_be_bytes()].concat());
    assert!(decode(Codec::MessagePack, &nan).contains("finite"));
}
