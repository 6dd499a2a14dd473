#!/bin/bash
# A platform from start to stop: an app is created, built, run, scaled, asked, destroyed.
export DYNO_STATE_DIR=/var/lib/dyno-vm DYNO_RUN_DIR=/run/dyno-vm DYNO_CGROUP=dyno-vm
export DYNO_API=127.0.0.1:0 DYNO_ROUTER=127.0.0.1:0 DYNO_CLIENT=$DYNO_RUN_DIR/api/client.json
app=vm-static
log=/tmp/dynod.log

broken=

# After a failure the steps that build on it are skipped, and counted as that.
step() {
    local name=$1 status
    shift
    if [ -n "$broken" ]; then echo "skipped: $name"; return; fi
    "$@"
    status=$?
    if [ "$status" = 0 ]; then echo "pass: $name"; return; fi
    echo "fail: $name: status $status"
    broken=1
    echo "--- dynod's log ---"
    tail -n 60 "$log"
    echo "--- kernel ---"
    dmesg --level=emerg,alert,crit,err,warn | tail -n 15
}

start() {
    local line
    mkfifo /tmp/dynod.out || return
    setsid dynod >/tmp/dynod.out 2>"$log" </dev/null &
    read -r -t 120 line </tmp/dynod.out
    [ "$line" = ready ]
}

# One request through the router, without a client program.
ask() {
    local router answer
    router=$(grep -o '"router": *"http://[^"]*"' "$DYNO_CLIENT" | grep -oE '[0-9.]+:[0-9]+')
    exec 3<>"/dev/tcp/${router%:*}/${router#*:}" || return
    printf 'GET / HTTP/1.1\r\nHost: %s.localhost\r\nConnection: close\r\n\r\n' "$app" >&3
    answer=$(timeout 60 cat <&3)
    exec 3>&-
    printf '%s\n' "$answer" | head -n 12
    [[ $answer == "HTTP/1.1 200"* ]]
}

one_off() { [ "$(dyno run --no-tty -a "$app" -- sh -c 'echo it runs as $(id -u)')" = "it runs as 1000" ]; }
left() {
    ! { grep dyno-vm /proc/self/mountinfo || find /sys/fs/cgroup -name 'dyno-vm*' | grep . || losetup --list --noheadings | grep . \
        || pgrep -a dynod || ls -d "$DYNO_RUN_DIR"; }
}

# A source directory is written to: it remembers its app.
cp -r "$VM_SOURCE/rootfs/apps/static" /tmp/static

step "the daemon starts" start
step "apps:create" dyno apps:create "$app" --no-file
step "config:set" dyno config:set -a "$app" GREETING=hi
step "deploy" dyno deploy -a "$app" /tmp/static
step "ps:wait" dyno ps:wait -a "$app"
step "ps" dyno ps -a "$app"
step "an answer through the router" ask
step "ps:scale" dyno ps:scale web=2 -a "$app"
step "two dynos" dyno ps:wait -a "$app"
step "a one-off dyno" one_off
step "logs" dyno logs -n 15 -a "$app"
step "apps:destroy" dyno apps:destroy "$app" --confirm "$app"
# These hold whatever came before.
broken=
step "dynod stop" dynod stop
step "nothing left behind" left
