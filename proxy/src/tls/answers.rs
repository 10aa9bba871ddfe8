//! gRPC's answers without what could end us: tonic panics at `grpc-status-details-bin` that is no base64, and whoever answers
//! chooses it. Nobody here reads details, so they are taken out of every head and of all trailers, before tonic sees them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderName, Response};
use http_body::{Body, Frame, SizeHint};
use tower_service::Service;

/// A service whose answers are harmless.
#[derive(Debug, Clone)]
pub struct Harmless<S>(pub S);

/// An answer on its way.
#[derive(Debug)]
pub struct Answering<F>(Pin<Box<F>>);

/// What remains to come of an answer.
#[derive(Debug)]
pub struct Rest<B>(Pin<Box<B>>);

const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

fn disarm(headers: &mut HeaderMap) {
    headers.remove(&DETAILS);
}

impl<S, R, B> Service<R> for Harmless<S>
where
    S: Service<R, Response = Response<B>>,
{
    type Response = Response<Rest<B>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        Answering(Box::pin(self.0.call(request)))
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Rest<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = ready!(self.0.as_mut().poll(cx))?;
        disarm(answer.headers_mut());
        Poll::Ready(Ok(answer.map(|body| Rest(Box::pin(body)))))
    }
}

impl<B: Body> Body for Rest<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(self.0.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    disarm(trailers);
                }
                frame
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::Ready};

    use bytes::Bytes;
    use douane_proto::wire::{
        IssueRequest, IssueTokenRequest, discovery_client::DiscoveryClient, identity_client::IdentityClient,
    };
    use http::Request;
    use http_body_util::{BodyExt as _, Full};
    use tonic::{Code, Status};

    use super::*;

    /// A server that puts `details` where tonic reads them.
    #[derive(Clone)]
    enum Hostile {
        InHeaders,
        InTrailers,
    }

    type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

    impl Service<Request<tonic::body::Body>> for Hostile {
        type Response = Response<Answer>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<tonic::body::Body>) -> Self::Future {
            let mut ends = HeaderMap::new();
            for (name, value) in [
                ("grpc-status", "7"),
                ("grpc-message", "not you"),
                ("grpc-status-details-bin", "%%% this is no base64 %%%"),
            ] {
                ends.insert(name, value.parse().unwrap());
            }
            let mut answer = Response::new(Full::new(Bytes::new()).boxed_unsync());
            answer.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            match self {
                Self::InHeaders => answer.headers_mut().extend(ends),
                Self::InTrailers => {
                    let trailers = async move { Some(Ok(ends)) };
                    *answer.body_mut() = Full::new(Bytes::new()).with_trailers(trailers).boxed_unsync();
                }
            }
            std::future::ready(Ok(answer))
        }
    }

    fn is_refused<T>(answer: Result<T, Status>) {
        let Err(status) = answer else { panic!("it said no") };
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not you"));
        assert!(status.details().is_empty());
    }

    #[tokio::test]
    async fn details_that_are_no_base64_refuse_a_call_and_end_nobody() {
        for hostile in [Hostile::InHeaders, Hostile::InTrailers] {
            let mut identity = IdentityClient::new(Harmless(hostile.clone()));
            is_refused(identity.issue(IssueRequest::default()).await);
            is_refused(identity.issue_token(IssueTokenRequest::default()).await);
            let watched = DiscoveryClient::new(Harmless(hostile)).watch(tokio_stream::empty()).await;
            match watched {
                Ok(answers) => is_refused(answers.into_inner().message().await),
                refused => is_refused(refused),
            }
        }
    }

    #[tokio::test]
    async fn tonic_alone_still_panics_at_them() {
        let mut alone = IdentityClient::new(Hostile::InHeaders);
        let call = tokio::spawn(async move { alone.issue(IssueRequest::default()).await });
        assert!(call.await.is_err_and(|ended| ended.is_panic()), "then this room is not needed any more");
    }
}
