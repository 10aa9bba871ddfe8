//! The way to the Kubernetes API: one client for every room that asks it something.
//!
//! From within a cluster it goes by the files of our service account, which are read again as Kubernetes rotates them;
//! from elsewhere by a kubeconfig. The connection is TLS of its own, whether or not our own pod is meshed. Knows not what
//! is asked: the rooms that ask have a `kubernetes` of their own.

use std::{path::PathBuf, time::Duration};

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::config::Kubernetes;

pub use kube::Client;

/// An API server that does not answer is tried again, by another connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no way to the Kubernetes API.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not in a cluster, most likely.
    #[error(
        "find the Kubernetes API from within a pod; outside of a cluster say where it is: --kubeconfig FILE, or \
         kubernetes.kubeconfig in the configuration file"
    )]
    InCluster(#[source] Box<InClusterError>),
    /// The kubeconfig cannot be used.
    #[error("use the kubeconfig {file}{of}", file = file.display(), of = context_of(context.as_deref()))]
    Kubeconfig {
        /// Which.
        file: PathBuf,
        /// The context that was asked for.
        context: Option<String>,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// A context belongs to a kubeconfig.
    #[error(
        "there is a context, but no kubeconfig that it could be in; give --kubeconfig FILE, or leave the context out"
    )]
    ContextAlone,
    /// The kubeconfig's server is not verified: whoever stands between would write the law.
    #[error(
        "the kubeconfig {} says insecure-skip-tls-verify; give certificate-authority-data instead: the law of the mesh \
         comes this way",
        .0.display()
    )]
    Unverified(PathBuf),
    /// Certificates or keys cannot be used.
    #[error("make a client of the Kubernetes API")]
    Client(#[source] Box<kube::Error>),
}

/// A client of the Kubernetes API. It connects when it is used, so that an API server may start after us.
///
/// # Errors
/// [`ClientError`] when files that say where and who we are cannot be used.
pub async fn client(access: &Kubernetes) -> Result<Client, ClientError> {
    let mut config = match (&access.kubeconfig, &access.context) {
        (Some(file), context) => from_file(file.clone(), context.clone()).await?,
        (None, Some(_)) => return Err(ClientError::ContextAlone),
        (None, None) => kube::Config::incluster().map_err(|error| ClientError::InCluster(error.into()))?,
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    Client::try_from(config).map_err(|error| ClientError::Client(error.into()))
}

async fn from_file(file: PathBuf, context: Option<String>) -> Result<kube::Config, ClientError> {
    let failed = |source: KubeconfigError| ClientError::Kubeconfig {
        file: file.clone(),
        context: context.clone(),
        source: source.into(),
    };
    let read = Kubeconfig::read_from(&file).map_err(failed)?;
    let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    let config = kube::Config::from_custom_kubeconfig(read, &options).await.map_err(failed)?;
    if config.accept_invalid_certs {
        return Err(ClientError::Unverified(file));
    }
    Ok(config)
}

fn context_of(context: Option<&str>) -> String {
    context.map(|context| format!(", context {context:?}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn with(kubeconfig: &str, context: Option<&str>) -> Result<Client, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, kubeconfig).unwrap();
        let access = Kubernetes {
            kubeconfig: Some(file),
            context: context.map(str::to_owned),
            ..Kubernetes::default()
        };
        client(&access).await.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    fn kubeconfig(cluster: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: one\nclusters:\n- name: one\n  cluster: {{{cluster}}}\n\
             users:\n- name: one\n  user: {{token: abc}}\ncontexts:\n- name: one\n  context: {{cluster: one, user: one}}\n"
        )
    }

    #[tokio::test]
    async fn a_kubeconfig_leads_to_its_server_although_nobody_listens_yet() {
        assert!(with(&kubeconfig("server: 'https://127.0.0.1:1'"), None).await.is_ok());
        assert!(with(&kubeconfig("server: 'https://127.0.0.1:1'"), Some("one")).await.is_ok());
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_said_with_what_to_mend() {
        let two = with(&kubeconfig("server: 'https://127.0.0.1:1'"), Some("two")).await.err().unwrap();
        assert!(two.contains("context \"two\""), "{two}");
        let open = "server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true";
        let unverified = with(&kubeconfig(open), None).await.err().unwrap();
        assert!(unverified.contains("certificate-authority-data"), "{unverified}");
        let alone = Kubernetes { context: Some("one".to_owned()), ..Kubernetes::default() };
        let alone = client(&alone).await.err().unwrap().to_string();
        assert!(alone.contains("--kubeconfig FILE"), "{alone}");
    }
}
