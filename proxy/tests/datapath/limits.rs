//! What others may make a sidecar hold, and that nobody pays for what another one holds.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use douane_proto::mesh::{Endpoint, Protocol};
use douane_proxy::{config::Limits, limits::pressure::Pressure};
use h2::{client::SendRequest, ext};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::Semaphore, task::spawn_local};

use crate::{
    apps::{client1, client2, full, greet_and_echo, http1, http2},
    pods::{Nobody, Pod, Shop, eventually, run, vip},
    stranger::{http11, stranger_called},
};

async fn counted(pod: &Pod, label: &str) {
    eventually(label, || pod.refused(label) > 0).await;
}

/// An application that answers only when it is given leave.
async fn patient(limits: Limits, protocol: Protocol) -> (Shop, Rc<Semaphore>) {
    let leave = Rc::new(Semaphore::new(0));
    let asked = Rc::clone(&leave);
    let shop = Shop::open_with(limits, protocol, move |stream| {
        let asked = Rc::clone(&asked);
        async move {
            let app = move |_: Request<Incoming>| {
                let asked = Rc::clone(&asked);
                async move {
                    asked.acquire().await.unwrap().forget();
                    http::Response::new(full("at last"))
                }
            };
            match protocol {
                Protocol::Http2 => http2(stream, app).await,
                _ => http1(stream, app).await,
            }
        }
    })
    .await;
    (shop, leave)
}

/// The status of an answer to a request of `peer`; 0 where there is none.
async fn status(peer: &SendRequest<Bytes>, method: Method) -> u16 {
    let Ok(mut peer) = peer.clone().ready().await else { return 0 };
    let Ok((answer, _)) = peer.send_request(http11(method, "/"), true) else { return 0 };
    answer.await.map_or(0, |answer| answer.status().as_u16())
}

#[test]
fn one_identity_at_full_blast_leaves_places_and_time_to_others() {
    run(async {
        let limits = Limits { in_flight: 16, queue: 4, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Http1, |stream| {
            http1(stream, |_: Request<Incoming>| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                http::Response::new(full("done"))
            })
        })
        .await;
        let modest = stranger_called(&shop, "modest").await;
        let alone = latencies(&modest).await;

        let mut blast = Vec::new();
        let greedy = stranger_called(&shop, "greedy").await;
        for _ in 0..60 {
            let greedy = greedy.clone();
            blast.push(spawn_local(async move {
                loop {
                    // It runs on the same thread, which its mere asking must not use up.
                    if status(&greedy, Method::GET).await != 200 {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }));
        }
        counted(&shop.orders, "share_exceeded").await;
        let beside = latencies(&modest).await;
        blast.iter().for_each(tokio::task::JoinHandle::abort);

        let (alone, beside) = (alone[alone.len() / 2], beside[beside.len() / 2]);
        eprintln!("median alone {alone:?}, beside a flood {beside:?}");
        // Generous, as the flood, both sidecars and whatever else this machine does share its cores.
        assert!(beside < alone * 8 + Duration::from_millis(500), "{alone:?}, {beside:?}");
    });
}

/// How long each of some requests took, in order; all succeed.
async fn latencies(peer: &SendRequest<Bytes>) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(status(peer, Method::GET).await, 200);
        took.push(began.elapsed());
    }
    took.sort();
    took
}

#[test]
fn a_queue_that_does_not_move_is_answered_503_and_one_that_does_is_served() {
    run(async {
        let limits =
            Limits { in_flight: 2, queue: 2, queue_wait: Duration::from_millis(300), ..Limits::default() };
        let (shop, leave) = patient(limits, Protocol::Http1).await;
        let peer = stranger_called(&shop, "stranger").await;
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let peer = peer.clone();
                spawn_local(async move { status(&peer, Method::GET).await })
            })
            .collect();
        counted(&shop.orders, "share_exceeded").await;

        leave.add_permits(4);

        let mut statuses = Vec::new();
        for one in asked {
            statuses.push(one.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses.first(), Some(&200));
        assert_eq!(statuses.last(), Some(&503));
    });
}

