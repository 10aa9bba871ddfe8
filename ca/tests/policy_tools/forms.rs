//! `policy test`: the forms that a request may be written in, and what a sidecar makes of them.

use crate::desk::Desk;

fn pass(head: &str, requests: &[&str]) {
    let mut cases = format!("- name: one\n{head}\n  requests:\n");
    for request in requests {
        cases.push_str(&format!("  - {{source: {{principal: cluster.local/ns/foo/sa/web}}, {request}}}\n"));
    }
    let said = Desk::new().with("cases.yaml", &cases).policy(&["test", "cases.yaml"]);
    said.exits(0);
}

fn denying(rule: &str) -> String {
    format!(
        "  policies:
  - apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {{name: deny, namespace: foo}}
    spec: {{action: DENY, rules: [{rule}]}}
  workload: {{namespace: foo, labels: {{version: 1}}, service_account: httpbin}}"
    )
}

#[test]
fn a_host_is_the_workloads_own_unless_it_is_written() {
    pass(
        &denying("{to: [{operation: {hosts: [httpbin.foo.svc.cluster.local, x.test]}}]}"),
        &[
            "expect: deny",
            "host: y.test, expect: allow",
            "headers: {Host: x.test}, expect: deny",
            "host: X.test, headers: {host: x.test}, expect: deny",
            "host: x.test, headers: {host: y.test}, expect: 400",
            "headers: [[host, x.test], [host, x.test]], expect: 400",
            "host: '', expect: 400",
            "host: null, expect: 400",
            "host: user@x.test, expect: '400'",
        ],
    );
}

#[test]
fn headers_are_a_map_or_a_list() {
    pass(
        &denying("{when: [{key: 'request.headers[x-role]', values: [guest, '1', 'true']}]}"),
        &[
            "headers: {x-role: guest}, expect: deny",
            "headers: {X-Role: 1}, expect: deny",
            "headers: {x-role: true}, expect: deny",
            "headers: {x-role: [admin, guest]}, expect: deny",
            "headers: [[x-role, admin], [x-role, guest]], expect: deny",
            "headers: {x-role: admin}, expect: allow",
            "headers: {x-role: null}, expect: allow",
            "headers: {\"x role\": admin}, expect: 400",
            "headers: {x-role: \"a\\r\\nb\"}, expect: 400",
        ],
    );
}

#[test]
fn paths_are_sent_as_they_are_written() {
    pass(
        &denying("{to: [{operation: {paths: [/admin]}}]}"),
        &[
            "path: /admin, expect: deny",
            "path: '/x/../%61dmin?q=1', expect: deny",
            "path: 'http://other.test/admin', expect: deny",
            "path: \"/a\\0\", expect: 400",
            "path: '/admin#x', expect: deny",
            "path: /other, expect: allow",
        ],
    );
}

#[test]
fn addresses_and_ports_are_those_of_the_request() {
    pass(
        &denying(
            "{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}, {from: [{source: {remoteIpBlocks: [172.16.0.0/12]}}]}, \
             {to: [{operation: {ports: ['9000']}}]}, {when: [{key: destination.ip, values: [10.5.0.9]}]}, \
             {when: [{key: connection.sni, values: [bad.test]}]}",
        ),
        &["expect: allow", "dst_port: 9000, expect: deny", "dst_ip: 10.5.0.9, expect: deny"],
    );
    let cases = format!(
        "- name: sources\n{}\n  requests:\n{}",
        denying(
            "{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}, {from: [{source: {remoteIpBlocks: [172.16.0.0/12]}}]}, {when: [{key: connection.sni, values: [bad.test]}]}"
        ),
        [
            "ip: 10.1.0.5, expect: deny",
            "ip: 172.16.0.1, expect: deny",
            "ip: 172.16.0.1, remote_ip: 1.2.3.4, expect: allow",
            "sni: bad.test, expect: deny"
        ]
        .map(|one| {
            let (source, expect) = one.rsplit_once(", ").unwrap();
            format!("  - {{source: {{principal: cluster.local/ns/foo/sa/web, {source}}}, {expect}}}\n")
        })
        .concat()
    );
    Desk::new().with("cases.yaml", &cases).policy(&["test", "cases.yaml"]).exits(0);
}

#[test]
fn grpc_is_a_post_and_tcp_shows_no_request() {
    let laws = denying("{to: [{operation: {methods: [POST], paths: [/p.S/M]}}]}");
    pass(
        &laws.replace("namespace: foo, labels", "protocol: grpc, namespace: foo, labels"),
        &["path: /p.S/M, expect: deny", "path: /p.S/N, expect: allow"],
    );
    // On TCP, what needs HTTP is dropped: all is denied.
    pass(
        &laws.replace("namespace: foo, labels", "protocol: tcp, namespace: foo, labels"),
        &["path: /p.S/N, jwt: {state: expired}, expect: deny"],
    );
}

#[test]
fn mutual_tls_is_decided_before_all_else() {
    let modes = "  mesh: {mtls_mode: PERMISSIVE}
  policies:
  - apiVersion: security.istio.io/v1
    kind: PeerAuthentication
    metadata: {name: ports, namespace: foo}
    spec:
      selector: {matchLabels: {app: x}}
      portLevelMtls: {9001: {mode: STRICT}, 9002: {mode: DISABLE}}
  workload: {namespace: foo, labels: {app: x}}
  requests:
  - {expect: allow}
  - {dst_port: 9001, host: '', expect: deny, why: refused before there is a request}
  - {dst_port: 9002, expect: allow}
  - {source: {principal: cluster.local/ns/foo/sa/web}, dst_port: 9002, expect: deny}
  - {source: {principal: other.test/ns/foo/sa/web}, expect: allow, why: policies are the second barrier}
";
    let cases = format!("- name: modes\n{modes}");
    Desk::new().with("cases.yaml", &cases).policy(&["test", "cases.yaml"]).exits(0);
}
