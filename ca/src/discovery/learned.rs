//! What sidecars have seen the undeclared ports of their own pods speak. Kept in memory, as long as the pod is there.
//!
//! A hint that saves others time: no law looks at it, and no declaration yields to it. Knows not who uses it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use douane_proto::{
    mesh::{Protocol, Workload, learned_from_wire},
    wire,
};
use tokio::sync::watch;

/// Ports of one pod; what it says of more is passed over.
const MAX_PORTS: usize = 64;

/// Where sidecars tell. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Learned(Arc<watch::Sender<Known>>);

/// What all of them have told, by `namespace/pod`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(HashMap<String, Pod>);

#[derive(Debug, Clone)]
struct Pod {
    // Another pod of the same name has others, most likely; and nothing depends on it.
    addresses: Vec<IpAddr>,
    ports: BTreeMap<u16, Protocol>,
}

impl Learned {
    /// The sidecar of `workload` tells.
    pub(crate) fn tell(&self, workload: &Workload, told: &[wire::LearnedProtocol]) {
        if told.is_empty() {
            return;
        }
        self.0.send_if_modified(|known| known.take(workload, told));
    }

    /// What is known, now and later.
    pub(crate) fn known(&self) -> watch::Receiver<Known> {
        self.0.subscribe()
    }

    /// Forgets pods that are no more.
    pub(crate) fn keep(&self, is_there: impl Fn(&str) -> bool) {
        self.0.send_if_modified(|known| {
            known.0.retain(|key, _| is_there(key));
            // Nobody asks for them.
            false
        });
    }
}

impl Known {
    /// What the ports of `workload` were seen to speak.
    pub(crate) fn of(&self, workload: &Workload) -> BTreeMap<u16, Protocol> {
        let pod = self.0.get(&workload.key()).filter(|pod| pod.addresses == workload.addresses);
        let ports = pod.into_iter().flat_map(|pod| &pod.ports);
        let known = ports.filter(|(_, protocol)| **protocol != Protocol::Undeclared);
        known.map(|(port, protocol)| (*port, *protocol)).collect()
    }

    // Did that change anything for others? Each port changes twice at most: known, and withdrawn.
    fn take(&mut self, workload: &Workload, told: &[wire::LearnedProtocol]) -> bool {
        let new = || Pod { addresses: workload.addresses.clone(), ports: BTreeMap::new() };
        let pod = self.0.entry(workload.key()).or_insert_with(new);
        if pod.addresses != workload.addresses {
            *pod = new();
        }
        let mut changed = false;
        for (port, protocol) in learned_from_wire(told) {
            if workload.protocol(port) != Protocol::Undeclared {
                continue;
            }
            let room = pod.ports.len() < MAX_PORTS;
            match pod.ports.get_mut(&port) {
                None if room && protocol != Protocol::Undeclared => {
                    pod.ports.insert(port, protocol);
                    changed = true;
                }
                Some(known) if *known != protocol && *known != Protocol::Undeclared => {
                    *known = Protocol::Undeclared;
                    changed = true;
                }
                None | Some(_) => {}
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use douane_proto::{
        mesh::{Dialect, Port},
        mtls::MtlsModes,
    };

    use super::*;

    fn workload(address: &str) -> Workload {
        Workload {
            id: "spiffe://cluster.local/ns/shop/sa/db".parse().unwrap(),
            name: "db-0".to_owned(),
            addresses: vec![address.parse().unwrap()],
            dialect: Dialect::Douane1,
            ports: vec![Port { number: 80, protocol: Protocol::Http1, name: "http".to_owned() }],
            service_name: "db".to_owned(),
            ready: true,
            labels: BTreeMap::new(),
            mtls: MtlsModes::default(),
            learned: BTreeMap::new(),
            preserve_case: BTreeSet::new(),
        }
    }

    fn told(port: u32, protocol: wire::Protocol) -> Vec<wire::LearnedProtocol> {
        vec![wire::LearnedProtocol { port, protocol: protocol.into() }]
    }

    #[test]
    fn a_word_is_kept_until_another_contradicts_it_and_then_withdrawn_for_good() {
        let mut known = Known::default();
        let db = workload("10.77.0.5");

        assert!(known.take(&db, &told(3306, wire::Protocol::Tcp)));
        assert!(!known.take(&db, &told(3306, wire::Protocol::Tcp)));
        assert_eq!(known.of(&db), BTreeMap::from([(3306, Protocol::Tcp)]));
        assert!(known.take(&db, &told(3306, wire::Protocol::Http1)));
        assert!(!known.take(&db, &told(3306, wire::Protocol::Tcp)));

        assert_eq!(known.of(&db), BTreeMap::new());
    }

    #[test]
    fn declared_ports_and_nonsense_are_passed_over_and_the_number_is_bounded() {
        let mut known = Known::default();
        let db = workload("10.77.0.5");

        for wrong in
            [told(80, wire::Protocol::Tcp), told(0, wire::Protocol::Tcp), told(70_000, wire::Protocol::Tcp)]
        {
            assert!(!known.take(&db, &wrong));
        }
        for port in 1000..2000 {
            known.take(&db, &told(port, wire::Protocol::Tcp));
        }

        assert_eq!(known.of(&db).len(), MAX_PORTS);
    }

    #[test]
    fn it_is_forgotten_with_the_pod() {
        let learned = Learned::default();
        learned.tell(&workload("10.77.0.5"), &told(3306, wire::Protocol::Tcp));

        assert!(learned.known().borrow().of(&workload("10.77.0.6")).is_empty(), "another of the same name");
        learned.keep(|key| key != "shop/db-0");

        assert!(learned.known().borrow().of(&workload("10.77.0.5")).is_empty());
    }
}
