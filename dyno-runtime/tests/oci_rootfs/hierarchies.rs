//! Control groups as a container sees them.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    mounts::Elsewhere,
    support::{Stage, same},
    world::{self, Bundle, Created},
};

const POINT: &str = "/sys/fs/cgroup";

/// Names of the v1 hierarchies of this host, as their directories are called (cgroups(7), /proc/PID/cgroup).
fn v1() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .filter(|names| !names.is_empty())
        .map(|names| names.trim_start_matches("name=").to_owned())
        .collect())
}

/// On v1 and hybrid hosts: a read-only tmpfs with a directory for each hierarchy, where the container's own group is all there is.
pub fn v1_host(stage: &Stage) -> Result<()> {
    let names = v1()?;
    if names.is_empty() {
        println!("skipped: this host has the v2 tree only");
        return Ok(());
    }
    for with_namespace in [true, false] {
        let mut bundle = Bundle::new(stage)?;
        if !with_namespace {
            bundle.without_namespace("cgroup");
        }
        let created = bundle.create()?;
        let is = created.at(POINT)?;
        same("the directory of them all", (is.kind.as_str(), is.has("ro"), is.has("noexec")), ("tmpfs", true, true))?;
        for name in &names {
            let is = created.at(&format!("{POINT}/{name}"))?;
            same(name, (is.kind.as_str(), ["ro", "nosuid", "nodev", "noexec"].map(|o| is.has(o))), ("cgroup", [true; 4]))?;
            // Its own group holds its process, seen from here.
            let procs = fs::read_to_string(created.inside(&format!("{POINT}/{name}/cgroup.procs")))?;
            same(&format!("{name}: whose group it is"), procs.trim(), created.pid.to_string().as_str())?;
            for controller in name.split(',').filter(|_| name.contains(',')) {
                same(controller, fs::read_link(created.inside(&format!("{POINT}/{controller}")))?.to_string_lossy().as_ref(), name.as_str())?;
            }
        }
        created.delete()?;
    }
    Ok(())
}

/// A host with the v2 tree alone, which a mount namespace of the test's own is made to look like.
pub fn v2_host(stage: &Stage) -> Result<()> {
    let host = Elsewhere::new(&format!("umount -R {POINT} && mount -t cgroup2 cgroup2 {POINT} && echo up && exec cat"))?;
    let look = |namespace: bool, user: bool| -> Result<(Created, world::Mounted)> {
        let mut bundle = Bundle::new(stage)?;
        if user {
            bundle.with_user_namespace(500_000)?;
        }
        if !namespace {
            bundle.without_namespace("cgroup");
        }
        bundle.set("/process/args", json!(["/bin/program", "forever"]));
        let created = bundle.create_in(Some(host.pid()))?;
        let is = created.at(POINT)?;
        Ok((created, is))
    };
    for (namespace, user) in [(true, false), (false, false), (true, true), (false, true)] {
        let what = format!("cgroup namespace {namespace}, user namespace {user}");
        let (created, is) = look(namespace, user)?;
        same(&what, (is.kind.as_str(), ["ro", "nosuid", "nodev", "noexec"].map(|o| is.has(o))), ("cgroup2", [true; 4]))?;
        let procs = fs::read_to_string(created.inside(&format!("{POINT}/cgroup.procs")))?;
        let own = procs.trim() == created.pid.to_string();
        same(&format!("{what}: only its own group is seen"), own, namespace)?;
        ensure!(fs::write(created.inside(&format!("{POINT}/cgroup.procs")), "0").is_err(), "{what}: groups can be written");
        created.delete()?;
    }
    Ok(())
}
