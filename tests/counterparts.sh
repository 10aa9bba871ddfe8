#!/usr/bin/env bash
# Brings the foreign programs that tests use as counterparts into one folder, target/counterparts/bin: those that the
# machine has as links, the rest from Debian's packages when run as root. A test whose counterpart is missing skips
# aloud.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=target/counterparts/bin
mkdir -p "$bin"

# program:package
wanted="curl:curl openssl:openssl setpriv:util-linux kill:procps python3:python3-minimal nft:nftables"

missing=""
for pair in $wanted; do
    PATH="$PATH:/usr/sbin:/sbin" type -P "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null
fi
for pair in $wanted; do
    program=${pair%%:*}
    if found=$(PATH="$PATH:/usr/sbin:/sbin" type -P "$program"); then
        ln -sf "$found" "$bin/$program"
        echo "counterpart $program: $found"
    else
        echo "counterpart $program: missing (Debian package ${pair##*:}); its tests will skip"
    fi
done
