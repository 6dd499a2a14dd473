//! Pods: containers that share a network, a host name and System V IPC, which an infra container holds.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Process,
    clients::{Engine, Outcome, Sayings, group},
};

use super::Podman;

fn shared(pid: u32, kind: &str) -> Result<String> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string())
}

pub fn pods(podman: &Podman) -> Result<Outcome> {
    let id = podman.ok(&["pod", "create", "--name", "pod", "--hostname", "pod", "--network", "none", "--cgroup-parent", &podman.parent])?;
    let result = in_pod(podman);
    let removed = podman.ok(&["pod", "rm", "--force", "--time", "0", "pod"]);
    result?;
    removed?;
    // podman removes a pod's group where a controller is, and forgets the hierarchies beside them, where runtimes make one as well.
    for hierarchy in ["unified", "systemd"] {
        let forgotten = Path::new("/sys/fs/cgroup").join(hierarchy).join(podman.desk.name()).join(&id);
        if forgotten.is_dir() {
            fs::remove_dir(&forgotten).with_context(|| format!("rmdir {}", forgotten.display()))?;
        }
    }
    ensure!(podman.ok(&["ps", "--all", "--quiet"])?.is_empty());
    Ok(Outcome::Seen)
}

fn in_pod(podman: &Podman) -> Result<()> {
    // In a pod the control groups are the pod's: no parent is named.
    let begin = |name: &str| -> Result<u32> {
        podman.ok(&["run", "--detach", "--pod", "pod", "--name", name, super::IMAGE, "sleep", "1000"])?;
        podman.pid(name)
    };
    let (one, two) = (begin("one")?, begin("two")?);
    for kind in ["net", "ipc", "uts"] {
        ensure!(shared(one, kind)? == shared(two, kind)?, "two containers of a pod do not share {kind}");
    }
    for kind in ["pid", "mnt"] {
        ensure!(shared(one, kind)? != shared(two, kind)?, "two containers of a pod share {kind}");
    }
    ensure!(group(one)?.is_below(podman.desk.name()), "{:?}", group(one)?);
    // Loopback is theirs together.
    podman.ok(&["exec", "--detach", "one", "sh", "-c", "echo hello from one | nc -l -p 5000"])?;
    let told = podman.ok(&["exec", "two", "sh", "-c", "until nc 127.0.0.1 5000; do sleep 0.05; done; hostname"])?;
    ensure!(told == "hello from one\npod", "{told}");
    let listed = podman.ok(&["pod", "ps", "--noheading", "--format", "{{.Status}} {{.NumberOfContainers}}"])?;
    ensure!(listed == "Running 3", "{listed}");
    podman.ok(&["pod", "pause", "pod"])?;
    ensure!(podman.inspect("two")?["State"]["Status"] == "paused");
    podman.ok(&["pod", "unpause", "pod"])?;
    podman.ok(&["pod", "stop", "--time", "0", "pod"])?;
    ensure!(Process::find(one).is_none() && Process::find(two).is_none());
    podman.ok(&["pod", "start", "pod"])?;
    ensure!(podman.pid("one")? != one);
    ensure!(shared(podman.pid("one")?, "net")? == shared(podman.pid("two")?, "net")?);
    podman.ok(&["pod", "kill", "pod"])?;
    Ok(())
}
