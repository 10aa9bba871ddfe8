//! Places orders: asks the inventory by gRPC (one answer, then a short stream) and writes the ledger on a connection
//! that it keeps. Speaks HTTP/1.1 to its callers.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tonic::{
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use crate::apps::{
    answer::{self, Answer},
    args::Args,
    carry::trace_headers,
    client::ledger::Ledger,
    serve,
    wire::{StockRequest, WatchRequest, inventory_client::InventoryClient},
};

/// How many changes of the stock an order looks at.
const UPDATES: u32 = 2;
/// A call of the inventory takes no longer.
const CALL: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Order {
    sku: String,
    #[serde(default)]
    note: String,
}

struct Orders {
    inventory: InventoryClient<Channel>,
    ledger: Ledger,
    placed: AtomicU64,
}

/// Serves for ever.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<Infallible> {
    let listen = args.parsed("--listen", String::from("[::]:8080"))?;
    let inventory = Endpoint::from_shared(args.required("--inventory")?)?.connect_timeout(CALL).timeout(CALL);
    let ledger = Ledger::at(args.required("--ledger")?);
    args.end()?;

    let orders = Arc::new(Orders {
        inventory: InventoryClient::new(inventory.connect_lazy()),
        ledger,
        placed: AtomicU64::new(0),
    });
    let listener = serve::listen(&listen).await?;
    serve::http(listener, move |request| route(Arc::clone(&orders), request)).await
}

async fn route(orders: Arc<Orders>, request: Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/orders") => {
            answer::json(StatusCode::OK, &json!({ "placed": orders.placed.load(Ordering::Relaxed) }))
        }
        (&Method::POST, "/orders") => place(&orders, request).await,
        (_, "/orders") => answer::error(StatusCode::METHOD_NOT_ALLOWED, "GET or POST"),
        (_, path) => answer::error(StatusCode::NOT_FOUND, format!("no page {path}")),
    }
}

async fn place(orders: &Orders, request: Request<Incoming>) -> Answer {
    let trace = trace_headers(request.headers());
    let order = match serve::body(request).await.and_then(|body| Ok(serde_json::from_slice::<Order>(&body)?))
    {
        Ok(order) => order,
        Err(err) => {
            return answer::error(StatusCode::BAD_REQUEST, format!("an order in JSON, please: {err:#}"));
        }
    };
    match orders.place(&order, &trace).await {
        Ok(placed) => placed,
        Err(err) => answer::error(StatusCode::BAD_GATEWAY, format!("{err:#}")),
    }
}

impl Orders {
    async fn place(&self, order: &Order, trace: &HeaderMap) -> anyhow::Result<Answer> {
        let available = self.stock(&order.sku, trace).await.context("inventory: stock")?;
        let seen = self.watch(&order.sku, trace).await.context("inventory: watch")?;
        let number = self.placed.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = format!("order {number} of {}: {}", order.sku, order.note.replace('\n', " "));
        let entry = self.ledger.enter(&entry).await.context("ledger")?;
        let placed = json!({ "order": number, "available": available, "seen": seen, "ledger_entry": entry });
        Ok(answer::json(StatusCode::OK, &placed))
    }

    async fn stock(&self, sku: &str, trace: &HeaderMap) -> anyhow::Result<u32> {
        let question = carrying(StockRequest { sku: sku.to_owned() }, trace);
        Ok(self.inventory.clone().stock(question).await?.into_inner().available)
    }

    async fn watch(&self, sku: &str, trace: &HeaderMap) -> anyhow::Result<u32> {
        let question = WatchRequest { sku: sku.to_owned(), updates: UPDATES, interval_ms: 1 };
        let mut changes = self.inventory.clone().watch(carrying(question, trace)).await?.into_inner();
        let mut seen = 0;
        while changes.message().await?.is_some() {
            seen += 1;
        }
        Ok(seen)
    }
}

/// A gRPC request that carries the trace headers.
fn carrying<T>(message: T, trace: &HeaderMap) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(trace.clone());
    request
}
