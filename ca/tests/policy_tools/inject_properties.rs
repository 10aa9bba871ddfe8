//! What injection never does, whatever the pod: it loses nothing, changes nothing of the application, and knows its own work.

use douane_ca::inject::{Injected, Outcome, Tree, uninject, yaml};
use douane_proto::yaml::{Work, parse, split};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::inject::terms;

fn tree(value: &Value) -> Tree {
    serde_json::from_value(value.clone()).unwrap()
}

fn value(tree: &Tree) -> Value {
    serde_json::to_value(tree).unwrap()
}

fn injected(pod: &Tree) -> Injected {
    match terms().inject(pod, "shop") {
        Outcome::Injected(injected) => injected,
        other => panic!("{pod:?}: {other:?}"),
    }
}

fn handler() -> impl Strategy<Value = Value> {
    let port = prop_oneof![Just(json!(8080)), Just(json!("http"))];
    prop_oneof![
        (port.clone(), "/[a-z]{0,4}")
            .prop_map(|(port, path)| json!({"httpGet": {"port": port, "path": path}})),
        port.prop_map(|port| json!({"tcpSocket": {"port": port}})),
        Just(json!({"grpc": {"port": 9000}})),
        Just(json!({"exec": {"command": ["true"]}})),
        Just(json!({"httpGet": {"host": "10.0.0.1", "port": 1}})),
    ]
}

fn with(fields: Vec<(&'static str, Option<Value>)>) -> Value {
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn container(name: String) -> impl Strategy<Value = Value> {
    let probe = || prop::option::of(handler());
    let resources = prop::option::of(prop_oneof![
        Just(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
        Just(json!({"requests": {"cpu": 0.5}})),
    ]);
    let hook = prop::option::of(handler().prop_map(|hook| json!({"preStop": hook})));
    (probe(), probe(), probe(), hook, resources, "[a-z:1 #'\"]{1,9}").prop_map(
        move |(live, ready, start, hook, resources, text)| {
            with(vec![
                ("name", Some(json!(name))),
                ("image", Some(json!("app:1"))),
                ("args", Some(json!([text]))),
                ("env", Some(json!([{"name": "A", "value": text}]))),
                ("ports", Some(json!([{"name": "http", "containerPort": 8080}]))),
                ("livenessProbe", live),
                ("readinessProbe", ready),
                ("startupProbe", start),
                ("lifecycle", hook),
                ("resources", resources),
            ])
        },
    )
}

fn containers(prefix: &'static str, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Value>> {
    count.prop_flat_map(move |count| {
        (0..count).map(|at| container(format!("{prefix}-{at}"))).collect::<Vec<_>>()
    })
}

prop_compose! {
    fn pods()(
        apps in containers("app", 1..4),
        first in prop::option::of(containers("init", 0..3)),
        volumes in prop::option::of(Just(json!([{"name": "v", "emptyDir": {}}]))),
        labels in prop::option::of(Just(json!({"app": "x"}))),
        annotations in prop::option::of(prop_oneof![
            Just(json!({})),
            Just(json!({"douane.io/native-sidecar": "false"})),
            Just(json!({"kubectl.kubernetes.io/default-container": "app-0", "douane.io/rewrite-probes": "false"})),
        ]),
        has_metadata in any::<bool>(),
        unknown in prop::option::of(Just(json!({"new": [1, -2, 1.5, true, "no"]}))),
    ) -> Value {
        let metadata = with(vec![("name", Some(json!("p"))), ("labels", labels), ("annotations", annotations)]);
        let spec = with(vec![
            ("containers", Some(apps.into())),
            ("initContainers", first.map(Value::from)),
            ("volumes", volumes),
            ("unknown", unknown),
        ]);
        with(vec![("metadata", has_metadata.then_some(metadata)), ("spec", Some(spec))])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_put_in_can_be_taken_out(pod in pods()) {
        let pod = tree(&pod);
        let injected = injected(&pod).pod;

        prop_assert_eq!(uninject(&injected).unwrap(), Some(pod.clone()));
        prop_assert_eq!(uninject(&pod).unwrap(), None);
    }

    #[test]
    fn twice_is_once_and_always_the_same(pod in pods()) {
        let pod = tree(&pod);
        let once = injected(&pod).pod;

        prop_assert_eq!(&injected(&once).pod, &once);
        prop_assert_eq!(&injected(&pod).pod, &once);
    }

    #[test]
    fn nothing_of_the_application_changes_but_what_the_kubelet_asks(pod in pods()) {
        let after = value(&injected(&tree(&pod)).pod);

        for list in ["containers", "initContainers"] {
            for before in pod["spec"][list].as_array().into_iter().flatten() {
                let all = after["spec"][list].as_array().unwrap();
                let now = all.iter().find(|it| it["name"] == before["name"]).unwrap();
                for (field, value) in before.as_object().unwrap() {
                    if !["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"].contains(&field.as_str()) {
                        prop_assert_eq!(value, &now[field]);
                    }
                }
                prop_assert_eq!(now.as_object().unwrap().len(), before.as_object().unwrap().len());
            }
        }
        prop_assert_eq!(&after["spec"]["unknown"], &pod["spec"]["unknown"]);
    }

    #[test]
    fn what_is_written_is_read_as_what_it_was(pod in pods(), texts in prop::collection::vec(any::<String>(), 0..6)) {
        // A text that YAML cannot hold at all: a lone surrogate is none of Rust's, and NUL is escaped.
        let mut tree = tree(&pod);
        let Tree::Map(map) = &mut tree else { unreachable!() };
        map.put("texts", Tree::texts(texts));
        let written = yaml(&tree);

        let node = parse(split(&written)[0], &mut Work::new().as_kubernetes()).unwrap();

        prop_assert_eq!(Tree::read(&node).unwrap(), tree, "{}", written);
    }

    #[test]
    fn hard_words_survive_writing(word in "(yes|No|on|~|null|0644|1:30|1_000|0x1f|1e3|\\.5|-|- a|a: b|a #b|#|\\[|\\{|&a|\\*a|!a|%|@|`|'|\"|\\||>|\\?|:|=|<<|2026-11-23|\n|a\nb|a\n\n|\ta|a\t\nb| a|a |10m|5Mi|\u{85}|\u{2028}|\u{feff}|\u{7f}|\u{1F600}){1,3}") {
        let tree = Tree::map([("list", Tree::texts([word.as_str()])), ("key", Tree::from(word.as_str()))]);
        let written = yaml(&tree);

        let node = parse(split(&written)[0], &mut Work::new().as_kubernetes()).unwrap();

        prop_assert_eq!(Tree::read(&node).unwrap(), tree, "{}", written);
    }
}
