//! How much and how long a peer, an application or the control plane may keep us busy: what an operator may choose, with
//! its defaults. What the wire formats themselves need bounded (heads, windows, resets) is no choice: `exchange::limits`.

use std::time::Duration;

use serde::Serialize;

/// Descriptors that no connection of others may take.
const RESERVED: u64 = 64;
/// One to whoever asked, one to whoever is asked.
const PER_CONNECTION: u64 = 2;
/// Inbound and outbound.
const SIDES: u64 = 2;

/// The bounds of a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Connections that each side holds; one more is reset at once, before it costs a handshake.
    pub connections: usize,
    /// Of those, how many one peer may have: one address before its handshake, one identity after it.
    pub connections_of_one: usize,
    /// Requests in progress at once to one destination.
    pub in_flight: usize,
    /// Requests that wait for one of those places.
    pub queue: usize,
    /// How long each waits at most; then it is refused.
    pub queue_wait: Duration,
    /// Connecting to the own application.
    pub connect_local: Duration,
    /// Connecting to anybody else.
    pub connect: Duration,
    /// A TLS handshake must end in this time.
    pub handshake: Duration,
    /// A request's head must be whole this long after its first byte; where only HTTP is acceptable, a connection must
    /// also begin to speak in this time.
    pub head: Duration,
    /// A request must be answered to its end in this time; `None`: as long as something moves.
    pub request: Option<Duration>,
    /// A request in progress may rest this long without a byte in either direction; where a sidecar of ours serves it, by
    /// that one's limit.
    pub stream_idle: Duration,
    /// An opaque stream, or a connection between two requests, may rest this long.
    pub idle: Duration,
    /// A connection of ours that waits for its next request is kept this long; less than servers usually permit.
    pub pool_idle: Duration,
    /// A request or stream in flight lives at most this long, also past the certificate's expiry.
    pub stream_age: Duration,
    /// What of a failed request is sent again.
    pub retries: Retries,
}

/// What of a failed request is sent again. A request that was certainly not looked at always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retries {
    /// Nothing else.
    #[default]
    Unsent,
    /// Also what asks for nothing but to be repeated (RFC 9110 9.2.2), within a budget.
    Idempotent,
}

/// A limit that nobody can mean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Senseless {
    /// Nothing could ever pass.
    #[error("{0} is 0: nothing could pass (there is no value for \"without a limit\")")]
    Nothing(&'static str),
    /// A part that is larger than the whole.
    #[error("{part} ({of_part}) is more than {whole} ({of_whole})")]
    MoreThanWhole {
        /// The part's flag.
        part: &'static str,
        /// Its value.
        of_part: String,
        /// The whole's flag.
        whole: &'static str,
        /// Its value.
        of_whole: String,
    },
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_of_one: 1024,
            in_flight: 1024,
            queue: 256,
            queue_wait: Duration::from_secs(1),
            // The application is on this machine.
            connect_local: Duration::from_millis(300),
            connect: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(5),
            request: None,
            stream_idle: Duration::from_secs(300),
            idle: Duration::from_secs(3600),
            pool_idle: Duration::from_secs(60),
            stream_age: Duration::from_secs(24 * 3600),
            retries: Retries::Unsent,
        }
    }
}

impl Limits {
    /// The same as far as so many descriptors bear it: a connection may need two, and both sides share four fifths of them.
    /// The rest, and 64 besides, is for probes, operators, the control plane, logs and what begins just now.
    #[must_use]
    pub fn within(self, descriptors: u64) -> Self {
        let bearable = descriptors.saturating_sub(RESERVED) / 5 * 4 / PER_CONNECTION / SIDES;
        let bearable = usize::try_from(bearable).unwrap_or(usize::MAX).max(1);
        let connections = self.connections.min(bearable);
        Self {
            connections,
            connections_of_one: self.connections_of_one.min(connections),
            // A request over HTTP/1 needs a connection, too.
            in_flight: self.in_flight.min(connections),
            ..self
        }
    }

    /// Can somebody mean them?
    ///
    /// # Errors
    /// The first that nobody can.
    pub fn check(&self) -> Result<(), Senseless> {
        let counts = [
            ("--max-connections", self.connections),
            ("--max-connections-per-peer", self.connections_of_one),
            ("--max-in-flight", self.in_flight),
        ];
        let times = [
            ("--local-connect-timeout", self.connect_local),
            ("--connect-timeout", self.connect),
            ("--handshake-timeout", self.handshake),
            ("--head-timeout", self.head),
            ("--request-timeout", self.request.unwrap_or(Duration::MAX)),
            ("--stream-idle-timeout", self.stream_idle),
            ("--idle-timeout", self.idle),
            ("--pool-idle-timeout", self.pool_idle),
            ("--max-stream-age", self.stream_age),
        ];
        let nothing = counts.iter().filter(|(_, count)| *count == 0).map(|(flag, _)| *flag);
        let never = times.iter().filter(|(_, time)| time.is_zero()).map(|(flag, _)| *flag);
        if let Some(flag) = nothing.chain(never).next() {
            return Err(Senseless::Nothing(flag));
        }
        if self.connections_of_one > self.connections {
            return Err(Senseless::MoreThanWhole {
                part: "--max-connections-per-peer",
                of_part: self.connections_of_one.to_string(),
                whole: "--max-connections",
                of_whole: self.connections.to_string(),
            });
        }
        if let Some(request) = self.request.filter(|request| *request > self.stream_age) {
            return Err(Senseless::MoreThanWhole {
                part: "--request-timeout",
                of_part: format!("{request:?}"),
                whole: "--max-stream-age",
                of_whole: format!("{:?}", self.stream_age),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn what_lets_nothing_pass_is_named_by_its_flag() {
        let usual = Limits::default();
        for (limits, flag) in [
            (Limits { connections: 0, ..usual }, "--max-connections"),
            (Limits { in_flight: 0, ..usual }, "--max-in-flight"),
            (Limits { head: Duration::ZERO, ..usual }, "--head-timeout"),
            (Limits { request: Some(Duration::ZERO), ..usual }, "--request-timeout"),
        ] {
            assert_eq!(limits.check(), Err(Senseless::Nothing(flag)));
        }
    }

    #[test]
    fn a_part_is_not_larger_than_its_whole() {
        let usual = Limits::default();
        let peer = Limits { connections: 10, connections_of_one: 11, ..usual };
        let request =
            Limits { request: Some(Duration::from_secs(9)), stream_age: Duration::from_secs(8), ..usual };

        assert!(peer.check().unwrap_err().to_string().starts_with("--max-connections-per-peer (11)"));
        assert!(request.check().unwrap_err().to_string().contains("--max-stream-age (8s)"));
    }

    #[test]
    fn few_descriptors_mean_few_connections_and_many_change_nothing() {
        let usual = Limits::default();

        let few = usual.within(256);

        assert_eq!((few.connections, few.connections_of_one, few.in_flight), (38, 38, 38));
        assert_eq!(usual.within(1 << 20), usual);
        assert_eq!(usual.within(0).connections, 1);
        assert_eq!(few.check(), Ok(()));
    }

    #[test]
    fn no_queue_is_a_choice() {
        assert_eq!(Limits { queue: 0, ..Limits::default() }.check(), Ok(()));
    }
}
