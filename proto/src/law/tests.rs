//! Which laws govern a workload: rows of selection (1.1) and of `PeerAuthentication`'s precedence (1.10).

use std::path::Path;

use super::*;
use crate::{
    mtls::MtlsMode,
    policy::ProviderProtocol,
    resource::{self, parse_file},
};

fn resources(text: &str) -> Vec<Resource> {
    if text.is_empty() {
        return Vec::new();
    }
    parse_file(Path::new("law.yaml"), text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn settings() -> LawSettings {
    LawSettings { root_namespace: "istio-system".to_owned(), mtls: MtlsMode::Strict, providers: Vec::new() }
}

fn labels() -> BTreeMap<String, String> {
    [("app".to_owned(), "httpbin".to_owned()), ("version".to_owned(), "v1".to_owned())].into()
}

fn governing(text: &str) -> Governing {
    govern(&resources(text), "foo", &labels(), &settings())
}

fn object(kind: &str, key: &str, spec: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap();
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn policies(objects: &[(&str, &str)]) -> Vec<String> {
    let text: String = objects.iter().map(|(key, spec)| object("AuthorizationPolicy", key, spec)).collect();
    let set = governing(&text).policies;
    set.policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect()
}

#[test]
fn a_policy_of_the_own_namespace_applies_without_selector_or_when_every_label_matches() {
    assert_eq!(
        policies(&[
            ("foo/none", "{}"),
            ("foo/empty", "{selector: {}}"),
            ("foo/no-labels", "{selector: {matchLabels: {}}}"),
            ("foo/one", "{selector: {matchLabels: {app: httpbin}}}"),
            ("foo/both", "{selector: {matchLabels: {app: httpbin, version: v1}}}"),
            ("foo/half", "{selector: {matchLabels: {app: httpbin, version: v2}}}"),
            ("foo/other", "{selector: {matchLabels: {app: sleep}}}"),
            ("foo/missing", "{selector: {matchLabels: {tier: a}}}"),
        ]),
        ["foo/both", "foo/empty", "foo/no-labels", "foo/none", "foo/one"]
    );
}

#[test]
fn a_policy_of_the_root_namespace_applies_in_every_namespace_by_the_same_test() {
    assert_eq!(
        policies(&[
            ("istio-system/all", "{}"),
            ("istio-system/some", "{selector: {matchLabels: {app: httpbin}}}"),
            ("istio-system/others", "{selector: {matchLabels: {app: sleep}}}"),
        ]),
        ["istio-system/all", "istio-system/some"]
    );
}

#[test]
fn a_policy_of_any_other_namespace_never_applies() {
    assert!(
        policies(&[("bar/all", "{}"), ("bar/some", "{selector: {matchLabels: {app: httpbin}}}")]).is_empty()
    );
}

#[test]
fn a_policy_with_target_refs_never_governs_a_sidecar_and_is_reported() {
    let text = object(
        "AuthorizationPolicy",
        "foo/gw",
        "{targetRefs: [{kind: Service, name: httpbin}], rules: [{}]}",
    ) + &object("RequestAuthentication", "foo/rw", "{targetRef: {kind: Service, name: httpbin}}");
    let law = governing(&text);
    assert!(law.policies.policies.is_empty() && law.policies.authentications.is_empty());
    let warnings: Vec<_> = law.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("law.yaml:5: AuthorizationPolicy foo/gw: "), "{warnings:?}");
}

#[test]
fn all_request_authentications_that_apply_are_merged_in_one_order() {
    let one = object("RequestAuthentication", "foo/b", "{jwtRules: [{issuer: b, jwksUri: https://b/k}]}");
    let two = object("RequestAuthentication", "foo/a", "{jwtRules: [{issuer: a, jwksUri: https://a/k}]}");
    let root = object("RequestAuthentication", "istio-system/z", "{selector: {matchLabels: {app: httpbin}}}");
    let never = object("RequestAuthentication", "bar/a", "{}");
    let law = governing(&[&*one, &two, &root, &never].concat());
    let names: Vec<_> = law.policies.authentications.iter().map(|law| law.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "z"]);
    assert_eq!(law.policies, governing(&[&*root, &never, &two, &one].concat()).policies);
}

#[test]
fn only_providers_that_a_selected_custom_policy_names_are_sent_and_undefined_ones_are_told() {
    let provider = |name| Provider::new(name, ProviderProtocol::Grpc, "ext.foo.svc", 9000);
    let settings = LawSettings { providers: vec![provider("ext"), provider("unused")], ..settings() };
    let spec = |name: &str| format!("{{action: CUSTOM, provider: {{name: {name}}}, rules: [{{}}]}}");
    let text = object("AuthorizationPolicy", "foo/a", &spec("ext"))
        + &object("AuthorizationPolicy", "foo/b", &spec("nobody"))
        + &object("AuthorizationPolicy", "bar/c", &spec("unused"));
    let law = govern(&resources(&text), "foo", &labels(), &settings);
    let names: Vec<_> = law.policies.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(names, ["ext"]);
    assert_eq!(law.warnings.len(), 1);
    assert!(law.warnings[0].what.contains("nobody"), "{:?}", law.warnings);
}

fn mtls(objects: &[(&str, &str)]) -> MtlsModes {
    let text: String = objects.iter().map(|(key, spec)| object("PeerAuthentication", key, spec)).collect();
    governing(&text).mtls
}

const PERMISSIVE: &str = "{mtls: {mode: PERMISSIVE}}";
const DISABLE: &str = "{mtls: {mode: DISABLE}}";
const STRICT: &str = "{mtls: {mode: STRICT}}";
const UNSET: &str = "{mtls: {mode: UNSET}}";
const SELECTED: &str = "{selector: {matchLabels: {app: httpbin}}, mtls: {mode: PERMISSIVE}}";

#[test]
fn without_a_peer_authentication_the_mesh_configuration_says_it() {
    assert_eq!(mtls(&[]), MtlsModes::default());
    assert_eq!(mtls(&[("bar/other", PERMISSIVE)]).otherwise, MtlsMode::Strict);
    let settings = LawSettings { mtls: MtlsMode::Permissive, ..settings() };
    let law = govern(&[], "foo", &labels(), &settings);
    assert_eq!(law.mtls.otherwise, MtlsMode::Permissive);
    assert!(law.warnings[0].to_string().starts_with("mesh configuration: PERMISSIVE"), "{:?}", law.warnings);
}

#[test]
fn workload_goes_before_namespace_before_mesh() {
    assert_eq!(mtls(&[("istio-system/m", PERMISSIVE)]).otherwise, MtlsMode::Permissive);
    assert_eq!(mtls(&[("istio-system/m", PERMISSIVE), ("foo/n", STRICT)]).otherwise, MtlsMode::Strict);
    assert_eq!(mtls(&[("istio-system/m", STRICT), ("foo/n", DISABLE)]).otherwise, MtlsMode::Disable);
    assert_eq!(mtls(&[("foo/n", DISABLE), ("foo/w", SELECTED)]).otherwise, MtlsMode::Permissive);
    assert_eq!(
        mtls(&[("foo/w", "{selector: {matchLabels: {app: x}}, mtls: {mode: DISABLE}}")]),
        MtlsModes::default()
    );
}

#[test]
fn unset_passes_on_to_the_next_wider_scope() {
    let unset = "{selector: {matchLabels: {app: httpbin}}}";
    assert_eq!(
        mtls(&[("istio-system/m", DISABLE), ("foo/n", UNSET), ("foo/w", unset)]).otherwise,
        MtlsMode::Disable
    );
    assert_eq!(mtls(&[("istio-system/m", UNSET), ("foo/n", "{}")]).otherwise, MtlsMode::Strict);
    assert_eq!(
        mtls(&[("istio-system/m", DISABLE), ("foo/n", PERMISSIVE), ("foo/w", unset)]).otherwise,
        MtlsMode::Permissive
    );
}

#[test]
fn a_port_goes_before_all_and_an_unset_one_inherits_the_workloads_mode() {
    let spec = "{selector: {matchLabels: {app: httpbin}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: DISABLE}, 81: {mode: UNSET}, 82: {mode: STRICT}}}";
    let modes = mtls(&[("foo/n", STRICT), ("foo/w", spec)]);
    assert_eq!(modes.of(8080), MtlsMode::Disable);
    assert_eq!(modes.of(81), MtlsMode::Permissive);
    assert_eq!(modes.of(82), MtlsMode::Strict);
    assert_eq!(modes.of(9999), MtlsMode::Permissive);
    let inherits = "{selector: {matchLabels: {app: httpbin}}, portLevelMtls: {81: {mode: UNSET}}}";
    assert_eq!(mtls(&[("foo/n", DISABLE), ("foo/w", inherits)]).of(81), MtlsMode::Disable);
}

#[test]
fn of_several_in_one_scope_the_oldest_holds_and_of_equally_old_ones_the_first_by_name() {
    let at = |name: &str, created: &str, mode: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: foo, creationTimestamp: '{created}'}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        )
    };
    let old = at("z", "2025-01-01T00:00:00Z", "DISABLE");
    let new = at("a", "2026-01-01T00:00:00Z", "PERMISSIVE");
    for text in [format!("{old}{new}"), format!("{new}{old}")] {
        assert_eq!(governing(&text).mtls.otherwise, MtlsMode::Disable);
    }
    let twin = at("b", "2026-01-01T00:00:00Z", "DISABLE");
    assert_eq!(governing(&format!("{twin}{new}")).mtls.otherwise, MtlsMode::Permissive);
    // The oldest is the one of its scope, also where it leaves the mode to a wider one.
    let silent = at("y", "2024-01-01T00:00:00Z", "UNSET");
    assert_eq!(governing(&format!("{silent}{old}")).mtls.otherwise, MtlsMode::Strict);
}

