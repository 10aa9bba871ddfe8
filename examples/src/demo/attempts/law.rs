//! 5: the law changes while requests run, and a file that is no law changes nothing.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::demo::{
    logs::{Tail, text},
    running::Running,
    script::{Attempt, Found, Script},
    stage::{LEDGER, ORDERS, Stage},
    wait::until,
};

/// The promise: a new law holds within a second.
const PROMISE_MS: f64 = 1000.0;
/// An effect that must come is waited for so long.
const EFFECT: Duration = Duration::from_secs(10);

/// Requests before the edit.
const ASKED: usize = 50;
/// For how long the stream carries entries before it is forbidden.
const USED: Duration = Duration::from_millis(500);

/// 5a to 5e.
pub(crate) fn change(stage: &Stage, script: &mut Script) {
    let edited = Attempt {
        number: "5a",
        from: "operator",
        to: "edits orders' policy while web asks",
        expected: "403 within 1 s, no request lost, and 200 again after the edit is undone",
    };
    script.attempt(edited, || forbid_requests(stage));
    let closed = Attempt {
        number: "5b",
        from: "operator",
        to: "forbids an open stream to the ledger",
        expected: "stream closed within 1 s",
    };
    script.attempt(closed, || forbid_stream(stage));
    broken(stage, script, "5c", "a broken policy file", |law| law.replace("rules:", "rules: ["));
    broken(stage, script, "5d", "an empty policy file", |_| String::new());
    broken(stage, script, "5e", "a half-written policy file", |law| {
        let half = law.find("principals").unwrap_or(law.len() / 2);
        law.get(..half + "princi".len()).unwrap_or_default().to_owned()
    });
}

fn forbid_requests(stage: &Stage) -> anyhow::Result<Found> {
    let law = Law::of(stage, "policy-orders.yaml")?;
    let asking =
        stage.start(&stage.pod("web")?, &["get", "--json", "--times", "100000", "--every", "10", ORDERS])?;
    until(EFFECT, || (asking.lines().len() >= ASKED).then_some(())).context("web got no answers")?;

    let at = law.write(&law.text.replace("[\"GET\", \"POST\"]", "[\"POST\"]"))?;
    let forbidden = wait_for(&asking, 403).context("after the edit")?;
    law.restore()?;
    let seen = asking.lines().len();
    let allowed = until(EFFECT, || {
        asking
            .lines()
            .get(seen..)
            .unwrap_or_default()
            .iter()
            .any(|line| line.contains("\"status\":200"))
            .then_some(())
    });
    let answers = asking.stop()?.json();

    let ms = number(&forbidden, "at") - at;
    let lost = answers.iter().filter(|answer| !matches!(status(answer), 200 | 403)).count();
    Ok(Found {
        actual: format!("403 after {ms:.0} ms, {lost} of {} requests lost", answers.len()),
        ok: ms < PROMISE_MS && lost == 0 && allowed.is_some(),
        why: String::from("GET taken out of the methods that shop/orders allows"),
    })
}

fn forbid_stream(stage: &Stage) -> anyhow::Result<Found> {
    let law = Law::of(stage, "policy-ledger.yaml")?;
    let logs = stage.logs("ledger")?;
    let orders = stage.pod("orders")?;
    let holding = stage.start(&orders, &["ledger-hold", LEDGER, "--every", "50"])?;
    holding.line(EFFECT, |line| text(line, "event") == "open").context("the ledger did not greet")?;
    thread::sleep(USED);

    let at = law.write(&law.text.replace("sa/orders", "sa/nobody"))?;
    let closed = holding.line(EFFECT, |line| text(line, "event") == "closed");
    let ms = now_ms() - at;
    law.restore()?;
    holding.stop()?;
    let again = until(EFFECT, || {
        stage.run(&orders, &["ledger-say", LEDGER]).ok().filter(|said| said.status.success())
    });

    let closed = closed.context("the stream stayed open")?;
    let line = logs
        .find(|line| text(line, "decision") == "deny")
        .context("the ledger's sidecar logged no denial")?;
    Ok(Found {
        actual: format!("closed after {ms:.0} ms and {:.0} entries", number(&closed, "entries")),
        ok: ms < PROMISE_MS && again.is_some(),
        why: text(&line, "reason").to_owned(),
    })
}

fn broken(
    stage: &Stage,
    script: &mut Script,
    number: &'static str,
    to: &'static str,
    spoil: fn(&str) -> String,
) {
    let attempt = Attempt {
        number,
        from: "operator",
        to,
        expected: "the last good law stays, and the error names file and line",
    };
    script.attempt(attempt, || {
        let file = "policy-orders.yaml";
        let law = Law::of(stage, file)?;
        let control_plane = stage.control_plane_log();
        law.write(&spoil(&law.text))?;
        let complaint = complaint(&control_plane, file);
        let allowed = stage.get(&stage.pod("web")?, &[ORDERS])?.status;
        let denied = stage.get(&stage.pod("intruder")?, &[ORDERS])?.status;
        law.restore()?;

        let complaint = complaint.context("the control plane did not complain")?;
        Ok(Found {
            actual: format!("web {allowed}, intruder {denied}"),
            ok: allowed == 200 && denied == 403,
            why: complaint,
        })
    });
}

/// What the control plane says about a line of the file.
fn complaint(log: &Tail, file: &str) -> Option<String> {
    let place = format!("{file}:");
    until(EFFECT, || {
        log.lines().iter().find_map(|line| {
            let (_, after) = text(line, "error").split_once(&place)?;
            after.starts_with(|first: char| first.is_ascii_digit()).then(|| format!("{place}{after}"))
        })
    })
}

/// A policy file, put back when the attempt ends, however it ends.
struct Law {
    path: PathBuf,
    text: String,
}

impl Law {
    fn of(stage: &Stage, file: &str) -> anyhow::Result<Self> {
        let path = stage.resources().join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, text })
    }

    /// Writes it in place, as an editor would; returns when, in milliseconds since 1970.
    fn write(&self, text: &str) -> anyhow::Result<f64> {
        ensure!(text != self.text, "{}: the edit changes nothing", self.path.display());
        fs::write(&self.path, text)?;
        Ok(now_ms())
    }

    fn restore(&self) -> anyhow::Result<()> {
        Ok(fs::write(&self.path, &self.text)?)
    }
}

impl Drop for Law {
    fn drop(&mut self) {
        let _ = self.restore();
    }
}

fn wait_for(asking: &Running, wanted: u64) -> anyhow::Result<Value> {
    asking
        .line(EFFECT, |line| status(line) == wanted)
        .with_context(|| format!("no {wanted} within {EFFECT:?}"))
}

fn status(answer: &Value) -> u64 {
    answer.get("status").and_then(Value::as_u64).unwrap_or_default()
}

fn number(line: &Value, field: &str) -> f64 {
    line.get(field).and_then(Value::as_f64).unwrap_or_default()
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}
