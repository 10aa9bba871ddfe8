//! The API server asks our webhook before it stores a pod or a policy: what it stores is what `douane inject` writes, what
//! it refuses says why in our words, and who did not opt in depends on nobody.

use std::{fs, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use douane_ca::admin::{Answer, Command as Order};
use douane_tests::{
    kubernetes::{Cluster, Said},
    wait::eventually,
};
use serde_json::{Value, json};

use super::plane::{LIMIT, Plane, installed, namespaces};

/// Manifests as users write them, and what `douane inject` makes of each.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ca/tests/policy_tools/golden/inject");

// An API whose server asks us: `meshed` opted in, `plain` said nothing, `reference` opted out.
async fn asked() -> (Cluster, Plane) {
    let cluster = installed();
    let plane = Plane::admitting(&cluster, |config| config.authority.root_lead = Duration::ZERO).await;
    let enabled = "douane.io/inject: enabled";
    namespaces(&cluster, &[("meshed", enabled), ("plain", ""), ("reference", "douane.io/inject: disabled")]);
    eventually("the API server asks us", LIMIT, || {
        let said = cluster
            .kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &pod("meshed", ""));
        if said.out.contains("douane-proxy") { Ok(()) } else { Err(said.err) }
    });
    (cluster, plane)
}

// `spec`: fields of the pod's spec in YAML's flow form, each with a comma behind it.
fn pod(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: app, namespace: {namespace}, labels: {{app: app}}}}\n\
         spec: {{{spec} containers: [{{name: app, image: 'app:1'}}]}}\n"
    )
}

fn create(cluster: &Cluster, yaml: &str) -> Said {
    // One of the golden files has a field of the future, which an API server drops as it does for controllers.
    cluster.kubectl_with(&["create", "--validate=ignore", "-o", "json", "-f", "-"], yaml)
}

fn created(cluster: &Cluster, yaml: &str) -> Value {
    let said = create(cluster, yaml);
    assert!(said.ok, "{}\nof {yaml}", said.err);
    serde_json::from_str(&said.out).unwrap()
}

