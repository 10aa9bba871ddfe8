//! The external authorizer of a case: a real one on loopback that says what the case wants it to say. Of a case that
//! says nothing there is none, so that whoever asks learns that nobody answers.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use douane_proto::{
    mesh::{Dialect, Endpoint, Port, Protocol, Service, Workload},
    policy::Answer,
    snapshot::{Found, Question},
    wire::{self, provider::Protocol as Speaks},
};
use douane_proxy::authz::envoy::{CheckResponse, Status};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{body::Incoming, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

/// google.rpc.Code (google/rpc/code.proto).
const PERMISSION_DENIED: i32 = 7;
/// Where it is looked for.
const PORT: u16 = 80;

/// Starts what `providers` need, points them there, and says what the sidecar finds where.
pub(crate) async fn serve(
    providers: &mut [wire::Provider],
    answer: Option<&Answer>,
    template: &Workload,
) -> HashMap<Question, Found> {
    let mut found = HashMap::new();
    for provider in providers {
        provider.host = format!("{}.authorizers", provider.name.to_ascii_lowercase());
        provider.port = PORT.into();
        let at = match answer {
            Some(Answer::Allow) => listen(provider.protocol(), Verdict::Allow).await,
            Some(Answer::Deny) => listen(provider.protocol(), Verdict::Deny).await,
            // Nobody listens on port 1.
            Some(Answer::Failed(_)) | None => SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        found.insert(Question::Host(provider.host.clone()), service(&provider.host, at, template));
    }
    found
}

#[derive(Clone, Copy)]
enum Verdict {
    Allow,
    Deny,
}

fn service(host: &str, at: SocketAddr, template: &Workload) -> Found {
    let workload = Workload {
        name: "authorizer".to_owned(),
        addresses: vec![at.ip()],
        dialect: Dialect::Plain,
        ports: Vec::new(),
        ..template.clone()
    };
    Found::Service(Arc::new(Service {
        namespace: "authorizers".to_owned(),
        name: host.to_owned(),
        hosts: vec![host.to_owned()],
        addresses: Vec::new(),
        ports: vec![Port { number: PORT, protocol: Protocol::Undeclared, name: String::new() }],
        endpoints: vec![Endpoint {
            workload: Arc::new(workload),
            targets: BTreeMap::from([(PORT, at.port())]),
        }],
    }))
}

async fn listen(speaks: Speaks, verdict: Verdict) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(async move {
                match speaks {
                    Speaks::Grpc => grpc(stream, verdict).await,
                    Speaks::Http => http(stream, verdict).await,
                }
            });
        }
    });
    address
}

async fn http(stream: TcpStream, verdict: Verdict) {
    let answer = service_fn(move |_: Request<Incoming>| async move {
        let mut answer = Response::new(Empty::<Bytes>::new());
        *answer.status_mut() = match verdict {
            Verdict::Allow => StatusCode::OK,
            Verdict::Deny => StatusCode::FORBIDDEN,
        };
        Ok::<_, Infallible>(answer)
    });
    let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn grpc(stream: TcpStream, verdict: Verdict) {
    let answer = service_fn(move |_: Request<Incoming>| async move {
        let code = match verdict {
            Verdict::Allow => 0,
            Verdict::Deny => PERMISSION_DENIED,
        };
        let status = Some(Status { code, ..Status::default() });
        let message = CheckResponse { status, ..CheckResponse::default() }.encode_to_vec();
        // Length-prefixed-message of gRPC over HTTP/2: not compressed, then its length.
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.extend_from_slice(&message);
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let body = Full::new(body.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
        let answer = Response::builder().header("content-type", "application/grpc");
        Ok::<_, Infallible>(answer.body(body).unwrap())
    });
    let http2 = server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = http2.serve_connection(TokioIo::new(stream), answer).await;
}
