//! Files of policies as anybody may write them: what the strict reader takes is what the forgiving one reads, without a
//! flaw; and an ALLOW policy that the forgiving one finds flawed lets nothing pass by a flawed rule.
#![no_main]

use std::{path::Path, sync::LazyLock};

use douane_proto::{
    facts::{Facts, RequestFacts, Token},
    id::TrustDomain,
    policy::{Answers, Decision, PolicySet, Trust, decide},
    resource::{Kind, Reading, Resource, ResourceError, doubts, parse_file, read_law},
    target::{PathNormalization, Target},
    wire,
    yaml::{self, Node, Value, Work},
};
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;

static DOMAIN: LazyLock<TrustDomain> = LazyLock::new(|| TrustDomain::parse("cluster.local").expect("a trust domain"));
static REQUESTS: LazyLock<Vec<Facts>> = LazyLock::new(requests);

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("fuzz.yaml");
    let strict = parse_file(path, text);
    if let Err(errors) = &strict {
        assert!(!errors.is_empty());
        let _ = doubts(path, text);
    }
    let mut work = Work::new();
    let mut lenient = Vec::new();
    for part in yaml::split(text) {
        let Ok(node) = yaml::parse(part, &mut work) else { continue };
        lenient.extend(objects(&node).iter().map(|object| read_law(object, path)));
    }
    if let Ok(strict) = &strict {
        let found: Vec<&Resource> = lenient.iter().filter_map(|reading| reading.resource.as_ref()).collect();
        assert_eq!(found, strict.iter().collect::<Vec<_>>(), "both read the same");
        assert!(lenient.iter().all(|reading| reading.flaws.is_empty()), "{lenient:?}");
    }
    lenient.iter().for_each(flawed_rules_allow_nothing);
});

// As the reader of files takes a `List` apart.
fn objects(node: &Node) -> &[Node] {
    let is_list = node.get("kind").and_then(Node::text) == Some("List");
    match (&node.value, node.get("items").map(|items| &items.value)) {
        (Value::Null, _) => &[],
        (_, Some(Value::List(items))) if is_list => items,
        _ => std::slice::from_ref(node),
    }
}

// Alone, so that whatever passes did so by this policy, or by none of its rules.
fn flawed_rules_allow_nothing(Reading { resource, flaws }: &Reading) {
    let Some(Resource { kind: Kind::AuthorizationPolicy(law), .. }) = resource else { return };
    let policies = wire::PolicySet { policies: vec![law.policy.clone()], ..Default::default() };
    let trust = Trust { local: &DOMAIN, aliases: &[] };
    let compiled = PolicySet::from_wire(policies, trust).expect("one policy is not too many");
    if flaws.is_empty() {
        return;
    }
    for facts in REQUESTS.iter() {
        let Decision::Allow(permit) = decide(&compiled, facts, &Answers::default()) else { continue };
        match permit.by {
            // `shop/no rule 1`: the flaws of that very rule void it.
            Some(by) => {
                let number: usize = by.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a rule");
                assert!(is_sound(law.rule_lines.get(number - 1..), flaws, law.rule_lines.len() == number), "{by}: {flaws:?}");
            }
            // Nothing was denied: then it is not known to be an ALLOW policy, nor one that denies everything.
            None => assert!(law.policy.action() != wire::Action::Allow || law.policy.dry_run, "{flaws:?}"),
        }
    }
}

// Does no flaw stand between the line of the first rule and that of the next one? A flaw above all rules is the policy's,
// one on a line that several rules share may be any other's.
fn is_sound(lines: Option<&[u32]>, flaws: &[ResourceError], is_last: bool) -> bool {
    let Some([own, next @ ..]) = lines else { return false };
    let end = next.first().copied();
    flaws.iter().all(|flaw| match end {
        Some(end) => !(*own..end).contains(&flaw.location.line),
        // What follows the last rule may stand behind the list of them.
        None => is_last || flaw.location.line < *own,
    })
}

fn requests() -> Vec<Facts> {
    let request = |method: Method, path: &str, token: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.insert("x-role", HeaderValue::from_static("admin"));
        RequestFacts {
            method,
            target: Target::parse("orders.shop", path, PathNormalization::Base).expect("a target"),
            headers,
            token: token.map(|claims| Token {
                claims: serde_json::from_str::<serde_json::Map<_, _>>(claims).expect("claims").into(),
                spaced: [].into(),
            }),
        }
    };
    let facts = |peer: Option<&str>, port: u16, request| Facts {
        peer: peer.map(|id| id.parse().expect("an identity")),
        source: [10, 1, 0, 5].into(),
        remote: [172, 16, 0, 9].into(),
        destination: ([10, 77, 0, 9], port).into(),
        sni: None,
        request,
    };
    let web = Some("spiffe://cluster.local/ns/shop/sa/web");
    vec![
        facts(web, 8080, Some(request(Method::GET, "/a/b?x=1", Some(r#"{"iss":"i","sub":"s","groups":"x"}"#)))),
        facts(web, 8080, Some(request(Method::POST, "/", None))),
        facts(None, 8080, Some(request(Method::GET, "/a", None))),
        facts(web, 7000, None),
        facts(None, 7000, None),
    ]
}
