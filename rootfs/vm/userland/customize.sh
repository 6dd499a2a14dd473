#!/bin/bash
# Inside the installed tree: the runner's unit, and nothing else that would start by itself.
#
#   customize.sh TREE        (called by mmdebstrap)
set -euo pipefail
tree=$1
recipe=$(cd "$(dirname "$0")" && pwd)

# An empty root password and no login prompt: the machine has no network and lives for minutes.
chroot "$tree" passwd --quiet --delete root
# Somebody without privileges, with the subordinate ids that the distribution gives to users.
chroot "$tree" useradd --create-home --shell /bin/bash user
grep -q '^user:' "$tree/etc/subuid"
printf 'vm\n' >"$tree/etc/hostname"
printf '127.0.0.1 localhost vm\n::1 localhost\n' >"$tree/etc/hosts"
: >"$tree/etc/fstab"
: >"$tree/etc/resolv.conf"
mkdir -p "$tree/payload" "$tree/usr/lib/modules"

for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-timesyncd.service getty@.service serial-getty@.service systemd-pstore.service \
    systemd-networkd.service nftables.service; do
    ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done

install -m 644 "$recipe/vm-runner.service" "$tree/etc/systemd/system/"
mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
ln -s ../vm-runner.service "$tree/etc/systemd/system/multi-user.target.wants/"
