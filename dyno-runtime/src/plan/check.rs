//! What a description must be, field by field. Every refusal names the field, the value and the rule.

use std::{collections::BTreeSet, net::Ipv4Addr, path::Path};

use crate::{
    error::{Error, ErrorKind, Result},
    spec::{Allow, Capability, Egress, Identity, Layer, Network, Policy, Sandbox, Upper, Volume},
};

/// Devices that every sandbox has, and what stands in for them at other names.
const OWN_DEVICES: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"];

pub(crate) fn sandbox(sandbox: &Sandbox) -> Result<()> {
    root(sandbox)?;
    process(sandbox)?;
    super::check_limits::limits(&sandbox.limits)?;
    sandbox.volumes.iter().try_for_each(volume)?;
    sandbox.devices.iter().try_for_each(|name| device(name))?;
    for (field, paths) in [("masked", &sandbox.masked), ("read_only", &sandbox.read_only)] {
        for path in paths {
            plain_path(field, path)?;
            check(path != Path::new("/"), field, &path.display(), "must not be / (Upper::ReadOnly makes the whole root read-only)")?;
        }
    }
    identity(&sandbox.identity)?;
    let hostname = &sandbox.hostname;
    let clean = hostname.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
    check(!hostname.is_empty() && hostname.len() <= 64 && clean, "hostname", hostname, "must be 1 to 64 letters, digits, dots or dashes")?;
    network(&sandbox.network, &sandbox.identity)
}

/// `field "value" rule`, unless `ok`.
pub(super) fn check(ok: bool, field: &str, value: &dyn std::fmt::Display, rule: &str) -> Result<()> {
    if ok {
        return Ok(());
    }
    let mut value = value.to_string();
    if value.chars().count() > 80 {
        value = value.chars().take(77).collect::<String>() + "...";
    }
    Err(Error::refused(ErrorKind::Invalid, format!("{field} {value:?} {rule}")))
}

fn plain_path(field: &str, path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let plain = !path.components().any(|c| matches!(c, std::path::Component::ParentDir));
    check(path.is_absolute() && plain && !text.contains('\0') && text.len() < 4096, field, &text, "must be absolute, without .. or NUL")
}

/// Dyno ids become file and cgroup names.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let clean = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    check(
        !id.is_empty() && id.len() <= 64 && clean && !id.starts_with('.'),
        "dyno id",
        &id,
        "must be 1 to 64 letters, digits, dots, dashes or underscores",
    )
}

fn root(sandbox: &Sandbox) -> Result<()> {
    let layers = &sandbox.root.layers;
    check((1..=32).contains(&layers.len()), "root.layers", &layers.len(), "must be 1 to 32 layers")?;
    for layer in layers {
        match layer {
            Layer::Image { path, sha256 } => {
                plain_path("image path", path)?;
                let hex = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                check(hex, "image sha256", sha256, "must be 64 lowercase hexadecimal digits")?;
            }
            Layer::Directory(path) => plain_path("layer directory", path)?,
            Layer::UpperOf(id) => check_id(id)?,
        }
    }
    match &sandbox.root.upper {
        Upper::Tmpfs { bytes, inodes } => {
            check(*bytes >= 64 << 10, "root.upper.bytes", bytes, "must be at least 64 KiB")?;
            check(*inodes >= 16, "root.upper.inodes", inodes, "must be at least 16")
        }
        Upper::Disk { directory, bytes, inodes } => {
            plain_path("root.upper.directory", directory)?;
            check((4 << 20..=1 << 44).contains(bytes), "root.upper.bytes", bytes, "must be 4 MiB to 16 TiB")?;
            let most = (bytes / 1024).min(u32::MAX.into());
            check((64..=most).contains(inodes), "root.upper.inodes", inodes, "must be at least 64, at most one per KiB of its size, and below 2^32")
        }
        Upper::ReadOnly => Ok(()),
    }
}

fn process(sandbox: &Sandbox) -> Result<()> {
    command(&sandbox.argv, sandbox.env.iter())?;
    cwd(&sandbox.cwd)
}

/// Arguments and environment of anything that is executed.
pub(crate) fn command<'a>(argv: &[String], env: impl Iterator<Item = (&'a String, &'a String)>) -> Result<()> {
    check(argv.first().is_some_and(|a| !a.is_empty()), "argv", &argv.len(), "must start with a program")?;
    for argument in argv {
        check(!argument.contains('\0'), "argv", argument, "must not hold a NUL byte")?;
    }
    for (name, value) in env {
        check(!name.is_empty() && !name.contains(['=', '\0']), "env", name, "must be a name without = or NUL")?;
        check(!value.contains('\0'), "env", name, "must not have a value with a NUL byte")?;
        // execve(2): one string may have 128 KiB (MAX_ARG_STRLEN).
        check(name.len() + value.len() + 2 <= 131_072, "env", name, "must not be longer than 128 KiB (execve)")?;
    }
    Ok(())
}

