//! What is put into a pod: the init container that installs the redirection, the sidecar, and their volumes. Pure.

use douane_proto::id::TrustDomain;

use super::{
    annotations::{Datagrams, Wishes},
    eligible::{HEALTH_PORT, PROXY, REDIRECT, VOLUMES},
    probes::Rewritten,
    resources,
    tree::Tree,
};
use crate::config::{Injection, Order, PullPolicy};

/// The ConfigMap of each namespace with the roots by which a sidecar knows the control plane on first contact.
pub const ROOT_CONFIG_MAP: &str = "douane-root";
/// Its key.
pub const ROOT_KEY: &str = "root.pem";

const PROGRAM: &str = "douane-proxy";
const CREDENTIALS: &str = "/var/run/secrets/douane";
const RUN: &str = "/run/douane";
/// A certificate and the first law come within a second; a control plane that is being upgraded may take minutes.
const STARTUP_PERIOD_SECONDS: u64 = 1;
const STARTUP_FAILURES: u64 = 600;
const READINESS_PERIOD_SECONDS: u64 = 5;
/// Our answer takes no time; a busy node does.
const PROBE_TIMEOUT_SECONDS: u64 = 3;
/// In the classic order all containers get SIGTERM at once: peers must learn of it first.
const CLASSIC_DRAIN_DELAY: &str = "5s";
/// Natively the sidecar gets SIGTERM after the application has ended.
const NATIVE_DRAIN_DELAY: &str = "0s";
/// Within Kubernetes' 30 s, with the delay before it.
const DRAIN_LIMIT: &str = "20s";
/// The other containers start when this has waited; a pod without a control plane shall be restarted and say so.
const AWAIT_LIMIT: &str = "120s";
/// Sockets and a log for denials.
const RUN_BYTES: &str = "8Mi";

/// What the parts depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    /// The pod, as it came.
    pub(super) pod: &'a Tree,
    /// What it wishes.
    pub(super) wishes: &'a Wishes,
    /// What the mesh wants.
    pub(super) settings: &'a Injection,
    /// The mesh's trust domain.
    pub(super) trust_domain: &'a TrustDomain,
    /// For whom tokens are made.
    pub(super) audience: &'a str,
    /// What the sidecar must ask the application.
    pub(super) probes: &'a [Rewritten],
}

