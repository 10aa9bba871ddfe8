//! A pod that runs: its room, its sidecar, its containers.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::lab::{
    confine::Confinement,
    control_plane::append_to,
    mounts::{LAB_PROGRAM, PodFiles, SECRETS, SIDECAR_DIR, WORKLOAD_SOCKET},
    objects::Readiness,
    pod::Room,
    pod_plan::{ContainerPlan, PodPlan},
    probe,
    processes::{Backoff, Kept, Restart, say},
    record::{ContainerRecord, Names, PodRecord},
    sidecar::{self, Exemption, Sidecar, clean_environment},
    spec::Options,
};

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    plan: PodPlan,
    room: Arc<Room>,
    files: PodFiles,
    exemption: Exemption,
    logs: PathBuf,
    sidecar: Mutex<Option<Kept>>,
    containers: Mutex<Vec<Kept>>,
    ready: AtomicBool,
}

/// What ends first when a lab ends: applications must still reach each other while they end.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// The containers.
    Applications,
    /// The sidecar.
    Sidecar,
}

impl Pod {
    /// An open room in which nothing runs yet. `logs` is the folder of its namespace.
    #[must_use]
    pub fn new(plan: PodPlan, room: Room, files: PodFiles, exemption: Exemption, logs: PathBuf) -> Self {
        Self {
            plan,
            room: Arc::new(room),
            files,
            exemption,
            logs,
            sidecar: Mutex::default(),
            containers: Mutex::default(),
            ready: AtomicBool::new(false),
        }
    }

    /// What was planned.
    #[must_use]
    pub fn plan(&self) -> &PodPlan {
        &self.plan
    }

    /// Its files in the lab's own folder.
    #[must_use]
    pub fn files(&self) -> &PodFiles {
        &self.files
    }

