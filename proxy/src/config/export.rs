//! Where finished spans go and how: OpenTelemetry's variables of its OTLP exporter and of its batch processor.
//!
//! Parsed once, at start. What we do not do is refused here with what to set instead, never silently ignored. Knows not
//! how spans travel; who reads the environment is the command line.

use std::{fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::{Serialize, Serializer, ser::SerializeSeq as _};

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Export {
    /// Where the collector listens.
    pub endpoint: Endpoint,
    /// How it is spoken with.
    pub protocol: Protocol,
    /// What each request carries besides: often a key of the collector's.
    pub headers: Headers,
    /// Of what is sent.
    pub compression: Compression,
    /// PEM file with those who vouch for a collector behind `https`; read anew at each connect.
    pub certificate: Option<PathBuf>,
    /// One request may take so long.
    pub timeout: Duration,
    /// What waits for it.
    pub queue: Queue,
}

/// A collector's URL, in its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Is it `https`?
    pub tls: Tls,
    /// A name or an address, without brackets.
    pub host: String,
    /// A port.
    pub port: u16,
    /// With its query; the path of gRPC's method is not ours to choose.
    pub path: String,
}

/// Is the way to the collector secure?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// `http`.
    Off,
    /// `https`.
    On,
}

/// How a collector is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP, in protobuf.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Of what is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// With gzip, in a thread of its own.
    Gzip,
}

/// Headers whose values nobody sees: neither a log nor the admin socket.
#[derive(Clone, Default)]
pub struct Headers(pub HeaderMap);

/// What waits for the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Spans that wait; one more is dropped.
    pub most: usize,
    /// Spans that are sent at once.
    pub batch: usize,
    /// A span waits this long for company.
    pub delay: Duration,
    /// All attempts for one batch.
    pub limit: Duration,
}

/// A variable that we cannot obey.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct NotExport {
    variable: String,
    problem: String,
}

impl Default for Queue {
    fn default() -> Self {
        Self { most: MOST_SPANS, batch: BATCH, delay: DELAY, limit: EXPORT }
    }
}

impl Export {
    /// To a collector in plaintext, with all defaults. `endpoint` is the base of its URL.
    ///
    /// # Errors
    /// [`NotExport`] when it is none.
    pub fn to(endpoint: &str, protocol: Protocol) -> Result<Self, NotExport> {
        let name = match protocol {
            Protocol::Grpc => "grpc",
            Protocol::HttpProtobuf => "http/protobuf",
        };
        let told = Self::read(|variable| match variable {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.to_owned()),
            "OTEL_EXPORTER_OTLP_PROTOCOL" => Some(name.to_owned()),
            _ => None,
        });
        told?.ok_or_else(|| not("OTEL_EXPORTER_OTLP_ENDPOINT", "is empty"))
    }

    /// By the variables that `value_of` knows; an empty one counts as none. `None`: nothing is exported.
    ///
    /// # Errors
    /// [`NotExport`] for the first that we cannot obey.
    pub fn read(value_of: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, NotExport> {
        let told = |name: &str| value_of(name).filter(|value| !value.trim().is_empty());
        if told("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let is_asked_for = match told(EXPORTER).as_deref() {
            None => false,
            Some("otlp") => true,
            Some("none") => return Ok(None),
            Some(other) => return Err(not(EXPORTER, format!("{other:?} is not there; set otlp or none"))),
        };
        for what in ["CLIENT_KEY", "CLIENT_CERTIFICATE"] {
            if let Some(Told { variable, .. }) = Told::of(&told, what) {
                let problem =
                    "we show a collector no certificate; let it know us by OTEL_EXPORTER_OTLP_HEADERS";
                return Err(not(&variable, problem));
            }
        }
        let protocol = Told::of(&told, "PROTOCOL").map(|told| protocol(&told)).transpose()?;
        let endpoint = Told::of(&told, "ENDPOINT");
        if endpoint.is_none() && !is_asked_for {
            return Ok(None);
        }
        let insecure = Told::of(&told, "INSECURE").map(|told| truth(&told)).transpose()?;
        let endpoint = endpoint.unwrap_or_else(|| Told::default_endpoint(protocol));
        let (endpoint, protocol) = read_endpoint(&endpoint, protocol, insecure)?;
        let certificate = Told::of(&told, "CERTIFICATE").map(|told| PathBuf::from(told.value));
        if endpoint.tls == Tls::On && certificate.is_none() {
            let problem = "an https endpoint needs the PEM file of those who vouch for it: set this variable \
                           (we bring no roots of our own)";
            return Err(not("OTEL_EXPORTER_OTLP_CERTIFICATE", problem));
        }
        Ok(Some(Self {
            endpoint,
            protocol,
            headers: Told::of(&told, "HEADERS").map(|told| headers(&told)).transpose()?.unwrap_or_default(),
            compression: compression(Told::of(&told, "COMPRESSION"))?,
            certificate,
            timeout: Told::of(&told, "TIMEOUT")
                .map_or(Ok(TIMEOUT), |Told { variable, value }| milliseconds(&variable, &value))?,
            queue: Queue::read(&told)?,
        }))
    }
}

