//! The life of a root with sidecars that know it, lag, leave and come back: what waits for whom, and what never happens.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use douane_proto::svid::{Leaf, TrustBundle, subject_key_id};
use rcgen::KeyPair;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, IssueError, NOW, Setup, SignError, at, csr, domain, web};
use crate::{
    authority::{Force, RotateError, Status, check},
    holders::{Attending, Held, Holders},
    state::StateFolder,
};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// An authority with the sidecars that it knows.
pub(super) struct Office {
    pub(super) authority: Authority,
    pub(super) holders: Holders,
    _home: Option<tempfile::TempDir>,
}

impl Office {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let office = Self::at(&home.path().join("state"), at(NOW));
        Self { _home: Some(home), ..office }
    }

    pub(super) fn at(folder: &Path, now: SystemTime) -> Self {
        let holders = Holders::default();
        let mut setup = Setup::new(domain(), Duration::from_secs(HOUR));
        setup.holders = holders.clone();
        setup.terms.root_lead = Duration::from_secs(60);
        let authority = Authority::open_with(&StateFolder::new(folder), setup, now).unwrap();
        Self { authority, holders, _home: None }
    }

    fn bundle(&self) -> TrustBundle {
        self.authority.bundle().borrow().as_ref().clone()
    }

    fn status(&self, now: u64) -> Status {
        self.authority.status(at(now)).unwrap()
    }

    fn active(&self) -> String {
        self.status(NOW).active().unwrap().id.clone()
    }

    fn phases(&self) -> Vec<String> {
        self.status(NOW).roots.into_iter().map(|root| root.phase).collect()
    }

    fn advance(&self, now: u64) {
        self.authority.advance(at(now)).unwrap();
    }

    fn issue(&self, name: &str, now: u64) -> super::super::Issued {
        let issued =
            self.authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(now)).unwrap();
        self.authority.handed_out(name, &issued);
        issued
    }

    /// A sidecar that is connected, holds a fresh certificate and uses the bundle.
    fn join(&self, name: &str, now: u64) -> Sidecar {
        let issued = self.issue(name, now);
        let mut sidecar =
            Sidecar { stream: self.holders.attend(name), until: issued.not_after, key_ids: issued.key_ids };
        sidecar.acknowledge(&self.bundle());
        sidecar
    }
}

struct Sidecar {
    stream: Attending,
    until: i64,
    key_ids: Vec<Vec<u8>>,
}

impl Sidecar {
    fn acknowledge(&mut self, bundle: &TrustBundle) {
        let authorities = self.key_ids.clone();
        self.stream.uses(Held { bundle: bundle.place(), until: self.until, authorities });
    }

    fn renew(&mut self, office: &Office, name: &str, now: u64) {
        let issued = office.issue(name, now);
        (self.until, self.key_ids) = (issued.not_after, issued.key_ids);
        self.acknowledge(&office.bundle());
    }
}

#[test]
fn row_1_4_a_root_is_in_the_bundle_before_it_signs_and_signs_when_all_know_it() {
    let office = Office::new();
    let mut sidecar = office.join("shop/web-1", NOW);
    let first = office.active();

    let coming = office.authority.rotate_root(Force::No, at(NOW)).unwrap();
    assert_eq!(office.phases(), ["active", "published"]);
    assert_eq!(office.bundle().roots.len(), 2);
    assert_eq!(office.bundle().jwt_keys.len(), 2);
    office.advance(NOW + 120);
    assert_eq!(office.active(), first, "the sidecar has not acknowledged");
    let waiting = office.status(NOW + 120).next;
    assert_eq!(waiting[0].lagging.names[0].name, "shop/web-1");

    sidecar.acknowledge(&office.bundle());
    office.advance(NOW + 59);
    assert_eq!(office.active(), first, "whoever fetches bundles has a minute");
    office.advance(NOW + 60);
    assert_eq!(office.active(), coming);
    assert_eq!(office.phases(), ["retiring", "active"]);
    assert_eq!(office.issue("shop/web-1", NOW + 61).authority, coming);
}

