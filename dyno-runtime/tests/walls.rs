//! Every wall of a sandbox, read back from what the kernel says about its processes.

pub(crate) mod support;

use std::{collections::BTreeSet, fs, process::ExitCode};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{Dyno, Layer, Limits, Sandbox, Upper, Volume};

use support::{Case, PROGRAM, Stage, same};

pub(crate) const CASES: &[Case] = &[
    ("status_of_every_process", status_of_every_process),
    ("ids_of_every_process", ids_of_every_process),
    ("seven_namespaces_of_its_own", seven_namespaces_of_its_own),
    ("mount_table", mount_table),
    ("no_file_system_is_anothers", no_file_system_is_anothers),
    ("nothing_of_it_shows_in_the_hosts_mount_table", nothing_of_it_shows_in_the_hosts_mount_table),
    ("on_shared_mounts_of_the_host", on_shared_mounts_of_the_host),
    ("procfs_is_masked", procfs_is_masked),
    ("dev_has_its_nodes_and_no_more", dev_has_its_nodes_and_no_more),
    ("only_the_asked_environment", only_the_asked_environment),
    ("only_three_descriptors", only_three_descriptors),
    ("control_groups", control_groups),
    ("the_caller_gets_no_field_wrong", the_caller_gets_no_field_wrong),
    ("limit_of_open_files_below_what_the_caller_has_open", limit_of_open_files_below_what_the_caller_has_open),
];

fn main() -> ExitCode {
    support::suite("walls", &[], CASES)
}

/// The init and the program, as the host sees them.
fn members(dyno: &Dyno) -> Result<[u32; 2]> {
    let pid = dyno.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok([pid, children.trim().parse().with_context(|| format!("children of {pid}: {children:?}"))?])
}

fn on_live_dyno(stage: &Stage, look: impl FnOnce(&Dyno) -> Result<()>) -> Result<()> {
    let dyno = stage.forever()?;
    let result = look(&dyno);
    dyno.free()?;
    result
}

fn status_of_every_process(stage: &Stage) -> Result<()> {
    const WANT: &[(&str, &str)] = &[
        ("Groups:", ""),
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        ("Umask:", "0022"),
    ];
    let of = |status: &str, field: &str| status.lines().find_map(|l| l.strip_prefix(field)).map(|value| value.trim().to_owned());
    let ours = fs::read_to_string("/proc/thread-self/status")?;
    on_live_dyno(stage, |dyno| {
        for pid in members(dyno)? {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            for (field, want) in WANT {
                same(&format!("{field} of {pid}"), of(&status, field).as_deref(), Some(*want))?;
            }
            // One, and those that its starter was under.
            let filters = |status| of(status, "Seccomp_filters:").and_then(|n| n.parse::<u32>().ok());
            same("filters", filters(&status), filters(&ours).map(|n| n + 1))?;
        }
        Ok(())
    })
}

fn ids_of_every_process(stage: &Stage) -> Result<()> {
    on_live_dyno(stage, |dyno| {
        let base = (1 << 20) + dyno.record().slot * 65536;
        for pid in members(dyno)? {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let ids = [base + 1000; 4].map(|id| id.to_string()).join("\t");
            for field in ["Uid:\t", "Gid:\t"] {
                same(field, status.lines().find_map(|l| l.strip_prefix(field)), Some(ids.as_str()))?;
            }
            for map in ["uid_map", "gid_map"] {
                let text = fs::read_to_string(format!("/proc/{pid}/{map}"))?;
                let numbers: Vec<&str> = text.split_whitespace().collect();
                same(map, numbers, vec!["0", &base.to_string(), "65536"])?;
            }
            same("root as seen from outside", fs::read_link(format!("/proc/{pid}/root"))?, "/".into())?;
        }
        Ok(())
    })
}

