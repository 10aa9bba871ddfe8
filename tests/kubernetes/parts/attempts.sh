#!/usr/bin/env bash
# What `node` does on its node once it is ready: `attempts.sh ROOM STAY`. The mesh, the shop, the attempts of kind's demo, and
# those for which one must be on the node.
set -uo pipefail
room=$1 stay=$2
cd "$(dirname "$0")/../../../kind-cluster"
. ./cluster.sh
. ./attempt.sh

deploy() (
    set -e
    echo "=== the mesh: douane install | kubectl apply"
    douane install | k apply --server-side -f - >/dev/null
    waits -n douane-system deployment/douane-ca
    echo "=== the shop"
    shop
    k get pods -A
)

first_of() { k get pods -n shop -l "app=$1" -o "jsonpath={.items[0]$2}"; }

# The sidecar of a pod dies; the kubelet starts it anew.
sidecar_dies() {
    local pod id again="{.status.initContainerStatuses[?(@.name=='douane-proxy')].restartCount}"
    pod=$(first_of orders .metadata.name)
    id=$(first_of orders ".status.initContainerStatuses[?(@.name=='douane-proxy')].containerID")
    ctr -a /run/containerd/containerd.sock -n k8s.io task kill --signal SIGKILL "${id#containerd://}" &&
        k wait -n shop "pod/$pod" --for="jsonpath=$again=1" --timeout=60s && k wait -n shop "pod/$pod" --for=condition=Ready --timeout=60s
}
evicted() {
    local pod
    pod=$(first_of orders .metadata.name)
    k create --raw "/api/v1/namespaces/shop/pods/$pod/eviction" -f - <<<"{\"apiVersion\": \"policy/v1\", \"kind\": \"Eviction\", \"metadata\": {\"name\": \"$pod\"}}" &&
        k wait -n shop "pod/$pod" --for=delete --timeout=60s && k rollout status -n shop deployment/orders --timeout=2m
}
# The kubelet ends, and another one finds the pods as they are: it takes them for unready until it has asked each (so does
# Kubernetes with any pod that has probes), and starts none anew.
kubelet_restarts() {
    local pid words before="$room/before"
    starts() { k get pods --sort-by=.metadata.name -n shop -o jsonpath='{range .items[*]}{.metadata.name}{.status.initContainerStatuses[*].containerID}{.status.containerStatuses[*].containerID}{"\n"}{end}'; }
    starts >"$before"
    pid=$(<"$room/pid/kubelet")
    mapfile -d '' words <"/proc/$pid/cmdline"
    kill "$pid" || return
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    "${words[@]}" >>"$room/log/kubelet" 2>&1 &
    echo $! >"$room/pid/kubelet"
    # Unready at first; then ready, and asked.
    for _ in $(seq 60); do in_pod shop deploy/web web get "$orders" && break; sleep 1; done
    k wait -n shop pod --all --for=condition=Ready --timeout=60s >/dev/null && starts | diff "$before" - && echo 'the same containers'
}
# Warnings are of a cluster with one node.
checked() { douane check; echo "ended with $?"; }
upgrades() {
    k get configmap douane-mesh -n douane-system -o yaml | douane upgrade --installed - | k apply --server-side -f - &&
        k rollout status -n douane-system deployment/douane-ca --timeout=3m
}
# Without us pods are created as they are, whatever their labels say.
uninstalled() {
    douane uninstall | k delete --ignore-not-found -f - >/dev/null
    k delete pod -n shop -l app=intruder >/dev/null && k rollout status -n shop deployment/intruder --timeout=1m >/dev/null
    first_of intruder '.spec.containers[*].name'
    k get namespace douane-system
}

code=0
if deploy; then
    echo "=== attempts"
    ./demo.sh || code=1
    echo "=== attempts on the node"
    none_lost='^[1-9][0-9]* requests, 0 failed'
    url=$orders
    once "a sidecar dies: no request lost"                  "$none_lost" under_load sidecar_dies
    once "a pod is evicted: no request lost"                "$none_lost" under_load evicted
    once "the kubelet restarts: all pods go on as they are" '^the same containers' kubelet_restarts
    once "douane check finds no error"                      '^ended with [02]$' checked
    once "douane upgrade | kubectl apply: no request lost"  "$none_lost" under_load upgrades
    [ "$stay" = yes ] ||
        once "douane uninstall | kubectl delete: all is gone" '^intruder.*NotFound' printf '%s\n' "$(uninstalled 2>&1 | tr '\n' ' ')"
    [ "$failed" -eq 0 ] || code=1
else
    code=1
fi
if [ "$stay" = yes ]; then
    echo "=== it runs until Ctrl-C (so far: $code)"
    sleep infinity
fi
exit "$code"
