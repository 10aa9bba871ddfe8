#!/usr/bin/env bash
# A cluster on this machine with the mesh, the shop, Jaeger, Prometheus and Grafana: `kind-cluster/up.sh`. Needs docker, kind
# and kubectl; takes some minutes, most of them for building the images. `demo.sh` then tries what must work and what must
# not; `down.sh` takes everything away. Run again, it goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")"
. ./cluster.sh
needs docker kind kubectl

if kind get clusters 2>/dev/null | grep -qx "$cluster"; then
    echo "=== the cluster $cluster is there"
else
    echo "=== a cluster: $cluster"
    kind create cluster --config kind.yaml --wait 3m
fi

echo "=== images"
revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
for target in douane:$version douane-proxy:$version; do
    docker build -q -f Dockerfile --target "${target%%:*}" --build-arg VERSION="$version" --build-arg REVISION="$revision" -t "$target" ..
done
docker build -q -f Dockerfile --target shop -t douane-shop:dev ..
kind load docker-image --name "$cluster" "douane:$version" "douane-proxy:$version" douane-shop:dev
docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep -E "^douane(-proxy)?:$version|^douane-shop:dev"

echo "=== Jaeger, Prometheus, Grafana"
k apply --server-side -k monitoring >/dev/null
echo "=== the mesh"
k apply --server-side -k manifests >/dev/null
waits -n douane-system deployment/douane-ca
echo "=== the shop"
shop
for app in jaeger prometheus grafana; do waits -n monitoring "deployment/$app"; done

cat <<END

It runs. Next:
  kind-cluster/demo.sh                                    what must work, and what must not
  kubectl --context kind-$cluster get pods -n shop
  http://localhost:16686  Jaeger     http://localhost:3000  Grafana     http://localhost:9090  Prometheus
END
