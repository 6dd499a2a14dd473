//! Control groups that root gave to the user, and what they hold then.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{Cause, Limits, Sandbox};

use crate::{
    support::same,
    world::{USER, World, forever, output},
};

/// The group in each hierarchy.
const NAME: &str = "dyno-test-delegated";

/// Where hierarchies of use are mounted, and whether that is the v2 tree.
fn hierarchies() -> Result<Vec<(PathBuf, bool)>> {
    const OF_USE: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "freezer"];
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let (kind, options) = (after.split(' ').next()?, after.split(' ').nth(2)?);
        let of_use = options.split(',').any(|option| OF_USE.contains(&option));
        (kind == "cgroup2" || kind == "cgroup" && of_use).then(|| Some((before.split(' ').nth(4)?.into(), kind == "cgroup2")))?
    };
    Ok(table.lines().filter_map(parse).collect())
}

/// As root: makes groups, gives them to the user, and goes into them.
pub fn enter() -> Result<()> {
    for (point, unified) in hierarchies()? {
        if unified {
            // Those that the kernel has here at all.
            for controller in ["+memory", "+pids", "+cpu"] {
                fs::write(point.join("cgroup.subtree_control"), controller).unwrap_or_default();
            }
        }
        let group = point.join(NAME);
        fs::create_dir(&group).with_context(|| format!("mkdir {}", group.display()))?;
        for path in [&group, &group.join("cgroup.procs"), &group.join("tasks"), &group.join("cgroup.subtree_control")] {
            if path.exists() {
                std::os::unix::fs::chown(path, Some(USER), Some(USER))?;
            }
        }
        fs::write(group.join("cgroup.procs"), "0").with_context(|| format!("enter {}", group.display()))?;
    }
    Ok(())
}

/// Takes away what a failed case has left in them.
pub fn sweep() {
    for (point, _) in hierarchies().unwrap_or_default() {
        let instance = point.join(NAME).join("dyno-test-rootless");
        for dyno in subdirectories(&instance).unwrap_or_default() {
            fs::remove_dir(instance.join(dyno)).unwrap_or_default();
        }
        fs::remove_dir(&instance).unwrap_or_default();
    }
}

/// As root: takes them away, and fails when the user has left more in them than the place of its own process.
pub fn leave() -> Result<()> {
    for (point, _) in hierarchies()? {
        let group = point.join(NAME);
        for dir in [group.join("supervisor"), group] {
            match fs::remove_dir(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).with_context(|| format!("rmdir {}", dir.display())),
                _ => {}
            }
        }
    }
    Ok(())
}

pub fn limits_are_held(world: &World) -> Result<()> {
    world.with_host(|host| {
        let limited = |args: &[&str]| {
            let limits = Limits { memory: Some(40 << 20), pids: Some(17), cpu_ms: Some(60_000), ..Limits::default() };
            Sandbox { limits, ..world.sandbox(args) }
        };
        same("missing", host.plan(&limited(&["exit", "0"]))?.missing.len(), 2)?;
        let (exit, _) = output(host, &limited(&["eat", "100000000"]))?;
        ensure!(exit.cause == Cause::Memory && exit.memory_peak > Some(30 << 20), "{exit:?}");
        let threads = output(host, &limited(&["threads", "100"]))?.1;
        // The program's first thread and the init are two of the seventeen.
        same("threads", threads, format!("15 errno {}\n", libc::EAGAIN))?;
        let dyno = forever(host, "t.1", &limited(&["forever"]))?;
        let table = fs::read_to_string(format!("/proc/{}/cgroup", dyno.pid()))?;
        let inside = format!("/{NAME}/dyno-test-rootless/t.1");
        ensure!(table.lines().filter(|line| line.ends_with(&inside)).count() >= 1, "{table}");
        dyno.pause()?;
        ensure!(dyno.is_paused()?, "it is not paused");
        dyno.resume()?;
        same("its limit", dyno.stats()?.memory.limit, Some(40 << 20))?;
        dyno.update(&Limits { memory: Some(64 << 20), pids: Some(17), cpu_ms: Some(60_000), ..Limits::default() })?;
        same("its new limit", dyno.stats()?.memory.limit, Some(64 << 20))?;
        Ok(dyno.free()?)
    })?;
    // What was made is gone, but the place to which this process stepped aside.
    for (point, _) in hierarchies()? {
        let left = subdirectories(&point.join(NAME))?;
        ensure!(left.iter().all(|name| name == "supervisor"), "{}: {left:?}", point.display());
    }
    Ok(())
}

fn subdirectories(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.filter_map(Result::ok).filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    Ok(entries.filter_map(|e| e.file_name().into_string().ok()).collect())
}
