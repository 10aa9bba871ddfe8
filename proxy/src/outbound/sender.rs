//! What serves all connections of the application: where a destination leads, and a line to one of its endpoints.
//! Read by `http` and `tcp`, which add what travels.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use douane_proto::{
    mesh::Protocol,
    snapshot::{Found, Question, Snapshot},
};
use http::{HeaderMap, StatusCode, header};
use tracing::warn;

use crate::{
    authz,
    config::Limits,
    discovery::Mesh,
    exchange::{
        clients::Clients,
        ledger::{Ledger, SharedAccess},
        names::Names,
        origins::Origins,
    },
    limits::places::Places,
    outbound::{
        balance::{Balancer, InFlight},
        ejection::Verdict,
        http_only::HttpOnly,
        pool::{Ends, Key, OnLine, Pool},
        repeats::Budget,
        resolve::{Candidate, Place, Reach, Route, View, external_port, resolve, unknown},
        routes::Routes,
    },
    refusal::Refusal,
    shutdown::Shutdown,
    telemetry::{access::Direction, once::Once},
};

/// Endpoints tried for one request or stream.
pub(super) const MAX_TRIES: usize = 3;
/// RFC 1035 2.3.4: nothing has a longer name, and what is asked is remembered.
const MAX_HOST: usize = 253;
/// Name resolution for entries without addresses.
const RESOLVE: Duration = Duration::from_secs(2);

/// Serves the application's connections.
#[derive(Debug)]
pub(super) struct Sender {
    /// Who is where.
    pub(super) mesh: Mesh,
    /// Where each request and stream is recorded.
    pub(super) ledger: Ledger,
    /// Where destinations lead, as last resolved.
    pub(super) routes: Routes,
    /// Lines to peers.
    pub(super) pool: Pool,
    /// Who is less busy.
    pub(super) balancer: Balancer,
    /// How much may be said again.
    pub(super) budget: RefCell<Budget>,
    /// Requests in progress to each destination.
    pub(super) places: Places,
    /// Servers without a sidecar.
    pub(super) origins: Origins,
    /// Where bytes are refused.
    pub(super) http_only: HttpOnly,
    /// Connections to peers that speak another dialect than ours.
    pub(super) foreign: Clients<Key, Ends>,
    /// Requests that no other sidecar of ours ends.
    pub(super) unwatched: authz::InFlight,
    /// Peers that are spoken to in plaintext, warned of.
    pub(super) warned: Once,
    /// Are we draining?
    pub(super) shutdown: Shutdown,
    /// How long each may take.
    pub(super) limits: Limits,
}

/// How the endpoints of a destination in the mesh are spoken to.
#[derive(Debug)]
pub(super) enum Way {
    /// Each must prove who it is.
    Sealed(Vec<Candidate>),
    /// The same, in Istio's dialect.
    Foreign(Vec<Candidate>),
    /// Their ports take plaintext only.
    Open(Vec<SocketAddr>),
}

/// What an endpoint is judged by.
#[derive(Debug)]
pub(super) struct HeadOf<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
}

impl<'a> HeadOf<'a> {
    pub(super) fn new<B>(answer: &'a http::Response<B>) -> Self {
        Self { status: answer.status(), headers: answer.headers() }
    }
}

impl Sender {
    /// Where `destination` leads. `host` selects only where no resource has the address, and only among entries
    /// without addresses; then it is dialled where the host resolves to, never where the application said.
    pub(super) async fn route(&self, destination: SocketAddr, host: Option<&str>) -> Result<Route, Refusal> {
        let snapshot = self.mesh.snapshot();
        if let Some(route) = self.routes.held(destination, &snapshot) {
            return Ok(route);
        }
        // Boxed, so that requests to where others have been carry no room for it.
        Box::pin(self.look_for(destination, host, snapshot)).await
    }

