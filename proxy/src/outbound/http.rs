//! One HTTP request of the application: cleaned, traced, sent to where its destination leads now, answered.
//!
//! Knows not who may be asked (the receiver decides), only who must answer.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use douane_proto::request::{BadRequest, line_authority, named_host, strip_hop_by_hop, strip_reserved};
use futures_util::FutureExt as _;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request::Parts,
    uri::PathAndQuery,
};

use crate::{
    config::Retries,
    exchange::{
        answer::{closes_connection, refuse},
        body::Body,
        headers::{Length, Speech, clean_answer, grpc_status_of, is_grpc},
        headwatch::Verdict,
        ledger::{Awaited, SharedAccess, Tried, send_again},
        names::Spelling,
        origins::Unanswered,
        place, pump,
        request::{assemble, with_body},
        retain,
        upgrade::{self, Upgrade},
    },
    limits::places::Tenant,
    outbound::{
        resolve::{Candidate, Reach},
        sender::{HeadOf, MAX_TRIES, Sender, Way},
        upgrade::leads_over_http1,
    },
    refusal::Refusal,
    telemetry::{access::Direction, tracer::Caller},
};

/// Lines tried for one request whose line ended before it was sent.
const MAX_LINES: usize = 4;
/// Of a body that is kept to be sent again.
const MAX_COPY: usize = 64 * 1024;
/// The same where it is sent again only if it was not processed: what usually comes with its head.
const MAX_UNPROCESSED: usize = 4 * 1024;
/// For the rest of such a body, which is then held back.
const COPY_WAIT: Duration = Duration::from_millis(20);

impl Sender {
    /// Answers a request of the application to the destination that `tenant` has places of.
    ///
    /// What needs no waiting is done before the future is made, so that it stays small.
    pub(super) fn answer(
        self: Rc<Self>,
        tenant: Rc<Tenant>,
        request: Request<Body>,
        verdict: Verdict,
    ) -> impl Future<Output = Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let (version, destination) = (parts.version, tenant.destination());
        let access = self.ledger.begin_traced(
            Direction::Outbound,
            destination,
            &mut parts.headers,
            Caller::Application,
        );
        let mut body = Some(body.counting(&access));
        let has_no_body = body.as_ref().is_none_or(http_body::Body::is_end_stream);
        let protocol = has_no_body.then(|| upgrade::wanted(version, &parts.headers)).flatten();
        let cleaned = Cleaned::of(destination, parts, verdict, &access)
            .map(|cleaned| Box::new(Cleaned { protocol, ..cleaned }));
        async move {
            let awaited = Awaited::new(&access);
            let answered = match cleaned {
                Ok(request) => self.pass(&tenant, request, &mut body, &access).await,
                Err(refusal) => Err(refusal),
            };
            awaited.is_answered();
            let mut answer = match answered {
                // What it switches to is no answer's body.
                Ok(answer) if answer.body().has_guard::<Upgrade>() => answer,
                Ok(answer) => finish(answer, &access),
                Err(refusal) => {
                    let mut answer = refuse(access, &refusal);
                    if closes_connection(&refusal) && version < Version::HTTP_2 {
                        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    answer
                }
            };
            // The application hears the version it spoke; hyper knows what HTTP/1.0 cannot bear.
            *answer.version_mut() = if version == Version::HTTP_10 { Version::HTTP_11 } else { version };
            answer
        }
    }

    async fn pass(
        &self,
        tenant: &Rc<Tenant>,
        mut request: Box<Cleaned>,
        body: &mut Option<Body>,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        place::take(tenant, access).await?;
        // Where it leads now: a connection of the application may outlive many changes.
        let route = self.route(tenant.destination(), request.named()).await?;
        access.borrow_mut().record.service = route.service;
        let speech = request.speech;
        let way = match route.reach {
            Reach::Mesh(candidates) => self.way(candidates),
            Reach::Plain(addresses) => Way::Open(addresses),
            Reach::Outside(address) => Way::Open(vec![address]),
        };
        if let Some(protocol) = request.protocol.take() {
            return Box::pin(self.switch(way, protocol, request.head(speech)?, access)).await;
        }
        if request.spelling.is_kept() {
            request.spelling = request.spelling.only(route.names);
        }
        let keeps_names = request.spelling.is_kept() && leads_over_http1(&way);
        match way {
            Way::Sealed(candidates) if !keeps_names => {
                let mut head = request.head(Speech::Http2)?;
                speech.write_to(head.headers_mut());
                self.through_mesh(&candidates, head, body, access).await
            }
            // Streams have no spelling.
            Way::Sealed(candidates) | Way::Foreign(candidates) => {
                let request = with_body(request.head(speech)?, body.take().unwrap_or_else(Body::empty));
                // Boxed, here and below, so that requests on our own lines carry no room for the others.
                let abroad = async |request| self.abroad(&candidates, speech, request, access).await;
                Box::pin(self.unless_it_rests(request, access, abroad)).await
            }
            Way::Open(addresses) => {
                let request = with_body(request.head(speech)?, body.take().unwrap_or_else(Body::empty));
                let open = async |request| self.in_the_open(&addresses, speech, request, access).await;
                Box::pin(self.unless_it_rests(request, access, open)).await
            }
        }
    }

