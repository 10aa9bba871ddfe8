# What the scripts here share; sourced, not run.
cluster=${DOUANE_CLUSTER:-douane}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' ../Cargo.toml | head -n 1)

k() { kubectl --context "${DOUANE_CONTEXT:-kind-$cluster}" "$@"; }

needs() {
    local program
    for program; do
        command -v "$program" >/dev/null || { echo "$0: $program is needed and not there" >&2; exit 1; }
    done
}

# Until a rollout is done, or says why not.
waits() {
    k rollout status "$@" --timeout=3m >/dev/null && return
    echo "$*: not ready after three minutes" >&2
    k get pods "${@:1:2}" >&2
    k get events "${@:1:2}" --sort-by=.lastTimestamp 2>/dev/null | tail -n 10 >&2
    exit 1
}

# The shop, in a cluster that has the mesh.
shop() {
    k apply -f shop/namespaces.yaml >/dev/null
    k apply -f shop >/dev/null
    local app
    for app in web orders inventory ledger intruder; do waits -n shop "deployment/$app"; done
    k wait --for=condition=Ready -n outside pod/outsider --timeout=2m >/dev/null
}
