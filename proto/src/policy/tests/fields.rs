//! What each field matches (policy semantics 1.5, 1.6, 1.8), and the rule of repeated headers (2).

use super::*;

fn source(set: impl FnOnce(&mut wire::Source)) -> wire::Rule {
    let mut source = wire::Source::default();
    set(&mut source);
    from(source)
}

fn operation(set: impl FnOnce(&mut wire::Operation)) -> wire::Rule {
    let mut operation = wire::Operation::default();
    set(&mut operation);
    to(operation)
}

#[test]
fn principals_match_whole_by_prefix_by_suffix_or_by_presence() {
    for (pattern, expected) in [
        ("cluster.local/ns/shop/sa/web", true),
        ("cluster.local/ns/shop/sa/webb", false),
        ("cluster.local/ns/shop/sa/we", false),
        ("cluster.local/ns/shop/*", true),
        ("cluster.local/ns/sho*", true),
        ("*/sa/web", true),
        ("*/sa/eb", false),
        ("*/ns/shop/sa/web", true),
        ("*", true),
        ("other.local/ns/shop/sa/web", false),
        ("CLUSTER.local/ns/shop/sa/web", false),
        ("cluster.local/ns/*/sa/web", false),
    ] {
        let rule = source(|source| source.principals = list(&[pattern]));
        assert_eq!(allows(rule, &stream()), expected, "{pattern}");
        let rule = when("source.principal", &[pattern], &[]);
        assert_eq!(allows(rule, &stream()), expected, "{pattern} as a condition");
    }
}

#[test]
fn a_principal_of_cluster_local_is_one_of_the_local_trust_domain() {
    let prod = TrustDomain::parse("prod.example").unwrap();
    let facts = Facts { peer: Some(id("spiffe://prod.example/ns/shop/sa/web")), ..stream() };
    let decides = |principal: &str| {
        let rule = source(|source| source.principals = list(&[principal]));
        let policies = wire::PolicySet { policies: vec![allow(vec![rule])], ..Default::default() };
        passes(&PolicySet::from_wire(policies, trust(&prod)).unwrap(), &facts)
    };
    assert!(decides("cluster.local/ns/shop/sa/web"));
    assert!(decides("prod.example/ns/shop/sa/web"));
    assert!(!decides("foreign.example/ns/shop/sa/web"));
    assert!(!decides("cluster.local/ns/shop/*"), "fewer than five parts are matched as written");
}

#[test]
fn namespaces_match_a_whole_segment_with_stars_anywhere() {
    for (pattern, expected) in [
        ("shop", true),
        ("sho", false),
        ("*", true),
        ("sh*", true),
        ("*op", true),
        ("s*p", true),
        ("web", false),
    ] {
        let rule = source(|source| source.namespaces = list(&[pattern]));
        assert_eq!(allows(rule, &stream()), expected, "{pattern}");
    }
}

#[test]
fn a_service_account_without_a_namespace_is_one_of_the_policys_namespace() {
    for (account, expected) in
        [("web", true), ("shop/web", true), ("other/web", false), ("we", false), ("shop/webb", false)]
    {
        let rule = source(|source| source.service_accounts = list(&[account]));
        assert_eq!(allows(rule, &stream()), expected, "{account}");
        assert_eq!(allows(when("source.serviceAccount", &[account], &[]), &stream()), expected, "{account}");
    }
    let elsewhere = Facts { peer: Some(id("spiffe://cluster.local/ns/other/sa/web")), ..stream() };
    assert!(!allows(source(|source| source.service_accounts = list(&["web"])), &elsewhere));
}

