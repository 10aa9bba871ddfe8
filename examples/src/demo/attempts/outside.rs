//! 4: an address that no resource names, and the YAML that allows it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::demo::{
    logs::text,
    script::{Attempt, Found, Script},
    stage::{PARTNER, Stage},
    wait::until,
};

/// A new file is read, validated and pushed well within this.
const APPEARS: Duration = Duration::from_secs(10);
const FILE: &str = "partner.yaml";

/// 4a and 4b.
pub(crate) fn leave(stage: &Stage, script: &mut Script) {
    let mut hint = String::new();
    let unknown = Attempt {
        number: "4a",
        from: "web",
        to: "203.0.113.10:8080, which no resource names",
        expected: "502, and the log shows the YAML that would allow it",
    };
    script.attempt(unknown, || {
        let logs = stage.logs("web")?;
        let answer = stage.get(&stage.pod("web")?, &[PARTNER])?;
        let line = logs.find(|line| text(line, "refusal") == "unknown_destination");
        let line = line.context("web's sidecar logged no refusal")?;
        hint = text(&line, "hint").to_owned();
        Ok(Found {
            actual: answer.status.to_string(),
            ok: answer.status == 502 && hint.contains("kind: ServiceEntry"),
            why: format!("{}; the hint:\n{}", text(&line, "reason"), indented(&hint)),
        })
    });
    let named = Attempt {
        number: "4b",
        from: "web",
        to: "203.0.113.10:8080, with that YAML added as a file",
        expected: "200 from the partner",
    };
    script.attempt(named, || {
        let web = stage.pod("web")?;
        let file = stage.resources().join(FILE);
        fs::write(&file, &hint)?;
        let began = Instant::now();
        let answer =
            until(APPEARS, || stage.get(&web, &[PARTNER]).ok().filter(|answer| answer.status == 200));
        let took = began.elapsed();
        fs::remove_file(&file)?;
        let ok = answer.as_ref().is_some_and(|answer| answer.said.contains("partner"));
        let actual =
            if ok { format!("200 after {} ms", took.as_millis()) } else { String::from("still refused") };
        Ok(Found { actual, ok, why: String::from("what the log proposed is what allows it") })
    });
}

fn indented(yaml: &str) -> String {
    yaml.lines().map(|line| format!("  | {line}\n")).collect()
}
