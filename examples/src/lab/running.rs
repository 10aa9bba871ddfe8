//! A running lab: what the daemon holds, and what the demo and tests drive.
//!
//! Every method may be called from any thread of the daemon; each blocks until it is done.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::IpAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};

use crate::lab::{
    capture::Capture,
    confine::Confinement,
    control_plane::{Office, append_to},
    folder,
    hosts::hosts_file,
    issuer::{Bearer, Issuer, TOKEN_LIFE},
    links,
    mounts::{LAB_PROGRAM, PodFiles},
    objects::{self, Readiness},
    plan::{ContainerPlan, Plan, PodPlan},
    pod::{Furniture, Room},
    processes::{Backoff, Kept, Restart, say},
    programs, roles,
    sidecar::{self, Exemption, Privilege, Sidecar, clean_environment},
    spec::{Folder, Options, Spec},
    state::{private_dir, write_whole},
    status, watch,
};

/// A running lab. Clones are the same lab.
#[derive(Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    options: Options,
    state: PathBuf,
    resources: PathBuf,
    generated: PathBuf,
    logs: PathBuf,
    office: Office,
    issuer: Issuer,
    exemption: Exemption,
    plan: Mutex<Plan>,
    pods: Mutex<Vec<Arc<Pod>>>,
    control_plane: Mutex<Option<Kept>>,
    stopping: AtomicBool,
}

/// A pod that runs.
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

impl Lab {
    /// Brings a lab up in the namespaces of the calling process, which must be the lab's daemon. `begun` is handed the
    /// lab once its bridge stands and before anything runs in it: whoever holds it can stop it at any moment, and serve
    /// at the gateway what pods need from the start.
    ///
    /// # Errors
    /// The folder cannot run, the kernel refuses something, or a sidecar does not become ready.
    pub fn start(spec: &Spec, begun: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let lab = Self::prepare(spec)?;
        in_own_thread(links::make_bridge)?;
        begun(&lab)?;
        // Frames between pods are not the bridge's own traffic; absent where the module is not loaded.
        let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
        lab.open_rooms()?;
        lab.inner.write_services()?;
        if lab.pods().iter().any(|it| it.plan.injected) {
            lab.start_control_plane()?;
        }
        lab.bring_up_pods()?;
        lab.start_watching();
        Ok(lab)
    }