#[test]
fn an_application_that_asks_for_more_than_a_destination_bears_is_told_so_at_home() {
    run(async {
        let limits = Limits { in_flight: 2, queue: 0, ..Limits::default() };
        let (shop, leave) = patient(limits, Protocol::Http2).await;
        let client = client2(shop.web.connect(vip()).await).await;
        let ask = || {
            let mut client = client.clone();
            spawn_local(async move {
                let request = Request::get("http://orders/").body(full("")).unwrap();
                let answer = client.send_request(request).await.unwrap();
                (answer.status(), answer.headers().get("retry-after").is_some())
            })
        };
        let held = [ask(), ask()];
        let third = ask().await.unwrap();

        assert_eq!(third, (StatusCode::SERVICE_UNAVAILABLE, true));
        counted(&shop.web, "too_many_in_flight").await;
        leave.add_permits(2);
        let mut told = Vec::new();
        for one in held {
            told.push(one.await.unwrap().0);
        }
        // One identity has one of two places at the other end, and there is no queue either.
        told.sort();
        assert_eq!(told, [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
    });
}

#[test]
fn a_caller_of_grpc_hears_that_the_service_is_unavailable() {
    run(async {
        let limits = Limits { in_flight: 1, queue: 0, ..Limits::default() };
        let (shop, _leave) = patient(limits, Protocol::Http2).await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let request = || {
            let request = Request::post("http://orders/shop.Orders/Place");
            request.header("content-type", "application/grpc").body(full("")).unwrap()
        };
        let _held = spawn_local(client.send_request(request()));
        eventually("the first is in progress", || {
            shop.orders.metrics().contains("douane_active{direction=\"inbound\"} 1")
        })
        .await;

        let answer = client.send_request(request()).await.unwrap();

        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["grpc-status"], "14");
    });
}

#[test]
fn one_peer_has_so_many_connections_and_no_more_and_another_finds_room() {
    run(async {
        let limits = Limits { connections_of_one: 2, ..Limits::default() };
        let shop =
            Shop::open_with(limits, Protocol::Http1, |stream| http1(stream, crate::apps::mirror)).await;
        let greedy = [
            stranger_called(&shop, "greedy").await,
            stranger_called(&shop, "greedy").await,
            stranger_called(&shop, "greedy").await,
        ];
        counted(&shop.orders, "too_many_connections_of_peer").await;

        let modest = stranger_called(&shop, "modest").await;

        assert_eq!(status(&modest, Method::GET).await, 200);
        let mut served = 0;
        for one in &greedy {
            served += u32::from(status(one, Method::GET).await == 200);
        }
        assert_eq!(served, 2);
    });
}

#[test]
fn one_address_has_so_many_connections_before_it_has_said_who_it_is() {
    run(async {
        let limits = Limits { connections_of_one: 2, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Tcp, greet_and_echo).await;
        // All are in the kernel's queue before the first is accepted; none is redirected, so that each soon ends.
        let _held: Vec<_> =
            (0..20).filter_map(|_| std::net::TcpStream::connect(shop.orders.port).ok()).collect();
        counted(&shop.orders, "too_many_connections_of_peer").await;
    });
}

#[test]
fn handshakes_that_do_not_go_on_leave_room_for_those_of_others() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, crate::apps::mirror)).await;
        // As if from one address: half of all handshakes that may be in progress.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..600 {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, source) = listener.accept().await.unwrap();
            let (inbound, pod) = (Rc::clone(&shop.orders.inbound), shop.pod());
            spawn_local(async move { inbound.connection(stream, source, pod).await });
            silent.push(client);
        }
        counted(&shop.orders, "too_many_handshakes").await;
        let reset = silent.last_mut().unwrap().read_u8().await.unwrap_err();
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);

        // From another one.
        let (client, stream) =
            (TcpStream::connect(listener.local_addr().unwrap()).await.unwrap(), listener.accept());
        let stream = stream.await.unwrap().0;
        let (inbound, pod) = (Rc::clone(&shop.orders.inbound), shop.pod());
        spawn_local(async move { inbound.connection(stream, ([127, 0, 0, 9], 1).into(), pod).await });
        let (_, identity) = tokio::sync::watch::channel(shop.ca.identity("stranger", 1));
        let orders = "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap();
        assert!(douane_proxy::tls::Mtls::new(identity).connect(client, &orders).await.is_ok());
    });
}

