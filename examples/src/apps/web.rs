//! The shop's front: `GET /checkout` places an order. Speaks HTTP/1.1 on both sides.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header::CONTENT_TYPE};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::apps::{
    answer::{self, Answer},
    args::Args,
    call::Client,
    carry::trace_headers,
    serve,
};

/// Serves for ever.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<Infallible> {
    let listen = args.parsed("--listen", String::from("[::]:8080"))?;
    let orders = Arc::new(Client::to(&args.required("--orders")?)?);
    args.end()?;

    let listener = serve::listen(&listen).await?;
    serve::http(listener, move |request| route(Arc::clone(&orders), request)).await
}

async fn route(orders: Arc<Client>, request: Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/checkout") => checkout(&orders, &request).await,
        (_, "/checkout") => answer::error(StatusCode::METHOD_NOT_ALLOWED, "a checkout is a GET here"),
        (_, path) => answer::error(StatusCode::NOT_FOUND, format!("no page {path}")),
    }
}

async fn checkout(orders: &Client, request: &Request<Incoming>) -> Answer {
    let sku = query(request.uri(), "sku").unwrap_or("teapot");
    let note = query(request.uri(), "note").unwrap_or_default();
    let order = json!({ "sku": sku, "note": note });
    let mut headers = trace_headers(request.headers());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));

    match orders.send(&Method::POST, "/orders", &headers, &Bytes::from(order.to_string())).await {
        Ok(placed) => {
            let status = placed.status();
            let said = serde_json::from_slice::<Value>(placed.body())
                .unwrap_or_else(|_| String::from_utf8_lossy(placed.body()).into());
            answer::json(
                status,
                &json!({ "served_by": "web", "orders": { "status": status.as_u16(), "said": said } }),
            )
        }
        Err(err) => answer::error(StatusCode::BAD_GATEWAY, format!("{err:#}")),
    }
}

/// A query parameter as it stands; the shop's values need no escapes.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}
