//! `RequestAuthentication` of `security.istio.io`: whose tokens count, and where a request carries them.
//!
//! Knows not how a token is verified ([`crate::authentication`]), nor how key sets are fetched (`ca`): a rule says where
//! its keys come from, and whoever has them fills them in.

use std::time::Duration;

use http::{HeaderName, Uri};

use super::{
    attachment::{Attachment, filled_text},
    flaws::{Flaws, Part},
    metadata::Metadata,
};
use crate::{
    wire,
    yaml::{Cursor, Flaw, Located, bounded},
};

/// What an issuer tells of itself, after its name (OpenID Connect Discovery 1.0, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// A fetch that takes longer is given up even where a rule waits longer.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Headers that frame a message or name a mesh's peer; no claim may take their place.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];
const RESERVED_PREFIXES: &[&str] = &["x-douane-", "x-envoy-"];

/// A `RequestAuthentication`.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestAuthentication {
    /// Whom it governs.
    pub attachment: Attachment,
    /// Whose tokens count.
    pub rules: Vec<JwtRule>,
    /// What cannot be read: any token is then refused.
    pub unreadable: Vec<String>,
    /// What works otherwise than its author may expect.
    pub notes: Vec<Located<String>>,
}

/// An entry of `jwtRules`.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRule {
    /// As a sidecar receives it; without keys where they are to be fetched.
    pub rule: wire::JwtRule,
    /// Where its keys come from.
    pub keys: KeySource,
    /// How long a fetch may take, where the rule says so.
    pub timeout: Option<Duration>,
    /// Its line.
    pub line: u32,
}

/// Where the keys of a rule come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySource {
    /// They stand in the rule.
    Inline,
    /// A JSON Web Key Set at this URL.
    Set(String),
    /// The key set that the issuer's OpenID configuration names, which stands at this URL.
    Configuration(String),
}

impl RequestAuthentication {
    /// Reads what follows the metadata.
    pub(super) fn read(spec: &Cursor<'_>, metadata: &Metadata, flaws: &Flaws) -> Self {
        let part = Part::open(spec, flaws);
        let attachment = Attachment::read(&part, &metadata.namespace);
        let mut rules = Vec::new();
        for at in part.list("jwtRules") {
            let (rule, unreadable) = jwt_rule(&at, flaws);
            rules.push(rule);
            for key in unreadable {
                part.doubt(&format!("{}.{key}", at.name()));
            }
        }
        let notes = attachment.notes();
        Self { attachment, rules, unreadable: part.end(), notes }
    }

    /// The message that carries it, with the keys that are known.
    #[must_use]
    pub fn to_wire(&self, metadata: &Metadata) -> wire::RequestAuthentication {
        wire::RequestAuthentication {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            rules: self.rules.iter().map(|rule| rule.rule.clone()).collect(),
            unreadable: self.unreadable.clone(),
            requires: Vec::new(),
        }
    }
}

fn jwt_rule(at: &Cursor<'_>, flaws: &Flaws) -> (JwtRule, Vec<String>) {
    let part = Part::open(at, flaws);
    let issuer: String = part.read("issuer", Cursor::text);
    let (jwks, keys) = read_keys(&part, at, &issuer);
    let timeout = part.read("timeout", |at| timeout(at).map(Some));
    let rule = wire::JwtRule {
        issuer,
        audiences: part.read("audiences", filled_texts),
        jwks,
        from_headers: part.list("fromHeaders").iter().filter_map(|at| token_header(&part, at)).collect(),
        from_params: part.read("fromParams", filled_texts),
        from_cookies: part.read("fromCookies", filled_texts),
        forward_original_token: part.read("forwardOriginalToken", Cursor::boolean),
        output_payload_to_header: part.read("outputPayloadToHeader", |at| {
            if at.text().is_ok_and(|name| name.is_empty()) { Ok(String::new()) } else { output_header(at) }
        }),
        output_claim_to_headers: part
            .list("outputClaimToHeaders")
            .iter()
            .filter_map(|at| claim_header(&part, at))
            .collect(),
        space_delimited_claims: part.read("spaceDelimitedClaims", filled_texts),
    };
    (JwtRule { rule, keys, timeout, line: at.line() }, part.end())
}

