//! From YAML to the mesh: who is where, what leads where, who is governed by what, and what contradicts what.

use std::{net::IpAddr, path::Path};

use douane_proto::{
    mesh::{Dialect, Protocol},
    mtls::MtlsMode,
    resource::{Doubt, DoubtedLaw, Resource, parse_file},
    snapshot::{Found, Question},
    wire::Action,
};

use super::{
    assemble::{Assembled, assemble},
    index::Law,
    learned::Known,
    settings::{Marked, Settings},
};
use crate::config::Config;

fn parse(text: &str) -> Vec<Resource> {
    parse_file(Path::new("mesh.yaml"), text).unwrap()
}

fn mesh_with(folders: &[&str], doubts: &[Doubt]) -> Assembled {
    let folders: Vec<_> = folders.iter().map(|text| parse(text)).collect();
    let config = Config::default();
    let settings = Settings {
        mesh: config.mesh(),
        law: config.law(),
        cluster_domain: config.cluster_domain,
        marked: Marked::ByLabel,
    };
    assemble(&folders, doubts, &Known::default(), &settings)
}

fn mesh(text: &str) -> Assembled {
    mesh_with(&[text], &[])
}

fn address(text: &str) -> Question {
    Question::Address(text.parse::<IpAddr>().unwrap())
}

fn host(text: &str) -> Question {
    Question::Host(text.to_owned())
}

fn pod(name: &str, app: &str, ip: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {app}, douane.io/inject: enabled}}}}
spec:
  serviceAccountName: {app}
  containers: [{{name: c, image: x, ports: [{{name: http, containerPort: 8080}}, {{name: raw, containerPort: 7000}}]}}]
status: {{phase: Running, podIP: {ip}}}
"
    )
}

const SERVICE: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  clusterIP: 10.96.0.7
  selector: {app: orders}
  ports:
    - {name: web, appProtocol: http, port: 80, targetPort: http}
    - {name: grpc-api, port: 90, targetPort: 9090}
    - {name: dns, protocol: UDP, port: 53}
";

fn entry(namespace: &str, host: &str, address: &str) -> String {
    format!(
        "
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: out, namespace: {namespace}}}
spec:
  hosts: [{host}]
  addresses: [{address}]
  ports: [{{number: 443, name: tls, protocol: TLS}}]
  resolution: STATIC
"
    )
}

#[test]
fn a_pod_is_what_its_labels_owner_and_status_say() {
    let mut text = pod("orders-1", "orders", "10.77.0.11");
    text = text.replace(
        "labels:",
        "ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: orders-v2, uid: x}], labels:",
    );
    let mesh = mesh(&text);
    assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());
    let Found::Workload(orders) = mesh.index.answer(&address("10.77.0.11"), "any") else { panic!("a pod") };
    assert_eq!(orders.id.to_string(), "spiffe://cluster.local/ns/shop/sa/orders");
    assert_eq!(orders.service_name, "orders-v2");
    assert_eq!(orders.dialect, Dialect::Douane1);
    assert_eq!(orders.protocol(8080), Protocol::Http1);
    assert_eq!(orders.protocol(7000), Protocol::Undeclared);
    assert!(orders.ready);
    assert_eq!(mesh.index.answer(&address("::ffff:10.77.0.11"), "any"), Found::Workload(orders));
}

#[test]
fn a_pod_without_label_is_plain_and_one_that_is_over_is_gone() {
    let plain = pod("a", "a", "10.77.0.1").replace(", douane.io/inject: enabled", "");
    let over = pod("b", "b", "10.77.0.2").replace("Running", "Succeeded");
    let unready = pod("c", "c", "10.77.0.3")
        .replace("phase: Running,", "phase: Running, conditions: [{type: Ready, status: 'False'}],");
    let unplaced = pod("d", "d", "x").replace(", podIP: x", "");
    let mesh = mesh(&format!("{plain}{over}{unready}{unplaced}"));
    assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());
    let found = |ip: &str| mesh.index.answer(&address(ip), "shop");
    assert!(
        matches!(found("10.77.0.1"), Found::Workload(a) if a.dialect == Dialect::Plain && a.service_name == "a")
    );
    assert_eq!(found("10.77.0.2"), Found::Unknown);
    assert!(matches!(found("10.77.0.3"), Found::Workload(c) if !c.ready));
    assert_eq!(mesh.index.workloads.len(), 2);
}

