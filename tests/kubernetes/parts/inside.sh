#!/usr/bin/env bash
# A Kubernetes node, from within the namespaces that `node` made for it: this is their first process, with which all others and
# every mount end. `inside.sh ROOM BINARIES COMMAND...` runs the command once the node is ready.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
room=$1 binaries=$2
shift 2
address=10.250.0.1
. "$here/papers.sh"

mkdir -p "$room/log" "$room/pid" "$room/etcd" "$room/kubelet/volume-plugins" "$room/cni" "$room/containerd" "$room/tunables"

# Everything that a node's programs write outside of their own folders; places that were not there go with `node`.
mount --make-rshared /
for place in /run /var/lib/cni /var/lib/kubelet /var/log/pods /var/log/containers; do
    [ -d "$place" ] || echo "$place" >>"$room/made"
    mkdir -p "$place"
    mount -t tmpfs -o size=64m node "$place"
done
# A kubelet sets these for its machine, which is not ours: it sets a copy.
for tunable in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    cat "/proc/sys/$tunable" >"$room/tunables/${tunable//\//.}"
    mount --bind "$room/tunables/${tunable//\//.}" "/proc/sys/$tunable"
done
started=()

# start NAME COMMAND...: its words go to a file of that name.
start() {
    local name=$1
    shift
    "$@" >"$room/log/$name" 2>&1 &
    started+=("$name:$!")
    echo $! >"$room/pid/$name"
}

# until_true WHAT SECONDS COMMAND...
until_true() {
    local what=$1 end=$((SECONDS + $2)) one
    shift 2
    until "$@" >/dev/null 2>&1; do
        for one in "${started[@]}"; do
            kill -0 "${one#*:}" 2>/dev/null && continue
            echo "${one%%:*} ended; it said last:" >&2
            tail -n 20 "$room/log/${one%%:*}" >&2
            exit 1
        done
        if [ "$SECONDS" -ge "$end" ]; then
            echo "$what did not come true; see $room/log" >&2
            for one in "${started[@]}"; do echo "--- ${one%%:*}"; tail -n 5 "$room/log/${one%%:*}"; done >&2
            exit 1
        fi
        sleep 0.5
    done
}
k() { "$binaries/kubectl" --kubeconfig "$room/papers/admin.conf" "$@"; }
node_is_ready() { k get node node | grep -q ' Ready'; }

# The node's address, and somewhere for the way out to lead to: no packet leaves.
ip link set lo up
ip link add node0 type bridge
ip addr add "$address/24" dev node0
ip link set node0 up
ip route add default via 10.250.0.254 dev node0
sysctl -qw net.ipv4.ip_forward=1

papers
echo "    etcd and the API server"
start etcd etcd --data-dir "$room/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
issuer=https://kubernetes.default.svc.cluster.local
start kube-apiserver "$binaries/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --bind-address="$address" \
    --advertise-address="$address" --client-ca-file="$room/papers/ca.crt" --tls-cert-file="$room/papers/apiserver.crt" \
    --tls-private-key-file="$room/papers/apiserver.key" --service-account-key-file="$room/papers/sa.pub" \
    --service-account-signing-key-file="$room/papers/sa.key" --service-account-issuer="$issuer" \
    --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --kubelet-client-certificate="$room/papers/admin.crt" --kubelet-client-key="$room/papers/admin.key" \
    --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$room/papers/ca.crt" --allow-privileged=true
until_true "an API server that is ready" 120 k get --raw /readyz

echo "    controllers, scheduler, kube-proxy, names"
start kube-controller-manager "$binaries/kube-controller-manager" --kubeconfig "$room/papers/controllers.conf" --leader-elect=false \
    --service-account-private-key-file="$room/papers/sa.key" --root-ca-file="$room/papers/ca.crt" --use-service-account-credentials \
    --cluster-signing-cert-file="$room/papers/ca.crt" --cluster-signing-key-file="$room/papers/ca.key"
start kube-scheduler "$binaries/kube-scheduler" --kubeconfig "$room/papers/scheduler.conf" --leader-elect=false
cat >"$room/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: 10.244.0.0/16
clientConnection: {kubeconfig: $room/papers/proxy.conf}
hostnameOverride: node
# The machine's own, and not ours to change.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
start kube-proxy "$binaries/kube-proxy" --config "$room/kube-proxy.yaml"
cat >"$room/Corefile" <<COREFILE
.:53 {
    bind $address
    errors
    ready $address:8181
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $room/papers/admin.conf
        pods insecure
        ttl 5
    }
}
COREFILE
start coredns "$binaries/coredns" -conf "$room/Corefile"
# Names are answered on the node itself; pods know the service only.
k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.10
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: ["$address"]}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
YAML

echo "    containerd and the kubelet"
cat >"$room/cni/10-pods.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
cat >"$room/containerd.toml" <<TOML
version = 2
root = "$room/containerd/root"
state = "/run/containerd/state"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$room/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE no process may be made less likely to be killed.
  restrict_oom_score_adj = true
  sandbox_image = "docker.io/library/pause:dev"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$CNI_BIN"
    conf_dir = "$room/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
TOML
start containerd containerd -c "$room/containerd.toml"
until_true "a containerd that answers" 60 ctr -a /run/containerd/containerd.sock version
for image in "$room"/images/*.tar; do
    ctr -a /run/containerd/containerd.sock -n k8s.io images import "$image" >/dev/null
done
echo "nameserver 10.96.0.10" >"$room/resolv.conf"
cat >"$room/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $room/papers/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: $CGROUP
failCgroupV1: false
volumePluginDir: $room/kubelet/volume-plugins
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
failSwapOn: false
tlsCertFile: $room/papers/kubelet.crt
tlsPrivateKeyFile: $room/papers/kubelet.key
# Only for pods of the node's own network.
resolvConf: $room/resolv.conf
# Of the whole machine, whose other inhabitants are not ours to judge.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: "1%", imagefs.available: "1%"}
# What a change of a ConfigMap takes to reach a volume.
syncFrequency: 10s
YAML
start kubelet "$binaries/kubelet" --config "$room/kubelet.yaml" --kubeconfig "$room/papers/kubelet.conf" --hostname-override node \
    --node-ip "$address" --root-dir "$room/kubelet"
until_true "a node that is ready" 120 node_is_ready
k get node node -o jsonpath='    {.metadata.name}: {.status.nodeInfo.kubeletVersion}, {.status.nodeInfo.containerRuntimeVersion}, Linux {.status.nodeInfo.kernelVersion}{"\n"}'

export KUBECONFIG=$room/papers/admin.conf DOUANE_CONTEXT=node PATH=$room/bin:$PATH
code=0
"$@" || code=$?
exit "$code"
