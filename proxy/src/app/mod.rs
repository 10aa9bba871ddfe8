//! The sidecar as a whole: binds, starts in order (certificate, law, traffic), watches over what must not die, and ends
//! in order (not ready, inbound, outbound, telemetry). Wires the rooms; decides nothing of theirs.
//!
//! - `listeners`: what is bound; `voice`: logs, metrics and spans; `traffic`: the two sides of the data path; `witness`:
//!   what is told to the control plane of the traffic
//!
//! Everything runs on one thread ([`runtime`]): nothing on the data path is locked.

mod listeners;
mod traffic;
mod voice;
mod witness;

use std::{
    cell::RefCell,
    future::Future,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use douane_proto::{
    bundle::ForeignBundle,
    snapshot::Snapshot,
    svid::{Identity, TrustBundle},
};
use rustix::process::{Resource, getrlimit};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::watch,
    task::JoinSet,
};

pub use self::listeners::Addresses;
use self::{listeners::Listeners, traffic::Shutdowns, voice::Voice};
use crate::{
    admin::{
        health::{Health, Phase},
        probe::Asker,
        public::Public,
        socket::{Admin, Live},
    },
    budget::{self, memory::Memory},
    config::{Config, Drain},
    discovery::{Mesh, follow::Follower},
    identity::{
        application::Application,
        issuer::Issuer,
        renew::{self, Outcome},
        source,
        tokens::Tokens,
    },
    limits::memory,
    net::socket::{BACKLOG, Sockets},
    shutdown::{Drained, Stop},
    telemetry::{access::Telemetry, metrics::Renewal},
    tls::{
        self, Mtls,
        channel::{ControlPlane, Dialer},
    },
    workload::{Source, socket::Workload},
};

/// Opening a socket to one address of the control plane.
const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// A sidecar whose sockets are bound.
#[derive(Debug)]
pub struct App {
    config: Rc<Config>,
    sockets: Sockets,
    listeners: Listeners,
}

/// Tasks without which the sidecar would be half alive; each ends with its name.
type Critical = JoinSet<&'static str>;

/// The runtime that a sidecar runs on: one thread, which sends what was gathered before it sleeps.
///
/// # Errors
/// As the kernel says.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_park(tls::park_flush)
        .build_local(LocalOptions::default())
}

/// Keeps keys out of core dumps and of other processes' reach, and takes the descriptors that we may have.
///
/// # Errors
/// As the kernel says.
pub fn harden() -> anyhow::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior, setrlimit};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbid core dumps")?;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

impl App {
    /// Binds all sockets; nothing is served yet. Must be called on the [`runtime`].
    ///
    /// # Errors
    /// Which socket could not be bound, and why.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        budget::fix(config.byte_budget.unwrap_or_else(budget::memory::budget));
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let config = Config { limits: config.limits.within(descriptors), ..config };
        let sockets = Sockets { mark: config.mark };
        let listeners = Listeners::bind(&config, sockets)?;
        Ok(Self { config: Rc::new(config), sockets, listeners })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn addresses(&self) -> io::Result<Addresses> {
        self.listeners.addresses()
    }

    /// Runs until SIGTERM or SIGINT has drained it, or a second one ended it.
    ///
    /// # Errors
    /// What it could not start with, or which critical task died.
    pub async fn run_until_signalled(self) -> anyhow::Result<()> {
        let stop = Stop::default();
        tokio::select! {
            done = self.run(stop.clone()) => done,
            failed = stop.on_signals() => failed.context("catch signals"),
        }
    }

    /// Runs until `stop` has drained it.
    ///
    /// # Errors
    /// What it could not start with, or which critical task died.
    pub async fn run(self, stop: Stop) -> anyhow::Result<()> {
        let voice = Voice::new(&self.config, self.sockets)?;
        tracing::info!(connections = self.config.limits.connections, "each side holds at most");
        tracing::info!(version = env!("CARGO_PKG_VERSION"), control_plane = %self.config.control_plane, "starting");
        let ended = tokio::select! {
            ended = self.serve(&voice, &stop) => ended,
            () = stop.now.cancelled() => match voice.telemetry.metrics.in_progress() {
                0 => Ok(()),
                dropped => Err(anyhow!("asked twice to end: {dropped} requests and streams in progress were dropped")),
            },
        };
        if let Err(error) = &ended {
            tracing::error!(error = format!("{error:#}"), "ending");
        }
        voice.flush().await;
        ended
    }