#[test]
fn a_pods_annotation_names_ports_that_keep_the_names_of_headers() {
    let marked = pod("a", "a", "10.77.0.1")
        .replace("labels:", "annotations: {douane.io/preserve-case: '8080, 9090'}, labels:");
    let mesh = mesh(&marked);
    assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());
    let Found::Workload(a) = mesh.index.answer(&address("10.77.0.1"), "any") else { panic!("a pod") };
    assert_eq!(a.preserve_case.iter().copied().collect::<Vec<_>>(), [8080, 9090]);

    for wrong in ["", "8080;9090", "0", "http", "70000", "8080,"] {
        let text = marked.replace("8080, 9090", wrong);
        let refused = parse_file(Path::new("mesh.yaml"), &text).unwrap_err();
        let told = format!("{refused:?}");
        assert!(told.contains("preserve-case") && told.contains("line: 5"), "{told}");
    }
}

#[test]
fn a_pod_with_istios_sidecar_speaks_istios_dialect_by_its_service_account() {
    let marked = |pod: String, mode: &str| {
        pod.replace(", douane.io/inject: enabled", &format!(", security.istio.io/tlsMode: {mode}"))
    };
    let istio = marked(pod("a", "legacy", "10.77.0.1"), "istio");
    let disabled = marked(pod("b", "b", "10.77.0.2"), "disabled");
    let both = pod("c", "c", "10.77.0.3")
        .replace(", douane.io/inject", ", security.istio.io/tlsMode: istio, douane.io/inject");

    let mesh = mesh(&format!("{istio}{disabled}{both}"));

    assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());
    let found = |ip: &str| match mesh.index.answer(&address(ip), "shop") {
        Found::Workload(workload) => workload,
        other => panic!("{other:?}"),
    };
    assert_eq!(found("10.77.0.1").dialect, Dialect::Istio);
    assert_eq!(found("10.77.0.1").id.to_string(), "spiffe://cluster.local/ns/shop/sa/legacy");
    assert_eq!(found("10.77.0.2").dialect, Dialect::Plain);
    assert_eq!(found("10.77.0.3").dialect, Dialect::Douane1, "ours comes first");
}

#[test]
fn a_service_leads_to_the_pods_it_selects() {
    let text = format!(
        "{}{}{}{SERVICE}",
        pod("o-1", "orders", "10.77.0.11"),
        pod("o-2", "orders", "10.77.0.12"),
        pod("w", "web", "10.77.0.9")
    );
    let mesh = mesh(&text);
    assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());
    let Found::Service(orders) = mesh.index.answer(&address("10.96.0.7"), "shop") else {
        panic!("a service")
    };
    assert_eq!(orders.endpoints.len(), 2);
    assert_eq!(orders.endpoints[0].targets, [(80, 8080), (90, 9090)].into());
    assert_eq!(orders.ports.len(), 2, "UDP is not the mesh's");
    let receiver = &orders.endpoints[0].workload;
    assert_eq!(receiver.protocol(9090), Protocol::Grpc, "by the service that leads there");
    for name in [
        "orders",
        "orders.shop",
        "orders.shop.svc",
        "orders.shop.svc.cluster.local",
        "orders.shop.svc.cluster.local.",
    ] {
        assert!(matches!(mesh.index.answer(&host(name), "shop"), Found::Service(_)), "{name}");
    }
    assert_eq!(mesh.index.answer(&host("orders"), "other"), Found::Unknown);
    let Found::Service(seen) = mesh.index.answer(&host("orders.shop"), "other") else { panic!("a service") };
    assert!(!seen.hosts.contains(&"orders".to_owned()), "the bare name is its own namespace's");
}

#[test]
fn a_headless_service_is_found_by_name_with_its_pods() {
    let text = format!("{}{}", pod("o-1", "orders", "10.77.0.11"), SERVICE.replace("10.96.0.7", "None"));
    let mesh = mesh(&text);
    let Found::Service(orders) = mesh.index.answer(&host("orders"), "shop") else { panic!("a service") };
    assert!(orders.addresses.is_empty());
    assert_eq!(orders.endpoints.len(), 1);
}

#[test]
fn a_later_folder_replaces_what_an_earlier_one_says() {
    let written = SERVICE.replace("  clusterIP: 10.96.0.7\n", "");
    let mesh = mesh_with(&[&written, SERVICE], &[]);
    assert!(mesh.errors().is_empty());
    assert!(matches!(mesh.index.answer(&address("10.96.0.7"), "shop"), Found::Service(_)));
    let twice = mesh_with(&[&format!("{SERVICE}{SERVICE}")], &[]);
    assert_eq!(twice.errors().len(), 1);
    assert!(
        twice.errors()[0].contains("Service shop/orders is already at mesh.yaml:"),
        "{:?}",
        twice.errors()
    );
}

