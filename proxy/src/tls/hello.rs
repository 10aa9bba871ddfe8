//! Is a connection's beginning a ClientHello that is meant for the mesh? It is where it offers one of our ALPN names or of
//! Istio's; any other is an application's own TLS.
//!
//! Looks only where plaintext is taken as well: everywhere else there is nothing but mesh TLS. Knows no sockets.

use rustls::server::Acceptor;

use super::settings::ALPN_DOUANE1;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello {
    /// A ClientHello for the mesh.
    Mesh,
    /// Something else.
    Foreign,
    /// More bytes are needed to tell.
    Unfinished,
}

// Of Istio: `istio`, `istio-http/1.1`, `istio-h2` and others; `istio-peer-exchange` stands beside one of them.
const ISTIO: &[u8] = b"istio";
const ISTIO_PREFIX: &[u8] = b"istio-";
const HANDSHAKE: u8 = 0x16;
const RECORD_HEADER: usize = 5;
/// A ClientHello with post-quantum shares has 2 KiB; one that is spread over more records than this is none of ours.
const MAX_HELLO: usize = 32 * 1024;

/// What `bytes`, the first of a connection, are.
#[must_use]
pub fn look(bytes: &[u8]) -> Hello {
    match bytes {
        [] | [HANDSHAKE] => return Hello::Unfinished,
        [HANDSHAKE, 0x03, ..] => {}
        _ => return Hello::Foreign,
    }
    // Parsed only with a whole record more, so that a client that dribbles costs no more than its records.
    if !ends_a_record(bytes) && bytes.len() < MAX_HELLO {
        return Hello::Unfinished;
    }
    let mut acceptor = Acceptor::default();
    let mut unread = bytes;
    while !unread.is_empty() {
        if acceptor.read_tls(&mut unread).is_err() {
            return Hello::Foreign;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let is_ours = hello.alpn().is_some_and(|mut names| names.any(is_mesh_name));
                return if is_ours { Hello::Mesh } else { Hello::Foreign };
            }
            Ok(None) => {}
            Err(_) => return Hello::Foreign,
        }
    }
    if bytes.len() < MAX_HELLO { Hello::Unfinished } else { Hello::Foreign }
}

fn is_mesh_name(name: &[u8]) -> bool {
    name == ALPN_DOUANE1 || name == ISTIO || name.starts_with(ISTIO_PREFIX)
}

fn ends_a_record(mut bytes: &[u8]) -> bool {
    while let [_, _, _, high, low, ..] = bytes {
        let length = RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low]));
        match bytes.get(length..) {
            Some([]) => return true,
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName, version::TLS13};

    use super::*;
    use crate::tls::provider::provider;

    fn client_hello(alpn: &[&str]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("shop.example").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn only_our_names_and_istios_are_for_the_mesh() {
        for (alpn, expected) in [
            (&["douane/1"][..], Hello::Mesh),
            (&["h2", "istio-http/1.1"], Hello::Mesh),
            (&["istio-peer-exchange", "istio"], Hello::Mesh),
            (&["h2", "http/1.1"], Hello::Foreign),
            (&["istiox"], Hello::Foreign),
            (&[], Hello::Foreign),
        ] {
            assert_eq!(look(&client_hello(alpn)), expected, "{alpn:?}");
        }
    }

    #[test]
    fn a_part_of_a_hello_is_told_by_no_byte_before_its_last() {
        let hello = client_hello(&["douane/1"]);

        for length in 0..hello.len() {
            assert_eq!(look(&hello[..length]), Hello::Unfinished, "{length} of {}", hello.len());
        }
    }

    #[test]
    fn what_begins_no_handshake_is_foreign_at_once() {
        for bytes in [&b"G"[..], b"\x16\x02", b"\x15\x03\x03"] {
            assert_eq!(look(bytes), Hello::Foreign, "{bytes:?}");
        }
    }

    #[test]
    fn a_record_that_never_ends_is_foreign_in_the_end() {
        let mut bytes = vec![0x16, 0x03, 0x01, 0xff, 0xff];
        bytes.resize(MAX_HELLO, 0);

        assert_eq!(look(&bytes), Hello::Foreign);
    }
}
