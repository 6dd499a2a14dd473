#!/bin/bash
# Builds the virtual machine's userland: Debian bookworm with systemd as one ext4 image, without a kernel.
#
#   build.sh OUTPUT.ext4
#
# `cargo xtask vm-test` runs this inside mount and process namespaces of its own, so whatever way it ends,
# nothing of the half-made tree stays mounted or running. Lines that begin with `vm: ` are its progress.
set -euo pipefail

packages=(
    systemd systemd-sysv udev dbus kmod
    iproute2 nftables procps util-linux mount
    squashfs-tools e2fsprogs ca-certificates libgcc-s1
    strace uidmap passwd
    rustc cargo gcc libc6-dev
)

say() { printf 'vm: %s\n' "$*"; }

recipe=$(cd "$(dirname "$0")" && pwd)
output=$1
work=$output.work
rm -rf --one-file-system "$work"
mkdir -p "$work"

say "installing bookworm with systemd"
mmdebstrap --mode=root --variant=minbase --format=directory \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="$recipe/customize.sh \"\$1\"" \
    bookworm "$work/tree"

say "writing the ext4 image"
# Sparse: only what is used takes room. What the machine writes goes to a throw-away layer of qemu's.
mkfs.ext4 -q -F -L userland -m 0 -O ^has_journal -d "$work/tree" "$work/image" 4G
mv -f "$work/image" "$output"
rm -rf --one-file-system "$work"
say "userland ready, $(du -m "$output" | cut -f1) MB"