#[test]
fn an_address_given_twice_leads_to_the_first() {
    let mesh = mesh(&format!("{}{}", pod("a", "a", "10.77.0.1"), pod("b", "b", "10.77.0.1")));
    assert_eq!(mesh.errors().len(), 1, "{:?}", mesh.errors());
    assert!(matches!(mesh.index.answer(&address("10.77.0.1"), "shop"), Found::Workload(a) if a.name == "a"));
}

#[test]
fn an_entry_counts_in_its_own_namespace_and_a_root_one_everywhere() {
    let own = mesh(&entry("shop", "api.example.com", "192.0.2.7"));
    assert!(matches!(own.index.answer(&address("192.0.2.7"), "shop"), Found::External(_)));
    assert!(matches!(own.index.answer(&host("api.example.com"), "shop"), Found::External(_)));
    assert_eq!(own.index.answer(&address("192.0.2.7"), "other"), Found::Unknown);
    let root = mesh(&entry("istio-system", "api.example.com", "192.0.2.7"));
    assert!(matches!(root.index.answer(&host("api.example.com"), "other"), Found::External(_)));
    let both = mesh(&format!(
        "{}{}",
        entry("istio-system", "a.example.com", "192.0.2.7"),
        entry("shop", "b.example.com", "192.0.2.7")
    ));
    let Found::External(joined) = both.index.answer(&address("192.0.2.7"), "shop") else { panic!("outside") };
    assert_eq!(joined.hosts.len(), 2);
}

#[test]
fn an_entry_cannot_take_what_belongs_to_the_mesh() {
    let base = format!("{}{SERVICE}", pod("o-1", "orders", "10.77.0.11"));
    for (host, ip) in [
        ("api.example.com", "10.77.0.11"),
        ("api.example.com", "10.96.0.7"),
        ("orders.shop.svc.cluster.local", "192.0.2.7"),
        ("orders.shop", "192.0.2.7"),
        ("orders", "192.0.2.7"),
    ] {
        let mesh = mesh(&format!("{base}{}", entry("shop", host, ip)));
        assert_eq!(mesh.errors().len(), 1, "{host} {ip}");
        assert_eq!(mesh.errors()[0].matches("mesh.yaml:").count(), 2, "both places: {}", mesh.errors()[0]);
        assert!(mesh.index.externals.is_empty());
    }
}

const LAWS: &str = "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: shop}
spec: {selector: {matchLabels: {app: orders}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: istio-system}
spec: {action: DENY, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: elsewhere, namespace: other}
spec: {}
";

fn laws(mesh: &Assembled, workload: &str) -> Vec<(String, Action)> {
    let policies = &mesh.index.workloads[workload].policies.policies;
    policies.iter().map(|policy| (policy.name.clone(), policy.action())).collect()
}

#[test]
fn a_pod_is_governed_by_its_own_namespace_and_the_root_namespace() {
    let mesh = mesh(&format!("{}{}{LAWS}", pod("o", "orders", "10.77.0.1"), pod("w", "web", "10.77.0.2")));
    assert_eq!(
        laws(&mesh, "shop/o"),
        [("all".to_owned(), Action::Deny), ("orders".to_owned(), Action::Allow)]
    );
    assert_eq!(laws(&mesh, "shop/w"), [("all".to_owned(), Action::Deny)]);
    let policy = &mesh.index.workloads["shop/o"].policies.policies[0];
    assert_eq!(policy.requires, [douane_proto::features::POLICY_V1]);
}

#[test]
fn two_laws_of_one_name_deny_what_the_second_means_to_govern() {
    let law = |action: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: twice, namespace: shop}}
spec: {{action: {action}, selector: {{matchLabels: {{app: orders}}}}, rules: [{{}}]}}\n"
        )
    };
    let pods = pod("orders-1", "orders", "10.77.0.5") + &pod("web-1", "web", "10.77.0.6");
    let allow = ("twice".to_owned(), Action::Allow);
    let deny = ("twice".to_owned(), Action::Deny);
    let differ = mesh(&(pods.clone() + &law("ALLOW") + &law("DENY")));
    assert_eq!(differ.errors().len(), 1);
    assert_eq!(laws(&differ, "shop/orders-1"), [allow.clone(), deny]);
    assert_eq!(laws(&differ, "shop/web-1"), []);
    // The same text twice, as while a file is being renamed, contradicts nothing.
    let same = mesh(&(pods + &law("ALLOW") + &law("ALLOW")));
    assert_eq!(laws(&same, "shop/orders-1"), [allow]);
}

