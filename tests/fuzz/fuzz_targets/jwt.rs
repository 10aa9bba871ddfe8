//! Tokens and key sets as strangers write them: nothing panics, and no token is believed that our key did not sign.
#![no_main]

use std::sync::LazyLock;

use douane_proto::{
    authentication::Authentication,
    jwt::Keys,
    request::{Head, headers_of, understand},
    target::PathNormalization,
    wire,
};
use http::{Method, Version};
use libfuzzer_sys::fuzz_target;

// A public key whose private half nobody has.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","alg":"ES256",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
const NOW: u64 = 1_800_000_000;

static RULES: LazyLock<Authentication> = LazyLock::new(|| {
    let rule = wire::JwtRule { jwks: KEYS.to_owned(), ..Default::default() };
    let message = wire::RequestAuthentication {
        namespace: "shop".to_owned(),
        name: "any".to_owned(),
        rules: vec![rule],
        ..Default::default()
    };
    Authentication::from_wire(&[message])
});

fuzz_target!(|bytes: &[u8]| {
    let _ = Keys::parse(bytes);
    let value = [b"Bearer ", bytes].concat();
    let Ok(headers) = headers_of([(&b"host"[..], &b"orders.shop"[..]), (&b"authorization"[..], &value[..])]) else {
        return;
    };
    let head = Head {
        method: Method::GET,
        target: "/",
        authority: None,
        version: Version::HTTP_11,
        headers,
        destination: ([10, 77, 0, 9], 8080).into(),
    };
    let Ok(mut facts) = understand(head, PathNormalization::Base) else { return };
    let believed = RULES.authenticate(&mut facts, NOW);
    assert!(facts.token.is_none(), "nobody could sign this");
    // A header that holds nothing behind the scheme holds no token.
    assert!(believed.is_err() || bytes.trim_ascii().is_empty());
});
