//! `douane policy ...`: the operator's commands for policies.
//!
//! Knows flags, streams and exit codes: 0 is yes, 1 is no, 2 is a question that cannot be answered.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::print::{print, print_text, remark};
use crate::policy::{
    cases,
    trial::{Detail, Report},
};

/// The answer is yes: all as expected, nothing wrong, nothing changed.
const YES: u8 = 0;
/// The answer is no.
const NO: u8 = 1;
/// There is no answer: a file that cannot be read, a question that makes no sense.
const NO_ANSWER: u8 = 2;

#[derive(Subcommand)]
pub(super) enum Policy {
    /// Run unit tests of policies.
    #[command(after_long_help = TEST_HELP)]
    Test(Test),
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For a human.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Args)]
pub(super) struct Test {
    /// Files of cases.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// Print every request, also those that became what was expected.
    #[arg(short, long)]
    verbose: bool,
}

const TEST_HELP: &str = "\
A file is a YAML list of cases: policies, a workload, and requests with what should become of them. They are decided by
the functions of the sidecar itself, over the same parsing and normalization. No cluster and no network is needed.

  - name: only-web-may-read
    policies:
    - apiVersion: security.istio.io/v1
      kind: AuthorizationPolicy
      metadata: {name: readers, namespace: shop}
      spec:
        selector: {matchLabels: {app: orders}}
        rules:
        - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
          to: [{operation: {methods: [GET]}}]
    # files: [policy.yaml]               instead of, or besides, policies; relative to this file
    workload: {namespace: shop, labels: {app: orders}, service_account: orders, port: 8080, protocol: http}
    requests:
    - {source: {principal: cluster.local/ns/shop/sa/web}, method: GET, path: /orders/1, expect: allow}
    - {source: {principal: cluster.local/ns/shop/sa/web}, method: DELETE, path: /orders/1, expect: deny}
    - {source: {principal: null}, path: /, expect: deny, why: plaintext is refused by STRICT}

Of a case, each optional but requests:
  mesh       trust_domain (cluster.local), trust_domain_aliases, root_namespace (istio-system), mtls_mode (STRICT,
             PERMISSIVE, DISABLE), path_normalization (NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES),
             extension_providers: [{name: ext, type: grpc|http}]
  workload   namespace (default), labels, service_account, port (8080), protocol: http, grpc or tcp
Of a request:
  source     principal (null: plaintext), ip, remote_ip, sni
  method, host, path, headers (a map, or a list of [name, value]), dst_ip, dst_port
  jwt        state: valid, expired, not_yet_valid, bad_signature, unknown_kid, malformed (with raw), alg_none,
             alg_hs256_with_public_key; claims; location: {header, prefix}, {param} or {cookie}. The text $TEST_JWKS in
             a policy becomes the key set that verifies such tokens.
  ext_authz  allow, deny or error: what the external authorizer would answer; absent: it cannot be reached
  expect     allow, deny (403, or a closed connection), '401' or '400'

Exit codes: 0 all passed, 1 something failed, 2 a file cannot be read.";

/// Does what was asked for.
pub(super) fn run(policy: Policy) -> Result<ExitCode> {
    match policy {
        Policy::Test(test) => self::test(&test),
    }
}

fn test(asked: &Test) -> Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    let mut report = Report::default();
    for path in &asked.files {
        match cases::read(path, now) {
            Ok(file) => report.add(&file, now),
            Err(error) => return Ok(unanswered(&error)),
        }
    }
    match asked.output {
        Output::Json => print_json(&report)?,
        Output::Text => {
            report.problems().iter().for_each(|problem| remark(&format!("problem: {problem}")));
            print_text(&report.text(if asked.verbose { Detail::Everything } else { Detail::Failures }))?;
        }
    }
    Ok(ExitCode::from(if report.failed == 0 { YES } else { NO }))
}

fn unanswered(error: &dyn std::fmt::Display) -> ExitCode {
    remark(&format!("douane: {error}"));
    ExitCode::from(NO_ANSWER)
}

fn print_json(answer: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(answer).context("write JSON")?)
}