fn seven_namespaces_of_its_own(stage: &Stage) -> Result<()> {
    let (one, two) = (stage.forever()?, stage.forever()?);
    let link = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let [init, program] = members(&one)?.map(|pid| pid.to_string());
        same(kind, link(&init, kind)?, link(&program, kind)?)?;
        let all = BTreeSet::from([link("self", kind)?, link(&init, kind)?, link(&two.pid().to_string(), kind)?]);
        ensure!(all.len() == 3, "{kind}: shared between the host and two dynos: {all:?}");
    }
    one.free()?;
    Ok(two.free()?)
}

/// Where something is mounted, file system type, options, in order of mounting.
fn mounts(text: &str) -> Vec<(String, String, String)> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        Some((before.next()?.to_owned(), after.split(' ').next()?.to_owned(), before.next()?.to_owned()))
    };
    text.lines().filter_map(parse).collect()
}

fn mount_table(stage: &Stage) -> Result<()> {
    const WANT: &[(&str, &str, &str)] = &[
        ("/", "overlay", "rw,nosuid,nodev,relatime"),
        ("/dev", "tmpfs", "ro,nosuid,noexec,relatime"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,relatime"),
        ("/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
        ("/proc/sys", "proc", "ro,nosuid,nodev,noexec,relatime"),
        ("/proc/kcore", "tmpfs", "ro,nosuid,noexec,relatime"),
        ("/proc/fs", "proc", "ro,nosuid,nodev,noexec,relatime"),
    ];
    let mounts = mounts(&stage.ask(&["read", "/proc/self/mountinfo"])?);
    for (point, kind, options) in WANT {
        if !std::path::Path::new(point).exists() {
            continue; // not in this kernel
        }
        let is = mounts.iter().find(|m| m.0 == *point).with_context(|| format!("nothing at {point} in {mounts:#?}"))?;
        same(point, (is.1.as_str(), is.2.as_str()), (*kind, *options))?;
    }
    let strange: Vec<_> = mounts.iter().filter(|m| m.0 != "/" && !m.0.starts_with("/dev") && !m.0.starts_with("/proc")).collect();
    ensure!(strange.is_empty(), "mounts that nobody asked for: {strange:#?}");
    let mut read_only = stage.sandbox(&["write", "/tmp/x", "y"]);
    read_only.root.upper = Upper::ReadOnly;
    same("a write to a read-only root", stage.output(&read_only)?.1, format!("errno {}\n", libc::EROFS))
}

/// A file that two have is one that each can watch (inotify(7)) and lock (flock(2)) for the other.
fn no_file_system_is_anothers(stage: &Stage) -> Result<()> {
    let devices = |dyno: &Dyno| -> Result<BTreeSet<String>> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", dyno.pid()))?;
        Ok(table.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect())
    };
    on_live_dyno(stage, |one| {
        on_live_dyno(stage, |other| {
            let (one, other) = (devices(one)?, devices(other)?);
            ensure!(one.len() >= 5, "root, /dev, /dev/pts, /dev/shm and /proc are not all in {one:?}");
            same("file systems of both", one.intersection(&other).collect::<Vec<_>>(), vec![])
        })
    })
}

fn nothing_of_it_shows_in_the_hosts_mount_table(stage: &Stage) -> Result<()> {
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    on_live_dyno(stage, |_| {
        let of = |text: &str| mounts(text).into_iter().filter(|m| m.0.contains(&stage.name)).collect::<Vec<_>>();
        same("mounts", of(&fs::read_to_string("/proc/self/mountinfo")?), of(&before))
    })
}

/// As every mount is under systemd: what one side mounts, the other must not see.
fn on_shared_mounts_of_the_host(stage: &Stage) -> Result<()> {
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
    fs::create_dir_all(stage.rootfs().join("data/inner"))?;
    let point = stage.work().join("shared");
    fs::create_dir(&point)?;
    mount_bind(stage.rootfs(), &point)?;
    let run = || -> Result<()> {
        mount_change(&point, MountPropagationFlags::SHARED)?;
        let volume = |target: &str| Volume::Bind { source: point.join("data"), target: target.into(), writable: false };
        // The second lies on the first, which is of the host.
        let volumes = vec![volume("/data"), volume("/data/inner")];
        let args = [PROGRAM, "read", "/proc/self/mountinfo"];
        for upper in [Upper::default(), Upper::ReadOnly] {
            let mut sandbox = Sandbox { volumes: volumes.clone(), ..Sandbox::new(vec![Layer::Directory(point.clone())], args) };
            sandbox.root.upper = upper;
            let table = stage.output(&sandbox)?.1;
            ensure!(table.contains(" /data/inner "), "the volume is missing: {table}");
            ensure!(!table.contains(" shared:") && !table.contains(" master:"), "not private: {table}");
        }
        Ok(())
    };
    let result = run();
    unmount(&point, UnmountFlags::DETACH)?;
    fs::remove_dir(&point)?;
    result
}

fn procfs_is_masked(stage: &Stage) -> Result<()> {
    for path in ["/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/cmdline"] {
        if std::path::Path::new(path).exists() {
            same(path, stage.ask(&["read", path])?, String::new())?;
        }
    }
    for path in ["/proc/acpi", "/proc/scsi"] {
        if std::path::Path::new(path).exists() {
            same(path, stage.ask(&["list", path])?, "\n".into())?;
        }
    }
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger"] {
        if !std::path::Path::new(path).exists() {
            continue; // not in this kernel
        }
        let mut root = stage.sandbox(&["write", path, "x"]);
        root.identity.uid = 0;
        let answer = stage.output(&root)?.1;
        // EACCES where the mode says no before the mount is asked.
        let refused = [libc::EROFS, libc::EACCES].map(|e| format!("errno {e}\n"));
        ensure!(refused.contains(&answer), "{path}: {answer}");
    }
    Ok(())
}

