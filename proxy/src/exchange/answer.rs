//! A refusal as the answer to an HTTP request. It tells a stranger nothing but the status; what an external authorizer says
//! to the client is passed on.

use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::{
    authz::apply,
    exchange::{
        body::Body,
        headers::Length,
        ledger::{SharedAccess, note},
    },
    refusal::Refusal,
};

/// gRPC status codes (grpc/doc/statuscodes.md).
const PERMISSION_DENIED: u16 = 7;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

/// Refuses a request: the record says why, the answer does not. gRPC callers get a gRPC status.
#[must_use]
pub fn refuse(access: SharedAccess, refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let mut borrowed = access.borrow_mut();
    let record = &mut borrowed.record;
    note(record, refusal);
    let spoken = match refusal {
        Refusal::AuthorizerDenied { how, .. } => Some(how),
        _ => None,
    };
    if let Some(how) = spoken {
        apply(response.headers_mut(), &how.headers);
    }
    // What an authorizer says in HTTP makes no success of it, nor a page.
    if record.grpc {
        let code = grpc_status(refusal);
        record.grpc_status = Some(code);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response.headers_mut().insert("grpc-status", code.into());
    } else {
        *response.status_mut() = refusal.status();
        let body = spoken.map(|how| how.body.clone()).unwrap_or_default();
        // A body of nothing, not of unknown length.
        response.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
        // RFC 9110 9.3.2 and 15.4.5: only its length is told.
        if record.method != Some(Method::HEAD) && refusal.status() != StatusCode::NOT_MODIFIED {
            *response.body_mut() = Body::whole(body);
        }
    }
    if refusal.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if refusal.status() == StatusCode::UNAUTHORIZED {
        let challenge = challenge(record.authority.as_deref().unwrap_or_default());
        response.headers_mut().extend(challenge.map(|value| (header::WWW_AUTHENTICATE, value)));
    }
    // Nobody heard the answer to a client that has gone.
    record.status = (!matches!(refusal, Refusal::ClientGone)).then(|| response.status().as_u16());
    borrowed.hands_over();
    drop(borrowed);
    // Ours, and whole as soon as it is begun.
    response.map(|body| body.ending(access, Length(Some(0))))
}

/// Must the connection that brought it be closed? What follows a request of doubtful length cannot be told apart.
#[must_use]
pub fn closes_connection(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::BadRequest(bad) if bad.hides_the_end())
}

fn grpc_status(refusal: &Refusal) -> u16 {
    match refusal.status() {
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        StatusCode::BAD_REQUEST => INTERNAL,
        StatusCode::NOT_FOUND => UNIMPLEMENTED,
        _ => UNAVAILABLE,
    }
}

// RFC 6750 3. Of the authority's characters a quote and a backslash would need escapes; they are not permitted in one.
fn challenge(authority: &str) -> Option<HeaderValue> {
    let realm: String = authority.chars().filter(|c| !['"', '\\'].contains(c)).collect();
    HeaderValue::try_from(format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")).ok()
}
