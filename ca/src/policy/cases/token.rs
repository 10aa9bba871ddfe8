//! The tokens of a request: minted as the case says, and put where it says.

use douane_proto::yaml::{Node, Value};
use serde_json::Map;

use super::fields::{Fields, wrong};
use crate::policy::{
    asked::Head,
    issuer::{Issuer, Sort},
    wrong::Wrong,
};

const SORTS: &[(&str, Sort)] = &[
    ("valid", Sort::Valid),
    ("expired", Sort::Expired),
    ("not_yet_valid", Sort::NotYetValid),
    ("bad_signature", Sort::BadSignature),
    ("unknown_kid", Sort::UnknownKey),
    ("malformed", Sort::Malformed),
    ("alg_none", Sort::NoAlgorithm),
    ("alg_hs256_with_public_key", Sort::SymmetricWithPublicKey),
];
/// Where tokens are by default (RFC 6750).
const AUTHORIZATION: &str = "authorization";
/// See [`AUTHORIZATION`].
const BEARER: &str = "Bearer ";

enum Place {
    Header { name: String, prefix: String },
    Param(String),
    Cookie(String),
}

/// Puts every token that `jwt` (one, or a list) describes into `head`.
pub(super) fn put_all(jwt: &Node, head: &mut Head, issuer: &Issuer) -> Result<(), Wrong> {
    match &jwt.value {
        Value::List(items) => items.iter().try_for_each(|item| put(item, head, issuer)),
        _ => put(jwt, head, issuer),
    }
}

fn put(node: &Node, head: &mut Head, issuer: &Issuer) -> Result<(), Wrong> {
    let fields = Fields::of(node, "jwt")?;
    let sort = fields.choice("state", SORTS)?.unwrap_or(Sort::Valid);
    let raw = fields.text("raw")?;
    let claims = match fields.get("claims").map(to_json) {
        None => Map::new(),
        Some(serde_json::Value::Object(claims)) => claims,
        Some(_) => return Err(wrong(node, "claims must be a map")),
    };
    let place = match fields.get("location") {
        Some(node) => place(node)?,
        None => Place::Header { name: AUTHORIZATION.to_owned(), prefix: BEARER.to_owned() },
    };
    fields.end()?;
    let token = match raw {
        Some(raw) => raw,
        None => issuer.mint(sort, claims).map_err(|error| wrong(node, error.to_string()))?,
    };
    place.take(&token, head);
    Ok(())
}

fn place(node: &Node) -> Result<Place, Wrong> {
    let fields = Fields::of(node, "location")?;
    let (header, prefix) = (fields.text("header")?, fields.text("prefix")?);
    let (param, cookie) = (fields.text("param")?, fields.text("cookie")?);
    fields.end()?;
    match (header, param, cookie) {
        (None, Some(param), None) => Ok(Place::Param(param)),
        (None, None, Some(cookie)) => Ok(Place::Cookie(cookie)),
        (header, None, None) => {
            let name = header.unwrap_or_else(|| AUTHORIZATION.to_owned());
            // Who names Authorization and no more means its usual form.
            let usual = if name.eq_ignore_ascii_case(AUTHORIZATION) { BEARER } else { "" };
            Ok(Place::Header { prefix: prefix.unwrap_or_else(|| usual.to_owned()), name })
        }
        _ => Err(wrong(node, "location is one of header (with prefix), param or cookie")),
    }
}

impl Place {
    fn take(self, token: &str, head: &mut Head) {
        match self {
            Self::Header { name, prefix } => head.headers.push((name, format!("{prefix}{token}"))),
            Self::Param(name) => {
                let (target, fragment) = match head.target.split_once('#') {
                    Some((target, fragment)) => (target, format!("#{fragment}")),
                    None => (head.target.as_str(), String::new()),
                };
                let mark = if target.contains('?') { '&' } else { '?' };
                head.target = format!("{target}{mark}{name}={}{fragment}", in_query(token));
            }
            Self::Cookie(name) => {
                let cookie = format!("{name}={token}");
                let known = head.headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("cookie"));
                match known {
                    Some((_, value)) => *value = format!("{value}; {cookie}"),
                    None => head.headers.push(("cookie".to_owned(), cookie)),
                }
            }
        }
    }
}

// A token needs no escapes; what stands for one may.
fn in_query(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// As JSON writes it.
fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), to_json(&entry.node)))
            .collect::<Map<_, _>>()
            .into(),
    }
}
