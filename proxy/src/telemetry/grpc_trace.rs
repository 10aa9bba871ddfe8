//! `grpc-trace-bin`, the binary trace header of OpenCensus and old gRPC: read where neither W3C nor B3 came, and written
//! where it came.
//!
//! Version 0: fields of a number and a value, in order: 0 is the trace's id (16 bytes), 1 the span's (8), 2 the options
//! (1, whose lowest bit says sampled). What follows an unknown number is not for us. In Base64, as all that ends in
//! `-bin`; several values may stand in one header, joined by commas (gRPC over HTTP/2), and then none counts.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName};

use crate::telemetry::header::{Named, only, replace};

/// The parent that the header names.
pub(crate) fn read(headers: &HeaderMap) -> Option<Named> {
    let text = only(headers, &NAME)?;
    if text.len() > LONGEST {
        return None;
    }
    let bytes = BASE64.decode(text).ok()?;
    let (version, mut rest) = bytes.split_first()?;
    if *version != 0 {
        return None;
    }
    let (mut trace_id, mut span_id, mut options) = (None, None, 0);
    while let Some((field, value)) = rest.split_first() {
        rest = match field {
            0 => {
                let (id, rest) = value.split_first_chunk::<16>()?;
                trace_id = Some(u128::from_be_bytes(*id)).filter(|id| *id != 0);
                rest
            }
            1 => {
                let (id, rest) = value.split_first_chunk::<8>()?;
                span_id = Some(u64::from_be_bytes(*id)).filter(|id| *id != 0);
                rest
            }
            2 => {
                let (flags, rest) = value.split_first()?;
                options = *flags;
                rest
            }
            _ => break,
        };
    }
    let sampled = Some(options & SAMPLED != 0);
    Some(Named { trace_id: trace_id?, span_id: span_id?, parent_id: None, sampled, random: false })
}

/// Replaces the header where there is one.
pub(crate) fn write(span: Named, headers: &mut HeaderMap) {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&span.trace_id.to_be_bytes());
    bytes.push(1);
    bytes.extend_from_slice(&span.span_id.to_be_bytes());
    bytes.extend_from_slice(&[2, if span.sampled == Some(true) { SAMPLED } else { 0 }]);
    replace(headers, NAME, BASE64.encode(bytes));
}

/// The header's name.
pub(crate) const NAME: HeaderName = HeaderName::from_static("grpc-trace-bin");

// Written without padding, read with it or without (gRPC over HTTP/2, "Binary-Header").
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const SAMPLED: u8 = 1;
// Bytes: a version, three fields with their numbers.
const LENGTH: usize = 1 + 17 + 9 + 2;
// Characters: what we read has 40, and later versions may add to it.
const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read_of(bytes: &[u8]) -> Option<Named> {
        let value = HeaderValue::try_from(BASE64.encode(bytes)).unwrap();
        read(&HeaderMap::from_iter([(NAME, value)]))
    }

    // The example of OpenCensus' specification: trace 40..4f, span 61..68, sampled.
    fn example() -> Vec<u8> {
        let mut bytes = vec![0, 0];
        bytes.extend(0x40..0x50);
        bytes.push(1);
        bytes.extend(0x61..0x69);
        bytes.extend([2, 1]);
        bytes
    }

    #[test]
    fn the_specifications_example_is_understood_with_padding_and_without() {
        let parent = read_of(&example()).unwrap();
        assert_eq!(parent.trace_id, 0x4041_4243_4445_4647_4849_4a4b_4c4d_4e4f);
        assert_eq!((parent.span_id, parent.sampled), (0x6162_6364_6566_6768, Some(true)));

        let padded = HeaderValue::from_static("AABAQUJDREVGR0hJSktMTU5PAWFiY2RlZmdoAgE=");
        assert_eq!(read(&HeaderMap::from_iter([(NAME, padded)])), Some(parent));
    }

    #[test]
    fn what_is_cut_of_another_version_or_without_ids_is_none() {
        let whole = example();
        for length in 0..27 {
            assert_eq!(read_of(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(read_of(&whole[..27]).unwrap().sampled, Some(false), "options may be left out");
        assert_eq!(read_of(&[&[1][..], &whole[1..]].concat()), None);
        let mut zero = whole.clone();
        zero[2..18].fill(0);
        assert_eq!(read_of(&zero), None);
        assert_eq!(read(&HeaderMap::from_iter([(NAME, HeaderValue::from_static("!"))])), None);
        let mut more = whole.clone();
        more.extend([9, 1, 2, 3]);
        assert_eq!(read_of(&more), read_of(&whole), "what the future adds is passed over");
    }

    #[test]
    fn what_is_written_is_read() {
        let span = Named { trace_id: 7, span_id: 9, parent_id: None, sampled: Some(true), random: false };
        let mut headers = HeaderMap::new();

        write(span, &mut headers);

        assert_eq!(read(&headers), Some(span));
    }
}
