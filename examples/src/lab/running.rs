//! A running lab: what the daemon holds, and what the demo and tests drive.
//!
//! Every method may be called from any thread of the daemon; each blocks until it is done.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    net::IpAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use douane_proto::resource::Resource;

use crate::lab::{
    capture::Capture,
    confine::Confinement,
    control_plane::{self, Office},
    folder,
    issuer::{Issuer, TOKEN_LIFE},
    links,
    mounts::PodFiles,
    paperwork::{Paperwork, hosts_of},
    plan::Plan,
    pod::{Furniture, Room},
    processes::{Kept, say},
    programs, record,
    resident::{Part, Pod, application},
    roles,
    sidecar::{Exemption, Privilege},
    spec::{Folder, Options, Spec},
    state::{private_dir, write_whole},
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
    logs: PathBuf,
    office: Office,
    papers: Paperwork,
    exemption: Exemption,
    plan: Mutex<Plan>,
    pods: Mutex<Vec<Arc<Pod>>>,
    control_plane: Mutex<Option<Kept>>,
    stopping: AtomicBool,
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
        lab.inner.papers.write_services(&locked(&lab.inner.plan))?;
        if lab.pods().iter().any(|it| it.plan().injected) {
            lab.start_control_plane()?;
        }
        lab.bring_up_pods()?;
        if locked(&lab.inner.control_plane).is_some() {
            lab.inner.office.wait_known(lab.pods().len())?;
        }
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
        let index = record::choose(name, &records)?;
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
        let command: Vec<OsString> = command.into_iter().map(Into::into).collect();
        self.pod(pod)?.spawn(&command)
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
        // No sidecar stands here, and so nothing of one's is to be hidden.
        let application = application(self.inner.exemption, None, "/".into());
        let confinement = Confinement { hide: Vec::new(), ..application };
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
    pub fn add_address(&self, outside: IpAddr) -> Result<()> {
        in_own_thread(move || links::add_bridge_address(outside))
    }

    /// Begins to record every frame between pods.
    ///
    /// # Errors
    /// As the kernel says.
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

    /// For whoever watches the lab's folder, and must not keep the lab alive.
    pub(super) fn weak(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    /// Ends applications, then sidecars, then the control plane; returns when all have ended.
    pub fn stop(&self) {
        if self.inner.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        let pods = self.pods();
        let deadline = Instant::now() + GRACE;
        for part in [Part::Applications, Part::Sidecar] {
            let ending: Vec<Kept> = pods.iter().flat_map(|pod| pod.take(part)).collect();
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
            state: folder(control_plane::STATE)?,
            resources: resources.clone(),
            generated: generated.clone(),
            jwks,
            log: logs.join("control-plane.log"),
        };
        let exemption = Exemption::of_this_lab(Privilege::of_this_lab());
        let papers =
            Paperwork { generated, record: state.join(record::RECORD), issuer, owner: exemption.owner() };
        let inner = Inner {
            options,
            state,
            resources,
            logs,
            office,
            papers,
            exemption,
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
            let files = PodFiles::make(folder, &hosts_of(pod, &plan))?;
            let furniture = Furniture {
                name: metadata.name.clone(),
                number,
                addresses: pod.addresses,
                files: files.clone(),
                sidecar_uid: inner.exemption.owner(),
                hidden: inner.state.parent().unwrap_or(&inner.state).to_owned(),
            };
            let logs = inner.logs.join(&metadata.namespace);
            fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
            let pod = Pod::new(pod.clone(), Room::open(furniture)?, files, inner.exemption, logs);
            inner.papers.write_token(&pod)?;
            inner.papers.write_pod(&pod)?;
            locked(&inner.pods).push(Arc::new(pod));
        }
        inner.papers.write_record(&locked(&inner.pods))
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
}

impl Inner {
    fn bring_up(&self, pod: &Arc<Pod>) -> Result<()> {
        if pod.plan().injected {
            pod.start_sidecar(&self.office.bundle(), &self.options)?;
        }
        if self.stops() {
            return Ok(());
        }
        pod.start_containers()?;
        self.papers.write_pod(pod)?;
        self.papers.write_record(&locked(&self.pods))
    }

    /// Takes services and outside hosts from a changed folder to the pods and the control plane.
    pub(super) fn change_services(&self, resources: &[Resource]) -> Result<()> {
        let mut plan = locked(&self.plan);
        plan.change_services(resources)?;
        self.papers.write_services(&plan)?;
        for pod in locked(&self.pods).iter() {
            pod.files().write_hosts(&hosts_of(pod.plan(), &plan))?;
        }
        Ok(())
    }

    /// Replaces every pod's token.
    pub(super) fn write_tokens(&self) -> Result<()> {
        let pods = locked(&self.pods).clone();
        pods.iter().try_for_each(|pod| self.papers.write_token(pod))
    }

    pub(super) fn pod_names(&self) -> BTreeSet<String> {
        locked(&self.pods).iter().map(|it| it.plan().metadata.key()).collect()
    }

    /// Tells the operator what is wrong with a file of theirs. A script that edits a copy does so on purpose.
    pub(super) fn say_of_folder(&self, wrong: &str) {
        if self.options.folder == Folder::InPlace {
            say(&format!("{wrong}\n     not taken; what the file said before stays in force"));
        }
    }

    pub(super) fn resources(&self) -> &Path {
        &self.resources
    }

    pub(super) fn stops(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
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

// For all of a lab to end by itself.
const GRACE: Duration = Duration::from_secs(5);
