//! Files that are broken, empty, half written or hostile: each an error, and what they meant to govern is not forgotten.

use proptest::prelude::*;

use super::*;

const LAW: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: orders-callers
  namespace: shop
spec:
  selector:
    matchLabels: {app: orders}
  action: ALLOW
  rules:
    - from:
        - source:
            principals: [\"cluster.local/ns/shop/sa/web\"]
      to:
        - operation:
            ports: [\"8080\"]
";

fn orders() -> Option<std::collections::BTreeMap<String, String>> {
    Some([("app".to_owned(), "orders".to_owned())].into())
}

#[test]
fn documents_know_their_lines() {
    let resources = read(LAW).unwrap();
    let lines: Vec<_> = resources.iter().map(|resource| resource.location.line).collect();
    assert_eq!(lines, [1, 6]);
    assert_eq!(resources[0].metadata.namespace, "");

    let many = format!("\u{feff}# law\n---\n{LAW}---\n\n--- # the end\n");
    assert_eq!(read(&many).unwrap().len(), 2);
    assert_eq!(read(&LAW.replace('\n', "\r\n")).unwrap().len(), 2);
}

#[test]
fn a_file_without_a_document_is_empty() {
    for text in ["", "\n \n", "# nothing\n", "---\n", "---\n# x\n---\n", "\u{feff}", "null\n"] {
        let error = only_error(text);
        assert_eq!(error.cause, Cause::Empty, "{text:?}: {error}");
        assert_eq!(error.doubt, Some(Doubt::default()), "nobody knows what it said");
    }
}

#[test]
fn each_broken_document_is_reported_with_file_and_line() {
    let text = LAW.replace("name: shop\n---", "nam: shop\n---").replace("8080", "http");
    let errors = read(&text).unwrap_err();
    let lines: Vec<_> = errors.iter().map(|error| error.location.to_string()).collect();
    assert_eq!(lines, ["law.yaml:3", "law.yaml:21"], "{errors:?}");
}

#[test]
fn a_document_that_is_no_yaml_is_told_with_its_line_and_whom_it_governs() {
    for (from, to, line) in [
        ("  action: ALLOW\n", "  action: ALLOW: DENY\n", 14),
        ("[\"8080\"]", "[\"8080\"", 21),
        ("  action: ALLOW\n", "  action: \"ALLOW\n", 18),
        ("  action: ALLOW\n", "  action: ALLOW\n  action: DENY\n", 15),
        ("    - from:\n", "   - from:\n  - x\n", 17),
    ] {
        let error = only_error(&LAW.replace(from, to));
        assert_eq!(error.cause, Cause::Syntax, "{error}");
        assert!(error.location.line.abs_diff(line) <= 1, "{to:?}: {error}");
        let doubt = error.doubt.unwrap();
        assert_eq!(doubt.namespace.as_deref(), Some("shop"), "{to:?}");
        assert_eq!(doubt.selector, orders(), "{to:?}");
    }
}

#[test]
fn the_less_is_readable_the_more_is_doubted() {
    let doubt = |text: &str| read(text).expect_err(text).remove(0).doubt;
    let head = "kind: AuthorizationPolicy\nmetadata:\n  name: a\n  namespace: shop\n";

    let no_selector = doubt(&format!("{head}spec: {{}}\nx: [\n")).unwrap();
    assert_eq!((no_selector.namespace.as_deref(), no_selector.selector), (Some("shop"), None));
    let whole = doubt(&format!("{head}spec: {{action: X}}\n")).unwrap();
    assert_eq!(whole.selector, Some(std::collections::BTreeMap::new()), "no selector: its whole scope");
    let odd = doubt(&format!("{head}spec: {{selector: 5}}\n")).unwrap();
    assert_eq!((odd.namespace.as_deref(), odd.selector), (Some("shop"), None));

    // Where the namespace could still have followed, it is unknown; where it could not, it is the default one.
    let cut = doubt("kind: AuthorizationPolicy\nmetadata:\n  name: a\n  x: [\n").unwrap();
    assert_eq!(cut.namespace, None);
    let passed = doubt("kind: AuthorizationPolicy\nmetadata:\n  name: a\nspec:\n  x: [\n").unwrap();
    assert_eq!(passed.namespace.as_deref(), Some("default"));

    assert_eq!(doubt("kind: [\n"), Some(Doubt::default()));
    assert_eq!(doubt("]\n"), Some(Doubt::default()));
    assert!(doubt("metadata: {namespace: shop}\n").is_some(), "a document without a kind may be a law");
    assert!(doubt("kind: Pod\nspec: [\n").is_none());
    assert!(doubt("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicies\n").is_some());
    assert!(doubt("apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n").is_some());
    let peer =
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {x: 1}\n";
    assert_eq!(doubt(peer).unwrap().law, DoubtedLaw::Connections, "requests are not its business");
}

#[test]
fn a_law_behind_a_fault_that_is_no_law_is_in_doubt() {
    let pod = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let law = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n\
               spec: {action: DENY, rules: [{}]}\n";
    for mark in ["...\n", "----\n", " ---\n", "\u{feff}---\n", "x: [\n", "\0\n---x\n"] {
        let text = format!("{pod}{mark}{law}");
        assert!(doubts(Path::new("law.yaml"), &text).contains(&Doubt::default()), "{mark:?}");
    }
    assert!(
        doubts(Path::new("law.yaml"), &format!("{pod}---\n{law}").replace('\n', "\r"))
            .contains(&Doubt::default())
    );
    let commented = format!("{pod}x: [\n  # no AuthorizationPolicy\n");
    assert_eq!(doubts(Path::new("law.yaml"), &commented), []);
}

#[test]
fn what_is_said_twice_is_known_of_neither() {
    let law = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: a\n  namespace: shop\n\
               spec:\n  selector:\n    matchLabels:\n      app: orders\n  action: DENY\n";
    let doubt = |text: &str| only_error(text).doubt.unwrap();
    for (from, to) in [
        ("metadata:", "metadata: {name: b, namespace: other}\nmetadata:"),
        ("  namespace: shop", "  namespace: shop\n  namespace: other"),
        ("kind:", "kind: Pod\nkind:"),
    ] {
        assert_eq!(doubt(&law.replacen(from, to, 1)), Doubt::default(), "{to:?}");
    }
    for (from, to) in [
        ("app: orders", "app: orders\n      app: other"),
        ("  action: DENY", "  selector: {}\n  action: DENY"),
        ("  action: DENY", "  action: DENY\nspec: {}"),
    ] {
        let doubt = doubt(&law.replacen(from, to, 1));
        assert_eq!((doubt.namespace.as_deref(), doubt.selector), (Some("shop"), None), "{to:?}");
    }
    // Whatever the key's tag.
    for key in ["action", "'action'", "!x action", "!!binary YWN0aW9u", "\"\\x61ction\""] {
        let error = only_error(&law.replace("action: DENY", &format!("action: ALLOW\n  {key}: DENY")));
        assert!(error.what.contains("duplicate mapping key: action"), "{key}: {error}");
    }
}

#[test]
fn a_misspelt_namespace_is_not_the_default_one() {
    for key in ["namespce", "Namespace", "nameSpace"] {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, {key}: shop}}\nspec: {{}}\n"
        );
        assert_eq!(only_error(&text).doubt.unwrap().namespace, None, "{key}");
        assert_eq!(reading(&text).resource, None, "nobody knows whom it governs");
    }
    let beside = policy("  {}\n").replace("name: ", "clusterName: a, name: ");
    assert_eq!(only_error(&beside).doubt.unwrap().namespace.as_deref(), Some("shop"));
    assert!(reading(&beside).resource.is_some());
}

