//! What a collector's answer means for the spans that it was sent, by the OTLP specification. Pure.

use std::time::{Duration, SystemTime};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, general_purpose::PAD},
};
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use prost_types::Any;
use tonic::Code;

use crate::config::export::percent_decoded;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken.
    Taken(Taken),
    /// It may be sent again.
    Again {
        /// What went wrong.
        why: String,
        /// Not before this.
        after: Option<Duration>,
    },
    /// To send it again would be of no use.
    Refused(String),
}

/// What a collector says of a batch that it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Spans that it did not take.
    pub(super) rejected: usize,
    /// Its words on that; also without a rejected span, as a warning.
    pub(super) complaint: String,
}

/// `google.rpc.Status`, as gRPC carries it in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// OTLP over HTTP: the status decides, and what the body cannot say is not said.
pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Answer {
    if status.is_success() {
        return Answer::Taken(taken(body));
    }
    let why = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!(
                "the collector answers {status}: does OTEL_EXPORTER_OTLP_HEADERS hold what it wants to see?"
            )
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            format!("the collector answers {status}: is the path of the endpoint its own?")
        }
        _ => format!("the collector answers {status}"),
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Answer::Again { why, after: retry_after(headers, now) },
        _ => Answer::Refused(why),
    }
}

/// OTLP over gRPC: `ends` are the trailers, or the headers of an answer that has nothing else. Read here and not by
/// `tonic::Status`, which panics at details that are not base64.
pub(super) fn of_grpc(http: StatusCode, ends: &HeaderMap, body: &[u8]) -> Answer {
    let text = |name: &str| ends.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some(status) = ends.get("grpc-status") else {
        return Answer::Refused(format!(
            "what answers does not speak gRPC (HTTP {http}); for OTLP over HTTP set \
             OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        ));
    };
    let code = Code::from_bytes(status.as_bytes());
    let told = percent_decoded(&String::from_utf8_lossy(text("grpc-message"))).unwrap_or_default();
    let told = bounded(&String::from_utf8_lossy(&told));
    let why = match code {
        Code::Ok => return Answer::Taken(taken(body.get(GRPC_HEAD..).unwrap_or_default())),
        Code::Unimplemented => format!("the collector takes no spans ({told})"),
        Code::Unauthenticated | Code::PermissionDenied => {
            format!(
                "the collector refuses ({told}): does OTEL_EXPORTER_OTLP_HEADERS hold what it wants to see?"
            )
        }
        code => format!("the collector answers {code:?} ({told})"),
    };
    let after = retry_info(text("grpc-status-details-bin"));
    match code {
        // Without a time there is no hope of room (OTLP 1.x, "OTLP/gRPC throttling").
        Code::ResourceExhausted if after.is_none() => Answer::Refused(why),
        Code::ResourceExhausted
        | Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss => Answer::Again { why, after },
        _ => Answer::Refused(why),
    }
}

/// A gRPC message: whether it is compressed, its length, and itself.
pub(super) fn framed(message: &[u8], is_gzip: bool) -> Option<Vec<u8>> {
    let length = u32::try_from(message.len()).ok()?;
    let mut frame = Vec::with_capacity(GRPC_HEAD + message.len());
    frame.push(u8::from(is_gzip));
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    Some(frame)
}

// What is no answer of this kind says nothing: the batch was taken all the same.
fn taken(body: &[u8]) -> Taken {
    let said = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
    let ExportTracePartialSuccess { rejected_spans, error_message } = said.unwrap_or_default();
    Taken { rejected: usize::try_from(rejected_spans).unwrap_or(0), complaint: bounded(&error_message) }
}

fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let details = BASE64.decode(details).ok()?;
    let status = RpcStatus::decode(details.as_slice()).ok()?;
    let told = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(told.value.as_slice()).ok()?.retry_delay?;
    Duration::try_from(delay).ok()
}

// A collector's words on our log are few.
fn bounded(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned()
}

// gRPC pads or does not, as it likes.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent));
// Bytes: a flag and a length.
const GRPC_HEAD: usize = 5;
const LONGEST: usize = 200;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use tonic::{Status, metadata::MetadataMap};

    use super::*;

    fn partial(rejected_spans: i64, error_message: &str) -> Vec<u8> {
        let partial_success =
            Some(ExportTracePartialSuccess { rejected_spans, error_message: error_message.to_owned() });
        ExportTraceServiceResponse { partial_success }.encode_to_vec()
    }

    fn http(status: u16, retry_after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(told) = retry_after {
            headers.insert(RETRY_AFTER, told.parse().unwrap());
        }
        of_http(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            b"",
            UNIX_EPOCH + Duration::from_secs(784_111_770),
        )
    }

    fn grpc(code: Code, details: Option<Duration>) -> Answer {
        let told = details.map(|delay| {
            let retry_delay = Some(prost_types::Duration::try_from(delay).unwrap());
            let value = RetryInfo { retry_delay }.encode_to_vec();
            let any = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value };
            RpcStatus { details: vec![any] }.encode_to_vec()
        });
        let status = Status::with_details_and_metadata(
            code,
            "told",
            told.unwrap_or_default().into(),
            MetadataMap::new(),
        );
        let mut ends = HeaderMap::new();
        status.add_header(&mut ends).unwrap();
        of_grpc(StatusCode::OK, &ends, b"")
    }

    fn after(answer: &Answer) -> Option<Option<Duration>> {
        match answer {
            Answer::Again { after, .. } => Some(*after),
            _ => None,
        }
    }

    #[test]
    fn over_http_four_answers_ask_for_another_attempt_and_two_forms_say_when() {
        for status in [429, 502, 503, 504] {
            assert_eq!(after(&http(status, None)), Some(None), "{status}");
            assert_eq!(after(&http(status, Some(" 7 "))), Some(Some(Duration::from_secs(7))));
        }
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(after(&http(503, date)), Some(Some(Duration::from_secs(7))));
        assert_eq!(after(&http(503, Some("soon"))), Some(None));
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert!(matches!(http(status, Some("7")), Answer::Refused(_)), "{status}");
        }
    }

    #[test]
    fn over_grpc_some_codes_ask_for_another_attempt_and_no_room_only_with_a_time() {
        use Code as C;
        for code in
            [C::Cancelled, C::DeadlineExceeded, C::Aborted, C::OutOfRange, C::Unavailable, C::DataLoss]
        {
            assert_eq!(after(&grpc(code, None)), Some(None), "{code:?}");
        }
        let soon = Duration::from_millis(1500);
        assert_eq!(after(&grpc(Code::ResourceExhausted, Some(soon))), Some(Some(soon)));
        assert_eq!(after(&grpc(Code::Unavailable, Some(soon))), Some(Some(soon)));
        for code in [
            C::ResourceExhausted,
            C::Unknown,
            C::InvalidArgument,
            C::NotFound,
            C::AlreadyExists,
            C::PermissionDenied,
            C::FailedPrecondition,
            C::Unimplemented,
            C::Internal,
            C::Unauthenticated,
        ] {
            assert!(matches!(grpc(code, None), Answer::Refused(_)), "{code:?}");
        }
        let web = of_grpc(StatusCode::NOT_FOUND, &HeaderMap::new(), b"<html>");
        assert!(matches!(&web, Answer::Refused(why) if why.contains("http/protobuf")), "{web:?}");
    }

    #[test]
    fn spans_that_a_collector_takes_in_part_are_counted_over_both() {
        let said = partial(3, "too old");
        let expected = Answer::Taken(Taken { rejected: 3, complaint: "too old".to_owned() });
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), &said, UNIX_EPOCH), expected);
        let ends = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        assert_eq!(of_grpc(StatusCode::OK, &ends, &framed(&said, false).unwrap()), expected);
        let nothing = Answer::Taken(Taken::default());
        assert_eq!(of_http(StatusCode::ACCEPTED, &HeaderMap::new(), b"<html>", UNIX_EPOCH), nothing);
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), &partial(-1, ""), UNIX_EPOCH), nothing);
    }

    proptest! {
        #[test]
        fn no_answer_panics_and_none_is_told_at_length(status in 100_u16..600, text in "\\PC*", body: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(RETRY_AFTER, value.clone());
                headers.insert("grpc-status", HeaderValue::from_static("14"));
                headers.insert("grpc-message", value.clone());
                headers.insert("grpc-status-details-bin", value);
            }
            let status = StatusCode::from_u16(status).unwrap();
            for answer in [of_http(status, &headers, &body, UNIX_EPOCH), of_grpc(status, &headers, &body)] {
                match answer {
                    Answer::Taken(taken) => prop_assert!(taken.complaint.len() <= LONGEST),
                    Answer::Again { why, .. } | Answer::Refused(why) => prop_assert!(why.len() < 2 * LONGEST),
                }
            }
        }
    }
}
