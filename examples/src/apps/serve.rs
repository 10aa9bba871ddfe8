//! A plain HTTP/1.1 server: keep-alive, one task for each connection. Knows no route.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::apps::answer::Answer;

/// A request head that takes longer than this is given up.
const HEAD: Duration = Duration::from_secs(30);
/// The shop's orders are small: a body is at most 1 MiB.
const BODY: usize = 1024 * 1024;

/// Listens; an IPv6 wildcard takes IPv4 as well.
pub(crate) async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    println!("listening on {}", listener.local_addr()?);
    Ok(listener)
}

/// Accepts for ever and hands each connection to its own task.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) -> anyhow::Result<Infallible>
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A failed option costs latency, nothing else.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, peer));
            }
            Err(err) => {
                // Out of descriptors or a connection gone again: the next one may do.
                eprintln!("accept: {err}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves HTTP/1.1 by one function from request to answer.
pub(crate) async fn http<F, Fut>(listener: TcpListener, handler: F) -> anyhow::Result<Infallible>
where
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let handler = Arc::new(handler);
    accept(listener, move |stream, peer| {
        let handler = Arc::clone(&handler);
        async move {
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(err) = connection.await
                && !err.is_timeout()
                && !err.is_incomplete_message()
            {
                eprintln!("connection of {peer}: {err}");
            }
        }
    })
    .await
}

/// The whole body of a request, within bounds.
pub(crate) async fn body(request: Request<Incoming>) -> anyhow::Result<Bytes> {
    let body = Limited::new(request.into_body(), BODY).collect().await.map_err(|err| anyhow::anyhow!(err))?;
    Ok(body.to_bytes())
}
