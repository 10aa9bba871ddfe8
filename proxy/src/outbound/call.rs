//! A question of the sidecar itself to an external authorizer: it travels as a request of the application to that service
//! would, with mutual TLS to one in the mesh, on the same connections.
//!
//! Knows not what is asked (`authz`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use douane_proto::snapshot::{Found, Question};
use http::{Request, Response, header};

use crate::{
    authz::{Call, MOST_BYTES, Reply},
    exchange::{
        body::Body,
        headers::Speech,
        ledger::{SharedAccess, note},
        request::{self, assemble, with_body},
    },
    outbound::{
        http::finish,
        resolve::{Reach, Route, View, resolve, unknown},
        sender::{Sender, Way, bare_host},
    },
    refusal::Refusal,
    telemetry::{access::Direction, tracer::Caller},
};

impl Sender {
    /// Carries a call to its end.
    pub(super) async fn call(&self, call: Call) -> Result<Reply, String> {
        let Call { host, port, mut request } = call;
        let (destination, route) = match self.locate(&host, port).await {
            Ok((destination, route)) => (destination, Ok(route)),
            Err(refusal) => (nowhere(port), Err(refusal)),
        };
        let access = self.ledger.begin_traced(
            Direction::Outbound,
            destination,
            request.headers_mut(),
            Caller::Sidecar,
        );
        match self.carry(route, request, &access).await {
            Ok(answer) => {
                let (head, body) = finish(answer, &access).into_parts();
                let (body, trailers) =
                    body.gather(MOST_BYTES).await.map_err(|why| format!("its answer: {why}"))?;
                Ok(Reply { status: head.status, headers: head.headers, body, trailers })
            }
            Err(refusal) => {
                note(&mut access.borrow_mut().record, &refusal);
                Err(refusal.to_string())
            }
        }
    }

    // Where a host of the mesh's own settings leads. No application has asked for it: there is no original destination.
    async fn locate(&self, host: &str, port: u16) -> Result<(SocketAddr, Route), Refusal> {
        // Istio permits `namespace/host`.
        let name = bare_host(host.rsplit('/').next().unwrap_or(host));
        if let Ok(address) = name.parse::<IpAddr>() {
            let destination = SocketAddr::new(address, port);
            return Ok((destination, self.route(destination, None).await?));
        }
        let found = self.find(Question::Host(name.clone()), || name.clone()).await?;
        let address = match &found {
            Found::Service(service) => {
                let endpoint = || service.endpoints.iter().find_map(|one| one.workload.addresses.first());
                service.addresses.first().or_else(endpoint).copied()
            }
            Found::External(external) => external.addresses.first().copied(),
            Found::Workload(workload) => workload.addresses.first().copied(),
            Found::Unknown => None,
        };
        let destination = address.map_or(nowhere(port), |address| SocketAddr::new(address, port));
        if let (Found::External(_), None) = (&found, address)
            && let Some(route) = self.by_host(&name, port).await?
        {
            return Ok((destination, route));
        }
        let snapshot = self.mesh.snapshot();
        if found == Found::Unknown {
            return Err(unknown(destination, Some(&name), &snapshot.own));
        }
        let view = View { own: &snapshot.own, outbound: snapshot.mesh.outbound };
        Ok((destination, resolve(destination, &found, view)?))
    }

    async fn carry(
        &self,
        route: Result<Route, Refusal>,
        request: Request<bytes::Bytes>,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let speech = Speech::of(parts.version);
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (host, path) = (host.to_owned(), request::target(parts.uri.to_string())?);
        {
            let record = &mut access.borrow_mut().record;
            record.protocol = speech.name();
            record.method = Some(parts.method.clone());
            record.authority = Some(host.clone());
            record.path = Some(parts.uri.path().to_owned());
        }
        access.borrow().write_trace(&mut parts.headers);
        let body = Body::whole(body).counting(access);
        let route = route?;
        access.borrow_mut().record.service = route.service;
        let way = match route.reach {
            Reach::Mesh(candidates) => self.way(candidates),
            Reach::Plain(addresses) => Way::Open(addresses),
            Reach::Outside(address) => Way::Open(vec![address]),
        };
        match way {
            Way::Sealed(candidates) => {
                let mut head = assemble(parts.method, host.into(), path, parts.headers, Speech::Http2)?;
                speech.write_to(head.headers_mut());
                self.through_mesh(&candidates, head, &mut Some(body), access).await
            }
            Way::Foreign(candidates) => {
                let head = assemble(parts.method, host.into(), path, parts.headers, speech)?;
                self.abroad(&candidates, speech, with_body(head, body), access).await
            }
            Way::Open(addresses) => {
                let head = assemble(parts.method, host.into(), path, parts.headers, speech)?;
                self.in_the_open(&addresses, speech, with_body(head, body), access).await
            }
        }
    }
}

fn nowhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}
