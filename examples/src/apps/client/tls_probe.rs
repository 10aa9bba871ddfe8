//! `shop tls-probe`: what a stranger can try with a certificate of his own. Presents it (or none), accepts whatever the
//! server presents, sends one request and prints how the other side answered.

use std::{fs::File, io::Read, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::apps::args::Args;

/// The whole attempt takes no longer.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Prints one JSON line: `{"accepted": bool, "alpn": …, "answer": …, "error": …}`. Fails when refused.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<ExitCode> {
    let identity = args.option("--identity")?;
    let alpn = args.options("--alpn")?;
    let address = args.word("HOST:PORT")?;
    args.end()?;

    let identity = identity.map(|file| read(&file)).transpose()?;
    let config = config(identity.as_deref(), &alpn)?;
    let outcome = timeout(ATTEMPT, attempt(config, &address)).await.context("no answer in time").flatten();
    match outcome {
        Ok((alpn, answer)) => {
            println!("{}", json!({ "accepted": true, "alpn": alpn, "answer": answer }));
            Ok(ExitCode::SUCCESS)
        }
        Err(err) => {
            println!("{}", json!({ "accepted": false, "error": format!("{err:#}") }));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// In TLS 1.3 a client learns only by its first read whether its certificate was accepted.
async fn attempt(config: ClientConfig, address: &str) -> anyhow::Result<(Option<String>, String)> {
    let stream = TcpStream::connect(address).await.context("connect")?;
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().to_canonical().into());
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("handshake")?;
    let alpn = tls.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    tls.write_all(b"GET /orders HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
        .await
        .context("first write")?;
    let mut answer = [0; 1024];
    let length = tls.read(&mut answer).await.context("first read")?;
    if length == 0 {
        bail!("closed without an answer");
    }
    let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
    Ok((alpn, answer))
}

/// PEM from a file, or from standard input, so that a key need not lie anywhere.
fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    let mut pem = Vec::new();
    match file {
        "-" => std::io::stdin().read_to_end(&mut pem).context("standard input")?,
        _ => File::open(file)
            .and_then(|mut opened| opened.read_to_end(&mut pem))
            .with_context(|| file.to_owned())?,
    };
    Ok(pem)
}

fn config(identity: Option<&[u8]>, alpn: &[String]) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match identity {
        Some(pem) => {
            let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pem)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

/// A stranger does not care whom he talks with.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
