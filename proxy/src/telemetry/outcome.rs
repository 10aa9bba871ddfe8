//! How a request or stream ended: the one judgement that counters, spans, logs, kept traces and `douane why` share.
//!
//! Pure. Where two of them ask for different things, they ask by different names here, and each says why.

use crate::telemetry::record::{Direction, Record};

/// How a request or stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should.
    Well,
    /// Its client went away of its own will: nobody is to blame.
    Left,
    /// By its client's fault: a status of 4xx, or a gRPC status that the conventions do not call the server's error.
    Erred,
    /// The law said no, in words that say so.
    Denied,
    /// The law said no in words of a failure, such as 503: mostly it could not be asked.
    DeniedInDoubt,
    /// By the fault of whoever was asked, or of the mesh.
    Failed,
}

/// What an answer's code says by itself, whoever gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    None,
    Good,
    ClientsFault,
    ServersFault,
}

impl Outcome {
    pub(crate) fn of(record: &Record) -> Self {
        let code = Code::of(record);
        match (record.refusal, code) {
            // Before the law: whoever left heard nothing of it.
            (Some(CLIENT_GONE), _) => Self::Left,
            _ if record.denied && code == Code::ServersFault => Self::DeniedInDoubt,
            _ if record.denied => Self::Denied,
            // The code is of an answer that never came to its end.
            (Some(_), _) if record.is_broken_off => Self::Failed,
            (_, Code::ClientsFault) => Self::Erred,
            (Some(_), _) | (None, Code::ServersFault) => Self::Failed,
            (None, Code::Good | Code::None) => Self::Well,
        }
    }

    /// Is it worth keeping its trace, and a look of whoever runs the mesh? What a client brings upon itself is not, nor
    /// what the law forbids: both are as often as somebody likes, and the log has all of it.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::DeniedInDoubt)
    }

    /// The same as the span's kind has it: the conventions call a client's span an error wherever it did not get what it
    /// asked for, and a server's only where the server is to blame.
    pub(crate) fn is_error_of(self, direction: Direction) -> bool {
        match direction {
            Direction::Outbound => !matches!(self, Self::Well | Self::Left),
            Direction::Inbound => self.is_failure(),
        }
    }

    /// Did the mesh say no?
    pub(crate) fn is_denied(self) -> bool {
        matches!(self, Self::Denied | Self::DeniedInDoubt)
    }

    /// Did its client get what it asked for? Whoever left did not, and asks why with the rest.
    pub(crate) fn is_good(self) -> bool {
        self == Self::Well
    }
}

impl Code {
    // A gRPC status outweighs the HTTP status beside it, which is 200 as a rule. Where we have made it ourselves, what it was
    // made of outweighs it: gRPC has INTERNAL for a request that its client has spoilt (400).
    fn of(record: &Record) -> Self {
        let is_ours = record.grpc_status.is_some() && !record.is_broken_off;
        let (grpc_status, status) = match record.refused_with.filter(|_| is_ours) {
            Some(status) => (None, Some(status)),
            None => (record.grpc_status, record.status),
        };
        match (grpc_status, status) {
            (Some(0), _) => Self::Good,
            (Some(code), _) if SERVER_FAULTS.contains(&code) => Self::ServersFault,
            (Some(_), _) => Self::ClientsFault,
            (None, Some(status)) => match status {
                400..500 => Self::ClientsFault,
                500.. => Self::ServersFault,
                _ => Self::Good,
            },
            (None, None) => Self::None,
        }
    }
}

