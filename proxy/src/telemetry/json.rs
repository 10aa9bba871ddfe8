//! One JSON object written straight into bytes, member by member: what a log line costs is paid with every request, so
//! nothing is built that is thrown away after it was written.
//!
//! Knows nothing of what a line says ([`super::line`], [`super::audit`]).

use std::{
    cell::Cell,
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_proto::id::WorkloadId;

use crate::telemetry::hex;

/// A member's name with all that stands around it, so that it is written at once; made by [`key!`](key).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(&'static str);

impl Key {
    /// For [`key!`](key): `,"name":`.
    pub(crate) const fn written(key: &'static str) -> Self {
        Self(key)
    }
}

/// A [`Key`] of a word of our own, which needs no escapes.
macro_rules! key {
    ($name:literal) => {
        $crate::telemetry::json::Key::written(concat!(",\"", $name, "\":"))
    };
}
pub(crate) use key;

/// An object that is being written. Members come out in the order in which they are told.
#[derive(Debug)]
pub(crate) struct Object<'a>(&'a mut Vec<u8>);

impl<'a> Object<'a> {
    /// Begins an object behind what `out` holds; [`Self::end`] ends it.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self(out)
    }

    pub(crate) fn end(self) {
        self.0.push(b'}');
    }

    /// A text of any origin.
    pub(crate) fn text(&mut self, key: Key, text: &str) {
        self.quoted(key, |out| escape(out, text));
    }

    /// A word of our own, which needs no escapes.
    pub(crate) fn word(&mut self, key: Key, word: &'static str) {
        self.quoted(key, |out| out.extend_from_slice(word.as_bytes()));
    }

    /// The same, if there is one.
    pub(crate) fn maybe_word(&mut self, key: Key, word: Option<&'static str>) {
        if let Some(word) = word {
            self.word(key, word);
        }
    }

    /// A text of any origin, if there is one.
    pub(crate) fn maybe(&mut self, key: Key, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    /// A text of several parts.
    pub(crate) fn joined<'t>(&mut self, key: Key, parts: impl IntoIterator<Item = &'t str>) {
        self.quoted(key, |out| parts.into_iter().for_each(|part| escape(out, part)));
    }

    pub(crate) fn number(&mut self, key: Key, number: u64) {
        self.key(key);
        decimal(self.0, number);
    }

    pub(crate) fn null(&mut self, key: Key) {
        self.key(key);
        self.0.extend_from_slice(b"null");
    }

    /// Milliseconds, with microseconds behind the point.
    pub(crate) fn milliseconds(&mut self, key: Key, length: Duration) {
        self.key(key);
        // 2^64 microseconds are half a million years.
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        decimal(self.0, micros / 1000);
        let [_, hundreds, tens, ones] = digits(micros % 1000);
        let fraction: &[u8] = match (tens, ones) {
            (b'0', b'0') => &[b'.', hundreds],
            (_, b'0') => &[b'.', hundreds, tens],
            _ => &[b'.', hundreds, tens, ones],
        };
        self.0.extend_from_slice(fraction);
    }

    /// A trace's id.
    pub(crate) fn trace_id(&mut self, key: Key, id: u128) {
        self.quoted(key, |out| out.extend_from_slice(hex::of(id.to_be_bytes()).as_flattened()));
    }

    /// A span's id.
    pub(crate) fn span_id(&mut self, key: Key, id: u64) {
        self.quoted(key, |out| out.extend_from_slice(hex::of(id.to_be_bytes()).as_flattened()));
    }

    pub(crate) fn address(&mut self, key: Key, address: SocketAddr) {
        self.quoted(key, |out| match address.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                for (octet, follows) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b':')] {
                    decimal(out, octet);
                    out.push(follows);
                }
                decimal(out, address.port());
            }
            IpAddr::V6(_) => shown(out, &address),
        });
    }

    /// A SPIFFE ID, whose characters need no escapes.
    pub(crate) fn id(&mut self, key: Key, id: &WorkloadId) {
        self.quoted(key, |out| {
            for part in [
                "spiffe://",
                id.trust_domain().as_str(),
                "/ns/",
                id.namespace(),
                "/sa/",
                id.service_account(),
            ] {
                out.extend_from_slice(part.as_bytes());
            }
        });
    }

    /// RFC 3339 with microseconds.
    pub(crate) fn time(&mut self, key: Key, time: SystemTime) {
        self.quoted(key, |out| instant(out, time));
    }

    /// Members that were written before, as [`Self::members`] gave them.
    pub(crate) fn again(&mut self, members: &[u8]) {
        self.0.extend_from_slice(members);
    }

    /// The members that `write` writes, to be written again into objects that have one already.
    pub(crate) fn members(write: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Object(&mut out));
        out
    }

    /// An object inside this one.
    pub(crate) fn object(&mut self, key: Key) -> Object<'_> {
        self.key(key);
        Object::begin(self.0)
    }

    fn quoted(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.0.push(b'"');
        write(self.0);
        self.0.push(b'"');
    }

    fn key(&mut self, Key(key): Key) {
        let key = if self.0.last() == Some(&b'{') { key.get(1..).unwrap_or_default() } else { key };
        self.0.extend_from_slice(key.as_bytes());
    }
}

/// RFC 3339 with microseconds, as [`Object::time`] writes it.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let mut out = Vec::new();
    instant(&mut out, time);
    String::from_utf8_lossy(&out).into_owned()
}

