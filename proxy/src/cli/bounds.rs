//! The flags of [`Limits`], each with its environment variable; the defaults are where the limits are.

use std::time::Duration;

use crate::config::{Limits, Retries, Senseless};

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Limits (what others may make the sidecar hold, and for how long)")]
pub(super) struct Bounds {
    /// Connections that each side holds, as far as there are descriptors for them (RLIMIT_NOFILE). For one more, the one that
    /// has rested longest must go; where none rests it is reset at once, before its handshake. [default: 10000]
    #[arg(long, env = "DOUANE_MAX_CONNECTIONS")]
    max_connections: Option<usize>,
    /// Connections of one peer: of its address before the handshake, of its identity after it. [default: 1024]
    #[arg(long, env = "DOUANE_MAX_CONNECTIONS_PER_PEER")]
    max_connections_per_peer: Option<usize>,
    /// Requests in progress at once to one destination (a port of the own application, or a service). Among callers, an
    /// identity gets a place only while more are free than it holds: alone it has half of them, and leaves the others half. [default: 1024]
    #[arg(long, env = "DOUANE_MAX_IN_FLIGHT")]
    max_in_flight: Option<usize>,
    /// Requests that wait for such a place, 0 for none; one more is answered 503 (gRPC: UNAVAILABLE). [default: 256]
    #[arg(long, env = "DOUANE_MAX_QUEUE")]
    max_queue: Option<usize>,
    /// How long a request waits for a place at most; a tenth of it while the queue does not get empty. [default: 1s]
    #[arg(long, env = "DOUANE_QUEUE_TIMEOUT", value_parser = humantime::parse_duration)]
    queue_timeout: Option<Duration>,
    /// Bytes that peers and applications together may make the sidecar hold, such as 64MiB. [default: half of the memory
    /// limit of its control group, or 256MiB without one]
    #[arg(long, env = "DOUANE_BYTE_BUDGET", value_parser = bytes)]
    byte_budget: Option<usize>,
    /// Connecting to the own application. [default: 300ms]
    #[arg(long, env = "DOUANE_LOCAL_CONNECT_TIMEOUT", value_parser = humantime::parse_duration)]
    local_connect_timeout: Option<Duration>,
    /// Connecting to anybody else. [default: 1s]
    #[arg(long, env = "DOUANE_CONNECT_TIMEOUT", value_parser = humantime::parse_duration)]
    connect_timeout: Option<Duration>,
    /// A TLS handshake must end in this time. [default: 5s]
    #[arg(long, env = "DOUANE_HANDSHAKE_TIMEOUT", value_parser = humantime::parse_duration)]
    handshake_timeout: Option<Duration>,
    /// A request's head must be whole this long after its first byte. [default: 5s]
    #[arg(long, env = "DOUANE_HEAD_TIMEOUT", value_parser = humantime::parse_duration)]
    head_timeout: Option<Duration>,
    /// A request must be answered to its end in this time. [default: none, as long as something moves]
    #[arg(long, env = "DOUANE_REQUEST_TIMEOUT", value_parser = humantime::parse_duration)]
    request_timeout: Option<Duration>,
    /// A request in progress may rest this long without a byte in either direction. [default: 5m]
    #[arg(long, env = "DOUANE_STREAM_IDLE_TIMEOUT", value_parser = humantime::parse_duration)]
    stream_idle_timeout: Option<Duration>,
    /// An opaque stream, or a connection between two requests, may rest this long. [default: 1h]
    #[arg(long, env = "DOUANE_IDLE_TIMEOUT", value_parser = humantime::parse_duration)]
    idle_timeout: Option<Duration>,
    /// A connection of the sidecar's own that waits for its next request is kept this long. [default: 1m]
    #[arg(long, env = "DOUANE_POOL_IDLE_TIMEOUT", value_parser = humantime::parse_duration)]
    pool_idle_timeout: Option<Duration>,
    /// A request or stream in flight lives at most this long. [default: 24h]
    #[arg(long, env = "DOUANE_MAX_STREAM_AGE", value_parser = humantime::parse_duration)]
    max_stream_age: Option<Duration>,
    /// What of a failed request is sent again. What was certainly not looked at always is; `idempotent` adds GET, HEAD,
    /// OPTIONS, TRACE, PUT and DELETE with at most 64 KiB of body, 20 % of the requests and 10 a second at most.
    /// [default: unsent]
    #[arg(long, env = "DOUANE_RETRIES")]
    retries: Option<Again>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Again {
    Unsent,
    Idempotent,
}

impl Bounds {
    /// The byte budget that was asked for.
    pub(super) fn byte_budget(&self) -> Option<usize> {
        self.byte_budget
    }

