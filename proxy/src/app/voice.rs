//! What the sidecar tells: its log, the access log, metrics, and spans to a collector. Sets them up, keeps the figures
//! of the live values, and sees that nothing is lost at the end.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path, rc::Rc, time::Duration};

use anyhow::Context as _;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::health::Health,
    config::{AccessLog, Config, MetricNames},
    discovery::Mesh,
    exchange::ledger::Ledger,
    net::socket::Sockets,
    telemetry::{
        access::{Logs, Spans, Telemetry},
        form::Form,
        log::{self, Log, LogError},
        metrics::{self, Metrics},
        otlp::{self, Collector},
        resource::{self, Attributes},
        user::Users,
        writer::{LineWriter, LostLines},
    },
    tls::Mtls,
};

/// The log's last lines, before the process ends.
const FLUSH_LOG: Duration = Duration::from_secs(1);
/// The last spans: the exporter gives itself two seconds.
const FLUSH_SPANS: Duration = Duration::from_secs(3);

/// Logs, metrics, spans.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) telemetry: Rc<Telemetry>,
    /// `None` when the log belongs to somebody else in this process.
    pub(super) log: Option<Log>,
    events: LineWriter,
    stop: CancellationToken,
    exporter: Option<JoinHandle<()>>,
}

impl Voice {
    pub(super) fn new(config: &Config, sockets: Sockets) -> anyhow::Result<Self> {
        let told = &config.telemetry;
        let attributes = Attributes::parse(&told.resource_attributes).context("resource attributes")?;
        let origin = resource::origin(
            told.service_name.as_deref(),
            told.environment.as_deref(),
            &config.namespace,
            &config.pod,
            &attributes,
        );
        let lost = LostLines::default();
        let events = LineWriter::new(io::stdout(), lost.clone()).context("start the log's thread")?;
        let log = match log::install(&origin, &told.log, events.clone()) {
            Ok(log) => Some(log),
            // Another sidecar of this process has it: in tests.
            Err(LogError::Installed(_)) => None,
            Err(error) => return Err(error).context("set the log up"),
        };
        let export = told.export.as_ref();
        let collector = export.map(|export| Collector::new(export, sockets, attributes)).transpose();
        let collector = collector.context("set the exporter of spans up")?;
        let spans = export.map_or(Spans::Discard, |export| Spans::Export(export.queue));
        let lost_audit = LostLines::default();
        let audit = told.audit_log.as_deref().map(|file| appended(file, &lost_audit)).transpose()?;
        let users = told.user_key_file.as_deref().map(Users::read).transpose()?;
        let form = Form { format: told.access_log_format, successes: told.access_log_successes.0, users };
        let logs = Logs { access: access_log(&told.access_log, &events, &lost)?, audit, form };
        let mut metrics =
            Metrics::new(&lost, &lost_audit).with_idle(told.metrics_idle.unwrap_or(metrics::IDLE));
        if told.metric_names == MetricNames::AlsoIstio {
            metrics = metrics.with_istio_names();
        }
        let telemetry = Telemetry::new(origin, logs, metrics, spans, told.tracing.clone());
        let stop = CancellationToken::new();
        let exporter = collector.map(|collector| {
            tokio::task::spawn_local(otlp::run(Rc::clone(&telemetry), collector, stop.clone()))
        });
        Ok(Self { telemetry, log, events, stop, exporter })
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger::new(Rc::clone(&self.telemetry))
    }

    /// What keeps up with the live values.
    pub(super) fn namer(&self) -> Namer {
        Namer { telemetry: Rc::clone(&self.telemetry), log: self.log.clone() }
    }

    /// Sends what is left, within a bounded time.
    pub(super) async fn flush(self) {
        self.stop.cancel();
        if let Some(exporter) = self.exporter {
            let _ = tokio::time::timeout(FLUSH_SPANS, exporter).await;
        }
        self.telemetry.flush_log(FLUSH_LOG);
        self.events.flush(FLUSH_LOG);
    }
}

fn access_log(to: &AccessLog, events: &LineWriter, lost: &LostLines) -> anyhow::Result<Option<LineWriter>> {
    match to {
        AccessLog::Stdout => Ok(Some(events.clone())),
        AccessLog::Off => Ok(None),
        AccessLog::File(file) => appended(file, lost).map(Some),
    }
}

// Appended to: whoever rotates it copies and truncates. Nobody else may read who asked for what.
fn appended(file: &Path, lost: &LostLines) -> anyhow::Result<LineWriter> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(file);
    let sink = opened.with_context(|| format!("open the log {}", file.display()))?;
    LineWriter::new(sink, lost.clone())
        .with_context(|| format!("start the thread of the log {}", file.display()))
}

/// Gives the workload's name, once the control plane has said it, to all that is told.
pub(super) struct Namer {
    telemetry: Rc<Telemetry>,
    log: Option<Log>,
}

impl Namer {
    pub(super) fn name_service(&self, service: &str) {
        self.telemetry.name_service(service);
        if let Some(log) = &self.log {
            log.name_service(&self.telemetry.origin().service);
        }
    }
}

/// Keeps the figures of the live values, for ever.
pub(super) async fn tell(namer: Namer, health: Health, mtls: Mtls, mesh: Mesh) {
    let (mut identity, mut snapshot) = (mtls.watch(), mesh.watch());
    loop {
        let (not_before, not_after, first_root) = {
            let identity = identity.borrow_and_update();
            let leaf = &identity.svid.leaf;
            (leaf.not_before, leaf.not_after, identity.bundle.first_end())
        };
        namer.telemetry.metrics.certified(not_before, not_after, first_root);
        health.set_certified_until(not_after);
        {
            let snapshot = snapshot.borrow_and_update();
            let complaints = snapshot.policies.complaints().len();
            namer.telemetry.metrics.snapshot(snapshot.epoch, snapshot.sequence, complaints);
            namer.name_service(&snapshot.own.service_name);
        }
        let changed = tokio::select! {
            changed = identity.changed() => changed,
            changed = snapshot.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Tells whether the control plane is heard, for ever.
pub(super) async fn tell_connected(telemetry: Rc<Telemetry>, mut connected: watch::Receiver<bool>) {
    loop {
        telemetry.metrics.connected(*connected.borrow_and_update());
        if connected.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, os::unix::fs::PermissionsExt as _, process};

    use super::*;

    fn events() -> LineWriter {
        LineWriter::new(io::sink(), LostLines::default()).unwrap()
    }

    #[test]
    fn an_access_log_in_a_file_is_appended_to_and_only_ours_to_read() {
        let file = env::temp_dir().join(format!("douane-access-{}.json", process::id()));
        fs::write(&file, "before\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

        let to = AccessLog::File(file.clone());
        let log = access_log(&to, &events(), &LostLines::default()).unwrap().unwrap();
        log.send(b"after\n");
        log.flush(FLUSH_LOG);

        assert_eq!(fs::read_to_string(&file).unwrap(), "before\nafter\n");
        fs::remove_file(&file).unwrap();
        drop(access_log(&to, &events(), &LostLines::default()).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn an_access_log_that_is_off_writes_nothing() {
        assert!(access_log(&AccessLog::Off, &events(), &LostLines::default()).unwrap().is_none());
    }
}
