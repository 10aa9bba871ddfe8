//! What is said of policies, from what was read of them to the conditions that stand there.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use douane_proto::{resource::read_law, yaml::Node};
use serde_json::{Value, json};

use super::{
    condition::{ACCEPTED, AS_WRITTEN, GOVERNS},
    told::{FIGURES_EVERY, PutOff, Update, Written, due},
};
use crate::{
    config::Config,
    discovery::{Index, LeftOut, Note, Notes},
    policy::asked::Mesh,
};

fn noted(kind: &'static str, name: &str, spec: &Value) -> Note {
    let plural = match kind {
        "AuthorizationPolicy" => "authorizationpolicies",
        "PeerAuthentication" => "peerauthentications",
        _ => "serviceentries",
    };
    let group = if kind == "ServiceEntry" { "networking.istio.io" } else { "security.istio.io" };
    let object = json!({
        "apiVersion": format!("{group}/v1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    });
    let place = format!("{kind} shop/{name}");
    let read = read_law(&Node::from_json(&object).unwrap(), Path::new(&place));
    Note {
        kind,
        plural,
        group,
        versions: &["v1"],
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        generation: 3,
        resource_version: "7".to_owned(),
        conditions: Vec::new(),
        resource: read.resource.filter(|_| read.flaws.is_empty()),
        errors: read.flaws,
    }
}

fn policy(name: &str, spec: &Value) -> Note {
    noted("AuthorizationPolicy", name, spec)
}

fn paths(paths: &[&str]) -> Value {
    json!({"selector": {"matchLabels": {"app": "orders"}}, "rules": [{"to": [{"operation": {"paths": paths}}]}]})
}

struct Ground {
    mesh: Mesh,
    index: Index,
    written: Written,
    begun: Instant,
}

impl Ground {
    /// With so many pods `app: orders` that have a sidecar, and so many that have none.
    fn with(meshed: usize, bare: usize) -> Self {
        let config = Config::default();
        let mesh = config.mesh();
        let mesh = Mesh {
            trust_domain: mesh.trust_domain,
            aliases: mesh.trust_domain_aliases,
            normalization: mesh.path_normalization,
            law: config.law(),
        };
        Self { mesh, index: orders(meshed, bare), written: Written::default(), begun: Instant::now() }
    }

    fn due(&self, notes: &Notes, after: Duration) -> (Vec<Update>, PutOff) {
        let times = (self.begun + after, SystemTime::UNIX_EPOCH + after);
        due((notes, &self.index), &self.mesh, &self.written, times)
    }

    // As the API does: the write stands there, in a new version.
    fn write(&mut self, notes: &mut Notes, after: Duration) -> usize {
        let (updates, _) = self.due(notes, after);
        for update in &updates {
            self.written.note(update, self.begun + after);
            let note = notes.written.iter_mut().find(|note| note.name == update.note.name).unwrap();
            note.conditions.clone_from(&update.conditions);
            note.resource_version.push('+');
        }
        updates.len()
    }
}

fn orders(meshed: usize, bare: usize) -> Index {
    let pod = |at: usize| {
        let sidecar = if at < meshed { "douane.io/inject: enabled" } else { "a: b" };
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: orders-{at}, namespace: shop, labels: {{app: orders, {sidecar}}}}}\n\
             spec: {{serviceAccountName: orders, containers: [{{name: c}}]}}\nstatus: {{podIP: 10.0.0.{at}}}\n---\n"
        )
    };
    Index::of_text(
        &(1..=meshed + bare).map(|at| pod(at - 1).replace("10.0.0.0", "10.0.1.0")).collect::<String>(),
    )
}

fn notes(written: Vec<Note>) -> Notes {
    Notes { written, left_out: Vec::new() }
}

fn condition<'a>(update: &'a Update, kind: &str) -> &'a Value {
    update.conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

