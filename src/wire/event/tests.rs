use super::*;

#[test]
fn content_types_are_those_of_the_contract_and_what_curl_says() {
    let codec = |text| Codec::from_content_type(text);
    assert_eq!(codec(None), Some(Codec::Json));
    assert_eq!(codec(Some("application/json; charset=utf-8")), Some(Codec::Json));
    assert_eq!(codec(Some("application/x-www-form-urlencoded")), Some(Codec::Json));
    assert_eq!(codec(Some("Application/X-NDJSON")), Some(Codec::Ndjson));
    for text in ["application/msgpack", "application/x-msgpack", "application/vnd.msgpack"] {
        assert_eq!(codec(Some(text)), Some(Codec::MessagePack));
    }
    assert_eq!(codec(Some("text/html")), None);
}

#[test]
fn a_body_without_a_type_is_what_its_lines_are() {
    let event = with("metric", "");
    let of = |body: &str| Codec::of_body(None, body.as_bytes());
    let cut = format!("alue\":1}}\n{event}\n{event}\n");
    for lines in [&format!("{event}\n{event}"), &cut, &format!("x\n\n{event}\n")] {
        assert_eq!(of(lines), Some(Codec::Ndjson), "{lines}");
    }
    let pretty = event.replacen(',', ",\n\"labels\":\n{\"a\":\"b\"}\n,", 1);
    for json in [&event, &pretty, &format!("[\n{event},\n{event}\n]"), "x\ny\n", ""] {
        assert_eq!(of(json), Some(Codec::Json), "{json}");
    }
    let (mut decoder, mut out) = (Decoder::new(0), Decoded::default());
    decoder.payload(Codec::Json, format!("{event}\n{event}").as_bytes(), &mut out);
    assert!(out.bad[0].message.ends_with("application/x-ndjson"), "{:?}", out.bad);
}

#[test]
fn times_in_other_forms_are_refused_with_what_to_do() {
    let of = |time: &str| {
        let refused = read(&with("metric", "").replacen("\"2026-11-01T00:00:00Z\"", time, 1));
        refused.expect_err("no time").message
    };
    assert!(of("1793491200.25").contains("looks like seconds"), "{}", of("1793491200.25"));
    assert!(of("\"1793491200\"").contains("looks like seconds"), "{}", of("\"1793491200\""));
    assert!(of("\"1793491200000\"").contains("without quotes"), "{}", of("\"1793491200000\""));
    assert!(of("1793491200000.5").contains("whole number"), "{}", of("1793491200000.5"));
}

/// Decodes one JSON object into an event or its refusal.
fn read(json: &str) -> Result<Event, BadEvent> {
    let (mut decoder, mut out) = (Decoder::new(0), Decoded::default());
    decoder.json_one(0, json.as_bytes(), &mut out);
    match out.bad.pop() {
        Some(bad) => Err(bad),
        None => Ok(out.events.pop().expect("an event or a refusal")),
    }
}

