//! Real external authorizers: gRPC by tonic, HTTP by hyper, which answer as the test says and remember what they were asked.

use std::{
    cell::RefCell,
    future::{Ready, pending, ready},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use douane_proto::wire;
use douane_proxy::authz::envoy::{CheckRequest, CheckResponse};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
};
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;

use crate::apps::{AnyBody, fed, http1, http2};

/// What a gRPC authorizer was asked; shared with tonic, which wants it to be movable.
pub(crate) type Asked = Arc<Mutex<Vec<CheckRequest>>>;
/// What an HTTP authorizer was asked.
pub(crate) type Heard = Rc<RefCell<Vec<Request<Bytes>>>>;

type Answer = Arc<dyn Fn(&CheckRequest) -> CheckResponse + Send + Sync>;

struct Check {
    asked: Asked,
    answer: Answer,
}

impl UnaryService<CheckRequest> for Check {
    type Response = CheckResponse;
    type Future = Ready<Result<tonic::Response<CheckResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let request = request.into_inner();
        let answer = (self.answer)(&request);
        self.asked.lock().unwrap().push(request);
        ready(Ok(tonic::Response::new(answer)))
    }
}

/// One connection to a gRPC authorizer.
pub(crate) fn grpc(
    answer: impl Fn(&CheckRequest) -> CheckResponse + Send + Sync + 'static,
) -> (Asked, impl Fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Clone) {
    let (asked, answer) = (Asked::default(), Arc::new(answer) as Answer);
    let remembered = Arc::clone(&asked);
    let serve = move |stream| {
        let (asked, answer) = (Arc::clone(&remembered), Arc::clone(&answer));
        Box::pin(http2(stream, move |request: Request<Incoming>| {
            let check = Check { asked: Arc::clone(&asked), answer: Arc::clone(&answer) };
            async move {
                assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
                let codec = ProstCodec::<CheckResponse, CheckRequest>::default();
                whole(Grpc::new(codec).unary(check, request).await).await
            }
        })) as std::pin::Pin<Box<dyn Future<Output = ()>>>
    };
    (asked, serve)
}

async fn whole(answer: Response<tonic::body::Body>) -> Response<AnyBody> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap();
    let (sender, told) = fed();
    let trailers = body.trailers().cloned().unwrap_or_default();
    sender.send(Frame::data(body.to_bytes())).unwrap();
    sender.send(Frame::trailers(trailers)).unwrap();
    Response::from_parts(head, told)
}

/// One connection to an HTTP authorizer.
pub(crate) fn http(
    answer: impl Fn(&Request<Bytes>) -> Response<AnyBody> + 'static,
) -> (Heard, impl Fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Clone) {
    let (heard, answer) = (Heard::default(), Rc::new(answer));
    let remembered = Rc::clone(&heard);
    let serve = move |stream| {
        let (heard, answer) = (Rc::clone(&remembered), Rc::clone(&answer));
        Box::pin(http1(stream, move |request: Request<Incoming>| {
            let (heard, answer) = (Rc::clone(&heard), Rc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                let request = Request::from_parts(head, body.collect().await.unwrap().to_bytes());
                let answer = answer(&request);
                heard.borrow_mut().push(request);
                answer
            }
        })) as std::pin::Pin<Box<dyn Future<Output = ()>>>
    };
    (heard, serve)
}

/// An authorizer that hears and never answers.
pub(crate) fn mute(stream: TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let _held = stream;
        pending::<()>().await;
    })
}

/// Serves without a sidecar; says where.
pub(crate) async fn listen<Served: Future<Output = ()> + 'static>(
    serve: impl Fn(TcpStream) -> Served + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.6.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(serve(stream));
        }
    });
    address
}

/// The law that asks `provider` of what `rule` holds for, and of nothing else.
pub(crate) fn asks(provider: wire::Provider, rule: wire::Rule) -> wire::PolicySet {
    let policy = wire::Policy {
        namespace: "shop".to_owned(),
        name: "ask".to_owned(),
        action: wire::Action::Custom.into(),
        provider: provider.name.clone(),
        rules: vec![rule],
        ..wire::Policy::default()
    };
    wire::PolicySet { policies: vec![policy], providers: vec![provider], ..wire::PolicySet::default() }
}

/// A provider at the host `authz.shop`, port 80. It may take its time, as on a slow machine.
pub(crate) fn provider(protocol: wire::provider::Protocol) -> wire::Provider {
    wire::Provider {
        name: "guard".to_owned(),
        protocol: protocol.into(),
        host: "authz.shop".to_owned(),
        port: 80,
        timeout: 30_000,
        ..wire::Provider::default()
    }
}
