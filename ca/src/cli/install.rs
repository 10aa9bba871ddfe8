//! `douane install|upgrade|uninstall`: print manifests for kubectl. Nothing here talks to a cluster.
//!
//! Knows flags; the manifests are `install`'s.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use douane_proto::id::TrustDomain;

use super::print::{print_text, remark};
use crate::{
    config::Config,
    install::{Crds, Image, Installed, MeshFile, TOKEN_ISSUER, Wishes, manifests, removal},
};

/// The longest file that is read: what etcd takes of one object.
const MAX_BYTES: u64 = 1536 * 1024;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    douane install | kubectl apply --server-side -f -\n  \
    douane install --image registry.example/douane:0.1.0 --proxy-image registry.example/douane-proxy:0.1.0 > mesh.yaml\n\n\
    Then: kubectl label namespace shop douane.io/inject=enabled, and new pods there have a sidecar.")]
pub(super) struct Install {
    #[command(flatten)]
    wishes: WishFlags,
    /// The control plane's configuration file (README names its fields) [default: one that names the two domains].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trust_domain", "cluster_domain", "token_issuer"])]
    config: Option<PathBuf>,
    /// Whose identities are signed; cannot be changed later [default: cluster.local].
    #[arg(long)]
    trust_domain: Option<String>,
    /// What the names of services end in [default: cluster.local].
    #[arg(long)]
    cluster_domain: Option<String>,
    /// The `iss` of the cluster's service account tokens; `kubectl get --raw /.well-known/openid-configuration` says it.
    #[arg(long, value_name = "URL", default_value = TOKEN_ISSUER)]
    token_issuer: String,
}

#[derive(Args)]
#[command(after_help = "Example:\n  \
    kubectl get configmap douane-mesh -n douane-system -o yaml | douane upgrade --installed - | kubectl apply --server-side -f -")]
pub(super) struct Upgrade {
    /// What `kubectl get configmap douane-mesh -n douane-system -o yaml` printed; - is the standard input. What was wished
    /// then and what was edited since stays; images become this version's unless others were asked for.
    #[arg(long, value_name = "FILE")]
    installed: PathBuf,
    #[command(flatten)]
    wishes: WishFlags,
}

#[derive(Args)]
#[command(after_help = "Example:\n  douane uninstall | kubectl delete --ignore-not-found -f -\n\n\
    Pods keep their sidecars until they are made anew: remove the label douane.io/inject and restart them first.")]
pub(super) struct Uninstall {
    /// Also the custom resource definitions, and with them every policy in the cluster.
    #[arg(long)]
    crds: bool,
}

#[derive(Args)]
struct WishFlags {
    /// The control plane's image [default: douane of this version].
    #[arg(long)]
    image: Option<Image>,
    /// The sidecar's image [default: douane-proxy of this version].
    #[arg(long)]
    proxy_image: Option<Image>,
    /// Leave the custom resource definitions out: Istio's are there, or somebody else applies them.
    #[arg(long)]
    no_crds: bool,
}

impl WishFlags {
    fn over(&self, wishes: Wishes) -> Wishes {
        Wishes {
            image: self.image.clone().unwrap_or(wishes.image),
            proxy_image: self.proxy_image.clone().unwrap_or(wishes.proxy_image),
        }
    }

    fn crds(&self) -> Crds {
        if self.no_crds { Crds::Without } else { Crds::With }
    }
}

pub(super) fn install(asked: &Install) -> Result<()> {
    let mesh = match &asked.config {
        Some(path) => MeshFile::parse(&read(path)?).with_context(|| format!("read {}", path.display()))?,
        None => {
            let mut config = Config::default();
            if let Some(domain) = &asked.trust_domain {
                config.trust_domain = TrustDomain::parse(domain).context("--trust-domain")?;
            }
            if let Some(domain) = &asked.cluster_domain {
                config.cluster_domain.clone_from(domain);
            }
            MeshFile::parse(MeshFile::of_domains(&config, &asked.token_issuer).text())
                .context("use these domains and this issuer")?
        }
    };
    let wishes = asked.wishes.over(Wishes::default());
    print_text(&manifests(&wishes, &mesh, asked.wishes.crds()))
}

pub(super) fn upgrade(asked: &Upgrade) -> Result<()> {
    let installed = Installed::parse(&read(&asked.installed)?)
        .with_context(|| format!("read {}", asked.installed.display()))?;
    let was = &installed.wishes;
    // An image of the operator's own registry is of the old version: this program cannot guess the new one's name.
    let own = [
        (&was.image, &asked.wishes.image, "--image"),
        (&was.proxy_image, &asked.wishes.proxy_image, "--proxy-image"),
    ];
    for (old, new, flag) in own {
        if new.is_none() && !is_ours(old) {
            bail!("{old} was asked for when it was installed; say with {flag} which image it is now");
        }
    }
    let wishes = asked.wishes.over(Wishes::default());
    print_text(&manifests(&wishes, &installed.mesh, asked.wishes.crds()))
}

pub(super) fn uninstall(asked: &Uninstall) -> Result<()> {
    let crds = if asked.crds { Crds::With } else { Crds::Without };
    if asked.crds {
        remark("douane: with its definition goes every object of a kind: all policies of the cluster");
    }
    print_text(&removal(crds))
}

fn is_ours(image: &Image) -> bool {
    let name = image.to_string();
    name.starts_with("douane:") || name.starts_with("douane-proxy:")
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let from: Box<dyn io::Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(fs::File::open(path).with_context(|| format!("open {}", path.display()))?)
    };
    let bytes = from
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    if bytes as u64 > MAX_BYTES {
        bail!("{} is larger than {MAX_BYTES} bytes", path.display());
    }
    Ok(text)
}