    pub(super) async fn through_mesh(
        &self,
        candidates: &[Candidate],
        mut head: Request<()>,
        body: &mut Option<Body>,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        let ended = body.as_ref().is_none_or(http_body::Body::is_end_stream);
        let copy = match ended {
            true => None,
            false => Box::pin(self.copy_of(&head, body.as_mut())).await?,
        };
        let again_is_the_same = match self.limits.retries {
            Retries::Unsent => head.method().is_safe(),
            Retries::Idempotent => head.method().is_idempotent(),
        };
        let mut told_again = false;
        self.budget.borrow_mut().said(Instant::now());
        for _ in 0..MAX_LINES {
            let (line, in_flight, address) = self.reach(candidates, access).await?;
            // Nothing was sent on a line that had just ended: the next one takes it.
            let Ok(mut send) = line.ready().await else { continue };
            let failed = |error: &h2::Error| Refusal::UpstreamFailed { address, reason: error.to_string() };
            // Without a body it can be told again, should the peer say that it did not process it, or should the peer
            // die of something else before it answered a request that asks for nothing but an answer.
            let again = (ended || copy.is_some()).then(|| head.clone());
            let may_repeat =
                || again_is_the_same && !told_again && self.budget.borrow_mut().may_repeat(Instant::now());
            let died = |error: &h2::Error| {
                (error.is_io() || error.is_go_away() && error.is_remote()) && may_repeat()
            };
            let once_more = copy.clone().filter(|_| body.is_none()).map(Body::whole);
            access.borrow_mut().hands_over();
            let (answer, stream) = send.send_request(head, ended).map_err(|error| failed(&error))?;
            if let (false, Some(body)) = (ended, body.take().or(once_more)) {
                let mut sending = Box::pin(pump::send(body, stream).map(drop));
                // A short body is whole with its head and needs no task. Otherwise the answer may begin, and end, before
                // the request has. A failed upload shows in the answer.
                if sending.as_mut().now_or_never().is_none() {
                    self.shutdown.tasks.spawn_local(sending);
                }
            }
            match answer.await {
                Ok(answer) => {
                    self.answered_by(&in_flight, &HeadOf::new(&answer));
                    retain::hear(answer.headers(), access);
                    let unserved = self.limits.retries == Retries::Idempotent && is_passing(answer.status());
                    match again.filter(|_| unserved && may_repeat()) {
                        Some(mut unsent) => {
                            told_again = true;
                            self.ledger.retried("status");
                            send_again(access, &Tried::Answered(answer.status()), unsent.headers_mut());
                            head = unsent;
                        }
                        None => {
                            return Ok(answer.map(|recv| Body::from(recv).keeping((line, in_flight))));
                        }
                    }
                }
                Err(error) => {
                    let unprocessed = was_not_processed(&error);
                    if !unprocessed {
                        self.failed_at(&in_flight, &failed(&error));
                    }
                    match again.filter(|_| unprocessed || died(&error)) {
                        Some(mut unsent) => {
                            told_again |= !unprocessed;
                            send_again(access, &Tried::Failed(&failed(&error)), unsent.headers_mut());
                            self.ledger.retried(if unprocessed { "unprocessed" } else { "died" });
                            line.retire();
                            head = unsent;
                        }
                        None => return Err(failed(&error)),
                    }
                }
            }
        }
        Err(Refusal::Draining)
    }