// Every pod of a file, as the controllers of its workloads would make it; kubectl reads the YAML.
fn pods(cluster: &Cluster, file: &Path) -> Vec<Value> {
    let file = file.display().to_string();
    let said =
        cluster.kubectl(&["create", "--dry-run=client", "--validate=ignore", "-o", "json", "-f", &file]);
    // One file has a kind that nobody defined here; the others are read all the same.
    assert!(said.ok || said.err.contains("batch.volcano.sh"), "{}", said.err);
    let all = serde_json::Deserializer::from_str(&said.out).into_iter::<Value>().map(Result::unwrap);
    let all = all.flat_map(|object| match object["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![object],
    });
    // In that namespace nobody asks us.
    let all = all.filter(|object| object["metadata"]["namespace"] != "kube-system");
    let pod = |object: Value| {
        // The controller of a StatefulSet puts its claims before the volumes of its template.
        let claims = object["spec"]["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
        let claim = |claim: &Value| json!({"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}});
        let claims: Vec<Value> = claims.iter().map(claim).collect();
        let mut template = match object["kind"].as_str()? {
            "Pod" => object,
            "CronJob" => object["spec"]["jobTemplate"]["spec"]["template"].clone(),
            _ => object["spec"]["template"].clone(),
        };
        if !claims.is_empty() {
            let volumes = template["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            template["spec"]["volumes"] = [claims, volumes].concat().into();
        }
        let metadata = json!({
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
        });
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]});
        template["spec"].is_object().then_some(pod)
    };
    all.filter_map(pod).collect()
}

// What is compared exactly. The API server fills in defaults of its own: in the golden pod as well, since it is read by the
// same server; only in the texts that we write of the pod's probes they are taken out here (scheme, service
// and timeoutSeconds, and the hash of what was read). What it makes for each pod anew (uid, times, versions, who wrote which
// field) is left out.
fn stored(pod: &Value) -> Value {
    let mut stored = json!({
        "labels": pod["metadata"]["labels"],
        "annotations": pod["metadata"]["annotations"],
        "spec": pod["spec"],
    });
    if let Some(status) = stored["annotations"].get_mut("douane.io/status") {
        *status = without_defaults(status);
        status.as_object_mut().unwrap().remove("hash");
        // A template may have no metadata and no volumes; a pod has metadata, and a StatefulSet's has volumes.
        status["made"].as_array_mut().unwrap().retain(|made| made != "metadata" && made != "volumes");
    }
    for list in ["initContainers", "containers"] {
        for container in stored["spec"][list].as_array_mut().into_iter().flatten() {
            let all = container["env"].as_array_mut().into_iter().flatten();
            all.filter(|it| it["name"] == "DOUANE_APP_PROBES")
                .for_each(|it| it["value"] = without_defaults(&it["value"]));
        }
    }
    stored
}

fn without_defaults(text: &Value) -> Value {
    let mut read: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    take_out(&mut read);
    read
}

fn take_out(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_default = |key: &str, value: &Value| match key {
                "scheme" => value == "HTTP",
                "timeoutSeconds" => *value == 1,
                "service" => value == "",
                _ => false,
            };
            fields.retain(|key, value| !is_default(key, value));
            fields.values_mut().for_each(take_out);
        }
        Value::Array(items) => items.iter_mut().for_each(take_out),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn the_api_server_stores_what_inject_writes_and_refuses_in_our_words() {
    let (cluster, plane) = asked().await;

    pods_are_stored_as_the_golden_files_say(&cluster);
    who_did_not_opt_in_is_left_alone(&cluster);
    a_pod_that_cannot_be_meshed_is_let_in_with_a_word(&cluster);
    a_pod_that_takes_the_sidecars_uid_is_refused(&cluster);
    a_bad_policy_is_refused_with_field_and_reason(&cluster);
    the_api_server_follows_a_new_root(&cluster, &plane).await;

    plane.stop().await;
    without_us_only_who_opted_in_waits(&cluster);
}

fn pods_are_stored_as_the_golden_files_say(cluster: &Cluster) {
    let mut files: Vec<_> = fs::read_dir(GOLDEN).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !file.to_string_lossy().ends_with(".injected.yaml"));
    files.sort();
    let mut compared = 0;
    for file in files {
        let golden = pods(cluster, &file.with_extension("injected.yaml"));
        let given = pods(cluster, &file);
        assert_eq!(given.len(), golden.len(), "{}", file.display());
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        for (index, (mut given, mut golden)) in given.into_iter().zip(golden).enumerate() {
            let account = given["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
            for (pod, namespace) in [(&mut given, "meshed"), (&mut golden, "reference")] {
                pod["metadata"]["name"] = format!("{stem}-{index}").into();
                pod["metadata"]["namespace"] = namespace.into();
                cluster.apply(&format!(
                    "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}, namespace: {namespace}}}\n\
                     automountServiceAccountToken: false\n"
                ));
            }
            created(cluster, &given.to_string());
            let name = format!("pod/{stem}-{index}");
            let is = stored(&cluster.get("meshed", &name));
            let should = stored(&created(cluster, &golden.to_string()));
            assert_eq!(is, should, "{name}\nis {is:#}\nshould be {should:#}");
            compared += 1;
        }
    }
    assert!(compared >= 13, "{compared}");
    eprintln!("{compared} stored pods equal what douane inject writes");
}

fn who_did_not_opt_in_is_left_alone(cluster: &Cluster) {
    let (is, same) = (created(cluster, &pod("plain", "")), created(cluster, &pod("reference", "")));
    assert_eq!(stored(&is), stored(&same));
    assert!(is["spec"]["initContainers"].is_null() && is["metadata"]["annotations"].is_null(), "{is:#}");
    // One pod that asks by itself, where its namespace said nothing.
    let asking = pod("plain", "").replace("name: app, namespace", "name: asking, namespace");
    let asking = asking.replace("{app: app}", "{app: app, douane.io/inject: enabled}");
    let is = created(cluster, &asking);
    assert_eq!(is["spec"]["initContainers"][1]["name"], "douane-proxy", "{is:#}");
}

fn a_pod_that_cannot_be_meshed_is_let_in_with_a_word(cluster: &Cluster) {
    let said = create(cluster, &pod("meshed", "hostNetwork: true,"));
    assert!(said.ok, "{}", said.err);
    assert!(
        said.err.contains("Warning: douane: no sidecar: it shares the host's network (hostNetwork)"),
        "{}",
        said.err
    );
    assert!(cluster.get("meshed", "pod/app")["spec"]["initContainers"].is_null());
}

fn a_pod_that_takes_the_sidecars_uid_is_refused(cluster: &Cluster) {
    let said = create(cluster, &pod("meshed", "securityContext: {runAsUser: 2112},"));
    assert!(!said.ok);
    for word in ["namespace.inject.douane.io", "douane: ", "every container as uid 2112", "choose another"] {
        assert!(said.err.contains(word), "{word}: {}", said.err);
    }
}

fn a_bad_policy_is_refused_with_field_and_reason(cluster: &Cluster) {
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: orders, namespace: plain}}\n\
             spec: {spec}\n"
        )
    };
    let good = "{action: ALLOW, rules: [{to: [{operation: {paths: ['/orders']}}]}]}";
    for (bad, words) in [
        // What a definition cannot say.
        (
            "{action: ALLOW, rules: [{from: [{source: {ipBlocks: ['10.0.0.0/33']}}]}]}",
            &["ipBlocks", "10.0.0.0/33"][..],
        ),
        (
            "{action: ALLOW, rules: [{from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/b']}}]}]}",
            &["spiffe://"],
        ),
    ] {
        let said = create(cluster, &policy(bad));
        assert!(!said.ok, "{bad}");
        for word in
            [&["policies.douane.io", "douane: ", "AuthorizationPolicy plain/orders"][..], words].concat()
        {
            assert!(said.err.contains(word), "{word}: {}", said.err);
        }
    }
    assert!(cluster.get("plain", "authorizationpolicy/orders").is_null());
    created(cluster, &policy(good));
    // What is good, and cannot be meant, is taken with a word.
    let odd = policy("{action: ALLOW, rules: [{to: [{operation: {paths: ['/a/*/b']}}]}]}")
        .replace("orders,", "odd,");
    let said = create(cluster, &odd);
    assert!(said.ok && said.err.contains("Warning: AuthorizationPolicy plain/odd"), "{}", said.err);
}

