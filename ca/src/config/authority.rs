//! `authority`: how long the authority's own certificates live, and what seals its roots at rest.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::ConfigError;

/// Shorter, and rotation never comes to rest.
const SHORTEST_ROOT: Duration = Duration::from_secs(60);
/// Longer ones are not replaced by anybody who is still there.
const LONGEST_ROOT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long the authority's own certificates live, and what seals its roots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AuthorityLives {
    /// How long a root lives; another is prepared at half of that.
    #[serde(deserialize_with = "super::duration")]
    pub root_ttl: Duration,
    /// How long an intermediate lives; it is replaced at half of that.
    #[serde(deserialize_with = "super::duration")]
    pub intermediate_ttl: Duration,
    /// From the publication of a root to its first signature, at least: whoever fetches bundles does so in this.
    #[serde(deserialize_with = "super::duration")]
    pub root_lead: Duration,
    /// What seals the private keys of roots at rest; without it they lie in a file of mode 600.
    pub root_seal: Option<RootSeal>,
    /// A root that is given instead of made: it is watched for changes, and never written.
    pub root: Option<RootFiles>,
    /// Who signs our intermediates, and keeps the root.
    pub upstream: Option<Upstream>,
}

/// Who signs our intermediates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Upstream {
    /// A PKI engine of Vault or OpenBao.
    Vault(Vault),
    /// An issuer of cert-manager's, in the cluster of `kubernetes`.
    CertManager(CertManager),
}

/// An issuer of cert-manager's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CertManager {
    /// Which.
    pub issuer: IssuerRef,
}

/// An issuer's name, as a `CertificateRequest` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct IssuerRef {
    /// Its name.
    pub name: String,
    /// `Issuer` (of our own namespace), `ClusterIssuer`, or somebody else's kind.
    pub kind: String,
    /// The API group of the kind.
    pub group: String,
}

impl Default for IssuerRef {
    fn default() -> Self {
        let text = str::to_owned;
        Self { name: String::new(), kind: text("Issuer"), group: text("cert-manager.io") }
    }
}

/// A PKI engine of Vault or OpenBao.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Vault {
    /// Such as `https://vault.example.com:8200`.
    pub url: String,
    /// PEM certificates that vouch for the URL; the system's where none is given.
    #[serde(default)]
    pub trust: Option<PathBuf>,
    /// Where the engine is mounted.
    #[serde(default = "pki")]
    pub mount: String,
    /// The issuer of the engine; its default where none is given.
    #[serde(default)]
    pub issuer: Option<String>,
    /// `X-Vault-Namespace`.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Who we are there.
    pub login: VaultLogin,
}

/// Who we are at a Vault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum VaultLogin {
    /// Whoever holds the token in this file; somebody else renews it.
    Token {
        /// The file, read at each use.
        file: PathBuf,
    },
    /// The Kubernetes service account whose token lies in this file.
    Kubernetes {
        /// The role that is bound to it.
        role: String,
        /// Where that kind of log-in is mounted.
        #[serde(default = "kubernetes")]
        mount: String,
        /// The token, read at each use.
        #[serde(default = "service_account_token")]
        token_file: PathBuf,
    },
}

fn pki() -> String {
    "pki".to_owned()
}

fn kubernetes() -> String {
    "kubernetes".to_owned()
}

fn service_account_token() -> PathBuf {
    "/var/run/secrets/kubernetes.io/serviceaccount/token".into()
}

/// A root in files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RootFiles {
    /// PEM: the certificate that signs our intermediates, then its issuers, up to a self-signed root.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// What seals the private keys of roots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RootSeal {
    /// 32 random bytes in a file of mode 600, such as a mounted secret.
    pub key_file: PathBuf,
}

impl AuthorityLives {
    // A leaf never outlives its signer: half of an intermediate's life is what leaves can have.
    pub(super) fn check(&self, leaf: Duration) -> Result<(), ConfigError> {
        let wrong = |what: String| Err(ConfigError::Lives(what));
        let text = |duration| humantime::format_duration(duration).to_string();
        if self.root.is_some() && self.upstream.is_some() {
            return wrong("give root or upstream, not both: only one can sign our intermediates".to_owned());
        }
        if self.intermediate_ttl < leaf * 2 {
            let (intermediate, leaf) = (text(self.intermediate_ttl), text(leaf));
            return wrong(format!(
                "an intermediate of {intermediate} (intermediateTtl) cuts leaves of {leaf} (leafTtl) short: it lives twice as long at least"
            ));
        }
        if self.root_ttl < (self.intermediate_ttl * 2).max(SHORTEST_ROOT) || self.root_ttl > LONGEST_ROOT {
            return wrong(format!(
                "a root lives twice as long as its intermediates (intermediateTtl {}), at least {}, and at most 10 years; \
                 rootTtl is {}",
                text(self.intermediate_ttl),
                text(SHORTEST_ROOT),
                text(self.root_ttl)
            ));
        }
        if self.root_lead > self.root_ttl / 4 {
            return wrong(format!(
                "rootLead {} is more than a quarter of rootTtl {}: the next root would come too late",
                text(self.root_lead),
                text(self.root_ttl)
            ));
        }
        Ok(())
    }
}

impl Default for AuthorityLives {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            root_ttl: DAY * 90,
            // Twice the longest leaf: replaced at half of it, so that no leaf is ever cut short by its signer.
            intermediate_ttl: DAY * 2,
            // Five times what whoever fetches bundles is told to wait.
            root_lead: Duration::from_secs(5 * 60),
            root_seal: None,
            root: None,
            upstream: None,
        }
    }
}
