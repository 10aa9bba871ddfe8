//! A state file that is not what the authority wrote: nothing panics, and it is never replaced by a new root.
#![no_main]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, UNIX_EPOCH},
};

use douane_ca::{authority::Authority, state::StateFolder};
use douane_proto::id::TrustDomain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("douane-fuzz-state-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode");
    let folder = StateFolder::new(&path);
    fs::write(folder.authority(), bytes).expect("write");
    fs::set_permissions(folder.authority(), fs::Permissions::from_mode(0o600)).expect("its mode");
    let domain = TrustDomain::parse("cluster.local").expect("a domain");
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let opened = Authority::open(&folder, &domain, Duration::from_secs(3600), now);
    assert!(opened.is_err(), "nobody guesses a checksum and a key");
    assert_eq!(fs::read(folder.authority()).expect("it is there"), bytes, "it was replaced");
});
