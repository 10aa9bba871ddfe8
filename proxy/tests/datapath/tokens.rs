//! Tokens of requests over the wire: what an application and a client see of them.

use std::time::{SystemTime, UNIX_EPOCH};

use douane_proto::{mesh::Protocol, wire};
use http::{Request, Response};
use hyper::body::Incoming;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};

use crate::{
    apps::{client1, client2, echo_stream, full, http1, http2, mirror},
    pods::{Shop, run, vip},
};

/// Who signs tokens.
struct Issuer(EncodingKey);

impl Issuer {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self(EncodingKey::from_ec_der(&pair.serialize_der()))
    }

    fn law(&self, rule: wire::JwtRule) -> wire::PolicySet {
        let key = Jwk::from_encoding_key(&self.0, Algorithm::ES256).unwrap();
        let rule =
            wire::JwtRule { issuer: "lab".to_owned(), jwks: json!({"keys": [key]}).to_string(), ..rule };
        let tokens = wire::RequestAuthentication {
            namespace: "shop".to_owned(),
            name: "tokens".to_owned(),
            rules: vec![rule],
            ..wire::RequestAuthentication::default()
        };
        wire::PolicySet { authentications: vec![tokens], ..wire::PolicySet::default() }
    }

    fn token(&self, seconds_left: i64, more: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": "lab", "sub": "ann", "exp": now.strict_add_signed(seconds_left)});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        encode(&Header::new(Algorithm::ES256), &claims, &self.0).unwrap()
    }
}

async fn ask(shop: &Shop, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let mut request = Request::get(path).header("host", "orders.shop:80");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut client = client1(shop.web.connect(vip()).await).await;
    client.send_request(request.body(full("")).unwrap()).await.unwrap()
}

fn told<'a>(answer: &'a Response<Incoming>, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn a_bad_token_gets_401_with_a_challenge_and_none_passes() {
    run(async {
        let (shop, issuer) =
            (Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await, Issuer::new());
        shop.orders.rule_by(issuer.law(wire::JwtRule::default()));
        let expired = format!("Bearer {}", issuer.token(-600, &json!({})));
        let foreign = format!("Bearer {}", Issuer::new().token(600, &json!({})));

        for bad in ["Bearer x.y.z", &expired, &foreign] {
            let refused = ask(&shop, "/a", &[("authorization", bad)]).await;
            assert_eq!(refused.status().as_u16(), 401);
            let challenge = "Bearer realm=\"orders.shop:80\", error=\"invalid_token\"";
            assert_eq!(told(&refused, "www-authenticate"), Some(challenge));
            assert_eq!(told(&refused, "content-length"), Some("0"), "the body tells nothing");
        }
        assert_eq!(ask(&shop, "/a", &[]).await.status().as_u16(), 200);
        shop.orders.has_refused("token_invalid", 3).await;
    });
}

#[test]
fn a_token_for_somebody_else_gets_403() {
    run(async {
        let (shop, issuer) =
            (Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await, Issuer::new());
        let audiences = vec!["orders".to_owned()];
        shop.orders.rule_by(issuer.law(wire::JwtRule { audiences, ..wire::JwtRule::default() }));

        for (audience, expected) in [("orders", 200), ("ledger", 403)] {
            let token = format!("Bearer {}", issuer.token(600, &json!({"aud": audience})));
            let answer = ask(&shop, "/a", &[("authorization", &token)]).await;
            assert_eq!(answer.status().as_u16(), expected, "{audience}");
        }
        shop.orders.has_refused("token_audience", 1).await;
    });
}

#[test]
fn a_bad_token_of_a_grpc_call_gets_a_grpc_status() {
    run(async {
        let (shop, issuer) =
            (Shop::open(Protocol::Grpc, |stream| http2(stream, echo_stream)).await, Issuer::new());
        shop.orders.rule_by(issuer.law(wire::JwtRule::default()));
        let request = Request::post("http://orders/shop.Inventory/Get")
            .header("content-type", "application/grpc")
            .header("authorization", "Bearer x.y.z");
        let mut client = client2(shop.web.connect(vip()).await).await;

        let answer = client.send_request(request.body(full("")).unwrap()).await.unwrap();

        assert_eq!(told(&answer, "grpc-status"), Some("16"));
    });
}

#[test]
fn the_application_sees_no_token_but_the_claims_that_a_rule_names() {
    run(async {
        let (shop, issuer) =
            (Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await, Issuer::new());
        let claim = wire::ClaimHeader { header: "x-user".to_owned(), claim: "sub".to_owned() };
        let rule = wire::JwtRule { output_claim_to_headers: vec![claim], ..wire::JwtRule::default() };
        shop.orders.rule_by(issuer.law(rule.clone()));
        let token = issuer.token(600, &json!({}));
        let bearer = format!("Bearer {token}");

        let answer = ask(&shop, "/a", &[("authorization", &bearer), ("x-user", "root")]).await;
        assert_eq!(told(&answer, "x-told-authorization"), None);
        assert_eq!(told(&answer, "x-told-x-user"), Some("ann"));
        let answer = ask(&shop, &format!("/a?b=1&access_token={token}"), &[]).await;
        assert_eq!(told(&answer, "x-request"), Some("GET /a?b=1 HTTP/1.1"));
        let answer = ask(&shop, "/a", &[("x-user", "root")]).await;
        assert_eq!(told(&answer, "x-told-x-user"), None, "without a token nobody is root either");

        shop.orders.rule_by(issuer.law(wire::JwtRule { forward_original_token: true, ..rule }));
        let answer = ask(&shop, "/a", &[("authorization", &bearer)]).await;
        assert_eq!(told(&answer, "x-told-authorization"), Some(&*bearer));
    });
}

#[test]
fn a_policy_decides_by_the_token() {
    run(async {
        let (shop, issuer) =
            (Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await, Issuer::new());
        let source =
            wire::Source { request_principals: vec!["lab/ann".to_owned()], ..wire::Source::default() };
        let policy = wire::Policy {
            namespace: "shop".to_owned(),
            name: "only-ann".to_owned(),
            rules: vec![wire::Rule { from: vec![source], ..wire::Rule::default() }],
            ..wire::Policy::default()
        };
        let law = issuer.law(wire::JwtRule::default());
        shop.orders.rule_by(wire::PolicySet { policies: vec![policy], ..law });

        for (subject, expected) in [("ann", 200), ("bob", 403)] {
            let token = format!("Bearer {}", issuer.token(600, &json!({"sub": subject})));
            let answer = ask(&shop, "/a", &[("authorization", &token)]).await;
            assert_eq!(answer.status().as_u16(), expected, "{subject}");
        }
        assert_eq!(ask(&shop, "/a", &[]).await.status().as_u16(), 403);
    });
}
