#!/usr/bin/env bash
# An image out of one static binary, without Docker: `kind-cluster/archive.sh NAME:TAG BINARY UID [ARGUMENT] > image.tar`.
# What `docker build` makes of the Dockerfile's last stages, as `ctr images import`, `kind load image-archive` and
# `docker load` take it. Same binary, same image.
set -euo pipefail
if [ $# -lt 3 ] || [ $# -gt 4 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
name=$1 binary=$2 uid=$3 argument=${4:+"\"$4\""}
case $(file -b "$binary") in
*aarch64*) arch=arm64 ;;
*x86-64*) arch=amd64 ;;
*) echo "archive.sh: $binary is no program for x86-64 or aarch64" >&2; exit 1 ;;
esac

case $(file -b "$binary") in
*"dynamically linked"*) echo "archive.sh: $binary needs libraries that the image has not; build it with RUSTFLAGS='-C target-feature=+crt-static'" >&2; exit 1 ;;
esac

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
program=$(basename "$binary")
mkdir "$room/root" "$room/image"
install -m 755 "$binary" "$room/root/$program"
same=(--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner)
tar "${same[@]}" -C "$room/root" -cf "$room/image/layer.tar" "$program"
layer=$(sha256sum "$room/image/layer.tar" | cut -d' ' -f1)
cat >"$room/image/config.json" <<END
{"architecture":"$arch","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"User":"$uid:$uid","Entrypoint":["/$program"],"Cmd":[$argument],"Env":["PATH=/"],"WorkingDir":"/"},
 "rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
END
cat >"$room/image/manifest.json" <<END
[{"Config":"config.json","RepoTags":["docker.io/library/$name"],"Layers":["layer.tar"]}]
END
tar "${same[@]}" -C "$room/image" -c config.json layer.tar manifest.json
