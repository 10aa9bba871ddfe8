//! One pod as it will run, made from an operator's object. Pure.
//!
//! What the lab cannot honour is refused here, with file and line, before anything starts.

use std::hash::{BuildHasher, RandomState};

use douane_proto::resource::{
    Container, ContainerPort, EnvValue, Kind, Location, Metadata, PodSpec, Resource,
};

use crate::lab::addresses::{GATEWAY_V4, PodAddresses};

/// The label (or annotation) that asks for a sidecar.
const INJECT: &str = "douane.io/inject";

/// What the lab cannot run.
#[derive(Debug, thiserror::Error)]
#[error("{location}: {what}")]
pub struct PlanError {
    /// Where it was written.
    pub location: Location,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// One pod.
#[derive(Debug, Clone)]
pub struct PodPlan {
    /// Its names, labels and annotations.
    pub metadata: Metadata,
    /// Unique among all pods of all labs.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// Its Deployment, if one made it.
    pub deployment: Option<String>,
    /// Does it get a sidecar?
    pub injected: bool,
    /// Its addresses.
    pub addresses: PodAddresses,
    /// What runs in it.
    pub containers: Vec<ContainerPlan>,
}

impl PodPlan {
    /// The usual fields of the downward API.
    fn field(&self, path: &str) -> Option<String> {
        let metadata = &self.metadata;
        let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
        if let Some(key) = keyed("metadata.labels") {
            return Some(metadata.labels.get(key).cloned().unwrap_or_default());
        }
        if let Some(key) = keyed("metadata.annotations") {
            return Some(metadata.annotations.get(key).cloned().unwrap_or_default());
        }
        Some(match path {
            "metadata.name" => metadata.name.clone(),
            "metadata.namespace" => metadata.namespace.clone(),
            "metadata.uid" => self.uid.clone(),
            "spec.serviceAccountName" => self.service_account.clone(),
            "spec.nodeName" => "lab".to_owned(),
            "status.podIP" => self.addresses.v4.to_string(),
            "status.podIPs" => format!("{},{}", self.addresses.v4, self.addresses.v6),
            "status.hostIP" => GATEWAY_V4.to_string(),
            _ => return None,
        })
    }
}

/// One container.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    /// Its name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub directory: String,
    /// Which user it asks to be.
    pub run_as_user: Option<u32>,
    /// Its declared ports.
    pub ports: Vec<ContainerPort>,
}

/// A pod before it has addresses: what an object says of it.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) location: &'a Location,
    pub(crate) metadata: Metadata,
    deployment: Option<String>,
    spec: &'a PodSpec,
}

