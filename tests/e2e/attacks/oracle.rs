//! Many opinions on one stream of bytes: generated, ambiguous requests go through the mesh, and what our inbound sidecar
//! forwarded is read by foreign servers. All must see exactly the requests that our record names, no more and no fewer,
//! each with that method, path and body, and a marker behind them as a request of its own.
//!
//! `DOUANE_ORACLE=requests[,seed]` says how many; the seed is printed, so that a disagreement can be met again.

use std::{collections::BTreeMap, env, time::SystemTime};

use serde_json::{Value, json};

use super::{
    ambiguity::{Chance, request},
    pair::{Pair, Told, say_all},
    servers::{self, Server},
};

/// In CI; the entry of its own asks for 10,000 and more.
const FEW: usize = 250;
/// Fewer servers than these are no jury.
const QUORUM: usize = 3;

/// What became of one generated stream of bytes.
struct Passed {
    sent: String,
    forwarded: Vec<u8>,
}

#[test]
fn what_the_mesh_forwards_is_the_same_requests_to_every_server() {
    let (many, seed) = wanted();
    let Some(pair) = Pair::before_h11(json!({ "protocol": "http1", "mode": "permissive", "head": 1000 }))
    else {
        return;
    };
    let servers = servers::all(pair.room());
    if servers.len() < QUORUM {
        eprintln!("SKIPPED: {} foreign servers are too few", servers.len());
        return;
    }
    eprintln!("{many} streams, DOUANE_ORACLE={many},{seed}");

    let mut chance = Chance::new(seed);
    let passed: Vec<Passed> = (0..many).map(|number| pass(&pair, number, &mut chance)).collect();

    let records = by_case(&pair);
    let (mut asked, mut refused, mut broken, mut wrong) = (0, 0, 0, Vec::new());
    for (number, case) in passed.iter().enumerate() {
        let of_case = records.get(&number).cloned().unwrap_or_default();
        let went_on: Vec<&Value> = of_case.iter().filter(|record| record["decision"] == "allow").collect();
        if went_on.is_empty() {
            refused += 1;
            if !case.forwarded.is_empty() {
                wrong.push(format!("case {number}: forwarded without a record: {:?}", case.sent));
            }
        } else if went_on.iter().any(|record| record["status"] != 200 || !record["refusal"].is_null()) {
            // Broken off in the middle: the connection was, too.
            broken += 1;
        } else {
            asked += 1;
            let expected: Vec<_> = went_on.iter().map(|record| seen_by_us(record)).collect();
            wrong.extend(servers.iter().filter_map(|server| disagreement(server, case, &expected, number)));
        }
    }
    eprintln!(
        "{} servers, {asked} streams forwarded whole, {broken} broken off, {refused} refused, {} disagreements",
        servers.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    assert!(asked > many / 10 && refused > many / 10, "the generator asks too little");
}

fn wanted() -> (usize, u64) {
    let words = env::var("DOUANE_ORACLE").unwrap_or_default();
    let mut words = words.split(',');
    let many = words.next().and_then(|word| word.parse().ok()).unwrap_or(FEW);
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into();
    (many, words.next().and_then(|word| word.parse().ok()).unwrap_or_else(clock))
}

// Connections are served one after another, so that what was forwarded in between belongs to this one.
fn pass(pair: &Pair, number: usize, chance: &mut Chance) -> Passed {
    let sent = request(number, chance);
    let before = pair.forwarded_bytes().len();
    let door = if number.is_multiple_of(2) { pair.app } else { pair.peer };
    say_all(door, &sent);
    let mut forwarded = pair.forwarded_bytes().split_off(before);
    // What came late of a connection that was broken off before is no part of this one.
    let own = format!("/case-{number}");
    let at =
        forwarded.windows(own.len()).position(|window| window == own.as_bytes()).unwrap_or(forwarded.len());
    let line = forwarded[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    forwarded = forwarded.split_off(if at == forwarded.len() { at } else { line });
    Passed { sent: String::from_utf8_lossy(&sent).into_owned(), forwarded }
}

// The records of the receiving sidecar by the number in their path, once all are written.
fn by_case(pair: &Pair) -> BTreeMap<usize, Vec<Value>> {
    pair.get("/the-last");
    pair.recorded("orders", |record| record["path"] == "/the-last");
    let mut cases: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for record in pair.records("orders") {
        let number = record["path"].as_str().and_then(|path| {
            let digits = path.split("case-").nth(1)?;
            digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        if let Some(number) = number {
            cases.entry(number).or_default().push(record);
        }
    }
    cases
}

fn seen_by_us(record: &Value) -> (String, String, u64) {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    (text("method"), text("path"), record["bytes_in"].as_u64().unwrap_or_default())
}

fn disagreement(
    server: &Server,
    case: &Passed,
    expected: &[(String, String, u64)],
    number: usize,
) -> Option<String> {
    let mut bytes = case.forwarded.clone();
    bytes.extend_from_slice(b"GET /the-end HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
    let told = super::pair::say(server.address, &bytes);
    let seen = seen_by(&told);
    let end = ("GET".to_owned(), "/the-end".to_owned(), 0);
    // A server may refuse what it does not know (a method) and close: it then sees nothing of what follows. After a
    // request in HTTP/1.0 it closes, too, and what follows came on another connection.
    let refused = told.statuses().last().is_some_and(|status| *status >= 400);
    let is_last = case.forwarded.windows(11).any(|window| window == b" HTTP/1.0\r\n");
    let agrees = (seen.len() == expected.len() + 1
        || is_last && (1..=expected.len()).contains(&seen.len())
        || refused && seen.len() <= expected.len())
        && seen.iter().zip(expected.iter().chain([&end])).all(|(seen, expected)| {
            let (method, target, length) = seen;
            let path = target.split('?').next().unwrap_or_default();
            // Hypercorn tells every method in capitals.
            method.eq_ignore_ascii_case(&expected.0)
                && path == expected.1
                && length.is_none_or(|length| length == expected.2)
        });
    (!agrees).then(|| {
        let forwarded = String::from_utf8_lossy(&case.forwarded);
        format!(
            "case {number}: {} saw {seen:?}, we {expected:?}; sent {:?}, forwarded {forwarded:?}, told {:?}",
            server.name, case.sent, told.0
        )
    })
}

fn seen_by(told: &Told) -> Vec<(String, String, Option<u64>)> {
    let sightings = told.0.split("saw ").skip(1).filter_map(|rest| rest.split_once('<'));
    sightings
        .map(|(seen, _)| {
            let mut words = seen.split(' ').map(str::to_owned);
            let mut word = || words.next().unwrap_or_default();
            (word(), word(), word().parse().ok())
        })
        .collect()
}