/// A working directory.
pub(crate) fn cwd(path: &Path) -> Result<()> {
    plain_path("cwd", path)?;
    check(!path.starts_with("/proc"), "cwd", &path.display(), "must not be under /proc (CVE-2024-21626)")
}

/// Ids and groups.
pub(crate) fn identity(identity: &Identity) -> Result<()> {
    const RULE: &str = "must be below 65536, the size of a dyno's id range";
    for (field, id) in [("uid", identity.uid), ("gid", identity.gid)] {
        check(id < 65536, field, &id, RULE)?;
    }
    check(identity.groups.len() <= 64, "groups", &identity.groups.len(), "must be at most 64")?;
    identity.groups.iter().try_for_each(|id| check(*id < 65536, "groups", id, RULE))
}

fn volume(volume: &Volume) -> Result<()> {
    let target = volume.target();
    plain_path("volume target", target)?;
    check(!target.starts_with("/proc") && target != Path::new("/"), "volume target", &target.display(), "must not be / or under /proc")?;
    match volume {
        Volume::Bind { source, .. } => plain_path("volume source", source),
        Volume::Tmpfs { bytes, inodes, .. } => {
            check(*bytes >= 4096, "volume bytes", bytes, "must be at least 4096")?;
            check(*inodes >= 2, "volume inodes", inodes, "must be at least 2")
        }
    }
}

fn device(name: &str) -> Result<()> {
    let parts = || name.split('/');
    let clean = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
    };
    check(parts().all(clean) && name.len() < 200, "devices", &name, "must be a name below /dev, such as fuse or net/tun")?;
    check(!parts().next().is_some_and(|first| OWN_DEVICES.contains(&first)), "devices", &name, "is one that every sandbox has of its own")
}

fn network(network: &Network, identity: &Identity) -> Result<()> {
    match network {
        Network::Private | Network::Host => Ok(()),
        Network::Joined(id) => check_id(id),
        Network::Egress(egress) => {
            let admin = identity.capabilities.contains(&Capability::NET_ADMIN);
            check(!admin, "identity.capabilities", &"NET_ADMIN", "cannot go with network.egress: it could change the rules that hold it")?;
            check_egress(egress)
        }
    }
}

fn check_egress(egress: &Egress) -> Result<()> {
    if let Policy::List(list) = &egress.policy {
        check((1..=256).contains(&list.len()), "network.egress.policy", &list.len(), "must list 1 to 256 things (Nothing is a policy of its own)")?;
        list.iter().try_for_each(check_allow)?;
    }
    check(egress.dns.len() <= 3, "network.egress.dns", &egress.dns.len(), "must be at most 3 (resolv.conf)")?;
    for server in &egress.dns {
        check(
            !server.is_loopback() && !server.is_unspecified() && !server.is_multicast(),
            "network.egress.dns",
            server,
            "must be an address that is reachable from another network",
        )?;
    }
    let mut taken = BTreeSet::new();
    for publish in &egress.publish {
        check(publish.host_port != 0 && publish.port != 0, "network.egress.publish", &0, "is no port")?;
        check(
            taken.insert((publish.host_port, publish.protocol as u8, publish.address)),
            "network.egress.publish",
            &publish.host_port,
            "is published twice",
        )?;
    }
    Ok(())
}

fn check_allow(allow: &Allow) -> Result<()> {
    let (address, length) = allow.net.split_once('/').unwrap_or((&allow.net, "32"));
    let parsed = address.parse::<Ipv4Addr>().ok().zip(length.parse::<u32>().ok().filter(|n| *n <= 32));
    let (address, length) = parsed
        .ok_or_else(|| check(false, "network.egress.net", &allow.net, "must be an IPv4 address or network, such as 198.51.100.0/24").unwrap_err())?;
    let host_bits = u32::MAX.checked_shr(length).unwrap_or(0);
    check(u32::from(address) & host_bits == 0, "network.egress.net", &allow.net, "must have no bits set beyond its prefix")?;
    let Some(ports) = &allow.ports else { return Ok(()) };
    check(
        *ports.start() > 0 && ports.start() <= ports.end(),
        "network.egress.ports",
        &format!("{}-{}", ports.start(), ports.end()),
        "must be a range of ports from 1 to 65535",
    )
}
