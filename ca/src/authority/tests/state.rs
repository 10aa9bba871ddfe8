//! The state on the disk: what was written is read, and what is damaged, foreign or lost in part is never replaced.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{Authority, NOW, OpenError, Setup, at, domain, open, web};
use crate::{
    authority::{
        Force,
        keep::{Birth, Keep},
        seal::{Seal, SealError},
        sign::Signer,
        standing::Standing,
    },
    state::{Disk, StateFolder},
};
use douane_proto::id::TrustDomain;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn write_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn stored(state: &Path) -> Standing {
    Keep::new(&StateFolder::new(state), Disk::default(), Seal::Open).read(&domain()).unwrap()
}

fn refusal(state: &Path) -> OpenError {
    open(state).map(drop).unwrap_err()
}

fn ground() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    drop(open(&state).unwrap());
    (home, state)
}

#[test]
fn the_root_survives_a_restart_and_is_ours_alone_to_read() {
    let (_home, state) = ground();
    let before = open(&state).unwrap().bundle().borrow().clone();
    assert_eq!(open(&state).unwrap().bundle().borrow().clone(), before);
    assert_eq!((mode(&state), mode(&state.join("authority"))), (0o700, 0o600));
    assert!(!fs::read_to_string(state.join("bundle.pem")).unwrap().contains("PRIVATE"));
}

#[test]
fn t18_a_torn_or_changed_state_stops_the_start_and_is_never_replaced() {
    let (_home, state) = ground();
    let path = state.join("authority");
    let good = fs::read(&path).unwrap();
    for end in (0..good.len()).step_by(41).chain([good.len() - 1]) {
        write_private(&path, &good[..end]);
        let refused = refusal(&state);
        assert!(matches!(refused, OpenError::Corrupt { .. }), "cut after {end}: {refused}");
        assert!(refused.to_string().contains("restore it from a backup"), "{refused}");
    }
    for at in (0..good.len()).step_by(7) {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        write_private(&path, &flipped);
        assert!(matches!(refusal(&state), OpenError::Corrupt { .. }), "a bit of byte {at}");
        assert_eq!(fs::read(&path).unwrap(), flipped, "it was not replaced");
    }
    write_private(&path, &good);
    drop(open(&state).unwrap());
}

#[test]
fn a_state_in_part_or_readable_by_others_or_foreign_stops_the_start() {
    let (home, state) = ground();
    let (path, bundle) = (state.join("authority"), state.join("bundle.pem"));
    let good = fs::read(&path).unwrap();

    fs::remove_file(&path).unwrap();
    assert!(matches!(refusal(&state), OpenError::Partial { .. }));
    write_private(&path, &good);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let readable = refusal(&state).to_string();
    assert!(readable.contains("600"), "{readable}");
    write_private(&path, &good);

    let other = home.path().join("other");
    drop(open(&other).unwrap());
    fs::copy(other.join("bundle.pem"), &bundle).unwrap();
    assert!(matches!(refusal(&state), OpenError::Corrupt { .. }), "a bundle of another authority");
    fs::remove_file(&bundle).unwrap();
    drop(open(&state).unwrap());

    let elsewhere = TrustDomain::parse("example.org").unwrap();
    let foreign =
        Authority::open(&StateFolder::new(&state), &elsewhere, HOUR, at(NOW)).map(drop).unwrap_err();
    assert!(foreign.to_string().contains("example.org"), "{foreign}");
    assert_eq!(fs::read(&path).unwrap(), good, "it was never replaced");
}

#[test]
fn the_root_of_an_older_version_is_taken_over_and_its_file_goes() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    fs::create_dir(&state).unwrap();
    let old = Signer::root(&domain(), HOUR * 24, i64::try_from(NOW).unwrap()).unwrap();
    let block = |label: &str, der: &[u8]| {
        pem::encode_config(
            &pem::Pem::new(label, der),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    };
    let (certificate, key) = (block("CERTIFICATE", &old.certificate), block("PRIVATE KEY", &old.key_der()));
    write_private(&state.join("root.pem"), format!("{certificate}{key}").as_bytes());
    fs::write(state.join("bundle.pem"), &certificate).unwrap();

    let bundle = open(&state).unwrap().bundle().borrow().clone();
    assert_eq!(bundle.roots, std::slice::from_ref(&old.certificate));
    assert_eq!(bundle.place(), (u64::try_from(old.not_before).unwrap(), 2), "it has a JWT key now");
    assert!(!state.join("root.pem").exists());
    assert_eq!(open(&state).unwrap().bundle().borrow().clone(), bundle);

    // A crash between the two leaves both; one of another authority is not removed.
    write_private(&state.join("root.pem"), format!("{certificate}{key}").as_bytes());
    drop(open(&state).unwrap());
    assert!(!state.join("root.pem").exists());
    let other = Signer::root(&domain(), HOUR * 24, i64::try_from(NOW).unwrap()).unwrap();
    let foreign =
        format!("{}{}", block("CERTIFICATE", &other.certificate), block("PRIVATE KEY", &other.key_der()));
    write_private(&state.join("root.pem"), foreign.as_bytes());
    assert!(matches!(refusal(&state), OpenError::Corrupt { .. }));
    assert!(state.join("root.pem").exists());
    for damaged in [&certificate[..], &certificate[..100], "garbage"] {
        fs::remove_file(state.join("authority")).unwrap();
        write_private(&state.join("root.pem"), damaged.as_bytes());
        assert!(matches!(refusal(&state), OpenError::Corrupt { .. }), "{damaged}");
        assert!(!state.join("authority").exists(), "nothing new in its place");
        write_private(&state.join("authority"), b"");
    }
}