    async fn serve(self, voice: &Voice, stop: &Stop) -> anyhow::Result<()> {
        let Self { config, sockets, listeners } = self;
        let Listeners { outbound, inbound, health, admin, workload } = listeners;
        let mut starting = Starting {
            config,
            sockets,
            critical: Critical::new(),
            live: Rc::default(),
            workload: watch::Sender::default(),
            federated: watch::Sender::new(Arc::new([])),
        };
        let readiness = Health::default();
        starting.answer_operators(voice, stop, &readiness, health, admin);
        starting.answer_applications(workload);
        let (mtls, mesh) = tokio::select! {
            footing = starting.gain_footing(voice, &readiness) => footing?,
            () = stop.asked.cancelled() => return Ok(()),
        };
        let Starting { config, mut critical, .. } = starting;
        let namer = voice.namer();
        namer.name_service(&mesh.snapshot().own.service_name);
        critical.spawn_local(named(
            "telling of the live values",
            voice::tell(namer, readiness.clone(), mtls.clone(), mesh.clone()),
        ));
        let telemetry = Rc::clone(&voice.telemetry);
        critical.spawn_local(named(
            "the watch over memory",
            memory::watch(Memory::own(), move |pressure| {
                tracing::warn!(?pressure, "memory");
                telemetry.metrics.pressure(pressure as i64);
            }),
        ));
        let ledger = voice.ledger();
        let sides = traffic::Sides::new(&mtls, &mesh, ledger, sockets, config.limits);
        let inbound = inbound.listen(BACKLOG).context("listen for peers")?;
        let shutdowns = sides.start(&mut critical, outbound, inbound);

        readiness.set(Phase::Ready);
        tracing::info!(id = %mtls.identity().svid.leaf.id, "ready");
        tokio::select! {
            () = stop.asked.cancelled() => {}
            Some(ended) = critical.join_next() => bail!("{} ended", ended.unwrap_or("a critical task")),
        }
        readiness.set(Phase::Draining);
        drain(config.drain, &shutdowns).await;
        Ok(())
    }
}

/// What exists before the first certificate.
struct Starting {
    config: Rc<Config>,
    sockets: Sockets,
    critical: Critical,
    live: Rc<RefCell<Live>>,
    // What applications are given.
    workload: watch::Sender<Option<Source>>,
    // Other trust domains, for applications.
    federated: watch::Sender<Arc<[ForeignBundle]>>,
}

impl Starting {
    fn answer_operators(
        &mut self,
        voice: &Voice,
        stop: &Stop,
        health: &Health,
        public: TcpListener,
        socket: UnixListener,
    ) {
        let address = self.config.pod_ips.first().copied();
        let served = Public {
            health: health.clone(),
            telemetry: Rc::clone(&voice.telemetry),
            asker: address.map(|address| Asker {
                probes: Rc::new(self.config.app_probes.clone()),
                sockets: self.sockets,
                address,
            }),
        };
        self.critical.spawn_local(named("the health port", served.run(public)));
        let admin = Admin {
            config: Rc::clone(&self.config),
            log: voice.log.clone(),
            stop: stop.clone(),
            live: Rc::clone(&self.live),
        };
        self.critical.spawn_local(named("the admin socket", admin.run(socket)));
    }

    fn answer_applications(&mut self, socket: Option<UnixListener>) {
        let Some(socket) = socket else { return };
        let served = Workload::new(self.workload.subscribe(), self.config.workload.uids.clone());
        self.critical.spawn_local(named("the workload socket", served.run(socket)));
    }