impl Queue {
    fn read(told: &impl Fn(&str) -> Option<String>) -> Result<Self, NotExport> {
        let count = |name, within| told(name).map(|value| number(name, &value, within)).transpose();
        let time = |name, usual| told(name).map_or(Ok(usual), |value| milliseconds(name, &value));
        let most = count("OTEL_BSP_MAX_QUEUE_SIZE", 1..=65_536)?.unwrap_or(MOST_SPANS);
        let batch = count(BATCH_SIZE, 1..=4096)?;
        if let Some(batch) = batch.filter(|batch| *batch > most) {
            return Err(not(BATCH_SIZE, format!("{batch} are more than the {most} that may wait")));
        }
        Ok(Self {
            most,
            batch: batch.unwrap_or(BATCH.min(most)),
            delay: time("OTEL_BSP_SCHEDULE_DELAY", DELAY)?,
            limit: time("OTEL_BSP_EXPORT_TIMEOUT", EXPORT)?,
        })
    }
}

/// A variable's value, that for traces before that for everything.
struct Told {
    variable: String,
    value: String,
}

impl Told {
    fn of(told: &impl Fn(&str) -> Option<String>, what: &str) -> Option<Self> {
        let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|variable| {
            let value = told(&variable)?.trim().to_owned();
            Some(Self { variable, value })
        })
    }

    // OpenTelemetry's, where spans are asked for and nobody says where they go.
    fn default_endpoint(protocol: Option<Protocol>) -> Self {
        let value = match protocol {
            Some(Protocol::HttpProtobuf) => "http://localhost:4318",
            Some(Protocol::Grpc) | None => "http://localhost:4317",
        };
        Self { variable: "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), value: value.to_owned() }
    }

    fn is_for_traces(&self) -> bool {
        self.variable.contains("_TRACES_")
    }

    fn not(&self, problem: impl Into<String>) -> NotExport {
        not(&self.variable, problem)
    }
}

fn protocol(told: &Told) -> Result<Protocol, NotExport> {
    match told.value.as_str() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        other => Err(told.not(format!("{other:?} is not spoken here; set grpc or http/protobuf"))),
    }
}

fn read_endpoint(
    told: &Told,
    protocol: Option<Protocol>,
    insecure: Option<bool>,
) -> Result<(Endpoint, Protocol), NotExport> {
    let text = &told.value;
    // Its message must not show what stands there.
    if text.split(['?', '#']).next().is_some_and(|url| url.contains('@')) {
        return Err(told.not("a URL holds no password; set OTEL_EXPORTER_OTLP_HEADERS=authorization=..."));
    }
    let wrong = || told.not(format!("{text:?} is no URL such as http://collector:4317"));
    let url = match (text.contains("://"), insecure) {
        (true, _) => text.clone(),
        (false, Some(true)) => format!("http://{text}"),
        (false, Some(false)) => format!("https://{text}"),
        (false, None) => {
            return Err(told.not(format!("{text:?} does not say whether it is http:// or https://")));
        }
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let tls = match uri.scheme_str() {
        Some("http") => Tls::Off,
        Some("https") => Tls::On,
        _ => return Err(wrong()),
    };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(wrong());
    }
    // Most name the port alone, and each of the two has its own.
    let protocol = protocol.unwrap_or(match uri.port_u16() {
        Some(OTLP_HTTP) => Protocol::HttpProtobuf,
        _ => Protocol::Grpc,
    });
    let port = uri.port_u16().unwrap_or(match (tls, protocol) {
        (Tls::Off, Protocol::Grpc) => OTLP_GRPC,
        (Tls::Off, Protocol::HttpProtobuf) => 80,
        (Tls::On, _) => 443,
    });
    if port == 0 {
        return Err(wrong());
    }
    let path = match protocol {
        Protocol::Grpc if matches!(uri.path(), "" | "/") && uri.query().is_none() => String::new(),
        Protocol::Grpc => {
            return Err(told.not(
                "OTLP over gRPC has no path; leave it out, or set \
                                 OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
            ));
        }
        Protocol::HttpProtobuf if told.is_for_traces() => {
            uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned()
        }
        Protocol::HttpProtobuf if uri.query().is_some() => {
            return Err(
                told.not("a base URL has no query; set OTEL_EXPORTER_OTLP_TRACES_ENDPOINT to the whole URL")
            );
        }
        Protocol::HttpProtobuf => format!("{}/v1/traces", uri.path().trim_end_matches('/')),
    };
    Ok((Endpoint { tls, host, port, path }, protocol))
}

