//! Requests as clients send them, honest and not. Named after the traps that they close.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use proptest::prelude::*;

use super::*;
use crate::{
    facts::RequestFacts,
    target::{PathNormalization, TargetError},
};

const DESTINATION: &str = "10.0.0.9:8080";

/// An HTTP/1.1 request of raw text.
fn http1(target: &str, headers: &[(&str, &str)]) -> Result<RequestFacts, BadRequest> {
    http(Version::HTTP_11, "GET", target, None, headers)
}

fn http(
    version: Version,
    method: &str,
    target: &str,
    authority: Option<&str>,
    headers: &[(&str, &str)],
) -> Result<RequestFacts, BadRequest> {
    let head = Head {
        method: method_of(method)?,
        target,
        authority,
        version,
        headers: headers_of(headers.iter().copied())?,
        destination: DESTINATION.parse().unwrap(),
    };
    understand(head, PathNormalization::Base)
}

fn host_of(understood: Result<RequestFacts, BadRequest>) -> Result<String, BadRequest> {
    understood.map(|facts| facts.target.authority)
}

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

#[test]
fn a_plain_request_is_understood() {
    let facts = http1("/a/../b?q=1", &[("Host", "Shop:80"), ("X-Role", " admin\t")]).unwrap();
    assert_eq!(facts.method, Method::GET);
    assert_eq!(facts.target.authority, "shop:80");
    assert_eq!(facts.target.path_and_query(), "/b?q=1");
    assert_eq!(facts.headers, map(&[("x-role", "admin")]));
    assert_eq!(facts.token, None);
}

#[test]
fn a_missing_empty_or_duplicate_host_is_refused() {
    assert_eq!(host_of(http1("/", &[])), Err(BadRequest::NoHost));
    assert_eq!(host_of(http1("/", &[("host", "")])), Err(BadRequest::NoHost));
    assert_eq!(host_of(http1("http://a/", &[])), Err(BadRequest::NoHost));
    assert_eq!(host_of(http1("/", &[("host", "a"), ("host", "b")])), Err(BadRequest::ManyHosts));
    assert_eq!(host_of(http1("/", &[("host", "a"), ("Host", "a")])), Err(BadRequest::ManyHosts));
    assert_eq!(host_of(http(Version::HTTP_2, "GET", "/", None, &[])), Err(BadRequest::NoHost));
}

#[test]
fn an_http_1_0_request_without_host_is_for_its_destination() {
    assert_eq!(host_of(http(Version::HTTP_10, "GET", "/", None, &[])).unwrap(), DESTINATION);
}

#[test]
fn userinfo_or_whitespace_in_a_host_is_refused() {
    for host in ["user@a", "a b", " a", "a ", "a\tb", "a,b", "a/b", "\u{e4}"] {
        let refused = http1("/", &[("host", host)]);
        assert!(matches!(refused, Err(BadRequest::Target(TargetError::Authority(_)))), "{host:?}");
    }
    assert!(http1("http://user@a/", &[("host", "a")]).is_err());
}

#[test]
fn host_and_authority_of_http_2_that_differ_are_refused() {
    let ask = |named, hosts: &[&str]| {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        host_of(http(Version::HTTP_2, "GET", "/", Some(named), &headers))
    };
    assert_eq!(ask("a", &["b"]), Err(BadRequest::HostMismatch));
    assert_eq!(ask("a", &["a", "a"]), Err(BadRequest::ManyHosts));
    assert_eq!(ask("a", &["A"]).unwrap(), "a");
    assert_eq!(ask("a", &[]).unwrap(), "a");
}

#[test]
fn the_absolute_form_replaces_host() {
    let facts = http1("HTTP://a:80/b/../c?d", &[("host", "other")]).unwrap();
    assert_eq!(facts.target.authority, "a:80");
    assert_eq!(facts.target.path_and_query(), "/c?d");
    assert_eq!(http1("http://a", &[("host", "a")]).unwrap().target.path, "/");
    let taken_apart = http(Version::HTTP_11, "GET", "/c", Some("a"), &[("host", "other")]);
    assert_eq!(host_of(taken_apart).unwrap(), "a");
    assert!(http1("ftp://a/", &[("host", "a")]).is_err());
    assert!(http1("http:///b", &[("host", "a")]).is_err());
    assert!(http(Version::HTTP_2, "GET", "http://a/", Some("a"), &[]).is_err());
}

#[test]
fn two_ways_to_say_a_length_are_refused() {
    let ask = |headers: &[(&str, &str)]| {
        let headers: Vec<_> = [("host", "a")].iter().chain(headers).copied().collect();
        http(Version::HTTP_11, "POST", "/", None, &headers)
    };
    let (length, chunked) = (("content-length", "3"), ("transfer-encoding", "chunked"));
    assert_eq!(ask(&[length, chunked]).unwrap_err(), BadRequest::TwoLengths);
    assert_eq!(ask(&[chunked, length]).unwrap_err(), BadRequest::TwoLengths);
    assert_eq!(ask(&[length, ("content-length", "4")]).unwrap_err(), BadRequest::Length);
    for other in ["+3", "3, 3", "", "x", "-1", "99999999999999999999999"] {
        assert_eq!(ask(&[("content-length", other)]).unwrap_err(), BadRequest::Length, "{other}");
    }
    let equal = ask(&[length, length]).unwrap();
    assert_eq!(equal.headers, map(&[("content-length", "3")]));
}