    // The first certificate, then the first law. Both are tried until they come; both are kept fresh from then on.
    async fn gain_footing(&mut self, voice: &Voice, health: &Health) -> anyhow::Result<(Mtls, Mesh)> {
        let control_plane = self.control_plane();
        let (bundles, bundles_seen) = watch::channel(None);
        let identity = match self.config.identity_source.clone() {
            None => self.ask_authority(voice, &control_plane, bundles_seen).await,
            Some(endpoint) => self.follow_source(voice, endpoint).await,
        };
        let mtls = Mtls::new(identity.clone());
        self.live.borrow_mut().mtls = Some(mtls.clone());
        health.set(Phase::WithoutLaw);

        let workload = format!("{}/{}", self.config.namespace, self.config.pod);
        let witness = Rc::<Telemetry>::clone(&voice.telemetry);
        let (follower, mesh) = Follower::new(control_plane, workload, identity, bundles, witness);
        let connected = voice::tell_connected(Rc::clone(&voice.telemetry), follower.connected());
        self.critical.spawn_local(named("telling whether the control plane is heard", connected));
        self.critical.spawn_local(named("discovery", async { match follower.run().await {} }));
        let mesh = mesh.await.context("discovery ended before it began")?;
        self.live.borrow_mut().mesh = Some(mesh.clone());
        let told = tell_federated(mesh.watch(), self.federated.clone());
        self.critical.spawn_local(named("telling applications of other trust domains", told));
        Ok((mtls, mesh))
    }

    async fn ask_authority(
        &mut self,
        voice: &Voice,
        control_plane: &ControlPlane,
        bundles: watch::Receiver<Option<Arc<TrustBundle>>>,
    ) -> watch::Receiver<Arc<Identity>> {
        let Config { namespace, token_file, leaf_lifetime, .. } = &*self.config;
        let mut issuer =
            Issuer::new(control_plane.clone(), namespace.clone(), token_file.clone(), *leaf_lifetime);
        let told = told_to(voice);
        let first = renew::first(&mut issuer, &told).await;
        let (identity, seen) = watch::channel(Arc::new(first));
        if self.config.workload.socket.is_some() {
            let (application, keeper) = Application::new(issuer.twin(), seen.clone());
            self.critical.spawn_local(named("the application's certificate", keeper.run()));
            let tokens = Tokens::new(control_plane.clone(), seen.clone());
            let (identity, federated) = (seen.clone(), self.federated.subscribe());
            self.workload.send_replace(Some(Source { identity, federated, application, tokens }));
        }
        self.critical.spawn_local(named("renewal", renew::run(issuer, identity, bundles, told)));
        seen
    }

    async fn follow_source(&mut self, voice: &Voice, endpoint: String) -> watch::Receiver<Arc<Identity>> {
        let expected = source::Expected {
            endpoint,
            trust_domain: self.config.control_plane_id.trust_domain().clone(),
            namespace: self.config.namespace.clone(),
        };
        let told = told_to(voice);
        let (first, followed) = source::first(expected, &told).await;
        let (identity, seen) = watch::channel(Arc::new(first));
        self.critical.spawn_local(named("the following of our identity", followed.run(identity, told)));
        seen
    }

    fn control_plane(&self) -> ControlPlane {
        let sockets = self.sockets;
        ControlPlane {
            host: self.config.control_plane.host.clone(),
            port: self.config.control_plane.port,
            id: self.config.control_plane_id.clone(),
            bundle_file: self.config.bundle_file.clone(),
            dialer: Dialer::new(move |address| sockets.connect(address, DIAL_LIMIT)),
        }
    }
}

// For ever.
async fn tell_federated(
    mut snapshot: watch::Receiver<Arc<Snapshot>>,
    federated: watch::Sender<Arc<[ForeignBundle]>>,
) {
    loop {
        let now = Arc::clone(&snapshot.borrow_and_update().federated);
        federated.send_if_modified(|held| {
            let changed = *held != now;
            if changed {
                *held = now;
            }
            changed
        });
        if snapshot.changed().await.is_err() {
            return;
        }
    }
}

fn told_to(voice: &Voice) -> impl Fn(Outcome) + 'static {
    let telemetry = Rc::clone(&voice.telemetry);
    move |outcome| {
        telemetry.metrics.renewed(match outcome {
            Outcome::Renewed => Renewal::Succeeded,
            Outcome::Failed => Renewal::Failed,
        });
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

// Peers first: what they still send may need our outbound side to be answered.
async fn drain(how: Drain, sides: &Shutdowns) {
    tracing::info!(delay = ?how.delay, limit = ?how.limit, "draining");
    tokio::time::sleep(how.delay).await;
    let deadline = Instant::now() + how.limit;
    for (side, shutdown) in [("inbound", &sides.inbound), ("outbound", &sides.outbound)] {
        let left = deadline.saturating_duration_since(Instant::now());
        match shutdown.finish(left).await {
            Drained::Whole => tracing::info!(side, "drained"),
            Drained::Cut => tracing::warn!(side, "the time to drain is over, what still runs is dropped"),
        }
    }
}
