#!/usr/bin/env bash
# Tries in the cluster what must work and what must not: `kind-cluster/demo.sh`, after `up.sh`. One line for each attempt;
# ends with 1 when one went otherwise than it must. With DOUANE_CONTEXT it tries another cluster that runs the shop
# (`tests/kubernetes/node` does). Leaves the shop as it was.
set -uo pipefail
cd "$(dirname "$0")"
. ./cluster.sh
. ./attempt.sh
needs kubectl

# How many of the shop's pods have a sidecar container, wherever Kubernetes keeps it.
sidecars() {
    k get pods -n shop -o jsonpath='{range .items[*]}{.spec.initContainers[*].name} {.spec.containers[*].name}{"\n"}{end}' |
        awk '/douane-proxy/ { with++ } END { print with + 0 " of " NR }'
}

# In which order the containers of a pod started: the rules, the sidecar, the application.
started() {
    k get pods -n shop -l app=web -o jsonpath='{range .items[0].status.initContainerStatuses[*]}{.state.running.startedAt}{.state.terminated.startedAt} {.name}{"\n"}{end}{range .items[0].status.containerStatuses[*]}{.state.running.startedAt} {.name}{"\n"}{end}' |
        sort -s -k 1,1 | awk '{ printf "%s%s", sep, $2; sep = " " }'
}

# TLS sessions of which both ends' logs tell: nobody stood between them.
sessions() {
    bindings() { k logs -n shop -l "app=$1" -c douane-proxy --tail=-1 | grep "\"direction\":\"$2\"" | grep -o '"tls_binding":"[^"]*"' | sort -u; }
    comm -12 <(bindings web outbound) <(bindings orders inbound)
}

# Which pods of a namespace that opted in have a sidecar; one of them opted out.
labelled() {
    k apply -f demo/labelled.yaml >/dev/null && k wait -n labelled pod --all --for=condition=Ready --timeout=90s >/dev/null &&
        k get pods -n labelled -o jsonpath='{range .items[*]}{.metadata.name}: {.spec.initContainers[*].name} {.spec.containers[*].name}; {end}{"\n"}'
    k delete -f demo/labelled.yaml --wait >/dev/null
}

# A policy that cannot mean anything, in a dry run.
wrong_policy() {
    k apply --dry-run=server -f - <<'END'
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: wrong, namespace: shop}
spec: {action: PERHAPS}
END
}

# What an operator without a certificate sees at an application's own port.
forwarded() {
    local words port
    words=$(mktemp)
    k port-forward -n shop deployment/orders :8080 >"$words" 2>&1 &
    for _ in $(seq 100); do
        port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$words")
        [ -z "$port" ] || break
        sleep 0.1
    done
    if [ -n "$port" ] && exec 3<>"/dev/tcp/127.0.0.1/$port"; then
        printf 'GET /orders HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n' >&3
        head -n 1 <&3
        exec 3>&-
    fi
    kill $!
    cat "$words"
    rm -f "$words"
}

job() {
    k apply -f demo/job.yaml >/dev/null && k wait -n shop job/count-orders --for=condition=Complete --timeout=90s &&
        echo "completed; it said last: $(k logs -n shop job/count-orders -c count-orders --tail=1)"
    k delete -f demo/job.yaml --wait >/dev/null
}
probes() {
    k apply -f demo/probes.yaml >/dev/null && k wait -n shop pod/probes --for=condition=Ready --timeout=90s &&
        # Liveness probes that fail show as restarts, after three periods.
        ! k wait -n shop pod/probes --for=condition=Ready=false --timeout=20s 2>/dev/null &&
        k get pod -n shop probes -o jsonpath='ready; restarts: {.status.containerStatuses[*].restartCount}{"\n"}'
    k delete -f demo/probes.yaml --wait >/dev/null
}

rolls() { k rollout restart -n "$1" "deployment/$2" && k rollout status -n "$1" "deployment/$2" --timeout=5m; }
scales() {
    local replicas
    for replicas in 3 2; do
        k scale -n shop deployment/orders --replicas="$replicas" || return
        k wait -n shop deployment/orders --for="jsonpath={.status.replicas}=$replicas" --timeout=2m || return
        k rollout status -n shop deployment/orders --timeout=2m || return
    done
}

attempt 'every pod of the shop has its sidecar'          '^6 of 6$' sidecars
attempt 'rules, sidecar, application: in this order'     '^douane-redirect douane-proxy web$' started
attempt 'web -> orders: 200'                             '^200 .*placed' in_pod shop deploy/web web get "$orders"
attempt 'web -> itself -> orders -> inventory, ledger'   '^200 ' in_pod shop deploy/web web get http://localhost:8080/checkout
attempt "the receiver's log names who asked"             'spiffe://cluster.local/ns/shop/sa/web' k logs -n shop -l app=orders -c douane-proxy --tail=500
attempt 'both ends tell of the same TLS session'         '^"tls_binding":"[0-9a-f]{16}"$' sessions
attempt 'intruder -> orders: 403'                        '^403 ' in_pod shop deploy/intruder intruder get "$orders"
attempt "the receiver's log names policy, rule and why"      'denied: policy shop/orders rule 1: principal .*/sa/intruder' k logs -n shop -l app=orders -c douane-proxy --tail=500
attempt 'intruder -> ledger (opaque TCP): closed'        'closed by the other side|reset' in_pod shop deploy/intruder intruder ledger-say ledger.shop:7000 HELLO
attempt 'outsider -> orders, in plaintext: refused'      '^0 ' in_pod outside pod/outsider outsider get "$orders"
attempt 'web -> a host that no resource names: 502'      '^502 ' in_pod shop deploy/web web get http://203.0.113.10:8080/
attempt "web -> the API server, by its cluster IP"       '"accepted":true' in_pod shop deploy/web web tls-probe kubernetes.default.svc:443
attempt 'a policy without a meaning: kubectl is told'    'PERHAPS' wrong_policy
attempt 'an operator by port-forward: 200'               '^HTTP/1.1 200' forwarded
once    'a namespace opts in, a pod of it opts out'      '^in: douane-redirect douane-proxy sleep; out:  sleep;' labelled
once    'a Job of the mesh completes'                    '^completed.* 200 ' job
once    'probes over HTTP, TCP, gRPC and exec are green' '^ready; restarts: 0 0$' probes
url=$orders
once    'orders restarts, web asks: no request lost'     '^[1-9][0-9]* requests, 0 failed' under_load rolls shop orders
once    'orders on three and back: no request lost'      '^[1-9][0-9]* requests, 0 failed' under_load scales
once    'the control plane restarts: no request lost'    '^[1-9][0-9]* requests, 0 failed' under_load rolls douane-system douane-ca
url=http://localhost:8080/checkout
once    'orders restarts, web places: none lost'         '^[1-9][0-9]* requests, 0 failed' under_load rolls shop orders
conclude