#[test]
fn sealed_keys_are_read_with_their_key_alone_and_plain_ones_are_sealed_at_the_start() {
    let (home, state) = ground();
    let key = home.path().join("seal");
    write_private(&key, &[7; 32]);
    let sealed = |file: &Path| {
        let setup = Setup { seal_key: Some(file.to_owned()), ..Setup::new(domain(), HOUR) };
        Authority::open_with(&StateFolder::new(&state), setup, at(NOW))
    };
    let secret = stored(&state).slots[0].keys.x509.clone().unwrap();
    let holds = |secret: &[u8]| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = fs::read_to_string(state.join("authority")).unwrap();
        text.contains(&STANDARD.encode(secret))
    };
    assert!(holds(&secret));

    let bundle = sealed(&key).unwrap().bundle().borrow().clone();
    assert!(!holds(&secret), "the plain key is gone");
    assert_eq!(sealed(&key).unwrap().bundle().borrow().clone(), bundle);

    assert!(matches!(refusal(&state), OpenError::Sealed { source: SealError::NoKey, .. }));
    let other = home.path().join("other");
    write_private(&other, &[8; 32]);
    assert!(matches!(
        sealed(&other).map(drop),
        Err(OpenError::Sealed { source: SealError::OtherKey(_), .. })
    ));
    write_private(&other, &[8; 31]);
    assert!(matches!(
        sealed(&other).map(drop),
        Err(OpenError::Sealed { source: SealError::KeyFile { .. }, .. })
    ));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let readable = sealed(&key).map(drop).unwrap_err();
    assert!(matches!(readable, OpenError::Sealed { source: SealError::KeyFile { .. }, .. }));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    drop(sealed(&key).unwrap());
}

#[test]
fn t11_a_state_that_is_older_than_the_bundle_beside_it_begins_a_new_history() {
    let (_home, state) = ground();
    let old = fs::read(state.join("authority")).unwrap();
    let authority = open(&state).unwrap();
    authority.rotate_root(Force::No, at(NOW)).unwrap();
    let published = authority.bundle().borrow().place();
    assert_eq!(published.1, 2, "a second root is in the bundle");
    drop(authority);

    write_private(&state.join("authority"), &old);
    let restored = Authority::open(&StateFolder::new(&state), &domain(), HOUR, at(NOW + 100)).unwrap();
    let place = restored.bundle().borrow().place();
    assert!(place > published && place.0 > published.0, "{place:?} after {published:?}");
    drop(restored);
    assert_eq!(open(&state).unwrap().bundle().borrow().place(), place, "once");
}

#[test]
fn a_first_state_has_one_root_that_signs_and_a_jwt_key_of_its_id() {
    let (_home, state) = ground();
    let authority = open(&state).unwrap();
    let bundle = authority.bundle().borrow().clone();
    assert_eq!((bundle.roots.len(), bundle.jwt_keys.len()), (1, 1));
    let claims = format!(r#"{{"sub":"{}","aud":["x"],"exp":{}}}"#, web(), NOW + 60);
    let token = authority.sign_jwt(claims.as_bytes(), at(NOW)).unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!(header.kid.as_deref(), Some(bundle.jwt_keys[0].key_id.as_str()));
    let birth = Birth { trust_domain: &domain(), root_life: HOUR, now: 0, given: None };
    let again = Keep::new(&StateFolder::new(&state), Disk::default(), Seal::Open).open(&birth).unwrap();
    assert_eq!(again.bundle(), *bundle, "what is there is never made anew");
}

#[test]
fn a_token_has_an_end_within_a_day_or_is_not_signed() {
    let (_home, state) = ground();
    let authority = open(&state).unwrap();
    let refused = |claims: String| authority.sign_jwt(claims.as_bytes(), at(NOW)).is_err();
    assert!(refused("{}".to_owned()));
    assert!(refused("[1]".to_owned()));
    assert!(refused(format!(r#"{{"exp":{NOW}}}"#)));
    assert!(refused(format!(r#"{{"exp":{}}}"#, NOW + 24 * 3600 + 1)));
    assert!(refused(format!(r#"{{"exp":{},"x":"{}"}}"#, NOW + 60, "x".repeat(20_000))));
    assert!(!refused(format!(r#"{{"exp":{}}}"#, NOW + 60)));
}

#[test]
fn t18_whoever_finds_that_another_goes_on_with_the_state_writes_nothing_over_it() {
    let (_home, state) = ground();
    let first = open(&state).unwrap();
    // As on a shared disk whose lock was lost.
    fs::rename(state.join("lock"), state.join("lost")).unwrap();
    let second = open(&state).unwrap();
    first.advance(at(NOW)).unwrap();
    second.rotate_root(Force::No, at(NOW)).unwrap();
    let theirs = fs::read(state.join("authority")).unwrap();

    let refused = first.advance(at(NOW + 1)).unwrap_err();
    assert!(refused.is_overtaken() && refused.to_string().contains("has taken over"), "{refused}");
    assert!(first.rotate_root(Force::Yes, at(NOW + 1)).unwrap_err().is_overtaken());
    assert_eq!(fs::read(state.join("authority")).unwrap(), theirs);
    second.advance(at(NOW + 2)).unwrap();
}
