//! A real certificate in the wrong hands: issued by the mesh's own authority for a join token, kept past its end.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use douane_proto::wire::{IssueRequest, identity_client::IdentityClient, issue_request::Evidence};
use douane_proxy::tls::channel::{Authentication, ControlPlane, Dialer};
use pem::Pem;
use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpStream;

use crate::demo::forge::Passport;

/// The name that the control plane must prove.
const AUTHORITY: &str = "spiffe://cluster.local/ns/douane-system/sa/douane-ca";

/// Asks the authority at `address` for a certificate of the identity that the join token stands for. Blocks.
///
/// # Errors
/// The authority cannot be reached, or refuses.
pub fn issued(
    address: SocketAddr,
    bundle_file: PathBuf,
    join_token: &str,
    lifetime: Duration,
) -> anyhow::Result<Passport> {
    let authority = ControlPlane {
        host: address.ip().to_string(),
        port: address.port(),
        id: AUTHORITY.parse()?,
        bundle_file,
        dialer: Dialer::new(TcpStream::connect),
    };
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let request = IssueRequest {
        csr: csr.der().to_vec(),
        lifetime_seconds: u32::try_from(lifetime.as_secs())?,
        evidence: Some(Evidence::JoinToken(join_token.to_owned())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let chain = runtime.block_on(async {
        let channel = authority.connect(None, Authentication::Server).await?;
        let issued = IdentityClient::new(channel).issue(request).await.context("ask for a certificate")?;
        anyhow::Ok(issued.into_inner().chain)
    })?;
    let chain: Vec<_> = chain.into_iter().map(|der| Pem::new("CERTIFICATE", der)).collect();
    Ok(Passport { chain: pem::encode_many(&chain), key: key.serialize_pem() })
}
