//! Kubernetes' own kinds, and what lies outside of the mesh.

use std::net::IpAddr;

use super::*;

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: orders-1
  namespace: shop
  creationTimestamp: null
  labels: {app: orders, douane.io/inject: enabled}
  ownerReferences:
    - {apiVersion: apps/v1, kind: Deployment, name: orders, uid: x}
spec:
  serviceAccountName: orders
  terminationGracePeriodSeconds: 5
  tolerations: []
  securityContext: {runAsUser: 1000}
  initContainers:
    - {name: wait, command: [sleep, \"1\"]}
  containers:
    - name: orders
      image: shop
      command:
        - shop-orders
      args: [--port, \"8080\"]
      workingDir: /tmp
      securityContext: {runAsUser: 7}
      env:
        - {name: A, value: \"1\"}
        - {name: B}
        - {name: C, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: D, valueFrom: {secretKeyRef: {name: s, key: k}}}
      ports:
        - {containerPort: 8080, name: http}
        - {containerPort: 53, protocol: UDP}
  volumes: [{name: v, emptyDir: {}}]
status:
  phase: Running
  podIP: 10.77.0.9
  podIPs: [{ip: 10.77.0.9}, {ip: \"fd77::9\"}]
  conditions:
    - {type: Ready, status: \"True\", lastProbeTime: null}
";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_pod_is_read_with_the_lines_of_what_runs_in_it() {
    let resource = only(POD);
    assert_eq!(resource.metadata.key(), "shop/orders-1");
    assert_eq!(resource.metadata.owners, [Owner { kind: "Deployment".into(), name: "orders".into() }]);
    assert_eq!(resource.metadata.label_or_annotation("douane.io/inject"), Some("enabled"));
    let Kind::Pod(pod) = resource.kind else { panic!("a pod") };

    assert_eq!(pod.spec.service_account, "orders");
    assert_eq!(pod.spec.termination_grace_seconds, 5);
    assert_eq!(pod.spec.run_as_user.as_ref().map(|user| user.value), Some(1000));
    assert_eq!(pod.spec.volumes, Some(33));
    assert_eq!(pod.spec.init_containers[0].name.value, "wait");
    let container = &pod.spec.containers[0];
    assert_eq!((container.name.as_str(), container.name.line), ("orders", 18));
    assert_eq!((container.command[0].as_str(), container.command[0].line), ("shop-orders", 21));
    assert_eq!(container.args.iter().map(|arg| arg.as_str()).collect::<Vec<_>>(), ["--port", "8080"]);
    assert_eq!(container.run_as_user, Some(Located { value: 7, line: 24 }));
    let values: Vec<_> = container.env.iter().map(|variable| variable.value.clone()).collect();
    assert_eq!(
        values,
        [
            EnvValue::Text("1".into()),
            EnvValue::Text(String::new()),
            EnvValue::Field("status.podIP".into()),
            EnvValue::Elsewhere(29),
        ]
    );
    assert_eq!(container.ports[0].number.value, 8080);
    assert_eq!(container.ports[1].transport, Transport::Udp);
    let addresses: Vec<_> = pod.status.addresses.iter().map(|address| address.value).collect();
    assert_eq!(addresses, [address("10.77.0.9"), address("fd77::9")]);
    assert_eq!(pod.status.ready(), Some(true));
    assert_eq!(pod.status.phase, Some(Phase::Running));
}

#[test]
fn a_deployment_has_one_replica_unless_it_says_otherwise() {
    let text = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, command: [shop-web]}]
";
    let resource = only(text);
    assert_eq!(resource.metadata.namespace, "default");
    let Kind::Deployment(deployment) = resource.kind else { panic!("a deployment") };
    assert_eq!(deployment.replicas.value, 1);
    assert_eq!(deployment.template.labels["app"], "web");
    assert_eq!(deployment.spec.service_account, "default");

    let Kind::Deployment(deployment) = only(&text.replace("  selector:", "  replicas: 3\n  selector:")).kind
    else {
        panic!("a deployment")
    };
    assert_eq!(deployment.replicas, Located { value: 3, line: 5 });
    assert_eq!(only_error(&text.replace("  selector:", "  replicas: -1\n  selector:")).location.line, 5);
}

#[test]
fn a_service_is_headless_given_an_address_or_waits_for_one() {
    let service = |spec: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: orders, namespace: shop}}\nspec:\n{spec}"
        );
        match only(&text).kind {
            Kind::Service(service) => service,
            other => panic!("{other:?}"),
        }
    };
    let ports = "  ports: [{port: 80, targetPort: http, name: http-web, appProtocol: http}, {port: 81, targetPort: 8081}, {port: 82}]\n";
    let plain = service(&format!("  selector: {{app: orders}}\n{ports}"));
    assert_eq!(plain.cluster_ip, ClusterIp::Unallocated);
    assert_eq!(plain.selector["app"], "orders");
    let targets: Vec<_> = plain.ports.iter().map(|port| port.target.clone()).collect();
    assert_eq!(targets, [TargetPort::Name("http".into()), TargetPort::Number(8081), TargetPort::Number(82)]);
    assert_eq!(plain.ports[0].app_protocol.as_deref(), Some("http"));

    assert_eq!(service("  clusterIP: None\n").cluster_ip, ClusterIp::Headless);
    assert_eq!(service("  clusterIP: \"\"\n").cluster_ip, ClusterIp::Unallocated);
    let both = service("  clusterIP: 10.96.0.5\n  clusterIPs: [10.96.0.5, 'fd96::5']\n");
    let ClusterIp::Given(addresses) = both.cluster_ip else { panic!("given") };
    assert_eq!(
        addresses,
        [Located { value: address("10.96.0.5"), line: 5 }, Located { value: address("fd96::5"), line: 6 },]
    );
}

