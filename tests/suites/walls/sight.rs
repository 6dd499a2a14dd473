//! What a dyno sees: itself.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, until};

use super::{APP, deployed, inside};

pub(super) fn identity(platform: &Platform) -> Result<()> {
    let output = inside(platform, "id -u; id -g; id -G; cat /proc/self/status /proc/self/uid_map")?;
    // The user namespace: 1000 inside, no other id but its own range; no supplementary groups of whoever started the platform.
    ensure!(output.starts_with("1000\n1000\n1000\n"), "{output}");
    for (field, value) in [
        ("CapInh", "0000000000000000"), // capabilities dropped before exec …
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"), // … and from the bounding set, so that no exec brings one back
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"), // no_new_privs: setuid and file capabilities have no effect
        ("Seccomp", "2"),    // a filter is on
    ] {
        let line = output.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).map(str::trim);
        ensure!(line == Some(value), "{field} is {line:?}, not {value}");
    }
    let map: Vec<&str> = output.lines().last().unwrap_or_default().split_whitespace().collect();
    ensure!(matches!(map[..], ["0", from, "65536"] if from.parse().is_ok_and(|n: u32| n >= 1 << 20)), "uid_map: {map:?}");
    deployed(platform)?;
    for dyno in platform.seen(APP)?.values() {
        platform.confined(&dyno.id)?;
    }
    Ok(())
}

/// Closed in the child, not only marked: nothing of the warden or the daemon is handed on.
pub(super) fn descriptors(platform: &Platform) -> Result<()> {
    // The listing's own descriptor is gone when it is asked for.
    let list = "python3 -c 'import os; f = \"/proc/self/fd/\"; print(sorted(int(n) for n in os.listdir(f) if os.path.exists(f + n)))'";
    ensure!(inside(platform, list)?.trim() == "[0, 1, 2]", "attached: {}", inside(platform, list)?);
    platform.ok(&["run:detached", "-a", APP, list])?;
    platform.await_log(APP, "]: [0, 1, 2]", 10).map(drop)
}

/// The pid namespace and a procfs of its own.
pub(super) fn processes(platform: &Platform) -> Result<()> {
    deployed(platform)?;
    let mark = format!("100000.{}", std::process::id());
    let mut canary = Command::new("sleep").arg(&mark).spawn().context("sleep")?;
    let look = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo; echo /proc/[0-9]*; for f in environ mem maps fd/0 root cwd exe; do head -c 1 /proc/1/$f >/dev/null 2>&1 && echo open $f; done; kill -9 1; echo alive";
    let output = inside(platform, look);
    canary.kill()?;
    canary.wait()?;
    let output = output?;
    ensure!(!output.contains(&mark), "a process of the host shows:\n{output}");
    let pids: Vec<u32> = output.lines().flat_map(str::split_whitespace).filter_map(|w| w.strip_prefix("/proc/")?.parse().ok()).collect();
    ensure!(pids.contains(&1) && pids.len() <= 5 && pids.iter().all(|pid| *pid < 100), "{pids:?}");
    // Init is not dumpable: the app, of the same uid, does not get at its memory, its descriptors (the log, the exit record), its root.
    ensure!(!output.lines().any(|l| l.starts_with("open ")), "parts of pid 1 can be read:\n{output}");
    // A pid 1 is not killed from inside its namespace.
    ensure!(output.ends_with("alive\n"), "{output}");
    Ok(())
}

