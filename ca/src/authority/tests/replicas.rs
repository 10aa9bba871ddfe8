//! Several authorities on one folder: one leads, all sign, none signs by what is old.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use douane_proto::svid::{TrustBundle, subject_key_id};
use rcgen::KeyPair;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, IssueError, NOW, OpenError, Setup, SignError, at, csr, domain, web};
use crate::{
    authority::{Force, Issued, RotateError},
    state::{Disk, Moment, StateError, StateFolder},
};

const HOUR: Duration = Duration::from_secs(3600);

fn replica(folder: &Path) -> Authority {
    let mut setup = Setup::new(domain(), HOUR);
    setup.terms.root_lead = Duration::ZERO;
    let folder = StateFolder::new(folder).among_replicas().unwrap();
    Authority::open_with(&folder, setup, at(NOW)).unwrap()
}

fn issue(authority: &Authority) -> Result<Issued, IssueError> {
    authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(NOW))
}

fn advance(authority: &Authority) {
    authority.advance(at(NOW)).unwrap();
}

// Does each certificate follow from the next, and the last from a root of `authority`?
fn verifies(issued: &Issued, authority: &Authority) -> bool {
    let bundle = authority.bundle().borrow().clone();
    let [leaf, intermediate] = issued.chain.as_slice() else { return false };
    let follows = |below: &[u8], above: &[u8]| {
        let (below, above) =
            (X509Certificate::from_der(below).unwrap(), X509Certificate::from_der(above).unwrap());
        below.1.verify_signature(Some(above.1.public_key())).is_ok()
    };
    follows(leaf, intermediate) && bundle.roots.iter().any(|root| follows(intermediate, root))
}

#[test]
fn g11_one_leads_all_sign_with_intermediates_of_their_own_and_the_next_leads_when_it_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let replicas: Vec<Authority> = (0..3).map(|_| replica(&folder)).collect();
    assert_eq!(replicas.iter().map(Authority::leads).collect::<Vec<_>>(), [true, false, false]);
    let mut signers = Vec::new();
    for one in &replicas {
        advance(one);
        let issued = issue(one).unwrap();
        assert!(replicas.iter().all(|other| verifies(&issued, other)));
        signers.push(issued.chain[1].clone());
    }
    signers.dedup();
    assert_eq!(signers.len(), 3);
    let refused = replicas[1].rotate_root(Force::Yes, at(NOW)).unwrap_err();
    assert!(matches!(refused, RotateError::Follows), "{refused}");

    let mut left = replicas.into_iter();
    drop(left.next());
    let [second, third] = [left.next().unwrap(), left.next().unwrap()];
    advance(&third);
    advance(&second);
    assert_eq!((second.leads(), third.leads()), (false, true));
    third.rotate_intermediate(at(NOW)).unwrap();
    assert!(verifies(&issue(&third).unwrap(), &second) && verifies(&issue(&second).unwrap(), &third));
}

#[test]
fn g11_a_root_signs_only_when_every_replica_hands_it_out_and_stays_for_all_that_they_signed() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let (leader, follower) = (replica(&folder), replica(&folder));
    // Known by two words, one after the other: what lay there before may be of one that is gone.
    advance(&follower);
    advance(&leader);
    advance(&follower);
    advance(&leader);
    let old = issue(&follower).unwrap();

    let coming = leader.rotate_root(Force::No, at(NOW)).unwrap();
    let status = leader.status(at(NOW)).unwrap();
    assert_ne!(status.active().unwrap().id, coming);
    assert_eq!(status.next[0].lagging.names[0].name, "(replica 2)");

    advance(&follower);
    assert_eq!(follower.bundle().borrow().roots.len(), 2);
    advance(&leader);
    let status = leader.status(at(NOW)).unwrap();
    assert_eq!(status.active().unwrap().id, coming, "{status:?}");
    let kept = status.roots.iter().find(|root| root.id != coming).unwrap();
    assert!(kept.leaves_until.unwrap() > i64::try_from(NOW + 24 * 3600).unwrap());

    // Until it has read of it, it signs as before, and everybody trusts that.
    assert!(verifies(&issue(&follower).unwrap(), &leader) && verifies(&old, &leader));
    advance(&follower);
    assert_eq!(issue(&follower).unwrap().authority, coming);
    assert!(verifies(&issue(&follower).unwrap(), &leader));
}