fn known_roots(cluster: &Cluster) -> Vec<String> {
    let configuration = cluster.get("default", "mutatingwebhookconfiguration/douane");
    let bundle = |webhook: &Value| {
        let decoded = STANDARD.decode(webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default());
        String::from_utf8(decoded.unwrap()).unwrap()
    };
    let all: Vec<String> = configuration["webhooks"].as_array().unwrap().iter().map(bundle).collect();
    assert!(all.iter().all(|one| *one == all[0]), "all webhooks are ours");
    pem::parse_many(&all[0]).unwrap().iter().map(ToString::to_string).collect()
}

async fn the_api_server_follows_a_new_root(cluster: &Cluster, plane: &Plane) {
    let before = known_roots(cluster);
    assert_eq!(before.len(), 1);

    let Answer::Done { .. } = plane.order(Order::RotateRoot { force: false }).await else {
        panic!("refused")
    };

    // Pods are made the whole time.
    let rotating = pod("meshed", "").replace("name: app, namespace", "name: rotating, namespace");
    let still_asked = || {
        let said = cluster.kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &rotating);
        assert!(said.ok && said.out.contains("douane-proxy"), "{}", said.err);
    };
    let both = eventually("both roots are known", LIMIT, || {
        still_asked();
        let known = known_roots(cluster);
        if known.len() == 2 { Ok(known) } else { Err(format!("{} roots", known.len())) }
    });
    assert!(both.contains(&before[0]));
    for _ in 0..10 {
        still_asked();
    }
}

fn without_us_only_who_opted_in_waits(cluster: &Cluster) {
    let named =
        |namespace: &str| pod(namespace, "").replace("name: app, namespace", "name: alone, namespace");
    let said = create(cluster, &named("meshed"));
    assert!(
        !said.ok && said.err.contains("failed calling webhook \"namespace.inject.douane.io\""),
        "{}",
        said.err
    );
    created(cluster, &named("plain"));
}