    /// All pods.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        locked(&self.inner.pods).clone()
    }

    /// A pod by `name` or `namespace/name`; the name of a Deployment means its first pod.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn pod(&self, name: &str) -> Result<Arc<Pod>> {
        let pods = self.pods();
        let records: Vec<_> = pods.iter().map(|it| it.names()).collect();
        let index = status::choose(name, &records)?;
        pods.get(index).cloned().ok_or_else(|| anyhow!("no pod is called {name}"))
    }

    /// Runs a program in a pod as its application would, and waits for its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn exec<S: Into<OsString>>(&self, pod: &str, command: impl IntoIterator<Item = S>) -> Result<Output> {
        Ok(self.spawn(pod, command)?.wait_with_output()?)
    }

    /// Starts a program in a pod as its application would, with pipes for its input and output. It leads a process
    /// group of its own and is not started again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn<S: Into<OsString>>(&self, pod: &str, command: impl IntoIterator<Item = S>) -> Result<Child> {
        let pod = self.pod(pod)?;
        let command: Vec<OsString> = command.into_iter().map(Into::into).collect();
        let container = pod.plan.containers.first().context("a pod has a container")?;
        let mut process = pod.process(container, &command);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        pod.room.spawn(process)?.with_context(|| format!("start {command:?} in {}", pod.plan.metadata.key()))
    }

    /// Starts a program in the bridge's network, outside of every pod: an outside host.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn gateway_spawn<S: Into<OsString>>(&self, command: impl IntoIterator<Item = S>) -> Result<Child> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command: Vec<OsString> = command.into_iter().map(Into::into).collect();
        let ours = roles::program(&command).is_some();
        if ours {
            command.splice(0..0, [program.clone().into_os_string(), roles::PLAY.into()]);
        }
        let confinement = application(self.inner.exemption, None, "/".into());
        let mut process = Command::new(&program);
        process.arg0("lab").args(confinement.arguments(&command)).process_group(0);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process.spawn().with_context(|| format!("start {command:?} at the gateway"))
    }

    /// Kills the control plane (-9); it stays down until [`start_control_plane`](Self::start_control_plane).
    pub fn kill_control_plane(&self) {
        if let Some(kept) = locked(&self.inner.control_plane).take() {
            kept.kill();
        }
    }

    /// Starts the control plane, if it does not run, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub fn start_control_plane(&self) -> Result<()> {
        let mut control_plane = locked(&self.inner.control_plane);
        if control_plane.is_none() {
            *control_plane = Some(self.inner.office.open(&self.inner.options)?);
        }
        Ok(())
    }

    /// Gives the bridge one more address: a host outside the mesh, for [`gateway_spawn`](Self::gateway_spawn).
    ///
    /// # Errors
    /// As the kernel says.
    #[expect(clippy::unused_self, reason = "only a running lab has a bridge")]
    pub fn add_address(&self, outside: IpAddr) -> Result<()> {
        in_own_thread(move || links::add_bridge_address(outside))
    }

    /// Begins to record every frame between pods.
    ///
    /// # Errors
    /// As the kernel says.
    #[expect(clippy::unused_self, reason = "only a running lab has a bridge")]
    pub fn capture(&self) -> Result<Capture> {
        Ok(Capture::start()?)
    }

    /// The folder of YAML that the control plane watches.
    #[must_use]
    pub fn resources_dir(&self) -> &Path {
        &self.inner.resources
    }

    /// The log of a pod's sidecar, or of its first container where it has none.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn log_of(&self, pod: &str) -> Result<PathBuf> {
        Ok(self.pod(pod)?.log())
    }

    /// The log of the control plane.
    #[must_use]
    pub fn control_plane_log(&self) -> &Path {
        &self.inner.office.log
    }

    /// The control plane's own folder, where its trust bundle lies.
    #[must_use]
    pub fn control_plane_dir(&self) -> &Path {
        &self.inner.office.state
    }

    /// The unix socket that leads to the collector of `--otlp`, if one was given.
    #[must_use]
    pub fn host_relay(&self) -> Option<&Path> {
        self.inner.options.relay.as_deref()
    }

    /// Where the logs are.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.inner.logs
    }

    /// Where files of a running lab may be put: gone with the lab.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.inner.state
    }

    /// Ends applications, then sidecars, then the control plane; returns when all have ended.
    pub fn stop(&self) {
        if self.inner.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        let pods = self.pods();
        let deadline = Instant::now() + GRACE;
        let rounds: [fn(&Pod) -> Vec<Kept>; 2] = [
            |pod| std::mem::take(&mut *locked(&pod.containers)),
            |pod| locked(&pod.sidecar).take().into_iter().collect(),
        ];
        for round in rounds {
            let ending: Vec<Kept> = pods.iter().flat_map(|pod| round(pod)).collect();
            ending.iter().for_each(Kept::ask_to_end);
            ending.iter().for_each(|it| it.end_by(deadline));
        }
        if let Some(kept) = locked(&self.inner.control_plane).take() {
            kept.ask_to_end();
            kept.end_by(deadline);
        }
    }

    fn prepare(spec: &Spec) -> Result<Self> {
        let options = spec.options.clone();
        let state = spec.state.clone();
        let folder = |name: &str| -> Result<PathBuf> {
            let path = state.join(name);
            private_dir(&path)?;
            Ok(path)
        };
        let resources = match options.folder {
            Folder::InPlace => options.resources.clone(),
            Folder::Copy => {
                let copy = folder("resources")?;
                folder::copy(&options.resources, &copy)?;
                copy
            }
        };
        let plan = Plan::make(&folder::read(&resources)?, programs::exists)?;
        let logs = match &options.log_dir {
            Some(logs) => {
                fs::create_dir_all(logs).with_context(|| format!("make {}", logs.display()))?;
                logs.clone()
            }
            None => folder("logs")?,
        };
        let issuer = Issuer::new()?;
        let jwks = folder("issuer")?.join("jwks.json");
        write_whole(&jwks, issuer.jwks()?.as_bytes(), 0o600)?;
        folder("pods")?;
        let generated = folder("generated")?;
        let office = Office {
            state: folder("ca")?,
            resources: resources.clone(),
            generated: generated.clone(),
            jwks,
            log: logs.join("control-plane.log"),
        };
        let inner = Inner {
            options,
            state,
            resources,
            generated,
            logs,
            office,
            issuer,
            exemption: Exemption::of_this_lab(Privilege::of_this_lab()),
            plan: Mutex::new(plan),
            pods: Mutex::default(),
            control_plane: Mutex::default(),
            stopping: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn open_rooms(&self) -> Result<()> {
        let inner = &self.inner;
        let plan = locked(&inner.plan);
        for (number, pod) in plan.pods.iter().enumerate() {
            let metadata = &pod.metadata;
            let folder = inner.state.join("pods").join(format!("{}.{}", metadata.namespace, metadata.name));
            let hosts = hosts_file(&metadata.name, &pod.addresses.both(), &plan.hosts(pod));
            let files = PodFiles::make(folder, &hosts)?;
            let furniture = Furniture {
                name: metadata.name.clone(),
                number,
                addresses: pod.addresses,
                files: files.clone(),
                sidecar_uid: inner.exemption.owner(),
            };
            let logs = inner.logs.join(&metadata.namespace);
            fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
            let pod = Pod {
                plan: pod.clone(),
                room: Arc::new(Room::open(furniture)?),
                files,
                exemption: inner.exemption,
                logs,
                sidecar: Mutex::default(),
                containers: Mutex::default(),
                ready: AtomicBool::new(false),
            };
            inner.write_token(&pod)?;
            inner.write_pod(&pod)?;
            locked(&inner.pods).push(Arc::new(pod));
        }
        drop(plan);
        inner.write_record()
    }

    fn bring_up_pods(&self) -> Result<()> {
        let starting: Vec<_> = self
            .pods()
            .into_iter()
            .map(|pod| {
                let inner = Arc::clone(&self.inner);
                thread::spawn(move || inner.bring_up(&pod))
            })
            .collect();
        let results: Vec<Result<()>> = starting
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("bringing up a pod failed unexpectedly"))))
            .collect();
        results.into_iter().collect()
    }

    fn start_watching(&self) {
        let lab = Arc::downgrade(&self.inner);
        thread::spawn(move || watch::run(&lab));
    }
}

