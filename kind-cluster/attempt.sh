# How something is tried in a cluster that runs the shop; sourced, not run. Whoever does has `k` from cluster.sh.
failed=0 number=0
orders=http://orders.shop/orders

# attempt WHAT WANTED COMMAND...: the command's output must match the pattern, within half a minute; what was only just
# applied needs a moment.
attempt() { try 30 "$@"; }
# once WHAT WANTED COMMAND...: what went wrong the first time has gone wrong.
once() { try 0 "$@"; }
try() {
    local patience=$1 what=$2 wanted=$3 said='' began=$SECONDS
    shift 3
    number=$((number + 1))
    while :; do
        said=$("$@" 2>&1)
        if grep -Eq -- "$wanted" <<<"$said"; then
            printf 'ok   %2d  %s\n' "$number" "$what"
            [ "$patience" -ne 0 ] || printf '         %s\n' "${said##*$'\n'}"
            return
        fi
        [ $((SECONDS - began)) -lt "$patience" ] || break
        sleep 1
    done
    printf 'FAIL %2d  %s\n         wanted: %s\n         got:    %s\n' "$number" "$what" "$wanted" "${said//$'\n'/ | }"
    failed=1
}
in_pod() { k exec -n "$1" "$2" -c "$3" -- /shop "${@:4}"; }

# Requests by an application of the mesh for as long as the command takes, 40 a second: how they went.
under_load() {
    local words went=0 last='' runs=0
    words=$(mktemp -d)
    "$@" >"$words/command" 2>&1 &
    while :; do
        # Once more after its end: what it left behind counts.
        kill -0 $! 2>/dev/null || last=yes
        runs=$((runs + 1))
        in_pod shop deploy/web web load --rate 40 --seconds 5 "$url" >>"$words/load" 2>&1 || true
        [ -z "$last" ] || break
    done
    wait $! || went=$?
    [ "$went" -eq 0 ] || tail -n 3 "$words/command"
    grep -v '"failed":0,' "$words/load"
    # A run that ended without its figures counts as a failure.
    awk -v runs="$runs" '/"total":[0-9]+/ { runs--; match($0, /"total":[0-9]+/); total += substr($0, RSTART + 8, RLENGTH - 8)
           match($0, /"failed":[0-9]+/); failed += substr($0, RSTART + 9, RLENGTH - 9) }
         END { print total + 0 " requests, " failed + runs " failed" }' "$words/load"
    rm -rf "$words"
    return "$went"
}

# The last word: how it went, in a line and as the exit code.
conclude() {
    [ "$failed" -ne 0 ] || printf '\n%d attempts, all as expected\n' "$number"
    exit "$failed"
}