#[test]
fn one_identity_has_so_many_opaque_streams() {
    run(async {
        let limits = Limits { connections_of_one: 2, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Tcp, greet_and_echo).await;
        let peer = stranger_called(&shop, "greedy").await;
        let mut held = Vec::new();
        let mut told = Vec::new();
        for _ in 0..3 {
            let request = Request::builder().method(Method::CONNECT).uri(format!("http://{}/", shop.pod()));
            let mut request = request.body(()).unwrap();
            request.extensions_mut().insert(ext::Protocol::from_static("douane-tcp"));
            let (answer, stream) = peer.clone().ready().await.unwrap().send_request(request, false).unwrap();
            let answer = answer.await.unwrap();
            told.push(answer.status().as_u16());
            held.push((answer, stream));
        }
        assert_eq!(told, [200, 200, 503]);
        counted(&shop.orders, "share_exceeded").await;
    });
}

/// Their streams' first windows together are several times that of the connection that they share with everybody else.
const SLOW: usize = 20;

#[test]
fn a_client_that_never_reads_its_answers_delays_nobody_else() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| {
            http1(stream, |request: Request<Incoming>| async move {
                let size = if request.uri().path() == "/much" { 8 * 1024 * 1024 } else { 2 };
                http::Response::new(full(vec![0; size]))
            })
        })
        .await;
        let mut quick = client1(shop.web.connect(vip()).await).await;
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            let stream = shop.web.connect(vip()).await;
            stream.try_write(b"GET /much HTTP/1.1\r\nhost: orders\r\n\r\n").unwrap();
            slow.push(stream);
        }
        eventually("their answers have begun", || {
            shop.orders.metrics().contains(&format!("douane_active{{direction=\"inbound\"}} {SLOW}"))
        })
        .await;

        let mut took = Vec::new();
        for _ in 0..50 {
            let request = Request::get("/").header("host", "orders").body(full("")).unwrap();
            let began = Instant::now();
            let answer = quick.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.unwrap();
            quick.ready().await.unwrap();
            took.push(began.elapsed());
        }
        took.sort();
        eprintln!("median beside {SLOW} that do not read: {:?}, worst {:?}", took[25], took[49]);
        assert!(took[25] < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_request_that_takes_longer_than_it_may_in_total_or_rests_too_long_is_answered_504() {
    run(async {
        let usual = Limits::default();
        for (limits, label) in [
            (Limits { request: Some(Duration::from_millis(200)), ..usual }, "request_timeout"),
            (Limits { stream_idle: Duration::from_millis(200), ..usual }, "idle"),
        ] {
            let (shop, _leave) = patient(limits, Protocol::Http1).await;
            let peer = stranger_called(&shop, "stranger").await;

            assert_eq!(status(&peer, Method::GET).await, 504, "{label}");
            counted(&shop.orders, label).await;
        }
    });
}

#[test]
fn a_peer_that_takes_back_what_it_asks_a_hundred_times_a_second_is_hung_up_on() {
    run(async {
        let (shop, _leave) = patient(Limits::default(), Protocol::Http1).await;
        let peer = stranger_called(&shop, "hasty").await;
        let reaches = async |busy: usize| {
            let busy = format!("douane_active{{direction=\"inbound\"}} {busy}\n");
            eventually("so many are in progress", || {
                let metrics = shop.orders.metrics();
                metrics.contains(&busy) || metrics.contains("reset_flood")
            })
            .await;
        };
        'hung_up: for _ in 0..100 {
            let mut begun = Vec::new();
            for _ in 0..50 {
                let Ok(mut peer) = peer.clone().ready().await else { break 'hung_up };
                let Ok(asked) = peer.send_request(http11(Method::GET, "/"), true) else { break 'hung_up };
                begun.push(asked);
            }
            // The other end has begun with them before they are taken back.
            reaches(50).await;
            drop(begun);
            reaches(0).await;
        }
        counted(&shop.orders, "reset_flood").await;
        let other = stranger_called(&shop, "other").await;
        assert!(other.ready().await.is_ok(), "nobody else is hung up on");
    });
}

#[test]
fn without_memory_requests_are_answered_503_and_connections_reset_until_there_is_some() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, crate::apps::mirror)).await;
        let peer = stranger_called(&shop, "stranger").await;
        assert_eq!(status(&peer, Method::GET).await, 200);

        Pressure::High.tell();
        assert_eq!(status(&peer, Method::GET).await, 503);
        counted(&shop.orders, "memory_pressure").await;
        Pressure::Full.tell();
        let shed = async { TcpStream::connect(shop.orders.port).await?.read_u8().await };
        assert!(shed.await.is_err());

        Pressure::Calm.tell();
        assert_eq!(status(&peer, Method::GET).await, 200);
    });
}

