//! What watches say becomes a mesh: who is in it, what is denied in doubt, what changes nothing.

use std::collections::VecDeque;

use douane_proto::{
    mesh::{Dialect, Workload},
    snapshot::{Found, Question},
};
use serde_json::{Value, json};

use super::{
    document::Document,
    kinds::{KINDS, Role, Watched},
    store::{Said, Store},
};
use crate::{
    config::Config,
    discovery::{
        assemble::{Assembled, assemble},
        folder::Scan,
        index::Law,
        learned::Known,
        settings::{Marked, Settings},
    },
};

struct Api {
    store: Store,
}

impl Api {
    /// An API that has listed these objects, and nothing else.
    fn with(objects: &[Value]) -> Self {
        let mut api = Self { store: Store::new() };
        for (index, watched) in KINDS.iter().enumerate() {
            let own = objects.iter().filter(|object| object["kind"] == watched.kind);
            let documents = own.map(|object| document(watched, object)).collect();
            api.hear(index, [Said::Begun, Said::Listed(documents), Said::Whole]);
        }
        api
    }

    fn hear(&mut self, kind: usize, said: impl IntoIterator<Item = Said>) -> Scan {
        self.store.hear(said.into_iter().map(|said| (kind, said)).collect::<VecDeque<_>>())
    }

    fn apply(&mut self, object: &Value) -> Scan {
        let (index, watched) = kind(object);
        self.hear(index, [Said::Applied(document(watched, object))])
    }

    fn delete(&mut self, object: &Value) -> Scan {
        let (index, watched) = kind(object);
        self.hear(index, [Said::Deleted(document(watched, object).key)])
    }

    fn errors(&self) -> Vec<String> {
        self.store.loaded().errors
    }

    fn troubles(&self) -> Vec<String> {
        self.store.loaded().troubles
    }

    fn mesh(&self) -> Assembled {
        let config = Config::default();
        let settings = Settings {
            mesh: config.mesh(),
            law: config.law(),
            cluster_domain: config.cluster_domain,
            marked: Marked::ByContainer,
        };
        let loaded = self.store.loaded();
        assemble(&loaded.resources, &loaded.doubts, &Known::default(), &settings)
    }

    fn at(&self, address: &str) -> Found {
        self.mesh().index.answer(&Question::Address(address.parse().unwrap()), "shop")
    }

    fn workload(&self, address: &str) -> Workload {
        match self.at(address) {
            Found::Workload(found) => Workload::clone(&found),
            other => panic!("{address}: {other:?}"),
        }
    }

    /// The policies that govern a pod, by `namespace/name`.
    fn governing(&self, pod: &str) -> Vec<String> {
        let mesh = self.mesh();
        let set = &mesh.index.workloads[pod].policies.policies;
        set.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect()
    }
}

fn kind(object: &Value) -> (usize, &'static Watched) {
    KINDS.iter().enumerate().find(|(_, watched)| object["kind"] == watched.kind).unwrap()
}

fn document(watched: &Watched, object: &Value) -> Document {
    Document::new(watched, serde_json::from_value(object.clone()).unwrap()).unwrap()
}

/// A pod that runs and is ready, changed by `change`.
fn pod(name: &str, address: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "uid": "u", "resourceVersion": "7",
            "labels": {"app": name}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {
            "serviceAccountName": name,
            "initContainers": [{"name": "douane-proxy", "image": "x", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "x", "ports": [{"name": "http", "containerPort": 8080}],
                            "env": [{"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    });
    change(&mut pod);
    pod
}

fn policy(name: &str, spec: impl Into<Value>) -> Value {
    let metadata = json!({"name": name, "namespace": "shop", "generation": 1});
    Value::from_iter([("kind", "AuthorizationPolicy".into()), ("metadata", metadata), ("spec", spec.into())])
}

fn plain(pod: &mut Value) {
    pod["spec"].as_object_mut().unwrap().remove("initContainers");
}

#[test]
fn the_container_says_whether_a_pod_has_a_sidecar_and_no_label() {
    let labelled = pod("asks", "10.0.0.1", |pod| {
        plain(pod);
        pod["metadata"]["labels"]["douane.io/inject"] = "enabled".into();
    });
    let classic = pod("classic", "10.0.0.2", |pod| {
        plain(pod);
        pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "douane-proxy"}));
    });
    let istio = pod("istio", "10.0.0.3", |pod| {
        plain(pod);
        pod["metadata"]["labels"]["security.istio.io/tlsMode"] = "istio".into();
    });
    let api = Api::with(&[labelled, classic, istio, pod("native", "10.0.0.4", |_| {})]);
    let found = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|ip| api.workload(ip).dialect);
    assert_eq!(found, [Dialect::Plain, Dialect::Douane1, Dialect::Istio, Dialect::Douane1]);
    assert!(api.errors().is_empty() && api.troubles().is_empty(), "{:?}", api.errors());
}

#[test]
fn a_pod_takes_new_traffic_while_kubernetes_says_that_it_is_ready_and_not_about_to_end() {
    let api = Api::with(&[
        pod("ready", "10.0.0.1", |_| {}),
        pod("new", "10.0.0.2", |pod| pod["status"]["conditions"] = json!([])),
        pod("sick", "10.0.0.3", |pod| pod["status"]["conditions"][0]["status"] = "False".into()),
        pod("ending", "10.0.0.4", |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into()),
    ]);
    let ready = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|ip| api.workload(ip).ready);
    assert_eq!(ready, [true, false, false, false]);
}