#[test]
fn addresses_match_by_range_in_both_families() {
    let mapped = Facts { source: "::ffff:10.77.0.5".parse().unwrap(), ..stream() };
    let v6 = Facts { source: "fd77::5".parse().unwrap(), ..stream() };
    for (block, facts, expected) in [
        ("10.77.0.5", &stream(), true),
        ("10.77.0.0/16", &stream(), true),
        ("10.78.0.0/16", &stream(), false),
        ("::ffff:10.77.0.0/112", &stream(), true),
        ("0.0.0.0/0", &v6, false),
        ("10.77.0.5", &mapped, true),
        ("fd77::/64", &v6, true),
        ("::/0", &stream(), false),
    ] {
        let rule = source(|source| source.ip_blocks = list(&[block]));
        assert_eq!(allows(rule, facts), expected, "{block} on {}", facts.source);
        assert_eq!(allows(when("source.ip", &[block], &[]), facts), expected, "{block}");
    }
    assert!(allows(when("destination.ip", &["10.77.0.9"], &[]), &stream()));
    assert!(!allows(when("destination.ip", &["10.77.0.5"], &[]), &stream()));
}

#[test]
fn ports_are_the_pods_own() {
    assert!(allows(operation(|operation| operation.ports = list(&["80", "8080"])), &stream()));
    assert!(!allows(operation(|operation| operation.ports = list(&["80"])), &stream()));
    assert!(!allows(operation(|operation| operation.not_ports = list(&["8080"])), &stream()));
    assert!(allows(when("destination.port", &["8080"], &[]), &stream()));
}

#[test]
fn hosts_have_no_case_and_include_their_port() {
    for (host, expected) in [
        ("orders.shop:8080", true),
        ("ORDERS.shop:8080", true),
        ("orders.shop", false),
        ("orders.shop:*", true),
        ("*.shop:8080", true),
        ("*", true),
    ] {
        let rule = operation(|operation| operation.hosts = list(&[host]));
        assert_eq!(allows(rule, &request("GET", "/")), expected, "{host}");
    }
    assert!(allows(when("request.headers[host]", &["orders.shop:8080"], &[]), &request("GET", "/")));
}

#[test]
fn methods_are_compared_with_their_case() {
    assert!(allows(operation(|operation| operation.methods = list(&["POST", "GET"])), &request("GET", "/")));
    assert!(!allows(operation(|operation| operation.methods = list(&["get"])), &request("GET", "/")));
    assert!(!allows(operation(|operation| operation.not_methods = list(&["GET"])), &request("GET", "/")));
}

#[test]
fn paths_are_matched_in_their_normal_form_without_the_query() {
    for (pattern, path, expected) in [
        ("/admin", "/admin", true),
        ("/admin", "/admin?x=1", true),
        ("/admin", "/a/../%61dmin", true),
        ("/admin", "/admin/", false),
        ("/admin*", "/admin/users", true),
        ("*.css", "/x/y.css", true),
        ("*", "/", true),
        ("/a/{*}/c", "/a/b/c", true),
        ("/a/{**}", "/a/b/c", true),
        ("/a/{**}", "/a", false),
        ("/pkg.Svc/Method", "/pkg.Svc/Method", true),
    ] {
        let rule = operation(|operation| operation.paths = list(&[pattern]));
        assert_eq!(allows(rule, &request("GET", path)), expected, "{pattern} on {path}");
    }
}

#[test]
fn another_spelling_of_an_escape_is_the_same_path() {
    let paths = |path: &str| operation(|operation| operation.paths = list(&[path]));
    let not_paths = |path: &str| operation(|operation| operation.not_paths = list(&[path]));
    for (pattern, path) in [
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb", "/a%2fb"),
        ("/a%2fb", "/a%2fb"),
        ("/a%2f*", "/a%2fb"),
        ("*%2fb", "/a%2fb"),
        ("/{*}/a%2fb", "/x/a%2Fb"),
        ("/a%2fb/{**}", "/a%2fb/c"),
        ("/ü", "/ü"),
        ("/ü", "/%C3%BC"),
        ("/ü*", "/%c3%bc/a"),
    ] {
        let mut facts = request("GET", path);
        assert!(denies(paths(pattern), &facts), "{pattern} on {path}");
        assert!(allows(paths(pattern), &facts), "{pattern} on {path}");
        assert!(!allows(not_paths(pattern), &facts), "not {pattern} on {path}");
        // Also where a mesh leaves paths as they come.
        facts.request.as_mut().unwrap().target.path = path.to_owned();
        assert!(denies(paths(pattern), &facts), "{pattern} on {path} as it came");
    }
}