#[test]
fn doubt_denies_what_it_names_or_everything() {
    let pods = format!("{}{}", pod("o", "orders", "10.77.0.1"), pod("w", "web", "10.77.0.2"));
    let named = Doubt {
        law: DoubtedLaw::Requests,
        namespace: Some("shop".to_owned()),
        name: None,
        selector: Some([("app".to_owned(), "orders".to_owned())].into()),
    };
    let narrow = mesh_with(&[&pods], std::slice::from_ref(&named));
    assert_eq!(laws(&narrow, "shop/o"), [("unreadable".to_owned(), Action::Deny)]);
    assert!(laws(&narrow, "shop/w").is_empty());
    let wide = mesh_with(&[&pods], &[Doubt { selector: None, ..named }]);
    assert_eq!(laws(&wide, "shop/w").len(), 1);
    assert_eq!(wide.index.law, Law::Known);
    let unknown = mesh_with(&[&pods], &[Doubt::default()]);
    assert_eq!(unknown.index.law, Law::Unknown);
}

fn law(kind: &str, key: &str, spec: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap();
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn a_workload_is_told_which_connections_its_sidecar_takes() {
    let pods = format!("{}{}", pod("o", "orders", "10.77.0.1"), pod("w", "web", "10.77.0.2"));
    let selected = "{selector: {matchLabels: {app: orders}}, portLevelMtls: {8080: {mode: STRICT}}}";
    let peers = law("PeerAuthentication", "istio-system/mesh", "{mtls: {mode: PERMISSIVE}}")
        + &law("PeerAuthentication", "shop/orders", selected);
    let mesh = mesh(&(pods + &peers));
    let mode = |pod: &str, port| mesh.index.workloads[pod].workload.mtls.of(port);

    assert_eq!(mode("shop/o", 8080), MtlsMode::Strict);
    assert_eq!(mode("shop/o", 7000), MtlsMode::Permissive);
    assert_eq!(mode("shop/w", 8080), MtlsMode::Permissive);
    let warnings: Vec<_> = mesh.warnings.iter().filter(|one| one.contains("PERMISSIVE")).collect();
    assert_eq!(warnings.len(), 1, "said once for the whole mesh: {warnings:?}");
    assert!(warnings[0].starts_with("mesh.yaml:"), "{warnings:?}");
}

#[test]
fn a_peer_authentication_in_doubt_is_strict_and_forbids_no_request() {
    let pods = pod("o", "orders", "10.77.0.1")
        + &law("PeerAuthentication", "istio-system/mesh", "{mtls: {mode: PERMISSIVE}}");
    let doubt = |namespace: Option<&str>| Doubt {
        law: DoubtedLaw::Connections,
        namespace: namespace.map(str::to_owned),
        ..Doubt::default()
    };
    for (doubts, mode) in [
        (vec![doubt(Some("shop"))], MtlsMode::Strict),
        (vec![doubt(None)], MtlsMode::Strict),
        (vec![doubt(Some("other"))], MtlsMode::Permissive),
    ] {
        let mesh = mesh_with(&[&pods], &doubts);
        assert_eq!(mesh.index.law, Law::Known, "policies are served all the same");
        assert_eq!(mesh.index.workloads["shop/o"].workload.mtls.otherwise, mode, "{doubts:?}");
        assert!(laws(&mesh, "shop/o").is_empty());
    }
}

#[test]
fn workloads_that_no_law_tells_apart_share_one_law() {
    let pods = format!("{}{}", pod("w-1", "web", "10.77.0.1"), pod("w-2", "web", "10.77.0.2")).replacen(
        "app: web,",
        "app: web, pod: first,",
        1,
    );
    let tokens = law(
        "RequestAuthentication",
        "shop/tokens",
        "{selector: {matchLabels: {app: web}}, jwtRules: [{issuer: i, jwksUri: 'https://i/keys'}]}",
    );
    let mesh = mesh(&(pods + &tokens));
    let of = |pod: &str| &mesh.index.workloads[pod].policies;
    assert!(std::sync::Arc::ptr_eq(of("shop/w-1"), of("shop/w-2")));
    assert_eq!(of("shop/w-1").authentications[0].name, "tokens");
}

#[test]
fn a_policy_that_asks_an_undefined_provider_is_warned_of_also_where_it_governs_nobody() {
    let custom =
        law("AuthorizationPolicy", "shop/ask", "{action: CUSTOM, provider: {name: nobody}, rules: [{}]}");
    let mesh = mesh(&custom);
    assert!(
        mesh.warnings.iter().any(|one| one.starts_with("mesh.yaml:3: ") && one.contains("nobody")),
        "{:?}",
        mesh.warnings
    );
}
