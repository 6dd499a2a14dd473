#!/bin/bash
# One test program, as cargo would run it. Tests whose names tell of delegation are run a second time, inside a unit whose control
# group systemd has handed over: outside of one they can only say that they are skipped.
#
#   suite.sh PROGRAM
cd "$VM_SOURCE/dyno-runtime" || exit
export CARGO_MANIFEST_DIR=$PWD

# Only the text of a test says that it was skipped.
"$1" --show-output
status=$?
if "$1" --list | grep -q 'delegat.*: test$'; then
    systemd-run --quiet --scope -p Delegate=yes "$1" delegat --show-output || status=$?
fi
exit "$status"