#[test]
fn a_service_entry_names_hosts_addresses_and_ports() {
    let entry = |spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1beta1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec:\n{spec}"
        )
    };
    let base = "  hosts: [API.example.com]\n  ports: [{number: 443, name: tls, protocol: TLS}]\n";

    let none = format!("{base}  location: MESH_EXTERNAL\n  resolution: NONE\n  addresses: [192.0.2.7]\n");
    let Kind::ServiceEntry(read) = only(&entry(&none)).kind else { panic!("an entry") };
    assert_eq!(read.hosts[0].value, "api.example.com");
    assert_eq!(read.addresses, [Located { value: address("192.0.2.7"), line: 9 }]);
    assert_eq!((read.ports[0].number.value, read.ports[0].protocol.as_deref()), (443, Some("TLS")));

    let fixed = format!("{base}  resolution: STATIC\n  endpoints: [{{address: 192.0.2.8}}]\n");
    let Kind::ServiceEntry(read) = only(&entry(&fixed)).kind else { panic!("an entry") };
    assert_eq!(read.addresses[0].value, address("192.0.2.8"));

    for (spec, line, cause) in [
        (format!("{base}  resolution: DNS\n"), 7, Cause::Unsupported),
        (format!("{base}  resolution: STATIC\n"), 7, Cause::Invalid),
        (base.to_owned(), 4, Cause::Unsupported),
        (format!("{base}  addresses: [192.0.2.0/24]\n"), 7, Cause::Unsupported),
        (format!("{base}  addresses: [192.0.2.7]\n  exportTo: ['.']\n"), 8, Cause::Unsupported),
        (format!("{base}  addresses: [192.0.2.7]\n  location: MESH_INTERNAL\n"), 8, Cause::Unsupported),
        (format!("{base}  addresses: [192.0.2.7]\n  workloadSelector: {{}}\n"), 8, Cause::Unsupported),
        (format!("{base}  addresses: [192.0.2.7]\n  adresses: []\n"), 8, Cause::Unsupported),
        ("  hosts: []\n  ports: [{number: 1}]\n".to_owned(), 5, Cause::Invalid),
        ("  hosts: ['*.example.com']\n  ports: [{number: 1}]\n".to_owned(), 5, Cause::Unsupported),
        ("  hosts: ['https://a']\n  ports: [{number: 1}]\n".to_owned(), 5, Cause::Invalid),
        ("  hosts: [a]\n  ports: [{number: 0}]\n".to_owned(), 6, Cause::Invalid),
    ] {
        let error = only_error(&entry(&spec));
        assert_eq!((error.location.line, error.cause), (line, cause), "{error}\n{spec}");
    }
}

