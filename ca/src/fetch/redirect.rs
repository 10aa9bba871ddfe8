//! Where an answer sends us instead.

use hyper::{Response, StatusCode, Uri, header};

/// The `Location` of an answer that is a redirect.
pub(super) fn target<B>(response: &Response<B>) -> Option<String> {
    let moved = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(header::LOCATION).filter(|_| moved)?;
    location.to_str().ok().map(str::to_owned)
}

/// The URL that `location` means, seen from `from` (RFC 3986 5.2, but for dot segments, which are the server's business).
pub(super) fn follow(from: &Uri, location: &str) -> Result<Uri, String> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let text = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let odd = || format!("it leads to {:?}, which is no URL that can be fetched", bounded(location));
    let to: Uri = text.parse().map_err(|_| odd())?;
    let is_web = matches!(to.scheme_str(), Some("http" | "https"));
    let is_plain = to.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if is_web && is_plain { Ok(to) } else { Err(odd()) }
}

fn bounded(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_url_a_path_or_a_name_beside() {
        let from: Uri = "https://issuer.example:8443/a/keys?x=1".parse().unwrap();
        for (location, to) in [
            ("http://other/k", "http://other/k"),
            ("//other/k", "https://other/k"),
            ("/k?y#z", "https://issuer.example:8443/k?y"),
            ("k", "https://issuer.example:8443/a/k"),
        ] {
            assert_eq!(follow(&from, location).unwrap().to_string(), to, "{location}");
        }
        for odd in ["ftp://other/k", "https://user@other/k", "file:///etc/passwd", "https://"] {
            assert!(follow(&from, odd).is_err(), "{odd}");
        }
    }
}
