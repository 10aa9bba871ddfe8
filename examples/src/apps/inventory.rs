//! The inventory: gRPC over cleartext HTTP/2, unary and server stream, and gRPC's own question about health, as kubelets ask
//! it. `--breaks-off SKU` is a fault on demand: a watch of this one ends in an error after its first change.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::http2,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::apps::{
    args::Args,
    serve,
    wire::{
        StockReply, StockRequest, WatchRequest,
        inventory_server::{Inventory, InventoryServer},
    },
};

/// A watch sends no faster than this.
const FASTEST: Duration = Duration::from_millis(1);
/// What `grpc.health.v1` calls the question; the answer is one field, and small enough to write by hand.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Not compressed, two bytes long: field 1, `status`, is 1, `SERVING`.
const SERVING: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 1];
/// What a shop of one shelf holds.
const SHELF: u32 = 1000;

/// Serves for ever.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<Infallible> {
    let listen = args.parsed("--listen", String::from("[::]:9090"))?;
    let breaks_off = args.option("--breaks-off")?;
    args.end()?;

    let service = InventoryServer::new(Shelf { breaks_off, ..Shelf::default() });
    let listener = serve::listen(&listen).await?;
    serve::accept(listener, move |stream, peer| {
        let service = TowerToHyperService::new(service.clone());
        let service = service_fn(move |request: http::Request<Incoming>| {
            let service = service.clone();
            async move {
                match request.uri().path() {
                    HEALTH => Ok(healthy()),
                    _ => service.call(request).await,
                }
            }
        });
        async move {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(err) = connection.await {
                eprintln!("connection of {peer}: {err}");
            }
        }
    })
    .await
}

fn healthy() -> http::Response<tonic::body::Body> {
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from_static(&SERVING)).with_trailers(async { Some(Ok(trailers)) });
    let mut answer = http::Response::new(tonic::body::Body::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

#[derive(Debug, Default)]
struct Shelf {
    breaks_off: Option<String>,
    revision: AtomicU64,
}

impl Shelf {
    fn look(&self, sku: String) -> StockReply {
        let revision = self.revision.fetch_add(1, Ordering::Relaxed) + 1;
        let taken = u32::try_from(revision % u64::from(SHELF)).unwrap_or_default();
        StockReply { sku, available: SHELF - taken, revision }
    }
}

#[tonic::async_trait]
impl Inventory for Shelf {
    async fn stock(&self, request: Request<StockRequest>) -> Result<Response<StockReply>, Status> {
        let sku = request.into_inner().sku;
        if sku.is_empty() {
            return Err(Status::invalid_argument("a sku, please"));
        }
        Ok(Response::new(self.look(sku)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<StockReply, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { sku, updates, interval_ms } = request.into_inner();
        let breaks_off = self.breaks_off.as_ref() == Some(&sku);
        let mut next = self.look(sku);
        let every = Duration::from_millis(interval_ms.into()).max(FASTEST);
        let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(every));
        let changes = ticks.map(move |_| {
            let now = next.clone();
            next.revision += 1;
            Ok(now)
        });
        let wanted = if updates == 0 { usize::MAX } else { usize::try_from(updates).unwrap_or(usize::MAX) };
        if breaks_off {
            let fault = Err(Status::internal("the shelf fell down"));
            return Ok(Response::new(Box::pin(changes.take(1).chain(tokio_stream::once(fault)))));
        }
        Ok(Response::new(Box::pin(changes.take(wanted))))
    }
}
