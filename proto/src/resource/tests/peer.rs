//! `PeerAuthentication` in YAML.

use super::*;
use crate::mtls::MtlsMode;

fn text(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata:\n  name: default\nspec: {spec}\n"
    )
}

fn peer(spec: &str) -> PeerAuthentication {
    match reading(&text(spec)).resource.map(|resource| resource.kind) {
        Some(Kind::PeerAuthentication(peer)) => peer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_modes_are_read_for_pods_and_their_ports() {
    for (name, mode) in [
        ("STRICT", Some(MtlsMode::Strict)),
        ("PERMISSIVE", Some(MtlsMode::Permissive)),
        ("DISABLE", Some(MtlsMode::Disable)),
        ("UNSET", None),
    ] {
        assert_eq!(peer(&format!("{{mtls: {{mode: {name}}}}}")).mode, mode);
    }
    assert_eq!(peer("{}").mode, None);
    assert_eq!(peer("{mtls: {}}").mode, None);

    let ports = "{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: DISABLE}, '81': {mode: UNSET}, 82: {}}}";
    assert!(read(&text(ports)).is_ok(), "numbers are keys as well");
    let ports = peer(ports).ports;
    assert_eq!(ports, [(8080, Some(MtlsMode::Disable)), (81, None), (82, None)].into());
}

#[test]
fn what_no_peer_authentication_says_is_refused() {
    for spec in [
        "{mtls: {mode: strict}}",
        "{mtls: {mode: }}",
        "{mtls: {made: STRICT}}",
        "{mtls: }",
        "{mtsl: {mode: PERMISSIVE}}",
        "",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {65536: {mode: STRICT}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {'8080': {mode: STRICT}, '08080': {mode: DISABLE}}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: [8080]}",
        "{portLevelMtls: {8080: {mode: STRICT}}}",
        "{selector: {}, portLevelMtls: {8080: {mode: STRICT}}}",
        "{targetRefs: [{kind: Gateway, name: x}]}",
    ] {
        let error = only_error(&text(spec));
        assert_eq!(error.location.line, 5, "{error}");
        assert_eq!(error.doubt.as_ref().map(|doubt| doubt.law), Some(DoubtedLaw::Connections), "{error}");
    }
}

#[test]
fn what_cannot_be_read_is_strict() {
    let strict = Some(MtlsMode::Strict);
    assert_eq!(peer("{mtls: {mode: permissive}}").mode, strict);
    assert_eq!(peer("{mtls: {mode: PERMISSIVE}, selctor: {}}").mode, strict);
    assert_eq!(peer("{mtls: {mode: PERMISSIVE, x: 1}}").mode, strict);
    assert_eq!(peer("").mode, strict);

    let one = peer(
        "{selector: {matchLabels: {a: b}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {80: {mode: x}, 81: {mode: DISABLE}}}",
    );
    assert_eq!(one.mode, Some(MtlsMode::Permissive));
    assert_eq!(one.ports, [(80, strict), (81, Some(MtlsMode::Disable))].into());
    let unknown_port = peer(
        "{selector: {matchLabels: {a: b}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {http: {mode: STRICT}}}",
    );
    assert_eq!(unknown_port.mode, strict, "nobody knows which port was meant");
    let whole = peer("{mtls: {mode: PERMISSIVE}, portLevelMtls: {80: {mode: DISABLE}, 81: {mode: STRICT}}}");
    assert_eq!((whole.mode, whole.ports), (Some(MtlsMode::Permissive), [(81, strict)].into()));
}
