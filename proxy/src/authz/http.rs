//! An authorizer that speaks HTTP: it is sent the request's own head, and 200 allows.
//!
//! Knows not how it is reached. What it sees and what is taken from it is Envoy's: Host, method, path, Content-Length and
//! Authorization always, other headers by name; an answer of its own fault (5xx) is none.

use bytes::Bytes;
use douane_proto::{
    facts::Facts,
    policy::{HeaderChange, HttpCheck},
    request::strip_hop_by_hop,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version, header};

use super::{
    change::{chosen, is_listed},
    question::{PARTIAL_BODY, Said, Shown},
    road::Reply,
};
use crate::refusal::Spoken;

/// Carry the trace on; not the request's.
const TRACE: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("b3"),
];
/// By which an authorizer removes headers from the request (Envoy's).
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// The question as a request.
pub(super) fn question(
    check: &HttpCheck,
    facts: &Facts,
    body: Option<Shown>,
) -> Result<Request<Bytes>, String> {
    let asked = facts.request.as_ref().ok_or("an opaque stream has nothing to show to it")?;
    let path = match &*asked.target.path {
        "*" => format!("{}/", check.path_prefix.trim_end_matches('/')),
        _ => format!("{}{}", check.path_prefix, asked.target.path_and_query()),
    };
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = path.parse().map_err(|_| "with its prefix the path is none any more".to_owned())?;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    for (name, value) in &asked.headers {
        if *name == header::AUTHORIZATION || TRACE.contains(name) || is_listed(&check.include_headers, name) {
            headers.append(name, value.clone());
        }
    }
    // The framing is this hop's.
    let _ = strip_hop_by_hop(headers);
    for (name, value) in &check.additional_headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err(format!("{name:?} of its settings, or its value, is no header"));
        };
        headers.insert(name, value);
    }
    if let Some(Shown { bytes, is_partial }) = body {
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(if is_partial { "true" } else { "false" }));
        *request.body_mut() = bytes;
    }
    let length = request.body().len().into();
    request.headers_mut().insert(header::CONTENT_LENGTH, length);
    let host = HeaderValue::try_from(&asked.target.authority).map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

/// What its answer means.
pub(super) fn answer(reply: Reply, check: &HttpCheck) -> Result<Said, String> {
    let Reply { status, mut headers, body, .. } = reply;
    if status.is_server_error() {
        return Err(format!("it answered with status {status}"));
    }
    if status == StatusCode::OK {
        let mut request = chosen(&headers, |name| is_listed(&check.upstream_on_allow, name));
        request.extend(removed(&headers));
        return Ok(Said::Allow {
            request,
            answer: chosen(&headers, |name| is_listed(&check.downstream_on_allow, name)),
        });
    }
    // Whatever it listed there that is one hop's does not matter: those are removed by name.
    if strip_hop_by_hop(&mut headers).is_err() {
        headers.remove(header::CONNECTION);
        let _ = strip_hop_by_hop(&mut headers);
    }
    headers.remove(header::CONTENT_LENGTH);
    let passed = chosen(&headers, |name| {
        check.downstream_on_deny.is_empty() || is_listed(&check.downstream_on_deny, name)
    });
    Ok(Said::Deny(Spoken::new(status, passed, body)))
}

fn removed(headers: &HeaderMap) -> impl Iterator<Item = HeaderChange> {
    let names = headers.get_all(TO_REMOVE).iter().filter_map(|value| value.to_str().ok());
    names
        .flat_map(|names| names.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok().map(HeaderChange::Remove))
}
