//! What one control plane is told: a YAML file, with a default for all but the state folder; flags are laid over it.
//!
//! A leaf: knows no room. Unknown fields are refused, so that a misspelt one does not silently do nothing.

mod audit;
mod authority;
mod cluster;
mod federation;
mod injection;
mod keys;
mod oidc;
mod providers;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use douane_proto::{
    id::TrustDomain,
    law::LawSettings,
    mtls::MtlsMode,
    policy::Provider,
    snapshot::{MeshSettings, OutboundMode, PathNormalization},
};
use serde::{Deserialize, Deserializer, de::Error as _};

pub use audit::{Audit, Durability};
pub use authority::{
    AuthorityLives, CertManager, IssuerRef, RootFiles, RootSeal, Upstream, Vault, VaultLogin,
};
pub use cluster::{Kubernetes, StatePlace};
pub use federation::{BundleEndpoint, BundleSource, EndpointSvid, Profile, Relation, WebCertificate};
pub use injection::{Injection, Order, Permission, PullPolicy, Resources, Webhook};
pub use keys::Jwks;
pub use oidc::{ClaimName, IdentityRule, Oidc, Unix, User};

/// gRPC of the control plane.
pub const GRPC_PORT: u16 = 15012;
/// Our own namespace and service account.
pub const OWN_NAMESPACE: &str = "douane-system";
/// Namespaces that a mesh needs in order to live: nothing in them is ever meshed.
pub const SYSTEM_NAMESPACES: [&str; 4] = [OWN_NAMESPACE, "kube-system", "kube-public", "kube-node-lease"];
/// See [`OWN_NAMESPACE`].
pub const OWN_ACCOUNT: &str = "douane-ca";
/// The service by which sidecars and the API server find us: our account's name.
pub const SERVICE_NAME: &str = "douane-ca.douane-system.svc";

/// What a certificate may live: below, clocks and renewals cannot keep up; above, it is no short-lived certificate.
pub const LEAF_LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(24 * 3600);

/// What one control plane is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// The state folder; required, here or as `--dir`.
    pub dir: Option<PathBuf>,
    /// Where another control plane runs on the folder: wait, and take its place when it ends, however it ends.
    pub standby: bool,
    /// Sign beside others on the same folder: one of them leads and alone changes the authority, any may die.
    pub replica: bool,
    /// Where gRPC is served; all addresses at port 15012 when empty.
    pub listen: Vec<SocketAddr>,
    /// Folders of YAML files, the last one wins.
    pub resources: Vec<PathBuf>,
    /// Read the resources from the Kubernetes API instead of folders.
    pub kubernetes: Option<Kubernetes>,
    /// Whose identities are signed.
    #[serde(deserialize_with = "trust_domain")]
    pub trust_domain: TrustDomain,
    /// Other names of the trust domain: peers of them are ours, and policies that name one mean all. Nothing is signed
    /// for them.
    #[serde(deserialize_with = "trust_domains")]
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Proxies in front of the mesh whose word on the client's address (`X-Forwarded-For`, counted from the right) is
    /// believed by `remoteIpBlocks` and `remote.ip`; any peer can write what stands there.
    pub num_trusted_proxies: u8,
    /// What the names of services end in, after `.svc.`.
    pub cluster_domain: String,
    /// Policies and entries of this namespace count everywhere.
    pub root_namespace: String,
    /// How long certificates live unless a sidecar asks otherwise.
    #[serde(deserialize_with = "duration")]
    pub leaf_ttl: Duration,
    /// How long the authority's own certificates live, and what seals its roots.
    pub authority: AuthorityLives,
    /// How service account tokens are verified; without it, only join tokens are accepted.
    pub tokens: Option<Tokens>,
    /// Further issuers, whose tokens are mapped to identities.
    pub oidc: Vec<Oidc>,
    /// A socket for processes of this machine.
    pub unix: Option<Unix>,
    /// Further DNS names of our own certificate.
    pub dns_names: Vec<String>,
    /// What happens to destinations that no resource names.
    pub outbound: Outbound,
    /// How request paths are normalized.
    pub path_normalization: Normalization,
    /// Which connections are taken where no `PeerAuthentication` says it.
    pub mtls_mode: Mtls,
    /// Whom CUSTOM policies may name.
    #[serde(deserialize_with = "providers")]
    pub extension_providers: Vec<Provider>,
    /// How the keys of token issuers are fetched.
    pub jwks: Jwks,
    /// Where metrics and status are served; nowhere by default.
    pub metrics: Option<SocketAddr>,
    /// Where and how the audit log is written.
    pub audit: Audit,
    /// Where other trust domains fetch our bundle; nowhere by default.
    pub bundle_endpoint: Option<BundleEndpoint>,
    /// Other trust domains whose identities are believed.
    #[serde(deserialize_with = "federation::relations")]
    pub federation: Vec<Relation>,
    /// What injected pods get.
    pub injection: Injection,
    /// The admission webhook; none by default.
    pub webhook: Option<Webhook>,
}

