//! Who stands behind a service that selects no pods itself: the addresses of its slices, such as the API server's. One that
//! a pod has leads to that pod; any other is somebody without a sidecar.
//!
//! Pure. Slices of services that select pods say nothing that the pods do not say, and are not looked at.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use douane_proto::{
    id::WorkloadId,
    mesh::{Dialect, Endpoint, Port, Service, Workload},
    mtls::MtlsModes,
    policy::Trust,
    resource::{EndpointSlice, Kind, Resource, SliceEndpoint, Transport},
};

use crate::discovery::written::Built;

/// To which service a slice belongs.
const OF_SERVICE: &str = "kubernetes.io/service-name";

/// All slices.
pub(super) struct Slices<'a> {
    /// By namespace and service.
    by_service: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    /// Who has an address of its own.
    residents: HashMap<IpAddr, &'a Arc<Workload>>,
}

impl<'a> Slices<'a> {
    pub(super) fn new(objects: &[&'a Resource], workloads: &'a [Built<'_>]) -> Self {
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for resource in objects {
            let Kind::EndpointSlice(slice) = &resource.kind else { continue };
            let Some(service) = resource.metadata.labels.get(OF_SERVICE) else { continue };
            let key = (resource.metadata.namespace.as_str(), service.as_str());
            by_service.entry(key).or_default().push(slice);
        }
        let own = workloads.iter().filter(|built| !built.written.shares_its_node());
        let own =
            own.flat_map(|built| built.workload.addresses.iter().map(|address| (*address, &built.workload)));
        Self { by_service, residents: own.collect() }
    }

    /// Who takes what is sent to the service: who is ready, or else who is about to end and still answers.
    pub(super) fn behind(&self, service: &Service, trust: Trust<'_>) -> Vec<Endpoint> {
        let slices = self.by_service.get(&(service.namespace.as_str(), service.name.as_str()));
        let taking = |takes: fn(&SliceEndpoint) -> bool| -> Vec<Endpoint> {
            let slices = slices.into_iter().flatten();
            let all = slices.flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (slice, endpoint)));
            let all = all.filter(|(_, endpoint)| takes(endpoint));
            let mut behind: BTreeMap<IpAddr, Endpoint> = BTreeMap::new();
            for (slice, endpoint) in all {
                let address = endpoint.address.value.to_canonical();
                let targets = targets(service, slice);
                if let Some(known) = behind.get_mut(&address) {
                    known.targets.extend(targets);
                } else if let Some(workload) = self.resident(address, service, &targets, trust) {
                    behind.insert(address, Endpoint { workload, targets });
                }
            }
            behind.into_values().collect()
        };
        let ready = taking(|endpoint| endpoint.ready);
        if ready.is_empty() { taking(|endpoint| endpoint.ending) } else { ready }
    }

    fn resident(
        &self,
        address: IpAddr,
        service: &Service,
        targets: &BTreeMap<u16, u16>,
        trust: Trust<'_>,
    ) -> Option<Arc<Workload>> {
        if let Some(resident) = self.residents.get(&address) {
            return Some(Arc::clone(resident));
        }
        let port = |(own, target): (&u16, &u16)| {
            let declared = service.port(*own)?;
            Some(Port { number: *target, ..declared.clone() })
        };
        // Nobody proves it, and nobody asks: without a sidecar there is no handshake. It is what records call it.
        let id = WorkloadId::new(trust.local, &service.namespace, &service.name).ok()?;
        Some(Arc::new(Workload {
            id,
            name: address.to_string(),
            addresses: vec![address],
            dialect: Dialect::Plain,
            ports: targets.iter().filter_map(port).collect(),
            service_name: service.name.clone(),
            ready: true,
            labels: BTreeMap::new(),
            mtls: MtlsModes::default(),
            learned: BTreeMap::new(),
            preserve_case: std::collections::BTreeSet::new(),
        }))
    }
}