#[test]
fn a_transfer_encoding_other_than_chunked_alone_is_refused() {
    let ask = |version, codings: &[&str]| {
        let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
        let headers: Vec<_> = [("host", "a")].into_iter().chain(codings).collect();
        http(version, "POST", "/", None, &headers)
    };
    for codings in
        [&["gzip"][..], &["chunked, gzip"], &["gzip, chunked"], &["chunked", "chunked"], &["xchunked"]]
    {
        assert_eq!(ask(Version::HTTP_11, codings).unwrap_err(), BadRequest::TransferEncoding, "{codings:?}");
    }
    for version in [Version::HTTP_10, Version::HTTP_2] {
        assert_eq!(ask(version, &["chunked"]).unwrap_err(), BadRequest::TransferEncoding);
    }
    assert_eq!(ask(Version::HTTP_11, &["Chunked"]).unwrap().headers, map(&[]));
}

#[test]
fn connection_cannot_remove_identity_or_routing() {
    for name in [
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
        "Host",
        "authorization",
        "X-Forwarded-For",
        "x-douane-http",
        "x-douane-anything",
        "cookie",
        "content-length",
    ] {
        let refused = http1("/", &[("host", "a"), ("connection", &format!("close, {name}"))]);
        assert!(matches!(refused, Err(BadRequest::ConnectionNames(_))), "{name}");
    }
}