/// How service account tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tokens {
    /// A JSON Web Key Set: a file, or an `http` or `https` URL.
    pub jwks: String,
    /// PEM certificates that vouch for an `https` URL.
    #[serde(default)]
    pub jwks_trust: Option<PathBuf>,
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`.
    #[serde(default = "default_audience")]
    pub audience: String,
}

/// What happens to destinations that no resource names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
pub enum Outbound {
    /// They are refused.
    #[default]
    #[serde(rename = "REGISTRY_ONLY")]
    RegistryOnly,
    /// They are passed on.
    #[serde(rename = "ALLOW_ANY")]
    AllowAny,
}

/// How request paths are normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
pub enum Normalization {
    /// RFC 3986.
    #[default]
    #[serde(rename = "BASE")]
    Base,
    /// The same, and repeated slashes are one.
    #[serde(rename = "MERGE_SLASHES")]
    MergeSlashes,
    /// The same, after escaped slashes and backslashes are written out.
    #[serde(rename = "DECODE_AND_MERGE_SLASHES")]
    DecodeAndMergeSlashes,
    /// Not at all: a path is matched as it was sent.
    #[serde(rename = "NONE")]
    None,
}

/// Which connections are taken where no `PeerAuthentication` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mtls {
    /// Those with a certificate.
    #[default]
    Strict,
    /// Plaintext as well, while a mesh is being migrated.
    Permissive,
    /// Plaintext only.
    Disable,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not what it should be; says the line.
    #[error("{0}")]
    Yaml(String),
    /// No state folder.
    #[error("there is no state folder; give one with --dir, or as `dir` in the configuration file")]
    NoFolder,
    /// Two sources of one mesh would contradict each other.
    #[error(
        "resources are to come from folders (--resources, `resources`) and from the Kubernetes API (--kubernetes, \
         `kubernetes`); leave one of them out"
    )]
    TwoSources,
    /// A default lifetime that no certificate can have.
    #[error(
        "certificates cannot live {wanted}: the lifetime (leafTtl, --leaf-ttl) is from 10s to 24h",
        wanted = humantime::format_duration(*.0)
    )]
    LeafTtl(Duration),
    /// Lives of the authority's own certificates that do not fit together.
    #[error("authority: {0}")]
    Lives(String),
    /// Two ways of sharing one state.
    #[error(
        "replicas share a folder (replica, --replica, standby, --standby) or a Secret (kubernetes.state, --state secret); \
         leave one of them out"
    )]
    TwoStates,
    /// Which rules hold for a token of it?
    #[error("the issuer {0:?} stands twice among tokens and oidc; write all its rules in one place")]
    Issuer(String),
    /// Our own roots vouch for our own names.
    #[error(
        "federation, line {line}: {domain} is a name of this mesh's own trust domain, for which its own roots vouch; \
         remove it"
    )]
    OwnDomain {
        /// Where it stands in the file.
        line: u64,
        /// Which name.
        domain: TrustDomain,
    },
    /// A namespace that no object can be in: the law of the whole mesh would govern nobody.
    #[error("rootNamespace is {0:?}, which is no namespace; write one such as istio-system")]
    RootNamespace(String),
}

/// The audience of tokens for us.
#[must_use]
pub fn default_audience() -> String {
    "douane-ca".to_owned()
}

impl Config {
    /// Reads a configuration file's text.
    ///
    /// # Errors
    /// [`ConfigError::Yaml`] with the line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| ConfigError::Yaml(error.to_string()))
    }

    /// Is every value one that can be used? Flags were laid over the file by now.
    ///
    /// # Errors
    /// [`ConfigError`] names the first that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !LEAF_LIFE.contains(&self.leaf_ttl) {
            return Err(ConfigError::LeafTtl(self.leaf_ttl));
        }
        self.authority.check(self.leaf_ttl)?;
        if self.kubernetes.is_some() && !self.resources.is_empty() {
            return Err(ConfigError::TwoSources);
        }
        if self.state_place() == StatePlace::Secret && (self.replica || self.standby) {
            return Err(ConfigError::TwoStates);
        }
        if let Some(Upstream::CertManager(manager)) = &self.authority.upstream
            && (self.kubernetes.is_none() || manager.issuer.name.is_empty())
        {
            let what = "upstream certManager needs the name of an issuer, and --kubernetes (kubernetes: {})";
            return Err(ConfigError::Lives(what.to_owned()));
        }
        let mut issuers: Vec<_> = self.oidc.iter().map(|oidc| &oidc.issuer).collect();
        issuers.extend(self.tokens.iter().map(|tokens| &tokens.issuer));
        issuers.sort();
        if let Some(twice) = issuers.iter().zip(issuers.iter().skip(1)).find(|(one, next)| one == next) {
            return Err(ConfigError::Issuer((*twice.0).clone()));
        }
        // In policies `cluster.local` means the own domain, whatever that is called: a partner of that name could not be
        // named, and a DENY on it would be void.
        let is_own = |domain: &TrustDomain| {
            *domain == self.trust_domain
                || self.trust_domain_aliases.contains(domain)
                || domain.as_str() == "cluster.local"
        };
        if let Some(own) = self.federation.iter().find(|relation| is_own(&relation.trust_domain)) {
            return Err(ConfigError::OwnDomain { line: own.line, domain: own.trust_domain.clone() });
        }
        if !is_namespace(&self.root_namespace) {
            return Err(ConfigError::RootNamespace(self.root_namespace.clone()));
        }
        Ok(())
    }

    /// Where the authority's state lies.
    #[must_use]
    pub fn state_place(&self) -> StatePlace {
        self.kubernetes.as_ref().map(|access| access.state).unwrap_or_default()
    }

    /// What every sidecar is told of the mesh.
    #[must_use]
    pub fn mesh(&self) -> MeshSettings {
        MeshSettings {
            trust_domain: self.trust_domain.clone(),
            root_namespace: self.root_namespace.clone(),
            outbound: match self.outbound {
                Outbound::RegistryOnly => OutboundMode::RegistryOnly,
                Outbound::AllowAny => OutboundMode::AllowAny,
            },
            path_normalization: match self.path_normalization {
                Normalization::Base => PathNormalization::Base,
                Normalization::MergeSlashes => PathNormalization::MergeSlashes,
                Normalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
                Normalization::None => PathNormalization::None,
            },
            trust_domain_aliases: self.trust_domain_aliases.clone(),
            trusted_proxies: self.num_trusted_proxies,
        }
    }

    /// What holds for all laws.
    #[must_use]
    pub fn law(&self) -> LawSettings {
        LawSettings {
            root_namespace: self.root_namespace.clone(),
            mtls: match self.mtls_mode {
                Mtls::Strict => MtlsMode::Strict,
                Mtls::Permissive => MtlsMode::Permissive,
                Mtls::Disable => MtlsMode::Disable,
            },
            providers: self.extension_providers.clone(),
        }
    }

    /// The DNS names of our own certificate.
    #[must_use]
    pub fn own_names(&self) -> Vec<String> {
        let service = format!("{OWN_ACCOUNT}.{OWN_NAMESPACE}");
        let mut names =
            vec![format!("{service}.svc"), format!("{service}.svc.{}", self.cluster_domain), service];
        for name in &self.dns_names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: None,
            standby: false,
            replica: false,
            listen: Vec::new(),
            resources: Vec::new(),
            kubernetes: None,
            trust_domain: default_trust_domain(),
            trust_domain_aliases: Vec::new(),
            num_trusted_proxies: 0,
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            leaf_ttl: Duration::from_secs(3600),
            authority: AuthorityLives::default(),
            tokens: None,
            oidc: Vec::new(),
            unix: None,
            dns_names: Vec::new(),
            outbound: Outbound::default(),
            path_normalization: Normalization::default(),
            mtls_mode: Mtls::default(),
            extension_providers: Vec::new(),
            jwks: Jwks::default(),
            metrics: None,
            audit: Audit::default(),
            bundle_endpoint: None,
            federation: Vec::new(),
            injection: Injection::default(),
            webhook: None,
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant; a test holds it")]
fn default_trust_domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("cluster.local is a trust domain")
}

fn trust_domain<'de, D: Deserializer<'de>>(from: D) -> Result<TrustDomain, D::Error> {
    let text = String::deserialize(from)?;
    TrustDomain::parse(&text).map_err(D::Error::custom)
}

fn trust_domains<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<TrustDomain>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| TrustDomain::parse(text).map_err(D::Error::custom)).collect()
}

// A name stands for one of them: which of two would be asked nobody could tell.
fn providers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Provider>, D::Error> {
    let mut all: Vec<Provider> = Vec::new();
    for providers::Read(provider) in Vec::<providers::Read>::deserialize(from)? {
        if all.iter().any(|known| known.name == provider.name) {
            return Err(D::Error::custom(format!("the provider {:?} stands here twice", provider.name)));
        }
        all.push(provider);
    }
    Ok(all)
}

// A DNS label, as Kubernetes demands.
fn is_namespace(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests;
