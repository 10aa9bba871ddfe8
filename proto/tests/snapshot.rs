//! Deltas follow each other, or a full set is asked for; nothing of a refused delta is taken over.

use std::net::IpAddr;

use douane_proto::{
    facts::Facts,
    mesh::{Dialect, MeshError},
    policy::{Answers, Decision, decide},
    snapshot::{ApplyError, Found, OutboundMode, Question, Snapshot},
    target::PathNormalization,
    wire,
};

fn own() -> wire::Workload {
    wire::Workload {
        namespace: "shop".to_owned(),
        name: "orders-1".to_owned(),
        service_account: "orders".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        addresses: vec![vec![10, 77, 0, 9]],
        dialect: wire::Dialect::Douane1.into(),
        ready: true,
        ..Default::default()
    }
}

fn settings() -> wire::MeshSettings {
    wire::MeshSettings {
        trust_domain: "cluster.local".to_owned(),
        root_namespace: "istio-system".to_owned(),
        ..Default::default()
    }
}

fn full(epoch: u64, sequence: u64) -> wire::Delta {
    wire::Delta {
        epoch,
        sequence,
        full: true,
        mesh: Some(settings()),
        own: Some(own()),
        policies: Some(wire::PolicySet::default()),
        ..Default::default()
    }
}

fn next(epoch: u64, sequence: u64) -> wire::Delta {
    wire::Delta { epoch, sequence, ..Default::default() }
}

fn answer(last: u8, found: wire::answer::Found) -> wire::Answer {
    let by = wire::question::By::Address(vec![10, 77, 0, last]);
    wire::Answer { question: Some(wire::Question { by: Some(by) }), found: Some(found) }
}

fn unknown(last: u8) -> wire::Answer {
    answer(last, wire::answer::Found::Unknown(wire::Unknown {}))
}

fn asked(last: u8) -> Question {
    Question::Address(IpAddr::from([10, 77, 0, last]))
}

fn deny_all() -> wire::PolicySet {
    let policy = wire::Policy { namespace: "shop".to_owned(), name: "none".to_owned(), ..Default::default() };
    wire::PolicySet { policies: vec![policy], ..Default::default() }
}

fn passes(snapshot: &Snapshot) -> bool {
    let facts = Facts {
        peer: None,
        source: IpAddr::from([10, 77, 0, 5]),
        remote: IpAddr::from([10, 77, 0, 5]),
        destination: ([10, 77, 0, 9], 8080).into(),
        sni: None,
        request: None,
    };
    matches!(decide(&snapshot.policies, &facts, &Answers::default()), Decision::Allow(_))
}

#[test]
fn the_first_delta_must_be_full() {
    assert!(matches!(Snapshot::apply(None, next(1, 1)), Err(ApplyError::Gap { epoch: 1, sequence: 1 })));
    let snapshot = Snapshot::apply(None, full(1, 7)).unwrap();
    assert_eq!((snapshot.epoch, snapshot.sequence), (1, 7));
    assert_eq!(snapshot.own.key(), "shop/orders-1");
    assert_eq!(snapshot.mesh.outbound, OutboundMode::RegistryOnly);
    assert_eq!(snapshot.mesh.path_normalization, PathNormalization::Base);
}

#[test]
fn a_full_delta_without_a_part_is_refused() {
    for delta in [
        wire::Delta { mesh: None, ..full(1, 1) },
        wire::Delta { own: None, ..full(1, 1) },
        wire::Delta { policies: None, ..full(1, 1) },
    ] {
        assert!(matches!(Snapshot::apply(None, delta), Err(ApplyError::Missing(_))));
    }
}

#[test]
fn only_the_next_sequence_of_the_same_epoch_follows() {
    let held = Snapshot::apply(None, full(1, 7)).unwrap();

    assert_eq!(Snapshot::apply(Some(&held), next(1, 8)).unwrap().sequence, 8);
    for (epoch, sequence) in [(1, 7), (1, 6), (1, 9), (2, 8), (0, 8)] {
        let refused = Snapshot::apply(Some(&held), next(epoch, sequence));
        assert!(matches!(refused, Err(ApplyError::Gap { .. })), "({epoch}, {sequence})");
    }
    let last = Snapshot::apply(None, full(1, u64::MAX)).unwrap();
    assert!(Snapshot::apply(Some(&last), next(1, 0)).is_err());
}

