//! 2: a pod of the mesh that no policy permits anything.

use anyhow::Context;
use serde_json::Value;

use crate::demo::{
    logs::text,
    script::{Attempt, Found, Script},
    stage::{LEDGER, ORDERS, Stage},
};

const INTRUDER: &str = "spiffe://cluster.local/ns/shop/sa/intruder";

/// 2a and 2b.
pub(crate) fn intrude(stage: &Stage, script: &mut Script) {
    let orders = Attempt {
        number: "2a",
        from: "intruder",
        to: "orders",
        expected: "403, and orders' sidecar names policy, rule and field",
    };
    script.attempt(orders, || {
        let logs = stage.logs("orders")?;
        let answer = stage.get(&stage.pod("intruder")?, &[ORDERS])?;
        let line = logs.find(denied).context("orders' sidecar logged no denial")?;
        let told = answer.said.contains("policy") || answer.said.contains("spiffe");
        Ok(Found {
            actual: format!(
                "{}{}",
                answer.status,
                if told { ", and the body tells a stranger why" } else { "" }
            ),
            ok: answer.status == 403 && !told && !text(&line, "policy").is_empty(),
            why: text(&line, "reason").to_owned(),
        })
    });
    let ledger = Attempt {
        number: "2b",
        from: "intruder",
        to: "ledger (opaque TCP)",
        expected: "stream closed, before the ledger's greeting",
    };
    script.attempt(ledger, || {
        let logs = stage.logs("ledger")?;
        let said = stage.run(&stage.pod("intruder")?, &["ledger-say", LEDGER, "ENTRY a gift to myself"])?;
        let line = logs.find(denied).context("the ledger's sidecar logged no denial")?;
        let heard = said.lines.iter().any(|line| line.starts_with("LEDGER") || line.starts_with("OK"));
        Ok(Found {
            actual: if heard {
                format!("heard {}", said.lines.join("; "))
            } else {
                String::from("stream closed")
            },
            ok: !heard && !said.status.success() && !text(&line, "policy").is_empty(),
            why: text(&line, "reason").to_owned(),
        })
    });
}

fn denied(line: &Value) -> bool {
    text(line, "direction") == "inbound"
        && text(line, "decision") == "deny"
        && text(line, "peer_id") == INTRUDER
}
