//! 1 and 8: a request walks from web over orders to the inventory; who met whom, and what its trace shows.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::demo::{
    logs::{Tail, text},
    script::{Attempt, Found, Script},
    stage::{CHECKOUT, Stage},
    wait::until,
    waterfall::{draw, hops},
};

/// Sidecars export spans every few seconds.
const EXPORTED: Duration = Duration::from_secs(15);

/// A trace that the demo itself begins, as an instrumented caller would.
#[derive(Debug)]
pub(crate) struct Trace(String);

impl Trace {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self(format!("{:032x}", rand::random::<u128>().max(1)))
    }

    /// `traceparent`, sampled.
    fn header(&self) -> String {
        format!("traceparent: 00-{}-d0a9ed0a9ed0a9e0-01", self.0)
    }
}

/// 1.
pub(crate) fn walk(stage: &Stage, script: &mut Script, trace: &Trace) {
    let attempt = Attempt {
        number: "1",
        from: "web",
        to: "orders -> inventory",
        expected: "200, each hop TLSv1.3 with X25519MLKEM768 between the right identities",
    };
    script.attempt(attempt, || {
        let (web, orders, inventory) = (stage.logs("web")?, stage.logs("orders")?, stage.logs("inventory")?);
        let answer = stage.get(&stage.pod("web")?, &["-H", &trace.header(), CHECKOUT])?;
        if answer.status != 200 {
            bail!("{} {}", answer.status, answer.said);
        }
        let first = Hop::find(&web, &orders, trace, "/orders").context("web -> orders")?;
        let second = Hop::find(&orders, &inventory, trace, "/shop.v1.Inventory/Stock")
            .context("orders -> inventory")?;
        let right = first.is("web", "orders") && second.is("orders", "inventory");
        Ok(Found {
            actual: format!("200  {first}{}", if right { "" } else { "  NOT as it must be" }),
            ok: right,
            why: format!("then {second}"),
        })
    });
}

/// 8.
pub(crate) fn show(stage: &Stage, script: &mut Script, trace: &Trace) {
    let attempt = Attempt {
        number: "8",
        from: "web",
        to: "the trace of attempt 1",
        expected: "a CLIENT and a SERVER span for each of 3 hops",
    };
    let mut picture = String::new();
    script.attempt(attempt, || {
        // web -> orders, orders -> Stock, orders -> Watch
        let whole = || stage.sink().trace(&trace.0).len() >= 6;
        until(EXPORTED, || whole().then_some(()));
        let spans = stage.sink().trace(&trace.0);
        picture = draw(&spans);
        let hops = hops(&spans).map_err(anyhow::Error::msg)?;
        let way: Vec<_> = hops.iter().map(|hop| format!("{} -> {}", hop.from, hop.to)).collect();
        let ok = way == ["web -> orders", "orders -> inventory", "orders -> inventory"];
        Ok(Found {
            actual: format!("{} hops, {} spans", hops.len(), spans.len()),
            ok,
            why: format!("trace {}: {}", trace.0, way.join(", ")),
        })
    });
    script.show(&picture);
}

/// What both sidecars say about one hop.
struct Hop {
    caller: String,
    called: String,
    tls: String,
}

impl Hop {
    fn find(from: &Tail, to: &Tail, trace: &Trace, path: &str) -> anyhow::Result<Self> {
        let of_it = |line: &Value, direction: &str| {
            text(line, "trace_id") == trace.0
                && text(line, "path") == path
                && text(line, "direction") == direction
        };
        let sent =
            from.find(|line| of_it(line, "outbound")).context("the caller's sidecar logged nothing")?;
        let came = to.find(|line| of_it(line, "inbound")).context("the receiver's sidecar logged nothing")?;
        let tls = tls(&sent);
        if tls != self::tls(&came) {
            bail!("the caller saw {tls}, the receiver {}", self::tls(&came));
        }
        if text(&sent, "local_id") != text(&came, "peer_id")
            || text(&sent, "peer_id") != text(&came, "local_id")
        {
            bail!("the two sidecars disagree who they are: {sent} and {came}");
        }
        Ok(Self {
            caller: text(&sent, "local_id").to_owned(),
            called: text(&sent, "peer_id").to_owned(),
            tls,
        })
    }

    fn is(&self, caller: &str, called: &str) -> bool {
        let id = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}");
        self.caller == id(caller) && self.called == id(called) && self.tls == "TLSv1.3 X25519MLKEM768"
    }
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}  {}", self.caller, self.called, self.tls)
    }
}

fn tls(line: &Value) -> String {
    let part = |name| line.get("tls").map_or("", |tls| text(tls, name));
    format!("{} {}", part("version"), part("group"))
}
