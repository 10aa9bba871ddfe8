//! The server name of an application's own ClientHello, which passes as it is.
//!
//! Knows not what is done with the name. For the mesh's own handshakes see `hello`.

use rustls::server::Acceptor;

/// What a ClientHello, or a part of one, says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sni {
    /// For this server, in lower case.
    Name(String),
    /// For none, or it is no ClientHello that can be read.
    None,
    /// More bytes are needed to tell.
    Unfinished,
}

const RECORD_HEADER: usize = 5;
/// What is spread over more bytes is waited for no longer.
pub const MAX_HELLO: usize = 32 * 1024;

/// Reads the ClientHello that `bytes` begin with.
#[must_use]
pub fn look(bytes: &[u8]) -> Sni {
    if whole_records(bytes) == 0 && bytes.len() < MAX_HELLO {
        return Sni::Unfinished;
    }
    let mut acceptor = Acceptor::default();
    let mut unread = bytes;
    while !unread.is_empty() {
        if acceptor.read_tls(&mut unread).is_err() {
            return Sni::None;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return match accepted.client_hello().server_name() {
                    Some(name) => Sni::Name(name.to_ascii_lowercase()),
                    None => Sni::None,
                };
            }
            Ok(None) => {}
            Err(_) => return Sni::None,
        }
    }
    if bytes.len() < MAX_HELLO { Sni::Unfinished } else { Sni::None }
}

/// How many of `bytes` are whole records: before there are more, a ClientHello that could not be read cannot be read.
#[must_use]
pub fn whole_records(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let [_, _, _, high, low, ..] = rest {
        let length = RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = rest.get(length..) else { break };
        rest = next;
    }
    bytes.len() - rest.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

    use super::*;
    use crate::tls::provider::provider;

    fn client_hello(name: &'static str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_told_with_the_last_byte_and_not_before() {
        let hello = client_hello("Shop.Example");

        for length in 0..hello.len() {
            assert_eq!(look(&hello[..length]), Sni::Unfinished, "{length} of {}", hello.len());
        }
        assert_eq!(look(&hello), Sni::Name("shop.example".to_owned()));
    }

    #[test]
    fn a_hello_without_a_name_and_what_is_none_have_none() {
        assert_eq!(look(&client_hello("192.0.2.1")), Sni::None);
        assert_eq!(look(b"\x16\x03\x01\x00\x04nope"), Sni::None);
    }

    #[test]
    fn a_record_that_never_ends_is_waited_for_to_a_bound() {
        let mut bytes = vec![0x16, 0x03, 0x01, 0xff, 0xff];
        bytes.resize(MAX_HELLO, 0);

        assert_eq!(look(&bytes), Sni::None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_verdict_never_depends_on_how_they_were_cut(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..200),
            cut in 2_usize..200,
        ) {
            bytes[..2].copy_from_slice(&[0x16, 0x03]);
            if let Some(early) = bytes.get(..cut.min(bytes.len())).map(look).filter(|it| *it != Sni::Unfinished) {
                prop_assert_eq!(look(&bytes), early);
            }
        }
    }
}