#[test]
fn a_list_holds_objects_and_one_that_cannot_be_read_may_hold_any_law() {
    let list = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n\
                - {apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n\
                - {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a, namespace: shop}, spec: {}}\n";
    let resources = read(list).unwrap();
    assert_eq!(resources.iter().map(|one| one.location.line).collect::<Vec<_>>(), [5, 6]);
    assert!(matches!(resources[1].kind, Kind::AuthorizationPolicy(_)));

    let error = only_error(&list.replace("spec: {}", "spec: {actoin: DENY}"));
    assert_eq!(error.location.line, 6);
    assert_eq!(error.doubt.unwrap().namespace.as_deref(), Some("shop"));
    for broken in [
        list.replace("items:", "item:"),
        list.replace("items:", "more: 1\nitems:"),
        list.replace("v1\nkind: List", "security.istio.io/v1\nkind: AuthorizationPolicyList"),
        list.replace("v1\nkind: List", "Security.Istio.io/v1\nkind: authorizationPolicyList"),
        list.replace("v1\nkind: List", "v2\nkind: List"),
    ] {
        assert_eq!(only_error(&broken).doubt.unwrap().namespace, None, "{broken}");
    }
}

#[test]
fn bombs_and_floods_are_refused() {
    let mut bomb = "kind: Pod\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", ")));
    }
    let deep = format!("kind: Pod\nx: {}\n", "[".repeat(10_000));
    let long = format!("kind: Pod\nx: {}\n", "x".repeat(2 * 1024 * 1024));
    let many = "---\nkind: Pod\n".repeat(3_000);
    for (text, cause) in
        [(bomb, Cause::Syntax), (deep, Cause::Syntax), (long, Cause::Bound), (many, Cause::Bound)]
    {
        let error = only_error(&text);
        assert_eq!(error.cause, cause, "{error}");
        assert!(error.to_string().len() < 1000);
    }
    let law = format!("kind: AuthorizationPolicy\nx: {}\n", "x".repeat(2 * 1024 * 1024));
    assert_eq!(only_error(&law).doubt, Some(Doubt::default()), "a law too long to be read is in doubt");
}

