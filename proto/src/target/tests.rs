//! Targets as clients send them, honest and not.

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> Result<String, TargetError> {
    Target::parse("host", text, PathNormalization::Base).map(|target| target.path)
}

fn authority(text: &str) -> Result<String, TargetError> {
    Target::parse(text, "/", PathNormalization::Base).map(|target| target.authority)
}

#[test]
fn paths_have_one_normalized_form() {
    for (sent, normalized) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/a/%2e%2E/b", "/b"),
        ("/%61dmin", "/admin"),
        ("/a\\b", "/a/b"),
        ("/a\\..\\b", "/b"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%5cb", "/a%5Cb"),
        ("/%2561", "/%2561"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("//a//b", "//a//b"),
        ("/a//../b", "/a/b"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a*b", "/a*b"),
        ("/ü", "/%C3%BC"),
        ("/%c0%ae", "/%C0%AE"),
        ("/...", "/..."),
    ] {
        assert_eq!(path(sent).as_deref(), Ok(normalized), "{sent}");
    }
    let merged = Target::parse("host", "//a///b/..//c", PathNormalization::MergeSlashes).unwrap();
    assert_eq!(merged.path, "/a/c");
}

#[test]
fn paths_in_doubt_are_refused() {
    for sent in [
        "",
        "a",
        "http://host/a",
        "?a",
        "*/a",
        "*?a",
        "/a#b",
        "/a?b#c",
        "/%00",
        "/a\0",
        "/a\r\nb",
        "/a b",
        "/a?b c",
        "/a\x7f",
        "/%",
        "/%4",
        "/%zz",
        "/%+1",
        "/a/..;x/b",
        "/a/..;/b",
        "/.;/b",
        "/a/..%3bx/b",
        "/a/..%2fadmin",
        "/a%2f..%2fadmin",
        "/a/..%5cadmin",
        "/a/%2e%2e;x/b",
    ] {
        assert!(matches!(path(sent), Err(TargetError::Path(_))), "{sent:?}: {:?}", path(sent));
    }
}

#[test]
fn the_asterisk_form_is_legal() {
    assert_eq!(path("*").as_deref(), Ok("*"));
}

#[test]
fn hosts_have_one_spelling() {
    for (sent, normalized) in [
        ("example.com", "example.com"),
        ("Example.COM:8080", "example.com:8080"),
        ("example.com.", "example.com"),
        ("example.com.:80", "example.com:80"),
        ("10.0.0.1", "10.0.0.1"),
        ("[FD77::0:1]:443", "[fd77::1]:443"),
        ("[::1]", "[::1]"),
        ("my_host", "my_host"),
    ] {
        assert_eq!(authority(sent).as_deref(), Ok(normalized), "{sent}");
    }
    for sent in [
        "",
        ".",
        "..",
        "a..",
        "a..b",
        ":80",
        "user@host",
        "host:",
        "host:0",
        "host:080",
        "host:+80",
        "host:65536",
        "a b",
        "a,b",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a%41",
        "fd77::1",
        "[fd77::1",
        "[fd77::1]x",
        "[host]",
        "[fe80::1%eth0]",
        "ü",
        "a\tb",
        "host:80:80",
    ] {
        assert!(matches!(authority(sent), Err(TargetError::Authority(_))), "{sent:?}: {:?}", authority(sent));
    }
}

#[test]
fn host_and_port_are_told_apart() {
    for (sent, host, port) in
        [("a:80", "a", Some(80)), ("a", "a", None), ("[::1]:5", "::1", Some(5)), ("[::1]", "::1", None)]
    {
        let target = Target::parse(sent, "/", PathNormalization::Base).unwrap();
        assert_eq!((target.host(), target.port()), (host, port), "{sent}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_normal_stays(
        host in any::<String>(), text in any::<String>(), merge in any::<bool>(),
    ) {
        let normalization = if merge { PathNormalization::MergeSlashes } else { PathNormalization::Base };
        if let Ok(target) = Target::parse(&host, &text, normalization) {
            let again = Target::parse(&target.authority, &target.path_and_query(), normalization);
            prop_assert_eq!(again, Ok(target));
        }
    }

    #[test]
    fn a_normalized_path_is_a_fixed_point_without_dot_segments(
        text in "/([a-c./\\\\;%?]|%2[eEfF5]|%5[cC]|%61|%3[bB]|\\.\\.|//){0,12}", merge in any::<bool>(),
    ) {
        let normalization = if merge { PathNormalization::MergeSlashes } else { PathNormalization::Base };
        if let Ok(target) = Target::parse("host", &text, normalization) {
            prop_assert!(target.path.starts_with('/'));
            prop_assert!(!target.path.split('/').any(|segment| segment == "." || segment == ".."));
            prop_assert!(!merge || !target.path.contains("//"));
            let again = Target::parse("host", &target.path_and_query(), normalization);
            prop_assert_eq!(again, Ok(target));
        }
    }

    #[test]
    fn a_normalized_host_is_a_fixed_point(text in "[a-cA-C.:0-9\\[\\]@ _-]{0,12}") {
        if let Ok(normalized) = authority(&text) {
            prop_assert_eq!(authority(&normalized), Ok(normalized));
        }
    }
}
