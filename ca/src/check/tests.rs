//! Facts, and what they mean.

use std::time::{Duration, SystemTime};

use douane_proto::{id::TrustDomain, svid};
use serde_json::{Value, json};

use super::*;
use crate::{
    authority::{Authority, pem_block},
    state::StateFolder,
};

const NOW: i64 = 1_800_000_000;

fn find<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.check == check);
    found.unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

fn with(kind: Kind, objects: &[Value]) -> Facts {
    let mut facts = Facts { now: NOW, version: Some(Ok("v1.34.4".to_owned())), ..Facts::default() };
    facts.objects.insert(kind, Ok(objects.to_vec()));
    facts
}

fn level(facts: &Facts, stage: Stage, check: &str) -> Level {
    find(&judge(facts, stage), check).level
}

// As an authority makes it.
fn root() -> (String, i64) {
    let home = tempfile::tempdir().unwrap();
    let folder = StateFolder::new(home.path().join("state"));
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let hour = Duration::from_secs(3600);
    let authority = Authority::open(&folder, &domain, hour, SystemTime::now()).unwrap();
    let root = authority.bundle().borrow().roots[0].clone();
    (pem_block("CERTIFICATE", &root), svid::ends(&root).unwrap())
}

#[test]
fn an_api_server_that_is_away_or_old_or_has_another_clock_is_an_error_with_its_command() {
    let away = Facts { version: Some(Err("connection refused".to_owned())), ..Facts::default() };
    let finding = judge(&away, Stage::Before);
    assert_eq!((finding[0].level, finding[0].check), (Level::Error, "api.reachable"));
    assert_eq!(finding[0].mend, "kubectl version");

    for (version, expected) in [
        ("v1.34.4", Level::Ok),
        ("v1.29.0-eks-123", Level::Ok),
        ("v1.28.9", Level::Error),
        ("v2.0.0", Level::Ok),
        ("strange", Level::Warning),
    ] {
        let facts = Facts { version: Some(Ok(version.to_owned())), ..Facts::default() };
        assert_eq!(level(&facts, Stage::Before, "api.version"), expected, "{version}");
    }
    for (off, expected) in [(0, Level::Ok), (-29, Level::Ok), (30, Level::Warning), (-61, Level::Error)] {
        let facts = Facts { server_time: Some(NOW + off), ..with(Kind::Nodes, &[]) };
        assert_eq!(level(&facts, Stage::Before, "api.clock"), expected, "{off}");
    }
}

#[test]
fn rights_that_are_missing_are_named() {
    let right = |allowed| Right { verb: "create", group: "apps", resource: "deployments", allowed };
    let facts = Facts { rights: vec![right(true)], ..with(Kind::Nodes, &[]) };
    assert_eq!(level(&facts, Stage::Before, "rights.install"), Level::Ok);
    let facts = Facts { rights: vec![right(false)], ..with(Kind::Nodes, &[]) };
    let findings = judge(&facts, Stage::Before);
    assert!(find(&findings, "rights.install").what.contains("create deployments.apps"), "{findings:?}");
    let mut unread = facts;
    unread.objects.insert(Kind::Nodes, Err("forbidden".to_owned()));
    assert_eq!(level(&unread, Stage::Before, "api.read"), Level::Warning);
}

#[test]
fn definitions_are_absent_or_whole_and_serve_what_we_read() {
    let definition = |name: &str, version: &str| json!({"metadata": {"name": name}, "spec": {"versions": [{"name": version, "served": true}]}});
    let all = [
        "authorizationpolicies.security.istio.io",
        "peerauthentications.security.istio.io",
        "requestauthentications.security.istio.io",
        "serviceentries.networking.istio.io",
        "workloadentries.networking.istio.io",
    ];
    let of = |names: &[&str], version: &str| -> Level {
        let all: Vec<Value> = names.iter().map(|name| definition(name, version)).collect();
        level(&with(Kind::Definitions, &all), Stage::Before, "definitions.served")
    };
    assert_eq!(of(&[], "v1"), Level::Ok);
    assert_eq!(of(&all, "v1"), Level::Ok);
    assert_eq!(of(&all[..2], "v1beta1"), Level::Warning);
    assert_eq!(of(&all, "v1alpha3"), Level::Error);
}

