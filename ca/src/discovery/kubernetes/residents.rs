//! Who has an address, where Kubernetes tells of several: a new pod may take the address of a dead one before that one's
//! object is gone, and all pods of a node's own network have the node's.
//!
//! Pure. A pod that loses its address takes no part in the mesh until the API says otherwise.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

use douane_proto::resource::{Created, Kind, Metadata, Phase, Pod, Resource};

/// Leaves each address to the one pod that has it now. Those of a node's network keep theirs: nobody takes it from them,
/// and they share it.
pub(super) fn settle_addresses(resources: &mut [Resource]) {
    let mut residents: HashMap<IpAddr, (usize, Claim)> = HashMap::new();
    for (index, resource) in resources.iter().enumerate() {
        let Kind::Pod(pod) = &resource.kind else { continue };
        if !takes_part(pod) {
            continue;
        }
        for address in &pod.status.addresses {
            let claim = claim(&resource.metadata);
            match residents.entry(address.value) {
                Entry::Vacant(vacant) => {
                    vacant.insert((index, claim));
                }
                Entry::Occupied(mut occupied) if occupied.get().1 < claim => {
                    occupied.insert((index, claim));
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    for (index, resource) in resources.iter_mut().enumerate() {
        let Kind::Pod(pod) = &mut resource.kind else { continue };
        if takes_part(pod) {
            let has =
                |address: &IpAddr| residents.get(address).is_some_and(|(resident, _)| *resident == index);
            pod.status.addresses.retain(|address| has(&address.value));
        }
    }
}

/// The greater one has the address: who is not about to end, then who came later.
type Claim = (Reverse<bool>, Option<Created>);

fn claim(metadata: &Metadata) -> Claim {
    (Reverse(metadata.ending), metadata.created)
}

fn takes_part(pod: &Pod) -> bool {
    pod.spec.host_network.is_none() && !matches!(pod.status.phase, Some(Phase::Succeeded | Phase::Failed))
}
