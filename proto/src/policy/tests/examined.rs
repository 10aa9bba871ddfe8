//! What tools are told of each rule, and which rules do not do what they say on a port.

use super::*;
use crate::mesh::Protocol;

fn gets() -> wire::Rule {
    to(wire::Operation { methods: list(&["GET"]), ..Default::default() })
}

#[test]
fn each_rule_says_by_what_it_holds_or_at_which_field_it_fails() {
    let both = wire::Rule { from: when_shop().from, ..gets() };
    let policies = vec![
        deny(vec![to(wire::Operation { paths: list(&["/admin"]), ..Default::default() })]),
        allow(vec![both]),
        written(wire::Action::Allow, "none", vec![]),
        wire::Policy { dry_run: true, ..written(wire::Action::Deny, "dry", vec![wire::Rule::default()]) },
    ];
    let found = examine(&valid(policies), &request("GET", "/"));

    let told: Vec<_> = found.iter().map(|one| (&*one.policy, one.rule, &one.finding)).collect();
    let holds = |words: &[&str]| Finding::Holds(list(words));
    assert_eq!(
        told,
        [
            ("shop/deny", Some(1), &Finding::Fails("path / is not in [/admin]".to_owned())),
            ("shop/allow", Some(1), &holds(&["namespace shop is in [shop]", "method GET is in [GET]"])),
            ("shop/none", None, &Finding::Void("it has no rules".to_owned())),
            ("shop/dry", Some(1), &holds(&[])),
        ]
    );
    assert!(found[3].dry_run && !found[0].dry_run);
    assert!(found.iter().all(|one| one.widened.is_none()));
}

fn when_shop() -> wire::Rule {
    from(wire::Source { namespaces: list(&["shop"]), ..Default::default() })
}

#[test]
fn a_rule_in_doubt_says_why() {
    let broken = when("source.ip", &["x"], &[]);
    let found = examine(&received(vec![deny(vec![broken.clone()]), allow(vec![broken])]), &stream());
    assert_eq!(found[0].finding, Finding::Holds(vec![]));
    assert!(found[0].widened.as_ref().unwrap().contains("values[0]"));
    assert!(matches!(&found[1].finding, Finding::Void(why) if why.contains("values[0]")), "{found:?}");
}

#[test]
fn where_opaque_streams_may_come_rules_on_http_are_void_or_wider() {
    let elsewhere = to(wire::Operation { ports: list(&["9"]), paths: list(&["/a"]), ..Default::default() });
    let policies = valid(vec![allow(vec![gets(), elsewhere, when_shop()]), deny(vec![gets()])]);
    let told = |port, protocol| {
        let found = doubtful(&policies, port, protocol);
        found.into_iter().map(|one| (one.policy.to_string(), one.rule, one.standing)).collect::<Vec<_>>()
    };
    let allow_void = ("shop/allow".to_owned(), 1, DoubtfulStanding::Void);
    let deny_wide = ("shop/deny".to_owned(), 1, DoubtfulStanding::Widened);
    assert_eq!(told(8080, Protocol::Tcp), [deny_wide.clone(), allow_void.clone()]);
    assert_eq!(told(8080, Protocol::Undeclared), [deny_wide, allow_void]);
    assert_eq!(told(9, Protocol::Tcp).len(), 3);
    assert_eq!(told(8080, Protocol::Http1), []);
    assert_eq!(told(8080, Protocol::Grpc), []);
}