#[test]
fn g11_a_replica_whose_intermediate_is_tainted_takes_another_before_the_old_one_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let (leader, follower) = (replica(&folder), replica(&folder));
    for one in [&follower, &leader, &follower, &leader] {
        advance(one);
    }
    let spoilt = subject_key_id(&issue(&follower).unwrap().chain[1]).unwrap();
    leader.taint(&crate::hex::encode(&spoilt), at(NOW)).unwrap();
    let refused = || leader.bundle().borrow().refused_keys.contains(&spoilt);
    assert!(!refused(), "the replica still signs with it");
    advance(&follower);
    assert_ne!(subject_key_id(&issue(&follower).unwrap().chain[1]).unwrap(), spoilt);
    advance(&leader);
    assert!(refused());
}

#[test]
fn g11_a_replica_that_cannot_read_the_state_or_finds_an_older_one_signs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let (leader, follower) = (replica(&folder), replica(&folder));
    advance(&follower);
    let before = std::fs::read(folder.join("authority")).unwrap();
    leader.rotate_root(Force::Yes, at(NOW)).unwrap();
    advance(&follower);

    follower.pen.hold_until(Instant::now());
    let stale = issue(&follower).unwrap_err();
    assert!(matches!(stale, IssueError::Sign(SignError::Stale)), "{stale}");
    assert!(follower.sign_jwt(format!(r#"{{"exp":{}}}"#, NOW + 60).as_bytes(), at(NOW)).is_err());
    let hidden = folder.join("away");
    std::fs::rename(folder.join("authority"), &hidden).unwrap();
    follower.advance(at(NOW)).unwrap_err();
    issue(&follower).unwrap_err();
    std::fs::rename(&hidden, folder.join("authority")).unwrap();
    advance(&follower);
    issue(&follower).unwrap();

    follower.pen.hold_until(Instant::now());
    std::fs::write(folder.join("authority"), before).unwrap();
    let overtaken = follower.advance(at(NOW)).unwrap_err();
    assert!(overtaken.is_overtaken(), "{overtaken}");
    issue(&follower).unwrap_err();
}

#[test]
fn g11_who_runs_alone_and_replicas_keep_off_each_others_folders() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let alone = || Authority::open(&StateFolder::new(&folder), &domain(), HOUR, at(NOW));
    let locked =
        |opened: Result<Authority, OpenError>| matches!(opened, Err(OpenError::State(StateError::Locked(_))));
    let one = alone().unwrap();
    let place = StateFolder::new(&folder).among_replicas().unwrap();
    assert!(locked(Authority::open_with(&place, Setup::new(domain(), HOUR), at(NOW))));
    drop((one, place));

    let (leader, follower) = (replica(&folder), replica(&folder));
    assert!(locked(alone()));
    drop(leader);
    assert!(locked(alone()), "a replica waits to lead");
    drop(follower);
    alone().unwrap();
}

#[test]
fn a_bundle_is_told_before_anything_is_signed_by_it() {
    let home = tempfile::tempdir().unwrap();
    let (told, seen) = (Arc::new(Mutex::new(None::<watch::Receiver<Arc<TrustBundle>>>)), Arc::default());
    let (asked, noted) = (Arc::clone(&told), Arc::<Mutex<Vec<u64>>>::clone(&seen));
    let mut setup = Setup::new(domain(), HOUR);
    // Nothing is signed below the new root before its step is in effect.
    setup.disk = Disk::told(move |moment, _| {
        if let (Moment::InEffect, Some(bundle)) = (moment, &*asked.lock().unwrap()) {
            noted.lock().unwrap().push(bundle.borrow().sequence);
        }
        Ok(())
    });
    let authority = Authority::open_with(&StateFolder::new(home.path()), setup, at(NOW)).unwrap();
    *told.lock().unwrap() = Some(authority.bundle());
    let before = authority.bundle().borrow().sequence;
    authority.rotate_root(Force::Yes, at(NOW)).unwrap();
    let steps = seen.lock().unwrap().clone();
    let after = authority.bundle().borrow().sequence;
    assert!(after > before && steps.last() == Some(&after), "{steps:?}, then {after}");
}
