# What `run` and `node` share: Kubernetes' programs by version, built once with Go's own module client. Sourced, not run.
version=1.34.4
cache=${XDG_CACHE_HOME:-$HOME/.cache}/douane/kubernetes-$version
binaries=${DOUANE_KUBERNETES:-$cache}

fail() { echo "$0: $*" >&2; exit 1; }

# programs NAME...: each is in $binaries, or is built.
programs() {
    local program stamp=k8s.io/component-base/version
    for program; do
        [ -x "$binaries/$program" ] && continue
        [ -z "${DOUANE_KUBERNETES:-}" ] || fail "no $program in $binaries"
        command -v go >/dev/null || fail "needs go 1.24 or later, or DOUANE_KUBERNETES=/dir/with/binaries"
        mkdir -p "$cache"
        echo "=== building $program into $cache (once)"
        # The tools file's tag keeps the programs out of this module's own build; the sums are in go.sum.
        case $program in
        coredns)
            (cd "$here/dns" && go build -mod=readonly -buildvcs=false -trimpath -o "$cache/$program" -ldflags "-s -w" github.com/coredns/coredns)
            ;;
        *)
            (cd "$here" && go build -mod=readonly -buildvcs=false -trimpath -o "$cache/$program" \
                -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=34 -X $stamp.gitTreeState=clean" \
                "k8s.io/kubernetes/cmd/$program")
            ;;
        esac
    done
}
