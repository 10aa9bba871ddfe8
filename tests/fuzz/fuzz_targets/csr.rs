//! Certificate requests as strangers write them: nothing panics, and whatever is signed is the attested identity's, passes
//! the sidecar's own reading, and holds the request's key and nothing else of it.
#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_ca::{authority::Authority, state::StateFolder};
use douane_proto::{id::WorkloadId, svid::Leaf};
use libfuzzer_sys::fuzz_target;

static WEB: LazyLock<WorkloadId> =
    LazyLock::new(|| "spiffe://cluster.local/ns/shop/sa/web".parse().expect("it is an identity"));

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("douane-fuzz-csr-{}", std::process::id()));
    let domain = WEB.trust_domain();
    Authority::open(&StateFolder::new(folder), domain, Duration::from_secs(3600), now()).expect("an authority")
});

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(issued) = AUTHORITY.issue(bytes, &WEB, None, now()) else { return };
    let leaf = Leaf::parse(&issued.chain[0]).expect("a sidecar reads it");
    assert_eq!(leaf.id, *WEB);
    assert_eq!(leaf.not_after, issued.not_after);
});
