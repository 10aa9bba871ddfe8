//! What the sidecar says of itself: events of `tracing` as one JSON object a line, with the same names as the access
//! log, on their way out like it ([`crate::telemetry::writer`]). The level can be changed while it runs, and the name
//! that the workload goes by.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Registry,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::telemetry::{line::cut, origin::Origin, writer::LineWriter};

/// A running log.
#[derive(Debug, Clone)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    service: Arc<RwLock<String>>,
}

/// Why the log cannot be as asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Such as `info` or `info,douane_proxy::outbound=debug`.
    #[error("{text:?} is no log filter")]
    Filter {
        /// What was asked.
        text: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Another log is installed in this process, or it has ended.
    #[error("the log is not ours to set: {0}")]
    Installed(String),
}

/// From now on the events of this process go to `writer`.
///
/// # Errors
/// [`LogError`].
pub fn install(origin: &Origin, filter: &str, writer: LineWriter) -> Result<Log, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let line = JsonLine::new(origin);
    let log = Log { filter: handle, service: Arc::clone(&line.service) };
    let lines = tracing_subscriber::fmt::layer().event_format(line).with_writer(move || writer.clone());
    Registry::default()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| LogError::Installed(error.to_string()))?;
    Ok(log)
}

impl Log {
    /// From now on the workload is called so.
    pub fn name_service(&self, service: &str) {
        let mut named = self.service.write().unwrap_or_else(PoisonError::into_inner);
        if *named != service {
            service.clone_into(&mut named);
        }
    }

    /// Replaces the filter, such as `debug` or `info,h2=trace`.
    ///
    /// # Errors
    /// [`LogError`]; the old filter stays then.
    pub fn set_level(&self, filter: &str) -> Result<(), LogError> {
        self.filter.reload(parse(filter)?).map_err(|error| LogError::Installed(error.to_string()))
    }

    /// The filter as it is.
    #[must_use]
    pub fn level(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }
}

fn parse(text: &str) -> Result<Targets, LogError> {
    text.parse().map_err(|source| LogError::Filter { text: text.to_owned(), source })
}

/// Each event as `{"timestamp":…,"level":…,"kind":"event","message":…,"service":…,…}`.
struct JsonLine {
    service: Arc<RwLock<String>>,
    environment: String,
    namespace: String,
    pod: String,
}

impl JsonLine {
    fn new(origin: &Origin) -> Self {
        let Origin { service, environment, namespace, pod, .. } = origin;
        Self {
            service: Arc::new(RwLock::new((**service).to_owned())),
            environment: (**environment).to_owned(),
            namespace: (**namespace).to_owned(),
            pod: (**pod).to_owned(),
        }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let service = self.service.read().unwrap_or_else(PoisonError::into_inner).clone();
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        // In the order in which people read them.
        let own = [
            ("timestamp", humantime::format_rfc3339_micros(std::time::SystemTime::now()).to_string().into()),
            ("level", level.into()),
            ("kind", "event".into()),
            ("message", fields.message),
            ("service", service.into()),
            ("environment", self.environment.as_str().into()),
            ("namespace", self.namespace.as_str().into()),
            ("pod", self.pod.as_str().into()),
            ("target", event.metadata().target().into()),
        ];
        let told = fields.others.into_iter().filter(|(name, _)| own.iter().all(|(own, _)| own != name));
        let members: Vec<_> =
            own.iter().cloned().chain(told).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        writeln!(writer, "{{{}}}", members.join(","))
    }
}

#[derive(Default)]
struct Fields {
    message: Value,
    // Names are identifiers of our own code: they need no escapes.
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn keep(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value,
            name => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, cut(value).into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(source) = cause {
            text = format!("{text}: {source}");
            cause = source.source();
        }
        self.record_str(field, &text);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
        time::Duration,
    };

    use super::*;
    use crate::telemetry::writer::LostLines;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    // One test: a process has one log.
    #[test]
    fn events_are_json_lines_and_the_level_changes_while_it_runs() {
        let (kept, origin) = (Kept::default(), Origin { service: "orders".into(), ..Origin::default() });
        let writer = LineWriter::new(kept.clone(), LostLines::default()).unwrap();

        let log = install(&origin, "info", writer.clone()).unwrap();
        tracing::debug!("not told");
        tracing::warn!(peer = %"a\nb", count = 3, message = "told");
        log.set_level("off,douane_proxy::telemetry::log=debug").unwrap();
        log.name_service("orders-v2");
        tracing::debug!(ok = true, "told now");
        assert!(log.set_level("info,=/").is_err());
        assert!(log.level().contains("debug"));
        assert!(matches!(install(&origin, "info", writer.clone()), Err(LogError::Installed(_))));
        writer.flush(Duration::from_secs(5));

        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!((&lines[0]["message"], &lines[0]["level"]), (&"told".into(), &"warn".into()));
        assert_eq!((&lines[0]["peer"], &lines[0]["count"]), (&"a\nb".into(), &3.into()));
        assert_eq!((&lines[0]["service"], &lines[0]["kind"]), (&"orders".into(), &"event".into()));
        assert_eq!((&lines[1]["message"], &lines[1]["ok"]), (&"told now".into(), &true.into()));
        assert_eq!(lines[1]["service"], "orders-v2", "the name that the control plane said");
        assert!(text.starts_with("{\"timestamp\":"), "{text}");
    }
}
