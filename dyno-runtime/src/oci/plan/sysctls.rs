//! `linux.sysctl`: only what a namespace of the container's own holds. Everything else would be the host's.

use std::{collections::BTreeMap, fs::metadata, os::unix::fs::MetadataExt, path::Path};

use super::{
    Namespace, Namespaces,
    member::{quoted, refuse, without_nul},
};
use crate::{Result, error::Context};

/// Of the IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] =
    ["kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced"];

/// Paths below `/proc/sys` and values.
pub fn lower(given: &BTreeMap<String, String>, namespaces: &Namespaces, domainname: Option<&str>) -> Result<Vec<(String, String)>> {
    let mut lowered = Vec::new();
    for (key, value) in given {
        let member = format!("linux.sysctl[{}]", quoted(key));
        without_nul(&member, value)?;
        let path = path_of(key);
        if path.contains('\0') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse(member, "is no name of a kernel parameter");
        }
        belongs_inside(&member, &path, namespaces, domainname)?;
        lowered.push((path, value.clone()));
    }
    Ok(lowered)
}

/// As sysctl(8) reads names: whichever of `.` and `/` comes first separates, and the other one is a part of a name.
fn path_of(key: &str) -> String {
    if key.find(['.', '/']).is_none_or(|i| key.as_bytes()[i] == b'/') {
        return key.to_owned();
    }
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

fn belongs_inside(member: &str, path: &str, namespaces: &Namespaces, domainname: Option<&str>) -> Result<()> {
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        return own(member, "an IPC", &namespaces.ipc);
    }
    if path.starts_with("net/") {
        return own(member, "a network", &namespaces.network);
    }
    match path {
        "kernel/hostname" => refuse(member, "conflicts with the member hostname, which sets it"),
        "kernel/domainname" if domainname.is_some() => refuse(member, "conflicts with the member domainname, which sets it"),
        "kernel/domainname" => own(member, "a UTS", &namespaces.uts),
        _ => refuse(member, "is the host's: no namespace holds it"),
    }
}

fn own(member: &str, kind: &str, namespace: &Namespace) -> Result<()> {
    match namespace {
        Namespace::Host => refuse(member, format!("needs {kind} namespace of the container's own")),
        _ => Ok(()),
    }
}

/// Refuses parameters of a network that is joined but the runtime's own.
pub fn look_at_host(sysctls: &[(String, String)], namespaces: &Namespaces) -> Result<()> {
    let of_network = sysctls.iter().find(|(path, _)| path.starts_with("net/"));
    match (of_network, &namespaces.network) {
        (Some((path, _)), Namespace::Join(joined)) if is_ours(joined)? => {
            refuse(format!("linux.sysctl[{}]", quoted(path)), "the network namespace to join is the runtime's own")
        }
        _ => Ok(()),
    }
}

fn is_ours(path: &Path) -> Result<bool> {
    let id = |path: &Path| metadata(path).map(|m| (m.dev(), m.ino())).io(|| format!("namespace: stat({})", path.display()));
    Ok(id(path)? == id(Path::new("/proc/self/ns/net"))?)
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn names_and_paths() {
        let check = |key: &str, path: &str| assert_eq!(path_of(key), path, "{key}");
        check("net.ipv4.ip_forward", "net/ipv4/ip_forward");
        check("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter");
        check("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter");
        check("net.ipv4../../kernel", "net/ipv4//.//.kernel");
        check("plain", "plain");
    }
}
