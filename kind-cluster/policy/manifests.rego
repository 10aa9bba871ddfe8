# What our own manifests must be, as code: `conftest test --policy kind-cluster/policy FILE...`, and `cargo test` runs the
# same rules (tests/e2e/manifests.rs). Each rule names the object and what is wrong with it.
package main

import rego.v1

where := sprintf("%s %s", [input.kind, input.metadata.name])

# The pod that an object makes, if it makes one.
pod := input.spec if input.kind == "Pod"

pod := input.spec.template.spec if input.kind in {"Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job"}

pod := input.spec.jobTemplate.spec.template.spec if input.kind == "CronJob"

containers contains container if some container in pod.containers

containers contains container if some container in pod.initContainers

# Only the container that writes the pod's rules needs anything of the kernel, and it ends before the pod serves.
installs_rules(container) if container.name == "douane-redirect"

setting(container, name) := container.securityContext[name]

setting(container, name) := pod.securityContext[name] if not name in object.keys(object.get(container, "securityContext", {}))

deny contains sprintf("%s: image %s may be another one tomorrow; name a version or a digest", [where, container.image]) if {
	some container in containers
	is_moving(container.image)
}

is_moving(image) if endswith(image, ":latest")

is_moving(image) if {
	not contains(image, "@sha256:")
	parts := split(image, "/")
	not contains(parts[count(parts) - 1], ":")
}

deny contains sprintf("%s: container %s may run as root", [where, container.name]) if {
	some container in containers
	not installs_rules(container)
	not setting(container, "runAsNonRoot") == true
}

deny contains sprintf("%s: container %s runs as root", [where, container.name]) if {
	some container in containers
	not installs_rules(container)
	setting(container, "runAsUser") == 0
}

deny contains sprintf("%s: container %s is privileged", [where, container.name]) if {
	some container in containers
	container.securityContext.privileged
}

deny contains sprintf("%s: container %s may gain privileges", [where, container.name]) if {
	some container in containers
	not container.securityContext.allowPrivilegeEscalation == false
}

deny contains sprintf("%s: container %s keeps capabilities", [where, container.name]) if {
	some container in containers
	not "ALL" in object.get(container, ["securityContext", "capabilities", "drop"], [])
}

deny contains sprintf("%s: container %s asks for capability %s", [where, container.name, capability]) if {
	some container in containers
	some capability in object.get(container, ["securityContext", "capabilities", "add"], [])
	not may_add(container, capability)
}

may_add(container, "NET_ADMIN") if installs_rules(container)

deny contains sprintf("%s: container %s can write its own image", [where, container.name]) if {
	some container in containers
	not container.securityContext.readOnlyRootFilesystem == true
}

deny contains sprintf("%s: container %s has no seccomp profile", [where, container.name]) if {
	some container in containers
	not setting(container, "seccompProfile").type == "RuntimeDefault"
}

deny contains sprintf("%s: container %s may take all of a node's memory", [where, container.name]) if {
	some container in containers
	not container.resources.limits.memory
}

deny contains sprintf("%s: the pod shares %s with its node", [where, share]) if {
	some share in ["hostNetwork", "hostPID", "hostIPC"]
	pod[share]
}

deny contains sprintf("%s: volume %s is a folder of the node", [where, volume.name]) if {
	some volume in pod.volumes
	volume.hostPath
}

deny contains sprintf("%s: a rule permits everything (*)", [where]) if {
	input.kind in {"ClusterRole", "Role"}
	some rule in input.rules
	some field in ["verbs", "resources", "apiGroups"]
	"*" in rule[field]
}

deny contains sprintf("%s: every Secret of the cluster can be read or written", [where]) if {
	input.kind == "ClusterRole"
	some rule in input.rules
	"secrets" in rule.resources
}

deny contains sprintf("%s: webhook %s stops objects that have nothing to do with us", [where, webhook.name]) if {
	input.kind in {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}
	some webhook in input.webhooks
	object.get(webhook, "failurePolicy", "Fail") == "Fail"
	not webhook.namespaceSelector
	not webhook.objectSelector
	not only_policies(webhook)
}

# Policies are ours to judge, wherever they are.
only_policies(webhook) if {
	every rule in webhook.rules {
		every group in rule.apiGroups {
			group in {"security.istio.io", "networking.istio.io"}
		}
	}
}
