//! The headers by which a rule tells the application what a token says. They are ours: a client's are removed in any
//! case, also where there is no token.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::{jwt::Claims, request::is_ours, wire};

/// Headers that say where a message ends, whom it is for, or what belongs to one hop.
const NEVER: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The headers of one rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Output {
    payload: Option<HeaderName>,
    claims: Vec<(HeaderName, Vec<String>)>,
}

impl Output {
    /// Reads them; `complain` hears which cannot be set.
    pub(super) fn compile(rule: &wire::JwtRule, mut complain: impl FnMut(String)) -> Self {
        let mut name = |text: &str| match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if !is_ours(&name) && !NEVER.contains(&name.as_str()) => Some(name),
            _ => {
                complain(format!("{text:?} is no header that may be set: it is not"));
                None
            }
        };
        let payload = Some(rule.output_payload_to_header.as_str()).filter(|text| !text.is_empty());
        Self {
            payload: payload.and_then(&mut name),
            claims: rule
                .output_claim_to_headers
                .iter()
                .filter_map(|output| Some((name(&output.header)?, path(&output.claim))))
                .collect(),
        }
    }

    /// All of them.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.payload.iter().chain(self.claims.iter().map(|(name, _)| name))
    }

    /// Sets them, unless an earlier token did.
    pub(super) fn write(&self, token: &str, claims: &Claims, headers: &mut HeaderMap) {
        // The middle of a token that verified is base64url without padding, as the header wants it.
        let payload = token.split('.').nth(1).map(str::to_owned);
        let payload = self.payload.iter().map(|name| (name, payload.clone()));
        let claims = self.claims.iter().map(|(name, path)| {
            let path = path.iter().map(String::as_str);
            (name, claims.at(path).and_then(text))
        });
        for (name, text) in payload.chain(claims) {
            let value = text.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok());
            if let Some(value) = value.filter(|value| !value.is_empty() && !headers.contains_key(name)) {
                headers.insert(name, value);
            }
        }
    }
}

/// Removes what only rules may say, in any spelling that an application might take for it.
pub(super) fn clear(owned: &[HeaderName], headers: &mut HeaderMap) {
    if owned.is_empty() {
        return;
    }
    let is_owned = |name: &&HeaderName| owned.iter().any(|owned| looks_like(name.as_str(), owned.as_str()));
    let claimed: Vec<HeaderName> = headers.keys().filter(is_owned).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
}

// Some applications see `_` and `-` as one (CGI).
fn looks_like(name: &str, owned: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.len() == owned.len() && name.bytes().map(dashed).eq(owned.bytes().map(dashed))
}

// Dots lead into nested claims.
fn path(claim: &str) -> Vec<String> {
    claim.split('.').map(str::to_owned).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
