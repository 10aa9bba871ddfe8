//! Applications and their clients: hyper on both ends, and raw bytes where hyper is too well-bred.

use std::{convert::Infallible, future::Future};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::spawn_local,
};

pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// All of a body at once.
pub(crate) fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body that the test feeds frame by frame; it ends when the sender is dropped.
pub(crate) fn fed() -> (mpsc::UnboundedSender<Frame<Bytes>>, AnyBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame| (Ok(frame), receiver))
    });
    (sender, BodyExt::boxed_unsync(StreamBody::new(stream.boxed())))
}

/// Tells the request back: `method path version`, its headers, then its body; trailers return as trailers.
pub(crate) async fn mirror(request: Request<Incoming>) -> Response<AnyBody> {
    let head = format!("{} {} {:?}", request.method(), request.uri(), request.version());
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let mut response = Response::new(());
    response.headers_mut().insert("x-request", HeaderValue::try_from(head).unwrap());
    for (name, value) in &parts.headers {
        let told = HeaderName::try_from(format!("x-told-{name}")).unwrap();
        response.headers_mut().insert(told, value.clone());
    }
    let bytes = body.to_bytes();
    let Some(trailers) = trailers else { return response.map(|()| full(bytes)) };
    response.headers_mut().insert(http::header::TRAILER, HeaderValue::from_static("x-sum"));
    let (sender, body) = fed();
    sender.send(Frame::data(bytes)).unwrap();
    sender.send(Frame::trailers(trailers)).unwrap();
    response.map(|()| body)
}

/// Answers with the request's own body as it comes, and `grpc-status: 0` behind it.
pub(crate) async fn echo_stream(request: Request<Incoming>) -> Response<AnyBody> {
    let (sender, body) = fed();
    let mut incoming = request.into_body();
    spawn_local(async move {
        while let Some(Ok(frame)) = incoming.frame().await {
            if let Ok(bytes) = frame.into_data() {
                let _ = sender.send(Frame::data(bytes));
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = sender.send(Frame::trailers(trailers));
    });
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body).unwrap()
}

/// Serves HTTP/1.
pub(crate) async fn http1<A, F>(stream: TcpStream, app: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<AnyBody>>,
{
    let service = service_fn(|request| {
        let answer = app(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Serves HTTP/2 with prior knowledge.
pub(crate) async fn http2<A, F>(stream: TcpStream, app: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<AnyBody>> + 'static,
{
    let service = service_fn(|request| {
        let answer = app(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let _ = server::conn::http2::Builder::new(Local).serve_connection(TokioIo::new(stream), service).await;
}

/// Greets first, then tells back what comes, to the end.
pub(crate) async fn greet_and_echo(mut stream: TcpStream) {
    stream.write_all(b"hello ").await.unwrap();
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// An HTTP/1 client on a connection.
pub(crate) async fn client1(stream: TcpStream) -> client::conn::http1::SendRequest<AnyBody> {
    let (send, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    spawn_local(connection);
    send
}

/// An HTTP/2 client on a connection.
pub(crate) async fn client2(stream: TcpStream) -> client::conn::http2::SendRequest<AnyBody> {
    let (send, connection) =
        client::conn::http2::Builder::new(Local).handshake(TokioIo::new(stream)).await.unwrap();
    spawn_local(connection);
    send
}

/// Sends bytes as they are and reads to the end of the connection, or until `until` has come.
pub(crate) async fn raw(stream: &mut TcpStream, bytes: &[u8], until: &str) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut told = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => told.extend_from_slice(&chunk[..read]),
            _ => break,
        }
        if !until.is_empty() && String::from_utf8_lossy(&told).contains(until) {
            break;
        }
    }
    String::from_utf8_lossy(&told).into_owned()
}

#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}
