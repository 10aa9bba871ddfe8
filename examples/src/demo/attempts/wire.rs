//! 7: what somebody sees who listens on the bridge.

use crate::demo::{
    script::{Attempt, Found, Script},
    stage::{CHECKOUT, PARTNER, Stage},
};

/// Travels web -> orders (JSON over HTTP) and orders -> ledger (a line of its own protocol).
const SECRET: &str = "lapsang-souchong-at-midnight";
/// Travels in plaintext from a pod without a sidecar: shows that the capture would see the secret.
const CONTROL: &str = "everybody-may-read-this";

/// 7.
pub(crate) fn listen(stage: &Stage, script: &mut Script) {
    let attempt = Attempt {
        number: "7",
        from: "a listener",
        to: "the bridge between all pods",
        expected: "TLS records, and no trace of a secret that travels in a request",
    };
    script.attempt(attempt, || {
        let capture = stage.capture()?;
        let asked = stage.get(&stage.pod("web")?, &[&format!("{CHECKOUT}?note={SECRET}")])?;
        let control = format!("{PARTNER}{CONTROL}");
        stage.get(&stage.pod("outsider")?, &[&control])?;
        let seen = capture.stop();
        let (records, secret, control) =
            (seen.tls_records(), seen.contains(SECRET.as_bytes()), seen.contains(CONTROL.as_bytes()));
        Ok(Found {
            actual: format!(
                "{} frames, {} TLS records, the secret {}",
                seen.frames.len(),
                records,
                if secret { "IN CLEAR" } else { "nowhere" }
            ),
            ok: asked.status == 200
                && asked.said.contains("ledger_entry")
                && control
                && records > 0
                && !secret
                && seen.missed == 0,
            why: format!(
                "a pod without a sidecar sent \"{CONTROL}\" meanwhile: {}",
                if control {
                    "that is in the capture"
                } else {
                    "that is NOT in the capture, which proves nothing"
                }
            ),
        })
    });
}
