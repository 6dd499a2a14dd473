#!/bin/bash
# What this machine is, and that the programs run on it at all.
check() {
    local name=$1
    shift
    if "$@"; then echo "pass: $name"; else echo "fail: $name (status $?): $*"; fi
}

uname -a
systemctl --version | head -n 1
grep cgroup /proc/self/mountinfo
cat /proc/self/cgroup
echo "controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
echo "for children: $(cat /sys/fs/cgroup/cgroup.subtree_control)"
echo "memory: $(grep MemTotal /proc/meminfo)"
echo "security modules: $(cat /sys/kernel/security/lsm 2>/dev/null)"

check "pure cgroup v2" test "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs
for controller in cpu memory pids; do
    check "controller $controller" grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers
done
check "only loopback" test "$(ls /sys/class/net)" = lo
check "dynod starts" dynod --version
check "dyno starts" dyno --version