#[test]
fn a_selector_in_the_root_namespace_is_ignored_and_said() {
    let text = object("PeerAuthentication", "istio-system/some", SELECTED);
    let law = governing(&text);
    assert_eq!(law.mtls, MtlsModes::default());
    assert!(law.warnings[0].what.contains("ignored"), "{:?}", law.warnings);
}

#[test]
fn a_mode_that_takes_plaintext_is_warned_of_with_its_line() {
    let spec = "{selector: {matchLabels: {app: httpbin}}, portLevelMtls: {8080: {mode: DISABLE}}}";
    let text = object("PeerAuthentication", "istio-system/m", PERMISSIVE)
        + &object("PeerAuthentication", "foo/w", spec);
    let warnings: Vec<_> = governing(&text).warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings[0].starts_with("law.yaml:5: PeerAuthentication istio-system/m: PERMISSIVE"),
        "{warnings:?}"
    );
    assert!(warnings[0].contains("notPrincipals"), "{warnings:?}");
    assert!(warnings[1].contains("port 8080: DISABLE"), "{warnings:?}");
    assert!(governing(&object("PeerAuthentication", "foo/n", STRICT)).warnings.is_empty());
}

#[test]
fn a_flawed_peer_authentication_is_strict_where_it_is_not_readable() {
    let text = object("PeerAuthentication", "foo/n", "{mtls: {mode: permissive}}");
    let parts = crate::yaml::split(&text);
    let node = crate::yaml::parse(parts[0], &mut crate::yaml::Work::new()).unwrap();
    let broken = resource::read_law(&node, Path::new("law.yaml")).resource.unwrap();
    let mut all = resources(&object("PeerAuthentication", "istio-system/m", PERMISSIVE));
    all.push(broken);
    assert_eq!(govern(&all, "foo", &labels(), &settings()).mtls.otherwise, MtlsMode::Strict);
}