// The label of `Refusal::ClientGone`.
const CLIENT_GONE: &str = "client_gone";
// UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: the conventions' list.
const SERVER_FAULTS: [u16; 6] = [2, 4, 12, 13, 14, 15];

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::refusal::Refusal;

    // HTTP status, gRPC status, refusal.
    type Ended = (Option<u16>, Option<u16>, Option<&'static str>);

    fn request((status, grpc_status, refusal): Ended) -> Record {
        let mut record = Record::new(Direction::Inbound, "10.77.0.5:8080".parse().unwrap());
        (record.method, record.status) = (Some(Method::GET), status);
        (record.grpc_status, record.refusal, record.grpc) = (grpc_status, refusal, grpc_status.is_some());
        record
    }

    #[test]
    fn each_end_has_one_outcome() {
        use Outcome::{Erred, Failed, Left, Well};
        let cases: &[(Ended, Outcome)] = &[
            // HTTP.
            ((Some(200), None, None), Well),
            ((Some(101), None, None), Well),
            ((Some(304), None, None), Well),
            ((Some(404), None, None), Erred),
            ((Some(403), None, None), Erred),
            ((Some(500), None, None), Failed),
            ((Some(503), None, None), Failed),
            // gRPC.
            ((Some(200), Some(0), None), Well),
            ((Some(200), Some(1), None), Erred),
            ((Some(200), Some(5), None), Erred),
            ((Some(200), Some(7), None), Erred),
            ((Some(200), Some(8), None), Erred),
            ((Some(200), Some(99), None), Erred),
            ((Some(200), Some(2), None), Failed),
            ((Some(200), Some(4), None), Failed),
            ((Some(200), Some(14), None), Failed),
            ((None, Some(14), None), Failed),
            // What the sidecar refuses, in HTTP, gRPC and bytes.
            ((Some(502), None, Some("connect_failed")), Failed),
            ((Some(408), None, Some("head_timeout")), Erred),
            ((Some(429), None, Some("reset_flood")), Erred),
            ((Some(503), None, Some("too_many_in_flight")), Failed),
            ((Some(200), Some(14), Some("connect_failed")), Failed),
            ((None, None, Some("connect_failed")), Failed),
            ((None, None, Some("body_broke")), Failed),
            // Its client left: before the answer, in the middle of it, and after a bad one had begun.
            ((None, None, Some("client_gone")), Left),
            ((Some(200), None, Some("client_gone")), Left),
            ((Some(502), None, Some("client_gone")), Left),
            ((Some(200), Some(14), Some("client_gone")), Left),
            // A stream that ended, and a request whose answer was not awaited.
            ((None, None, None), Well),
        ];
        for (ended, outcome) in cases {
            assert_eq!(Outcome::of(&request(*ended)), *outcome, "{ended:?}");
        }
        assert_eq!(Refusal::ClientGone.label(), CLIENT_GONE);
    }

    #[test]
    fn an_answer_that_broke_off_is_a_failure_whatever_its_status_promised() {
        for (status, refusal) in [
            (Some(200), "upstream_failed"),
            (Some(200), "body_broke"),
            (Some(404), "body_broke"),
            (Some(404), "idle"),
        ] {
            let broken = Record { is_broken_off: true, ..request((status, None, Some(refusal))) };
            assert_eq!(Outcome::of(&broken), Outcome::Failed, "{status:?} {refusal}");
        }
        let left = Record { is_broken_off: true, ..request((Some(200), None, Some("client_gone"))) };
        assert_eq!(Outcome::of(&left), Outcome::Left);
    }

    #[test]
    fn the_law_says_no_or_could_not_be_asked() {
        for (ended, outcome) in [
            ((Some(403), None, Some("denied")), Outcome::Denied),
            ((Some(200), Some(7), Some("denied")), Outcome::Denied),
            ((Some(401), None, Some("token_invalid")), Outcome::Denied),
            ((Some(302), None, Some("authorizer_denied")), Outcome::Denied),
            ((Some(200), None, Some("denied")), Outcome::Denied),
            ((None, None, Some("denied")), Outcome::Denied),
            ((None, None, Some("handshake_failed")), Outcome::Denied),
            ((Some(503), None, Some("authorizer_failed")), Outcome::DeniedInDoubt),
            ((Some(200), Some(14), Some("authorizer_failed")), Outcome::DeniedInDoubt),
            ((Some(200), None, Some("client_gone")), Outcome::Left),
        ] {
            let denied = Record { denied: true, ..request(ended) };
            assert_eq!(Outcome::of(&denied), outcome, "{ended:?}");
        }
    }

    #[test]
    fn what_grpc_calls_internal_is_the_clients_fault_where_it_has_spoilt_the_request() {
        let refused = |grpc_status, refused_with| {
            let ended = (Some(200), Some(grpc_status), Some("bad_request"));
            Record { denied: true, refused_with: Some(refused_with), ..request(ended) }
        };
        assert_eq!(Outcome::of(&refused(13, 400)), Outcome::Denied);
        assert_eq!(Outcome::of(&refused(12, 404)), Outcome::Denied, "an authorizer's word");
        assert_eq!(Outcome::of(&refused(14, 503)), Outcome::DeniedInDoubt);
        let broken = Record { is_broken_off: true, denied: false, ..refused(13, 400) };
        assert_eq!(Outcome::of(&broken), Outcome::Failed);
    }

    #[test]
    fn who_asks_decides_what_is_bad() {
        use Outcome::{Denied, DeniedInDoubt, Erred, Failed, Left, Well};
        // outcome: good for its client, an error of the server's span, of the client's span, a failure of the mesh
        for (outcome, told) in [
            (Well, (true, false, false, false)),
            (Left, (false, false, false, false)),
            (Erred, (false, false, true, false)),
            (Denied, (false, false, true, false)),
            (DeniedInDoubt, (false, true, true, true)),
            (Failed, (false, true, true, true)),
        ] {
            let server = outcome.is_error_of(Direction::Inbound);
            let client = outcome.is_error_of(Direction::Outbound);
            assert_eq!((outcome.is_good(), server, client, outcome.is_failure()), told, "{outcome:?}");
            assert_eq!(outcome.is_denied(), matches!(outcome, Denied | DeniedInDoubt));
        }
    }
}
