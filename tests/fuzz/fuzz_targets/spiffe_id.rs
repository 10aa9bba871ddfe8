//! Texts that may be SPIFFE IDs: nothing panics, what is taken is written back as it was, and is what the standard allows,
//! by a second reading that shares no code with the first.
#![no_main]

use douane_proto::id::{TrustDomain, WorkloadId};
use libfuzzer_sys::fuzz_target;

fn is_segment(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain)
}

fn is_domain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(plain)
}

fuzz_target!(|text: &str| {
    if let Ok(domain) = TrustDomain::parse(text) {
        assert!(is_domain(text) && domain.as_str() == text);
    }
    let Ok(id) = text.parse::<WorkloadId>() else { return };
    assert_eq!(id.to_string(), text);
    let parts: Vec<&str> = text.strip_prefix("spiffe://").expect("the scheme").split('/').collect();
    let [domain, "ns", namespace, "sa", account] = parts[..] else { panic!("not of our form: {text:?}") };
    assert!(is_domain(domain) && is_segment(namespace) && is_segment(account) && text.len() <= 2048);
});