#[test]
fn a_host_with_the_dot_of_an_absolute_name_is_the_same_host() {
    for host in ["orders.shop.:8080", "Orders.Shop:8080", "*.shop.:8080"] {
        let rule = operation(|operation| operation.hosts = list(&[host]));
        assert!(denies(rule, &request("GET", "/")), "{host}");
    }
    let mut facts = request("GET", "/");
    facts.request.as_mut().unwrap().target.authority = "orders.shop".to_owned();
    for host in ["orders.shop.", "*.shop.", "*shop"] {
        assert!(allows(operation(|operation| operation.hosts = list(&[host])), &facts), "{host}");
    }
}

#[test]
fn pseudo_headers_are_what_envoy_would_see() {
    let facts = request("GET", "/a/./b?x=1");
    for (name, value, expected) in [
        (":authority", "Orders.Shop:8080", true),
        (":method", "GET", true),
        (":path", "/a/b?x=1", true),
        (":path", "/a/b", false),
        (":path", "/a/b*", true),
        (":path", "*x=1", true),
    ] {
        let rule = when(&format!("request.headers[{name}]"), &[value], &[]);
        assert_eq!(allows(rule, &facts), expected, "{name} {value}");
    }
}

#[test]
fn a_connect_without_a_path_is_stopped_by_any_rule_on_paths() {
    let mut facts = request("CONNECT", "/");
    facts.request.as_mut().unwrap().target.path.clear();
    for set in [
        |o: &mut wire::Operation| o.paths = list(&["/x"]),
        |o: &mut wire::Operation| o.not_paths = list(&["/x"]),
    ] {
        assert!(!allows(operation(set), &facts));
        assert!(denies(operation(set), &facts));
    }
}

#[test]
fn a_header_is_matched_by_name_without_case_and_value_with() {
    let facts = with_headers(&[("x-tier", "Gold")]);
    assert!(allows(when("request.headers[X-Tier]", &["Gold"], &[]), &facts));
    assert!(!allows(when("request.headers[x-tier]", &["gold"], &[]), &facts));
    assert!(allows(when("request.headers[x-tier]", &["*"], &[]), &facts));
    assert!(!allows(when("request.headers[x-other]", &["*"], &[]), &facts));
    assert!(allows(when("request.headers[x-other]", &[], &["a"]), &facts));
}

#[test]
fn of_a_repeated_header_all_values_must_allow_and_any_may_deny() {
    let twice = with_headers(&[("x-tier", "gold"), ("x-tier", "admin")]);
    assert!(!allows(when("request.headers[x-tier]", &["gold"], &[]), &twice));
    assert!(allows(when("request.headers[x-tier]", &["gold", "admin"], &[]), &twice));
    assert!(!allows(when("request.headers[x-tier]", &[], &["admin"]), &twice));
    assert!(denies(when("request.headers[x-tier]", &["admin"], &[]), &twice));
    assert!(denies(when("request.headers[x-tier]", &["gold,admin"], &[]), &twice), "joined");
    assert!(denies(when("request.headers[x-tier]", &[], &["gold"]), &twice), "one is not gold");
    assert!(!denies(when("request.headers[x-tier]", &["silver"], &[]), &twice));
}

#[test]
fn header_bytes_outside_of_ascii_are_matched_as_bytes() {
    let mut facts = request("GET", "/");
    let value = HeaderValue::from_bytes(b"gold\xff").unwrap();
    facts.request.as_mut().unwrap().headers.append("x-tier", value);
    assert!(!allows(when("request.headers[x-tier]", &["gold"], &[]), &facts));
    assert!(denies(when("request.headers[x-tier]", &["gold*"], &[]), &facts));
}

#[test]
fn a_server_name_and_a_trust_domain_are_matched() {
    let named = Facts { sni: Some("orders.shop".to_owned()), ..stream() };
    assert!(allows(when("connection.sni", &["orders.*"], &[]), &named));
    assert!(!allows(when("connection.sni", &["*"], &[]), &stream()));
    assert!(allows(when("source.trustDomain", &["cluster.local"], &[]), &stream()));
    assert!(!allows(when("source.trustDomain", &["other"], &[]), &stream()));
}
