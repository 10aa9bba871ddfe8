//! Who takes the spans of a lab and is asked for them: a sink of ours, or a real Jaeger, by either protocol. Killed, it may
//! come back at the same address.

use std::{net::SocketAddr, thread};

use douane_examples::demo::span::Span;
use douane_tests::{
    lab::Lab,
    namespaces,
    sink::{Mood, Sink},
    wait::eventually,
};

use super::{EXPORTED, LAB, jaeger::Jaeger, judge};

/// How sidecars send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// Where spans go.
#[derive(Debug)]
pub(super) struct Backend {
    kind: Kind,
    taker: Option<Taker>,
    address: SocketAddr,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Sink,
    Jaeger,
}

#[derive(Debug)]
enum Taker {
    Sink(Sink),
    Jaeger(Jaeger),
}

/// A lab, and who takes its spans.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) lab: Lab,
    pub(super) backend: Backend,
}

/// The same over both protocols, side by side.
pub(super) fn over_both(test: fn(Backend)) {
    thread::scope(|scope| {
        for protocol in [Protocol::Grpc, Protocol::Http] {
            scope.spawn(move || test(Backend::sink(protocol)));
        }
    });
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

impl Backend {
    pub(super) fn sink(protocol: Protocol) -> Self {
        let sink = Sink::start();
        Self { kind: Kind::Sink, address: sink.address(), taker: Some(Taker::Sink(sink)), protocol }
    }

    /// On the usual ports: one at a time.
    pub(super) fn jaeger(protocol: Protocol) -> Self {
        let port = match protocol {
            Protocol::Grpc => 4317,
            Protocol::Http => 4318,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { kind: Kind::Jaeger, address, taker: Some(Taker::Jaeger(Jaeger::start())), protocol }
    }

    /// A lab that is ready and sends its spans here; `None` where this kernel has no namespaces for us.
    pub(super) fn lab(self, files: &[(&str, &str)], variables: &[&str]) -> Option<Seen> {
        if !namespaces::are_available() {
            return None;
        }
        let (url, protocol) = (format!("http://{}", self.address), self.protocol.name());
        let protocol = format!("OTEL_EXPORTER_OTLP_PROTOCOL={protocol}");
        let mut options = vec!["--otlp", &url, "--sidecar-env", &protocol];
        options.extend(variables.iter().flat_map(|variable| ["--sidecar-env", variable]));
        let lab = Lab::up_with(LAB, files, &options);
        Some(Seen { lab, backend: self })
    }

    /// It ends as a killed process does.
    pub(super) fn is_killed(&mut self) {
        self.taker = None;
    }

    /// Another one, which knows nothing of what came before.
    pub(super) fn is_back(&mut self) {
        self.taker = Some(match self.kind {
            Kind::Sink => Taker::Sink(Sink::start_at(self.address)),
            Kind::Jaeger => Taker::Jaeger(Jaeger::start()),
        });
    }

    /// A sink answers otherwise from now on.
    pub(super) fn feels(&self, mood: Mood) {
        let Some(Taker::Sink(sink)) = &self.taker else { panic!("only a sink of ours has moods") };
        sink.feels(mood);
    }

    /// For what only Jaeger has.
    pub(super) fn real(&self) -> &Jaeger {
        let Some(Taker::Jaeger(jaeger)) = &self.taker else { panic!("no real Jaeger") };
        jaeger
    }

    /// All that came so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        match &self.taker {
            Some(Taker::Sink(sink)) => sink.spans(),
            Some(Taker::Jaeger(jaeger)) => jaeger.spans(),
            None => Vec::new(),
        }
    }

    /// What came so far of one trace, by its 32 digits.
    pub(super) fn trace(&self, id: &str) -> Vec<Span> {
        match &self.taker {
            Some(Taker::Sink(sink)) => sink.trace(id),
            Some(Taker::Jaeger(jaeger)) => jaeger.trace(id),
            None => Vec::new(),
        }
    }

    /// Waits until a trace has so many spans.
    pub(super) fn collected(&self, trace: &str, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans of {trace} come"), EXPORTED, || {
            let spans = self.trace(trace);
            if spans.len() >= count { Ok(spans) } else { Err(judge::show(&spans)) }
        })
    }
}
