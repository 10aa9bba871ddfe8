//! `Pod` and `Deployment`: what runs. Only what a part of the mesh needs is kept; the rest of Kubernetes' fields is passed
//! over.

use std::net::IpAddr;

use super::{metadata::Metadata, service::Transport};
use crate::yaml::{Cursor, Fields, Flaw, Located};

/// A `Pod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// What runs in it.
    pub spec: PodSpec,
    /// What became of it; empty in a file that an operator wrote.
    pub status: PodStatus,
}

/// A `Deployment`: a number of equal pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// How many pods; 1 where none is written.
    pub replicas: Located<u32>,
    /// Labels and annotations of its pods; without a name.
    pub template: Metadata,
    /// What runs in them.
    pub spec: PodSpec,
}

/// What runs in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodSpec {
    /// Its service account; `default` where none is written.
    pub service_account: String,
    /// Its containers, one at least.
    pub containers: Vec<Container>,
    /// Its init containers.
    pub init_containers: Vec<Container>,
    /// The line of `volumes` when there are any.
    pub volumes: Option<u32>,
    /// The line of `hostNetwork: true`.
    pub host_network: Option<u32>,
    /// `securityContext.runAsUser`.
    pub run_as_user: Option<Located<u32>>,
    /// `terminationGracePeriodSeconds`; 30 where none is written.
    pub termination_grace_seconds: u32,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: Located<String>,
    /// Its image.
    pub image: Option<Located<String>>,
    /// Its command, the program first; empty where the image's own is meant.
    pub command: Vec<Located<String>>,
    /// Its arguments.
    pub args: Vec<Located<String>>,
    /// Its environment.
    pub env: Vec<EnvVar>,
    /// Its declared ports.
    pub ports: Vec<ContainerPort>,
    /// Its working directory.
    pub working_dir: Option<Located<String>>,
    /// `securityContext.runAsUser`.
    pub run_as_user: Option<Located<u32>>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: Located<String>,
    /// Its value.
    pub value: EnvValue,
}

/// The value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// As written.
    Text(String),
    /// `valueFrom.fieldRef.fieldPath`, such as `status.podIP`.
    Field(String),
    /// Another `valueFrom`, at its line.
    Elsewhere(u32),
}

/// A declared port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name, or empty.
    pub name: String,
    /// Its number.
    pub number: Located<u16>,
    /// TCP, or what else.
    pub transport: Transport,
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodStatus {
    /// `podIP` and `podIPs`, each once, `podIP` first.
    pub addresses: Vec<Located<IpAddr>>,
    /// Its phase.
    pub phase: Option<Phase>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// The phase of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all of its containers run yet.
    Pending,
    /// It runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended otherwise.
    Failed,
    /// Kubernetes lost sight of it.
    Unknown,
}

/// A condition of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its type, such as `Ready`.
    pub kind: String,
    /// Does it hold?
    pub holds: bool,
}

impl PodStatus {
    /// Does the condition `Ready` hold? `None` when nobody says.
    #[must_use]
    pub fn ready(&self) -> Option<bool> {
        self.conditions.iter().find(|condition| condition.kind == "Ready").map(|condition| condition.holds)
    }
}

impl Pod {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, Flaw> {
        Ok(Self {
            spec: PodSpec::read(&fields.required("spec")?)?,
            status: fields.read("status", |at| PodStatus::read(&at))?,
        })
    }
}

impl Deployment {
    pub(super) fn read(document: &Fields<'_>) -> Result<Self, Flaw> {
        let spec = document.required("spec")?;
        let fields = spec.fields()?;
        let template = fields.required("template")?.fields()?;
        let replicas = match fields.optional("replicas")? {
            Some(at) => Located { value: at.integer("a number that is not negative")?, line: at.line() },
            None => Located { value: 1, line: spec.line() },
        };
        Ok(Self {
            replicas,
            template: template.read("metadata", |at| Metadata::read_template(&at))?,
            spec: PodSpec::read(&template.required("spec")?)?,
        })
    }
}

