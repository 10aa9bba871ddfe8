//! The law of redirection: whole plans against golden text, and what no plan may do.

use super::*;

fn usual(spare: Spare) -> Redirection {
    Redirection {
        spare,
        excluded_inbound_ports: Vec::new(),
        excluded_outbound_ports: Vec::new(),
        excluded_outbound_cidrs: Vec::new(),
        datagrams: Datagrams::Deny { dns_resolvers: Vec::new(), udp_ports: Vec::new() },
    }
}

#[test]
fn the_usual_plan_of_a_cluster() {
    let plan = Plan::new(&usual(Spare::Uid(PROXY_UID)));

    assert_eq!(plan.to_string(), include_str!("usual.nft"));
}

#[test]
fn a_plan_with_every_exception() {
    let plan = Plan::new(&Redirection {
        spare: Spare::Mark(0x0d0a),
        excluded_inbound_ports: vec![22, 9999],
        excluded_outbound_ports: vec![443],
        excluded_outbound_cidrs: vec!["10.9.8.7/16".parse().unwrap(), "fd99::/64".parse().unwrap()],
        datagrams: Datagrams::Deny {
            dns_resolvers: vec!["10.96.0.10".parse().unwrap(), "::ffff:10.96.0.11".parse().unwrap()],
            udp_ports: vec![5000],
        },
    });

    assert_eq!(plan.to_string(), include_str!("exceptions.nft"));
}

#[test]
fn allowed_datagrams_meet_no_rule_at_all() {
    let plan = Plan::new(&Redirection { datagrams: Datagrams::Allow, ..usual(Spare::Uid(PROXY_UID)) });

    let rules = plan.chains.iter().flat_map(|chain| &chain.rules);
    let mut protocols = rules.flat_map(|rule| &rule.matches).filter_map(|condition| match condition {
        Match::Protocol(protocol) => Some(*protocol),
        _ => None,
    });
    assert!(protocols.all(|protocol| protocol == Protocol::Tcp));
}

#[test]
fn every_drop_is_counted_under_a_name_of_its_own() {
    let plan = Plan::new(&usual(Spare::Uid(PROXY_UID)));

    let rules = plan.chains.iter().flat_map(|chain| &chain.rules);
    let mut labels: Vec<_> =
        rules.filter(|rule| rule.verdict == Verdict::Drop).map(|rule| rule.counted.unwrap()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), 10);
}

#[test]
fn the_sidecars_uid_is_spared_unless_told_otherwise() {
    assert_eq!(Spare::chosen(None, None), Ok(Spare::Uid(2112)));
    assert_eq!(Spare::chosen(Some(1337), None), Ok(Spare::Uid(1337)));
    assert_eq!(Spare::chosen(None, Some(7)), Ok(Spare::Mark(7)));
}

#[test]
fn sparing_a_uid_and_a_mark_is_refused() {
    assert_eq!(Spare::chosen(Some(2112), Some(7)), Err(SpareError::Both));
}

#[test]
fn sparing_what_every_application_has_is_refused() {
    assert_eq!(Spare::chosen(Some(0), None), Err(SpareError::Root));
    assert_eq!(Spare::chosen(None, Some(0)), Err(SpareError::NoMark));
}
