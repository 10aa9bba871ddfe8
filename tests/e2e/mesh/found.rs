//! How an operator finds one request or connection of a real mesh without knowing its trace.

use serde_json::Value;

use super::{
    lab,
    traffic::{Operator, edge},
    yaml,
};

#[test]
fn a_request_is_found_by_the_id_that_its_client_gave_it() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW)]) else { return };
    let operator = Operator(&lab);
    let asked = ["shop", "get", "-H", "x-request-id: order-4711", "http://answerer/closed"];
    assert!(lab.exec("asker", &asked).out.starts_with("403 "));
    lab.recorded("asker", |records| records.iter().any(|record| record["request_id"] == "order-4711"));

    let story = operator.json(&["why", "order-4711"]);

    let hop = &story["hops"][0];
    assert_eq!(story["hops"].as_array().map(Vec::len), Some(1), "{story:#}");
    assert_eq!(hop["source"]["requestId"], "order-4711");
    assert_eq!(
        (&hop["destination"]["denied"], &hop["destination"]["requestId"]),
        (&true.into(), &"order-4711".into())
    );
    assert_eq!(story["stopped"]["policy"], "town/answerer-callers rule 1", "{story:#}");
    let unknown = operator.run(&["why", "order-4712"]);
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("nothing is known of order-4712"));
}

#[test]
fn a_refused_connection_of_bytes_is_found_by_the_address_that_it_asked_for() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW)]) else { return };
    let operator = Operator(&lab);
    assert!(!lab.exec("stranger", &["shop", "ledger-say", "keeper:7000", "ENTRY one"]).out.contains("OK"));
    let records = lab.recorded("stranger", |records| records.iter().any(is_refused));
    let refused = records.iter().find(|record| is_refused(record)).unwrap();
    let asked = refused["destination"].as_str().unwrap();

    let story = operator.json(&["why", asked]);

    let hops = story["hops"].as_array().unwrap();
    let hop =
        hops.iter().find(|hop| hop["destination"]["denied"] == true).unwrap_or_else(|| panic!("{story:#}"));
    assert_eq!(
        (&hop["destination"]["protocol"], &hop["source"]["toldBy"]),
        (&"tcp".into(), &"town/stranger".into())
    );
    assert_eq!(story["stopped"]["policy"], "town/keeper-callers rule 1", "{story:#}");
    let (host, _) = asked.rsplit_once(':').unwrap();
    let by_host = operator.json(&["why", host.trim_matches(['[', ']'])]);
    assert!(!by_host["hops"].as_array().unwrap().is_empty(), "{by_host:#}");

    let view = operator.edges(|view| {
        edge(view, "town/stranger", "town/keeper")["destination"]["total"]["streamsDenied"].as_u64() > Some(0)
    });
    let side = &edge(&view, "town/stranger", "town/keeper")["destination"];
    assert_eq!((&side["success"], &side["total"]["requests"]), (&0.0.into(), &0.into()), "{view:#}");
}

fn is_refused(record: &Value) -> bool {
    record["protocol"] == "tcp" && record["refusal"].is_string() && record["direction"] == "outbound"
}