fn dev_has_its_nodes_and_no_more(stage: &Stage) -> Result<()> {
    let want = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n";
    same("/dev", stage.ask(&["list", "/dev"])?, want.into())?;
    same("/dev/pts", stage.ask(&["list", "/dev/pts"])?, "ptmx\n".into())
}

fn only_the_asked_environment(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["env"]);
    sandbox.env.insert("COLOUR".into(), "green = 1".into());
    sandbox.env.insert("EMPTY".into(), String::new());
    same("environment", stage.output(&sandbox)?.1, "COLOUR=green = 1\nEMPTY=\n".into())?;
    let mut sandbox = stage.sandbox(&["cwd"]);
    sandbox.cwd = "/tmp".into();
    same("cwd", stage.output(&sandbox)?.1, "/tmp\n".into())?;
    sandbox.argv = vec!["program".into(), "read".into(), "/proc/sys/kernel/hostname".into()];
    sandbox.env.insert("PATH".into(), "/nowhere:/bin".into());
    sandbox.hostname = "a-name.b".into();
    same("hostname, found in PATH", stage.output(&sandbox)?.1, "a-name.b\n".into())
}

fn only_three_descriptors(stage: &Stage) -> Result<()> {
    // 3 is the directory being listed.
    same("descriptors", stage.ask(&["list", "/proc/self/fd"])?, "0 1 2 3\n".into())
}