/// Where a dyno has mounts, and of what kind.
const MOUNTS: [(&str, &str); 5] = [("/", "overlay"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs"), ("/proc", "proc")];
/// Masked by an empty file or directory.
const MASKED: [&str; 18] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
    "config.gz",
    "kallsyms",
    "kmsg",
    "key-users",
    "modules",
    "slabinfo",
    "vmallocinfo",
    "cmdline",
];
/// Made read-only.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The mount namespace: a root by pivot_root, the old one detached.
pub(super) fn mounts(platform: &Platform) -> Result<()> {
    let output = inside(platform, "cat /proc/self/mountinfo; echo; ls -A /sys /mnt /media /srv | grep -v ':$' | grep -c .; true")?;
    let (table, rest) = output.split_once("\n\n").context("two parts")?;
    let mut points = BTreeSet::new();
    for line in table.lines() {
        let (left, right) = line.split_once(" - ").with_context(|| line.to_owned())?;
        let fields: Vec<&str> = left.split(' ').collect();
        let (point, options, kind) = (fields[4], fields[5], right.split(' ').next().unwrap_or_default());
        let name = point.strip_prefix("/proc/").unwrap_or_default();
        let known = MOUNTS.contains(&(point, kind)) || MASKED.contains(&name) && kind == "tmpfs" || READ_ONLY.contains(&name) && kind == "proc";
        ensure!(known && points.insert(point), "an undocumented mount: {line}");
        // nosuid everywhere; nodev everywhere but on /dev and its clones, which are read-only.
        let set: Vec<&str> = options.split(',').collect();
        let devices = point == "/dev" || point == "/dev/pts" || MASKED.contains(&name);
        ensure!(set.contains(&"nosuid") && (devices || set.contains(&"nodev")), "{line}");
        ensure!(point == "/" || point == "/dev/pts" || point == "/dev/shm" || point == "/proc" || set.contains(&"ro"), "writable: {line}");
        ensure!(!left.contains(" shared:") && !left.contains(" master:"), "mounts of the host propagate: {line}");
    }
    ensure!(MOUNTS.iter().all(|(point, _)| points.contains(point)), "{points:?}");
    for part in [&*platform.state().to_string_lossy(), &*platform.run_dir().to_string_lossy(), "/var/cache", ".sqsh"] {
        ensure!(!table.contains(part), "paths of the host show: {table}");
    }
    ensure!(rest == "0\n", "there is something in /sys or another place for mounts: {rest}");
    Ok(())
}

pub(super) fn masked(platform: &Platform) -> Result<()> {
    let script = "for p in $PATHS; do [ -e /proc/$p ] || { echo $p absent; continue; }; if [ -d /proc/$p ]; then ls -A /proc/$p | wc -l; else cat /proc/$p | wc -c; fi | sed \"s/^/$p /\"; done; for f in kernel/hostname kernel/core_pattern vm/drop_caches net/ipv4/ip_forward; do (echo 1 > /proc/sys/$f) 2>&1; done; (echo b > /proc/sysrq-trigger) 2>&1; mkdir /proc/x 2>&1; true";
    let output = inside(platform, &script.replace("$PATHS", &MASKED.join(" ")))?;
    for path in MASKED {
        // Our own /dev/null over files, an empty read-only tmpfs over directories.
        let said = output.lines().find_map(|l| l.strip_prefix(path)?.strip_prefix(' '));
        match said {
            Some("absent") => println!("vacuous: /proc/{path}: this kernel has none"),
            said => ensure!(said == Some("0"), "/proc/{path} shows something: {said:?}"),
        }
    }
    for file in ["sys/kernel/hostname", "sys/kernel/core_pattern", "sys/vm/drop_caches", "sys/net/ipv4/ip_forward", "sysrq-trigger"] {
        // Read-only mounts over /proc/sys and /proc/sysrq-trigger. Behind them: the files are root's.
        let said = output.lines().find_map(|l| l.split_once(&format!("/proc/{file}: "))).map(|(_, said)| said);
        match said {
            Some("Read-only file system" | "Permission denied") => {}
            Some("No such file or directory") => println!("vacuous: writing /proc/{file}: this kernel has none"),
            said => anyhow::bail!("/proc/{file} could be written: {said:?}\n{output}"),
        }
    }
    Ok(())
}

pub(super) fn environment(platform: &Platform) -> Result<()> {
    let output = inside(platform, "hostname; cat /etc/hostname 2>/dev/null; env -0 | tr '\\0\\n' '\\n '")?;
    let mut lines = output.lines();
    let host = lines.next().unwrap_or_default();
    // The uts namespace, named by the launch.
    let ours = fs::read_to_string("/proc/sys/kernel/hostname")?;
    ensure!(host.len() == 36 && host != ours.trim(), "host name {host:?}");
    // The environment is made, not inherited.
    let known = ["PATH", "LANG", "HOME", "DYNO", "DYNO_APP_NAME", "DYNO_RELEASE_VERSION", "PWD", "OLDPWD", "SHLVL", "_"];
    let strange: Vec<&str> = lines.filter_map(|l| l.split_once('=')).map(|(name, _)| name).filter(|name| !known.contains(name)).collect();
    ensure!(strange.is_empty(), "these come from elsewhere: {strange:?}\n{output}");
    Ok(())
}

/// No file of the host is to be found by name or by content.
pub(super) fn canary(platform: &Platform) -> Result<()> {
    deployed(platform)?;
    let secret = format!("canary-{:x}-{:x}", std::process::id(), platform.warden()?.start);
    let dir = tempfile::tempdir()?;
    let places = [dir.path().join(&secret), platform.state().join(&secret), platform.run_dir().join(&secret)];
    for place in &places {
        fs::write(place, &secret)?;
    }
    // Split, so that the search does not find itself.
    let (first, second) = secret.split_at(10);
    let search = format!(
        "s={first}; s=${{s}}{second}; find / -name \"*$s*\" -not -path '/proc/*'; \
         grep -rlsF \"$s\" / --exclude-dir=proc --exclude-dir=usr --exclude-dir=dev; grep -lsF \"$s\" /proc/[0-9]*/environ /proc/self/mountinfo; \
         ls {} {} {} 2>/dev/null; echo searched",
        places[0].display().to_string().replace(&secret, ""),
        platform.state().display(),
        platform.run_dir().display()
    );
    let output = inside(platform, &search);
    for place in &places {
        fs::remove_file(place)?;
    }
    // pivot_root and the detached old root; images and not directories of the host as layers.
    let output = output?;
    ensure!(output == "searched\n", "files of the host, or their contents, show:\n{output}");
    Ok(())
}

pub(super) fn writable(platform: &Platform) -> Result<()> {
    let script = "for d in /app /tmp /var/tmp /dev/shm / /usr /usr/bin /etc /bin /lib /var /root /home /opt /proc /dev; do if touch $d/.probe 2>/dev/null; then echo $d yes; else echo $d no; fi; done; echo x >> /etc/passwd; rm -f /bin/sh; [ -e /bin/sh ] && echo sh is there";
    let output = inside(platform, script)?;
    for (path, answer) in [
        // The writable layer; /app belongs to the app.
        ("/app", "yes"),
        ("/tmp", "yes"),
        ("/var/tmp", "yes"),
        ("/dev/shm", "yes"),
        // Root's files of the image: the app's uid is another one, and it has no CAP_DAC_OVERRIDE.
        ("/", "no"),
        ("/usr", "no"),
        ("/usr/bin", "no"),
        ("/etc", "no"),
        ("/bin", "no"),
        ("/lib", "no"),
        ("/var", "no"),
        ("/root", "no"),
        ("/home", "no"),
        ("/opt", "no"),
        ("/proc", "no"),
        ("/dev", "no"),
    ] {
        ensure!(output.lines().any(|l| l == format!("{path} {answer}")), "{path} is not {answer}:\n{output}");
    }
    ensure!(output.ends_with("sh is there\n"), "{output}");
    Ok(())
}

/// The writable layer is the launch's own and goes with it.
pub(super) fn writes_vanish(platform: &Platform) -> Result<()> {
    inside(platform, "echo mine > /app/mark; echo mine > /tmp/mark; cat /app/mark")?;
    let output = inside(platform, "ls /app/mark /tmp/mark 2>/dev/null; echo looked")?;
    ensure!(output == "looked\n", "another dyno's files: {output}");
    let before = platform.seen(APP)?["web.1"].init;
    let root = |pid: u32| format!("/proc/{pid}/root/app/mark");
    fs::write(root(before.pid), "mine")?;
    before.ends(40, || platform.ok(&["ps:restart", "web.1", "-a", APP]).map(drop))?;
    let after = until(20, "web.1 runs again", || Ok(platform.seen(APP)?.get("web.1").map(|d| d.init).filter(|i| *i != before)))?;
    ensure!(!fs::exists(root(after.pid))?, "what web.1 wrote is there after its restart");
    platform.wait_up(APP)
}

/// nosuid on every mount, and no_new_privs.
pub(super) fn setuid(platform: &Platform) -> Result<()> {
    let script = "import glob, os, subprocess\nfor path in glob.glob('/usr/bin/*') + glob.glob('/usr/sbin/*'):\n    s = os.stat(path)\n    if s.st_mode & 0o6000 and not os.path.islink(path):\n        p = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=-3, stderr=-3)\n        try:\n            t = open(f'/proc/{p.pid}/status').read()\n            ids = [l.split()[1:] for l in t.splitlines() if l[:4] in ('Uid:', 'Gid:')]\n        except OSError as e:\n            ids = e.strerror\n        p.kill()\n        print(path, ids)\nprint('looked')";
    let output = inside(platform, &format!("python3 -c \"{script}\""))?;
    let programs: Vec<&str> = output.lines().filter(|l| *l != "looked").collect();
    if programs.is_empty() {
        println!("vacuous: setuid: the stack has no such program");
    }
    for line in programs {
        let own = "[['1000', '1000', '1000', '1000'], ['1000', '1000', '1000', '1000']]";
        ensure!(line.ends_with(own) || line.ends_with("[]") || line.ends_with("No such process"), "a bit had its effect: {line}");
    }
    Ok(())
}
