//! The passport office of a test: one root, and certificates for whomever a case names.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::{Identity, Svid, TrustBundle},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use zeroize::Zeroizing;

const LIFE: Duration = Duration::from_secs(3600);

/// Signs what it is asked to.
pub(crate) struct Office {
    root: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    trust_domain: TrustDomain,
}

impl Office {
    /// Of a trust domain.
    pub(crate) fn new(trust_domain: &TrustDomain) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self { root, issuer: Issuer::new(params, key), trust_domain: trust_domain.clone() }
    }

    /// An identity with the office's bundle.
    pub(crate) fn identity(&self, id: &WorkloadId) -> Arc<Identity> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.checked_sub(Duration::from_secs(60)).unwrap();
        params.not_after = epoch + now + LIFE;
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        let bundle = TrustBundle::of_roots(self.trust_domain.clone(), vec![self.root.clone()]);
        let svid = Svid::parse(vec![leaf], Zeroizing::new(key.serialize_der())).unwrap();
        Arc::new(Identity { svid, bundle: Arc::new(bundle), generation: 1 })
    }
}
