//! An authorizer that speaks gRPC: Envoy's `Authorization/Check`, one message each way.
//!
//! Knows not how it is reached.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use douane_proto::{
    facts::{Facts, RequestFacts},
    policy::{HeaderChange, Provider},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header, uri::PathAndQuery,
};
use prost::Message as _;

use super::{
    envoy::{
        Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
        OkHttpResponse, SocketAddress, Time,
        attribute_context::{HttpRequest, Peer, Request as Requested, TlsSession},
        check_response::HttpResponse,
    },
    question::{PARTIAL_BODY, Question, Said, Shown},
    road::Reply,
};
use crate::refusal::Spoken;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Length prefix of a gRPC message: a flag and four bytes.
const PREFIX: usize = 5;
const OK: i32 = 0;

/// The question as a request.
pub(super) fn question(
    provider: &Provider,
    question: Question<'_>,
    body: Option<Shown>,
) -> Result<Request<Bytes>, String> {
    let message = CheckRequest { attributes: Some(attributes(question, provider, body)) };
    let mut framed = BytesMut::with_capacity(PREFIX + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).map_err(|error| error.to_string())?);
    message.encode(&mut framed).map_err(|error| error.to_string())?;
    let mut request = Request::new(framed.freeze());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = PathAndQuery::from_static(CHECK).into();
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    if let Some(asked) = &question.facts.request {
        for name in ["traceparent", "tracestate", "b3"] {
            headers
                .extend(asked.headers.get(name).map(|value| (HeaderName::from_static(name), value.clone())));
        }
    }
    let host = HeaderValue::try_from(&provider.host).map_err(|error| error.to_string())?;
    headers.insert(header::HOST, host);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let limit = format!("{}m", provider.timeout.as_millis());
    headers.extend(
        HeaderValue::try_from(limit).ok().map(|limit| (HeaderName::from_static("grpc-timeout"), limit)),
    );
    Ok(request)
}

/// What its answer means.
pub(super) fn answer(reply: &Reply) -> Result<Said, String> {
    if reply.status != StatusCode::OK {
        return Err(format!("it answered with status {}", reply.status));
    }
    let code = |headers: &HeaderMap| headers.get("grpc-status").map(|code| code.as_bytes().to_vec());
    match code(&reply.trailers).or_else(|| code(&reply.headers)).as_deref() {
        Some(b"0") => {}
        Some(code) => return Err(format!("the call ended with status {}", String::from_utf8_lossy(code))),
        None => return Err("the call ended without a status".to_owned()),
    }
    let Some((&[0, a, b, c, d], message)) = reply.body.split_first_chunk::<PREFIX>() else {
        return Err("its answer is no message".to_owned());
    };
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return Err("its answer is not one whole message".to_owned());
    }
    let said = CheckResponse::decode(message).map_err(|error| format!("its answer: {error}"))?;
    let allows = said.status.as_ref().is_some_and(|status| status.code == OK);
    match said.http_response {
        Some(HttpResponse::DeniedResponse(how)) => Ok(Said::Deny(denied(how)?)),
        Some(HttpResponse::OkResponse(how)) if allows => allowed(how),
        None if allows => Ok(Said::Allow { request: Vec::new(), answer: Vec::new() }),
        _ if said.status.is_some() => Ok(Said::Deny(Spoken::default())),
        _ => Err("its answer has no status".to_owned()),
    }
}

fn attributes(
    Question { facts, local }: Question<'_>,
    provider: &Provider,
    body: Option<Shown>,
) -> AttributeContext {
    let peer = |ip: std::net::IpAddr, port: u16, principal: Option<String>| {
        let address = SocketAddress { address: ip.to_string(), port_value: port.into() };
        Peer {
            address: Some(Address { socket_address: Some(address) }),
            principal: principal.unwrap_or_default(),
        }
    };
    let Facts { peer: who, source, destination, sni, request, .. } = facts;
    AttributeContext {
        source: Some(peer(*source, 0, who.as_ref().map(ToString::to_string))),
        destination: Some(peer(destination.ip(), destination.port(), Some(local.to_string()))),
        request: Some(Requested {
            time: Some(now()),
            http: request.as_ref().map(|request| http_request(request, provider, body)),
        }),
        tls_session: sni.clone().map(|sni| TlsSession { sni }),
    }
}

fn http_request(request: &RequestFacts, provider: &Provider, body: Option<Shown>) -> HttpRequest {
    let RequestFacts { method, target, headers, .. } = request;
    let path = target.path_and_query();
    let mut told: std::collections::HashMap<String, String> = [
        (":method", method.as_str()),
        (":path", &path),
        (":authority", &target.authority),
        (":scheme", "http"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        told.insert(name.as_str().to_owned(), values.join(","));
    }
    let size = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut said = HttpRequest {
        id: told.get("x-request-id").cloned().unwrap_or_default(),
        method: method.to_string(),
        path,
        host: target.authority.clone(),
        scheme: "http".to_owned(),
        size: size.unwrap_or(-1),
        ..HttpRequest::default()
    };
    if let Some(Shown { bytes, is_partial }) = body {
        told.insert(PARTIAL_BODY.to_string(), is_partial.to_string());
        if provider.pack_as_bytes {
            said.raw_body = bytes.to_vec();
        } else {
            said.body = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    said.headers = told;
    said
}

fn allowed(how: OkHttpResponse) -> Result<Said, String> {
    if !(how.query_parameters_to_set.is_empty() && how.query_parameters_to_remove.is_empty()) {
        // A request that is decided must not change any more.
        return Err("it wants to change the query, which is not supported".to_owned());
    }
    let mut request = changes(how.headers)?;
    for name in how.headers_to_remove {
        // Pseudo headers are no names; Envoy ignores them as well.
        request.extend(HeaderName::try_from(name).ok().map(HeaderChange::Remove));
    }
    Ok(Said::Allow { request, answer: changes(how.response_headers_to_add)? })
}

fn denied(how: DeniedHttpResponse) -> Result<Spoken, String> {
    let code = how.status.map_or(0, |status| status.code);
    let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    Ok(Spoken::new(status.unwrap_or(StatusCode::FORBIDDEN), changes(how.headers)?, how.body.into()))
}

fn changes(options: Vec<HeaderValueOption>) -> Result<Vec<HeaderChange>, String> {
    let change = |option: HeaderValueOption| {
        let header = option.header.unwrap_or_default();
        let name = HeaderName::try_from(&header.key).map_err(|_| format!("{:?} is no header", header.key))?;
        let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
        let value =
            HeaderValue::try_from(value).map_err(|_| format!("the value of {name} is none of a header"))?;
        Ok(match option.append {
            Some(append) if append.value => HeaderChange::Append(name, value),
            _ => HeaderChange::Set(name, value),
        })
    };
    options.into_iter().map(change).collect()
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time {
        seconds: since.as_secs().try_into().unwrap_or_default(),
        nanos: since.subsec_nanos().try_into().unwrap_or_default(),
    }
}
