//! When it is worth asking again: what a server that has too much to do says in the details of a gRPC status, as
//! `google.rpc.RetryInfo` in `google.rpc.Status`, which clients of others understand too; and the same in milliseconds
//! as metadata.

use std::time::Duration;

use prost::Message;

/// Metadata of a status: milliseconds.
pub const RETRY_AFTER: &str = "retry-after-ms";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// The details of a status of `code` that asks to wait for `delay`.
#[must_use]
pub fn details(code: i32, message: &str, delay: Duration) -> Vec<u8> {
    let retry_delay = prost_types::Duration::try_from(delay).ok();
    let value = RetryInfo { retry_delay }.encode_to_vec();
    let details = vec![prost_types::Any { type_url: RETRY_INFO.to_owned(), value }];
    RpcStatus { code, message: message.to_owned(), details }.encode_to_vec()
}

/// What the details of a status ask to wait for.
#[must_use]
pub fn delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
    RetryInfo::decode(&*info.value).ok()?.retry_delay?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_read_as_it_was_written() {
        let wait = Duration::from_millis(1_250);
        assert_eq!(delay(&details(8, "come back", wait)), Some(wait));
        for nonsense in [&b""[..], b"\xff", b"\x1a\x02\x0a\x00"] {
            assert_eq!(delay(nonsense), None);
        }
    }
}
