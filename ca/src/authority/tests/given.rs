//! A root that others give us: any chain and key that fit are signed with, none that does not, and another takes its
//! place by the same way as one of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use douane_proto::svid::{authority_key_id, subject_key_id};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, SignatureAlgorithm, string::PrintableString,
};

use super::{Authority, NOW, OpenError, Setup, at, csr, domain, web};
use crate::{
    authority::{Force, GivenRoot, RotateError, Status},
    holders::{Held, Holders},
    state::StateFolder,
};

struct Ground {
    home: tempfile::TempDir,
}

// What a company's own authority looks like: not as ours.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "DE");
    params.distinguished_name.push(DnType::OrganizationName, "Example Corp");
    let printable = DnValue::PrintableString(PrintableString::try_from(name).unwrap());
    params.distinguished_name.push(DnType::CommonName, printable);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2035, 1, 1);
    params
}

impl Ground {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn files(&self) -> GivenRoot {
        GivenRoot { certificate: self.home.path().join("chain.pem"), key: self.home.path().join("key.pem") }
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// A root, and an authority below it whose key is given.
    fn write(
        &self,
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<u8> {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate_for(algorithm).unwrap());
        let root = params("Root");
        let root_certificate = root.self_signed(&root_key).unwrap();
        let mut below = params("Issuing");
        below.use_authority_key_identifier_extension = true;
        change(&mut below);
        let certificate = below.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        self.put(&format!("{}{}", certificate.pem(), root_certificate.pem()), &key.serialize_pem());
        root_certificate.der().to_vec()
    }

    fn put(&self, chain: &str, key: &str) {
        fs::write(self.files().certificate, chain).unwrap();
        fs::write(self.files().key, key).unwrap();
    }