fn control_groups(stage: &Stage) -> Result<()> {
    let limits =
        Limits { memory: Some(40 << 20), pids: Some(17), cpu_weight: Some(250), cpu_millis: Some(1500), open_files: 64, ..Limits::default() };
    let sandbox = Sandbox { limits, ..stage.sandbox(&["forever"]) };
    let dyno = stage.start(&sandbox, dyno_runtime::Stdio::Null)?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", dyno.pid()))?;
    let line = |name: &str| limits.lines().find(|l| l.starts_with(name)).map(|l| l[name.len()..].split_whitespace().take(2).collect::<Vec<_>>());
    same("open files", line("Max open files"), Some(vec!["64", "64"]))?;
    same("core files", line("Max core file size"), Some(vec!["1", "1"]))?;
    let group = |controller: &str| support::groups::group_of(dyno.pid(), controller);
    let memory = group("memory")?;
    let file = |dir: &std::path::Path, names: [&str; 2]| names.iter().find_map(|n| fs::read_to_string(dir.join(n)).ok()).map(|t| t.trim().to_owned());
    same("memory", file(&memory, ["memory.max", "memory.limit_in_bytes"]), Some((40 << 20).to_string()))?;
    same("pids", file(&group("pids")?, ["pids.max", "pids.max"]), Some("17".into()))?;
    let cpu = group("cpu")?;
    let unified = cpu.join("cpu.max").exists();
    same("quota", file(&cpu, ["cpu.max", "cpu.cfs_quota_us"]), Some(if unified { "150000 100000" } else { "150000" }.into()))?;
    same("weight", file(&cpu, ["cpu.weight", "cpu.shares"]), Some(if unified { "250" } else { "2560" }.into()))?;
    ensure!(memory.ends_with(format!("{}/{}", stage.name, dyno.id())), "{}", memory.display());
    Ok(dyno.free()?)
}

/// What only the kernel can find wrong; the rest is tested with the plan.
fn the_caller_gets_no_field_wrong(stage: &Stage) -> Result<()> {
    type Break = fn(&mut Sandbox, &Stage);
    let cases: &[(&str, Break)] = &[
        ("layer directory /nowhere: open: ", |s, _| s.root.layers = vec![Layer::Directory("/nowhere".into())]),
        ("layer directory /etc/passwd: open: ", |s, _| s.root.layers = vec![Layer::Directory("/etc/passwd".into())]),
        ("layer upper_of \"t.0\": no such ended dyno", |s, _| s.root.layers.push(Layer::UpperOf("t.0".into()))),
        ("volume /nowhere: open: ", |s, _| s.volumes = vec![Volume::Bind { source: "/nowhere".into(), target: "/data".into(), writable: false }]),
        ("the sandbox did not start: mount at /nowhere ", |s, stage| {
            s.volumes = vec![Volume::Bind { source: stage.rootfs(), target: "/nowhere".into(), writable: false }];
        }),
        ("the sandbox did not start: chdir to the working directory: ", |s, _| s.cwd = "/nowhere".into()),
        ("execve(\"/bin/nothing\"): ", |s, _| s.argv = vec!["/bin/nothing".into()]),
        ("hostname \"\" must be", |s, _| s.hostname.clear()),
    ];
    for (want, damage) in cases {
        let mut sandbox = stage.sandbox(&["exit", "0"]);
        damage(&mut sandbox, stage);
        stage.leaves_nothing(|| {
            let error = stage.start(&sandbox, dyno_runtime::Stdio::Tty { rows: 24, cols: 80 }).err().context(*want)?;
            ensure!(error.to_string().starts_with(want), "want {want:?}, got {error}");
            Ok(())
        })?;
    }
    let dyno = stage.forever()?;
    let again = stage.host.start(dyno.id(), &stage.sandbox(&["exit", "0"]), Default::default());
    ensure!(again.is_err_and(|e| e.to_string().contains("does it run already?")), "the same id twice");
    same("the first one still runs", dyno.has_ended(), false)?;
    Ok(dyno.free()?)
}

/// The child copies its descriptors above all others before the limit may hold.
fn limit_of_open_files_below_what_the_caller_has_open(stage: &Stage) -> Result<()> {
    let many = (0..100).map(|_| fs::File::open("/dev/null")).collect::<std::io::Result<Vec<_>>>()?;
    let mut sandbox = Sandbox::new(vec![Layer::Directory(stage.rootfs())], [PROGRAM, "open-files"]);
    sandbox.limits.open_files = 16;
    let (exit, text) = stage.output(&sandbox)?;
    same("status", exit.status, 0)?;
    same("opened beside the three streams", text, format!("13 errno {}\n", libc::EMFILE))?;
    drop(many);
    Ok(())
}