#[test]
fn many_bombs_cost_no_more_than_one() {
    let mut bomb = "kind: AuthorizationPolicy\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", ")));
    }
    let text = format!("---\n{bomb}").repeat(500);
    let errors = read(&text).unwrap_err();
    assert!(errors.len() < 20, "the rest is not read: {}", errors.len());
    assert_eq!(errors.last().unwrap().cause, Cause::Bound);
    let in_doubt = doubts(Path::new("bombs.yaml"), &text);
    assert!(in_doubt.contains(&Doubt::default()), "and may have been any law");
}

#[test]
fn a_file_cut_at_any_line_is_an_error_or_says_less_than_it_did() {
    let start = LAW.find("---").unwrap();
    let law = &LAW[start..];
    let ends: Vec<usize> = law.match_indices('\n').map(|(at, _)| at + 1).collect();
    for end in &ends[..ends.len() - 1] {
        match read(&law[..*end]) {
            Err(errors) => assert!(errors.iter().all(|error| error.location.line >= 1)),
            // Only a rule whose end is missing cannot be told from a whole one.
            Ok(resources) if resources.is_empty() => panic!("an empty file must be an error"),
            Ok(resources) => assert!(matches!(resources[0].kind, Kind::AuthorizationPolicy(_))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn no_change_of_a_law_panics(at in 0..LAW.len(), len in 0..40_usize, put in "[\\[\\]{}:,\"'&*|>#\\-\n a-z0-9]{0,6}") {
        if LAW.is_char_boundary(at) {
            let end = (at + len).min(LAW.len());
            let text = format!("{}{put}{}", &LAW[..at], &LAW[end..]);
            if let Err(errors) = read(&text) {
                for error in errors {
                    prop_assert!(error.location.line >= 1);
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }
}
