//! Istio's certificate service, as its agents and ztunnel speak it: the same office, another wire. Names in the request
//! are not read, and a lifetime beyond ours is cut and not refused.
//!
//! Roots travel in the answer alone (its last element): whoever asks this way learns of a new root at its next renewal.
//! Knows not who gets a certificate and why (`office`).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use douane_proto::istio::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::IstioCertificateService,
};
use pem::{EncodeConfig, LineEnding, Pem};
use prost_types::value::Kind;
use tonic::{Request, Response, Status, async_trait, metadata::MetadataMap};

use crate::{
    attest::Evidence,
    office::{Office, Petition, Refusal},
    peer::Peer,
};

/// A request of 8 KiB in base64, with room for metadata; the token travels in a header.
pub(crate) const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Where ztunnel names the pod that it asks for.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// What a certificate request is called, today and by older tools.
const TITLES: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// Answers `istio.v1.auth.IstioCertificateService`.
pub struct IstioService {
    office: Arc<Office>,
}

impl IstioService {
    /// A service in front of `office`.
    #[must_use]
    pub fn new(office: Arc<Office>) -> Self {
        Self { office }
    }

    async fn answer(
        &self,
        evidence: Result<Evidence, Refusal>,
        request: IstioCertificateRequest,
        peer: &Peer,
    ) -> Result<IstioCertificateResponse, Refusal> {
        let kind = evidence.as_ref().map_or("none", Evidence::kind);
        let petition = match evidence.and_then(|evidence| petition(evidence, &request)) {
            Ok(petition) => petition,
            Err(refusal) => return Err(self.office.refuse(refusal, kind, peer).await),
        };
        let issued = self.office.answer(petition, peer, SystemTime::now()).await?;
        let bundle = self.office.bundle().borrow().clone();
        let roots = bundle.roots.iter().map(|root| to_pem(root)).collect();
        let chain = issued.chain.iter().map(|certificate| to_pem(certificate));
        Ok(IstioCertificateResponse { cert_chain: chain.chain([roots]).collect() })
    }
}

#[async_trait]
impl IstioCertificateService for IstioService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Err(Status::internal("the connection has no peer"));
        };
        let evidence = bearer(request.metadata());
        let answer = self.answer(evidence, request.into_inner(), &peer).await;
        answer.map(Response::new).map_err(|refusal| refusal.status())
    }
}

// Without a token, the certificate that the connection showed must do.
fn bearer(metadata: &MetadataMap) -> Result<Evidence, Refusal> {
    let mut headers = metadata.get_all("authorization").iter();
    let Some(header) = headers.next() else { return Ok(Evidence::Connection) };
    if headers.next().is_some() {
        return Err(Refusal::Malformed("more than one authorization header"));
    }
    let text = header.to_str().map_err(|_| Refusal::Malformed("an authorization header that is no text"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Evidence::Token(token.trim().to_owned().into()))
        }
        _ => Err(Refusal::Malformed("an authorization header without \"Bearer\" and a token")),
    }
}

fn petition(evidence: Evidence, request: &IstioCertificateRequest) -> Result<Petition, Refusal> {
    let asks_for = request.metadata.as_ref().and_then(|metadata| metadata.fields.get(IMPERSONATED));
    let asks_for = asks_for.and_then(|value| value.kind.as_ref());
    if !matches!(asks_for, None | Some(Kind::NullValue(_)))
        && asks_for != Some(&Kind::StringValue(String::new()))
    {
        return Err(Refusal::Impersonation);
    }
    let wanted = u64::try_from(request.validity_duration).ok().filter(|seconds| *seconds > 0);
    Ok(Petition { evidence, csr: from_pem(&request.csr)?, wanted: wanted.map(Duration::from_secs) })
}

fn from_pem(text: &str) -> Result<Vec<u8>, Refusal> {
    let wrong = Refusal::Malformed("a request that is not one PEM block CERTIFICATE REQUEST");
    let Ok(blocks) = pem::parse_many(text) else { return Err(wrong) };
    match <[Pem; 1]>::try_from(blocks) {
        Ok([block]) if TITLES.contains(&block.tag()) => Ok(block.into_contents()),
        _ => Err(wrong),
    }
}

fn to_pem(der: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der), config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_read_strictly_and_its_absence_is_no_fault() {
        let metadata = |values: &[&'static str]| {
            let mut metadata = MetadataMap::new();
            for value in values {
                metadata.append("authorization", value.parse().unwrap());
            }
            metadata
        };
        assert!(matches!(bearer(&metadata(&[])), Ok(Evidence::Connection)));
        for right in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c "] {
            let Ok(Evidence::Token(token)) = bearer(&metadata(&[right])) else { panic!("{right}") };
            assert_eq!(token.as_str(), "a.b.c");
        }
        for wrong in [&["Basic a.b.c"][..], &["Bearer "], &["Bearer"], &["a.b.c"], &["Bearer a", "Bearer b"]]
        {
            assert!(matches!(bearer(&metadata(wrong)), Err(Refusal::Malformed(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_request_is_one_block_of_its_name() {
        let block = |tag: &str| format!("-----BEGIN {tag}-----\nAQI=\n-----END {tag}-----\n");
        for tag in TITLES {
            assert_eq!(from_pem(&block(tag)).unwrap(), [1, 2]);
        }
        for wrong in ["", "AQI=", &block("CERTIFICATE"), &block(TITLES[0]).repeat(2)] {
            assert!(from_pem(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_request_is_for_somebody_else() {
        let request = |fields: &[(&str, Kind)]| {
            let fields = fields
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), prost_types::Value { kind: Some(kind.clone()) }));
            IstioCertificateRequest {
                csr: String::new(),
                validity_duration: 0,
                metadata: Some(prost_types::Struct { fields: fields.collect() }),
            }
        };
        let text = |text: &str| Kind::StringValue(text.to_owned());
        for impersonating in [text("spiffe://cluster.local/ns/shop/sa/web"), Kind::BoolValue(true)] {
            let refused = petition(Evidence::Connection, &request(&[(IMPERSONATED, impersonating)]));
            assert!(matches!(refused, Err(Refusal::Impersonation)));
        }
        // Empty is how some clients leave a field out; others name their cluster.
        let fields = [(IMPERSONATED, text("")), ("ClusterID", text("Kubernetes"))];
        let refused = petition(Evidence::Connection, &request(&fields)).err();
        assert!(matches!(refused, Some(Refusal::Malformed(_))), "only its CSR is at fault");
    }
}
