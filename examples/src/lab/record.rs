//! What a running lab writes down about its pods, for whoever comes later: `lab exec` and `lab status`.

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The record's file in a lab's folder.
pub const RECORD: &str = "lab.json";

/// A running lab, as others find it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The daemon's process number inside the lab.
    pub daemon: u32,
    /// Its pods.
    pub pods: Vec<PodRecord>,
}

/// A pod, as others find it.
#[derive(Debug, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its Deployment.
    pub deployment: Option<String>,
    /// Its service account.
    pub service_account: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Has it a sidecar?
    pub meshed: bool,
    /// Has everything in it been started?
    pub ready: bool,
    /// Its thread's number inside the lab.
    pub thread: i32,
    /// Its most telling log.
    pub log: PathBuf,
    /// What runs in it.
    pub containers: Vec<ContainerRecord>,
}

/// A container, as `lab exec` needs it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its name.
    pub name: String,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// What confines a program as this container is.
    pub confinement: Vec<String>,
    /// Its log.
    pub log: PathBuf,
}

/// The names that a pod answers to.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub pod: &'a str,
    /// Its Deployment.
    pub deployment: Option<&'a str>,
}

impl PodRecord {
    /// Its names.
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names { namespace: &self.namespace, pod: &self.pod, deployment: self.deployment.as_deref() }
    }
}

/// Which pod is meant by `name`, `namespace/name`, or the same with a Deployment's name (its first pod)?
///
/// # Errors
/// None, or several namespaces have one.
pub fn choose(name: &str, pods: &[Names<'_>]) -> Result<usize> {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, name),
    };
    let there = |it: &Names<'_>| namespace.is_none_or(|namespace| namespace == it.namespace);
    let by = |matches: &dyn Fn(&Names<'_>) -> bool| -> Vec<usize> {
        pods.iter().enumerate().filter(|(_, it)| there(it) && matches(it)).map(|(index, _)| index).collect()
    };
    let mut found = by(&|it| it.pod == name);
    if found.is_empty() {
        found = by(&|it| it.deployment == Some(name));
    }
    let mut namespaces: Vec<_> = found.iter().filter_map(|it| Some(pods.get(*it)?.namespace)).collect();
    namespaces.dedup();
    match (found.first(), namespaces.as_slice()) {
        (Some(first), [_]) => Ok(*first),
        (Some(_), several) => {
            bail!("{name} is in several namespaces ({}); say NAMESPACE/{name}", several.join(", "))
        }
        (None, _) => {
            let known: Vec<_> = pods.iter().map(|it| format!("{}/{}", it.namespace, it.pod)).collect();
            bail!("no pod is called {name}; there are: {}", known.join(", "))
        }
    }
}

/// The record of a lab.
///
/// # Errors
/// It is still starting.
pub fn read(folder: &std::path::Path) -> Result<Record> {
    let record = fs::read(folder.join(RECORD)).context("the lab is still starting: it has no pods yet")?;
    serde_json::from_slice(&record).context("read the lab's record")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: [Names<'_>; 4] = [
        Names { namespace: "shop", pod: "orders-1", deployment: Some("orders") },
        Names { namespace: "shop", pod: "orders-2", deployment: Some("orders") },
        Names { namespace: "shop", pod: "web", deployment: None },
        Names { namespace: "other", pod: "web", deployment: None },
    ];

    #[test]
    fn a_deployment_means_its_first_pod() {
        assert_eq!(choose("orders", &PODS).unwrap(), 0);
        assert_eq!(choose("shop/orders-2", &PODS).unwrap(), 1);
    }

    #[test]
    fn a_name_in_two_namespaces_must_be_said_in_full() {
        assert!(choose("web", &PODS).unwrap_err().to_string().contains("say NAMESPACE/web"));
        assert_eq!(choose("other/web", &PODS).unwrap(), 3);
    }

    #[test]
    fn an_unknown_pod_names_those_that_exist() {
        assert!(choose("nobody", &PODS).unwrap_err().to_string().contains("shop/orders-1"));
    }
}