#[test]
fn a_pod_without_an_address_or_one_that_ended_is_nowhere_and_each_family_leads_to_it() {
    let api = Api::with(&[
        pod("done", "10.0.0.1", |pod| pod["status"]["phase"] = "Succeeded".into()),
        pod("broken", "10.0.0.2", |pod| pod["status"]["phase"] = "Failed".into()),
        pod("early", "10.0.0.3", |pod| pod["status"] = json!({"phase": "Pending"})),
        pod("both", "10.0.0.4", |pod| {
            pod["status"]["podIPs"] = json!([{"ip": "10.0.0.4"}, {"ip": "fd00::4"}]);
        }),
    ]);
    for nowhere in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        assert_eq!(api.at(nowhere), Found::Unknown);
    }
    assert_eq!((api.workload("10.0.0.4").name, api.workload("fd00::4").name), ("both".into(), "both".into()));
}

#[test]
fn who_came_later_has_an_address_that_several_pods_claim_and_who_is_about_to_end_has_none() {
    let address = "10.0.0.1";
    let old = pod("old", address, |_| {});
    let ending =
        pod("zz-ending", address, |pod| pod["metadata"]["deletionTimestamp"] = "2026-03-01T00:00:00Z".into());
    let new = pod("new", address, |pod| pod["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z".into());
    let done = pod("aa-done", address, |pod| pod["status"]["phase"] = "Succeeded".into());
    let mut api = Api::with(&[old, ending, new.clone(), done]);
    assert_eq!(api.workload(address).name, "new");
    assert!(api.mesh().errors().is_empty(), "{:?}", api.mesh().errors());
    api.delete(&new);
    assert_eq!(api.workload(address).name, "old");
}

#[test]
fn pods_of_a_nodes_own_network_share_its_address_and_have_no_sidecar() {
    let on_node = |name: &str| pod(name, "192.168.0.1", |pod| pod["spec"]["hostNetwork"] = true.into());
    let service = json!({"kind": "Service", "metadata": {"name": "second", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "second"}, "ports": [{"port": 80, "targetPort": 9100}]}});
    let api = Api::with(&[on_node("first"), on_node("second"), service]);
    assert_eq!(api.workload("192.168.0.1").dialect, Dialect::Plain);
    let Found::Service(found) = api.at("10.96.0.9") else { panic!("a service") };
    let endpoint = &found.endpoints[0];
    assert_eq!((endpoint.workload.name.as_str(), endpoint.workload.addresses.len()), ("second", 1));
    assert!(api.mesh().errors().is_empty(), "{:?}", api.mesh().errors());
}

#[test]
fn what_was_good_last_stays_while_an_edit_cannot_be_read() {
    let good = policy("orders", json!({"selector": {"matchLabels": {"app": "orders"}}}));
    let mut api =
        Api::with(&[pod("orders", "10.0.0.1", |_| {}), pod("web", "10.0.0.2", |_| {}), good.clone()]);
    assert_eq!(api.governing("shop/orders"), ["shop/orders"]);

    let broken = policy("orders", json!({"selector": {"matchLabels": {"app": "web"}}, "actoin": "DENY"}));
    assert_eq!(api.apply(&broken), Scan::Changed);
    assert_eq!(
        (api.governing("shop/orders"), api.governing("shop/web")),
        (vec!["shop/orders".into()], vec![])
    );
    let errors = api.errors();
    assert!(errors[0].starts_with("AuthorizationPolicy shop/orders: "), "{errors:?}");
    assert!(errors[0].contains("actoin") && !errors[0].contains(":0"), "{errors:?}");
    assert_eq!(api.apply(&broken), Scan::Same, "said once");

    assert_eq!(api.apply(&good), Scan::Changed);
    assert!(api.errors().is_empty());
    api.delete(&good);
    assert!(api.governing("shop/orders").is_empty());
}

