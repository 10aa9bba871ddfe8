//! A span as the demo needs it, out of the OTLP messages that sidecars send. Pure.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span as WireSpan, span::SpanKind, status::StatusCode},
};

/// Which side of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The caller's sidecar.
    Client,
    /// The receiver's sidecar.
    Server,
    /// Neither: not a span of a mesh hop.
    Other,
}

/// One span.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace, 32 hexadecimal digits.
    pub trace: String,
    /// This span, 16 hexadecimal digits.
    pub id: String,
    /// The span that caused it; empty at the root.
    pub parent: String,
    /// `service.name` of its resource.
    pub service: String,
    /// The span's name.
    pub name: String,
    /// Which side.
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Did it end in an error?
    pub failed: bool,
    /// Its attributes as text.
    pub attributes: BTreeMap<String, String>,
}

/// All spans of one export.
pub fn spans(export: &ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in &export.resource_spans {
        let attributes = resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let service = texts(attributes).remove("service.name").unwrap_or_default();
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            spans.push(Span::of(&service, span));
        }
    }
    spans
}

impl Span {
    fn of(service: &str, span: &WireSpan) -> Self {
        let kind = match span.kind() {
            SpanKind::Client => Kind::Client,
            SpanKind::Server => Kind::Server,
            _ => Kind::Other,
        };
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            service: service.to_owned(),
            name: span.name.clone(),
            kind,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            failed: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
            attributes: texts(&span.attributes),
        }
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
