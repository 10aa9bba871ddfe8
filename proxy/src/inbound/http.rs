//! One HTTP request from a peer: understood, decided, cleaned, forwarded to the application.
//!
//! Knows not how the request arrived; a refusal is the answer to it, never the end of its connection.

use std::{net::SocketAddr, rc::Rc};

use douane_proto::{
    facts::{RequestFacts, Token},
    mesh::Protocol,
    policy::Permit,
    request::{BadRequest, CLIENT_CERT, Head, origin_form, understand},
    snapshot::Snapshot,
};
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, Version, header, request::Parts, uri};

use crate::{
    authz::{Allowed, Remarks, SeenBody, apply},
    exchange::{
        answer::{closes_connection, refuse},
        body::{Body, Cut},
        headers::{Speech, clean_answer, client_cert, grpc_status_of, is_grpc},
        headwatch::Verdict,
        ledger::{SharedAccess, note_permit, note_remarks},
        request::{assemble, with_body},
    },
    inbound::{arrival::Arrival, receiver::Receiver},
    refusal::Refusal,
    telemetry::access::Direction,
};

/// Who framed the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A sidecar, as a stream of `douane/1`.
    Sidecar,
    /// The peer's application: inside an opaque stream, or in plaintext.
    Application(Verdict),
}

impl Receiver {
    /// Answers a request: the application's answer, or a refusal. Whoever has `gone` and no longer waits does not keep
    /// the application busy (a cancelled call, a flood of resets).
    pub(super) async fn answer(
        &self,
        arrival: &Arrival,
        request: Request<Body>,
        source: Source,
        gone: impl Future<Output = ()>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let version = parts.version;
        let access = self.ledger.begin_traced(Direction::Inbound, arrival.destination, &parts.headers);
        arrival.describe(&mut access.borrow_mut().record);
        let body = body.counting(&access);
        let answered = tokio::select! {
            answered = self.pass(arrival, parts, body, source, &access) => answered,
            () = gone => Err(Refusal::ClientGone),
        };
        match answered {
            Ok(answer) => answer,
            Err(refusal) => {
                let mut answer = refuse(access, &refusal);
                if matches!(source, Source::Application(_))
                    && closes_connection(&refusal)
                    && version < Version::HTTP_2
                {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        }
    }

    async fn pass(
        &self,
        arrival: &Arrival,
        parts: Parts,
        mut body: Body,
        source: Source,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot = self.mesh.snapshot();
        let (speech, mut facts) = Self::read(arrival, parts, source, &snapshot, access)?;
        let mut law = self.mesh.policies();
        let now = access.borrow().began();
        law.borrow_and_update().authentication().authenticate(&mut facts, now)?;
        if let Some(trace) = &access.borrow().record.trace {
            trace.write_to(&mut facts.headers);
        }
        let see_body = async |most| self.see_body(&mut body, most).await;
        access.borrow_mut().record.request_principal = facts.token.as_ref().and_then(principal);
        let facts = arrival.request_facts(facts, snapshot.mesh.trusted_proxies);
        let mut remarks = Remarks::default();
        let decided = self.judge.authorize(&mut law, facts, &mut remarks, see_body).await;
        note_remarks(&mut access.borrow_mut().record, remarks);
        let Allowed { permit, facts, answer: changes, said } = decided?;
        note_permit(&mut access.borrow_mut().record, &permit);
        let Some(allowed) = &facts.request else { return Err(BadRequest::Uri.into()) };
        let mut request = rebuild(allowed, speech, body)?;
        let identity = arrival.peer.as_ref().and_then(|peer| client_cert(&arrival.local, peer));
        if let Some(identity) = identity {
            request.headers_mut().insert(CLIENT_CERT, identity);
        }
        // What is still sent up after an early answer ends with the law as well.
        let ends: Cut = {
            let revoked = Rc::clone(&self.judge).revoked(law, Rc::clone(&facts), said);
            self.or_too_old(revoked).boxed_local().shared()
        };
        let request = request.map(|body| body.cut_by(ends.clone()));
        let answer = tokio::select! {
            // A request that the law cut fails at the application, too; why is what counts.
            biased;
            refusal = ends.clone() => return Err(refusal),
            answer = self.forward(permit, arrival.destination, speech, request) => answer?,
        };
        let mut answer = finish(answer, ends, access);
        apply(answer.headers_mut(), &changes);
        Ok(answer)
    }

    // The beginning of a body, for authorizers.
    async fn see_body(&self, body: &mut Body, most: usize) -> Result<SeenBody, Refusal> {
        let seen = tokio::time::timeout(self.limits.head, body.see(most)).await;
        seen.map_err(|_| Refusal::HeadTimeout)?.map_err(|_| Refusal::ClientGone)
    }

    // The one way to the application. The permit proves that a decision allowed it.
    async fn forward(
        &self,
        _permit: Permit,
        to: SocketAddr,
        speech: Speech,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        self.origins.send(to, speech, request).await.map_err(|unanswered| unanswered.refusal)
    }

    // What a policy may see of the request: exactly what will be sent on.
    fn read(
        arrival: &Arrival,
        parts: Parts,
        source: Source,
        snapshot: &Snapshot,
        access: &SharedAccess,
    ) -> Result<(Speech, RequestFacts), Refusal> {
        let speech = match source {
            Source::Sidecar => Speech::from_dialect(&parts.headers),
            Source::Application(_) => Ok(Speech::of(parts.version)),
        };
        {
            let record = &mut access.borrow_mut().record;
            record.method = Some(parts.method.clone());
            record.grpc = is_grpc(&parts.headers);
            record.protocol = speech.as_ref().map_or("h2", |speech| speech.name());
        }
        let speech = speech?;
        if parts.method == Method::CONNECT {
            return Err(Refusal::ConnectNotAllowed("only opaque streams of the dialect are"));
        }
        // An opaque stream never turns into HTTP where bytes are declared; a peer must not choose the form either.
        let port = arrival.destination.port();
        if snapshot.own.protocol(port) == Protocol::Tcp {
            return Err(Refusal::OpaqueNeeded(port));
        }
        if source == Source::Application(Verdict::Doubtful) {
            return Err(BadRequest::TwoLengths.into());
        }
        let head = Head {
            method: parts.method,
            target: origin_form(&parts.uri),
            authority: parts.uri.authority().map(uri::Authority::as_str),
            version: parts.version,
            headers: parts.headers,
            destination: arrival.destination,
        };
        let facts = understand(head, snapshot.mesh.path_normalization)?;
        {
            let record = &mut access.borrow_mut().record;
            record.authority = Some(facts.target.authority.clone());
            record.path = Some(facts.target.path.clone());
        }
        Ok((speech, facts))
    }
}

fn principal(token: &Token) -> Option<String> {
    let (issuer, subject) = (token.claims.issuer()?, token.claims.subject()?);
    (!issuer.is_empty() && !subject.is_empty()).then(|| format!("{issuer}/{subject}"))
}

fn rebuild(allowed: &RequestFacts, speech: Speech, body: Body) -> Result<Request<Body>, Refusal> {
    let RequestFacts { method, target, headers, .. } = allowed;
    let path = target.path_and_query();
    let head = assemble(method.clone(), &target.authority, &path, headers.clone(), speech)?;
    Ok(with_body(head, body))
}

fn finish(answer: Response<Body>, ends: Cut, access: &SharedAccess) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    clean_answer(&mut head.headers);
    {
        let record = &mut access.borrow_mut().record;
        record.status = Some(head.status.as_u16());
        record.grpc_status = grpc_status_of(&head.headers);
    }
    let body = body.cut_by(ends).ending(SharedAccess::clone(access));
    Response::from_parts(head, body)
}