#[test]
fn a_delta_changes_what_it_names_and_nothing_else() {
    let first = wire::Delta { answers: vec![unknown(1), unknown(2)], ..full(1, 1) };
    let held = Snapshot::apply(None, first).unwrap();
    let found = wire::answer::Found::Workload(own());

    let delta = wire::Delta { policies: Some(deny_all()), answers: vec![answer(2, found)], ..next(1, 2) };
    let after = Snapshot::apply(Some(&held), delta).unwrap();

    assert!(passes(&held) && !passes(&after));
    assert_eq!(after.answers[&asked(1)], Found::Unknown);
    assert!(matches!(&after.answers[&asked(2)], Found::Workload(workload) if workload.name == "orders-1"));
    assert_eq!(after.own, held.own);
    assert_eq!(held.answers[&asked(2)], Found::Unknown, "the old value stays as it was");
}

#[test]
fn a_full_delta_forgets_what_was_held() {
    let held = Snapshot::apply(None, wire::Delta { answers: vec![unknown(1)], ..full(1, 1) }).unwrap();

    let after = Snapshot::apply(Some(&held), full(2, 1)).unwrap();

    assert!(after.answers.is_empty());
    assert_eq!(after.epoch, 2);
}

#[test]
fn what_makes_no_sense_is_refused_whole() {
    let held = Snapshot::apply(None, full(1, 1)).unwrap();
    let bad_address =
        wire::answer::Found::Workload(wire::Workload { addresses: vec![vec![1, 2, 3]], ..own() });
    let bad_id = wire::answer::Found::Workload(wire::Workload { service_account: String::new(), ..own() });
    let endpoint = wire::Endpoint { workload: None, ..Default::default() };
    let bad_service =
        wire::answer::Found::Service(wire::Service { endpoints: vec![endpoint], ..Default::default() });
    let bad_port = wire::answer::Found::External(wire::External {
        ports: vec![wire::Port { number: 70_000, ..Default::default() }],
        ..Default::default()
    });
    for found in [bad_address, bad_id, bad_service, bad_port] {
        let delta = wire::Delta { answers: vec![unknown(1), answer(2, found)], ..next(1, 2) };
        assert!(matches!(Snapshot::apply(Some(&held), delta), Err(ApplyError::Mesh(_))));
    }
    let nothing = wire::Answer { question: None, found: None };
    let delta = wire::Delta { answers: vec![nothing], ..next(1, 2) };
    assert!(matches!(Snapshot::apply(Some(&held), delta), Err(ApplyError::Missing(_))));
    assert!(held.answers.is_empty());
}

#[test]
fn a_workload_of_an_unknown_dialect_is_none_without_a_sidecar() {
    let held = Snapshot::apply(None, full(1, 1)).unwrap();
    for (told, understood) in [(2, Dialect::Istio), (9, Dialect::Douane1)] {
        let found = wire::answer::Found::Workload(wire::Workload { dialect: told, ..own() });
        let after =
            Snapshot::apply(Some(&held), wire::Delta { answers: vec![answer(2, found)], ..next(1, 2) });
        let Found::Workload(workload) = &after.unwrap().answers[&asked(2)] else { panic!("it is known") };
        assert_eq!(workload.dialect, understood);
    }
}

#[test]
fn of_unknown_settings_the_narrow_one_holds_or_none() {
    let narrow = wire::MeshSettings { outbound: 9, ..settings() };
    let snapshot = Snapshot::apply(None, wire::Delta { mesh: Some(narrow), ..full(1, 1) }).unwrap();
    assert_eq!(snapshot.mesh.outbound, OutboundMode::RegistryOnly);

    let unreadable = wire::MeshSettings { path_normalization: 9, ..settings() };
    let refused = Snapshot::apply(None, wire::Delta { mesh: Some(unreadable), ..full(1, 1) });
    assert!(matches!(refused, Err(ApplyError::Mesh(MeshError::Unknown { .. }))));

    let foreign = wire::MeshSettings { trust_domain: "Not One".to_owned(), ..settings() };
    let refused = Snapshot::apply(None, wire::Delta { mesh: Some(foreign), ..full(1, 1) });
    assert!(matches!(refused, Err(ApplyError::Settings(_))));
}

#[test]
fn questions_and_answers_survive_the_wire() {
    let v6: IpAddr = "fd77::9".parse().unwrap();
    for question in [asked(3), Question::Address(v6), Question::Host("orders.shop".to_owned())] {
        assert_eq!(Question::try_from(wire::Question::from(&question)), Ok(question));
    }
    let mapped = Question::Address("::ffff:10.77.0.3".parse().unwrap());
    assert_eq!(Question::try_from(wire::Question::from(&mapped)), Ok(asked(3)), "one address has one form");
    assert!(Question::try_from(wire::Question { by: None }).is_err());

    let held = Snapshot::apply(None, full(1, 1)).unwrap();
    let found = Found::Workload(held.own.clone());
    let sent = answer(2, (&found).into());
    let after = Snapshot::apply(Some(&held), wire::Delta { answers: vec![sent], ..next(1, 2) }).unwrap();
    assert_eq!(after.answers[&asked(2)], found);
}
