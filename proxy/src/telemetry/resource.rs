//! What a span's resource says of the workload: names by OpenTelemetry's conventions for Kubernetes, and what the
//! operator adds in `OTEL_RESOURCE_ATTRIBUTES`.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use crate::{
    config::export::percent_decoded,
    telemetry::origin::{Origin, service_of_pod},
};

/// Attributes in the form of `OTEL_RESOURCE_ATTRIBUTES`: `key=value,key=value`, values percent-encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, String)>);

/// Why a text is no list of attributes. The whole text is void then, as the specification asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form key=value with a percent-encoded value")]
pub struct AttributesError(String);

impl Attributes {
    /// Parses the list.
    ///
    /// # Errors
    /// [`AttributesError`] with the first entry that is none.
    ///
    /// ```
    /// use douane_proxy::telemetry::resource::Attributes;
    /// let list = Attributes::parse("service.name=orders,team=a%20b").unwrap();
    /// assert_eq!(list.value("team"), Some("a b"));
    /// assert!(Attributes::parse("team").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, AttributesError> {
        text.split(',')
            .filter(|entry| !entry.trim().is_empty())
            .map(entry)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The last value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Who tells, as the operator named it: `OTEL_SERVICE_NAME` before the list of attributes before the pod's name.
#[must_use]
pub fn origin(
    service: Option<&str>,
    environment: Option<&str>,
    namespace: &str,
    pod: &str,
    attributes: &Attributes,
) -> Origin {
    let named = service.or_else(|| attributes.value("service.name")).filter(|name| !name.is_empty());
    let environment = environment.or_else(|| attributes.value("deployment.environment.name"));
    Origin {
        service: named.unwrap_or_else(|| service_of_pod(pod)).into(),
        guessed: named.is_none(),
        environment: environment.unwrap_or("unknown").into(),
        namespace: namespace.into(),
        pod: pod.into(),
    }
}

/// The resource of this sidecar's spans. Our own names win: `service.name` is what the log says, too.
pub(crate) fn resource(origin: &Origin, attributes: &Attributes) -> Resource {
    let Origin { service, environment, namespace, pod, .. } = origin;
    let own = [
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", SDK_VERSION),
        ("telemetry.distro.name", "douane"),
        ("telemetry.distro.version", env!("CARGO_PKG_VERSION")),
        ("service.name", service),
        ("service.namespace", namespace),
        ("deployment.environment.name", environment),
        ("k8s.namespace.name", namespace),
        ("k8s.pod.name", pod),
        // The pod's own, so that a tracer knows that sidecar and application share a clock.
        ("host.name", pod),
    ];
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.instance.id", format!("{namespace}.{pod}.douane-proxy")))
        .with_attributes(attributes.0.iter().cloned().map(|(key, value)| KeyValue::new(key, value)))
        .with_attributes(own.map(|(key, value)| KeyValue::new(key, value.to_owned())))
        .build()
}

// Of the crate that makes the spans; a test compares it with the lock file.
const SDK_VERSION: &str = "0.33.1";

fn entry(entry: &str) -> Result<(String, String), AttributesError> {
    let wrong = || AttributesError(entry.to_owned());
    let (key, value) = entry.split_once('=').ok_or_else(wrong)?;
    let value = percent_decoded(value.trim()).and_then(|bytes| String::from_utf8(bytes).ok());
    let (key, value) = (key.trim(), value.ok_or_else(wrong)?);
    if key.is_empty() { Err(wrong()) } else { Ok((key.to_owned(), value)) }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn our_names_win_and_additions_stay() {
        let origin = Origin {
            service: "orders".into(),
            guessed: false,
            environment: "lab".into(),
            namespace: "shop".into(),
            pod: "orders-1".into(),
        };
        let attributes = Attributes::parse("service.name=proxy, service.version=1.2 ,").unwrap();

        let resource = resource(&origin, &attributes);

        for (key, value) in [
            ("service.name", "orders"),
            ("service.version", "1.2"),
            ("service.namespace", "shop"),
            ("service.instance.id", "shop.orders-1.douane-proxy"),
            ("deployment.environment.name", "lab"),
            ("k8s.pod.name", "orders-1"),
            ("host.name", "orders-1"),
        ] {
            assert_eq!(resource.get(&Key::new(key)), Some(value.to_owned().into()), "{key}");
        }
    }

    #[test]
    fn the_version_of_the_sdk_is_the_one_that_is_built_in() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"opentelemetry_sdk\"\nversion = \"{SDK_VERSION}\"")));
    }

    #[test]
    fn who_tells_is_what_the_operator_said_first() {
        let none = Attributes::default();
        let listed = Attributes::parse("service.name=listed,deployment.environment.name=lab").unwrap();
        for (service, attributes, expected, guessed) in [
            (Some("named"), &listed, "named", false),
            (None, &listed, "listed", false),
            (Some(""), &none, "orders", true),
            (None, &none, "orders", true),
        ] {
            let told = origin(service, None, "shop", "orders-7c9f5d6b8-x2x9k", attributes);

            assert_eq!((&*told.service, told.guessed), (expected, guessed));
        }
        assert_eq!(&*origin(None, None, "shop", "orders", &listed).environment, "lab");
        assert_eq!(&*origin(None, None, "shop", "orders", &none).environment, "unknown");
        assert_eq!(&*origin(None, Some("prod"), "shop", "orders", &listed).environment, "prod");
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Attributes::parse(&text);
        }
    }
}