fn said(condition: &Value) -> (&str, &str, &str) {
    let text = |key: &str| condition[key].as_str().unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

#[test]
fn a_sound_policy_is_accepted_and_says_how_many_it_governs() {
    let ground = Ground::with(2, 1);
    let (updates, _) = ground.due(&notes(vec![policy("orders", &paths(&["/orders"]))]), Duration::ZERO);
    let [update] = updates.as_slice() else { panic!("{updates:?}") };
    assert_eq!(said(condition(update, ACCEPTED)), ("True", "InForce", "it is in force"));
    let governs = said(condition(update, GOVERNS));
    assert_eq!((governs.0, governs.1), ("True", "SomeWithoutSidecar"));
    assert!(governs.2.starts_with("3 workloads, 1 of them without a sidecar"), "{governs:?}");
    assert_eq!(said(condition(update, AS_WRITTEN)).1, "NothingFound");
    assert!(update.conditions.iter().all(|condition| condition["observedGeneration"] == 3));
    assert_eq!(update.conditions[0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
}

#[test]
fn what_a_policy_does_not_do_is_said_in_lints_own_words() {
    let ground = Ground::with(1, 0);
    let odd = policy("orders", &paths(&["/a/*/b"]));
    let spiffe =
        json!({"rules": [{"from": [{"source": {"principals": ["spiffe://cluster.local/ns/a/sa/b"]}}]}]});
    let all = notes(vec![
        odd,
        policy("all", &spiffe),
        policy("none", &json!({"selector": {"matchLabels": {"app": "x"}}})),
    ]);
    let (updates, _) = ground.due(&all, Duration::ZERO);
    assert_eq!(updates.len(), 3);
    let written: Vec<_> = updates.iter().map(|update| said(condition(update, AS_WRITTEN))).collect();
    assert_eq!((written[0].0, written[0].1), ("False", "Warnings"), "{written:?}");
    assert_eq!((written[1].0, written[1].1), ("False", "Errors"), "{written:?}");
    assert!(written[1].2.contains("spiffe://"), "{written:?}");
    assert_eq!(said(condition(&updates[2], GOVERNS)).1, "Nobody");
}

#[test]
fn what_cannot_be_read_says_why_and_what_holds_until_then() {
    let ground = Ground::with(1, 0);
    let wrong = json!({"action": "DENI"});
    let mut edited = policy("edited", &wrong);
    edited.resource = policy("edited", &json!({})).resource;
    let mtls = noted("PeerAuthentication", "open", &json!({"mtls": {"mode": "OPEN"}}));
    let (updates, _) = ground.due(&notes(vec![edited, policy("new", &wrong), mtls]), Duration::ZERO);
    let until = ["what it said before stays in force", "is denied everything", "without a certificate"];
    for (update, until) in updates.iter().zip(until) {
        let (status, reason, message) = said(condition(update, ACCEPTED));
        assert_eq!((status, reason, update.conditions.len()), ("False", "Invalid", 1), "{message}");
        assert!(message.ends_with(until), "{message}");
    }
    assert!(said(condition(&updates[0], ACCEPTED)).2.contains("DENI"));
}

#[test]
fn an_entry_that_contradicts_the_mesh_says_whom() {
    let ground = Ground::with(1, 0);
    let entry = json!({"hosts": ["orders.shop.svc.cluster.local"], "addresses": ["10.9.0.1"], "ports": [{"number": 80, "name": "http"}], "resolution": "STATIC"});
    let entry = noted("ServiceEntry", "mine", &entry);
    assert!(entry.errors.is_empty(), "{:?}", entry.errors);
    let place = entry.resource.as_ref().unwrap().location.clone();
    let left_out = vec![LeftOut { place, what: "its host belongs to the mesh already".to_owned() }];
    let (updates, _) = ground.due(&Notes { written: vec![entry], left_out }, Duration::ZERO);
    let said = said(condition(&updates[0], ACCEPTED));
    assert_eq!(said, ("False", "LeftOut", "its host belongs to the mesh already"));
}

#[test]
fn it_is_written_once_and_again_only_when_it_is_news() {
    let mut ground = Ground::with(1, 0);
    let foreign = json!({"type": "istio.io/Seen", "status": "True"});
    let mut law = policy("orders", &paths(&["/orders"]));
    law.conditions = vec![foreign.clone()];
    let mut all = notes(vec![law]);

    let (updates, _) = ground.due(&all, Duration::ZERO);
    ground.written.note(&updates[0], ground.begun);
    assert!(ground.due(&all, Duration::ZERO).0.is_empty(), "the API has not told of it yet");
    ground.written = Written::default();

    assert_eq!(ground.write(&mut all, Duration::ZERO), 1);
    assert_eq!(ground.write(&mut all, Duration::from_secs(1)), 0);
    assert_eq!(all.written[0].conditions[0], foreign, "others' conditions stay");

    // Another pod is only another figure.
    ground.index = orders(2, 0);
    assert_eq!(ground.due(&all, Duration::from_secs(1)), (Vec::new(), PutOff::Figures));
    assert_eq!(ground.write(&mut all, FIGURES_EVERY), 1);
    assert_eq!(said(&all.written[0].conditions[2]).2, "2 workloads");
    // None at all is more than that.
    ground.index = orders(0, 0);
    let soon = FIGURES_EVERY + Duration::from_secs(1);
    assert_eq!(ground.write(&mut all, soon), 1);
    let stands = &all.written[0].conditions;
    assert_eq!(
        (said(&stands[2]).0, &stands[2]["lastTransitionTime"]),
        ("False", &json!("1970-01-01T00:00:11Z"))
    );
    assert_eq!(stands[1]["lastTransitionTime"], "1970-01-01T00:00:00Z", "it was accepted all the time");

    // A new generation is answered even if nothing else changes.
    all.written[0].generation = 4;
    assert_eq!(ground.write(&mut all, soon), 1);
    // Another replica has written it.
    ground.written = Written::default();
    assert_eq!(ground.write(&mut all, soon), 0);
}

#[test]
fn a_message_of_any_length_is_taken_by_the_api() {
    let ground = Ground::with(1, 0);
    let long = vec!["/ü/*/b"; 400];
    let (updates, _) = ground.due(&notes(vec![policy("orders", &paths(&long))]), Duration::ZERO);
    let message = said(condition(&updates[0], AS_WRITTEN)).2;
    assert!(message.len() <= 2048, "{}", message.len());
}
