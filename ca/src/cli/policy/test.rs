//! `douane policy test`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::answer::{NO, Output, YES, now, print_json, unanswered};
use crate::{
    cli::print::{print_text, remark},
    policy::{
        cases,
        trial::{Detail, Report},
    },
};

#[derive(Args)]
pub(in crate::cli) struct Test {
    /// Files of cases; - is the standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// Print every request, also those that became what was expected.
    #[arg(short, long)]
    verbose: bool,
}

pub(super) const HELP: &str = "\
A file is a YAML list of cases: policies, a workload, and requests with what should become of them. They are \
decided by the functions of the sidecar itself, over the same parsing and normalization. No cluster and no \
network is needed.

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
    # files: [policy.yaml]      instead of policies, or besides; by this file
    workload: {namespace: shop, labels: {app: orders}, port: 8080}
    requests:
    - source: {principal: cluster.local/ns/shop/sa/web}
      path: /orders/1
      expect: allow
    - source: {principal: cluster.local/ns/shop/sa/web}
      method: DELETE
      path: /orders/1
      expect: deny
    - {source: {principal: null}, path: /, expect: deny, why: plaintext}

Of a case, all but requests may be left out:
  mesh       trust_domain (cluster.local), trust_domain_aliases,
             root_namespace (istio-system),
             mtls_mode: STRICT, PERMISSIVE or DISABLE,
             path_normalization: NONE, BASE, MERGE_SLASHES or
             DECODE_AND_MERGE_SLASHES,
             extension_providers: [{name: ext, type: grpc}]; or type: http
  workload   namespace (default), labels, service_account, port (8080),
             protocol: http, grpc or tcp
Of a request:
  source     principal (null: plaintext), ip, remote_ip, sni
  method, host, path, dst_ip, dst_port
  headers    a map, or a list of [name, value]
  jwt        state: valid, expired, not_yet_valid, bad_signature,
             unknown_kid, malformed (with raw), alg_none or
             alg_hs256_with_public_key; claims;
             location: {header, prefix}, {param} or {cookie}.
             The text $TEST_JWKS in a policy becomes the key set that
             verifies such tokens.
  ext_authz  allow, deny or error: what the external authorizer would answer;
             absent: it cannot be reached
  expect     allow, deny (403, or a closed connection), '401' or '400'

Exit codes: 0 all passed, 1 something failed, 2 a file cannot be read.";

/// Runs the cases.
pub(super) fn run(asked: &Test) -> Result<ExitCode> {
    let now = now()?;
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
