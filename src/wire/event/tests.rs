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