#[test]
fn nodes_must_be_able_to_redirect() {
    let node = |system: &str, kernel: &str| {
        let said = json!({"operatingSystem": system, "kernelVersion": kernel, "architecture": "amd64"});
        with(Kind::Nodes, &[json!({"metadata": {"name": "n"}, "status": {"nodeInfo": said}})])
    };
    assert_eq!(level(&node("linux", "5.10.0-21-cloud"), Stage::Before, "nodes.kernel"), Level::Ok);
    assert_eq!(level(&node("linux", "4.18.0"), Stage::Before, "nodes.kernel"), Level::Error);
    assert_eq!(level(&node("windows", "10.0.20348"), Stage::Before, "nodes.kind"), Level::Warning);
}

#[test]
fn namespaces_say_what_they_want_in_words_that_mean_something_and_to_one_mesh() {
    let of = |name: &str, labels: Value| {
        let facts = with(Kind::Namespaces, &[json!({"metadata": {"name": name, "labels": labels}})]);
        let findings = judge(&facts, Stage::Before);
        let found = findings.iter().find(|finding| finding.group == "namespaces").unwrap();
        (found.check, found.level, found.mend.clone())
    };
    assert_eq!(of("shop", json!({"douane.io/inject": "enabled"})).1, Level::Ok);
    let (check, found, mend) = of("shop", json!({"douane.io/inject": "true"}));
    assert_eq!((check, found), ("namespaces.label", Level::Error));
    assert_eq!(mend, "kubectl label --overwrite namespace shop douane.io/inject=enabled");
    assert_eq!(of("kube-system", json!({"douane.io/inject": "enabled"})).1, Level::Warning);
    let both = of("shop", json!({"douane.io/inject": "enabled", "istio-injection": "enabled"}));
    assert_eq!((both.0, both.1), ("namespaces.injector", Level::Error));
    let strict = json!({"douane.io/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted"});
    assert_eq!(of("shop", strict).0, "namespaces.security");
    assert_eq!(of("other", json!({"istio-injection": "enabled"})).1, Level::Ok, "not ours to judge");
}

#[test]
fn a_control_plane_is_there_ready_and_led() {
    let plane = |ready: u32| {
        let version = json!({"app.kubernetes.io/version": "0.1.0"});
        let deployment = json!({"metadata": {"name": "douane-ca", "labels": version},
            "spec": {"replicas": 2}, "status": {"readyReplicas": ready}});
        with(Kind::Deployments, &[deployment])
    };
    let check = "control-plane.ready";
    assert_eq!(level(&plane(2), Stage::Running, check), Level::Ok);
    assert_eq!(level(&plane(1), Stage::Running, check), Level::Warning);
    assert_eq!(level(&plane(0), Stage::Running, check), Level::Error);
    assert_eq!(level(&with(Kind::Deployments, &[]), Stage::Running, check), Level::Error);

    let lease = |holder: &str| {
        with(
            Kind::Leases,
            &[json!({"metadata": {"name": "douane-authority"}, "spec": {"holderIdentity": holder}})],
        )
    };
    assert_eq!(level(&lease("pod"), Stage::Running, "control-plane.lease"), Level::Ok);
    assert_eq!(level(&lease(""), Stage::Running, "control-plane.lease"), Level::Warning);
}

