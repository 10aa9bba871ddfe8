//! Where destinations lead, case by case.

use std::collections::{BTreeMap, BTreeSet};

use douane_proto::id::TrustDomain;

use super::*;

const VIP: &str = "10.96.0.7:80";

fn workload(name: &str, address: &str, dialect: Dialect) -> Workload {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    Workload {
        id: WorkloadId::new(&domain, "shop", name).unwrap(),
        name: name.to_owned(),
        addresses: vec![address.parse().unwrap()],
        dialect,
        ports: Vec::new(),
        service_name: name.to_owned(),
        ready: true,
        labels: BTreeMap::new(),
        mtls: douane_proto::mtls::MtlsModes::default(),
        learned: BTreeMap::new(),
        preserve_case: BTreeSet::new(),
    }
}

fn service(workloads: impl IntoIterator<Item = Workload>) -> Found {
    Found::Service(Arc::new(Service {
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        hosts: Vec::new(),
        addresses: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![Port { number: 80, protocol: Protocol::Http1, name: "http".to_owned() }],
        endpoints: workloads
            .into_iter()
            .map(|workload| Endpoint { workload: Arc::new(workload), targets: BTreeMap::from([(80, 8080)]) })
            .collect(),
    }))
}

fn resolve_as(own: &Workload, destination: &str, found: &Found) -> Result<Route, Refusal> {
    let view = View { own, outbound: OutboundMode::RegistryOnly };
    resolve(destination.parse().unwrap(), found, view)
}

fn web() -> Workload {
    workload("web", "10.77.0.9", Dialect::Douane1)
}

fn unready(mut workload: Workload) -> Workload {
    workload.ready = false;
    workload
}

#[test]
fn a_service_leads_to_its_ready_endpoints_each_with_its_identity() {
    let found = service([
        workload("a", "10.77.0.1", Dialect::Douane1),
        unready(workload("b", "10.77.0.2", Dialect::Douane1)),
    ]);

    let route = resolve_as(&web(), VIP, &found).unwrap();

    let expected = Candidate {
        address: "10.77.0.1:8080".parse().unwrap(),
        id: workload("a", "10.77.0.1", Dialect::Douane1).id,
        place: Place::Peer,
        server_name: None,
    };
    assert_eq!(route.reach, Reach::Mesh(vec![expected]));
    assert_eq!((route.service.as_deref(), route.protocol), (Some("shop/orders"), Protocol::Http1));
}

#[test]
fn a_service_with_one_meshed_endpoint_never_falls_back_to_an_unmeshed_one() {
    let plain = workload("b", "10.77.0.2", Dialect::Plain);
    let meshed = workload("a", "10.77.0.1", Dialect::Douane1);

    let both = resolve_as(&web(), VIP, &service([meshed.clone(), plain.clone()])).unwrap();
    let unready_mesh = resolve_as(&web(), VIP, &service([unready(meshed), plain.clone()]));
    let plain_only = resolve_as(&web(), VIP, &service([plain])).unwrap();

    assert!(matches!(both.reach, Reach::Mesh(candidates) if candidates.len() == 1));
    assert!(matches!(unready_mesh, Err(Refusal::UnmeshedFallback(_))));
    assert_eq!(plain_only.reach, Reach::Plain(vec!["10.77.0.2:8080".parse().unwrap()]));
}

#[test]
fn a_service_without_ready_endpoints_or_without_the_port_is_refused() {
    let found = service([unready(workload("a", "10.77.0.1", Dialect::Douane1))]);

    assert!(matches!(resolve_as(&web(), VIP, &found), Err(Refusal::NoReadyEndpoint(_))));
    assert!(matches!(resolve_as(&web(), "10.96.0.7:81", &found), Err(Refusal::UnknownPort { .. })));
}

#[test]
fn the_own_pod_is_reached_without_a_wire() {
    let found = service([web()]);

    let route = resolve_as(&web(), VIP, &found).unwrap();

    assert!(matches!(route.reach, Reach::Mesh(candidates) if candidates[0].place == Place::Own));
}