    // What is sent again if need be: of a body that is small, and that no trailers follow. Every request may be told again
    // that a draining peer says it has not processed.
    async fn copy_of(&self, head: &Request<()>, body: Option<&mut Body>) -> Result<Option<Bytes>, Refusal> {
        let most = match self.limits.retries {
            Retries::Idempotent if head.method().is_idempotent() => MAX_COPY,
            Retries::Idempotent | Retries::Unsent => MAX_UNPROCESSED,
        };
        let length = head.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length = length.and_then(|length| length.parse::<usize>().ok()).filter(|length| *length <= most);
        let (Some(length), Some(body)) = (length, body) else { return Ok(None) };
        // What does not come soon is sent as it comes: the application may want to answer before it has all.
        let Ok(seen) = tokio::time::timeout(COPY_WAIT, body.see(most)).await else { return Ok(None) };
        let seen = seen.map_err(|_| Refusal::ClientGone)?;
        Ok((seen.is_whole && seen.bytes.len() == length).then_some(seen.bytes))
    }

    pub(super) async fn in_the_open(
        &self,
        addresses: &[SocketAddr],
        speech: Speech,
        mut request: Request<Body>,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        let mut tried = Vec::new();
        let mut last = Refusal::Draining;
        while let Some((address, in_flight)) = self.balancer.pick(addresses, &tried) {
            access.borrow_mut().record.peer_address = Some(address);
            access.borrow_mut().hands_over();
            match self.origins.send(address, speech, request).await {
                Ok(answer) => {
                    self.answered_by(&in_flight, &HeadOf::new(&answer));
                    return Ok(answer.map(|body| body.keeping(in_flight)));
                }
                Err(Unanswered { refusal, unsent: Some(unsent) })
                    if refusal.another_may_answer() && tried.len() + 1 < MAX_TRIES =>
                {
                    self.failed_at(&in_flight, &refusal);
                    tried.push(address);
                    (request, last) = (*unsent, refusal);
                }
                Err(unanswered) => {
                    self.failed_at(&in_flight, &unanswered.refusal);
                    return Err(unanswered.refusal);
                }
            }
        }
        Err(last)
    }
}

/// A request of the application without what belongs to the hop, traced.
struct Cleaned {
    speech: Speech,
    method: Method,
    /// What it names as its host, or the address that it was sent to.
    host: String,
    is_named: bool,
    uri: Uri,
    headers: HeaderMap,
    /// What it wants its connection to switch to.
    protocol: Option<HeaderValue>,
    spelling: Spelling,
}

impl Cleaned {
    fn of(
        destination: SocketAddr,
        mut parts: Parts,
        verdict: Verdict,
        access: &SharedAccess,
    ) -> Result<Self, Refusal> {
        let speech = Speech::of(parts.version);
        let mut access = access.borrow_mut();
        let record = &mut access.record;
        record.protocol = speech.name();
        record.method = Some(parts.method.clone());
        record.grpc = is_grpc(&parts.headers);
        record.path = Some(parts.uri.path().to_owned());
        if parts.method == Method::CONNECT {
            return Err(Refusal::ConnectNotAllowed("an application that is redirected needs no proxy"));
        }
        if verdict == Verdict::Doubtful {
            return Err(BadRequest::TwoLengths.into());
        }
        let line = line_authority(&parts.uri)?;
        let named = named_host(parts.version, line, &parts.headers)?.map(str::to_owned);
        record.authority.clone_from(&named);
        strip_hop_by_hop(&mut parts.headers)?;
        strip_reserved(&mut parts.headers);
        access.write_trace(&mut parts.headers);
        let Parts { method, uri, headers, mut extensions, .. } = parts;
        let spelling = Spelling::take(&mut extensions);
        let is_named = named.is_some();
        let host = named.unwrap_or_else(|| destination.to_string());
        Ok(Self { speech, method, host, is_named, uri, headers, protocol: None, spelling })
    }

    fn named(&self) -> Option<&str> {
        self.is_named.then_some(&self.host)
    }

    fn head(self: Box<Self>, speech: Speech) -> Result<Request<()>, BadRequest> {
        let Self { method, host, uri, headers, spelling, .. } = *self;
        let mut request = assemble(method, host.into(), path_of(uri), headers, speech)?;
        if speech != Speech::Http2 {
            spelling.put(&mut request);
        }
        Ok(request)
    }
}

// Origin form, as it was sent; an absolute form may name a host alone.
fn path_of(target: Uri) -> PathAndQuery {
    target.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"))
}

// It says that it, or somebody behind it, cannot answer now.
fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

// RFC 9113 6.8 and 8.7: streams above GOAWAY's last, and refused ones, were not looked at.
fn was_not_processed(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)
            || error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
}

pub(super) fn finish(answer: Response<Body>, access: &SharedAccess) -> Response<Body> {
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
    Response::from_parts(head, body.ending(SharedAccess::clone(access), length))
}