#[test]
fn roots_are_published_live_and_known_to_the_api_server() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let (pem, ends) = root();
    let mesh = |roots: &str, bundle: &str| {
        let mut facts = with(Kind::Roots, &[json!({"data": {"root.pem": roots}})]);
        let webhook =
            json!({"metadata": {"name": "douane"}, "webhooks": [{"clientConfig": {"caBundle": bundle}}]});
        facts.objects.insert(Kind::Mutating, Ok(vec![webhook.clone()]));
        facts.objects.insert(Kind::Validating, Ok(vec![webhook]));
        facts
    };
    let known = STANDARD.encode(&pem);
    for (left, expected) in [(60, Level::Ok), (13, Level::Warning), (-1, Level::Error)] {
        let facts = Facts { now: ends - left * 24 * 3600, ..mesh(&pem, &known) };
        assert_eq!(level(&facts, Stage::Running, "roots.expiry"), expected, "{left} days");
    }
    assert_eq!(level(&mesh(&pem, &known), Stage::Running, "webhook.roots"), Level::Ok);
    assert_eq!(level(&mesh(&pem, "b3RoZXI="), Stage::Running, "webhook.roots"), Level::Error);
    assert_eq!(level(&mesh("no PEM", &known), Stage::Running, "roots.published"), Level::Error);
    assert_eq!(level(&with(Kind::Roots, &[]), Stage::Running, "roots.published"), Level::Error);
    assert_eq!(level(&with(Kind::Mutating, &[]), Stage::Running, "webhook.installed"), Level::Error);
}

#[test]
fn pods_that_should_be_in_the_mesh_and_are_not_are_named_with_what_puts_them_there() {
    let pod = |name: &str, containers: Value, labels: Value| json!({"metadata": {"name": name, "namespace": "shop", "labels": labels}, "spec": {"containers": containers}});
    let app = json!([{"name": "app", "image": "app:1"}]);
    let both =
        json!([{"name": "app", "image": "app:1"}, {"name": "douane-proxy", "image": "r/douane-proxy:0.1.0"}]);
    let space = json!({"metadata": {"name": "shop", "labels": {"douane.io/inject": "enabled"}}});
    let mesh = |pods: &[Value]| {
        let mut facts = with(Kind::Pods, pods);
        facts.objects.insert(Kind::Namespaces, Ok(vec![space.clone()]));
        let version = json!({"app.kubernetes.io/version": "0.2.0"});
        let plane = json!({"metadata": {"name": "douane-ca", "labels": version}});
        facts.objects.insert(Kind::Deployments, Ok(vec![plane]));
        judge(&facts, Stage::Running)
    };
    let findings = mesh(&[
        pod("in", both.clone(), json!({})),
        pod("missed", app.clone(), json!({})),
        pod("out", app.clone(), json!({"douane.io/inject": "disabled"})),
    ]);
    let missing = find(&findings, "pods.missing");
    assert!(missing.what.contains("1 pods") && missing.what.contains("shop/missed"), "{missing:?}");
    assert_eq!(missing.mend, "kubectl rollout restart -n shop deployment,statefulset");
    let skew = find(&findings, "versions.skew");
    assert!(skew.level == Level::Warning && skew.what.contains("shop/in (0.1.0)"), "{skew:?}");

    let mut shared = pod("node", app.clone(), json!({}));
    shared["spec"]["hostNetwork"] = json!(true);
    let mut done = pod("done", app, json!({}));
    done["status"] = json!({"phase": "Succeeded"});
    let findings = mesh(&[shared, done, pod("in", both, json!({}))]);
    assert_eq!(find(&findings, "pods.missing").level, Level::Ok);
}

#[test]
fn a_rehearsal_shows_whether_pods_would_be_injected_and_policies_say_what_is_wrong_with_them() {
    let rehearsed = |rehearsal: Result<Value, String>| {
        let facts = Facts { rehearsal: Some(rehearsal), ..with(Kind::Policies, &[]) };
        level(&facts, Stage::Running, "webhook.answers")
    };
    assert_eq!(rehearsed(Ok(json!({"spec": {"initContainers": [{"name": "douane-proxy"}]}}))), Level::Ok);
    assert_eq!(rehearsed(Ok(json!({"spec": {"containers": []}}))), Level::Error);
    assert_eq!(rehearsed(Err("failed calling webhook".to_owned())), Level::Error);

    let condition = json!([{"type": "Accepted", "status": "False", "message": "rule 2 is void"}]);
    let policy = json!({"kind": "AuthorizationPolicy", "metadata": {"name": "p", "namespace": "shop"},
        "status": {"conditions": condition}});
    let findings = judge(&with(Kind::Policies, &[policy]), Stage::Running);
    let found = find(&findings, "policies.status");
    assert!(found.what.contains("rule 2 is void") && found.level == Level::Warning, "{found:?}");
    assert_eq!(worst(&findings), Level::Warning);
}