#[test]
fn hop_by_hop_headers_are_not_seen_and_trailers_stay_wanted() {
    let facts = http1(
        "/",
        &[
            ("host", "a"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("x-end", "1"),
        ],
    );
    assert_eq!(facts.unwrap().headers, map(&[("x-end", "1"), ("te", "trailers")]));
}

#[test]
fn reserved_headers_are_not_seen_in_any_spelling() {
    let facts = http1(
        "/",
        &[
            ("host", "a"),
            ("x-douane-http", "1.1"),
            ("x_douane_peer", "a"),
            ("x-forwarded-client-cert", "URI=a"),
            ("x-forwarded_client_cert", "URI=b"),
            ("x-envoy-internal", "true"),
            ("X_Envoy-External_Address", "10.0.0.1"),
            ("x-other", "stays"),
        ],
    );
    assert_eq!(facts.unwrap().headers, map(&[("x-other", "stays")]));
}

#[test]
fn a_cookie_in_pieces_becomes_one() {
    let facts = http1("/", &[("host", "a"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-other", "stays")]);
    assert_eq!(facts.unwrap().headers, map(&[("cookie", "a=1; b=2"), ("x-other", "stays")]));
}

#[test]
fn header_names_and_values_that_break_out_of_their_line_are_refused() {
    for value in ["a\r\nx-role: admin", "a\nb", "a\rb", "a\0b", "a\r\n b", "\x7f"] {
        let refused = http1("/", &[("host", "a"), ("x-role", value)]);
        assert_eq!(refused.unwrap_err(), BadRequest::HeaderValue("x-role".to_owned()), "{value:?}");
    }
    for name in ["", "a b", "a:", ":authority", "a\r\n", "a\0", "ä", "a\n"] {
        let refused = http1("/", &[("host", "a"), (name, "x")]);
        assert_eq!(refused.unwrap_err(), BadRequest::HeaderName, "{name:?}");
    }
    assert_eq!(http(Version::HTTP_11, "GET /\r\n", "/", None, &[]).unwrap_err(), BadRequest::Method);
}

#[test]
fn header_values_that_are_no_text_are_legal_bytes() {
    let headers = headers_of([("x-role", &b"\xffadmin\xe4"[..])]).unwrap();
    assert_eq!(headers.get("x-role").unwrap().as_bytes(), b"\xffadmin\xe4");
}

#[test]
fn a_head_of_too_many_headers_is_refused() {
    assert_eq!(headers_of(vec![("a", "b"); 101]).unwrap_err(), BadRequest::ManyHeaders);
}

#[test]
fn connect_has_no_path() {
    let ask = |version, target, authority| {
        let headers = [("host", "a:443")];
        let facts = http(version, "CONNECT", target, authority, &headers)?;
        Ok::<_, BadRequest>((facts.target.authority.clone(), facts.target.path_and_query()))
    };
    let understood = Ok(("a:443".to_owned(), String::new()));
    assert_eq!(ask(Version::HTTP_11, "a:443", None), understood);
    assert_eq!(ask(Version::HTTP_11, "", None), understood);
    assert_eq!(ask(Version::HTTP_2, "", Some("a:443")), understood);
    assert_eq!(ask(Version::HTTP_11, "/x?y", None), understood);
    assert!(ask(Version::HTTP_11, "user@a:443", None).is_err());
}

#[test]
fn an_asterisk_is_for_options_only() {
    let ask = |method| http(Version::HTTP_11, method, "*", None, &[("host", "a")]);
    assert_eq!(ask("OPTIONS").unwrap().target.path, "*");
    assert!(ask("GET").is_err());
    assert!(ask("options").is_err());
}

#[test]
fn a_nul_or_control_byte_in_a_target_is_refused() {
    for target in ["#", "/%00", "/a%00b", "/a\0", "/a\r\nb", "/a\tb", "/a b", "/a\x7f"] {
        let refused = http1(target, &[("host", "a")]);
        assert!(matches!(refused, Err(BadRequest::Target(_))), "{target:?}");
    }
}

#[test]
fn a_fragment_is_neither_decided_on_nor_sent_on() {
    for (sent, understood) in [
        ("/a#b", "/a"),
        ("/#", "/"),
        ("/a?b#c", "/a?b"),
        ("/admin#/../public", "/admin"),
        ("/a#\0", "/a"),
        ("http://a#b", "/"),
        ("http://a/b#c?d", "/b"),
    ] {
        let facts = http1(sent, &[("host", "a")]).unwrap();
        assert_eq!(facts.target.path_and_query(), understood, "{sent:?}");
    }
}

/// The same request again, as the facts say it.
fn again(facts: &RequestFacts) -> Result<RequestFacts, BadRequest> {
    let head = Head {
        method: facts.method.clone(),
        target: &facts.target.path_and_query(),
        authority: Some(&facts.target.authority),
        version: Version::HTTP_2,
        headers: facts.headers.clone(),
        destination: DESTINATION.parse().unwrap(),
    };
    understand(head, PathNormalization::Base)
}

proptest! {
    #[test]
    fn no_head_panics_and_what_is_understood_is_understood_the_same_again(
        method in "GET|OPTIONS|CONNECT|[ -~]{0,4}",
        target in "(http://a)?[/*]?([a-c./?;]|%2[eE5fF]|\\PC){0,8}",
        names in proptest::collection::vec((
            "connection|te|content-length|transfer-encoding|cookie|x-douane-a|x-[a-c]|\\PC",
            "close|x-a|3|chunked|trailers|\\PC{0,3}",
        ), 0..6),
    ) {
        let mut headers = vec![("host", "a")];
        headers.extend(names.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if let Ok(facts) = http(Version::HTTP_11, &method, &target, None, &headers) {
            let twice = again(&facts).unwrap();
            prop_assert_eq!(twice.method, facts.method);
            prop_assert_eq!(twice.target, facts.target);
            prop_assert_eq!(twice.headers, facts.headers);
        }
    }

    #[test]
    fn no_bytes_of_headers_panic(
        pairs in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..6), method in any::<Vec<u8>>(),
    ) {
        let _ = headers_of(pairs);
        let _ = method_of(method);
    }

    #[test]
    fn what_is_understood_can_be_sent_on(target in "/([ -~]|\\PC){0,6}(\\?([ -~]|\\PC){0,6})?") {
        if let Ok(facts) = http1(&target, &[("host", "a")]) {
            let sent = facts.target.path_and_query();
            let uri: http::uri::PathAndQuery = sent.parse().unwrap();
            prop_assert_eq!(uri.as_str(), sent);
            prop_assert!(HeaderValue::try_from(facts.target.authority).is_ok());
        }
    }
}

#[test]
fn a_host_alone_is_for_connect_and_other_schemes_are_for_nobody() {
    let authority =
        |target: &'static str| line_authority(&target.parse().unwrap()).map(|host| host.map(str::to_owned));
    assert_eq!(authority("/a"), Ok(None));
    assert_eq!(authority("*"), Ok(None));
    assert_eq!(authority("http://orders/a"), Ok(Some("orders".to_owned())));
    assert_eq!(authority("HTTPS://orders"), Ok(Some("orders".to_owned())));
    for target in ["orders", "orders:80", "ftp://orders/a"] {
        assert!(authority(target).is_err(), "{target}");
    }
}

#[test]
fn lengths_that_only_some_applications_see_are_refused() {
    for name in ["content_length", "transfer_encoding", "Content_Length"] {
        assert!(host_of(http1("/", &[("host", "a"), (name, "3")])).is_err(), "{name}");
    }
}

#[test]
fn trailers_keep_what_is_said_about_the_body_only() {
    let mut trailers = headers_of([
        ("grpc-status", "0"),
        ("x-sum", "1"),
        ("content-length", "3"),
        ("transfer_encoding", "chunked"),
        ("host", "a"),
        ("connection", "x"),
        ("x_forwarded_client_cert", "forged"),
        ("x-douane-http", "1.1"),
        ("x-forwarded-for", "192.0.2.1"),
    ])
    .unwrap();

    clean_trailers(&mut trailers);

    assert_eq!(trailers, headers_of([("grpc-status", "0"), ("x-sum", "1")]).unwrap());
}
