//! Targets as clients send them, honest and not.

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> Result<String, TargetError> {
    Target::parse("host", text, PathNormalization::Base).map(|target| target.path)
}

fn path_by(normalization: PathNormalization, text: &str) -> Result<String, TargetError> {
    Target::parse("host", text, normalization).map(|target| target.path)
}

const MODES: [PathNormalization; 4] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
];

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
        ("/a%2fb", "/a%2fb"),
        ("/a%5cb", "/a%5cb"),
        ("/%2561", "/%2561"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("//a//b", "//a//b"),
        ("/a//../b", "/a/b"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a*b", "/a*b"),
        ("/ü", "/%C3%BC"),
        ("/%c0%ae", "/%c0%ae"),
        ("/...", "/..."),
    ] {
        assert_eq!(path(sent).as_deref(), Ok(normalized), "{sent}");
    }
}

#[test]
fn each_mode_normalizes_as_istio_documents() {
    use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
    for (sent, none, base, merged, decoded) in [
        ("/", "/", "/", "/", "/"),
        ("/app/../admin", "/app/../admin", "/admin", "/admin", "/admin"),
        ("/app/./", "/app/./", "/app/", "/app/", "/app/"),
        ("/app//", "/app//", "/app//", "/app/", "/app/"),
        ("/app/..%2fadmin", "/app/..%2fadmin", "/app/..%2fadmin", "/app/..%2fadmin", "/admin"),
        ("/app//../admin", "/app//../admin", "/app/admin", "/app/admin", "/app/admin"),
        ("/app//../../admin", "/app//../../admin", "/admin", "/admin", "/admin"),
        ("/xyz%30..//abc", "/xyz%30..//abc", "/xyz0..//abc", "/xyz0../abc", "/xyz0../abc"),
        ("/app/%2E./admin", "/app/%2E./admin", "/admin", "/admin", "/admin"),
        ("/app\\admin", "/app\\admin", "/app/admin", "/app/admin", "/app/admin"),
        ("/app/\\/\\admin", "/app/\\/\\admin", "/app////admin", "/app/admin", "/app/admin"),
        ("/%2Fapp%5cadmin", "/%2Fapp%5cadmin", "/%2Fapp%5cadmin", "/%2Fapp%5cadmin", "/app/admin"),
        ("/app%2f/%5C\\admin", "/app%2f/%5C\\admin", "/app%2f/%5C/admin", "/app%2f/%5C/admin", "/app/admin"),
        (
            "/%252Fapp/%252e%252e",
            "/%252Fapp/%252e%252e",
            "/%252Fapp/%252e%252e",
            "/%252Fapp/%252e%252e",
            "/%252Fapp/%252e%252e",
        ),
        ("/%c0%af%c0%ae", "/%c0%af%c0%ae", "/%c0%af%c0%ae", "/%c0%af%c0%ae", "/%c0%af%c0%ae"),
        ("/a;v=1/b", "/a;v=1/b", "/a;v=1/b", "/a;v=1/b", "/a;v=1/b"),
        ("/a*b/*", "/a*b/*", "/a*b/*", "/a*b/*", "/a*b/*"),
        ("/ü", "/ü", "/%C3%BC", "/%C3%BC", "/%C3%BC"),
    ] {
        for (mode, normalized) in
            [(None, none), (Base, base), (MergeSlashes, merged), (DecodeAndMergeSlashes, decoded)]
        {
            assert_eq!(path_by(mode, sent).as_deref(), Ok(normalized), "{sent} {mode:?}");
        }
    }
}

#[test]
fn escaped_slashes_are_decoded_before_dots_are_removed() {
    for (sent, normalized) in [
        ("/app/%2e%2e%2fadmin", "/admin"),
        ("/app%2f..%2fadmin", "/admin"),
        ("/app/..%5cadmin", "/admin"),
        ("/app%2F%2f%2e%2e%2F%2e%2e%2fadmin", "/admin"),
        ("/..%2f..%2f", "/"),
    ] {
        let decoded = path_by(PathNormalization::DecodeAndMergeSlashes, sent);
        assert_eq!(decoded.as_deref(), Ok(normalized), "{sent}");
        assert_ne!(path_by(PathNormalization::MergeSlashes, sent), decoded, "{sent}");
        assert_eq!(path_by(PathNormalization::None, sent).as_deref(), Ok(sent));
    }
}