    /// The limits that were asked for, the usual ones where nothing was.
    ///
    /// # Errors
    /// Those that nobody can mean.
    pub(super) fn limits(&self) -> Result<Limits, Senseless> {
        let usual = Limits::default();
        let connections = self.max_connections.unwrap_or(usual.connections);
        let limits = Limits {
            connections,
            // A smaller whole makes the part smaller, where nobody said otherwise.
            connections_of_one: self
                .max_connections_per_peer
                .unwrap_or(usual.connections_of_one.min(connections)),
            in_flight: self.max_in_flight.unwrap_or(usual.in_flight),
            queue: self.max_queue.unwrap_or(usual.queue),
            queue_wait: self.queue_timeout.unwrap_or(usual.queue_wait),
            connect_local: self.local_connect_timeout.unwrap_or(usual.connect_local),
            connect: self.connect_timeout.unwrap_or(usual.connect),
            handshake: self.handshake_timeout.unwrap_or(usual.handshake),
            head: self.head_timeout.unwrap_or(usual.head),
            request: self.request_timeout.or(usual.request),
            stream_idle: self.stream_idle_timeout.unwrap_or(usual.stream_idle),
            idle: self.idle_timeout.unwrap_or(usual.idle),
            pool_idle: self.pool_idle_timeout.unwrap_or(usual.pool_idle),
            stream_age: self.max_stream_age.unwrap_or(usual.stream_age),
            retries: self.retries.map_or(usual.retries, |again| match again {
                Again::Unsent => Retries::Unsent,
                Again::Idempotent => Retries::Idempotent,
            }),
        };
        limits.check().map(|()| limits)
    }
}

pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "KiB" | "Ki" => 10,
        "MiB" | "Mi" => 20,
        "GiB" | "Gi" => 30,
        _ => return Err(format!("{text:?} is no size such as 67108864 or 64MiB")),
    };
    let number: usize = number.parse().map_err(|_| format!("{text:?} begins with no number"))?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or(format!("{text} is no size to work with"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        bounds: Bounds,
    }

    fn limits(flags: &[&str]) -> Result<Limits, Senseless> {
        let line = ["run"].iter().chain(flags);
        Line::try_parse_from(line).expect("the flags are known").bounds.limits()
    }

    #[test]
    fn without_flags_the_defaults_hold() {
        assert_eq!(limits(&[]), Ok(Limits::default()));
    }

    #[test]
    fn a_flag_says_what_it_names() {
        let limits =
            limits(&["--max-connections", "7", "--request-timeout", "15s", "--retries", "idempotent"]);

        let limits = limits.unwrap();
        assert_eq!((limits.connections, limits.connections_of_one), (7, 7));
        assert_eq!(limits.request, Some(Duration::from_secs(15)));
        assert_eq!(limits.retries, Retries::Idempotent);
    }

    #[test]
    fn what_nobody_can_mean_is_refused() {
        for flags in [
            &["--max-in-flight", "0"][..],
            &["--idle-timeout", "0s"],
            &["--max-connections", "5", "--max-connections-per-peer", "6"],
        ] {
            assert!(limits(flags).is_err(), "{flags:?}");
        }
    }
}
