//! What `kubectl apply` makes a cluster's control plane of: our manifests, as one YAML text for one set of wishes.
//!
//! - `parts/*.yaml`: the manifests themselves, with `${...}` where a wish stands; comments stay in what is printed
//! - `image`: names of images that say which one; `installed`: what an earlier installation was told
//!
//! Pure: same wishes, same text. Knows not the cluster it is applied to (`kubectl` does that), nor flags (`cli/install`).

mod image;
mod installed;
#[cfg(test)]
mod tests;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, ConfigError},
    hex,
};

pub use image::{Image, ImageError};
pub use installed::{Installed, InstalledError};

/// What API servers write as `iss` unless they are told otherwise.
pub const TOKEN_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Of the version that this program is.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const NAMESPACE: &str = include_str!("parts/namespace.yaml");
const MESH: &str = include_str!("parts/mesh.yaml");
const STATE: &str = include_str!("parts/state.yaml");
const CONTROL_PLANE: &str = include_str!("parts/control-plane.yaml");
const NETWORK: &str = include_str!("parts/network.yaml");
const RIGHTS: &str = include_str!("parts/rbac.yaml");
const WEBHOOKS: &str = include_str!("parts/webhooks.yaml");
const CRDS: [&str; 5] = [
    include_str!("crds/networking.istio.io_serviceentries.yaml"),
    include_str!("crds/networking.istio.io_workloadentries.yaml"),
    include_str!("crds/security.istio.io_authorizationpolicies.yaml"),
    include_str!("crds/security.istio.io_peerauthentications.yaml"),
    include_str!("crds/security.istio.io_requestauthentications.yaml"),
];

/// What an operator may wish of an installation. Written down in the cluster, so that an upgrade finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Wishes {
    /// The control plane's image.
    pub image: Image,
    /// The sidecar's image.
    pub proxy_image: Image,
}

/// The text of the control plane's configuration file, read once and found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshFile(String);

/// Are the custom resource definitions printed, too?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crds {
    /// Yes: with them policies can be stored; without them, on removal, policies are removed as well.
    With,
    /// No: Istio's are there, or somebody else applies them.
    Without,
}

impl Default for Wishes {
    fn default() -> Self {
        let of_this_version = |name: &str| Image::of_version(name, VERSION);
        Self { image: of_this_version("douane"), proxy_image: of_this_version("douane-proxy") }
    }
}

impl MeshFile {
    /// A file of the operator's own.
    ///
    /// # Errors
    /// As `douane ca --config` would refuse it.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Config::parse(text)?.check()?;
        Ok(Self(text.to_owned()))
    }

    /// Names what cannot be changed later, and whose tokens are believed.
    #[must_use]
    pub fn of_domains(config: &Config, token_issuer: &str) -> Self {
        let (trust_domain, cluster_domain) = (&config.trust_domain, &config.cluster_domain);
        Self(format!(
            "# Certificates are for spiffe://{trust_domain}/ns/<namespace>/sa/<service account>. Another one is another mesh.\n\
             trustDomain: {trust_domain}\n\
             # What the names of services end in.\n\
             clusterDomain: {cluster_domain}\n\
             # Whose service account tokens prove who asks: `kubectl get --raw /.well-known/openid-configuration` names the issuer.\n\
             tokens:\n  \
               issuer: {token_issuer}\n  \
               jwks: https://kubernetes.default.svc/openid/v1/jwks\n  \
               jwksTrust: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt\n"
        ))
    }

    /// As it is.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// All that is applied, in the order in which it can be.
#[must_use]
pub fn manifests(wishes: &Wishes, mesh: &MeshFile, crds: Crds) -> String {
    let blanks = Blanks::new(wishes, mesh);
    // Who asks us comes last: nobody is asked for before there is somebody.
    let ours = [NAMESPACE, RIGHTS, MESH, STATE, CONTROL_PLANE, NETWORK, WEBHOOKS];
    documents(crds.parts().iter().chain(&ours).map(|part| blanks.fill(part)))
}

/// What `kubectl delete` takes away, doors first: whoever is created meanwhile is created without us. With the custom
/// resource definitions go all policies.
#[must_use]
pub fn removal(crds: Crds) -> String {
    let blanks = Blanks::new(&Wishes::default(), &MeshFile(String::new()));
    let ours = [WEBHOOKS, NETWORK, CONTROL_PLANE, STATE, MESH, RIGHTS, NAMESPACE];
    documents(ours.iter().chain(crds.parts()).map(|part| blanks.fill(part)))
}

impl Crds {
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::With => &CRDS,
            Self::Without => &[],
        }
    }
}

/// The values that stand in the manifests' blanks.
struct Blanks(Vec<(&'static str, String)>);

impl Blanks {
    fn new(wishes: &Wishes, mesh: &MeshFile) -> Self {
        let indented: String = mesh.0.lines().map(|line| format!("    {line}\n")).collect();
        let config_hash = hex::encode(digest::digest(&digest::SHA256, mesh.0.as_bytes()).as_ref());
        // A struct of strings is JSON whatever it holds.
        let recorded = serde_json::to_string(wishes).unwrap_or_default();
        Self(vec![
            ("version", VERSION.to_owned()),
            ("image", wishes.image.to_string()),
            ("proxy_image", wishes.proxy_image.to_string()),
            ("config", indented.trim_end().to_owned()),
            ("config_hash", config_hash),
            ("recorded", recorded),
        ])
    }

    // What an operator wrote is filled in last and not looked at again.
    fn fill(&self, part: &str) -> String {
        let Some((before, rest)) = part.split_once("${") else { return part.to_owned() };
        let Some((name, after)) = rest.split_once('}') else { return part.to_owned() };
        let value = self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
        format!("{before}{value}{}", self.fill(after))
    }
}

fn documents(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<_> = parts.map(|part| part.trim_end().to_owned()).collect();
    format!("{}\n", parts.join("\n---\n"))
}
