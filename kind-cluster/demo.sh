#!/usr/bin/env bash
# Tries in the cluster what must work and what must not: `kind-cluster/demo.sh`, after `up.sh`. One line for each attempt;
# ends with 1 when one went otherwise than it must. With DOUANE_CONTEXT it tries another cluster that runs the shop.
set -uo pipefail
cd "$(dirname "$0")"
. ./cluster.sh
needs kubectl
failed=0 number=0

# attempt WHAT WANTED COMMAND...: the command's output must match the pattern, within half a minute.
attempt() {
    local what=$1 wanted=$2 said='' began=$SECONDS
    shift 2
    number=$((number + 1))
    while :; do
        said=$("$@" 2>&1)
        if grep -Eq -- "$wanted" <<<"$said"; then
            printf 'ok   %2d  %s\n' "$number" "$what"
            return
        fi
        [ $((SECONDS - began)) -lt 30 ] || break
        sleep 1
    done
    printf 'FAIL %2d  %s\n         wanted: %s\n         got:    %s\n' "$number" "$what" "$wanted" "${said//$'\n'/ | }"
    failed=1
}
# How many of the shop's pods have a sidecar container, wherever Kubernetes keeps it.
sidecars() {
    k get pods -n shop -o jsonpath='{range .items[*]}{.spec.initContainers[*].name} {.spec.containers[*].name}{"\n"}{end}' |
        awk '/douane-proxy/ { with++ } END { print with + 0 " of " NR }'
}
in_pod() { k exec -n "$1" "$2" -c "$3" -- /shop "${@:4}"; }

# A policy that cannot mean anything, in a dry run.
wrong_policy() {
    k apply --dry-run=server -f - <<'END'
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: wrong, namespace: shop}
spec: {action: PERHAPS}
END
}

attempt 'every pod of the shop has its sidecar'          '^6 of 6$' sidecars
attempt 'web -> orders: 200'                             '^200 .*placed' in_pod shop deploy/web web get http://orders.shop/orders
attempt 'web -> itself -> orders -> inventory, ledger'   '^200 ' in_pod shop deploy/web web get http://localhost:8080/checkout
attempt 'intruder -> orders: 403'                        '^403 ' in_pod shop deploy/intruder intruder get http://orders.shop/orders
attempt "the receiver's log names policy and rule"       'shop/orders' k logs -n shop -l app=orders -c douane-proxy --tail=500
attempt 'intruder -> ledger (opaque TCP): closed'        'closed by the other side|reset' in_pod shop deploy/intruder intruder ledger-say ledger.shop:7000 HELLO
attempt 'outsider -> orders, in plaintext: refused'      '^0 ' in_pod outside pod/outsider outsider get http://orders.shop/orders
attempt 'web -> a host that no resource names: 502'      '^502 ' in_pod shop deploy/web web get http://203.0.113.10:8080/
attempt 'a policy without a meaning: kubectl is told'    'PERHAPS' wrong_policy
[ "$failed" -eq 0 ] && printf '\n%d attempts, all as expected\n' "$number"
exit "$failed"
