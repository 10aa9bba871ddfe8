//! A request's head as a stranger sends it: what is understood holds no reserved header and no two hosts, and is understood
//! the same way once more.
#![no_main]

use std::net::SocketAddr;

use douane_proto::{
    request::{Head, headers_of, method_of, understand},
    target::PathNormalization,
};
use http::{Version, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (Some(method), Some(target)) = (lines.next(), lines.next()) else { return };
    let (Ok(method), Ok(target)) = (method_of(method), std::str::from_utf8(target)) else { return };
    let pairs = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((line.get(..colon)?, line.get(colon + 1..)?))
    });
    let Ok(headers) = headers_of(pairs) else { return };
    let destination = SocketAddr::from(([10, 77, 0, 9], 8080));
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let head =
            Head { method: method.clone(), target, authority: None, version, headers: headers.clone(), destination };
        let Ok(facts) = understand(head, PathNormalization::Base) else { continue };
        assert!(!facts.headers.contains_key(header::HOST) && !facts.headers.contains_key(header::CONNECTION));
        assert!(!facts.headers.keys().any(|name| name.as_str().starts_with("x-douane-")));
        if method == http::Method::CONNECT {
            continue;
        }
        let whole = facts.target.path_and_query();
        let again = Head {
            method: facts.method.clone(),
            target: &whole,
            authority: Some(&facts.target.authority),
            version: Version::HTTP_2,
            headers: facts.headers.clone(),
            destination,
        };
        let again = understand(again, PathNormalization::Base).expect("what was understood can be sent on");
        assert_eq!((again.target, again.headers), (facts.target, facts.headers));
    }
});
