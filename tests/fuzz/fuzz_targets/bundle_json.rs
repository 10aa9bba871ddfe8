//! The bundle of another trust domain as its endpoint may send it: nothing panics, what is read is written and read as the
//! same, and every root can be told to a sidecar.
#![no_main]

use douane_proto::{
    bundle::{BundleDocument, ForeignBundle},
    id::TrustDomain,
    svid, wire,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = BundleDocument::parse(bytes) else { return };
    assert_eq!(BundleDocument::parse(document.write().as_bytes()).as_ref(), Ok(&document));
    assert!(document.roots.iter().all(|root| svid::may_issue(root)));
    let domain = TrustDomain::parse("other.example").expect("a domain");
    let foreign = ForeignBundle::of(domain, &document);
    let message = wire::FederatedBundles { bundles: vec![(&foreign).into()] };
    assert_eq!(ForeignBundle::all(message).expect("it is bounded")[0], foreign);
    let _ = foreign.keys();
});