fn read_keys(part: &Part<'_, '_>, at: &Cursor<'_>, issuer: &str) -> (String, KeySource) {
    let inline = part.optional("jwks").filter(|at| !at.text().is_ok_and(|text| text.is_empty()));
    // Istio's API takes its field's older spelling as well.
    let uri = part.optional("jwksUri").or_else(|| part.optional("jwks_uri"));
    let uri = uri.filter(|at| !at.text().is_ok_and(|text| text.is_empty()));
    match (inline, uri) {
        (Some(_), Some(uri)) => {
            let what = "jwks and jwksUri cannot stand together";
            part.refuse("jwksUri", uri.flaw(what, "keep the one that is meant"));
            (String::new(), KeySource::Inline)
        }
        (Some(inline), None) => (part.kept("jwks", key_set(&inline)).unwrap_or_default(), KeySource::Inline),
        (None, Some(uri)) => match part.kept("jwksUri", uri.text().and_then(|text| url(&uri, text))) {
            Some(url) => (String::new(), KeySource::Set(url)),
            None => (String::new(), KeySource::Inline),
        },
        (None, None) if part.is_unreadable("jwks") || part.is_unreadable("jwksUri") => {
            (String::new(), KeySource::Inline)
        }
        (None, None) => {
            let configuration = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
            let found = url(at, configuration).map_err(|flaw| Flaw {
                what: format!("{} has neither jwks nor jwksUri, and its issuer is no URL", at.name()),
                mend: "add the keys, or where they are".to_owned(),
                ..flaw
            });
            match part.kept("jwksUri", found) {
                Some(url) => (String::new(), KeySource::Configuration(url)),
                None => (String::new(), KeySource::Inline),
            }
        }
    }
}

// Whether the keys can be used is seen where tokens are verified.
fn key_set(at: &Cursor<'_>) -> Result<String, Flaw> {
    let text = at.text()?;
    let set: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    match set.as_ref().and_then(|set| set.get("keys")).is_some_and(serde_json::Value::is_array) {
        true => Ok(text),
        false => Err(at.flaw(
            format!("{} is no JSON Web Key Set", at.name()),
            "write an object with a list `keys`, as the issuer publishes it",
        )),
    }
}

fn url(at: &Cursor<'_>, text: String) -> Result<String, Flaw> {
    let is_url = text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri
                .authority()
                .is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
    });
    if is_url {
        return Ok(text);
    }
    Err(at.flaw(
        format!("{} is {:?}, from which no keys can be fetched", at.name(), bounded(&text)),
        "write a URL that begins with https:// (or http://) and names a host",
    ))
}

fn filled_texts(at: &Cursor<'_>) -> Result<Vec<String>, Flaw> {
    at.list()?.iter().map(filled_text).collect()
}

fn token_header(rule: &Part<'_, '_>, at: &Cursor<'_>) -> Option<wire::TokenHeader> {
    let part = Part::open(at, rule.flaws());
    let name = part.required_as("name", header_name);
    let prefix = part.read("prefix", Cursor::text);
    if !part.end().is_empty() {
        rule.doubt("fromHeaders");
    }
    Some(wire::TokenHeader { name: name?, prefix })
}

fn claim_header(rule: &Part<'_, '_>, at: &Cursor<'_>) -> Option<wire::ClaimHeader> {
    let part = Part::open(at, rule.flaws());
    let header = part.required_as("header", output_header);
    let claim = part.required_as("claim", filled_text);
    if !part.end().is_empty() {
        rule.doubt("outputClaimToHeaders");
    }
    Some(wire::ClaimHeader { header: header?, claim: claim? })
}

fn header_name(at: &Cursor<'_>) -> Result<String, Flaw> {
    let text = filled_text(at)?;
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(_) => Err(at.flaw(
            format!("{} is {:?}, which is no header name", at.name(), bounded(&text)),
            "write letters, digits and '-'",
        )),
    }
}

// Istio takes letters, digits, '-' and '_' for headers that it writes.
fn output_header(at: &Cursor<'_>) -> Result<String, Flaw> {
    let text = header_name(at)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !text.bytes().all(plain) {
        let what = format!("{} is {:?}, which claims are not written to", at.name(), bounded(&text));
        return Err(at.flaw(what, "write letters, digits, '-' and '_'"));
    }
    let name = text.to_ascii_lowercase();
    if RESERVED.contains(&&*name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        let what = format!("{} is {name:?}, which the mesh writes itself", at.name());
        return Err(at.flaw(what, "write a name of your own, such as x-jwt-claims"));
    }
    Ok(text)
}

// As Go writes durations: `5s`, `1m30s`, `500ms`.
fn timeout(at: &Cursor<'_>) -> Result<Duration, Flaw> {
    let text = at.text()?;
    let found = duration(&text).filter(|timeout| !timeout.is_zero());
    found.map(|timeout| timeout.min(MAX_TIMEOUT)).ok_or_else(|| {
        at.flaw(format!("{} is {:?}, which is no time", at.name(), bounded(&text)), "write one such as 5s")
    })
}

fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit = tail.find(|char: char| char.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit)?;
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    Some(total).filter(|_| !text.is_empty())
}