    async fn look_for(
        &self,
        destination: SocketAddr,
        host: Option<&str>,
        snapshot: Arc<Snapshot>,
    ) -> Result<Route, Refusal> {
        let address = destination.ip().to_canonical();
        let found = if snapshot.own.addresses.contains(&address) {
            Found::Workload(snapshot.own.clone())
        } else {
            self.find(Question::Address(address), || destination.to_string()).await?
        };
        let name = host.map(bare_host);
        if let (Found::Unknown, Some(name)) = (&found, &name)
            && let Some(route) = self.by_host(name, destination.port()).await?
        {
            return Ok(route);
        }
        let began = snapshot;
        let snapshot = self.mesh.snapshot();
        let view = View { own: &snapshot.own, outbound: snapshot.mesh.outbound };
        let resolved = resolve(destination, &found, view).map_err(|refusal| match refusal {
            // Now with the host, which makes a better entry.
            Refusal::UnknownDestination { .. } => unknown(destination, name.as_deref(), &snapshot.own),
            other => other,
        });
        // Where no resource has the address, the host may lead elsewhere next time; and what was found in another state of
        // the mesh must not be remembered as of this one.
        let of_now = Arc::ptr_eq(&began, &snapshot);
        if let (Ok(route), true) = (&resolved, of_now && found != Found::Unknown) {
            self.routes.hold(destination, &snapshot, route);
        }
        resolved
    }

    /// How one request or stream to `candidates` travels. Where some take plaintext only, or speak another dialect, each
    /// class gets its share; once chosen, another one is no substitute.
    pub(super) fn way(&self, candidates: Vec<Candidate>) -> Way {
        if candidates.iter().all(|candidate| matches!(candidate.place, Place::Peer | Place::Own)) {
            return Way::Sealed(candidates);
        }
        let all: Vec<SocketAddr> = candidates.iter().map(|candidate| candidate.address).collect();
        let picked = self.balancer.pick(&all, &[]).map(|(address, _)| address);
        let mut picked = candidates.iter().filter(|candidate| Some(candidate.address) == picked);
        let class = picked.next().map(|candidate| candidate.place);
        let alike = |candidate: &Candidate| match class {
            Some(place @ (Place::Open | Place::Istio)) => candidate.place == place,
            _ => matches!(candidate.place, Place::Peer | Place::Own),
        };
        let open: Vec<Candidate> = candidates.into_iter().filter(alike).collect();
        match class {
            Some(Place::Open) => {}
            Some(Place::Istio) => return Way::Foreign(open),
            _ => return Way::Sealed(open),
        }
        self.ledger.in_plaintext(Direction::Outbound);
        for candidate in &open {
            if self.warned.is_first(candidate.address.ip()) {
                let Candidate { address, id, .. } = candidate;
                warn!(%address, %id, "spoken to without mutual TLS: its PeerAuthentication says DISABLE");
            }
        }
        Way::Open(open.into_iter().map(|candidate| candidate.address).collect())
    }

    /// A line to one of `candidates`: the less busy of two; if it cannot be reached, another.
    pub(super) async fn reach(
        &self,
        candidates: &[Candidate],
        access: &SharedAccess,
    ) -> Result<(OnLine, InFlight, SocketAddr), Refusal> {
        let (line, in_flight) =
            self.one_of(candidates, access, async |picked| self.pool.line(picked).await).await?;
        line.ends().describe(&mut access.borrow_mut().record);
        let address = in_flight.address();
        Ok((line, in_flight, address))
    }

    /// Whoever of `candidates` can be met: the less busy of two first; if it cannot be reached, another.
    pub(super) async fn one_of<Met>(
        &self,
        candidates: &[Candidate],
        access: &SharedAccess,
        meet: impl AsyncFn(&Candidate) -> Result<Met, Refusal>,
    ) -> Result<(Met, InFlight), Refusal> {
        let addresses: Vec<SocketAddr> = candidates.iter().map(|candidate| candidate.address).collect();
        let mut tried = Vec::new();
        let mut last = Refusal::Draining;
        while let Some((address, in_flight)) = self.balancer.pick(&addresses, &tried) {
            access.borrow_mut().record.peer_address = Some(address);
            let Some(picked) = candidates.iter().find(|candidate| candidate.address == address) else {
                break;
            };
            match meet(picked).await {
                Ok(met) => return Ok((met, in_flight)),
                Err(refusal) => {
                    self.failed_at(&in_flight, &refusal);
                    if !refusal.another_may_answer() || tried.len() + 1 >= MAX_TRIES {
                        return Err(refusal);
                    }
                    tried.push(address);
                    last = refusal;
                }
            }
        }
        Err(last)
    }

