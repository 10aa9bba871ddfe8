//! A request to a server that has no sidecar of ours to end it when neither side says anything more: it ends here.
//!
//! Knows not how it travels. Such a request costs an entry in the list of those that run, and no timer of its own.

use std::{future::poll_fn, pin::pin, task::Poll};

use http::{Request, Response};

use crate::{
    authz::Waits,
    exchange::{body::Body, ledger::SharedAccess},
    outbound::sender::Sender,
    refusal::Refusal,
};

impl Sender {
    /// The answer that `exchange` has for the request, unless both rest too long before, or in, their bodies.
    pub(super) async fn unless_it_rests(
        &self,
        request: Request<Body>,
        access: &SharedAccess,
        exchange: impl AsyncFnOnce(Request<Body>) -> Result<Response<Body>, Refusal>,
    ) -> Result<Response<Body>, Refusal> {
        let one = self.unwatched.ours(access.borrow().record.destination);
        let mut answering = pin!(exchange(request.map(|body| body.cut_with(&one, Waits::Request))));
        let answer = poll_fn(|cx| match one.poll_ended(cx, Waits::Exchange) {
            Poll::Ready(refusal) => Poll::Ready(Err(refusal.clone())),
            Poll::Pending => answering.as_mut().poll(cx),
        });
        Ok(answer.await?.map(|body| body.cut_with(&one, Waits::Answer)))
    }
}