#[test]
fn the_old_root_leaves_when_nothing_that_it_signed_is_valid() {
    let office = Office::new();
    let old_leaf = office.issue("shop/web-1", NOW);
    office.authority.rotate_root(Force::Yes, at(NOW + 1)).unwrap();
    assert_eq!(office.phases(), ["retiring", "active"]);
    let until = office.status(NOW).roots[0].leaves_until.unwrap();
    assert!(until >= old_leaf.not_after && until <= old_leaf.not_after + 900, "{until}");
    office.advance(u64::try_from(until).unwrap() - 1);
    assert_eq!(office.bundle().roots.len(), 2);
    let before = office.bundle();
    office.advance(u64::try_from(until).unwrap());
    assert_eq!(office.bundle().roots.len(), 1);
    assert!(office.bundle().place() > before.place());
}

#[test]
fn what_runs_under_a_root_that_left_in_order_may_run_on_for_a_day_unless_it_is_tainted_then() {
    for is_tainted in [false, true] {
        let office = Office::new();
        office.issue("shop/web-1", NOW);
        let (first, key_id) = (office.active(), subject_key_id(&office.bundle().roots[0]).unwrap());
        office.authority.rotate_root(Force::Yes, at(NOW + 1)).unwrap();
        let gone = u64::try_from(office.status(NOW).roots[0].leaves_until.unwrap()).unwrap();
        assert!(office.bundle().retired_keys.is_empty());
        office.advance(gone);
        assert_eq!(office.bundle().retired_keys, std::slice::from_ref(&key_id));

        if is_tainted {
            office.authority.taint(&first, at(gone + 1)).unwrap();
        } else {
            office.advance(gone + DAY - 1);
            assert_eq!(office.bundle().retired_keys, [key_id]);
            office.advance(gone + DAY);
        }
        assert!(office.bundle().retired_keys.is_empty());
    }
}

#[test]
fn whoever_is_away_with_a_valid_certificate_is_waited_for_by_name() {
    let office = Office::new();
    let away = office.issue("shop/till-1", NOW);
    let mut here = office.join("shop/web-1", NOW);
    let coming = office.authority.rotate_root(Force::No, at(NOW + 1)).unwrap();
    here.acknowledge(&office.bundle());
    office.advance(NOW + 600);
    assert_ne!(office.active(), coming);
    let names = office.status(NOW + 600).next[0].lagging.names.clone();
    assert_eq!((names.len(), names[0].name.as_str(), names[0].connected), (1, "shop/till-1", false));

    let refused = office.authority.rotate_root(Force::No, at(NOW + 601)).unwrap_err();
    assert!(refused.to_string().contains("shop/till-1"), "{refused}");
    // It comes back with a certificate and the new bundle; or its certificate ends.
    let now = u64::try_from(away.not_after).unwrap();
    here.renew(&office, "shop/web-1", now - 10);
    office.advance(now - 5);
    assert_ne!(office.active(), coming);
    office.advance(now);
    assert_eq!(office.active(), coming);
}

#[test]
fn what_a_control_plane_signed_before_it_was_killed_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let leaf = Office::at(&folder, at(NOW)).issue("shop/web-1", NOW);
    let office = Office::at(&folder, at(NOW + 10));
    let coming = office.authority.rotate_root(Force::No, at(NOW + 10)).unwrap();
    office.advance(u64::try_from(leaf.not_after).unwrap() - 1);
    assert_ne!(office.active(), coming);
    assert!(office.status(NOW + 20).next[0].lagging.names[0].name.contains("before"));
    office.advance(u64::try_from(leaf.not_after).unwrap() + 900);
    assert_eq!(office.active(), coming);
}