#[test]
fn a_new_law_that_cannot_be_read_denies_what_it_names_and_nothing_else() {
    let mut api = Api::with(&[pod("orders", "10.0.0.1", |_| {}), pod("web", "10.0.0.2", |_| {})]);
    let broken = policy("typo", json!({"selector": {"matchLabels": {"app": "orders"}}, "action": "DENI"}));
    api.apply(&broken);
    let mesh = api.mesh();
    let policies = &mesh.index.workloads["shop/orders"].policies.policies;
    assert_eq!(policies.len(), 1, "{policies:?}");
    assert_eq!(policies[0].action(), douane_proto::wire::Action::Deny);
    assert!(api.governing("shop/web").is_empty());
    assert_eq!(mesh.index.law, Law::Known);

    // What is larger than anything that is read denies its whole namespace.
    let huge = policy("huge", json!({"rules": vec![json!({}); 250_000]}));
    api.apply(&huge);
    assert_eq!(api.governing("shop/web"), ["shop/huge"]);
    assert!(api.errors().iter().any(|error| error.contains("too large")), "{:?}", api.errors());
    // A pod that cannot be read is no law: it is nobody.
    api.apply(&pod("odd", "10.0.0.9", |pod| pod["spec"]["containers"] = json!("none")));
    assert_eq!((api.at("10.0.0.9"), api.mesh().index.law), (Found::Unknown, Law::Known));
}

#[test]
fn nothing_is_served_before_every_kind_was_listed_whole() {
    let mut api = Api { store: Store::new() };
    for (index, watched) in KINDS.iter().enumerate() {
        assert_eq!(api.mesh().index.law, Law::Unknown, "{}", watched.kind);
        api.hear(index, [Said::Begun, Said::Listed(Vec::new())]);
        assert!(
            api.troubles().iter().any(|trouble| trouble.contains(watched.plural)),
            "{:?}",
            api.troubles()
        );
        let end = if watched.may_be_absent() { Said::Absent } else { Said::Whole };
        api.hear(index, [end]);
    }
    assert_eq!(api.mesh().index.law, Law::Known);
    assert!(api.troubles().is_empty(), "{:?}", api.troubles());
}

#[test]
fn a_broken_watch_changes_nothing_and_a_list_counts_only_when_it_is_whole() {
    let (first, second) = (pod("one", "10.0.0.1", |_| {}), pod("two", "10.0.0.2", |_| {}));
    let mut api = Api::with(&[first.clone(), second.clone()]);
    let (pods, watched) = kind(&first);
    assert_eq!(api.hear(pods, [Said::Broken("connection refused".into())]), Scan::Changed);
    assert_eq!(api.hear(pods, [Said::Broken("connection refused".into())]), Scan::Same, "said once");
    assert_eq!(api.troubles(), ["pods cannot be watched: connection refused"]);
    assert_eq!(api.workload("10.0.0.1").name, "one");

    // It breaks again in the middle of the next list.
    let half = [Said::Begun, Said::Listed(vec![document(watched, &second)]), Said::Broken("reset".into())];
    api.hear(pods, half);
    assert_eq!(api.workload("10.0.0.1").name, "one");
    let whole = [Said::Begun, Said::Listed(vec![document(watched, &second)]), Said::Whole];
    assert_eq!(api.hear(pods, whole), Scan::Changed);
    assert_eq!((api.at("10.0.0.1"), api.workload("10.0.0.2").name), (Found::Unknown, "two".to_owned()));
    assert!(api.troubles().is_empty());
}

#[test]
fn what_kubernetes_notes_about_an_object_is_no_change_of_the_mesh() {
    let law = policy("orders", json!({}));
    let one = pod("one", "10.0.0.1", |_| {});
    let mut api = Api::with(&[law.clone(), one]);
    let mut noted = law;
    noted["metadata"]["resourceVersion"] = "8".into();
    noted["status"] = json!({"conditions": [{"type": "douane.io/Accepted", "status": "True"}]});
    assert_eq!(api.apply(&noted), Scan::Noted);
    let beaten = pod("one", "10.0.0.1", |pod| {
        pod["metadata"]["resourceVersion"] = "9".into();
        pod["metadata"]["annotations"]["example.com/seen"] = "now".into();
        pod["status"]["containerStatuses"] = json!([{"name": "app", "restartCount": 3}]);
    });
    assert_eq!(api.apply(&beaten), Scan::Same);
}

#[test]
fn more_laws_than_there_is_room_for_are_not_left_out_in_silence() {
    let laws: Vec<_> = (0..=10_000).map(|at| policy(&format!("law-{at}"), json!({}))).collect();
    let api = Api::with(&laws);
    assert_eq!(api.mesh().index.law, Law::Unknown);
    assert!(api.troubles()[0].contains("more than 10000"), "{:?}", api.troubles());
}

#[test]
fn every_kind_that_is_read_from_files_is_watched() {
    let laws = KINDS.iter().filter(|watched| watched.role == Role::Law).count();
    assert_eq!((KINDS.len(), laws), (10, 3));
    for watched in KINDS {
        for version in watched.versions {
            assert_eq!(watched.resource(version).plural, watched.plural);
        }
    }
}
