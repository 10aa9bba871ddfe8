//! The state as bytes, and back: a line that says what it is and its checksum, then JSON. What is torn, changed or of
//! another kind is never read in part.
//!
//! Private keys lie in it as they are, or sealed (`seal`). Knows not where the bytes lie (`keep`).

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use douane_proto::id::TrustDomain;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    seal::{Boxed, Seal, SealError},
    sign::{self, SignError, Signer},
    standing::{Keys, Phase, Retired, Slot, Spoilt, Standing},
    status::{AtRest, Root, Tainted},
};

/// What every document begins with; the number is the version of the form.
const HEAD: &str = "douane-authority 1 sha256:";
/// Rotation needs two or three; who needs more has a loop.
const MOST_SLOTS: usize = 16;

/// Why bytes are no state of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("it is no state of an authority, or one of a version that this one does not know")]
    Foreign,
    #[error("its checksum is wrong: it was changed, or written in part")]
    Changed,
    #[error("it holds what no state can hold: {0}")]
    Senseless(String),
    #[error("it is of the trust domain {found}, the configured one is {wanted}")]
    OtherDomain { found: String, wanted: TrustDomain },
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("its root {id} cannot be used: {source}")]
    Root { id: String, source: SignError },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    trust_domain: String,
    generation: u64,
    epoch: u64,
    sequence: u64,
    roots: Vec<WrittenSlot>,
    spoilt_intermediates: Vec<WrittenSpoilt>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired_roots: Vec<WrittenRetired>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenSlot {
    id: String,
    phase: Phase,
    since: i64,
    tainted: bool,
    forced: bool,
    published_at: Option<u64>,
    leaves_until: Option<i64>,
    certificate: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Boxed>,
    jwt_key: Boxed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenSpoilt {
    id: String,
    key_id: String,
    since: i64,
    until: i64,
    refused: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenRetired {
    id: String,
    key_id: String,
    until: i64,
}

/// The bytes of a state.
pub(crate) fn encode(standing: &Standing, seal: &Seal) -> Result<Zeroizing<Vec<u8>>, DocumentError> {
    let domain = &standing.trust_domain;
    let slot = |slot: &Slot| {
        let place = |kind| format!("{domain}/{}/{kind}", slot.id);
        Ok(WrittenSlot {
            id: slot.id.clone(),
            phase: slot.phase,
            since: slot.since,
            tainted: slot.tainted,
            forced: slot.forced,
            published_at: slot.published_at,
            leaves_until: slot.leaves_until,
            certificate: STANDARD.encode(&slot.certificate),
            key: slot.keys.x509.as_ref().map(|key| seal.close(key, &place("x509"))).transpose()?,
            jwt_key: seal.close(&slot.keys.jwt, &place("jwt"))?,
        })
    };
    let spoilt = |spoilt: &Spoilt| WrittenSpoilt {
        id: spoilt.id.clone(),
        key_id: STANDARD.encode(&spoilt.key_id),
        since: spoilt.since,
        until: spoilt.until,
        refused: spoilt.refused,
    };
    let retired = |retired: &Retired| WrittenRetired {
        id: retired.id.clone(),
        key_id: STANDARD.encode(&retired.key_id),
        until: retired.until,
    };
    let written = Written {
        trust_domain: domain.to_string(),
        generation: standing.generation,
        epoch: standing.epoch,
        sequence: standing.sequence,
        roots: standing.slots.iter().map(slot).collect::<Result<_, DocumentError>>()?,
        spoilt_intermediates: standing.spoilt.iter().map(spoilt).collect(),
        retired_roots: standing.retired.iter().map(retired).collect(),
    };
    let body =
        serde_json::to_vec_pretty(&written).map_err(|error| DocumentError::Senseless(error.to_string()))?;
    let body = Zeroizing::new(body);
    let mut bytes = Zeroizing::new(format!("{HEAD}{}\n", checksum(&body)).into_bytes());
    bytes.extend_from_slice(&body);
    bytes.push(b'\n');
    Ok(bytes)
}

// Whole, unchanged, of our form.
fn unwrap(bytes: &[u8]) -> Result<Written, DocumentError> {
    let end_of_head = bytes.iter().position(|byte| *byte == b'\n').ok_or(DocumentError::Foreign)?;
    let (head, rest) = bytes.split_at(end_of_head);
    let sum = head.strip_prefix(HEAD.as_bytes()).ok_or(DocumentError::Foreign)?;
    let body =
        rest.strip_prefix(b"\n").and_then(|rest| rest.strip_suffix(b"\n")).ok_or(DocumentError::Changed)?;
    if checksum(body).as_bytes() != sum {
        return Err(DocumentError::Changed);
    }
    serde_json::from_slice(body).map_err(|error| DocumentError::Senseless(error.to_string()))
}

/// The state that `bytes` hold.
pub(crate) fn decode(bytes: &[u8], wanted: &TrustDomain, seal: &Seal) -> Result<Standing, DocumentError> {
    let written = unwrap(bytes)?;
    let senseless = |what: &str| DocumentError::Senseless(what.to_owned());
    if written.trust_domain != wanted.as_str() {
        return Err(DocumentError::OtherDomain { found: written.trust_domain, wanted: wanted.clone() });
    }
    let others = [written.spoilt_intermediates.len(), written.retired_roots.len()];
    if others.into_iter().chain([written.roots.len()]).any(|count| count > MOST_SLOTS) {
        return Err(senseless("more roots than a rotation needs"));
    }
    let slots: Vec<Slot> =
        written.roots.into_iter().map(|slot| slot.read(wanted, seal)).collect::<Result<_, _>>()?;
    if slots.iter().filter(|slot| slot.phase == Phase::Active).count() != 1 {
        return Err(senseless("not exactly one root signs"));
    }
    let spoilt =
        written.spoilt_intermediates.into_iter().map(WrittenSpoilt::read).collect::<Result<_, _>>()?;
    let retired = written.retired_roots.into_iter().map(WrittenRetired::read).collect::<Result<_, _>>()?;
    Ok(Standing {
        trust_domain: wanted.clone(),
        generation: written.generation,
        epoch: written.epoch,
        sequence: written.sequence,
        slots,
        spoilt,
        retired,
    })
}

/// Reads what may be told, of any trust domain, sealed or not.
pub(crate) fn at_rest(bytes: &[u8]) -> Result<AtRest, DocumentError> {
    let written = unwrap(bytes)?;
    let root = |slot: &WrittenSlot| {
        let (not_before, not_after) = sign::validity(&unbase64(&slot.certificate)?)
            .map_err(|source| DocumentError::Root { id: slot.id.clone(), source })?;
        Ok(Root {
            id: slot.id.clone(),
            phase: slot.phase.name().to_owned(),
            since: slot.since,
            tainted: slot.tainted,
            forced: slot.forced,
            not_before,
            not_after,
            leaves_until: slot.leaves_until,
        })
    };
    let tainted = |it: &WrittenSpoilt| Tainted { id: it.id.clone(), refused: it.refused, until: it.until };
    Ok(AtRest {
        roots: written.roots.iter().map(root).collect::<Result<_, DocumentError>>()?,
        tainted: written.spoilt_intermediates.iter().map(tainted).collect(),
        trust_domain: written.trust_domain,
        epoch: written.epoch,
        sequence: written.sequence,
    })
}

/// Which state these bytes are.
pub(crate) fn generation(bytes: &[u8]) -> Result<u64, DocumentError> {
    unwrap(bytes).map(|written| written.generation)
}

/// Do private keys lie open in these bytes of a state?
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    // As `Boxed::Plain` is written; base64 holds no quotation marks.
    bytes.windows(8).any(|window| window == b"\"plain\":")
}

impl WrittenSlot {
    fn read(self, domain: &TrustDomain, seal: &Seal) -> Result<Slot, DocumentError> {
        let place = |kind| format!("{domain}/{}/{kind}", self.id);
        let keys = Keys {
            x509: self.key.as_ref().map(|key| seal.open(key, &place("x509"))).transpose()?,
            jwt: seal.open(&self.jwt_key, &place("jwt"))?,
        };
        let certificate = unbase64(&self.certificate)?;
        let stored = |source| DocumentError::Root { id: self.id.clone(), source };
        if let Some(key) = &keys.x509 {
            Signer::restore(certificate.clone(), key, domain).map_err(stored)?;
        }
        let stands = Slot::new(self.id.clone(), certificate, keys, self.since).map_err(stored)?;
        Ok(Slot {
            phase: self.phase,
            tainted: self.tainted,
            forced: self.forced,
            published_at: self.published_at,
            leaves_until: self.leaves_until,
            ..stands
        })
    }
}

impl WrittenRetired {
    fn read(self) -> Result<Retired, DocumentError> {
        Ok(Retired { key_id: unbase64(&self.key_id)?, id: self.id, until: self.until })
    }
}

impl WrittenSpoilt {
    fn read(self) -> Result<Spoilt, DocumentError> {
        let key_id = unbase64(&self.key_id)?;
        Ok(Spoilt { id: self.id, key_id, since: self.since, until: self.until, refused: self.refused })
    }
}

fn unbase64(text: &str) -> Result<Vec<u8>, DocumentError> {
    STANDARD.decode(text).map_err(|error| DocumentError::Senseless(error.to_string()))
}

fn checksum(bytes: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA256, bytes);
    crate::hex::encode(sum.as_ref())
}
