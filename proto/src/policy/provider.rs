//! External authorizers that CUSTOM policies ask, and what they answered.
//!
//! Knows not how one is asked (`proxy/authz`).

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};

use crate::wire;

/// An external authorizer, as the mesh configuration defines it (`extensionProviders`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// By which a CUSTOM policy names it.
    pub name: String,
    /// What it speaks.
    pub protocol: ProviderProtocol,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How long it may take.
    pub timeout: Duration,
    /// Is a request allowed when it cannot be asked? Never by default.
    pub fail_open: bool,
    /// The answer when it cannot be asked, where it does not fail open.
    pub status_on_error: StatusCode,
    /// How much of the body it sees; 0 for none.
    pub max_request_bytes: u32,
    /// May it see a body cut at that length? Else a longer one is refused (413).
    pub allow_partial_message: bool,
    /// gRPC: the body goes into `raw_body`.
    pub pack_as_bytes: bool,
}

/// What an external authorizer speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// The request itself without its body, sent to the authorizer; 200 allows.
    Http(HttpCheck),
}

/// What an HTTP authorizer sees, and what of its answer is passed on. Names may begin or end with `*`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpCheck {
    /// Put before the request's path.
    pub path_prefix: String,
    /// Request headers that it sees besides Host, method, path and Content-Length.
    pub include_headers: Vec<String>,
    /// Sent to it with these values.
    pub additional_headers: BTreeMap<String, String>,
    /// Headers of its answer that the application receives.
    pub upstream_on_allow: Vec<String>,
    /// Headers of its answer that the client receives with a refusal; empty: all.
    pub downstream_on_deny: Vec<String>,
    /// Headers of its answer that the client receives with the application's answer.
    pub downstream_on_allow: Vec<String>,
}

/// What an external authorizer said of one request or stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
    /// It could not be asked, or did not answer in time; why.
    Failed(String),
}

/// What has been answered so far, by provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answers(BTreeMap<String, Answer>);

/// A change of a request's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderChange {
    /// Replaces all values of the name.
    Set(HeaderName, HeaderValue),
    /// Adds a value.
    Append(HeaderName, HeaderValue),
    /// Removes all values of the name.
    Remove(HeaderName),
}

impl Answers {
    /// Adds what `provider` said.
    #[must_use]
    pub fn with(mut self, provider: &str, answer: Answer) -> Self {
        self.0.insert(provider.to_owned(), answer);
        self
    }

    /// What `provider` said, if it was asked.
    #[must_use]
    pub fn of(&self, provider: &str) -> Option<&Answer> {
        self.0.get(provider)
    }
}

/// Istio waits 600 s, which holds a request longer than any client waits.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// A longer wait than this is cut; milliseconds on the wire could say weeks.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

impl Provider {
    /// One that speaks `protocol` at `host` and `port`, with the defaults for all else: asked within 1 s, fails closed
    /// with 403, sees no body.
    #[must_use]
    pub fn new(name: &str, protocol: ProviderProtocol, host: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            protocol,
            host: host.to_owned(),
            port,
            timeout: DEFAULT_TIMEOUT,
            fail_open: false,
            status_on_error: StatusCode::FORBIDDEN,
            max_request_bytes: 0,
            allow_partial_message: false,
            pack_as_bytes: false,
        }
    }

    /// The message that carries it.
    #[must_use]
    pub fn to_wire(&self) -> wire::Provider {
        let (protocol, http) = match &self.protocol {
            ProviderProtocol::Grpc => (wire::provider::Protocol::Grpc, HttpCheck::default()),
            ProviderProtocol::Http(http) => (wire::provider::Protocol::Http, http.clone()),
        };
        wire::Provider {
            name: self.name.clone(),
            protocol: protocol.into(),
            host: self.host.clone(),
            port: self.port.into(),
            timeout: u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX),
            fail_open: self.fail_open,
            status_on_error: self.status_on_error.as_u16().into(),
            path_prefix: http.path_prefix,
            include_request_headers_in_check: http.include_headers,
            include_additional_headers_in_check: http.additional_headers,
            headers_to_upstream_on_allow: http.upstream_on_allow,
            headers_to_downstream_on_deny: http.downstream_on_deny,
            headers_to_downstream_on_allow: http.downstream_on_allow,
            max_request_bytes: self.max_request_bytes,
            allow_partial_message: self.allow_partial_message,
            pack_as_bytes: self.pack_as_bytes,
        }
    }

    /// Reads the message; `None` for one that cannot be asked, which is then undefined.
    #[must_use]
    pub fn from_wire(message: wire::Provider) -> Option<Self> {
        let protocol = match wire::provider::Protocol::try_from(message.protocol).ok()? {
            wire::provider::Protocol::Grpc => ProviderProtocol::Grpc,
            wire::provider::Protocol::Http => ProviderProtocol::Http(HttpCheck {
                path_prefix: message.path_prefix,
                include_headers: message.include_request_headers_in_check,
                additional_headers: message.include_additional_headers_in_check,
                upstream_on_allow: message.headers_to_upstream_on_allow,
                downstream_on_deny: message.headers_to_downstream_on_deny,
                downstream_on_allow: message.headers_to_downstream_on_allow,
            }),
        };
        let port = u16::try_from(message.port).ok()?;
        let timeout = match message.timeout {
            0 => DEFAULT_TIMEOUT,
            millis => Duration::from_millis(millis.into()).min(MAX_TIMEOUT),
        };
        let status =
            u16::try_from(message.status_on_error).ok().and_then(|code| StatusCode::from_u16(code).ok());
        Some(Self {
            timeout,
            fail_open: message.fail_open,
            status_on_error: status.unwrap_or(StatusCode::FORBIDDEN),
            max_request_bytes: message.max_request_bytes,
            allow_partial_message: message.allow_partial_message,
            pack_as_bytes: message.pack_as_bytes,
            ..Self::new(&message.name, protocol, &message.host, port)
        })
    }
}