// Ports meet by name.
fn targets(service: &Service, slice: &EndpointSlice) -> BTreeMap<u16, u16> {
    let tcp = || slice.ports.iter().filter(|port| port.transport == Transport::Tcp);
    let target = |own: &Port| Some((own.number, tcp().find(|port| port.name == own.name)?.number));
    service.ports.iter().filter_map(target).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use douane_proto::{
        mesh::{Dialect, Service},
        resource::read_file,
        snapshot::{Found, Question},
    };

    use crate::{
        config::Config,
        discovery::{
            assemble::{Assembled, assemble},
            learned::Known,
            settings::{Marked, Settings},
        },
    };

    const API: &str = "
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443}]}
---
";

    fn slice(name: &str, endpoints: &str) -> String {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: default, labels: \
             {{kubernetes.io/service-name: kubernetes}}}}\naddressType: IPv4\n\
             ports: [{{name: https, port: 6443, protocol: TCP}}]\nendpoints: [{endpoints}]\n---\n"
        )
    }

    fn mesh(text: &str) -> Assembled {
        let (resources, errors) = read_file(Path::new("mesh.yaml"), text);
        assert!(errors.is_empty(), "{errors:?}");
        let config = Config::default();
        let settings = Settings {
            mesh: config.mesh(),
            law: config.law(),
            cluster_domain: config.cluster_domain,
            marked: Marked::ByLabel,
        };
        assemble(&[resources], &[], &Known::default(), &settings)
    }

    fn service(mesh: &Assembled) -> Service {
        let question = Question::Address("10.96.0.1".parse().unwrap());
        let Found::Service(service) = mesh.index.answer(&question, "shop") else { panic!("a service") };
        Service::clone(&service)
    }

    fn addresses(mesh: &Assembled) -> Vec<String> {
        service(mesh).endpoints.iter().map(|it| it.workload.addresses[0].to_string()).collect()
    }

    #[test]
    fn the_api_server_is_reached_by_its_cluster_address_though_no_pod_is_selected() {
        let mesh = mesh(&(API.to_owned() + &slice("kubernetes", "{addresses: [172.18.0.2]}")));
        let found = service(&mesh);
        assert_eq!(addresses(&mesh), ["172.18.0.2"]);
        let endpoint = &found.endpoints[0];
        assert_eq!((endpoint.workload.dialect, endpoint.targets[&443]), (Dialect::Plain, 6443));
        // Whoever looks its address up itself finds it, too.
        let direct = mesh.index.answer(&Question::Address("172.18.0.2".parse().unwrap()), "shop");
        let Found::Workload(direct) = direct else { panic!("{direct:?}") };
        assert_eq!((direct.service_name.as_str(), direct.dialect), ("kubernetes", Dialect::Plain));
        assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());
    }

    #[test]
    fn who_is_ready_takes_all_and_only_where_nobody_is_who_is_about_to_end() {
        let ready = "{addresses: [172.18.0.2], conditions: {ready: true}}";
        let ends = "{addresses: [172.18.0.3], conditions: {ready: false, serving: true, terminating: true}}";
        let gone = "{addresses: [172.18.0.4], conditions: {ready: false, serving: false, terminating: true}}";
        let sick = "{addresses: [172.18.0.5], conditions: {ready: false, serving: null, terminating: null}}";
        let behind =
            |all: &[&str]| addresses(&mesh(&(API.to_owned() + &slice("kubernetes", &all.join(", ")))));
        assert_eq!(behind(&[ready, ends, gone, sick]), ["172.18.0.2"]);
        assert_eq!(behind(&[ends, gone, sick]), ["172.18.0.3"]);
        assert!(behind(&[gone, sick]).is_empty());
    }

    #[test]
    fn several_slices_are_one_and_ports_meet_by_name() {
        let two = slice("one", "{addresses: [172.18.0.2]}, {addresses: [172.18.0.3]}")
            + &slice("two", "{addresses: [172.18.0.3]}")
                .replace("6443", "7443")
                .replace("name: https", "name: other");
        let mesh = mesh(&(API.to_owned() + &two));
        assert_eq!(addresses(&mesh), ["172.18.0.2", "172.18.0.3"]);
        assert!(service(&mesh).endpoints.iter().all(|it| it.targets == [(443, 6443)].into()));
    }

    #[test]
    fn an_address_that_a_pod_has_leads_to_the_pod_and_to_whom_it_must_prove_to_be() {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: db-1, namespace: data, labels: {douane.io/inject: enabled}}\n\
                   spec: {serviceAccountName: db, containers: [{name: c}]}\nstatus: {podIP: 10.77.0.5}\n---\n";
        let mesh = mesh(&(API.to_owned() + pod + &slice("kubernetes", "{addresses: [10.77.0.5]}")));
        let found = service(&mesh);
        let workload = &found.endpoints[0].workload;
        assert_eq!(workload.id.to_string(), "spiffe://cluster.local/ns/data/sa/db");
        assert_eq!(workload.dialect, Dialect::Douane1);
    }

    #[test]
    fn addresses_of_ones_own_machine_are_refused_and_an_alias_in_dns_is_noted() {
        for own in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"] {
            let text = slice("kubernetes", &format!("{{addresses: [{own}]}}"));
            let errors = read_file(Path::new("mesh.yaml"), &text).1;
            assert!(errors[0].what.contains(own), "{errors:?}");
        }
        let alias = API.replace("clusterIP: 10.96.0.1", "type: ExternalName, externalName: db.example.com");
        let mesh = mesh(&alias);
        assert!(mesh.errors().is_empty() && mesh.warnings.len() == 1, "{:?}", mesh.warnings);
        assert!(mesh.warnings[0].contains("reach db.example.com by a ServiceEntry"), "{:?}", mesh.warnings);
        let host = Question::Host("kubernetes.default.svc".to_owned());
        assert_eq!(mesh.index.answer(&host, "shop"), Found::Unknown);
    }
}
