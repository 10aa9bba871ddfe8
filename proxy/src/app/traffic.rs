//! The two sides of the data path, wired to the live values and to each other.

use std::rc::Rc;

use douane_proto::snapshot::Snapshot;
use tokio::{net::TcpListener, sync::mpsc};

use super::{Critical, named};
use crate::{
    config::Limits,
    discovery::Mesh,
    exchange::ledger::Ledger,
    inbound::{self, Inbound},
    net::{
        hairpin::{self, Hairpin},
        socket::Sockets,
    },
    outbound::{self, Outbound},
    shutdown::Shutdown,
    tls::Mtls,
};

/// Both sides, not yet serving.
#[derive(Debug)]
pub(super) struct Sides {
    mtls: Mtls,
    mesh: Mesh,
    inbound: Rc<Inbound>,
    outbound: Rc<Outbound>,
    hairpins: mpsc::Receiver<Hairpin>,
    shutdowns: Shutdowns,
}

/// Each side drains on its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Shutdowns {
    pub(super) inbound: Shutdown,
    pub(super) outbound: Shutdown,
}

impl Sides {
    pub(super) fn new(mtls: &Mtls, mesh: &Mesh, ledger: Ledger, sockets: Sockets, limits: Limits) -> Self {
        let shutdowns = Shutdowns::default();
        believe(mtls, &mesh.snapshot());
        let (to_inbound, hairpins) = hairpin::channel();
        let outbound = Outbound::new(
            mesh.clone(),
            mtls.clone(),
            ledger.clone(),
            outbound::Ways { sockets, hairpins: to_inbound },
            shutdowns.outbound.clone(),
            limits,
        );
        let inbound = Inbound::new(
            mesh.clone(),
            mtls.clone(),
            ledger,
            inbound::Ways { sockets, road: outbound.road() },
            shutdowns.inbound.clone(),
            limits,
        );
        Self {
            mtls: mtls.clone(),
            mesh: mesh.clone(),
            inbound: Rc::new(inbound),
            outbound: Rc::new(outbound),
            hairpins,
            shutdowns,
        }
    }

    /// Serves; the tasks end when their side has drained.
    pub(super) fn start(
        self,
        critical: &mut Critical,
        outbound: Vec<TcpListener>,
        inbound: TcpListener,
    ) -> Shutdowns {
        critical
            .spawn_local(named("the trust domains that are believed", follow_names(self.mtls, self.mesh)));
        critical.spawn_local(named("the inbound side", self.inbound.run(inbound, self.hairpins)));
        critical.spawn_local(named("the outbound side", self.outbound.run(outbound)));
        self.shutdowns
    }
}

fn believe(mtls: &Mtls, snapshot: &Snapshot) {
    mtls.trust_aliases(&snapshot.mesh.trust_domain_aliases);
    mtls.trust_federated(&snapshot.federated);
}

// Of which trust domains a peer is believed, for ever.
async fn follow_names(mtls: Mtls, mesh: Mesh) {
    let mut snapshot = mesh.watch();
    loop {
        believe(&mtls, &snapshot.borrow_and_update());
        if snapshot.changed().await.is_err() {
            return;
        }
    }
}
