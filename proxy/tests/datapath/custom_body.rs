//! CUSTOM policies and bodies: how much of one an external authorizer sees, and that the application gets all of it.

use douane_proto::{mesh::Protocol, wire::provider::Protocol as Speaks};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Frame;

use crate::{
    apps::{client2, fed, full, http2, mirror},
    authorizer::{asks, http, listen, provider},
    custom::{finds, guarded, post, shop, text},
    pods::{Shop, run, vip},
};

#[test]
fn an_authorizer_sees_as_much_of_a_body_as_its_settings_permit_and_the_application_all() {
    run(async {
        let shop = shop().await;
        let (heard, serve) = http(|_| Response::new(full("")));
        finds(&shop, listen(serve).await);
        let ask = |most, partial| {
            let mut guard = provider(Speaks::Http);
            (guard.max_request_bytes, guard.allow_partial_message) = (most, partial);
            shop.orders.rule_by(asks(guard, guarded()));
        };

        for (most, partial, expected, seen) in
            [(9, false, 200, "ten bytes"), (4, true, 200, "ten "), (4, false, 413, "")]
        {
            ask(most, partial);
            heard.borrow_mut().clear();
            let answer = post(&shop, "/guarded", "ten bytes").await;
            assert_eq!(answer.status().as_u16(), expected);
            if expected == 200 {
                assert_eq!(text(answer).await, "ten bytes");
                let heard = heard.borrow();
                assert_eq!(heard[0].body(), seen);
                let is_partial = &heard[0].headers()["x-envoy-auth-partial-body"];
                assert_eq!(is_partial, if partial { "true" } else { "false" });
            }
        }
        shop.orders.has_refused("body_too_large", 1).await;
    });
}

#[test]
fn what_follows_a_body_that_an_authorizer_saw_reaches_the_application() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, mirror)).await;
        let (heard, serve) = http(|_| Response::new(full("")));
        finds(&shop, listen(serve).await);
        for (most, partial, seen) in [(100, false, "ten bytes"), (4, true, "ten ")] {
            let mut guard = provider(Speaks::Http);
            (guard.max_request_bytes, guard.allow_partial_message) = (most, partial);
            shop.orders.rule_by(asks(guard, guarded()));
            let mut client = client2(shop.web.connect(vip()).await).await;
            let (feed, body) = fed();
            let request = Request::post("http://orders/guarded").body(body).unwrap();
            for part in ["ten", " bytes"] {
                feed.send(Frame::data(part.into())).unwrap();
            }
            feed.send(Frame::trailers(
                [("x-sum".parse().unwrap(), "9".parse().unwrap())].into_iter().collect(),
            ))
            .unwrap();
            drop(feed);

            let answer = client.send_request(request).await.unwrap();

            assert_eq!(answer.status().as_u16(), 200);
            let whole = answer.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["x-sum"], "9");
            assert_eq!(whole.to_bytes(), "ten bytes");
            assert_eq!(heard.borrow_mut().pop().unwrap().body(), seen);
        }
    });
}
