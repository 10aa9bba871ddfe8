//! What the kubelet would ask the pod's containers, and cannot, since it has no certificate: the sidecar asks in its place.
//! In Kubernetes' own words, by `container/livez` and the like; ports are numbers.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// Kubernetes' own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// What a connection of the health port may take in all.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// All questions, by `container/livez|readyz|startupz|poststart|prestop`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppProbes(BTreeMap<String, AppProbe>);

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppProbe {
    #[serde(flatten)]
    asked: Asked,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// A GET; 200 to 399 is well. Redirects are not followed.
    HttpGet(HttpGet),
    /// A connection; that it opens is well.
    TcpSocket(Port),
    /// `grpc.health.v1.Health/Check`, in plaintext.
    Grpc(GrpcCheck),
}

/// A GET.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpGet {
    /// With its query.
    #[serde(default)]
    pub path: String,
    /// Where.
    pub port: u16,
    /// With TLS or without.
    #[serde(default)]
    pub scheme: Scheme,
    /// Sent as they are; `Host` too.
    #[serde(default)]
    pub http_headers: Vec<Header>,
    // Only ever empty: what asks another host is not rewritten.
    #[serde(default, skip_serializing)]
    host: String,
}

/// With TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Without.
    #[default]
    Http,
    /// With a certificate that nobody verifies, as the kubelet does.
    Https,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Where.
    pub port: u16,
    #[serde(default, skip_serializing)]
    host: String,
}

/// A question of gRPC's health service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcCheck {
    /// Where.
    pub port: u16,
    /// Of which service; the server as a whole when empty.
    #[serde(default)]
    pub service: Option<String>,
}

/// A text that says no probes.
#[derive(Debug, thiserror::Error)]
#[error("it is no list of probes as the injector writes it: {0}")]
pub struct NoProbes(String);

impl AppProbes {
    /// The question of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&AppProbe> {
        self.0.get(name)
    }
}

impl AppProbe {
    /// What is asked.
    #[must_use]
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// How long the answer may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        let wanted = self.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        wanted.unwrap_or(DEFAULT_TIMEOUT).clamp(DEFAULT_TIMEOUT, LONGEST_TIMEOUT)
    }
}

impl FromStr for AppProbes {
    type Err = NoProbes;

    fn from_str(text: &str) -> Result<Self, NoProbes> {
        serde_json::from_str(text).map_err(|error| NoProbes(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_as_the_injector_writes_them() {
        let text = r#"{"web/livez":{"httpGet":{"path":"/live?a=1","port":8443,"scheme":"HTTPS","httpHeaders":[{"name":"Host","value":"web"}]},"timeoutSeconds":2},"web/readyz":{"grpc":{"port":9000,"service":null}},"web/startupz":{"tcpSocket":{"port":8080}}}"#;
        let probes: AppProbes = text.parse().unwrap();

        let live = probes.find("web/livez").unwrap();
        assert_eq!(live.timeout(), Duration::from_secs(2));
        assert!(matches!(live.asked(), Asked::HttpGet(HttpGet { port: 8443, scheme: Scheme::Https, .. })));
        assert!(matches!(
            probes.find("web/startupz").unwrap().asked(),
            Asked::TcpSocket(Port { port: 8080, .. })
        ));
        assert_eq!(probes.find("web/readyz").unwrap().timeout(), DEFAULT_TIMEOUT);
        assert_eq!(probes.find("web"), None);
        for wrong in [
            "",
            "[]",
            r#"{"a/livez":{}}"#,
            r#"{"a/livez":{"httpGet":{"port":"http"}}}"#,
            r#"{"a/livez":{"httpGet":{"port":70000}}}"#,
        ] {
            assert!(wrong.parse::<AppProbes>().is_err(), "{wrong}");
        }
    }
}
