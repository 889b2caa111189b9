//! Decoding of a request's `Content-Encoding` within limits.
//!
//! Invariant: the decoded size is bounded whatever the body states. Nothing of a body that is too long is
//! kept. A body with a checksum is accepted only if the checksum is correct.

use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use std::borrow::Cow;
use std::io::Read;
use xxhash_rust::xxh64::xxh64;

/// The reason why a body cannot be decoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the encoding `{0}` is not known; send the body as it is, or with gzip or zstd")]
    Unknown(String),
    #[error("the body is not {encoding}: {cause}")]
    Broken { encoding: &'static str, cause: String },
    #[error("the body inflates to more than {max} bytes; send less at once")]
    TooLarge { max: usize },
}

/// Maximum window of a zstd frame in bytes; the format recommends that decoders support 8 MiB.
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// Decodes a body to at most `max` bytes. Returns `None` if the body has no encoding.
pub fn decode(encoding: Option<&str>, body: &[u8], max: usize) -> Result<Option<Vec<u8>>, DecodeError> {
    let stated = encoding.unwrap_or("").trim().to_ascii_lowercase();
    match stated.as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => bounded("gzip", flate2::read::MultiGzDecoder::new(body), max).map(Some),
        "zstd" => zstd(body, max).map(Some),
        other => Err(DecodeError::Unknown(other.chars().take(40).collect())),
    }
}

/// Decodes all frames of a body; tools may concatenate several, and put skippable ones between them.
fn zstd(mut body: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    let mut plain = Vec::new();
    while !body.is_empty() {
        let broken = |cause: &str| DecodeError::Broken { encoding: "zstd", cause: cause.into() };
        let mut decoder = match StreamingDecoder::new_with_max_window_size(&mut body, WINDOW_BYTES_MAX) {
            Ok(decoder) => decoder,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                body = body.get(length as usize..).ok_or_else(|| broken("it was cut"))?;
                continue;
            }
            Err(FrameDecoderError::WindowSizeTooBig { .. }) => {
                return Err(broken("its window is larger than 8 MiB"));
            }
            Err(_) => return Err(broken("it begins like another format, or was cut or damaged")),
        };
        let frame = bounded("zstd", &mut decoder, max - plain.len())?;
        // The library does not verify the checksum. The format stores the lower 32 bits of XXH64.
        let stated = decoder.decoder.get_checksum_from_data();
        if stated.is_some_and(|stated| stated != xxh64(&frame, 0) as u32) {
            return Err(broken("its checksum does not match"));
        }
        plain.extend(frame);
    }
    Ok(plain)
}

fn bounded(encoding: &'static str, reader: impl Read, max: usize) -> Result<Vec<u8>, DecodeError> {
    let mut plain = Vec::new();
    let read = reader.take(max as u64 + 1).read_to_end(&mut plain);
    read.map_err(|_| DecodeError::Broken { encoding, cause: "it was cut or damaged".into() })?;
    if plain.len() > max {
        return Err(DecodeError::TooLarge { max });
    }
    Ok(plain)
}

/// Clears the modification time in a gzip header. A client that compresses the same request again for a retry
/// then sends the same bytes.
pub fn without_time(body: &[u8]) -> Cow<'_, [u8]> {
    // RFC 1952: two bytes of magic number, the method, flags, and four bytes of time.
    const TIME: std::ops::Range<usize> = 4..8;
    if !body.starts_with(&[0x1f, 0x8b, 8]) || body.len() < TIME.end {
        return Cow::Borrowed(body);
    }
    let mut body = body.to_vec();
    body[TIME].fill(0);
    Cow::Owned(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).expect("memory");
        encoder.finish().expect("memory")
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn the_time_of_deflating_is_no_part_of_a_request() {
        let body = |time: u8| [&[0x1f, 0x8b, 8, 0, time, 0, 0, 0, 2, 255][..], b"deflated"].concat();
        assert_eq!(without_time(&body(1)), without_time(&body(9)));
        assert_eq!(without_time(b"[{}]"), &b"[{}]"[..]);
        assert_eq!(without_time(&[0x1f, 0x8b, 8]), &[0x1f, 0x8b, 8][..]);
    }

    #[test]
    fn encodings_are_decoded_within_bounds() {
        assert_eq!(decode(None, b"abc", 3), Ok(None));
        assert_eq!(decode(Some("gzip"), &gzip(b"abc"), 3), Ok(Some(b"abc".to_vec())));
        assert_eq!(decode(Some("zstd"), &zstd(b"abc"), 3), Ok(Some(b"abc".to_vec())));
        let joined = [zstd(b"abc"), zstd(b"def")].concat();
        assert_eq!(decode(Some("zstd"), &joined, 6), Ok(Some(b"abcdef".to_vec())), "both frames");
        let skipped = [b"\x50\x2a\x4d\x18\x04\0\0\0skip", &zstd(b"abc")[..]].concat();
        assert_eq!(decode(Some("zstd"), &skipped, 3), Ok(Some(b"abc".to_vec())));
        assert!(decode(Some("zstd"), &skipped[..10], 3).is_err());
        let bomb = gzip(&vec![0; 1 << 20]);
        assert_eq!(decode(Some("gzip"), &bomb, 1 << 10), Err(DecodeError::TooLarge { max: 1 << 10 }));
        assert_eq!(decode(Some("zstd"), &zstd(&[0; 9_999]), 99), Err(DecodeError::TooLarge { max: 99 }));
        for encoding in ["gzip", "zstd"] {
            assert!(matches!(decode(Some(encoding), b"nonsense", 99), Err(DecodeError::Broken { .. })));
        }
        assert_eq!(decode(Some("br"), b"", 9), Err(DecodeError::Unknown("br".into())));
    }

    #[test]
    fn a_damaged_zstd_body_is_refused() {
        // A single-segment frame of three bytes with a checksum; its only block is a raw block.
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0x24, 3, 0x19, 0, 0];
        let frame = |plain: &[u8]| [&head[..], plain, &(xxh64(b"abc", 0) as u32).to_le_bytes()].concat();
        assert_eq!(decode(Some("zstd"), &frame(b"abc"), 9), Ok(Some(b"abc".to_vec())));
        let said = decode(Some("zstd"), &frame(b"abd"), 9).expect_err("damaged").to_string();
        assert!(said.contains("checksum"), "{said}");
    }
}
