//! The case files of `tests/policy` once more, over the wire: each request travels through real sidecars with minted
//! certificates and tokens to a real application, and what becomes of it must be what the pure engine said.
//!
//! Addresses are those of the cases, in a network namespace where every address is local (`namespace`). `pod` is who is
//! asked, `peer` who asks. A user namespace can only be entered by a process with one thread, so this binary is its own
//! harness and runs itself again.
#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod authorizer;
#[path = "../../proxy/tests/datapath/credulous.rs"]
mod credulous;
mod namespace;
mod office;
mod peer;
mod pod;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use douane_ca::policy::{
    asked::Verdict,
    cases::{self, Case, Request},
    receiver::Receiver,
};
use douane_proxy::tls::park_flush;
use tokio::runtime::{Builder, LocalOptions};

use crate::{peer::Missed, pod::Pod};

/// A request that has not ended by then has been lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Fewer than these and most of the proof is missing: files were moved, or the wire cannot say what they ask.
const AT_LEAST: usize = 1_500;

fn main() -> ExitCode {
    match namespace::enter_or_run_inside() {
        namespace::Place::Inside => {}
        namespace::Place::Ended(code) => return code,
    }
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut tally = Tally::default();
    for file in files() {
        try_file(&file, &filter, &mut tally);
    }
    tally.tell();
    let enough = !filter.is_empty() || tally.agreed >= AT_LEAST;
    if !enough {
        println!("only {} requests were tried, {AT_LEAST} are the least", tally.agreed);
    }
    if tally.disagreed.is_empty() && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Tally {
    agreed: usize,
    disagreed: Vec<String>,
    unsayable: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn tell(&self) {
        for line in &self.disagreed {
            println!("{line}");
        }
        for (why, count) in &self.unsayable {
            println!("{count} requests by the engine alone: {why}");
        }
        let result = if self.disagreed.is_empty() { "ok" } else { "FAILED" };
        println!("test result: {result}. {} passed; {} failed;", self.agreed, self.disagreed.len());
    }
}

fn files() -> Vec<PathBuf> {
    let folder = env::var_os("DOUANE_CASES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("policy"), PathBuf::from);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn try_file(path: &Path, filter: &str, tally: &mut Tally) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let file = cases::read(path, now).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    let before = (tally.agreed, tally.disagreed.len());
    for case in file.cases.iter().flatten().filter(|case| case.name.contains(filter)) {
        try_case(path, case, now, tally);
    }
    let (agreed, disagreed) = (tally.agreed - before.0, tally.disagreed.len() - before.1);
    println!("test {} ... {agreed} agree, {disagreed} do not", path.display());
}

fn try_case(path: &Path, case: &Case, now: u64, tally: &mut Tally) {
    let engine = Receiver::new(&case.governing, &case.mesh).unwrap();
    for (index, request) in case.requests.iter().enumerate() {
        let Request { asked: Ok(asked), line, .. } = request else { continue };
        let judged = engine.judge(asked, now);
        let seen = run(async {
            let pod = Pod::open(case, asked).await;
            tokio::time::timeout(PATIENCE, peer::ask(&pod, asked)).await
        });
        let place = format!("{}:{line} case {} request {}", path.display(), case.name, index + 1);
        match seen {
            Ok(Ok(seen)) if seen == judged.verdict => tally.agreed += 1,
            Ok(Ok(seen)) => tally.disagreed.push(told(&place, seen, judged.verdict, &judged.explanation)),
            Ok(Err(Missed::Unsayable(why))) => *tally.unsayable.entry(why).or_default() += 1,
            Ok(Err(Missed::Odd(status))) => tally.disagreed.push(format!("{place}: answered with {status}")),
            Err(_) => tally.disagreed.push(format!("{place}: no answer within {PATIENCE:?}")),
        }
    }
}

fn told(place: &str, seen: Verdict, judged: Verdict, explanation: &str) -> String {
    format!("{place}: the wire says {seen}, the engine {judged}: {explanation}")
}

/// As a sidecar runs: one thread, corked writes.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(park_flush)
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(work)
}
