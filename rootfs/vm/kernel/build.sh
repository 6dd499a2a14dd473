#!/bin/bash
# Fetches a Debian kernel and makes what booting it takes: the kernel, its modules as an ext4 image, an initrd.
#
#   build.sh SUITE OUTPUT-DIRECTORY       (SUITE: bookworm, bookworm-backports, unstable)
#
# Packages are only unpacked, into a tree of their own: no package list and no setting of this machine changes.
# Run as the userland's recipe is. Lines that begin with `vm: ` are its progress.
set -euo pipefail

say() { printf 'vm: %s\n' "$*"; }
die() { printf 'vm: %s\n' "$*" >&2; exit 1; }

recipe=$(cd "$(dirname "$0")" && pwd)
suite=$1
output=$2
work=$output.work
rm -rf --one-file-system "$work" "$output"
mkdir -p "$work/out" "$work/initrd/bin" "$work/initrd/modules"

say "fetching the kernel of $suite"
# A mirror may be older than the week that unstable's index is valid for; its signature is checked all the same.
fetch() {
    mmdebstrap --mode=root --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' "$@"
}
# Where this machine gets its own packages: its backports are beside them.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
case $suite in
bookworm-backports)
    fetch --include=linux-image-amd64/bookworm-backports,busybox-static \
        bookworm "$work/tree" "deb $mirror bookworm main" "deb $mirror bookworm-backports main"
    ;;
*) fetch --include=linux-image-amd64,busybox-static "$suite" "$work/tree" ;;
esac

modules=$work/tree/usr/lib/modules
[ -d "$modules" ] || modules=$work/tree/lib/modules
version=$(ls "$modules")
[ "$(wc -w <<<"$version")" = 1 ] || die "expected one kernel in $suite, found: $version"
kernel=$(find "$work/tree" -type f -name 'vmlinuz*' | head -n 1)
[ -n "$kernel" ] || die "no kernel image in the packages of $suite"
cp "$kernel" "$work/out/vmlinuz"

say "packing the modules of $version"
# A machine without hardware: what a sandbox can cause to be loaded stays, drivers go.
rm -rf "$modules/$version/kernel/sound"
find "$modules/$version/kernel/drivers" -mindepth 1 -maxdepth 1 \
    ! -name block ! -name char ! -name md ! -name net ! -name virtio -exec rm -rf {} +
find "$modules/$version/kernel/drivers/net" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
rm -f "$modules/$version/build" "$modules/$version/source"
mkdir -p "$work/root/lib"
mv "$modules" "$work/root/lib/modules"
depmod -b "$work/root" "$version"
mkfs.ext4 -q -F -L modules -m 0 -O ^has_journal -d "$work/root/lib/modules" "$work/out/modules.ext4" \
    "$(($(du -sm "$work/root/lib/modules" | cut -f1) * 5 / 4 + 64))M"

say "making the initrd"
cp "$(find "$work/tree" -path '*bin/busybox' | head -n 1)" "$work/initrd/bin/busybox"
cp "$recipe/init" "$work/initrd/init"
chmod 755 "$work/initrd/init" "$work/initrd/bin/busybox"
# Dependencies come first in modprobe's list; what is built in needs no loading.
for module in virtio_pci virtio_blk ext4; do
    modprobe -d "$work/root" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    name=$(basename "$file")
    case $name in
    *.xz) name=${name%.xz}; xz -dc "$file" >"$work/initrd/modules/$name" ;;
    *.zst) name=${name%.zst}; zstd -qdc "$file" >"$work/initrd/modules/$name" ;;
    *) cp "$file" "$work/initrd/modules/$name" ;;
    esac
    printf '%s\n' "$name" >>"$work/initrd/modules/order"
done
(cd "$work/initrd" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work/out/initrd"
printf '%s\n' "$version" >"$work/out/version"
mv "$work/out" "$output"
rm -rf --one-file-system "$work"
say "kernel $version ready"
