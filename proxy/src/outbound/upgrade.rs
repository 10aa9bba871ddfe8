//! A request that wants another protocol, on an HTTP/1.1 connection of its own: to a peer's sidecar under mutual TLS, whichever
//! dialect it speaks otherwise, or in the open.

use std::net::SocketAddr;

use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response};

use crate::{
    authz::Waits,
    exchange::{
        body::Body,
        ledger::SharedAccess,
        request::with_body,
        upgrade::{self, Asked, Far, Upgrade},
    },
    net::hairpin::Load,
    outbound::{
        balance::InFlight,
        pool::Ends,
        resolve::{Candidate, Place},
        sender::{MAX_TRIES, Sender, Way},
    },
    refusal::Refusal,
    tls::{Offer, Session},
};

struct Reached {
    far: Far,
    session: Option<Session>,
    address: SocketAddr,
    in_flight: InFlight,
}

/// Can a request to there that switches nothing travel on HTTP/1.1? The own pod is reached by streams alone.
pub(super) fn leads_over_http1(way: &Way) -> bool {
    !matches!(way, Way::Sealed(candidates) if candidates.iter().any(|one| one.place == Place::Own))
}

impl Sender {
    /// The server's answer; after 101 both relay.
    pub(super) async fn switch(
        &self,
        way: Way,
        protocol: HeaderValue,
        mut head: Request<()>,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        upgrade::say(head.headers_mut(), protocol);
        let Reached { far, session, address, in_flight } = match way {
            Way::Sealed(candidates) | Way::Foreign(candidates) => self.sealed(&candidates, access).await?,
            Way::Open(addresses) => self.open(&addresses, access).await?,
        };
        access.borrow_mut().hands_over();
        // A server without a sidecar of ours may never answer, and nobody but us would end it.
        let one = self.unwatched.ours(access.borrow().record.destination);
        let asked = tokio::select! {
            refusal = one.ended(Waits::Exchange) => return Err(refusal),
            asked = upgrade::ask(far, with_body(head, Body::empty()), &self.shutdown) => asked,
        };
        Ok(match asked.map_err(|reason| Refusal::UpstreamFailed { address, reason })? {
            Asked::Answered(answer) => {
                answer.map(|body| body.keeping(in_flight).cut_with(&one, Waits::Answer))
            }
            Asked::Switched(head, far, first) => {
                let age = self.limits.stream_age;
                let distrusted = session.map(|session| self.pool.distrusted(session));
                let ends = async move {
                    let _in_flight = in_flight;
                    let distrusted = async {
                        match distrusted {
                            Some(distrusted) => distrusted.await,
                            None => std::future::pending().await,
                        }
                    };
                    let reason = "its root of trust has left the bundle".to_owned();
                    tokio::select! {
                        () = distrusted => Refusal::UpstreamFailed { address, reason },
                        () = tokio::time::sleep(age) => Refusal::StreamAge,
                    }
                };
                let (ends, access) = (ends.boxed_local(), SharedAccess::clone(access));
                Upgrade { far, first, ends, idle: self.limits.idle, access }.answer(head)
            }
        })
    }

    async fn sealed(&self, candidates: &[Candidate], access: &SharedAccess) -> Result<Reached, Refusal> {
        let meet = async |picked: &Candidate| {
            if picked.place == Place::Own {
                let (io, ends) = self.pool.turn_back(picked.address, Load::Http1).await?;
                return Ok((Far::Own(io), ends, None));
            }
            let key = self.pool.key(picked, Offer::Http1Alone);
            let (io, session) = self.pool.dial(&key).await?;
            Ok((Far::Sealed(io), Ends::of(&session), Some(session)))
        };
        let ((far, ends, session), in_flight) = self.one_of(candidates, access, meet).await?;
        ends.describe(&mut access.borrow_mut().record);
        Ok(Reached { far, session, address: in_flight.address(), in_flight })
    }

    async fn open(&self, addresses: &[SocketAddr], access: &SharedAccess) -> Result<Reached, Refusal> {
        let (mut tried, mut last) = (Vec::new(), Refusal::Draining);
        while let Some((address, in_flight)) = self.balancer.pick(addresses, &tried) {
            access.borrow_mut().record.peer_address = Some(address);
            match self.origins.connect(address).await {
                Ok(io) => return Ok(Reached { far: Far::Open(io), session: None, address, in_flight }),
                Err(refusal) if refusal.another_may_answer() && tried.len() + 1 < MAX_TRIES => {
                    tried.push(address);
                    last = refusal;
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Err(last)
    }
}