// key=value,key=value; values percent-encoded. No message shows a value.
fn headers(told: &Told) -> Result<Headers, NotExport> {
    let mut read = HeaderMap::new();
    for (place, entry) in told.value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate() {
        let wrong = |problem: &str| told.not(format!("entry {}: {problem}", place + 1));
        let (key, value) = entry.split_once('=').ok_or_else(|| wrong("is not of the form key=value"))?;
        let name: HeaderName = key.trim().parse().map_err(|_| wrong("its key is no header's name"))?;
        if OURS.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
            return Err(wrong(&format!("the header {name} is ours to set")));
        }
        let value = percent_decoded(value.trim()).ok_or_else(|| wrong("its value is not percent-encoded"))?;
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| wrong("its value is no header's"))?;
        value.set_sensitive(true);
        if read.len() >= MOST_HEADERS {
            return Err(told.not(format!("more than {MOST_HEADERS} headers")));
        }
        read.append(name, value);
    }
    Ok(Headers(read))
}

fn compression(told: Option<Told>) -> Result<Compression, NotExport> {
    let Some(told) = told else { return Ok(Compression::None) };
    match told.value.as_str() {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        other => Err(told.not(format!("{other:?} is not there; set gzip or none"))),
    }
}

fn truth(told: &Told) -> Result<bool, NotExport> {
    match told.value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(told.not(format!("{other:?} is neither true nor false"))),
    }
}

fn milliseconds(variable: &str, value: &str) -> Result<Duration, NotExport> {
    number(variable, value, 1..=600_000).map(|milliseconds| Duration::from_millis(milliseconds as u64))
}

fn number(variable: &str, value: &str, within: RangeInclusive<usize>) -> Result<usize, NotExport> {
    value.trim().parse().ok().filter(|number| within.contains(number)).ok_or_else(|| {
        not(variable, format!("{value:?} is no whole number from {} to {}", within.start(), within.end()))
    })
}

fn not(variable: &str, problem: impl Into<String>) -> NotExport {
    NotExport { variable: variable.to_owned(), problem: problem.into() }
}

/// The bytes of a text in which some are written `%41`.
#[must_use]
pub fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    Some(bytes)
}

/// Without its query: that may hold a key.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.tls {
            Tls::Off => "http",
            Tls::On => "https",
        };
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

impl Endpoint {
    /// Host and port, as a URL has them.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Their names alone.
impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_seq(Some(self.0.keys_len()))?;
        for name in self.0.keys() {
            names.serialize_element(name.as_str())?;
        }
        names.end()
    }
}

const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const BATCH_SIZE: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
const OTLP_GRPC: u16 = 4317;
const OTLP_HTTP: u16 = 4318;
// Spans; OpenTelemetry's own default.
const MOST_SPANS: usize = 2048;
// Spans. A batch is encoded on the data path's thread: so many take a fraction of a millisecond, OpenTelemetry's 512
// would hold up requests for several.
const BATCH: usize = 128;
// OpenTelemetry waits five seconds; whoever looks at a trace is waiting for it.
const DELAY: Duration = Duration::from_secs(1);
// OpenTelemetry's defaults, of one request and of all attempts for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);
const EXPORT: Duration = Duration::from_secs(30);
// More than any collector asks for.
const MOST_HEADERS: usize = 64;
// What frames a request; a second one would contradict it.
const OURS: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