impl Plan<'_> {
    /// In which order the containers start.
    #[must_use]
    pub(super) fn order(&self) -> Order {
        self.wishes.order.unwrap_or(self.settings.order)
    }

    /// The init container that installs the redirection. It runs as root, since Kubernetes gives capabilities to nobody
    /// else, and keeps of root's nothing but CAP_NET_ADMIN.
    #[must_use]
    pub(super) fn redirect(&self) -> Tree {
        let security = Tree::map([
            ("allowPrivilegeEscalation", Tree::from(false)),
            (
                "capabilities",
                Tree::map([("add", Tree::texts(["NET_ADMIN"])), ("drop", Tree::texts(["ALL"]))]),
            ),
            ("privileged", false.into()),
            ("readOnlyRootFilesystem", true.into()),
            ("runAsGroup", Tree::from(0_u64)),
            ("runAsNonRoot", false.into()),
            ("runAsUser", Tree::from(0_u64)),
            ("seccompProfile", Tree::map([("type", "RuntimeDefault".into())])),
        ]);
        let mut container = vec![("name", Tree::from(REDIRECT)), ("image", self.image())];
        container.extend(self.pull_policy());
        container.extend([
            ("command", Tree::texts([PROGRAM])),
            ("args", Tree::texts(self.redirection())),
            ("resources", resources::of_redirect(&self.settings.resources, self.spec())),
            ("securityContext", security),
        ]);
        Tree::map(container)
    }

    fn redirection(&self) -> Vec<String> {
        let Wishes { skip_inbound, skip_outbound, skip_cidrs, udp, udp_ports, .. } = self.wishes;
        let mut arguments: Vec<String> = ["redirect", "install", "--uid"].map(str::to_owned).into();
        arguments.push(self.uid().to_string());
        let mut list = |flag: &str, values: Vec<String>| {
            if !values.is_empty() {
                arguments.extend([flag.to_owned(), values.join(",")]);
            }
        };
        let texts = |ports: &[u16]| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
        list("--exclude-inbound-port", texts(skip_inbound));
        list("--exclude-outbound-port", texts(skip_outbound));
        list("--exclude-outbound-cidr", skip_cidrs.iter().map(ToString::to_string).collect());
        list("--udp-port", texts(udp_ports));
        match udp {
            Datagrams::Allow => list("--udp", vec!["allow".to_owned()]),
            // The kubelet writes the cluster's resolvers there.
            Datagrams::Deny => list("--dns-resolvers-of", vec!["/etc/resolv.conf".to_owned()]),
        }
        arguments
    }

    /// The sidecar.
    #[must_use]
    pub(super) fn sidecar(&self) -> Tree {
        let mut container = vec![("name", Tree::from(PROXY)), ("image", self.image())];
        container.extend(self.pull_policy());
        container.extend([
            ("command", Tree::texts([PROGRAM])),
            ("args", Tree::texts(["run"])),
            ("env", self.environment()),
            ("ports", Tree::List(vec![port()])),
            ("startupProbe", probe(STARTUP_PERIOD_SECONDS, Some(STARTUP_FAILURES))),
            ("readinessProbe", probe(READINESS_PERIOD_SECONDS, None)),
            ("resources", resources::of_sidecar(self.wishes, &self.settings.resources, self.spec())),
            ("securityContext", self.security()),
            ("volumeMounts", mounts()),
        ]);
        match self.order() {
            Order::Native => container.push(("restartPolicy", "Always".into())),
            Order::Classic => {
                let command = Tree::texts([PROGRAM, "await", "--limit", AWAIT_LIMIT]);
                let hook = Tree::map([("exec", Tree::map([("command", command)]))]);
                container.push(("lifecycle", Tree::map([("postStart", hook)])));
                // The hook is the wait: a probe that holds the pod back as well would only be slower.
                container.retain(|(field, _)| *field != "startupProbe");
            }
        }
        Tree::map(container)
    }

    // Passes the Pod Security Standard `restricted`.
    fn security(&self) -> Tree {
        Tree::map([
            ("allowPrivilegeEscalation", Tree::from(false)),
            ("capabilities", Tree::map([("drop", Tree::texts(["ALL"]))])),
            ("privileged", false.into()),
            ("readOnlyRootFilesystem", true.into()),
            ("runAsGroup", Tree::from(u64::from(self.uid()))),
            ("runAsNonRoot", true.into()),
            ("runAsUser", Tree::from(u64::from(self.uid()))),
            ("seccompProfile", Tree::map([("type", "RuntimeDefault".into())])),
        ])
    }

    fn environment(&self) -> Tree {
        let Self { wishes, settings, .. } = self;
        let delay = match self.order() {
            Order::Native => NATIVE_DRAIN_DELAY,
            Order::Classic => CLASSIC_DRAIN_DELAY,
        };
        let delay = wishes.drain_delay.as_deref().unwrap_or(delay);
        let fixed = |name, value: &str| Tree::map([("name", Tree::from(name)), ("value", value.into())]);
        let mut all = vec![
            field("DOUANE_NAMESPACE", "metadata.namespace"),
            field("DOUANE_POD", "metadata.name"),
            field("DOUANE_POD_UID", "metadata.uid"),
            field("DOUANE_POD_IP", "status.podIPs"),
            field("DOUANE_NODE", "spec.nodeName"),
            field("DOUANE_SERVICE_ACCOUNT", "spec.serviceAccountName"),
            fixed("DOUANE_CONTROL_PLANE", &settings.control_plane),
            fixed("DOUANE_TRUST_DOMAIN", self.trust_domain.as_str()),
            fixed("DOUANE_BUNDLE_FILE", &format!("{CREDENTIALS}/{ROOT_KEY}")),
            fixed("DOUANE_TOKEN_FILE", &format!("{CREDENTIALS}/token")),
            fixed("DOUANE_RUN_DIR", RUN),
            fixed("DOUANE_DRAIN_DELAY", delay),
            fixed("DOUANE_DRAIN_LIMIT", DRAIN_LIMIT),
        ];
        let chosen = [
            ("DOUANE_ENVIRONMENT", wishes.environment.as_ref().or(settings.environment.as_ref())),
            ("DOUANE_LOG", wishes.log.as_ref().or(settings.log.as_ref())),
            ("DOUANE_ACCESS_LOG", wishes.access_log.as_ref()),
            ("DOUANE_TRACE_SAMPLER", wishes.trace_sampler.as_ref().or(settings.trace_sampler.as_ref())),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", settings.otlp.as_ref()),
        ];
        all.extend(chosen.into_iter().filter_map(|(name, value)| Some(fixed(name, value?))));
        all.push(fixed("OTEL_RESOURCE_ATTRIBUTES", &self.attributes()));
        if !self.probes.is_empty() {
            let questions = self.probes.iter().map(|probe| (probe.name.as_str(), probe.question.clone()));
            // Kubernetes would replace what looks like a variable in a path.
            let questions = Tree::map(questions).json_text().replace('$', "$$");
            all.push(fixed("DOUANE_APP_PROBES", &questions));
        }
        Tree::List(all)
    }

    // Kubernetes replaces $(NAME) of what stands above.
    fn attributes(&self) -> String {
        let mut all = "k8s.pod.uid=$(DOUANE_POD_UID),k8s.node.name=$(DOUANE_NODE)".to_owned();
        let version = self.pod.at(&["metadata", "labels", "app.kubernetes.io/version"]).and_then(Tree::text);
        // A label's value needs no escape: letters, digits, '-', '_' and '.'.
        let is_label =
            |text: &&str| text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
        if let Some(version) = version.filter(is_label) {
            all.push_str(&format!(",service.version={version}"));
        }
        all
    }

    /// Their volumes.
    #[must_use]
    pub(super) fn volumes(&self) -> [Tree; 2] {
        let [credentials, run] = VOLUMES;
        let token = Tree::map([
            ("audience", Tree::from(self.audience)),
            ("expirationSeconds", Tree::from(Injection::TOKEN_LIFE.as_secs())),
            ("path", "token".into()),
        ]);
        let item = Tree::map([("key", Tree::from(ROOT_KEY)), ("path", ROOT_KEY.into())]);
        let root = Tree::map([("name", Tree::from(ROOT_CONFIG_MAP)), ("items", Tree::List(vec![item]))]);
        let sources = vec![Tree::map([("serviceAccountToken", token)]), Tree::map([("configMap", root)])];
        let memory = Tree::map([("medium", Tree::from("Memory")), ("sizeLimit", RUN_BYTES.into())]);
        [
            Tree::map([
                ("name", Tree::from(credentials)),
                ("projected", Tree::map([("sources", Tree::List(sources))])),
            ]),
            Tree::map([("name", Tree::from(run)), ("emptyDir", memory)]),
        ]
    }

    fn uid(&self) -> u32 {
        self.wishes.uid.unwrap_or(self.settings.uid)
    }

    fn image(&self) -> Tree {
        self.wishes.image.as_ref().unwrap_or(&self.settings.image).as_str().into()
    }

    fn pull_policy(&self) -> Option<(&'static str, Tree)> {
        let policy = match self.settings.image_pull_policy? {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        };
        Some(("imagePullPolicy", policy.into()))
    }

    fn spec(&self) -> &Tree {
        self.pod.get("spec").unwrap_or(&Tree::Null)
    }
}