fn instant(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.extend_from_slice(&second(since.as_secs()));
    let micros = since.subsec_micros();
    out.push(b'.');
    let [_, thousands @ ..] = digits((micros / 1000).into());
    let [_, ones @ ..] = digits((micros % 1000).into());
    out.extend_from_slice(&thousands);
    out.extend_from_slice(&ones);
    out.push(b'Z');
}

/// RFC 8259 7: quotation marks, backslashes and control characters. As serde's JSON spells them.
fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    // Looked at as a whole: without branches, many bytes at a time.
    if rest.iter().fold(false, |found, byte| found | must_be_escaped(*byte)) {
        while let Some(at) = rest.iter().position(|byte| must_be_escaped(*byte)) {
            let (plain, others) = rest.split_at(at);
            out.extend_from_slice(plain);
            let Some((byte, others)) = others.split_first() else { break };
            let short: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                0x08 => b"\\b",
                0x0c => b"\\f",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                other => {
                    // Into memory: it cannot fail.
                    let _ = write!(Text(out), "\\u{other:04x}");
                    b""
                }
            };
            out.extend_from_slice(short);
            rest = others;
        }
    }
    out.extend_from_slice(rest);
}

fn must_be_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn decimal(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

// The four digits of a number below 10,000.
fn digits(number: u64) -> [u8; 4] {
    // A remainder of ten is a digit.
    let digit = |number: u64| b'0' + (number % 10) as u8;
    [digit(number / 1000), digit(number / 100), digit(number / 10), digit(number)]
}

// `1970-01-01T00:00:00`, worked out once for each second.
fn second(seconds: u64) -> [u8; 19] {
    thread_local! {
        static LAST: Cell<(u64, [u8; 19])> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
    }
    let (last, text) = LAST.get();
    if last == seconds {
        return text;
    }
    let mut text = Vec::with_capacity(20);
    // Later than the year 9999 nothing is left to tell.
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(LATEST));
    shown(&mut text, &humantime::format_rfc3339_seconds(time));
    let mut told = [b'0'; 19];
    for (to, from) in told.iter_mut().zip(text) {
        *to = from;
    }
    LAST.set((seconds, told));
    told
}

// 9999-12-31T23:59:59Z.
const LATEST: u64 = 253_402_300_799;

fn shown(out: &mut Vec<u8>, value: &dyn fmt::Display) {
    // Into memory: it cannot fail.
    let _ = write!(Text(out), "{value}");
}

struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        write(&mut object);
        object.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_follow_each_other_and_objects_nest() {
        let text = written(|object| {
            object.text(key!("a"), "b");
            object.maybe(key!("left_out"), None);
            let mut inner = object.object(key!("in"));
            inner.number(key!("n"), 7);
            inner.null(key!("nothing"));
            inner.end();
            object.joined(key!("c"), ["d", " \"", "e"]);
        });

        assert_eq!(text, r#"{"a":"b","in":{"n":7,"nothing":null},"c":"d \"e"}"#);
        assert_eq!(written(|_| {}), "{}");
    }

    #[test]
    fn members_can_be_written_again_behind_another() {
        let twice = Object::members(|object| {
            object.text(key!("b"), "\"");
            object.word(key!("c"), "d");
        });

        let text = written(|object| {
            object.number(key!("a"), 1);
            object.again(&twice);
        });

        assert_eq!(text, r#"{"a":1,"b":"\"","c":"d"}"#);
    }

    #[test]
    fn a_second_is_told_anew_when_it_has_passed() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_500_250, "1970-01-01T00:00:01.500250Z"),
            (1_999_999, "1970-01-01T00:00:01.999999Z"),
            (1_764_000_000_000_007, "2025-11-24T16:00:00.000007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            assert_eq!(written(|object| object.time(key!("t"), time)), format!(r#"{{"t":"{expected}"}}"#));
        }
    }

    proptest! {
        #[test]
        fn everything_is_spelt_as_serde_spells_it(
            text in any::<String>(),
            controls in "[\\x00-\\x7f\"\\\\é]{0,40}",
            number: u64,
            micros in 0_u64..1 << 50,
            short in 0_u64..10_000_000,
            hex: u128,
            address: std::net::SocketAddrV6,
            v4: std::net::SocketAddrV4,
        ) {
            for text in [&text, &controls] {
                let expected = format!(r#"{{"k":{}}}"#, serde_json::to_string(text).unwrap());
                prop_assert_eq!(written(|object| object.text(key!("k"), text)), expected);
            }
            for number in [number, short] {
                prop_assert_eq!(written(|object| object.number(key!("k"), number)), format!(r#"{{"k":{number}}}"#));
            }
            for micros in [micros, short] {
                #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53")]
                let expected = serde_json::to_string(&(micros as f64 / 1000.0)).unwrap();
                let length = Duration::from_micros(micros);
                prop_assert_eq!(
                    written(|object| object.milliseconds(key!("k"), length)),
                    format!(r#"{{"k":{expected}}}"#)
                );
            }
            prop_assert_eq!(written(|object| object.trace_id(key!("k"), hex)), format!(r#"{{"k":"{hex:032x}"}}"#));
            let short = number;
            prop_assert_eq!(written(|object| object.span_id(key!("k"), short)), format!(r#"{{"k":"{short:016x}"}}"#));
            for address in [SocketAddr::from(address), v4.into()] {
                prop_assert_eq!(
                    written(|object| object.address(key!("k"), address)),
                    format!(r#"{{"k":"{address}"}}"#)
                );
            }
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            let expected = humantime::format_rfc3339_micros(time);
            prop_assert_eq!(written(|object| object.time(key!("k"), time)), format!(r#"{{"k":"{expected}"}}"#));
        }
    }
}