#[test]
fn t17_force_does_not_wait_and_a_second_rotation_is_refused() {
    let office = Office::new();
    let _lagging = office.join("shop/web-1", NOW);
    let coming = office.authority.rotate_root(Force::No, at(NOW)).unwrap();
    assert!(matches!(
        office.authority.rotate_root(Force::No, at(NOW)),
        Err(RotateError::OnItsWay { id, .. }) if id == coming
    ));
    assert_eq!(office.authority.rotate_root(Force::Yes, at(NOW)).unwrap(), coming, "the same goes on");
    assert_eq!(office.active(), coming);
    for _ in 0..20 {
        if let Err(error) = office.authority.rotate_root(Force::Yes, at(NOW)) {
            assert!(matches!(error, RotateError::TooMany), "{error}");
            return;
        }
    }
    panic!("roots without end");
}

#[test]
fn a_root_is_replaced_by_itself_in_the_middle_of_its_life_and_in_the_end_whoever_lags() {
    let office = Office::new();
    let first = office.active();
    let mut sidecar = office.join("shop/web-1", NOW);
    office.advance(NOW + 44 * DAY);
    assert_eq!(office.phases(), ["active"]);
    office.advance(NOW + 45 * DAY + HOUR);
    assert_eq!(office.phases(), ["active", "published"]);
    sidecar.until = i64::try_from(NOW + 200 * DAY).unwrap();
    office.advance(NOW + 80 * DAY);
    assert_eq!(office.active(), first, "one that is connected lags");
    office.advance(NOW + 82 * DAY);
    assert_ne!(office.active(), first, "the old root ends soon");
}

#[test]
fn a_tainted_root_goes_within_seconds_when_everybody_has_renewed() {
    let office = Office::new();
    let mut sidecar = office.join("shop/web-1", NOW);
    let first = office.active();
    let key_id = subject_key_id(&office.bundle().roots[0]).unwrap();

    office.authority.taint(&first, at(NOW + 1)).unwrap();
    assert_eq!(office.active(), first, "it knows no other yet");
    assert!(office.bundle().tainted_keys.is_empty(), "to renew now would be in vain");
    sidecar.acknowledge(&office.bundle());
    office.advance(NOW + 2);
    assert_ne!(office.active(), first);
    assert_eq!(office.bundle().tainted_keys, [key_id]);
    assert_eq!(office.bundle().roots.len(), 2, "it still lives by the old one");

    sidecar.renew(&office, "shop/web-1", NOW + 5);
    office.advance(NOW + 6);
    assert_eq!(office.bundle().roots.len(), 1);
    assert!(office.bundle().tainted_keys.is_empty());
    assert!(office.bundle().retired_keys.is_empty(), "what it vouched for ends");
    assert_eq!(office.phases(), ["active"]);
    assert!(matches!(office.authority.taint(&first, at(NOW + 7)), Err(RotateError::Unknown(_))));
}

#[test]
fn a_tainted_root_does_not_wait_for_ever_for_whoever_lags() {
    let office = Office::new();
    let _deaf = office.join("shop/web-1", NOW);
    let first = office.active();
    office.authority.taint(&first, at(NOW)).unwrap();
    office.advance(NOW + 29);
    assert_eq!(office.active(), first);
    office.advance(NOW + 30);
    assert_ne!(office.active(), first);
    office.advance(NOW + 89);
    assert_eq!(office.bundle().roots.len(), 2);
    office.advance(NOW + 90);
    assert_eq!(office.bundle().roots.len(), 1);
}

#[test]
fn a_root_that_is_tainted_before_it_signs_never_does() {
    let office = Office::new();
    let first = office.active();
    let _lagging = office.join("shop/web-1", NOW);
    let coming = office.authority.rotate_root(Force::No, at(NOW)).unwrap();
    office.authority.taint(&coming, at(NOW)).unwrap();
    assert_eq!((office.active(), office.bundle().roots.len()), (first, 1));
}

