//! 3: who stands outside of the mesh, with every passport that can be had there.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::demo::{
    forge::{self, Passport},
    logs::text,
    script::{Attempt, Found, Script},
    stage::Stage,
};

/// Whom a stranger claims to be: one whom orders would let in.
const CLAIM: &str = "spiffe://cluster.local/ns/shop/sa/web";
const LIFE: Duration = Duration::from_secs(10);
/// Past the end of a certificate by more than a clock's second.
const PAST: Duration = Duration::from_millis(1200);

/// A real certificate of web's identity, on its way to its end.
#[derive(Debug)]
pub(crate) struct Stolen {
    passport: Passport,
    issued: Instant,
    /// Did the mesh let it in while it was good? That shows that only its age is wrong later.
    was_good: bool,
}

/// Has the authority issue it by a join token, and shows it once while it is good.
pub(crate) fn steal(stage: &Stage) -> anyhow::Result<Stolen> {
    let passport = stage.issued("shop/web", LIFE)?;
    let issued = Instant::now();
    let shown = probe(stage, &passport)?;
    Ok(Stolen { passport, issued, was_good: shown.get("accepted") == Some(&Value::Bool(true)) })
}

/// 3a to 3d.
pub(crate) fn knock(stage: &Stage, script: &mut Script, stolen: anyhow::Result<Stolen>) {
    let plain = Attempt {
        number: "3a",
        from: "outsider",
        to: "orders, in plaintext",
        expected: "refused in the handshake",
    };
    script.attempt(plain, || {
        let logs = stage.logs("orders")?;
        let url = format!("http://{}/orders", stage.port_of("orders", 8080)?);
        let answer = stage.get(&stage.pod("outsider")?, &[&url])?;
        let line = logs.find(|line| text(line, "refusal") == "plaintext");
        let line = line.context("orders' sidecar logged no refusal")?;
        let ok = answer.status == 0;
        let actual = if ok { String::from("refused") } else { format!("answered {}", answer.status) };
        Ok(Found { actual, ok, why: text(&line, "reason").to_owned() })
    });
    let own = Attempt {
        number: "3b",
        from: "outsider",
        to: "orders, with a self-signed certificate",
        expected: "refused in the handshake",
    };
    script.attempt(own, || {
        let passport = forge::self_signed(CLAIM)?;
        refused(stage, &passport)
    });
    let foreign = Attempt {
        number: "3c",
        from: "outsider",
        to: "orders, of another trust domain",
        expected: "refused in the handshake",
    };
    script.attempt(foreign, || {
        let passport =
            forge::of_trust_domain("elsewhere.example", "spiffe://elsewhere.example/ns/shop/sa/web")?;
        refused(stage, &passport)
    });
    let expired = Attempt {
        number: "3d",
        from: "outsider",
        to: "orders, with web's own but expired one",
        expected: "refused in the handshake, though accepted while it was good",
    };
    script.attempt(expired, || {
        let stolen = stolen?;
        if !stolen.was_good {
            bail!("the certificate was not even accepted while it was good");
        }
        std::thread::sleep((LIFE + PAST).saturating_sub(stolen.issued.elapsed()));
        refused(stage, &stolen.passport)
    });
}

fn refused(stage: &Stage, passport: &Passport) -> anyhow::Result<Found> {
    let logs = stage.logs("orders")?;
    let shown = probe(stage, passport)?;
    let line = logs.find(|line| text(line, "refusal") == "handshake_failed");
    let line = line.context("orders' sidecar logged no refusal")?;
    let ok = shown.get("accepted") == Some(&Value::Bool(false));
    Ok(Found {
        actual: String::from(if ok { "refused" } else { "accepted" }),
        ok,
        why: format!("{}; the stranger saw: {}", text(&line, "reason"), text(&shown, "error")),
    })
}

fn probe(stage: &Stage, passport: &Passport) -> anyhow::Result<Value> {
    let orders = stage.port_of("orders", 8080)?;
    let arguments = ["tls-probe", &orders, "--identity", "-", "--alpn", "douane/1"];
    stage.tell(&stage.pod("outsider")?, &arguments, &passport.pem())?.last()
}