#[test]
fn a_workload_entry_names_its_address_ports_and_account() {
    let entry = |spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: vm-1, namespace: shop, labels: {{app: old, tier: one}}}}\nspec:\n{spec}"
        )
    };
    let whole =
        "  address: 10.9.0.7\n  ports: {http: 8080}\n  labels: {app: orders}\n  serviceAccount: orders\n";

    let resource = only(&entry(whole));
    let Kind::WorkloadEntry(read) = resource.kind else { panic!("an entry") };
    assert_eq!(read.address, Located { value: address("10.9.0.7"), line: 5 });
    assert_eq!((read.ports["http"], read.service_account.as_str()), (8080, "orders"));
    // Those of the spec go before those of the metadata.
    assert_eq!((&*resource.metadata.labels["app"], &*resource.metadata.labels["tier"]), ("orders", "one"));
    let Kind::WorkloadEntry(least) = only(&entry("  address: 'fd00::7'\n")).kind else { panic!("an entry") };
    assert_eq!((least.service_account.as_str(), least.ports.len()), ("default", 0));

    for (spec, line, cause) in [
        ("  ports: {http: 8080}\n", 4, Cause::Invalid),
        ("  address: vm.example.com\n", 5, Cause::Unsupported),
        ("  address: unix:///run/vm\n", 5, Cause::Unsupported),
        ("  address: 10.9.0.7\n  network: far\n", 6, Cause::Unsupported),
        ("  address: 10.9.0.7\n  locality: a/b\n", 6, Cause::Unsupported),
        ("  address: 10.9.0.7\n  weight: 2\n", 6, Cause::Unsupported),
        ("  address: 10.9.0.7\n  adress: 1\n", 6, Cause::Unsupported),
        ("  address: 10.9.0.7\n  ports: {http: 80800}\n", 6, Cause::Invalid),
    ] {
        let error = only_error(&entry(spec));
        assert!(error.location.line.abs_diff(line) <= 1 && error.cause == cause, "{error}\n{spec}");
    }
}

#[test]
fn every_other_kind_is_refused_with_its_line() {
    for (version, kind) in [
        ("v1", "ConfigMap"),
        ("v1", "List"),
        ("v2", "Pod"),
        ("extensions/v1", "Deployment"),
        ("security.istio.io/v1", "AuthorisationPolicy"),
        ("security.istio.io/v1alpha1", "AuthorizationPolicy"),
        ("networking.istio.io/v1", "VirtualService"),
    ] {
        let error =
            only_error(&format!("# a comment\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"));
        assert_eq!((error.location.line, error.cause), (3, Cause::Unsupported), "{error}");
        assert!(error.what.contains(kind), "{error}");
    }
}

#[test]
fn values_of_another_type_are_refused_with_their_line() {
    for (from, to, line) in [
        ("  name: orders-1", "  name: Orders_1", 4),
        ("  namespace: shop", "  namspace: shop", 5),
        ("{name: A, value: \"1\"}", "{name: A, value: 1}", 26),
        ("containerPort: 8080", "containerPort: 80800", 31),
        ("podIP: 10.77.0.9", "podIP: 10.77.0", 36),
        ("protocol: UDP", "protocol: udp", 32),
        ("runAsUser: 7", "runAsUser: root", 24),
        ("  containers:\n    - name: orders", "  containers:\n    - nam: orders", 18),
    ] {
        let error = only_error(&POD.replace(from, to));
        assert_eq!(error.cause, if line == 5 { Cause::Unsupported } else { Cause::Invalid }, "{error}");
        assert!(error.location.line.abs_diff(line) <= 1, "{error}");
        assert!(error.doubt.is_none(), "{error}");
    }
}