#[test]
fn t5_a_tainted_intermediate_is_replaced_then_renewed_away_from_then_refused() {
    let office = Office::new();
    let mut sidecar = office.join("shop/web-1", NOW);
    let spoilt = office.status(NOW).intermediate.unwrap().id;
    let key_id = sidecar.key_ids[0].clone();

    office.authority.taint(&spoilt, at(NOW + 1)).unwrap();
    assert_ne!(office.status(NOW).intermediate.unwrap().id, spoilt);
    assert_eq!(office.bundle().tainted_keys, std::slice::from_ref(&key_id));
    assert!(office.bundle().refused_keys.is_empty(), "it would be cut off");
    office.advance(NOW + 2);
    assert!(office.bundle().refused_keys.is_empty());
    sidecar.renew(&office, "shop/web-1", NOW + 3);
    office.advance(NOW + 4);
    assert_eq!(office.bundle().refused_keys, [key_id]);
    assert!(office.bundle().tainted_keys.is_empty());
    assert_eq!(office.bundle().roots.len(), 1, "the root stays");
    office.advance(NOW + 3 * DAY);
    assert!(office.bundle().refused_keys.is_empty(), "it has ended by itself");

    let unknown = "00".repeat(20);
    office.authority.taint(&unknown, at(NOW + 3 * DAY)).unwrap();
    assert!(matches!(office.authority.taint(&unknown, at(NOW + 3 * DAY)), Err(RotateError::Tainted(_))));
    for nobody in ["", "nobody", "00", &"0".repeat(41)] {
        assert!(matches!(office.authority.taint(nobody, at(NOW)), Err(RotateError::Unknown(_))), "{nobody}");
    }
}

#[test]
fn t5_a_taint_survives_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let office = Office::at(&folder, at(NOW));
    let leaf = office.issue("shop/web-1", NOW);
    let spoilt = office.status(NOW).intermediate.unwrap().id;
    office.authority.taint(&spoilt, at(NOW + 1)).unwrap();
    drop(office);
    let office = Office::at(&folder, at(NOW + 2));
    assert_eq!(office.bundle().tainted_keys, [leaf.key_ids[0].clone()]);
    office.advance(NOW + 61);
    assert_eq!(office.bundle().refused_keys, [leaf.key_ids[0].clone()]);
}

#[test]
fn t11_a_sidecar_that_knows_more_than_we_shows_that_our_state_is_an_old_one() {
    let office = Office::new();
    let ours = office.bundle();
    let sidecar = office.holders.attend("shop/web-1");
    let says = |bundle| sidecar.uses(Held { bundle, until: i64::MAX, authorities: Vec::new() });
    says((ours.epoch, ours.sequence + 3));
    office.advance(NOW + 10);
    let restored = office.bundle();
    assert!(restored.epoch > ours.epoch, "{:?}", restored.place());
    assert_eq!(restored.roots, ours.roots);

    says((NOW + 10 * DAY, 1));
    office.advance(NOW + 20);
    assert_eq!(office.bundle(), restored, "made up");
    says((restored.epoch + 5, 1));
    office.advance(NOW + 30);
    assert_eq!(office.bundle(), restored, "a state comes back once, while nobody runs on it");
}

#[test]
fn t11_a_sidecar_cannot_begin_a_new_history_of_a_state_that_has_been_running() {
    let office = Office::new();
    let ours = office.bundle();
    let sidecar = office.holders.attend("shop/web-1");
    office.advance(NOW + 600);
    sidecar.uses(Held { bundle: (ours.epoch, ours.sequence + 3), until: i64::MAX, authorities: Vec::new() });
    office.advance(NOW + 610);
    assert_eq!(office.bundle(), ours);
}

