//! What the kernel says of a process's walls, read from outside while it waits at a system call: nothing inside has to be believed.

use std::{fs, path::Path};

use crate::support::groups;

/// Of `/proc/PID/status`.
const STATUS: [&str; 11] = ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"];

const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Controller, and its limit's file on v2 and on v1.
const LIMITS: [(&str, [&str; 2]); 3] =
    [("memory", ["memory.max", "memory.limit_in_bytes"]), ("pids", ["pids.max", "pids.max"]), ("cpu", ["cpu.max", "cpu.cfs_quota_us"])];

/// One fact a line; what differs between two sandboxes of one description is left out. With `descriptors`, what it has open as well.
pub fn of(pid: u32, descriptors: bool) -> Vec<String> {
    let proc = Path::new("/proc").join(pid.to_string());
    let read = |file: &str| fs::read_to_string(proc.join(file)).unwrap_or_else(|e| format!("{file}: {e}"));
    let mut facts = Vec::new();
    for line in read("status").lines() {
        let Some((key, values)) = line.split_once(':') else { continue };
        match key {
            "Uid" | "Gid" => facts.push(format!("{key}:{}", values.split_whitespace().map(inside).collect::<String>())),
            _ if STATUS.contains(&key) => facts.push(format!("{key}:{}", values.trim())),
            _ => {}
        }
    }
    for kind in NAMESPACES {
        let (its, ours) = (fs::read_link(proc.join("ns").join(kind)).ok(), fs::read_link(Path::new("/proc/self/ns").join(kind)).ok());
        facts.push(format!(
            "{kind} namespace: {}",
            match its {
                None => "?",
                its if its == ours => "the host's",
                _ => "its own",
            }
        ));
    }
    // In the order of the table is what was made first, which may have lain ready.
    let mut mounts: Vec<_> = read("mountinfo").lines().filter_map(mount).collect();
    mounts.sort();
    facts.extend(mounts);
    facts.extend(read("limits").lines().map(|line| format!("limit {line}")));
    for (controller, files) in LIMITS {
        facts.push(format!("{controller} group: {}", limit(pid, controller, files).unwrap_or_else(|| "none".into())));
    }
    if descriptors {
        let entries = fs::read_dir(proc.join("fd")).into_iter().flatten().filter_map(Result::ok);
        let mut open: Vec<String> =
            entries.filter_map(|e| Some(format!("open {}", without_numbers(&fs::read_link(e.path()).ok()?.display().to_string())))).collect();
        open.sort();
        facts.extend(open);
    }
    facts
}

/// What the group says in which the process is. A parked one's gets the dyno's name while its program begins, and is asked again by that.
fn limit(pid: u32, controller: &str, files: [&str; 2]) -> Option<String> {
    let mut asked = None;
    loop {
        let group = groups::group_of(pid, controller).ok()?;
        let says = groups::says(&group, files);
        if says.is_some() || asked.as_ref() == Some(&group) {
            return says;
        }
        asked = Some(group);
    }
}

/// An id as it is in a range of 65536; below the first range it is the host's.
fn inside(id: &str) -> String {
    match id.parse::<u32>() {
        Ok(id) if id >= 65536 => format!(" {}", id % 65536),
        _ => format!(" host's {id}"),
    }
}

/// Where, how and what is mounted; the sizes of a file system are limits and stay.
fn mount(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let at: Vec<&str> = before.split(' ').collect();
    let of: Vec<&str> = after.split(' ').collect();
    let (kind, options) = (of.first()?, of.get(2)?);
    let is_size = |option: &str| option.starts_with("size=") || option.starts_with("nr_inodes=");
    let options: Vec<String> = options.split(',').map(|o| if is_size(o) { o.to_owned() } else { without_numbers(o) }).collect();
    Some(format!("mount {} {} {kind} {}", at.get(4)?, at.get(5)?, options.join(",")))
}

fn without_numbers(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars() {
        if !c.is_ascii_digit() {
            short.push(c);
        } else if !short.ends_with('#') {
            short.push('#');
        }
    }
    short
}

/// What only one of both has.
pub fn difference(is: &[String], should: &[String]) -> String {
    let lacks = should.iter().filter(|fact| !is.contains(fact)).map(|fact| format!("- {fact}"));
    let more = is.iter().filter(|fact| !should.contains(fact)).map(|fact| format!("+ {fact}"));
    lacks.chain(more).collect::<Vec<_>>().join("\n")
}
