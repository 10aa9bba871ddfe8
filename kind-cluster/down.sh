#!/usr/bin/env bash
# Takes the cluster of `up.sh` away, with everything in it.
set -euo pipefail
cd "$(dirname "$0")"
. ./cluster.sh
needs kind
kind delete cluster --name "$cluster"
