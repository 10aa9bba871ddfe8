//! Which service a request is for. tonic's own router would bring a web framework along.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use douane_proto::workload_api::{DESCRIPTORS, spiffe_workload_api_server::SpiffeWorkloadApiServer};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::{Status, body::Body, server::NamedService};
use tonic_reflection::server::{
    Builder, Error,
    v1::{ServerReflection, ServerReflectionServer},
    v1alpha::{ServerReflection as OldServerReflection, ServerReflectionServer as OldServerReflectionServer},
};
use tower_service::Service;

use super::service::WorkloadApi;

/// A JWT to validate is the largest thing that is asked with.
const MAX_REQUEST_BYTES: usize = 32 * 1024;
/// Until the head of an answer: an application's first certificate may take an attempt or two.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Every service of the socket but the Workload API, of which each connection has its own. Cheap to clone.
pub(super) struct Doors<R, O> {
    reflection: ServerReflectionServer<R>,
    old_reflection: OldServerReflectionServer<O>,
}

// Whatever the two are.
impl<R, O> Clone for Doors<R, O> {
    fn clone(&self) -> Self {
        Self { reflection: self.reflection.clone(), old_reflection: self.old_reflection.clone() }
    }
}

/// Opens them.
///
/// # Errors
/// Never for the descriptors that are compiled in.
pub(super) fn open() -> Result<Doors<impl ServerReflection, impl OldServerReflection>, Error> {
    let builder = || Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    Ok(Doors {
        reflection: builder().build_v1()?.max_decoding_message_size(MAX_REQUEST_BYTES),
        // What most tools still ask first.
        old_reflection: builder().build_v1alpha()?.max_decoding_message_size(MAX_REQUEST_BYTES),
    })
}

impl<R: ServerReflection, O: OldServerReflection> Doors<R, O> {
    /// Answers within bounded time.
    pub(super) async fn answer<B>(mut self, api: WorkloadApi, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        // "/Service/Method"
        let named = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
        let answer = async move {
            if named == <SpiffeWorkloadApiServer<WorkloadApi> as NamedService>::NAME {
                let mut api = SpiffeWorkloadApiServer::new(api).max_decoding_message_size(MAX_REQUEST_BYTES);
                whole(api.call(request).await)
            } else if named == <ServerReflectionServer<R> as NamedService>::NAME {
                whole(self.reflection.call(request).await)
            } else if named == <OldServerReflectionServer<O> as NamedService>::NAME {
                whole(self.old_reflection.call(request).await)
            } else {
                Status::unimplemented("there is no such service").into_http()
            }
        };
        tokio::time::timeout(ANSWER_LIMIT, answer)
            .await
            .unwrap_or_else(|_| Status::unavailable("no answer in time, come back").into_http())
    }
}

fn whole(answer: Result<Response<Body>, Infallible>) -> Response<Body> {
    match answer {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}