    fn open(&self, holders: &Holders, now: u64) -> Result<Authority, String> {
        let elsewhere = self.files().watch().map_err(|error| error.to_string())?;
        let mut setup = Setup::new(domain(), Duration::from_secs(3600));
        setup.terms.root_lead = Duration::from_secs(1);
        (setup.elsewhere, setup.holders) = (Some(elsewhere), holders.clone());
        Authority::open_with(&StateFolder::new(self.state()), setup, at(now)).map_err(in_full)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err gives")]
fn in_full(error: OpenError) -> String {
    let source = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

fn issue(authority: &Authority, now: u64) -> super::super::Issued {
    authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(now)).unwrap()
}

fn active(authority: &Authority) -> String {
    let status: Status = authority.status(at(NOW)).unwrap();
    status.active().unwrap().id.clone()
}

#[test]
fn a_given_chain_signs_and_its_root_is_what_sidecars_trust() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let ground = Ground::new();
        let root = ground.write(algorithm, |_| {});
        let authority = ground.open(&Holders::default(), NOW).unwrap();
        assert_eq!(authority.bundle().borrow().roots, std::slice::from_ref(&root));
        let issued = issue(&authority, NOW);
        assert_eq!(issued.chain.len(), 3, "leaf, our intermediate, theirs");
        assert_eq!(authority_key_id(&issued.chain[0]), subject_key_id(&issued.chain[1]));
        assert_eq!(authority_key_id(&issued.chain[1]), subject_key_id(&issued.chain[2]));
        assert_eq!(authority_key_id(&issued.chain[2]), subject_key_id(&root));
        assert_eq!(issued.key_ids.len(), 3);
        drop(authority);
        let text = fs::read_to_string(ground.state().join("authority")).unwrap();
        assert!(!text.contains("\"key\""), "the given key is never written");
        assert_eq!(ground.open(&Holders::default(), NOW + 1).unwrap().bundle().borrow().roots, [root]);
    }
}

#[test]
fn a_given_root_that_changes_waits_for_sidecars_as_one_of_our_own() {
    let ground = Ground::new();
    ground.write(&rcgen::PKCS_ECDSA_P256_SHA256, |_| {});
    let holders = Holders::default();
    let authority = ground.open(&holders, NOW).unwrap();
    let before = active(&authority);
    let sidecar = holders.attend("shop/web-1");
    let uses = |authority: &Authority| {
        let bundle = authority.bundle().borrow().place();
        sidecar.uses(Held { bundle, until: i64::MAX, authorities: Vec::new() });
    };
    uses(&authority);

    // Other lengths, so that also a clock that is coarse shows the change.
    let new = ground.write(&rcgen::PKCS_ECDSA_P384_SHA384, |_| {});
    authority.advance(at(NOW + 10)).unwrap();
    assert_eq!(authority.bundle().borrow().roots.len(), 2);
    authority.advance(at(NOW + 60)).unwrap();
    assert_eq!(active(&authority), before, "the sidecar does not know it yet");
    assert_eq!(issue(&authority, NOW + 60).authority, before);
    uses(&authority);
    authority.advance(at(NOW + 61)).unwrap();
    assert_ne!(active(&authority), before);
    let issued = issue(&authority, NOW + 62);
    assert_eq!(issued.key_ids.last(), subject_key_id(&new).as_ref());
    assert!(matches!(authority.rotate_root(Force::No, at(NOW + 63)), Err(RotateError::NotOurs)));
    authority.rotate_intermediate(at(NOW + 64)).unwrap();
}

#[test]
fn our_own_root_gives_way_to_a_given_one_and_back() {
    let ground = Ground::new();
    let own = Authority::open(&StateFolder::new(ground.state()), &domain(), Duration::from_secs(60), at(NOW))
        .unwrap();
    let first = active(&own);
    drop(own);
    let root = ground.write(&rcgen::PKCS_ECDSA_P256_SHA256, |_| {});
    let authority = ground.open(&Holders::default(), NOW + 1).unwrap();
    assert_eq!(active(&authority), first, "nobody knows the given one yet");
    authority.advance(at(NOW + 2)).unwrap();
    assert_eq!(authority.bundle().borrow().roots.len(), 2);
    authority.advance(at(NOW + 4)).unwrap();
    assert_ne!(active(&authority), first);
    assert_eq!(issue(&authority, NOW + 4).key_ids.last(), subject_key_id(&root).as_ref());
    drop(authority);

    let back =
        Authority::open(&StateFolder::new(ground.state()), &domain(), Duration::from_secs(60), at(NOW + 9))
            .unwrap();
    assert_eq!(issue(&back, NOW + 9).chain.len(), 2);
    assert!(back.bundle().borrow().roots.contains(&root), "what it signed is still valid");
}

#[test]
fn a_chain_or_key_that_does_not_fit_is_refused_with_what_to_mend() {
    let ground = Ground::new();
    let refusal = |ground: &Ground| ground.open(&Holders::default(), NOW).map(drop).unwrap_err();
    let shows = |ground: &Ground, words: &str| {
        let refused = refusal(ground);
        assert!(refused.contains(words), "{refused:?} does not say {words:?}");
    };
    shows(&ground, "chain.pem");
    ground.write(&rcgen::PKCS_ECDSA_P256_SHA256, |_| {});
    let chain = fs::read_to_string(ground.files().certificate).unwrap();
    let key = fs::read_to_string(ground.files().key).unwrap();
    let end = chain.find("-----END CERTIFICATE-----").unwrap() + 26;

    ground.put("", &key);
    shows(&ground, "no certificate");
    ground.put(&key, &key);
    shows(&ground, "something else");
    ground.put(&chain.repeat(3), &key);
    shows(&ground, "longer");
    ground.put(&chain[..end], &key);
    shows(&ground, "not self-signed");
    ground.put(&format!("{}{}", &chain[end..], &chain[..end]), &key);
    shows(&ground, "not the one of its certificate");
    ground.put(&chain, &KeyPair::generate().unwrap().serialize_pem());
    shows(&ground, "not the one of its certificate");
    ground.put(&chain, "garbage");
    assert!(!refusal(&ground).is_empty());

    ground.write(&rcgen::PKCS_ECDSA_P256_SHA256, |it| it.is_ca = IsCa::ExplicitNoCa);
    shows(&ground, "");
    ground.write(&rcgen::PKCS_ECDSA_P256_SHA256, |it| it.not_after = rcgen::date_time_ymd(2026, 1, 1));
    shows(&ground, "");
    ground.write(&rcgen::PKCS_ECDSA_P256_SHA256, |it| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("example.com".to_owned())];
        it.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    });
    shows(&ground, "name constraints");
    assert!(!Path::exists(&ground.state().join("authority")), "nothing was made in its place");
}
