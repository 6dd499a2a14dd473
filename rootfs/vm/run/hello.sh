#!/bin/bash
# The runtime's smallest example, on this machine's own tree.
hello=$VM_TARGET/debug/examples/hello

check() {
    local name=$1 expected=$2 output status
    shift 2
    output=$("$@" 2>&1)
    status=$?
    printf '%s\n' "$output"
    if [ "$status" = "$expected" ]; then echo "pass: $name"; else echo "fail: $name: status $status, expected $expected"; fi
}

check "a command's success" 0 "$hello" / /bin/echo hello from the dyno
check "a command's failure" 7 "$hello" / /bin/sh -c 'exit 7'
check "its walls" 0 "$hello" / /bin/sh -c 'id; cat /proc/self/status | grep -E "^(Cap|NoNewPrivs|Seccomp)"; ls /proc | head -3; cat /proc/self/cgroup'
