#!/bin/bash
# After the installation: removes what a dyno never reads, and what differs between two builds.
#
#   finish.sh TREE           (nothing of the tree is mounted or running any more)
set -euo pipefail
tree=$1
[ -f "$tree/etc/debian_version" ] || { echo "$tree is no Debian tree" >&2; exit 1; }

# The runtime puts its own file systems on these.
for dir in dev proc sys run tmp; do
    find "${tree:?}/$dir" -xdev -mindepth 1 -delete
done
chmod 1777 "$tree/tmp"

rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/* "$tree"/var/log/* "$tree"/var/tmp/* \
    "$tree"/var/backups/* "$tree"/root/.[!.]* \
    "$tree"/usr/share/man "$tree"/usr/share/info "$tree"/usr/share/locale \
    "$tree"/etc/ssh/ssh_host_* "$tree"/etc/machine-id "$tree"/var/lib/dbus/machine-id \
    "$tree"/etc/passwd- "$tree"/etc/group- "$tree"/etc/shadow- "$tree"/etc/gshadow- \
    "$tree"/etc/subuid- "$tree"/etc/subgid- "$tree"/etc/.pwd.lock

# An empty machine-id means "not yet known" to everything that reads it.
: >"$tree/etc/machine-id"

# No dyno may gain rights by running a file; dynos also run with no_new_privs, this is the second lock.
find "$tree" -xdev -type f -perm /6000 -exec chmod u-s,g-s {} +

# The day of the last password change is the day of the build.
awk -F: -v OFS=: '{ $3 = 19518; print }' "$tree/etc/shadow" >"$tree/etc/shadow.new"
cat "$tree/etc/shadow.new" >"$tree/etc/shadow"
rm "$tree/etc/shadow.new"

# Plain files, for the runtime to bind over.
rm -f "$tree/etc/resolv.conf" "$tree/etc/hosts" "$tree/etc/hostname"
: >"$tree/etc/resolv.conf"
echo dyno >"$tree/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$tree/etc/hosts"
chmod 644 "$tree"/etc/{resolv.conf,hosts,hostname,machine-id}
