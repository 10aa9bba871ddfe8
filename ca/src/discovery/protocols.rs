//! What a declaration says that a port speaks: `appProtocol`, else the port's name (`http-web`), as Istio reads them.

use douane_proto::mesh::Protocol;

/// What a port speaks by its `appProtocol`, else by its name.
pub(crate) fn declared(app_protocol: Option<&str>, name: &str) -> Protocol {
    app_protocol.and_then(by_word).or_else(|| by_word(prefix(name))).unwrap_or_default()
}

// `kubernetes.io/h2c` is Kubernetes' own word; names without a domain are IANA's and Istio's.
fn by_word(word: &str) -> Option<Protocol> {
    match word.to_ascii_lowercase().as_str() {
        "http" | "http1" | "grpc-web" => Some(Protocol::Http1),
        "http2" | "h2c" | "kubernetes.io/h2c" => Some(Protocol::Http2),
        "grpc" => Some(Protocol::Grpc),
        "tcp" | "tls" | "https" | "mongo" | "mysql" | "postgres" | "postgresql" | "redis" => {
            Some(Protocol::Tcp)
        }
        _ => None,
    }
}

fn prefix(name: &str) -> &str {
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return "grpc-web";
    }
    name.split('-').next().unwrap_or_default()
}

/// All declarations of one port. Where they contradict each other, none holds: the receiver looks for itself.
pub(crate) fn agreed(declarations: &[Protocol]) -> Protocol {
    let mut known = declarations.iter().copied().filter(|protocol| *protocol != Protocol::Undeclared);
    let Some(first) = known.next() else { return Protocol::Undeclared };
    if known.all(|other| other == first) { first } else { Protocol::Undeclared }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_wins_over_the_name() {
        let cases = [
            (Some("kubernetes.io/h2c"), "tcp", Protocol::Http2),
            (Some("grpc"), "", Protocol::Grpc),
            (Some("https"), "http", Protocol::Tcp),
            (Some("example.org/own"), "http-web", Protocol::Http1),
            (None, "http", Protocol::Http1),
            (None, "http2-api", Protocol::Http2),
            (None, "grpc-web-x", Protocol::Http1),
            (None, "grpc-orders", Protocol::Grpc),
            (None, "tls", Protocol::Tcp),
            (None, "httpd", Protocol::Undeclared),
            (None, "", Protocol::Undeclared),
        ];
        for (app, name, protocol) in cases {
            assert_eq!(declared(app, name), protocol, "{app:?} {name:?}");
        }
    }

    #[test]
    fn a_contradiction_leaves_it_to_the_receiver() {
        use Protocol::{Http1, Tcp, Undeclared};
        assert_eq!(agreed(&[]), Undeclared);
        assert_eq!(agreed(&[Http1, Undeclared, Http1]), Http1);
        assert_eq!(agreed(&[Http1, Tcp, Http1]), Undeclared);
    }
}
