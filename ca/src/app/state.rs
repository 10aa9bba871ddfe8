//! The authority's state: where it lies, whose turn it is to open it, and who signs above it.
//!
//! Knows not what lies there (`authority`).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use tokio::{runtime::Handle, time};

use crate::{
    authority::{
        Authority, ClusterShelf, FRESH_FOR, GivenRoot, OpenError, Setup, ShelfError, Silence, Terms,
    },
    config::{Config, StatePlace, Upstream, Vault},
    fetch::Origin,
    holders::Holders,
    kubernetes,
    state::{Disk, StateError, StateFolder},
    tls,
    upstream::{CertificateRequests, PkiEngine},
};

/// How often who stands by looks whether it is its turn.
const STANDBY_LOOK: Duration = Duration::from_millis(100);
/// An API server that is away is asked again after this; whoever waits for its turn looks as often.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The folder, with what replicas share in the cluster where that is wanted; waits for the API server.
pub(super) async fn shared(config: &Config, folder: StateFolder) -> Result<StateFolder> {
    let Some(access) = config.kubernetes.clone().filter(|access| access.state == StatePlace::Secret) else {
        return Ok(folder);
    };
    let (mut told, mut silence) = (None, Silence::default());
    loop {
        let access = access.clone();
        let opened;
        (opened, silence) = tokio::task::spawn_blocking(move || {
            let opened = ClusterShelf::open(&access, &mut silence);
            (opened, silence)
        })
        .await?;
        match opened {
            Ok(shelf) => return Ok(folder.with_shelf(Arc::new(shelf))),
            Err(ShelfError::Place(error)) => {
                let error = Some(error.to_string());
                if told != error {
                    tracing::error!(error, "the state in the cluster cannot be reached; it is tried again");
                }
                told = error;
                time::sleep(TRY_AGAIN).await;
            }
            Err(error @ ShelfError::Client(_)) => return Err(error.into()),
        }
    }
}

// Waits, where that is wanted, until no other control plane runs on the folder.
pub(super) async fn open(config: &Config, folder: &StateFolder, holders: &Holders) -> Result<Authority> {
    let (mut is_told, in_cluster) = (false, folder.shelf().is_some());
    loop {
        let (setup, state) = (authority_setup(config, holders.clone()).await?, folder.clone());
        // It waits for the disk, and perhaps for whoever signs elsewhere.
        let opened =
            tokio::task::spawn_blocking(move || Authority::open_with(&state, setup, SystemTime::now()));
        match opened.await? {
            Err(OpenError::State(error @ StateError::Io { .. })) if in_cluster && !error.is_place_lost() => {
                if !is_told {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::error!(error, "the state in the cluster cannot be opened; it is tried again");
                }
                is_told = true;
                time::sleep(TRY_AGAIN).await;
            }
            Err(OpenError::State(StateError::Locked(_))) if in_cluster => {
                if !is_told {
                    tracing::info!(
                        "another replica is about to make the authority's state, or one runs on our folder"
                    );
                    is_told = true;
                }
                time::sleep(TRY_AGAIN).await;
            }
            Err(OpenError::State(StateError::Locked(_))) if config.standby || config.replica => {
                if !is_told {
                    tracing::info!(
                        "another control plane runs on the folder; we take its place when it ends"
                    );
                    is_told = true;
                }
                time::sleep(STANDBY_LOOK).await;
            }
            opened => return Ok(opened?),
        }
    }
}

async fn authority_setup(config: &Config, holders: Holders) -> Result<Setup> {
    let lives = &config.authority;
    let terms = Terms {
        trust_domain: config.trust_domain.clone(),
        leaf_life: config.leaf_ttl,
        intermediate_life: lives.intermediate_ttl,
        root_life: lives.root_ttl,
        // In this time all replicas have read of a new root, or sign nothing.
        root_lead: if config.replica || config.state_place() == StatePlace::Secret {
            lives.root_lead.max(2 * FRESH_FOR)
        } else {
            lives.root_lead
        },
    };
    let elsewhere = match (&lives.root, &lives.upstream) {
        (Some(root), _) => {
            let files = GivenRoot { certificate: root.certificate.clone(), key: root.key.clone() };
            Some(files.watch().context("the root that authority.root names")?)
        }
        (None, Some(Upstream::CertManager(manager))) => {
            let access = config.kubernetes.clone().unwrap_or_default();
            let client = kubernetes::client(&access).await?;
            Some(CertificateRequests::new(client, manager.clone()).elsewhere(Handle::current()))
        }
        (None, Some(Upstream::Vault(vault))) => Some(pki_engine(vault)?.elsewhere(Handle::current())),
        (None, None) => None,
    };
    let seal_key = lives.root_seal.as_ref().map(|seal| seal.key_file.clone());
    Ok(Setup { terms, seal_key, holders, disk: Disk::default(), elsewhere })
}

fn pki_engine(vault: &Vault) -> Result<PkiEngine> {
    let url = vault.url.parse().with_context(|| format!("{:?} is no URL", vault.url))?;
    let tls = match &vault.trust {
        Some(file) => Some(tls::https_connector(file).with_context(|| format!("read {}", file.display()))?),
        None => tls::system_connector(),
    };
    Ok(PkiEngine::new(vault.clone(), Origin { url, tls }))
}