#[test]
fn every_escape_but_that_of_nul_is_decoded_or_stays() {
    for byte in 1_u8..=0xff {
        let sent = format!("/admin%{byte:02x}");
        let normalized = match byte {
            b'/' | b'\\' => "/admin/".to_owned(),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                format!("/admin{}", char::from(byte))
            }
            _ => sent.clone(),
        };
        let decoded = path_by(PathNormalization::DecodeAndMergeSlashes, &sent);
        assert_eq!(decoded.as_deref(), Ok(&*normalized), "{sent}");
    }
}

#[test]
fn a_dot_segment_with_parameters_is_refused_in_every_mode() {
    for sent in [
        "/a/..;/admin",
        "/a/..;x=y/admin",
        "/.;/admin",
        "/a/..%3b/admin",
        "/a/%2e%2E;/admin",
        "/a/.%2e%3B",
        "/a\\..;\\admin",
        "/a%2f..;%2fadmin",
        "/a/..;",
    ] {
        for mode in MODES {
            assert!(path_by(mode, sent).is_err(), "{sent} {mode:?}");
        }
    }
}

#[test]
fn what_no_path_may_hold_is_refused_in_every_mode() {
    for sent in [
        "", "a", "\\a", "/a#b", "/%00", "/a%00", "/a\0", "/a\r\n", "/a b", "/\x7f", "/a?b c", "/a?%00",
        "/a?\0",
    ] {
        for mode in MODES {
            // A backslash is a slash where paths are normalized at all.
            let refused = path_by(mode, sent).is_err() || (sent == "\\a" && mode != PathNormalization::None);
            assert!(refused, "{sent:?} {mode:?}");
        }
    }
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
        host in any::<String>(), text in "/?\\PC{0,20}", mode in proptest::sample::select(&MODES[..]),
    ) {
        let _ = Target::parse(&host, &text, mode);
        if let Ok(target) = Target::parse("host", &text, mode) {
            let again = Target::parse(&target.authority, &target.path_and_query(), mode);
            prop_assert_eq!(again, Ok(target));
        }
    }

    #[test]
    fn a_normalized_path_is_a_fixed_point_without_dot_segments(
        text in "/([a-c./\\\\;%?*]|%2[eEfF5]|%5[cC]|%61|%3[bB]|\\.\\.|//){0,12}",
        mode in proptest::sample::select(&MODES[1..]),
    ) {
        if let Ok(target) = Target::parse("host", &text, mode) {
            prop_assert!(target.path.starts_with('/'));
            prop_assert!(!target.path.split('/').any(|segment| segment == "." || segment == ".."));
            prop_assert!(mode == PathNormalization::Base || !target.path.contains("//"));
            let escaped = target.path.to_ascii_uppercase();
            let decodes = mode == PathNormalization::DecodeAndMergeSlashes;
            prop_assert!(!decodes || !escaped.contains("%2F") && !escaped.contains("%5C"));
            let again = Target::parse("host", &target.path_and_query(), mode);
            prop_assert_eq!(again, Ok(target));
        }
    }

    #[test]
    fn equal_spellings_have_one_form(
        parts in proptest::collection::vec((0_usize..4, 0_usize..3), 1..10), merge in 0_usize..2,
    ) {
        // Each row spells one thing in ways that the mode calls equal.
        let mode = [PathNormalization::Base, PathNormalization::DecodeAndMergeSlashes][merge];
        let slashes = [["/", "\\", "/./"], ["/", "%2F", "//%5c"]][merge];
        let rows = [slashes, ["a", "%61", "%61"], ["b.c", "b%2ec", "b%2Ec"], ["~-", "%7E-", "~%2d"]];
        let spell = |plain: bool| -> String {
            let spelled = parts.iter().map(|(row, way)| rows[*row][if plain { 0 } else { *way }]);
            std::iter::once("/x").chain(spelled).chain(["/x"]).collect()
        };
        prop_assert_eq!(path_by(mode, &spell(true)), path_by(mode, &spell(false)));
    }

    #[test]
    fn without_normalization_nothing_changes(text in "/([a-c./\\\\;%]|%2[eEfF5]|%5[cC]|//){0,12}") {
        if let Ok(path) = path_by(PathNormalization::None, &text) {
            prop_assert_eq!(path, text);
        }
    }

    #[test]
    fn a_normalized_host_is_a_fixed_point(text in "[a-cA-C.:0-9\\[\\]@ _-]{0,12}") {
        if let Ok(normalized) = authority(&text) {
            prop_assert_eq!(authority(&normalized), Ok(normalized));
        }
    }
}
