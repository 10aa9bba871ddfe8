//! `x-request-id`, by which people look for one request: read where a client sent one, given to what comes from outside the
//! mesh without one. Never a label, never believed, only compared.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::header::only;

/// What the headers call their request; `None` where they say nothing, several things, or nothing that could be typed.
pub(crate) fn of(headers: &HeaderMap) -> Option<Box<str>> {
    let id = str::from_utf8(only(headers, &NAME)?).ok()?;
    let is_id = (1..=LONGEST).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_id.then(|| id.into())
}

/// Gives a request without one a new one: a UUID of version 7 (RFC 9562 5.7), which sorts by time. What a client wrote
/// stays, whatever it is.
pub(crate) fn give(headers: &mut HeaderMap, now: SystemTime) -> Option<Box<str>> {
    if headers.contains_key(&NAME) {
        return None;
    }
    let id = uuid(now, rand::random());
    let value = HeaderValue::try_from(id.as_str()).ok()?;
    headers.insert(NAME, value);
    Some(id.into())
}

// 48 bits of milliseconds, the version, 12 bits of chance, the variant (binary 10), 62 bits of chance.
fn uuid(now: SystemTime, chance: u128) -> String {
    let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let bits = (millis << 80) | (chance & CHANCE) | VERSION | VARIANT;
    let digits = format!("{bits:032x}");
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes; a UUID has 36.
const LONGEST: usize = 128;
const VERSION: u128 = 0x7 << 76;
const VARIANT: u128 = 0b10 << 62;
const CHANCE: u128 = (0xfff << 64) | ((1 << 62) - 1);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (NAME, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn an_id_is_one_word_of_bounded_length() {
        let longest = "a".repeat(LONGEST);
        for id in ["1", "0192f0c4-7a5e-7c3b-9d7e-0f6a2b1c3d4e", "req_{1}/2+3=", &longest] {
            assert_eq!(of(&headers(&[id])).as_deref(), Some(id));
        }
        let mut two = headers(&["a"]);
        two.append(NAME, HeaderValue::from_static("b"));
        assert_eq!(of(&two), None);
        for none in ["", "a b", "a\tb", "\u{e9}", &format!("{longest}a")] {
            assert_eq!(of(&headers(&[none])), None, "{none}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_new_id_is_a_uuid_of_version_7() {
        let now = UNIX_EPOCH + Duration::from_millis(0x0192_f0c4_7a5e);
        assert_eq!(uuid(now, 0), "0192f0c4-7a5e-7000-8000-000000000000");
        assert_eq!(uuid(now, u128::MAX), "0192f0c4-7a5e-7fff-bfff-ffffffffffff");

        let (mut one, mut other) = (HeaderMap::new(), HeaderMap::new());
        let (first, second) = (give(&mut one, now).unwrap(), give(&mut other, now).unwrap());
        assert_ne!(first, second);
        assert_eq!(of(&one), Some(first));
    }

    #[test]
    fn what_a_client_wrote_stays() {
        for wrote in ["mine", "not an id"] {
            let mut came = headers(&[wrote]);
            assert_eq!(give(&mut came, SystemTime::now()), None);
            assert_eq!(came, headers(&[wrote]));
        }
    }
}