#[test]
fn t22_no_leaf_outlives_its_signer_nor_any_signer_its_root() {
    let home = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(domain(), Duration::from_secs(HOUR));
    setup.terms.root_life = Duration::from_secs(1000);
    setup.terms.intermediate_life = Duration::from_secs(400);
    let authority =
        Authority::open_with(&StateFolder::new(home.path().join("state")), setup, at(NOW)).unwrap();
    let csr = csr(&KeyPair::generate().unwrap());
    let mut now = NOW;
    while now < NOW + 3000 {
        now += 37;
        authority.advance(at(now)).unwrap();
        let issued = authority.issue(&csr, &web(), Some(Duration::from_secs(DAY)), at(now)).unwrap();
        let ends = |der: &[u8]| X509Certificate::from_der(der).unwrap().1.validity().not_after.timestamp();
        let roots = authority.bundle().borrow().roots.clone();
        let root = roots.iter().find(|root| subject_key_id(root).as_ref() == issued.key_ids.last()).unwrap();
        assert!(issued.not_after <= ends(&issued.chain[1]), "at {now}");
        assert!(ends(&issued.chain[1]) <= ends(root), "at {now}");
    }
    // Nobody cared for it: what has ended does not sign.
    let late = authority.issue(&csr, &web(), None, at(now + 10_000)).unwrap_err();
    assert!(matches!(late, IssueError::Sign(SignError::SignerEnds(_))), "{late}");
}

#[test]
fn a_control_plane_that_was_away_for_longer_than_its_root_lives_starts_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let before = Office::at(&folder, at(NOW)).bundle();
    for away in [40 * DAY, 89 * DAY, 400 * DAY] {
        let office = Office::at(&folder, at(NOW + away));
        office.advance(NOW + away);
        let issued = office.issue("shop/web-1", NOW + away);
        assert!(issued.not_after > i64::try_from(NOW + away).unwrap());
        assert!(office.bundle().place() >= before.place());
    }
    assert_ne!(Office::at(&folder, at(NOW + 400 * DAY)).bundle().roots, before.roots);
}

#[test]
fn rows_x2_x4_x5_x7_x8_every_signer_is_what_it_must_be() {
    let office = Office::new();
    let issued = office.issue("shop/web-1", NOW);
    let root = office.bundle().roots[0].clone();
    check::signer(&root, &root, &domain(), None).unwrap();
    check::signer(&issued.chain[1], &root, &domain(), Some(0)).unwrap();
    for der in [&root, &issued.chain[1]] {
        let (_, signer) = X509Certificate::from_der(der).unwrap();
        let basic = signer.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca, "X4");
        let usage = signer.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign(), "X5");
        let names = signer.subject_alternative_name().unwrap().unwrap();
        let uris: Vec<String> = names.value.general_names.iter().map(|name| format!("{name:?}")).collect();
        assert_eq!(uris, [r#"URI("spiffe://cluster.local")"#], "X2: no path");
        assert!(signer.name_constraints().unwrap().is_none(), "X7");
        assert!(subject_key_id(der).is_some(), "X8");
        assert!(signer.raw_serial().len() >= 15, "X8");
        let organization = signer.subject().iter_organization().next().unwrap().as_str().unwrap();
        assert_eq!(organization, "cluster.local");
    }
    let other = Office::new();
    assert_ne!(office.active(), other.active(), "X8: subjects are unique");
    assert!(check::signer(&issued.chain[0], &issued.chain[1], &domain(), Some(0)).is_err(), "a leaf is none");
    assert!(check::signer(&issued.chain[1], &root, &domain(), None).is_err(), "a path length is demanded");
    assert!(check::signer(&other.bundle().roots[0], &root, &domain(), None).is_err(), "of another signer");
    assert!(Leaf::parse(&root).is_err());
}

#[test]
fn t12_no_root_vouches_for_another_domain() {
    // What an authority signs is of its own trust domain, whatever is asked for; verifiers look at one bundle alone.
    let office = Office::new();
    let stranger = "spiffe://other.example/ns/shop/sa/web".parse().unwrap();
    let refused = office.authority.issue(&csr(&KeyPair::generate().unwrap()), &stranger, None, at(NOW));
    assert!(matches!(refused, Err(IssueError::Sign(SignError::OtherDomain(_)))), "{refused:?}");
}
