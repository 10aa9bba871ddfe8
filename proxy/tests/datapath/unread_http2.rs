//! Answers of an HTTP/2 application that nobody reads: they share a connection to it with everybody else's, and hold up
//! nobody's.

use std::{
    cell::Cell,
    convert::Infallible,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use douane_proto::mesh::Protocol;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::SendRequest,
};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::{
    apps::{AnyBody, client2, full, http2},
    pods::{Shop, run, vip},
    unread::pattern,
};

/// Of each answer: more than all its windows.
const EACH: usize = 1 << 20;
/// Nothing moves for so long: everything that can be filled is full.
const STILL: Duration = Duration::from_millis(400);
/// For an answer of a word, also on a slow machine.
const PROMPT: Duration = Duration::from_secs(20);
/// Of one client on one connection.
const OF_ONE: usize = 75;

/// What the application has given out, and on how many connections it was asked.
#[derive(Clone, Default)]
struct App {
    moved: Arc<AtomicUsize>,
    connections: Rc<Cell<usize>>,
}

impl App {
    async fn serve(self, stream: TcpStream) {
        self.connections.set(self.connections.get() + 1);
        http2(stream, move |request: Request<Incoming>| {
            let moved = Arc::clone(&self.moved);
            async move {
                Response::new(match request.uri().path() {
                    "/slow" => much(moved),
                    _ => full("word"),
                })
            }
        })
        .await;
    }
}

/// As fast as it is taken.
fn much(moved: Arc<AtomicUsize>) -> AnyBody {
    let part = Bytes::from(pattern());
    let parts = stream::iter(0..EACH / part.len()).map(move |_| {
        moved.fetch_add(part.len(), Relaxed);
        Ok::<_, Infallible>(Frame::data(part.clone()))
    });
    StreamBody::new(parts).boxed_unsync()
}

fn get(path: &str) -> Request<AnyBody> {
    Request::get(format!("http://orders{path}")).body(full("")).unwrap()
}

async fn is_prompt(quick: &mut SendRequest<AnyBody>) {
    let answer = async { quick.send_request(get("/")).await.unwrap().into_body().collect().await.unwrap() };
    let answer = timeout(PROMPT, answer).await.expect("it is held up");
    assert_eq!(answer.to_bytes(), "word");
}

async fn stand_still(moved: &AtomicUsize) {
    let (mut before, mut since) = (0, Instant::now());
    while since.elapsed() < STILL {
        tokio::time::sleep(Duration::from_millis(6)).await;
        let now = moved.load(Relaxed);
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

async fn is_whole(answer: Incoming) {
    let told = answer.collect().await.unwrap().to_bytes();
    assert!(told == pattern().repeat(EACH / pattern().len()), "other bytes than were sent");
}

/// So many unread answers of one application beside one that is read; on how many connections it was asked for them.
async fn beside(count: usize) -> usize {
    let app = App::default();
    let serves = app.clone();
    let shop = Shop::open(Protocol::Http2, move |stream| serves.clone().serve(stream)).await;
    let mut quick = client2(shop.web.connect(vip()).await).await;
    // From now on there is a connection that all find.
    is_prompt(&mut quick).await;

    let (mut clients, mut standing) = (Vec::new(), Vec::new());
    for number in 0..count {
        if number % OF_ONE == 0 {
            clients.push(client2(shop.web.connect(vip()).await).await);
        }
        let asked = clients.last_mut().unwrap().send_request(get("/slow"));
        standing.push(timeout(PROMPT, asked).await.expect("it is held up").unwrap().into_body());
    }
    stand_still(&app.moved).await;
    assert!(app.moved.load(Relaxed) < count * EACH, "they do not stand still");
    for _ in 0..10 {
        is_prompt(&mut quick).await;
    }

    let mut reading = JoinSet::new();
    standing.into_iter().for_each(|answer| drop(reading.spawn_local(is_whole(answer))));
    while let Some(read) = reading.join_next().await {
        read.unwrap();
    }
    assert_eq!(app.moved.load(Relaxed), count * EACH);
    is_prompt(&mut quick).await;
    app.connections.get()
}

#[test]
fn seventy_unread_answers_of_an_http2_application_hold_up_nobody_on_the_same_connection() {
    run(async {
        assert_eq!(beside(70).await, 1);
    });
}

#[test]
fn what_is_more_than_one_connection_to_an_http2_application_can_bear_has_another() {
    run(async {
        assert_eq!(beside(130).await, 2);
    });
}
