//! A plain HTTP/1.1 client for one host: keeps connections and uses them again. Knows no route.

use std::{sync::Mutex, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// From the first packet to a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// From a request to the end of its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that an answer may hold.
const BODY: usize = 4 * 1024 * 1024;
/// Connections kept for later.
const KEPT: usize = 32;

/// A client for one `http://host[:port]`.
#[derive(Debug)]
pub(crate) struct Client {
    authority: String,
    address: String,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// For the host of this URL; its path does not matter.
    pub(crate) fn to(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("the URL {url}"))?;
        if uri.scheme_str() != Some("http") {
            bail!("{url}: only http:// is spoken here");
        }
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        Ok(Self { authority: authority.to_string(), address, idle: Mutex::default() })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        timeout(ANSWER, self.exchange(method, path, headers, body))
            .await
            .with_context(|| format!("{}: no answer within {ANSWER:?}", self.authority))?
            .with_context(|| self.authority.clone())
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        loop {
            let kept = self.take_idle();
            let reused = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let request = self.request(method, path, headers, body)?;
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    let (head, body) = answer.into_parts();
                    let body = Limited::new(body, BODY)
                        .collect()
                        .await
                        .map_err(|err| anyhow::anyhow!(err))
                        .context("the answer's body")?
                        .to_bytes();
                    self.keep(sender).await;
                    return Ok(Response::from_parts(head, body));
                }
                // The server closed a kept connection before our request was on it: a fresh one is safe.
                Err(err) if reused && err.message().is_some() => {}
                Err(err) => return Err(err.into_error().into()),
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(path).body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        if !headers.contains_key(HOST) {
            request.headers_mut().insert(HOST, HeaderValue::from_str(&self.authority)?);
        }
        Ok(request)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = timeout(CONNECT, TcpStream::connect(&self.address))
            .await
            .with_context(|| format!("not connected within {CONNECT:?}"))?
            .context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end shows at the next request on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().ok()?;
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    async fn keep(&self, mut sender: SendRequest<Full<Bytes>>) {
        if sender.ready().await.is_err() {
            return;
        }
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < KEPT
        {
            idle.push(sender);
        }
    }
}
