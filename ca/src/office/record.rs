//! What of a petition and its answer is written into the audit log. Never a token, never a key: of the key its hash.

use douane_proto::id::WorkloadId;

use super::{refusal::Refusal, token::Claims};
use crate::{
    attest::Attested,
    audit::{Event, Record},
    authority::{Issued, key_hash},
    peer::Peer,
};

/// A certificate that is about to leave.
pub(super) fn issued(issued: &Issued, attested: &Attested, peer: &Peer) -> Record {
    Record {
        identity: Some(attested.id.to_string()),
        serial: Some(issued.serial.clone()),
        authority: Some(issued.authority.clone()),
        not_after: Some(issued.not_after),
        evidence: Some(attested.evidence.to_owned()),
        bound_to: attested.bound_to.clone(),
        key: issued.chain.first().map(|leaf| key_hash(leaf)),
        ..Record::of(Event::Issued)
    }
    .from_peer(peer.from)
}

/// A token that is about to leave: its id in the place of a serial number, and whom it is for.
pub(super) fn token(claims: &Claims, id: &WorkloadId, peer: &Peer) -> Record {
    Record {
        identity: Some(id.to_string()),
        serial: Some(claims.id.clone()),
        not_after: Some(claims.expires),
        evidence: Some("certificate".to_owned()),
        ..Record::of(Event::TokenIssued)
    }
    .because(format!("for {}", claims.audiences.join(", ")))
    .from_peer(peer.from)
}

/// Nothing leaves.
pub(super) fn refused(refusal: &Refusal, evidence: &'static str, peer: &Peer) -> Record {
    Record {
        // Who the connection's certificate says it is; what the evidence claims was not proven.
        identity: peer.id.as_ref().map(ToString::to_string),
        label: Some(refusal.label().to_owned()),
        evidence: Some(evidence.to_owned()),
        ..Record::of(Event::Refused)
    }
    .because(refusal.to_string())
    .from_peer(peer.from)
}
