//! What the kernel says of the walls around a dyno's processes.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::Platform;

/// Namespaces that a dyno has of its own.
pub const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// Host ids below this are never a dyno's.
pub const FIRST_UID: u32 = 1 << 20;

/// What a control group allows, in the units of cgroup v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// 100 is one share.
    pub cpu_weight: u64,
}

/// Standard-1X.
pub const STANDARD_1X: Limits = Limits { memory: 512 << 20, pids: 256, cpu_weight: 100 };

/// Standard-2X.
pub const STANDARD_2X: Limits = Limits { memory: 1024 << 20, pids: 512, cpu_weight: 200 };

/// What one dyno is seen to have for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    /// Host pids of its processes.
    pub pids: Vec<u32>,
    /// Host uid of its processes.
    pub uid: u32,
    /// Identity of each of [`NAMESPACES`].
    pub namespaces: BTreeMap<&'static str, String>,
}

impl Platform {
    /// The limits of a dyno, from whichever hierarchy has them.
    ///
    /// # Errors
    /// When the dyno has no control group or a limit is not set.
    pub fn limits(&self, id: &str) -> Result<Limits> {
        let read = |v1: &str, v2: &str| -> Result<(u64, bool)> {
            let old = self.group_file(id, v1);
            let is_old = old.is_ok();
            let path = old.or_else(|_| self.group_file(id, v2))?;
            let text = fs::read_to_string(&path)?;
            Ok((text.trim().parse().with_context(|| format!("{}: {text:?}", path.display()))?, is_old))
        };
        let cpu_weight = match read("cpu.shares", "cpu.weight")? {
            // cgroup v1 counts 1024 to a share.
            (shares, true) => shares * 100 / 1024,
            (weight, false) => weight,
        };
        Ok(Limits { memory: read("memory.limit_in_bytes", "memory.max")?.0, pids: read("pids.max", "pids.max")?.0, cpu_weight })
    }

    /// Checks every process of a dyno: no capability in any of the five sets, no_new_privs, a seccomp filter, ids of a range of
    /// the dyno's own, and seven namespaces that are not the host's.
    ///
    /// # Errors
    /// Naming the process and what it should not have.
    pub fn confined(&self, id: &str) -> Result<Confined> {
        let pids = self.pids(id)?;
        ensure!(pids.len() > 1, "dyno {id} has no process but {pids:?}");
        let (mut uid, mut found) = (0, BTreeMap::new());
        for pid in &pids {
            uid = unprivileged(*pid)?;
            let namespaces = namespaces(&pid.to_string())?;
            for (kind, host) in namespaces_of_the_host()? {
                ensure!(namespaces[kind] != host, "process {pid} of dyno {id} is in the host's {kind} namespace");
            }
            ensure!(found.is_empty() || found == namespaces, "the processes of dyno {id} are not in the same namespaces");
            found = namespaces;
        }
        Ok(Confined { pids, uid, namespaces: found })
    }

    /// A variable in the environment of a dyno's processes, as they were started.
    ///
    /// # Errors
    /// When the dyno has no process.
    pub fn variable(&self, id: &str, name: &str) -> Result<Option<String>> {
        let pid = *self.pids(id)?.last().with_context(|| format!("dyno {id} has no process"))?;
        let environment = fs::read(format!("/proc/{pid}/environ"))?;
        let mut pairs = environment.split(|b| *b == 0).map(String::from_utf8_lossy);
        Ok(pairs.find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned())))
    }
}

/// Checks that two dynos share nothing that [`Platform::confined`] looks at.
///
/// # Errors
/// Naming what they share.
pub fn apart(one: &Confined, other: &Confined) -> Result<()> {
    ensure!(one.uid >> 16 != other.uid >> 16, "two dynos share the range of uid {}", one.uid);
    for kind in NAMESPACES {
        ensure!(one.namespaces[kind] != other.namespaces[kind], "two dynos share {}", one.namespaces[kind]);
    }
    Ok(())
}

fn namespaces_of_the_host() -> Result<BTreeMap<&'static str, String>> {
    namespaces("self")
}

fn namespaces(pid: &str) -> Result<BTreeMap<&'static str, String>> {
    let link = |kind| Ok((kind, fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.to_string_lossy().into_owned()));
    NAMESPACES.into_iter().map(link).collect()
}

/// The uid of a process that may do nothing; an error says what it may.
fn unprivileged(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let field = |name: &str| -> Result<&str> {
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("process {pid} has no {name}"))
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(u64::from_str_radix(field(set)?, 16)? == 0, "process {pid} has {set} {}", field(set)?);
    }
    ensure!(field("NoNewPrivs")? == "1", "process {pid} can gain privileges");
    ensure!(field("Seccomp")? == "2", "process {pid} has no seccomp filter");
    for kind in ["Uid", "Gid"] {
        let ids: Vec<u32> = field(kind)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(ids.len() == 4 && ids.iter().all(|id| *id >= FIRST_UID && *id == ids[0]), "process {pid} has {kind} {ids:?}");
    }
    match field("Uid")?.split_whitespace().next() {
        Some(uid) => Ok(uid.parse()?),
        None => bail!("process {pid} has no uid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_process_is_not_confined() {
        let error = unprivileged(std::process::id()).unwrap_err().to_string();
        assert!(error.contains(" has Cap") || error.contains("can gain privileges"), "{error}");
    }

    #[test]
    fn one_dyno_is_not_apart_from_itself() {
        let namespaces: BTreeMap<_, _> = NAMESPACES.map(|kind| (kind, format!("{kind}:[1]"))).into();
        let one = Confined { pids: vec![1, 2], uid: FIRST_UID, namespaces: namespaces.clone() };
        let mut other = Confined { uid: FIRST_UID + (1 << 16), ..one.clone() };
        assert!(apart(&one, &one).unwrap_err().to_string().contains("share the range"));
        for kind in NAMESPACES {
            other.namespaces = NAMESPACES.map(|k| (k, if k == kind { format!("{k}:[1]") } else { format!("{k}:[2]") })).into();
            assert!(apart(&one, &other).unwrap_err().to_string().contains(kind), "{kind} may be shared");
        }
        other.namespaces = NAMESPACES.map(|k| (k, format!("{k}:[2]"))).into();
        assert!(apart(&one, &other).is_ok());
    }
}