#[test]
fn the_own_pod_is_never_reached_in_the_open_whatever_is_said_of_it() {
    let own = workload("web", "10.77.0.9", Dialect::Plain);

    let by_address = resolve_as(&own, "10.77.0.9:80", &Found::Workload(Arc::new(own.clone()))).unwrap();
    let by_service = resolve_as(&own, VIP, &service([own.clone()])).unwrap();

    for route in [by_address, by_service] {
        let Reach::Mesh(candidates) = route.reach else { panic!("{route:?}") };
        assert!(candidates.iter().all(|candidate| candidate.place == Place::Own));
    }
}

#[test]
fn a_pod_address_leads_to_that_pod_only() {
    let meshed = Found::Workload(Arc::new(workload("a", "10.77.0.1", Dialect::Douane1)));
    let plain = Found::Workload(Arc::new(workload("a", "10.77.0.1", Dialect::Plain)));

    assert!(matches!(
        resolve_as(&web(), "10.77.0.1:9", &meshed).unwrap().reach,
        Reach::Mesh(candidates) if candidates[0].address == "10.77.0.1:9".parse().unwrap()
    ));
    assert_eq!(
        resolve_as(&web(), "10.77.0.1:9", &plain).unwrap().reach,
        Reach::Plain(vec!["10.77.0.1:9".parse().unwrap()])
    );
}

#[test]
fn an_entry_opens_its_ports_only() {
    let found = Found::External(Arc::new(External {
        namespace: "shop".to_owned(),
        name: "bank".to_owned(),
        hosts: vec!["bank.example".to_owned()],
        addresses: vec!["203.0.113.9".parse().unwrap()],
        ports: vec![Port { number: 443, protocol: Protocol::Tcp, name: "tls".to_owned() }],
    }));

    let route = resolve_as(&web(), "203.0.113.9:443", &found).unwrap();

    assert_eq!(route.reach, Reach::Outside("203.0.113.9:443".parse().unwrap()));
    assert!(matches!(
        resolve_as(&web(), "203.0.113.9:80", &found),
        Err(Refusal::UnknownPort { port: 80, .. })
    ));
}

#[test]
fn an_unknown_destination_is_refused_with_the_yaml_that_would_allow_it() {
    let refusal = resolve_as(&web(), "203.0.113.9:443", &Found::Unknown).unwrap_err();

    let hint = refusal.hint().unwrap();
    for line in ["kind: ServiceEntry", "namespace: shop", "addresses: [\"203.0.113.9\"]", "number: 443"] {
        assert!(hint.contains(line), "{hint}");
    }
}

#[test]
fn unknown_destinations_pass_only_where_the_mesh_allows_any() {
    let own = web();
    let view = View { own: &own, outbound: OutboundMode::AllowAny };
    let destination = "203.0.113.9:443".parse().unwrap();

    assert_eq!(resolve(destination, &Found::Unknown, view).unwrap().reach, Reach::Outside(destination));
}

#[test]
fn what_the_endpoints_were_heard_to_speak_is_learned_where_it_is_one_thing_and_nothing_is_declared() {
    use Protocol::{Http1, Tcp, Undeclared};
    for (declared, heard, expected) in [
        (Undeclared, vec![Tcp, Undeclared], Tcp),
        (Undeclared, vec![Tcp, Http1], Undeclared),
        (Undeclared, vec![Undeclared], Undeclared),
        (Http1, vec![Tcp], Undeclared),
    ] {
        let port = Port { number: 80, protocol: declared, name: String::new() };
        let endpoint = |(index, heard): (usize, &Protocol)| {
            let mut one = workload("orders", &format!("10.77.0.{}", 20 + index), Dialect::Douane1);
            one.ports.clear();
            one.learned.insert(8080, *heard);
            Endpoint { workload: Arc::new(one), targets: [(80, 8080)].into() }
        };
        let service = Service {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
            hosts: Vec::new(),
            addresses: Vec::new(),
            ports: vec![port],
            endpoints: heard.iter().enumerate().map(endpoint).collect(),
        };

        let route = resolve_as(&web(), VIP, &Found::Service(Arc::new(service))).unwrap();

        assert_eq!((route.protocol, route.learned), (declared, expected), "{heard:?}");
    }
}
