//! Two gRPC services behind one port, told apart by the path. tonic's own router would bring a web framework along.
//!
//! Knows neither service.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body, codegen::BoxFuture, server::NamedService};
use tower_service::Service;

/// Hands a request to the service that its path names; any other is answered with `UNIMPLEMENTED`.
#[derive(Debug, Clone)]
pub struct Both<A, B> {
    first: A,
    second: B,
}

impl<A: NamedService, B: NamedService> Both<A, B> {
    /// Joins two services.
    pub fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A, B> Service<Request<Body>> for Both<A, B>
where
    A: Rpc + NamedService,
    B: Rpc + NamedService,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // "/package.Service/Method"
        let named = request.uri().path().split('/').nth(1).unwrap_or_default();
        if named == A::NAME {
            return self.first.call(request);
        }
        if named == B::NAME {
            return self.second.call(request);
        }
        Box::pin(async { Ok(Status::unimplemented("there is no such service").into_http()) })
    }
}

/// What tonic generates for a service.
pub trait Rpc:
    Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future = BoxFuture<Response<Body>, Infallible>,
    >
{
}

impl<T> Rpc for T where
    T: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        >
{
}
