//! Questions of an API server, or of whoever reaches the webhook: nothing of them panics; a pod that was injected is injected
//! again to the same, and what is taken out again leaves no trace.
#![no_main]

use std::sync::LazyLock;

use douane_ca::{
    config::Config,
    inject::{Outcome, Terms, uninject},
    policy::asked::Mesh,
    webhook::{Review, both},
};
use libfuzzer_sys::fuzz_target;

static TERMS: LazyLock<Terms> = LazyLock::new(|| Terms::of(&Config::default()));
static MESH: LazyLock<Mesh> = LazyLock::new(|| {
    let config = Config::default();
    let mesh = config.mesh();
    Mesh {
        trust_domain: mesh.trust_domain,
        aliases: mesh.trust_domain_aliases,
        normalization: mesh.path_normalization,
        law: config.law(),
    }
});

fuzz_target!(|body: &[u8]| {
    let Some((object, mutated, validated)) = both(body, &TERMS, &MESH) else { return };
    for verdict in [mutated, validated] {
        let answer = verdict.write("uid");
        let read: serde_json::Value = serde_json::from_str(&answer).expect("an answer is JSON");
        assert_eq!(read["response"]["allowed"], verdict.refused.is_none());
    }
    let namespace = Review::parse(body).expect("it was read before").namespace;
    if let Outcome::Injected(once) = TERMS.inject(&object, &namespace) {
        let Outcome::Injected(twice) = TERMS.inject(&once.pod, &namespace) else { panic!("once and not twice") };
        assert_eq!(once.pod, twice.pod);
        assert!(uninject(&once.pod).expect("we wrote it").is_some());
    }
});