impl Inner {
    fn bring_up(&self, pod: &Arc<Pod>) -> Result<()> {
        if pod.plan.injected {
            fs::copy(self.office.bundle(), pod.files.secrets().join("bundle.pem"))
                .context("hand out the bundle")?;
            sidecar::install_rules(&pod.room, self.exemption)?;
            let sidecar = Sidecar {
                pod: pod.plan.clone(),
                room: Arc::clone(&pod.room),
                exemption: self.exemption,
                log: pod.log(),
            };
            *locked(&pod.sidecar) = Some(sidecar.start(&self.options)?);
            sidecar::wait_ready(&pod.plan, &pod.log())?;
        }
        for container in &pod.plan.containers {
            if self.stopping.load(Ordering::SeqCst) {
                return Ok(());
            }
            let kept = pod.start(container)?;
            locked(&pod.containers).push(kept);
        }
        pod.wait_listening()?;
        pod.ready.store(true, Ordering::SeqCst);
        self.write_pod(pod)?;
        self.write_record()
    }

    fn write_token(&self, pod: &Pod) -> Result<()> {
        let bearer = Bearer {
            namespace: &pod.plan.metadata.namespace,
            service_account: &pod.plan.service_account,
            pod: &pod.plan.metadata.name,
            pod_uid: &pod.plan.uid,
        };
        let token = self.issuer.token(bearer, SystemTime::now())?;
        let owner = self.exemption.owner();
        // Owned before it is in place, so that the sidecar never meets a token that it may not read.
        let path = pod.files.secrets().join("token");
        let draft = pod.files.secrets().join(".token");
        write_whole(&draft, token.as_bytes(), 0o400)?;
        chown(&draft, Some(owner), Some(owner)).context("hand the token to the sidecar")?;
        fs::rename(&draft, &path).context("put the token in place")
    }

    fn write_pod(&self, pod: &Pod) -> Result<()> {
        let ready = if pod.ready.load(Ordering::SeqCst) { Readiness::Ready } else { Readiness::NotReady };
        let (name, text) = objects::pod(&pod.plan, ready);
        write_whole(&self.generated.join(name), text.as_bytes(), 0o600)
    }

