//! What keeps state at places of its own: LXC, podman, and docker with an engine of the bench's own. Their state is below the stage as far as
//! they let it, their networks are switched off.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use dyno_tests::clients::{Daemon, started};
use rustix::{fs::Access, io::Errno, mount::UnmountFlags};
use serde_json::json;

use super::{
    Peer,
    command::{Line, opened, program, words},
};
use crate::{
    control_groups,
    sample::Sample,
    stage::{Stage, run},
};

const LIMITS: [&str; 3] = ["--memory=256m", "--pids-limit=64", "--cpus=1"];

/// Hosts without CAP_SYS_RESOURCE cannot raise a hard limit, and podman asks for more than they have.
const ULIMITS: &str = "default_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]";

/// LXC in the foreground.
pub fn lxc(stage: &Stage) -> Result<Box<dyn Peer>> {
    let (lxc, place, conf) = (program("lxc-start")?, stage.path("lxc"), stage.path("lxc.conf"));
    fs::create_dir_all(&place)?;
    let config = format!(
        "lxc.uts.name = bench\nlxc.rootfs.path = dir:{}\nlxc.net.0.type = empty\nlxc.mount.auto = proc:mixed\nlxc.console.path = none\n",
        stage.root().display()
    );
    fs::write(&conf, config)?;
    let (place, conf) = (place.display().to_string(), conf.display().to_string());
    let line = |payload: &str| {
        words(&[&lxc, "--lxcpath", &place, "--name", "dyno-bench", "--rcfile", &conf, "--foreground", "--define", &format!("lxc.init.cmd={payload}")])
    };
    // It keeps a group to leave others from.
    let made = Made::before(&["/run/lxc"], "lxc.pivot");
    let line = opened(line("/true"), line("/probe"), Vec::new())?;
    Ok(Box::new(Engine { line, daemon: None, unmount: None, made }))
}

/// podman on a directory: no image, no storage driver.
pub fn podman(stage: &Stage) -> Result<Box<dyn Peer>> {
    let (podman, place) = (program("podman")?, stage.path("podman"));
    fs::create_dir_all(&place)?;
    let runtime = program("crun").or_else(|_| program("runc"))?;
    let config = format!(
        "[containers]\n{ULIMITS}\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
         runtime = \"bench\"\n[engine.runtimes]\nbench = [\"{runtime}\"]\n"
    );
    fs::write(place.join("containers.conf"), config)?;
    let text = |name: &str| place.join(name).display().to_string();
    let storage = format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n", text("run"), text("root"));
    fs::write(place.join("storage.conf"), storage)?;
    let line = |payload: &str| {
        let mut line =
            words(&[&podman, "--root", &text("root"), "--runroot", &text("run"), "--tmpdir", &text("tmp"), "run", "--rm", "--network=none"]);
        line.push(format!("--cgroup-parent=/{}", group()));
        line.extend(words(&LIMITS));
        line.extend(words(&["--rootfs", &stage.root().display().to_string(), payload]));
        line
    };
    let env = vec![
        ("CONTAINERS_CONF".to_owned(), place.join("containers.conf")),
        ("CONTAINERS_STORAGE_CONF".to_owned(), place.join("storage.conf")),
        ("HOME".to_owned(), place.join("home")),
    ];
    let made =
        Made::before(&["/run/libpod", "/run/containers", "/var/lib/containers", "/dev/shm/libpod_lock", "/run/crun", "/var/lib/cni"], &group());
    let line = opened(line("/true"), line("/probe"), env)?;
    Ok(Box::new(Engine { line, daemon: None, unmount: None, made }))
}

/// docker with runc.
pub fn docker(stage: &Stage) -> Result<Box<dyn Peer>> {
    let (dockerd, docker, place) = (program("dockerd")?, program("docker")?, stage.path("docker"));
    fs::create_dir_all(&place)?;
    let text = |name: &str| place.join(name).display().to_string();
    let host = format!("unix://{}", text("sock"));
    let config = json!({
        "data-root": text("data"), "exec-root": text("exec"), "pidfile": text("pid"), "hosts": [host], "deprecated-key-path": text("key"),
        "storage-driver": "overlay2", "iptables": false, "ip6tables": false, "ip-forward": false, "bridge": "none",
        "cgroup-parent": format!("/{}", group()), "exec-opts": ["native.cgroupdriver=cgroupfs"], "log-level": "warn",
    });
    fs::write(place.join("daemon.json"), config.to_string())?;
    let made = Made::before(&["/run/docker", "/run/containerd", "/run/runc", "/etc/docker", "/var/lib/docker"], &group());
    let ready = || Command::new(&docker).args(["--host", &host, "version"]).output().is_ok_and(|o| o.status.success());
    let daemon = started(Command::new(dockerd).arg("--config-file").arg(place.join("daemon.json")), &place.join("log"), ready)?;
    let archive = text("image.tar");
    run(Command::new("tar").args(["-C"]).arg(stage.root()).args(["-cf", &archive, "."]))?;
    run(Command::new(&docker).args(["--host", &host, "import", &archive, "bench"]))?;
    let line = |payload: &str| {
        let mut line = words(&[&docker, "--host", &host, "run", "--rm", "--network=none"]);
        line.extend(words(&LIMITS));
        line.extend(words(&["bench", payload]));
        line
    };
    let line = opened(line("/true"), line("/probe"), Vec::new())?;
    // The engine leaves the host's network where it has mounted it.
    Ok(Box::new(Engine { line, daemon: Some(daemon), unmount: Some(place.join("exec/netns/default")), made }))
}

/// Above the control groups of all containers.
fn group() -> String {
    format!("dyno-bench-{}", std::process::id())
}

struct Engine {
    line: Line,
    daemon: Option<Daemon>,
    unmount: Option<PathBuf>,
    made: Made,
}

impl Peer for Engine {
    fn turn(&mut self, runs: usize, idle: Duration) -> Result<Vec<Sample>> {
        self.line.turn(runs, idle)
    }

    fn probe(&mut self) -> Result<Option<String>> {
        self.line.probe()
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if let Some(daemon) = &mut self.daemon {
            daemon.stop()?;
        }
        if let Some(point) = self.unmount.take().filter(|point| point.exists()) {
            match rustix::mount::unmount(&point, UnmountFlags::DETACH) {
                // EINVAL: not mounted, which is what is wanted.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(e) => return Err(e).with_context(|| format!("umount {}", point.display())),
            }
        }
        self.made.remove()
    }
}

/// Places and a control group that engines insist on; those that the host did not have are removed in the end.
struct Made {
    places: Vec<PathBuf>,
    group: Option<String>,
}

impl Made {
    fn before(places: &[&str], group: &str) -> Self {
        let group = (!Path::new("/sys/fs/cgroup/memory").join(group).exists()).then(|| group.to_owned());
        let places = places.iter().filter(|place| rustix::fs::access(**place, Access::EXISTS).is_err()).map(PathBuf::from).collect();
        Self { places, group }
    }

    fn remove(&self) -> Result<()> {
        for place in self.places.iter().filter(|place| place.exists()) {
            let removed = if place.is_dir() { fs::remove_dir_all(place) } else { fs::remove_file(place) };
            removed.with_context(|| format!("remove {}", place.display()))?;
        }
        self.group.as_ref().map_or(Ok(()), |group| control_groups::remove(group))
    }
}
