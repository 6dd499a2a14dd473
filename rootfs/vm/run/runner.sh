#!/bin/bash
# Runs the items of /payload/run/plan one after the other and reports each on the second serial port:
#
#   = boot RELEASE                       once, first
#   = begin SUITE ITEM
#   | a line of its output
#   = end SUITE ITEM STATUS SECONDS
#   = done                               once, last
#
# A line of the plan: SUITE ITEM SECONDS COMMAND…, the command for bash.
set -uo pipefail

stty -F /dev/ttyS1 raw -echo
exec >/dev/ttyS1 2>&1 </dev/null

# Backtraces of panics only: taking one for each error costs seconds here.
export PATH=/payload/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=1 RUST_LIB_BACKTRACE=0
source /payload/run/env

# Programs were compiled elsewhere and may look for files by the paths they had there.
mkdir -p "$VM_SOURCE" "$VM_TARGET"
ln -s /payload/source/* "$VM_SOURCE"
ln -s /payload/target/* "$VM_TARGET"

echo "= boot $(uname -r)"
while read -r suite item seconds command; do
    echo "= begin $suite $item"
    began=$SECONDS
    timeout --kill-after=10 "$seconds" bash -c "$command" 2>&1 | sed -u 's/^/| /'
    echo "= end $suite $item ${PIPESTATUS[0]} $((SECONDS - began))"
done </payload/run/plan
echo "= done"
