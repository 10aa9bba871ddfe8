//! Who signs our intermediates: a root whose key we keep, or somebody else, who gets a request and gives a certificate with
//! its way up to a root.
//!
//! Knows not who that somebody is (`given`, or an upstream over the network): it is handed in as a function.

use std::{sync::Arc, time::Duration};

use douane_proto::id::TrustDomain;

use super::{
    sign::{Petition, SignError, Signer},
    standing::Slot,
};

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// DER: the intermediate, then what stands between it and the root.
    pub chain: Vec<Vec<u8>>,
    /// DER: the root, self-signed, which sidecars trust.
    pub root: Vec<u8>,
}

/// Signs elsewhere; may wait for a network. The error is for a human, and says how to mend it.
pub(crate) type SignElsewhere = dyn Fn(&Petition) -> Result<Vouched, String> + Send + Sync;

/// Somebody else who signs.
#[derive(Clone)]
pub struct Elsewhere {
    /// Signs.
    pub sign: Arc<SignElsewhere>,
    /// Would it sign otherwise than the last time? Asked once a second.
    pub has_changed: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Who signs intermediates below one root.
#[derive(Clone)]
pub(crate) enum Above {
    Kept(Arc<Signer>),
    Elsewhere(Elsewhere),
}

/// A fresh intermediate with its way up.
pub(crate) struct Fresh {
    pub(crate) intermediate: Arc<Signer>,
    /// Between it and the root, DER.
    pub(crate) between: Vec<Vec<u8>>,
    pub(crate) root: Vec<u8>,
}

impl Above {
    /// Who signs below the root of `slot`.
    pub(crate) fn of(
        slot: &Slot,
        elsewhere: Option<&Elsewhere>,
        domain: &TrustDomain,
    ) -> Result<Self, SignError> {
        match (&slot.keys.x509, elsewhere) {
            (Some(key), _) => {
                Ok(Self::Kept(Arc::new(Signer::restore(slot.certificate.clone(), key, domain)?)))
            }
            (None, Some(elsewhere)) => Ok(Self::Elsewhere(elsewhere.clone())),
            (None, None) => {
                Err(SignError::Stored("its key lies elsewhere, and the configuration does not say where"))
            }
        }
    }

    /// Makes a key and has it signed.
    pub(crate) fn fresh(&self, domain: &TrustDomain, life: Duration, now: i64) -> Result<Fresh, SignError> {
        match self {
            Self::Kept(root) => Ok(Fresh {
                intermediate: Arc::new(root.intermediate(domain, life, now)?),
                between: Vec::new(),
                root: root.certificate.clone(),
            }),
            Self::Elsewhere(elsewhere) => elsewhere.fresh(domain, life, now),
        }
    }
}

impl Elsewhere {
    pub(crate) fn fresh(&self, domain: &TrustDomain, life: Duration, now: i64) -> Result<Fresh, SignError> {
        let (petition, key) = Signer::petition(domain, life, now)?;
        let Vouched { mut chain, root } = (self.sign)(&petition).map_err(SignError::Elsewhere)?;
        let intermediate = Arc::new(Signer::vouched(&petition, key, (&chain, &root))?);
        chain.remove(0);
        Ok(Fresh { intermediate, between: chain, root })
    }
}