impl PodSpec {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let containers = Container::read_list(&fields.required("containers")?)?;
        if containers.is_empty() {
            return Err(at.flaw("spec.containers is empty", "add a container"));
        }
        let account = match fields.optional("serviceAccountName")? {
            Some(name) => Some(name),
            None => fields.optional("serviceAccount")?,
        };
        let host_network = fields.optional("hostNetwork")?;
        let shares_host = host_network.as_ref().map(Cursor::boolean).transpose()?.unwrap_or_default();
        let grace = fields.optional("terminationGracePeriodSeconds")?;
        Ok(Self {
            service_account: account
                .map_or_else(|| Ok("default".to_owned()), |account| account.object_name())?,
            containers,
            init_containers: fields.read("initContainers", |at| Container::read_list(&at))?,
            volumes: fields.optional("volumes")?.map(|volumes| volumes.line()),
            host_network: host_network.filter(|_| shares_host).map(|at| at.line()),
            run_as_user: run_as_user(&fields)?,
            termination_grace_seconds: grace.map_or(Ok(30), |at| at.integer("a number of seconds"))?,
        })
    }
}

impl Container {
    fn read_list(at: &Cursor<'_>) -> Result<Vec<Self>, Flaw> {
        at.list()?.iter().map(Self::read).collect()
    }

    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        Ok(Self {
            name: fields.required("name")?.located_text()?,
            image: fields.optional("image")?.map(|at| at.located_text()).transpose()?,
            command: fields.read("command", |at| at.located_texts())?,
            args: fields.read("args", |at| at.located_texts())?,
            env: fields.read("env", |at| at.list()?.iter().map(EnvVar::read).collect())?,
            ports: fields.read("ports", |at| at.list()?.iter().map(ContainerPort::read).collect())?,
            working_dir: fields.optional("workingDir")?.map(|at| at.located_text()).transpose()?,
            run_as_user: run_as_user(&fields)?,
        })
    }
}

impl EnvVar {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let name = fields.required("name")?.located_text()?;
        let value = match (fields.optional("value")?, fields.optional("valueFrom")?) {
            (Some(value), _) => EnvValue::Text(value.text()?),
            (None, Some(from)) => match from.fields()?.optional("fieldRef")? {
                Some(field) => EnvValue::Field(field.fields()?.required("fieldPath")?.text()?),
                None => EnvValue::Elsewhere(from.line()),
            },
            (None, None) => EnvValue::Text(String::new()),
        };
        Ok(Self { name, value })
    }
}

impl ContainerPort {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let number = fields.required("containerPort")?;
        Ok(Self {
            name: fields.read("name", |at| at.text())?,
            number: Located { value: number.port()?, line: number.line() },
            transport: fields.read("protocol", |at| Transport::read(&at))?,
        })
    }
}

impl PodStatus {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let mut addresses: Vec<Located<IpAddr>> = Vec::new();
        let first = fields.optional("podIP")?.map(|at| at.address()).transpose()?;
        let all = fields.read("podIPs", |at| at.list()?.iter().map(pod_ip).collect::<Result<Vec<_>, _>>())?;
        for address in first.into_iter().chain(all) {
            if !addresses.iter().any(|known| known.value == address.value) {
                addresses.push(address);
            }
        }
        Ok(Self {
            addresses,
            phase: fields.optional("phase")?.map(|at| Phase::read(&at)).transpose()?,
            conditions: fields.read("conditions", |at| at.list()?.iter().map(Condition::read).collect())?,
        })
    }
}

fn pod_ip(at: &Cursor<'_>) -> Result<Located<IpAddr>, Flaw> {
    at.fields()?.required("ip")?.address()
}

impl Phase {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        Ok(match at.text()?.as_str() {
            "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Unknown,
        })
    }
}

impl Condition {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let status = fields.required("status")?;
        Ok(Self {
            kind: fields.required("type")?.text()?,
            holds: status.text().is_ok_and(|status| status == "True"),
        })
    }
}

fn run_as_user(fields: &Fields<'_>) -> Result<Option<Located<u32>>, Flaw> {
    let Some(context) = fields.optional("securityContext")? else { return Ok(None) };
    let Some(user) = context.fields()?.optional("runAsUser")? else { return Ok(None) };
    Ok(Some(Located { value: user.integer("a user id")?, line: user.line() }))
}