/// Builds an object with the required fields of a type, and some further fields.
fn with(kind: &str, more: &str) -> String {
    let time = r#""time":"2026-11-01T00:00:00Z""#;
    let required = match kind {
        "metric" => format!(r#"{time},"source":"s","name":"n","value":1"#),
        "samples" => r#""source":"s","name":"n","times":[1793491200000],"values":[1]"#.to_string(),
        "stage" => format!(r#"{time},"pipeline":"p","stage":"b","status":"succeeded","run":"r""#),
        "run" => format!(r#"{time},"pipeline":"p","status":"succeeded","run":"r""#),
        _ => format!(r#"{time},"pipeline":"p","gate":"g","status":"passed","run":"r""#),
    };
    let more = if more.is_empty() { String::new() } else { format!(",{more}") };
    format!(r#"{{"type":"{kind}",{required}{more}}}"#)
}

#[test]
fn whole_numbers_are_ids_by_their_decimal_text() {
    for kind in ["stage", "run", "gate"] {
        let event = with(kind, r#""id":7"#);
        let numbered = |run: &str| event.replace(r#""run":"r""#, &format!(r#""run":{run}"#));
        let run = match read(&numbered("9876543210")).expect("taken") {
            Event::Stage(stage) => stage.run,
            Event::Run(run) => run.run,
            Event::Gate(gate) => gate.run,
            other => panic!("{other:?}"),
        };
        assert_eq!(&*run, "9876543210");
        for run in ["1.5", "true", "{}", "[]", "\"\"", "null", "18446744073709551615"] {
            assert!(read(&numbered(run)).is_err(), "{kind} {run}");
        }
    }
    let Ok(Event::Run(run)) = read(&with("run", r#""id":-12"#)) else { panic!("a run") };
    assert_eq!(run.id.as_deref(), Some("-12"));
    let Ok(Event::Identified(identified)) = read(&with("metric", r#""id":12"#)) else { panic!("a metric") };
    assert_eq!(&*identified.1, "12");
}

/// Goal: an optional field of a wrong type is refused whether or not it is used. Method: each optional field
/// of each type with values of all other types, and once with a valid value.
#[test]
fn optional_fields_of_a_wrong_type_are_refused() {
    let (text, number, object) = (r#""x""#, "0.5", r#"{"a":"b"}"#);
    let whole = "3";
    let fields = [
        ("metric", "unit", text, vec![number, object, "[]", "true"]),
        ("metric", "labels", object, vec![number, text, "[]", "true", r#"{"a":1}"#]),
        ("metric", "id", whole, vec![number, object, "[]", "true"]),
        ("samples", "unit", text, vec![number, object, "[]", "true"]),
        ("samples", "labels", object, vec![number, text, "[]", "true"]),
        ("stage", "source", text, vec![number, object, "[]", "true", r#""""#]),
        ("stage", "attempt", whole, vec![number, text, object, "[]", "true", "0"]),
        ("stage", "labels", object, vec![number, text, "[]", "true", r#"{"a":[1]}"#]),
        ("stage", "progress", number, vec![text, r#""50%""#, object, "[]", "true"]),
        ("stage", "id", text, vec![number, object, "[]", "true"]),
        ("stage", "started_at", "1793491199000", vec![number, text, object, "[]", "true"]),
        ("run", "source", text, vec![number, object, "[]", "true"]),
        ("run", "labels", object, vec![number, text, "[]", "true"]),
        ("run", "id", whole, vec![number, object, "[]", "true"]),
        ("run", "finished_at", "1793491199000", vec![number, text, object, "[]", "true"]),
        ("gate", "source", text, vec![number, object, "[]", "true"]),
        ("gate", "value", number, vec![text, object, "[1]", "true"]),
        ("gate", "threshold", number, vec![text, object, "[1]", "true"]),
        ("gate", "labels", object, vec![number, text, "[]", "true"]),
        ("gate", "id", text, vec![number, object, "[]", "true"]),
    ];
    for (kind, field, right, wrong) in fields {
        for fine in [right, "null"] {
            let json = with(kind, &format!(r#""{field}":{fine}"#));
            assert!(read(&json).is_ok(), "{json}: {:?}", read(&json));
        }
        for value in wrong {
            let json = with(kind, &format!(r#""{field}":{value}"#));
            let refused = read(&json).expect_err(&json);
            assert_eq!(refused.reason, Refusal::BadEvent, "{json}");
            assert!(refused.message.contains(field) || refused.message.contains("label"), "{refused:?}");
        }
    }
}

#[test]
fn what_messagepack_says_and_json_cannot_is_not_plain() {
    for field in ["progress", "attempt", "id", "started_at"] {
        let head = [0x81, 0xa0 | field.len() as u8];
        let nan = [&head[..], field.as_bytes(), &[0xcb], &f64::NAN.to_be_bytes()].concat();
        assert!(!fields::from_msgpack(&nan).expect("a map").is_plain(), "{field}");
    }
}

/// A decoder that had read no time as text once accepted an empty one as a time in the year 0.
#[test]
fn an_empty_time_is_none_whatever_was_read_before() {
    let mut decoder = Decoder::new(0);
    let mut refused = |time: &str| {
        let mut out = Decoded::default();
        let line = format!(r#"{{"type":"metric","time":{time},"source":"s","name":"n","value":1}}"#);
        decoder.json_one(0, line.as_bytes(), &mut out);
        assert_eq!(out.events.len() + out.bad.len(), 1);
        out.bad.len()
    };
    let times = ["1793491200000", "\"\"", "1793491200001", "\"2026-11-01T00:00:00Z\"", "\"\""];
    assert_eq!(times.map(&mut refused), [0, 1, 0, 0, 1]);
}
