#!/usr/bin/env bash
# What `node` does on its node once it is ready: `attempts.sh ROOM STAY`. The mesh, the shop, and the attempts of kind's demo.
set -uo pipefail
room=$1 stay=$2
cd "$(dirname "$0")/../../../kind-cluster"
. ./cluster.sh

deploy() (
    set -e
    echo "=== the mesh: douane install | kubectl apply"
    # A node of its own has no storage class; the state gets a folder.
    mkdir -p "$room/volume"
    k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: state}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOncePod]
  local: {path: $room/volume}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node]}]}]}}
YAML
    douane install | k apply --server-side -f - >/dev/null
    waits -n douane-system deployment/douane-ca
    echo "=== the shop"
    shop
    k get pods -A
)

code=0
if deploy; then
    echo "=== attempts"
    ./demo.sh || code=1
else
    code=1
fi
if [ "$stay" = yes ]; then
    echo "=== it runs until Ctrl-C (so far: $code)"
    sleep infinity
fi
exit "$code"