    /// Does it take traffic?
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        if self.ready.load(Ordering::SeqCst) { Readiness::Ready } else { Readiness::NotReady }
    }

    /// Its rules and its sidecar, until that is ready. `bundle` is what the sidecar trusts on first contact.
    ///
    /// # Errors
    /// The kernel refuses the rules, or the sidecar is not ready in time.
    pub fn start_sidecar(&self, bundle: &Path, options: &Options) -> Result<()> {
        fs::copy(bundle, self.files.secrets().join("bundle.pem")).context("hand out the bundle")?;
        sidecar::install_rules(&self.room, self.exemption)?;
        let sidecar = Sidecar {
            pod: self.plan.clone(),
            room: Arc::clone(&self.room),
            exemption: self.exemption,
            log: self.log(),
        };
        *self.sidecar.lock().unwrap_or_else(PoisonError::into_inner) = Some(sidecar.start(options)?);
        sidecar::wait_ready(&self.plan, &self.log())
    }

    /// Its containers, until they listen where they declare to.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn start_containers(self: &Arc<Self>) -> Result<()> {
        for container in &self.plan.containers {
            let kept = self.start(container)?;
            self.containers.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        }
        self.wait_listening()?;
        self.ready.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Takes a part out, for its end; it is not started again.
    #[must_use]
    pub fn take(&self, part: Part) -> Vec<Kept> {
        match part {
            Part::Applications => {
                std::mem::take(&mut *self.containers.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Part::Sidecar => {
                self.sidecar.lock().unwrap_or_else(PoisonError::into_inner).take().into_iter().collect()
            }
        }
    }

    /// Starts a program as the first container would, with pipes for its input and output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, command: &[OsString]) -> Result<Child> {
        let container = self.plan.containers.first().context("a pod has a container")?;
        let mut process = self.process(container, command);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.room
            .spawn(process)?
            .with_context(|| format!("start {command:?} in {}", self.plan.metadata.key()))
    }

    /// The sidecar's log, or that of the first container where there is no sidecar.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        match self.plan.containers.first() {
            Some(first) if !self.plan.injected => self.log_of(&first.name),
            _ => self.log_of(SIDECAR),
        }
    }

    /// The log of one container.
    #[must_use]
    pub fn log_of(&self, container: &str) -> PathBuf {
        self.logs.join(format!("{}.{container}.log", self.plan.metadata.name))
    }

    /// Does `work` in the pod's namespaces.
    ///
    /// # Errors
    /// The pod is gone.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.room.run(work)
    }

    /// The names that it answers to.
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names {
            namespace: &self.plan.metadata.namespace,
            pod: &self.plan.metadata.name,
            deployment: self.plan.deployment.as_deref(),
        }
    }

    fn start(self: &Arc<Self>, container: &ContainerPlan) -> Result<Kept> {
        let name = format!("{} {}", self.plan.metadata.key(), container.name);
        let (pod, container) = (Arc::clone(self), container.clone());
        // Who reads that a container ended wants to know why.
        let name = format!("{name} (log: {})", self.log_of(&container.name).display());
        Kept::start(name, Restart::Always, BACKOFF, move || {
            let command: Vec<OsString> = container.command.iter().map(Into::into).collect();
            let log = append_to(&pod.log_of(&container.name))?;
            let mut process = pod.process(&container, &command);
            process.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            pod.room.spawn(process)?.with_context(|| format!("start {command:?}"))
        })
    }

    fn process(&self, container: &ContainerPlan, command: &[OsString]) -> Command {
        let mut process = Command::new(LAB_PROGRAM);
        process.args(self.confinement(container).arguments(command)).process_group(0);
        clean_environment(&mut process, &self.environment(container));
        process
    }

    fn environment(&self, container: &ContainerPlan) -> Vec<(String, String)> {
        let mut env = vec![("HOSTNAME".to_owned(), self.plan.metadata.name.clone())];
        if self.plan.injected {
            env.push(("SPIFFE_ENDPOINT_SOCKET".to_owned(), format!("unix://{WORKLOAD_SOCKET}")));
        }
        env.extend_from_slice(&container.env);
        env
    }

    fn confinement(&self, container: &ContainerPlan) -> Confinement {
        application(self.exemption, container.run_as_user, PathBuf::from(&container.directory))
    }

    /// Waits a while for the declared ports; an application that opens them later is not an error.
    fn wait_listening(&self) -> Result<()> {
        let wanted: Vec<u16> =
            self.plan.containers.iter().flat_map(|it| it.ports.iter().map(|it| it.number.value)).collect();
        let deadline = Instant::now() + LISTENS;
        loop {
            let open = self.run(probe::listening)?;
            let Some(missing) = wanted.iter().find(|it| !open.contains(it)) else { return Ok(()) };
            if Instant::now() > deadline {
                let key = self.plan.metadata.key();
                say(&format!("{key}: nobody listens on its declared port {missing} yet"));
                return Ok(());
            }
            thread::sleep(POLL);
        }
    }

    /// What others may know of it.
    #[must_use]
    pub fn record(&self) -> PodRecord {
        let plan = &self.plan;
        let arguments =
            |it: &Confinement| it.arguments(&[]).iter().map(|it| it.to_string_lossy().into()).collect();
        let container = |it: &ContainerPlan| ContainerRecord {
            name: it.name.clone(),
            env: self.environment(it),
            confinement: arguments(&self.confinement(it)),
            log: self.log_of(&it.name),
        };
        let mut containers: Vec<_> = plan.containers.iter().map(container).collect();
        if plan.injected {
            containers.push(ContainerRecord {
                name: SIDECAR.to_owned(),
                env: Vec::new(),
                confinement: arguments(&self.exemption.confinement()),
                log: self.log_of(SIDECAR),
            });
        }
        PodRecord {
            namespace: plan.metadata.namespace.clone(),
            pod: plan.metadata.name.clone(),
            deployment: plan.deployment.clone(),
            service_account: plan.service_account.clone(),
            addresses: plan.addresses.both().into(),
            meshed: plan.injected,
            ready: self.ready.load(Ordering::SeqCst),
            thread: self.room.thread(),
            log: self.log(),
            containers,
        }
    }
}

/// What an application keeps: nothing. As root it also becomes somebody else.
#[must_use]
pub fn application(exemption: Exemption, run_as: Option<u32>, directory: PathBuf) -> Confinement {
    let id = match exemption {
        Exemption::Uid(_) => Some(run_as.unwrap_or(NOBODY)),
        // One uid only.
        Exemption::Mark(_) => None,
    };
    // A container of its own, too, would not see its sidecar's token and its admin socket.
    let hide = vec![PathBuf::from(SECRETS), PathBuf::from(SIDECAR_DIR)];
    Confinement { uid: id, gid: id, net_admin: false, hide, directory }
}

// The sidecar's name among a pod's logs, and for `lab exec -c`.
const SIDECAR: &str = "douane-proxy";
// The uid of a container that asks for none, as root.
const NOBODY: u32 = 65534;
const LISTENS: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
// As a kubelet's, which begins at 10 s; people wait here.
const BACKOFF: Backoff = Backoff {
    steady: Duration::from_secs(10),
    first: Duration::from_millis(500),
    most: Duration::from_secs(30),
};
