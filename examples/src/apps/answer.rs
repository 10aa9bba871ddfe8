//! What the shop's HTTP servers answer: a status and JSON.

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use serde_json::{Value, json};

/// A whole answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// JSON with a status.
pub(crate) fn json(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(format!("{body}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

/// An error, said in one line.
pub(crate) fn error(status: StatusCode, why: impl std::fmt::Display) -> Answer {
    json(status, &json!({ "error": why.to_string() }))
}