    /// An endpoint could not be reached, or did not answer.
    pub(super) fn failed_at(&self, in_flight: &InFlight, why: &Refusal) {
        // A sidecar that drains fails by its own doing.
        if !matches!(why, Refusal::Draining) && in_flight.failed() == Verdict::Ejected {
            self.ledger.ejected();
            warn!(address = %in_flight.address(), reason = why.label(), "left out for a while: it fails again and again");
        }
    }

    /// An endpoint answered; by these statuses it says that it cannot.
    pub(super) fn answered_by(&self, in_flight: &InFlight, answer: &HeadOf<'_>) {
        let failed = match answer.status {
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => true,
            // Who says when to come back sheds what is too much, and serves the rest.
            StatusCode::SERVICE_UNAVAILABLE => !answer.headers.contains_key(header::RETRY_AFTER),
            _ => false,
        };
        if !failed {
            in_flight.answered();
        } else if in_flight.failed() == Verdict::Ejected {
            self.ledger.ejected();
            let (address, status) = (in_flight.address(), answer.status);
            warn!(%address, %status, "left out for a while: it fails again and again");
        }
    }

    pub(super) async fn by_host(&self, name: &str, port: u16) -> Result<Option<Route>, Refusal> {
        // A literal address is no name; the original destination has already spoken for it.
        if name.len() > MAX_HOST || name.parse::<IpAddr>().is_ok() || name.starts_with('[') {
            return Ok(None);
        }
        let found = self.find(Question::Host(name.to_owned()), || name.to_owned()).await?;
        let Found::External(external) = found else { return Ok(None) };
        if !external.addresses.is_empty() {
            return Ok(None);
        }
        let protocol = external_port(&external, port)?.protocol;
        let snapshot = self.mesh.snapshot();
        let dialled = look_up(name, port).await?;
        if snapshot.own.addresses.contains(&dialled.ip().to_canonical()) {
            return Err(unresolvable(name, "it resolves to this pod"));
        }
        // Whoever answers for the name must not have plaintext sent into the mesh.
        let inside = Question::Address(dialled.ip().to_canonical());
        if self.find(inside, || dialled.to_string()).await? != Found::Unknown {
            return Err(unresolvable(name, "it resolves to an address of the mesh"));
        }
        Ok(Some(Route {
            service: Some(format!("{}/{}", external.namespace, external.name).into()),
            protocol,
            learned: Protocol::Undeclared,
            names: Names::Titled,
            reach: Reach::Outside(dialled),
        }))
    }

    pub(super) async fn find(
        &self,
        question: Question,
        asked: impl Fn() -> String,
    ) -> Result<Found, Refusal> {
        self.mesh.find(question).await.ok_or_else(|| Refusal::ControlPlaneSilent(asked()))
    }
}

async fn look_up(host: &str, port: u16) -> Result<SocketAddr, Refusal> {
    let looking = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((host, port))).await;
    let mut addresses = looking
        .map_err(|_| unresolvable(host, "no answer in time"))?
        .map_err(|error| unresolvable(host, &error.to_string()))?;
    addresses
        .find(|address| may_be_dialled(*address))
        .ok_or_else(|| unresolvable(host, "only addresses of this machine or of groups"))
}

// Whoever answers for the host's name must not thereby reach this pod's loopback or link.
fn may_be_dialled(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

fn unresolvable(host: &str, reason: &str) -> Refusal {
    Refusal::Unresolvable { host: host.to_owned(), reason: reason.to_owned() }
}

// Lower case, without port and without the root's dot.
pub(super) fn bare_host(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_without_port_case_and_dot() {
        for text in ["example.com", "Example.COM:443", "example.com.", "example.com.:80"] {
            assert_eq!(bare_host(text), "example.com");
        }
        assert_eq!(bare_host("[fd77::1]:80"), "[fd77::1]");
    }

    #[test]
    fn a_resolved_host_never_leads_to_this_machine() {
        for address in
            ["127.0.0.1:80", "0.0.0.0:80", "169.254.169.254:80", "[::1]:80", "[::ffff:127.0.0.1]:80"]
        {
            assert!(!may_be_dialled(address.parse().unwrap()), "{address}");
        }
        assert!(may_be_dialled("203.0.113.9:443".parse().unwrap()));
    }
}
