//! gRPC services behind one port, told apart by the path. tonic's own router would bring a web framework along.
//!
//! Knows none of the services.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body, codegen::BoxFuture, server::NamedService};
use tower_service::Service;

/// Hands a request to the service that its path names, and any other to the rest.
#[derive(Debug, Clone)]
pub struct Either<A, B> {
    first: A,
    rest: B,
}

/// The end of the row: what nobody serves is answered with `UNIMPLEMENTED`.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl<A: NamedService, B> Either<A, B> {
    /// Puts a service before others.
    pub fn new(first: A, rest: B) -> Self {
        Self { first, rest }
    }
}

impl<A, B> Service<Request<Body>> for Either<A, B>
where
    A: Rpc + NamedService,
    B: Rpc,
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
        if named == A::NAME { self.first.call(request) } else { self.rest.call(request) }
    }
}

impl Service<Request<Body>> for Nobody {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
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