#[test]
fn connections_on_which_nothing_happens_are_ended_while_memory_is_short_and_busy_ones_are_not() {
    run(async {
        let (shop, leave) = patient(Limits::default(), Protocol::Http1).await;
        let (idle, busy) = (stranger_called(&shop, "idle").await, stranger_called(&shop, "busy").await);
        let asked = {
            let busy = busy.clone();
            spawn_local(async move { status(&busy, Method::GET).await })
        };
        eventually("it is in progress", || {
            shop.orders.metrics().contains("douane_active{direction=\"inbound\"} 1")
        })
        .await;

        Pressure::Tight.tell();

        let ended = async {
            while idle.clone().ready().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        ended.await;
        leave.add_permits(1);
        assert_eq!(asked.await.unwrap(), 200, "what is in progress is served to its end");
        Pressure::Calm.tell();
        leave.add_permits(1);
        let again = stranger_called(&shop, "idle").await;
        assert_eq!(status(&again, Method::GET).await, 200);
    });
}

#[test]
fn an_endpoint_that_fails_again_and_again_is_left_out_for_a_while() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, crate::apps::mirror)).await;
        let nobody = Nobody::new();
        let address = nobody.address();
        shop.web.change_service(|service, orders| {
            let mut workload = (**orders).clone();
            workload.addresses = vec![address.ip()];
            let targets = [(80, address.port())].into();
            service.endpoints.push(Endpoint { workload: Arc::new(workload), targets });
        });
        let mut client = client1(shop.web.connect(vip()).await).await;
        let ejected = || shop.web.metrics().contains("douane_ejections_total 1");
        for _ in 0..200 {
            let request = Request::get("/").header("host", "orders").body(full("")).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200, "another endpoint answers meanwhile");
            answer.into_body().collect().await.unwrap();
            client.ready().await.unwrap();
            if ejected() {
                break;
            }
        }
        assert!(ejected(), "{}", shop.web.metrics());
    });
}

#[test]
fn an_answer_given_while_draining_says_that_its_connection_ends() {
    run(async {
        let (shop, leave) = patient(Limits::default(), Protocol::Http1).await;
        let mut client = client1(shop.web.connect(vip()).await).await;
        let request = Request::get("/").header("host", "orders").body(full("")).unwrap();
        let answer = spawn_local(client.send_request(request));
        eventually("it is in progress", || {
            shop.orders.metrics().contains("douane_active{direction=\"inbound\"} 1")
        })
        .await;

        shop.orders.shutdown.draining.cancel();
        shop.web.shutdown.draining.cancel();
        leave.add_permits(1);

        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["connection"], "close");
    });
}
