//! The folders that tests run: few pods, ordinary YAML.

/// Two pods without sidecars, and a service.
pub(super) const PLAIN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: asker, namespace: town}
spec: {containers: [{name: app, command: [shop, sleep]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: answerer, namespace: town, labels: {app: answerer}}
spec: {containers: [{name: app, command: [shop, partner, --listen, '[::]:8080'], ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: answerer, namespace: town}
spec: {selector: {app: answerer}, ports: [{name: http, port: 80, targetPort: http}]}
";

/// Three pods of a mesh: `asker` may call `answerer` (HTTP on 80) and `keeper` (opaque on 7000), `stranger` may nothing;
/// `tourist` has no sidecar. The law is in a file of its own, so that a test can change it.
pub(super) const MESH: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: asker, namespace: town}
---
apiVersion: v1
kind: Pod
metadata: {name: asker, namespace: town, labels: {app: asker, douane.io/inject: enabled}}
spec: {serviceAccountName: asker, containers: [{name: app, command: [shop, sleep]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: town, labels: {app: stranger, douane.io/inject: enabled}}
spec: {serviceAccountName: stranger, containers: [{name: app, command: [shop, sleep]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: tourist, namespace: town}
spec: {containers: [{name: app, command: [shop, sleep]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: answerer, namespace: town}
spec:
  replicas: 2
  selector: {matchLabels: {app: answerer}}
  template:
    metadata: {labels: {app: answerer, douane.io/inject: enabled}}
    spec:
      serviceAccountName: answerer
      containers:
      - name: app
        command: [shop, partner, --listen, '[::]:8080']
        ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: answerer, namespace: town}
spec: {selector: {app: answerer}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: keeper, namespace: town, labels: {app: keeper, douane.io/inject: enabled}}
spec:
  serviceAccountName: keeper
  containers:
  - name: app
    command: [shop, ledger, --listen, '[::]:7000']
    ports: [{name: tcp-ledger, containerPort: 7000}]
---
apiVersion: v1
kind: Service
metadata: {name: keeper, namespace: town}
spec: {selector: {app: keeper}, ports: [{name: tcp, port: 7000}]}
";

/// The law of [`MESH`].
pub(super) const LAW: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: town}
spec: {}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: answerer-callers, namespace: town}
spec:
  selector: {matchLabels: {app: answerer}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/town/sa/asker, cluster.local/ns/town/sa/answerer]}}]
    to: [{operation: {methods: [GET], paths: [/open, /open/*]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: keeper-callers, namespace: town}
spec:
  selector: {matchLabels: {app: keeper}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/town/sa/asker]}}]
";

/// What stands at the edge of [`MESH`]: `mixed` declares no protocol (HTTP on 9000, a server that speaks first on 9001, nobody
/// on 9002), `depot` has what lasts (a ledger on 7000, gRPC streams on 9090), and nobody is behind `empty`.
pub(super) const ODD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: mixed, namespace: town, labels: {app: mixed, douane.io/inject: enabled}}
spec:
  serviceAccountName: mixed
  containers:
  - {name: http, command: [shop, partner, --listen, '[::]:9000']}
  - {name: ledger, command: [shop, ledger, --listen, '[::]:9001']}
---
apiVersion: v1
kind: Service
metadata: {name: mixed, namespace: town}
spec:
  selector: {app: mixed}
  ports: [{name: alpha, port: 9000}, {name: beta, port: 9001}, {name: gamma, port: 9002}]
---
apiVersion: v1
kind: Pod
metadata: {name: depot, namespace: town, labels: {app: depot, douane.io/inject: enabled}}
spec:
  serviceAccountName: depot
  containers:
  - name: ledger
    command: [shop, ledger, --listen, '[::]:7000']
    ports: [{name: tcp-ledger, containerPort: 7000}]
  - name: inventory
    command: [shop, inventory, --listen, '[::]:9090']
    ports: [{name: grpc-inventory, containerPort: 9090}]
---
apiVersion: v1
kind: Service
metadata: {name: depot, namespace: town}
spec: {selector: {app: depot}, ports: [{name: tcp-ledger, port: 7000}, {name: grpc, port: 9090}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: town}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: mixed-callers, namespace: town}
spec:
  selector: {matchLabels: {app: mixed}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/town/sa/asker]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: depot-callers, namespace: town}
spec:
  selector: {matchLabels: {app: depot}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/town/sa/asker]}}]
";