fn field(name: &str, path: &str) -> Tree {
    let from = Tree::map([("fieldRef", Tree::map([("fieldPath", Tree::from(path))]))]);
    Tree::map([("name", Tree::from(name)), ("valueFrom", from)])
}

fn port() -> Tree {
    Tree::map([
        ("name", Tree::from("douane-metrics")),
        ("containerPort", Tree::from(HEALTH_PORT)),
        ("protocol", "TCP".into()),
    ])
}

fn probe(period: u64, failures: Option<u64>) -> Tree {
    let ask = Tree::map([("path", Tree::from("/readyz")), ("port", HEALTH_PORT.into())]);
    let mut probe = vec![
        ("httpGet", ask),
        ("periodSeconds", period.into()),
        ("timeoutSeconds", PROBE_TIMEOUT_SECONDS.into()),
    ];
    probe.extend(failures.map(|failures| ("failureThreshold", failures.into())));
    Tree::map(probe)
}

fn mounts() -> Tree {
    let [credentials, run] = VOLUMES;
    Tree::List(vec![
        Tree::map([
            ("name", Tree::from(credentials)),
            ("mountPath", CREDENTIALS.into()),
            ("readOnly", true.into()),
        ]),
        Tree::map([("name", Tree::from(run)), ("mountPath", RUN.into())]),
    ])
}
