//! One HTTP request from a peer: understood, decided, cleaned, forwarded to the application.
//!
//! Knows not how the request arrived; a refusal is the answer to it, never the end of its connection.

use std::{future::poll_fn, net::SocketAddr, pin::pin, rc::Rc, task::Poll};

use bytes::Bytes;
use douane_proto::{
    facts::{RequestFacts, Token},
    mesh::Protocol,
    policy::Permit,
    request::{BadRequest, CLIENT_CERT, Head, line_authority, origin_form, understand},
    snapshot::Snapshot,
};
use futures_util::{
    TryFutureExt as _,
    future::{Either, select},
};
use http::{HeaderValue, Method, Request, Response, Version, header, request::Parts};

use crate::{
    authz::{Allowed, Judged, Remarks, Running, SeenBody, Waits, apply},
    exchange::{
        answer::{closes_connection, refuse},
        body::Body,
        headers::{Length, Speech, clean_answer, grpc_status_of, is_grpc},
        headwatch::Verdict,
        ledger::{Awaited, SharedAccess, note_permit, note_remarks},
        names::{Names, Spelling},
        place,
        request::{self, assemble, with_body},
        retain, upgrade,
    },
    inbound::{
        arrival::Arrival,
        receiver::{Receiver, no_body},
    },
    refusal::Refusal,
    telemetry::{access::Direction, tracer::Caller},
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
    ///
    /// What needs no waiting is done before the future is made, so that it stays small.
    pub(super) fn answer(
        self: Rc<Self>,
        arrival: Rc<Arrival>,
        request: Request<Body>,
        source: Source,
        gone: impl Future<Output = ()>,
    ) -> impl Future<Output = Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let version = parts.version;
        let snapshot = self.mesh.snapshot();
        let caller = arrival.caller(&snapshot);
        let access =
            self.ledger.begin_traced(Direction::Inbound, arrival.destination, &mut parts.headers, caller);
        arrival.describe(&mut access.borrow_mut().record);
        if matches!(caller, Caller::Outside) {
            access.borrow_mut().enters_the_mesh(&mut parts.headers);
        }
        drop(snapshot);
        if source == Source::Sidecar && arrival.is_of_mesh(&self.mesh.snapshot()) {
            access.borrow_mut().answers_a_sidecar();
        }
        let upgrade = match source {
            Source::Application(_) if http_body::Body::is_end_stream(&body) => {
                upgrade::wanted(version, &parts.headers)
            }
            _ => None,
        };
        let mut body = Some(body.counting(&access));
        let mut spelling = Spelling::take(&mut parts.extensions);
        if spelling.is_kept() && upgrade.is_none() {
            spelling = spelling.only(Names::at(&self.mesh.snapshot().own, arrival.destination.port()));
        }
        let read = self.read(&arrival, parts, source, &access);
        async move {
            let awaited = Awaited::new(&access);
            let answered = match (read, upgrade) {
                // Boxed, so that other requests carry no room for it.
                (Ok((_, exchange)), Some(protocol)) => {
                    Box::pin(self.switch(&arrival, (protocol, spelling), exchange, &access)).await
                }
                (Ok((speech, exchange)), None) => {
                    let passing = pin!(self.pass(&arrival, (speech, spelling), exchange, &mut body, &access));
                    let gone = pin!(gone);
                    match select(passing, gone).await {
                        Either::Left((answered, _)) => answered,
                        Either::Right(_) => Err(Refusal::ClientGone),
                    }
                }
                (Err(refusal), _) => Err(refusal),
            };
            awaited.is_answered();
            match answered {
                Ok(mut answer) => {
                    retain::mark(answer.headers_mut(), &access);
                    answer
                }
                Err(refusal) => {
                    let mut answer = refuse(SharedAccess::clone(&access), &refusal);
                    retain::mark(answer.headers_mut(), &access);
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
    }

    async fn pass(
        &self,
        arrival: &Arrival,
        (speech, spelling): (Speech, Spelling),
        mut exchange: Rc<Running>,
        body: &mut Option<Body>,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        let mut remarks = Remarks::default();
        let decided = match self.judge.decide(&exchange, &mut remarks) {
            Ok(Judged::Allowed(allowed)) => Ok(allowed),
            Ok(Judged::Ask(asked)) => {
                let see_body = async |most| self.see_body(body.as_mut(), most).await;
                // Boxed, so that requests that ask nobody carry no room for it.
                Box::pin(self.judge.ask(&mut exchange, asked, &mut remarks, see_body)).await
            }
            Err(refusal) => Err(refusal),
        };
        note_remarks(&mut access.borrow_mut().record, remarks);
        let Allowed { permit, answer: changes, .. } = decided?;
        note_permit(&mut access.borrow_mut().record, &permit);
        place::take(&arrival.tenant, access).await?;
        let mut request = rebuild(arrival, speech, &exchange, body.take())?;
        spelling.put(&mut request);
        access.borrow_mut().hands_over();
        let mut forwarding = pin!(self.forward(permit, arrival.destination, speech, request));
        // A request that the law cut fails at the application, too; why is what counts.
        let answer = poll_fn(|cx| match exchange.poll_ended(cx, Waits::Exchange) {
            Poll::Ready(refusal) => Poll::Ready(Err(refusal.clone())),
            Poll::Pending => forwarding.as_mut().poll(cx),
        });
        let answer = answer.await?;
        self.learn(arrival.destination.port(), speech.protocol());
        let mut answer = finish(answer, &exchange, access);
        apply(answer.headers_mut(), &changes);
        Ok(answer)
    }

    // The beginning of a body, for authorizers.
    async fn see_body(&self, body: Option<&mut Body>, most: usize) -> Result<SeenBody, Refusal> {
        let Some(body) = body else { return no_body(most).await };
        let seen = tokio::time::timeout(self.limits.head, body.see(most)).await;
        seen.map_err(|_| Refusal::HeadTimeout)?.map_err(|_| Refusal::ClientGone)
    }

    // The one way to the application. The permit proves that a decision allowed it.
    fn forward(
        &self,
        _permit: Permit,
        to: SocketAddr,
        speech: Speech,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Refusal>> {
        self.origins.send(to, speech, request).map_err(|unanswered| unanswered.refusal)
    }

    // What is decided on. Its user is known by its token, its trace goes on from here.
    fn read(
        &self,
        arrival: &Arrival,
        parts: Parts,
        source: Source,
        access: &SharedAccess,
    ) -> Result<(Speech, Rc<Running>), Refusal> {
        let snapshot = self.mesh.snapshot();
        let (speech, mut facts) = Self::understood(arrival, parts, source, &snapshot, access)?;
        let mut access = access.borrow_mut();
        let now = access.began();
        self.judge.law().authentication().authenticate(&mut facts, now)?;
        access.write_trace(&mut facts.headers);
        if let Some(principal) = facts.token.as_ref().and_then(principal) {
            access.is_of_user(&principal);
        }
        Ok((speech, Rc::new(Running::new(arrival.request_facts(facts, snapshot.mesh.trusted_proxies)))))
    }

    // What a policy may see of the request: exactly what will be sent on.
    fn understood(
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
            authority: line_authority(&parts.uri)?,
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

// What is still sent up after an early answer ends with the law as well.
pub(super) fn rebuild(
    arrival: &Arrival,
    speech: Speech,
    exchange: &Rc<Running>,
    body: Option<Body>,
) -> Result<Request<Body>, Refusal> {
    let Some(RequestFacts { method, target, headers, .. }) = &exchange.facts.request else {
        return Err(BadRequest::Uri.into());
    };
    let (authority, path) = (Bytes::copy_from_slice(target.authority.as_bytes()), target.path_and_query());
    let mut head = assemble(method.clone(), authority, request::target(path)?, headers.clone(), speech)?;
    if let Some(identity) = arrival.client_cert() {
        head.headers_mut().insert(CLIENT_CERT, identity);
    }
    Ok(with_body(head, body.unwrap_or_else(Body::empty).cut_with(exchange, Waits::Request)))
}

pub(super) fn finish(
    answer: Response<Body>,
    exchange: &Rc<Running>,
    access: &SharedAccess,
) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    clean_answer(&mut head.headers);
    // A reason phrase belongs to its hop.
    head.extensions.remove::<hyper::ext::ReasonPhrase>();
    let length = {
        let record = &mut access.borrow_mut().record;
        record.status = Some(head.status.as_u16());
        record.grpc_status = grpc_status_of(&head.headers);
        Length::of(record.method.as_ref(), head.status, &head.headers)
    };
    let body = body.cut_with(exchange, Waits::Answer).ending(SharedAccess::clone(access), length);
    Response::from_parts(head, body)
}