    /// Writes the services' objects, and removes those of services that are gone.
    pub(super) fn write_services(&self) -> Result<()> {
        let wanted: BTreeMap<String, String> =
            locked(&self.plan).services.iter().map(objects::service).collect();
        for file in folder::files(&self.generated)? {
            let name = file.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            if name.starts_with("service.") && !wanted.contains_key(name) {
                fs::remove_file(&file)?;
            }
        }
        for (name, text) in wanted {
            let path = self.generated.join(name);
            if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
                write_whole(&path, text.as_bytes(), 0o600)?;
            }
        }
        Ok(())
    }

    /// Rewrites the hosts files of all pods.
    pub(super) fn write_hosts(&self) -> Result<()> {
        let plan = locked(&self.plan);
        for pod in locked(&self.pods).iter() {
            let hosts =
                hosts_file(&pod.plan.metadata.name, &pod.plan.addresses.both(), &plan.hosts(&pod.plan));
            pod.files.write_hosts(&hosts)?;
        }
        Ok(())
    }

    /// Replaces every pod's token.
    pub(super) fn write_tokens(&self) -> Result<()> {
        let pods = locked(&self.pods).clone();
        pods.iter().try_for_each(|pod| self.write_token(pod))
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        locked(&self.plan)
    }

    pub(super) fn resources(&self) -> &Path {
        &self.resources
    }

    pub(super) fn stops(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Writes what `lab exec` and `lab status` read.
    fn write_record(&self) -> Result<()> {
        let pods = locked(&self.pods);
        let record =
            status::Record { daemon: std::process::id(), pods: pods.iter().map(|it| it.record()).collect() };
        write_whole(&self.state.join(status::RECORD), &serde_json::to_vec(&record)?, 0o600)
    }
}

impl Pod {
    /// What was planned.
    #[must_use]
    pub fn plan(&self) -> &PodPlan {
        &self.plan
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

    fn names(&self) -> status::Names<'_> {
        status::Names {
            namespace: &self.plan.metadata.namespace,
            pod: &self.plan.metadata.name,
            deployment: self.plan.deployment.as_deref(),
        }
    }

    fn start(self: &Arc<Self>, container: &ContainerPlan) -> Result<Kept> {
        let name = format!("{} {}", self.plan.metadata.key(), container.name);
        let (pod, container) = (Arc::clone(self), container.clone());
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
            let open = self.run(crate::lab::probe::listening)?;
            let Some(missing) = wanted.iter().find(|it| !open.contains(it)) else { return Ok(()) };
            if Instant::now() > deadline {
                let key = self.plan.metadata.key();
                say(&format!("{key}: nobody listens on its declared port {missing} yet"));
                return Ok(());
            }
            thread::sleep(POLL);
        }
    }

    pub(super) fn record(&self) -> status::PodRecord {
        let plan = &self.plan;
        let container = |it: &ContainerPlan| status::ContainerRecord {
            name: it.name.clone(),
            env: self.environment(it),
            confinement: self
                .confinement(it)
                .arguments(&[])
                .iter()
                .map(|it| it.to_string_lossy().into())
                .collect(),
            log: self.log_of(&it.name),
        };
        status::PodRecord {
            namespace: plan.metadata.namespace.clone(),
            pod: plan.metadata.name.clone(),
            deployment: plan.deployment.clone(),
            service_account: plan.service_account.clone(),
            addresses: plan.addresses.both().into(),
            meshed: plan.injected,
            ready: self.ready.load(Ordering::SeqCst),
            thread: self.room.thread(),
            log: self.log(),
            containers: plan.containers.iter().map(container).collect(),
        }
    }
}

/// What an application keeps: nothing. As root it also becomes somebody else.
fn application(exemption: Exemption, run_as: Option<u32>, directory: PathBuf) -> Confinement {
    let id = match exemption {
        Exemption::Uid(_) => Some(run_as.unwrap_or(NOBODY)),
        // One uid only.
        Exemption::Mark(_) => None,
    };
    Confinement { uid: id, gid: id, net_admin: false, directory }
}

/// rtnetlink brings a runtime of its own, which must not stand inside a caller's.
fn in_own_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    thread::spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the thread ended").into()))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When tokens are replaced.
pub(super) const TOKEN_RENEWAL: Duration = Duration::from_secs(TOKEN_LIFE.as_secs() / 2);

// The sidecar's place among a pod's logs.
const SIDECAR: &str = "douane-proxy";
// The uid of a container that asks for none, as root.
const NOBODY: u32 = 65534;
// For all of a lab to end by itself.
const GRACE: Duration = Duration::from_secs(5);
const LISTENS: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
// As a kubelet's, which begins at 10 s; people wait here.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(30) };
