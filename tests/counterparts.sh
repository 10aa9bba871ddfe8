#!/usr/bin/env bash
# Brings the foreign programs that tests use as counterparts into one folder: target/counterparts/bin holds links to
# those that the machine has, the rest comes from Debian's packages when run as root; target/counterparts/venv holds
# Python's, pinned by tests/foreign/requirements.txt. All of it is optional, also the network: a test whose counterpart
# is missing skips aloud.
set -euo pipefail
cd "$(dirname "$0")/.."
room=target/counterparts
bin=$room/bin
mkdir -p "$bin"
# Debian keeps servers where users do not look.
places=$PATH:/usr/sbin:/sbin:$(printf '%s:' /usr/lib/postgresql/*/bin)

# program:package
wanted="
curl:curl openssl:openssl setpriv:util-linux kill:procps python3:python3-minimal nft:nftables socat:socat
haproxy:haproxy nginx:nginx-light lighttpd:lighttpd apache2:apache2-bin node:nodejs
nghttp:nghttp2-client h2load:nghttp2-client nghttpd:nghttp2-server wrk:wrk iperf3:iperf3
redis-server:redis-server redis-cli:redis-tools nats-server:nats-server
mariadbd:mariadb-server mariadb-install-db:mariadb-server mariadb:mariadb-client
postgres:postgresql initdb:postgresql psql:postgresql-client
sshd:openssh-server ssh:openssh-client ssh-keygen:openssh-client exim4:exim4-daemon-light
slowhttptest:slowhttptest testssl:testssl.sh promtool:prometheus
"

found() { PATH="$places" type -P "$1"; }

# Packages that are installed for their programs must not start their services: Debian asks this file.
guard=/usr/sbin/policy-rc.d
guarded() {
    local before=
    if [ -e "$guard" ]; then
        before=$(mktemp)
        cp -p "$guard" "$before"
    fi
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod 755 "$guard"
    local status=0
    "$@" || status=$?
    if [ -n "$before" ]; then
        cp -p "$before" "$guard"
        rm -f "$before"
    else
        rm -f "$guard"
    fi
    return "$status"
}

packages() {
    local network="-o Acquire::Retries=1 -o Acquire::http::Timeout=30"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # lists of words
    apt-get $network update -qq &&
        apt-get $network install -y -qq --no-install-recommends "$@" >/dev/null
}

missing=""
for pair in $wanted; do
    found "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
# The bench needs nginx's module for TCP.
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing="$missing libnginx-mod-stream"
/usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086 # a list of packages
    guarded packages $(printf '%s\n' $missing | sort -u) || echo "counterparts: not all packages could be installed"
fi
for pair in $wanted; do
    program=${pair%%:*}
    if place=$(found "$program"); then
        ln -sf "$place" "$bin/$program"
        echo "counterpart $program: $place"
    else
        rm -f "$bin/$program"
        echo "counterpart $program: missing (Debian package ${pair##*:}); its tests will skip"
    fi
done

# A workload that uses go-spiffe: where there is Go, and its modules can be had.
if command -v go >/dev/null && (cd tests/foreign/go_spiffe && go build -o "$OLDPWD/$bin/go-spiffe" . 2>/dev/null); then
    echo "counterpart go-spiffe: $bin/go-spiffe"
else
    echo "counterpart go-spiffe: missing (Go, or its modules); its test will skip"
fi

pins=tests/foreign/requirements.txt
venv=$room/venv
if ! cmp -s "$pins" "$venv/pins"; then
    rm -rf "$venv"
    # The system's own Python: every user may run it.
    python=/usr/bin/python3
    [ -x "$python" ] || python=$(found python3 || true)
    if [ -n "$python" ] && "$python" -m venv "$venv" >/dev/null &&
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 30 -r "$pins"; then
        # Last: what was broken off is begun anew.
        cp "$pins" "$venv/pins"
    else
        rm -rf "$venv"
    fi
fi
if [ -e "$venv/pins" ]; then
    echo "counterpart venv: $venv"
else
    echo "counterpart venv: missing ($pins could not be installed); its tests will skip"
fi
