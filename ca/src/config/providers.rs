//! `extensionProviders`: the external authorizers that CUSTOM policies name, in the form of Istio's mesh configuration.
//!
//! Knows not how one is asked (the sidecar does that).

use std::{collections::BTreeMap, time::Duration};

use douane_proto::policy::{HttpCheck, Provider, ProviderProtocol};
use http::StatusCode;
use serde::Deserialize;

/// A longer wait holds a request longer than its client does; sidecars cut it as well.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// An entry of `extensionProviders`, as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    name: String,
    envoy_ext_authz_grpc: Option<Grpc>,
    envoy_ext_authz_http: Option<Http>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Grpc {
    service: String,
    port: u16,
    timeout: Option<String>,
    #[serde(default)]
    fail_open: bool,
    status_on_error: Option<Status>,
    include_request_body_in_check: Option<Body>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Http {
    service: String,
    port: u16,
    timeout: Option<String>,
    path_prefix: String,
    fail_open: bool,
    status_on_error: Option<Status>,
    include_request_headers_in_check: Vec<String>,
    /// The older name of the same.
    include_headers_in_check: Vec<String>,
    include_additional_headers_in_check: BTreeMap<String, String>,
    headers_to_upstream_on_allow: Vec<String>,
    headers_to_downstream_on_deny: Vec<String>,
    headers_to_downstream_on_allow: Vec<String>,
    include_request_body_in_check: Option<Body>,
}

#[derive(Debug, Clone, Copy, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Body {
    max_request_bytes: u32,
    allow_partial_message: bool,
    pack_as_bytes: bool,
}

/// Istio writes it in quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Status {
    Text(String),
    Number(u16),
}

/// One of them, read whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Read(pub(super) Provider);

impl TryFrom<Written> for Read {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let name = written.name;
        if name.is_empty() {
            return Err("a provider has no name; a policy names it by that".to_owned());
        }
        let read = match (written.envoy_ext_authz_grpc, written.envoy_ext_authz_http) {
            (Some(grpc), None) => read_grpc(&name, grpc),
            (None, Some(http)) => read_http(&name, http),
            _ => {
                Err("it must have either envoyExtAuthzGrpc or envoyExtAuthzHttp; others are not implemented"
                    .to_owned())
            }
        };
        read.map(Self).map_err(|what| format!("the provider {name:?}: {what}"))
    }
}

fn read_grpc(name: &str, grpc: Grpc) -> Result<Provider, String> {
    let provider = Provider::new(name, ProviderProtocol::Grpc, host(&grpc.service)?, port(grpc.port)?);
    let body = grpc.include_request_body_in_check;
    finish(provider, grpc.timeout.as_deref(), grpc.fail_open, grpc.status_on_error, body)
}

fn read_http(name: &str, http: Http) -> Result<Provider, String> {
    if !http.path_prefix.is_empty() && !http.path_prefix.starts_with('/') {
        return Err(format!("pathPrefix {:?} must begin with /", http.path_prefix));
    }
    let lists = [
        &http.include_request_headers_in_check,
        &http.include_headers_in_check,
        &http.headers_to_upstream_on_allow,
        &http.headers_to_downstream_on_deny,
        &http.headers_to_downstream_on_allow,
    ];
    for pattern in lists.into_iter().flatten() {
        // A star last or first stands for anything.
        let rest = pattern.strip_suffix('*').or_else(|| pattern.strip_prefix('*')).unwrap_or(pattern);
        let is_name = !rest.contains('*') && http::HeaderName::from_bytes(rest.as_bytes()).is_ok();
        if pattern.is_empty() || (!rest.is_empty() && !is_name) {
            return Err(format!("{pattern:?} is no header name"));
        }
    }
    for (header, value) in &http.include_additional_headers_in_check {
        let is_header = http::HeaderName::from_bytes(header.as_bytes()).is_ok()
            && http::HeaderValue::from_str(value).is_ok();
        if !is_header {
            return Err(format!("{header:?}: {value:?} is no header"));
        }
    }
    let check = HttpCheck {
        path_prefix: http.path_prefix,
        include_headers: [http.include_request_headers_in_check, http.include_headers_in_check].concat(),
        additional_headers: http.include_additional_headers_in_check,
        upstream_on_allow: http.headers_to_upstream_on_allow,
        downstream_on_deny: http.headers_to_downstream_on_deny,
        downstream_on_allow: http.headers_to_downstream_on_allow,
    };
    let provider = Provider::new(name, ProviderProtocol::Http(check), host(&http.service)?, port(http.port)?);
    let body = http.include_request_body_in_check;
    finish(provider, http.timeout.as_deref(), http.fail_open, http.status_on_error, body)
}

fn finish(
    mut provider: Provider,
    timeout: Option<&str>,
    fail_open: bool,
    status: Option<Status>,
    body: Option<Body>,
) -> Result<Provider, String> {
    if let Some(text) = timeout {
        let timeout = humantime::parse_duration(text).map_err(|_| format!("timeout {text:?} is no time"))?;
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            return Err(format!("timeout {text} must be more than nothing, and 30s at most"));
        }
        provider.timeout = timeout;
    }
    if let Some(status) = status {
        provider.status_on_error = status.read()?;
    }
    let body = body.unwrap_or_default();
    Ok(Provider {
        fail_open,
        max_request_bytes: body.max_request_bytes,
        allow_partial_message: body.allow_partial_message,
        pack_as_bytes: body.pack_as_bytes,
        ..provider
    })
}

impl Status {
    fn read(self) -> Result<StatusCode, String> {
        let number = match &self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(*number),
        };
        number
            .filter(|number| (400..600).contains(number))
            .and_then(|number| StatusCode::from_u16(number).ok())
            .ok_or_else(|| "statusOnError must be a status from 400 to 599".to_owned())
    }
}

// `namespace/host` says where Istio looks for the host; a host means the same everywhere here.
fn host(service: &str) -> Result<&str, String> {
    let host = service.split_once('/').map_or(service, |(_, host)| host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
        return Err(format!("service {service:?} is no host, and no namespace/host"));
    }
    Ok(host)
}

fn port(port: u16) -> Result<u16, String> {
    if port == 0 { Err("its port is missing".to_owned()) } else { Ok(port) }
}
