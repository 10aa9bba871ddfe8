//! The flags of [`Export`], and OpenTelemetry's variables, which it reads by name; a flag comes before its variable.

use anyhow::Context as _;

use crate::config::export::Export;

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Spans to a collector")]
pub(super) struct Exporter {
    /// OTLP collector, such as http://127.0.0.1:4317, or https://... with --otlp-certificate. None: no spans are sent.
    ///
    /// OpenTelemetry's variables are heard: OTEL_EXPORTER_OTLP_ and OTEL_EXPORTER_OTLP_TRACES_ with ENDPOINT, PROTOCOL,
    /// HEADERS, TIMEOUT, COMPRESSION, CERTIFICATE and INSECURE; OTEL_BSP_MAX_QUEUE_SIZE, _MAX_EXPORT_BATCH_SIZE,
    /// _SCHEDULE_DELAY and _EXPORT_TIMEOUT; OTEL_TRACES_EXPORTER and OTEL_SDK_DISABLED.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// How it is spoken with: `grpc`, or `http/protobuf`, which appends /v1/traces to the URL. [default: grpc, but
    /// http/protobuf on port 4318]
    #[arg(long, value_name = "PROTOCOL")]
    otlp_protocol: Option<String>,
    /// PEM file with those who vouch for a collector behind https.
    #[arg(long, value_name = "FILE")]
    otlp_certificate: Option<String>,
}

impl Exporter {
    /// What is exported, by these flags and by the variables that `variable` knows.
    pub(super) fn export(&self, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Export>> {
        let flags = [
            ("ENDPOINT", &self.otlp),
            ("PROTOCOL", &self.otlp_protocol),
            ("CERTIFICATE", &self.otlp_certificate),
        ];
        let told = |name: &str| {
            let what = name.strip_prefix("OTEL_EXPORTER_OTLP_").unwrap_or_default();
            let of_traces = what.strip_prefix("TRACES_");
            match flags.iter().find(|(flag, told)| *flag == of_traces.unwrap_or(what) && told.is_some()) {
                // A flag stands for the general variable, and hides that for traces.
                Some((_, told)) => (*told).clone().filter(|_| of_traces.is_none()),
                None => variable(name),
            }
        };
        Export::read(told).context("read where spans go")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        exporter: Exporter,
    }

    #[test]
    fn a_flag_comes_before_both_of_its_variables() {
        let export = |flags: &[&str]| {
            let line = Line::try_parse_from(["run"].iter().chain(flags)).unwrap();
            let told = line.exporter.export(|name| match name {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some("http://theirs:4317".to_owned()),
                "OTEL_EXPORTER_OTLP_PROTOCOL" => Some("grpc".to_owned()),
                _ => None,
            });
            told.unwrap().unwrap().endpoint.to_string()
        };

        assert_eq!(export(&[]), "http://theirs:4317");
        assert_eq!(export(&["--otlp", "http://ours:4317"]), "http://ours:4317");
        let both = ["--otlp", "http://ours:4318", "--otlp-protocol", "http/protobuf"];
        assert_eq!(export(&both), "http://ours:4318/v1/traces");
    }
}
