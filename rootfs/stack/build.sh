#!/bin/bash
# Builds the stack: the read-only Debian tree under every dyno, as one squashfs image.
#
#   build.sh OUTPUT.sqsh
#
# Also writes OUTPUT.sqsh.packages (name=version per line). On failure the complete log stays in
# OUTPUT.sqsh.log. The image appears by rename, so a reader sees the old image or the new one.
#
# The install runs in its own mount and process namespaces: when this script ends, however it
# ends, the kernel takes down every mount and process of the half-made tree with them.
set -euo pipefail

suite=bookworm
# The day bookworm was released. The image keeps no file times, and with this set Python marks its
# compiled files to be checked by their source's hash, not by its time; otherwise each is stale.
export SOURCE_DATE_EPOCH=1686355200
# Compiled Python files store sets in hash order; a fixed seed makes them repeatable.
export PYTHONHASHSEED=0

packages=(
    bash coreutils ca-certificates procps file git curl tar gzip xz-utils zstd unzip squashfs-tools
    python3 python3-venv python3-pip python3-dev
    nodejs npm
    ruby ruby-dev bundler ruby-sinatra ruby-rack ruby-webrick puma
    gcc g++ make libc6-dev pkg-config
)

say() { printf 'stack: %s\n' "$*"; }
die() { printf 'stack: %s\n' "$*" >&2; exit 1; }

[ $# -eq 1 ] || die "usage: build.sh OUTPUT.sqsh"
[ "$(id -u)" = 0 ] || die "needs root: device nodes and file owners are part of the tree"
for tool in mmdebstrap mksquashfs unshare; do
    command -v "$tool" >/dev/null || die "$tool is not installed"
done

recipe=$(cd "$(dirname "$0")" && pwd)
output=$(realpath -m -- "$1")
mkdir -p "$(dirname "$output")"
log=$output.log
work=$(mktemp -d "$output.XXXXXX")
child=

# Ends the child first: `unshare --kill-child` then kills everything inside its namespaces, and
# only after that can the tree be removed without meeting a mount.
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        kill -KILL "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Runs a command inside fresh namespaces and waits so that a signal to this script is seen at once.
# The `sh` is process 1 in there; it must not be replaced by the command, which would then have to
# reap orphans.
contained() {
    unshare --mount --propagation private --pid --fork --kill-child=KILL --mount-proc \
        sh -c '"$@"; exit $?' contained "$@" </dev/null &
    child=$!
    local status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

# Copies the installer's output to the log and says only the steps.
steps() {
    local line count
    while IFS= read -r line; do
        printf '%s\n' "$line" >&4
        case $line in
        'I: running apt-get update'*) say "reading the package lists" ;;
        'I: running --customize-hook'*) say "preparing users, folders and registries" ;;
        *' newly installed, '*)
            count=$(grep -o '[0-9]* newly' <<<"$line")
            [ "${count% newly}" = 0 ] || say "installing ${count% newly} packages"
            ;;
        'E: '*) say "$line" ;;
        esac
    done 4>>"$log"
}

fail() { die "$1; the log is $log"; }

: >"$log"
started=$SECONDS
say "base $suite"

# A named pipe, so that the reader's end can be awaited too: steps are said in their order.
mkfifo "$work/output"
steps <"$work/output" &
reader=$!
status=0
# No mirror is named: mmdebstrap's own default for the suite, with updates and security, is used.
contained mmdebstrap --mode=root --variant=minbase --format=directory --verbose \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/lintian/*' \
    --dpkgopt='path-exclude=/usr/share/ri/*' \
    --customize-hook="$recipe/customize.sh \"\$1\"" \
    "$suite" "$work/tree" >"$work/output" 2>&1 || status=$?
wait "$reader"
[ "$status" = 0 ] || fail "the installation failed"

# What follows waits for mmdebstrap's own end: until then it has /dev, /etc/resolv.conf and the
# logs of the tree in use.
say "cleaning"
"$recipe/finish.sh" "$work/tree" >>"$log" 2>&1 || fail "cleaning failed"
dpkg-query --admindir="$work/tree/var/lib/dpkg" -W -f '${Package}=${Version}\n' \
    | LC_ALL=C sort >"$work/packages"

say "packing $(du -s --block-size=1M "$work/tree" | cut -f1) MB"
# mksquashfs refuses its time options beside SOURCE_DATE_EPOCH.
contained env -u SOURCE_DATE_EPOCH mksquashfs "$work/tree" "$work/image" \
    -noappend -no-xattrs -all-time 0 -mkfs-time 0 -comp zstd -Xcompression-level 6 \
    -no-progress -quiet >>"$log" 2>&1 || fail "packing failed"

chmod 644 "$work/image" "$work/packages"
mv -f "$work/packages" "$output.packages"
mv -f "$work/image" "$output"
rm -f "$log"
say "done: $(wc -l <"$output.packages") packages, $(($(stat -c %s "$output") >> 20)) MB," \
    "$((SECONDS - started)) s"