impl<'a> Draft<'a> {
    /// The pods that an object describes.
    pub(crate) fn of(resource: &'a Resource) -> Vec<Self> {
        let location = &resource.location;
        match &resource.kind {
            Kind::Pod(pod) => {
                vec![Self {
                    location,
                    metadata: resource.metadata.clone(),
                    deployment: None,
                    spec: &pod.spec,
                }]
            }
            Kind::Deployment(deployment) => {
                let name = &resource.metadata.name;
                let replica = |number| Self {
                    location,
                    metadata: Metadata {
                        namespace: resource.metadata.namespace.clone(),
                        name: format!("{name}-{number}"),
                        ..deployment.template.clone()
                    },
                    deployment: Some(name.clone()),
                    spec: &deployment.spec,
                };
                (1..=deployment.replicas.value).map(replica).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The pod with its addresses. `exists` tells whether a pod could run a program.
    ///
    /// # Errors
    /// What the lab cannot honour.
    pub(crate) fn plan(
        self,
        addresses: PodAddresses,
        exists: impl Fn(&str) -> bool,
    ) -> Result<PodPlan, PlanError> {
        let injected = self.metadata.label_or_annotation(INJECT) == Some("enabled");
        self.refuse_what_cannot_be_honoured()?;
        let mut pod = PodPlan {
            uid: uid(&self.metadata.key()),
            service_account: self.spec.service_account.clone(),
            deployment: self.deployment.clone(),
            injected,
            addresses,
            containers: Vec::new(),
            metadata: self.metadata.clone(),
        };
        let pod_user = self.spec.run_as_user.as_ref().map(|it| it.value);
        for container in &self.spec.containers {
            let planned = self.container(container, &pod, pod_user, &exists)?;
            if pod.containers.iter().any(|it| it.name == planned.name) {
                return Err(
                    self.at(container.name.line, format!("two containers are called {}", planned.name))
                );
            }
            pod.containers.push(planned);
        }
        Ok(pod)
    }

    fn refuse_what_cannot_be_honoured(&self) -> Result<(), PlanError> {
        if let Some(line) = self.spec.volumes {
            return Err(
                self.at(line, "the lab mounts no volumes; its pods see this machine's files".to_owned())
            );
        }
        if let Some(line) = self.spec.host_network {
            return Err(self.at(line, "a pod of the lab cannot share the host's network".to_owned()));
        }
        if let Some(first) = self.spec.init_containers.first() {
            return Err(self.at(first.name.line, "the lab runs no initContainers".to_owned()));
        }
        Ok(())
    }

    fn container(
        &self,
        container: &Container,
        pod: &PodPlan,
        pod_user: Option<u32>,
        exists: impl Fn(&str) -> bool,
    ) -> Result<ContainerPlan, PlanError> {
        let name = &container.name.value;
        let Some(program) = container.command.first() else {
            let what = format!(
                "container {name} has no command; the lab runs programs of this machine, not images: add command: [...]"
            );
            return Err(self.at(container.name.line, what));
        };
        let mut env = Vec::new();
        for variable in &container.env {
            let line = variable.name.line;
            let value = match &variable.value {
                EnvValue::Text(text) => expand(text, &env),
                EnvValue::Field(path) => pod.field(path).ok_or_else(|| {
                    self.at(
                        line,
                        format!("fieldRef {path} of variable {} is unknown to the lab", variable.name.value),
                    )
                })?,
                EnvValue::Elsewhere(line) => {
                    let what = format!(
                        "variable {} takes its value from elsewhere; the lab knows value and fieldRef",
                        variable.name.value
                    );
                    return Err(self.at(*line, what));
                }
            };
            env.push((variable.name.value.clone(), value));
        }
        let command: Vec<_> =
            container.command.iter().chain(&container.args).map(|it| expand(&it.value, &env)).collect();
        if !command.first().is_some_and(|it| exists(it)) {
            return Err(self.at(
                program.line,
                format!("container {name}: no program {} is on this machine", program.value),
            ));
        }
        Ok(ContainerPlan {
            name: name.clone(),
            command,
            env,
            directory: container.working_dir.as_ref().map_or_else(|| "/".to_owned(), |it| it.value.clone()),
            run_as_user: container.run_as_user.as_ref().map(|it| it.value).or(pod_user),
            ports: container.ports.clone(),
        })
    }

    fn at(&self, line: u32, what: String) -> PlanError {
        PlanError { location: Location { file: self.location.file.clone(), line }, what }
    }
}

/// In the form of a UUID; unique enough for pods.
fn uid(name: &str) -> String {
    let (high, low) = (RandomState::new().hash_one(name), RandomState::new().hash_one(name));
    let digits = format!("{high:016x}{low:016x}");
    let mut parts = [8, 4, 4, 4, 12].into_iter().scan(digits.as_str(), |rest, length| {
        let (part, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(part)
    });
    parts.by_ref().collect::<Vec<_>>().join("-")
}

/// Kubernetes' `$(NAME)`; an unknown name stays as it is, `$$` is one `$`.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let named = after.strip_prefix('(').and_then(|it| it.split_once(')'));
        let value = named
            .and_then(|(name, after)| Some((env.iter().rev().find(|(it, _)| it == name)?.1.as_str(), after)));
        match value {
            Some((value, after)) => {
                expanded.push_str(value);
                rest = after;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}
