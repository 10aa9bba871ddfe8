//! `douane ca`: runs the control plane; `ca token` is for join tokens (`token`), `ca audit` reads the audit log (`audit`);
//! `ca status|rotate|taint` are an operator's (`authority`).
//!
//! Knows flags and signals; everything else is `app`'s.

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use douane_proto::id::TrustDomain;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::{
    audit::Audit,
    authority::{Rotate, StatusArgs, Taint},
    token::Token,
};
use crate::{
    app::{self, App},
    config::{
        BundleEndpoint, Config, Kubernetes, StatePlace, Tokens, WebCertificate, Webhook, default_audience,
    },
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Ca {
    #[command(subcommand)]
    command: Option<CaCommand>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum CaCommand {
    /// Join tokens, for machines without a cluster.
    #[command(subcommand)]
    Token(Token),
    /// Say how the authority is: its roots, what signs, who holds certificates, what comes next.
    ///
    /// Without a running control plane it says what lies on the disk, and ends with code 3.
    Status(StatusArgs),
    /// Replace the root or the intermediate, without one failed request.
    #[command(subcommand)]
    Rotate(Rotate),
    /// Put an authority out of use whose key somebody else may have: another takes its place at once, everybody whom it
    /// vouches for renews within seconds, then nobody trusts it any more.
    ///
    /// Nobody is cut off who is connected and renews. Whoever has not within a minute is cut off with it: a key that
    /// others have is worse.
    Taint(Taint),
    /// The audit log: each certificate, each refusal, each change of the authority.
    #[command(subcommand)]
    Audit(Audit),
}

#[derive(Args)]
struct Run {
    /// The state folder: it holds the root (0600) and the public bundle.
    #[arg(long, env = "DOUANE_DIR")]
    dir: Option<PathBuf>,
    /// A YAML file with everything that flags say, and more; flags win.
    #[arg(long, env = "DOUANE_CONFIG")]
    config: Option<PathBuf>,
    /// Where another control plane runs on the folder: wait, and take its place when it ends, however it ends.
    #[arg(long)]
    standby: bool,
    /// Sign beside other replicas on the same folder. One leads and alone changes the authority; any may die, and another
    /// takes its place.
    #[arg(long, conflicts_with = "standby")]
    replica: bool,
    /// A folder of YAML files; repeatable, the last one wins.
    #[arg(long)]
    resources: Vec<PathBuf>,
    /// Read the mesh from the Kubernetes API instead of folders: namespaces, pods, services, and the objects of
    /// security.istio.io and networking.istio.io, whether Istio's definitions are installed or ours (`douane install`).
    ///
    /// In a pod, by its own service account; what that must be allowed is in the ClusterRole that `douane install` prints.
    /// From elsewhere, give --kubeconfig. Until every kind was listed once, nothing is served and nothing becomes ready; when
    /// the API server goes away later, what was known last stays in force.
    #[arg(long, conflicts_with = "resources")]
    kubernetes: bool,
    /// A kubeconfig, for --kubernetes from outside of the cluster.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Which context of --kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
    /// Where the authority's state lies with --kubernetes: in the state folder, or in the Secret douane-system/douane-authority,
    /// which several replicas share: one of them leads by a lease and alone changes it.
    #[arg(long, value_name = "PLACE", requires = "kubernetes", value_parser = ["folder", "secret"])]
    state: Option<String>,
    /// Where gRPC is served; repeatable [default: all addresses, port 15012].
    #[arg(long)]
    listen: Vec<SocketAddr>,
    /// JSON Web Key Set (file or URL) that verifies service account tokens.
    #[arg(long, requires = "token_issuer")]
    jwks: Option<String>,
    /// PEM certificates that vouch for an https URL given as --jwks.
    #[arg(long, requires = "jwks")]
    jwks_trust: Option<PathBuf>,
    /// The `iss` of service account tokens, exactly.
    #[arg(long, requires = "jwks")]
    token_issuer: Option<String>,
    /// The `aud` of service account tokens [default: douane-ca].
    #[arg(long, requires = "jwks")]
    token_audience: Option<String>,
    /// How long certificates live, 10s to 24h [default: 1h].
    #[arg(long, value_parser = humantime::parse_duration)]
    leaf_ttl: Option<Duration>,
    /// The trust domain whose identities are signed [default: cluster.local].
    #[arg(long)]
    trust_domain: Option<String>,
    /// Where /metrics, /status, /readyz and /livez are served [default: nowhere].
    #[arg(long)]
    metrics: Option<SocketAddr>,
    /// Where other trust domains fetch our bundle: https://ADDR/bundle, for anybody [default: nowhere].
    ///
    /// Without further flags it shows our own SVID, spiffe://<trust domain>/ns/douane-system/sa/douane-ca (profile
    /// https_spiffe); with a certificate of its own it is what a browser would trust (profile https_web). Whoever federates
    /// with us needs the address, the profile and our trust domain; for https_spiffe also that SPIFFE ID and the bundle,
    /// which `curl -k https://ADDR/bundle` gives to somebody on a road that they trust. Whom we federate with stands in
    /// the configuration file (`federation`).
    #[arg(long, value_name = "ADDR")]
    bundle_listen: Option<SocketAddr>,
    /// Where the admission webhook is served, such as [::]:15017 [default: nowhere].
    #[arg(long, value_name = "ADDR")]
    webhook: Option<SocketAddr>,
    /// The image of injected sidecars.
    #[arg(long, env = "DOUANE_PROXY_IMAGE")]
    proxy_image: Option<String>,
    /// PEM certificate (chain) of the bundle endpoint, for profile https_web; read again when it changes.
    #[arg(long, value_name = "FILE", requires = "bundle_key", requires = "bundle_listen")]
    bundle_certificate: Option<PathBuf>,
    /// PEM private key of --bundle-certificate.
    #[arg(long, value_name = "FILE", requires = "bundle_certificate")]
    bundle_key: Option<PathBuf>,
    /// What is logged, such as `info` or `douane_ca=debug,info`.
    #[arg(long, env = "DOUANE_LOG", default_value = "info")]
    log: String,
}

/// Does what was asked for.
pub(super) fn run(ca: Ca) -> Result<ExitCode> {
    match ca.command {
        None => serve(ca.run)?,
        Some(CaCommand::Token(command)) => super::token::run(command)?,
        Some(CaCommand::Status(status)) => return super::authority::status(&status),
        Some(CaCommand::Rotate(rotate)) => super::authority::rotate(&rotate)?,
        Some(CaCommand::Taint(taint)) => super::authority::taint(&taint)?,
        Some(CaCommand::Audit(command)) => return super::audit::run(command),
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(flags: Run) -> Result<()> {
    let filter: Targets = flags.log.parse().with_context(|| format!("--log {:?}", flags.log))?;
    // Of an answer that it cannot parse it would write the whole: a token, or the authority's Secret. Its errors come to us.
    let filter = filter.with_target("kube_client", LevelFilter::OFF);
    // A second control plane in one process (tests) keeps the first one's log.
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    let config = configure(flags)?;
    app::harden()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(stop.clone())?;
        let app = tokio::select! {
            app = App::bind(config) => app?,
            // Who stands by may wait for long.
            () = stop.cancelled() => return Ok(()),
        };
        let addresses = app.addresses()?;
        let grpc: Vec<String> = addresses.grpc.iter().map(ToString::to_string).collect();
        let metrics = addresses.metrics.map(tracing::field::display);
        let bundle = addresses.bundle.map(tracing::field::display);
        let webhook = addresses.webhook.map(tracing::field::display);
        tracing::info!(grpc = grpc.join(", "), metrics, bundle, webhook, "the control plane is up");
        app.run(stop).await?;
        tracing::info!("the control plane has stopped");
        Ok(())
    })
}

fn configure(flags: Run) -> Result<Config> {
    let mut config = match &flags.config {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Config::parse(&text).with_context(|| path.display().to_string())?
        }
        None => Config::default(),
    };
    config.dir = flags.dir.or(config.dir);
    config.standby |= flags.standby;
    config.replica |= flags.replica;
    if !flags.resources.is_empty() {
        config.resources = flags.resources;
    }
    if flags.kubernetes {
        let written = config.kubernetes.unwrap_or_default();
        config.kubernetes = Some(Kubernetes {
            kubeconfig: flags.kubeconfig.or(written.kubeconfig),
            context: flags.context.or(written.context),
            state: match flags.state.as_deref() {
                Some("secret") => StatePlace::Secret,
                Some(_) => StatePlace::Folder,
                None => written.state,
            },
        });
    }
    if !flags.listen.is_empty() {
        config.listen = flags.listen;
    }
    if let (Some(jwks), Some(issuer)) = (flags.jwks, flags.token_issuer) {
        let audience = flags.token_audience.unwrap_or_else(default_audience);
        config.tokens = Some(Tokens { jwks, jwks_trust: flags.jwks_trust, issuer, audience });
    }
    if let Some(life) = flags.leaf_ttl {
        config.leaf_ttl = life;
    }
    if let Some(domain) = flags.trust_domain {
        config.trust_domain = TrustDomain::parse(&domain).context("--trust-domain")?;
    }
    config.metrics = flags.metrics.or(config.metrics);
    config.webhook = flags.webhook.map(|listen| Webhook { listen }).or(config.webhook);
    if let Some(image) = flags.proxy_image {
        config.injection.image = image;
    }
    if let Some(listen) = flags.bundle_listen {
        let files = flags.bundle_certificate.zip(flags.bundle_key);
        let web = files.map(|(certificate, key)| WebCertificate { certificate, key });
        config.bundle_endpoint = Some(BundleEndpoint { listen, web });
    }
    Ok(config)
}

fn stop_on_signal(stop: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}
